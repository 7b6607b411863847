"""Profiles: their bins and their peaks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from cygnoreco.measure.profile import Profile, bin_edges, find_peaks, main_peak


def profile_of(contents, edges=None):
    contents = np.asarray(contents, float)
    edges = np.arange(len(contents) + 1.0) if edges is None else np.asarray(edges, float)
    return Profile(edges, contents, np.abs(contents), 0.0, 0.0)


def test_whole_bins_have_enough_pixels_and_cover_everything():
    rng = np.random.default_rng(1)
    for _ in range(50):
        pixels = rng.integers(0, 20, rng.integers(1, 60))
        edges = bin_edges(pixels, 25.0, True)
        assert edges[0] == 0
        assert edges[-1] == len(pixels)
        assert (np.diff(edges) > 0).all()
        sums = np.add.reduceat(pixels, edges[:-1])
        assert sums.sum() == pixels.sum()
        assert (sums >= 25).all() or len(sums) == 1


def test_whole_bins_are_no_wider_than_needed():
    assert bin_edges(np.array([10, 10, 10, 30, 25, 4]), 25.0, True).tolist() == [0, 3, 4, 6]


def test_dropping_bins_forget_their_first_column():
    """After the first bin a bin of columns of 12 pixels needs 25 besides its first column: four columns."""
    assert bin_edges(np.full(13, 12), 25.0, False).tolist() == [0, 3, 7, 11, 13]


def assert_like_scipy(y, height, distance, prominence, width):
    peaks, expected = signal.find_peaks(y, height=height, distance=distance, prominence=prominence, width=width)
    found, prominences, left, right = find_peaks(y, height, prominence, width, distance)
    assert found.tolist() == peaks.tolist()
    np.testing.assert_array_equal(prominences, expected["prominences"])
    np.testing.assert_allclose(left, expected["left_ips"], rtol=1e-14)
    np.testing.assert_allclose(right, expected["right_ips"], rtol=1e-14)
    return len(peaks)


def test_peaks_of_rough_curves_are_scipys():
    rng = np.random.default_rng(4)
    n_peaks = 0
    for _ in range(300):
        y = np.convolve(rng.normal(10, 20, rng.integers(6, 150)), np.ones(rng.integers(1, 6)))
        n_peaks += assert_like_scipy(y, 3.0, 6, 2.0, rng.choice([0.0, 2.0]))
    assert n_peaks > 500


def test_peaks_with_plateaus_and_equal_heights_are_scipys():
    """Few integer heights make plateaus and ties everywhere; with a distance of 1 no tie has to be broken."""
    rng = np.random.default_rng(5)
    n_peaks = 0
    for _ in range(500):
        y = rng.integers(0, 5, rng.integers(1, 40)).astype(float)
        n_peaks += assert_like_scipy(y, 1.0, 1, 0.0, 0.0)
    assert n_peaks > 1000


def test_of_two_equal_peaks_too_near_the_later_one_stays():
    y = np.array([0.0, 5, 0, 5, 0, 0, 0, 0, 0, 4, 0])
    assert find_peaks(y, 0.0, 0.0, 0.0, 6.0)[0].tolist() == [3, 9]


@pytest.mark.parametrize("y", [[], [1.0], [1.0, 2.0], [2.0, 2.0, 2.0], [5.0, 1.0, 0.0], [0.0, 1.0, 5.0]])
def test_no_peaks(y):
    assert len(find_peaks(np.array(y, float), -10.0, 0.0, 0.0, 1.0)[0]) == 0


def test_main_peak_highest_or_last():
    contents = [0, 25, 40, 25, 0, 0, 0, 3, 15, 20, 15, 3, 0]
    highest = main_peak(profile_of(contents), 3.0, 2.0, 2.0, 6.0, True, True)
    last = main_peak(profile_of(contents), 3.0, 2.0, 2.0, 6.0, False, True)
    assert (highest.amplitude, highest.mean) == (40.0, 2.5)
    assert (last.amplitude, last.mean, last.prominence) == (20.0, 9.5, 20.0)


def test_width_in_pixels_follows_the_bins():
    contents = [0, 10, 20, 10, 0]
    bins = main_peak(profile_of(contents, [0, 1, 2, 3, 4, 5]), 3.0, 2.0, 2.0, 6.0, True, False)
    wide = main_peak(profile_of(contents, [0, 3, 6, 9, 12, 15]), 3.0, 2.0, 2.0, 6.0, True, True)
    uneven = main_peak(profile_of(contents, [0, 1, 2, 3, 9, 10]), 3.0, 2.0, 2.0, 6.0, True, True)
    assert bins.fwhm == 2.0
    assert wide.fwhm == 6.0
    assert uneven.fwhm == 6.0 - 1.5  # from the centre of the second bin to that of the fourth
