"""Profiles: the light of a cluster along one direction, its bins, its moments and its peaks.

A profile covers its direction from the first pixel (0) to the last (its length, px). Its bins join whole columns, one
pixel wide, until a bin has enough pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Profile(NamedTuple):
    """A one-dimensional histogram of counts.

    Attributes
    ----------
    edges : ndarray, shape (n + 1,), float64
        Bin edges, px from the first pixel.
    contents : ndarray, shape (n,), float64
        Counts in the bins, ADU, rounded to single precision on the way as a ROOT ``TH1F`` rounds them.
    squares : ndarray, shape (n,), float64
        Sums of squared counts: squares of the bins' errors.
    mean, rms : float
        Unbinned moments of the position, weighted with the counts, px; 0 where the counts sum to 0. The RMS is 0 where
        negative counts make the variance negative.
    """

    edges: NDArray[np.float64]
    contents: NDArray[np.float64]
    squares: NDArray[np.float64]
    mean: float
    rms: float


class Peak(NamedTuple):
    """A peak of a profile: its height and prominence (ADU), position (px) and full width at half prominence."""

    amplitude: float
    prominence: float
    mean: float
    fwhm: float


@njit(nogil=True, cache=True)
def moments(total: float, first: float, second: float) -> tuple[float, float]:
    """Mean and RMS from sums of w, w x and w x**2; see :class:`Profile` for the exceptions."""
    if total == 0.0:
        return 0.0, 0.0
    mean = first / total
    return mean, np.sqrt(max(second / total - mean * mean, 0.0))


@njit(nogil=True, cache=True)
def bin_edges(pixels: NDArray[np.int64], min_pixels: float, whole: bool) -> NDArray[np.int64]:
    """Join columns to bins that hold enough pixels.

    Parameters
    ----------
    pixels : ndarray, shape (n,), int64
        Number of pixels in each column.
    min_pixels : float
        Fewest pixels in a bin.
    whole : bool
        True: every bin has at least `min_pixels`, the last one takes the rest. False: a column that begins a bin is
        not counted, and the last bin takes what is left.

    Returns
    -------
    ndarray, int64
        Columns at which the bins begin, and the end of the last one.
    """
    edges = np.empty(len(pixels) + 1, np.int64)
    edges[0] = 0
    n_edges = 1
    count = 0
    for column in range(len(pixels)):
        if count < min_pixels:
            count += pixels[column]
            continue
        edges[n_edges] = column
        n_edges += 1
        count = pixels[column] if whole else 0
    if whole and count < min_pixels and n_edges > 1:
        n_edges -= 1
    edges[n_edges] = len(pixels)
    return edges[: n_edges + 1].copy()


@njit(nogil=True, cache=True)
def find_peaks(
    y: NDArray[np.float64], height: float, prominence: float, width: float, distance: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Find the peaks of a curve; the same as ``scipy.signal.find_peaks``.

    A peak is a sample, or the middle of a plateau, that is higher than both its neighbours. The cuts are applied in
    this order: height, distance, prominence, width.

    Parameters
    ----------
    y : ndarray, shape (n,), float64
        The curve.
    height : float
        Least height of a peak.
    prominence : float
        Least height above the higher of the two valleys that part it from higher ground.
    width : float
        Least width at half the prominence, samples.
    distance : float
        Of two peaks that are nearer than this, samples, the lower one goes; of two equals the earlier one.

    Returns
    -------
    peaks : ndarray, int64
        Their samples, rising.
    prominences : ndarray, float64
        Their prominences.
    left, right : ndarray, float64
        Interpolated samples where the curve crosses half the prominence.
    """
    peaks = _local_maxima(y)
    peaks = peaks[y[peaks] >= height]
    peaks = peaks[_far_apart(peaks, y[peaks], distance)]
    prominences = np.empty(len(peaks))
    left, right = np.empty(len(peaks)), np.empty(len(peaks))
    for k in range(len(peaks)):
        prominences[k], left[k], right[k] = _prominence(y, peaks[k])
    good = (prominences >= prominence) & (right - left >= width)
    return peaks[good], prominences[good], left[good], right[good]


@njit(nogil=True, cache=True)
def _local_maxima(y: Any) -> Any:
    """Find the samples higher than both neighbours; of a plateau the middle one, rounded down. The ends never count."""
    found = np.empty(len(y), np.int64)
    n = 0
    rise = -1  # where the ground last rose: the first sample of a plateau, or -1
    for i in range(1, len(y)):
        if y[i] > y[i - 1]:
            rise = i
        elif y[i] < y[i - 1]:
            if rise > 0:
                found[n] = (rise + i - 1) // 2
                n += 1
            rise = -1
    return found[:n].copy()


@njit(nogil=True, cache=True)
def _far_apart(peaks: Any, heights: Any, distance: float) -> Any:
    """Mark the peaks that have no higher one nearer than `distance`, judged from the highest down."""
    keep = np.ones(len(peaks), np.bool_)
    for j in np.argsort(heights, kind="mergesort")[::-1]:
        if not keep[j]:
            continue
        k = j - 1
        while k >= 0 and peaks[j] - peaks[k] < distance:
            keep[k] = False
            k -= 1
        k = j + 1
        while k < len(peaks) and peaks[k] - peaks[j] < distance:
            keep[k] = False
            k += 1
    return keep


@njit(nogil=True, cache=True)
def _prominence(y: Any, peak: int) -> tuple[float, float, float]:
    """Prominence of a peak, and where the curve crosses half of it on the left and on the right."""
    first, last = peak, peak  # lowest samples before higher ground on either side, the nearest of equals
    i = peak
    while i >= 0 and y[i] <= y[peak]:
        if y[i] < y[first]:
            first = i
        i -= 1
    i = peak
    while i < len(y) and y[i] <= y[peak]:
        if y[i] < y[last]:
            last = i
        i += 1
    prominence = y[peak] - max(y[first], y[last])

    level = y[peak] - 0.5 * prominence
    i = peak
    while i > first and y[i] > level:
        i -= 1
    left = i + (level - y[i]) / (y[i + 1] - y[i]) if y[i] < level else float(i)
    i = peak
    while i < last and y[i] > level:
        i += 1
    right = i - (level - y[i]) / (y[i - 1] - y[i]) if y[i] < level else float(i)
    return prominence, left, right


@njit(nogil=True, cache=True)
def main_peak(
    profile: Profile,
    height: float,
    prominence: float,
    width: float,
    distance: float,
    highest: bool,
    in_pixels: bool,
) -> Peak:
    """Find the peak that stands for a profile.

    Parameters
    ----------
    profile : Profile
        The profile.
    height, prominence, width, distance : float
        Of :func:`find_peaks`, ADU and bins.
    highest : bool
        The highest one (the first of equals), or else the last one.
    in_pixels : bool
        Full width in pixels, or else in bins.

    Returns
    -------
    Peak
        All four -999 without a peak.
    """
    peaks, prominences, left, right = find_peaks(profile.contents, height, prominence, width, distance)
    if len(peaks) == 0:
        return Peak(-999.0, -999.0, -999.0, -999.0)
    k = np.argmax(profile.contents[peaks]) if highest else len(peaks) - 1
    centres = 0.5 * (profile.edges[:-1] + profile.edges[1:])
    if in_pixels:
        fwhm = _between(centres, right[k]) - _between(centres, left[k])
    else:
        fwhm = right[k] - left[k]
    return Peak(profile.contents[peaks[k]], prominences[k], centres[peaks[k]], fwhm)


@njit(nogil=True, cache=True)
def _between(centres: Any, sample: float) -> float:
    """Position of a fractional sample: linear between the centres of the two bins around it."""
    k = min(int(sample), len(centres) - 2)
    return centres[k] + (sample - k) * (centres[k + 1] - centres[k])
