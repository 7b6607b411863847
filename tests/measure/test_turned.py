"""Clusters in the frame of their axes: the plain definition, and the kernel that gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.measure.profile import main_peak
from cygnoreco.measure.turned import Frame, extent, profiles_and_map
from tests.measure.plain_turned import fill_profile, map_rms, rotate


def random_cluster(rng, size):
    """Distinct macro-pixels in raster order, and the counts of their pixels, some of them negative."""
    spread = rng.uniform(0.3, 12.0, 2)
    cells = np.unique(rng.normal(0, spread, (rng.integers(2, 150), 2)).round().astype(np.int32) + 300, axis=0)
    return cells[:, 0].copy(), cells[:, 1].copy(), rng.normal(4.0, 6.0, (len(cells), size, size))


@pytest.mark.parametrize("rows_first", [True, False])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_kernel_has_the_bits_of_the_plain_definition(rows_first, whole, overwrite):
    """All directions, those along a side and a diagonal too; memory of the map that holds what was there before."""
    rng = np.random.default_rng(1)
    writer = rng.integers(0, 50, 200_000 if overwrite else 0).astype(np.int32)
    for k in range(40):
        size = int(rng.integers(1, 6))
        x, y, z = random_cluster(rng, size)
        angle = k * np.pi / 4 if k < 8 else rng.uniform(-np.pi, np.pi)
        pivot = rng.choice([x.mean(), x.mean() * size]), y.mean()
        origin = rng.choice([0.0, pivot[0], -7.5]), rng.choice([0.0, pivot[1]])
        frame = Frame(size, np.cos(angle), np.sin(angle), *pivot, *origin, rows_first)
        along, across = rotate(x, y, frame)
        found = extent(x, y, frame)
        assert found == (along.min(), along.max(), across.min(), across.max())

        turned = profiles_and_map(x, y, z, 2.5, frame, found, 25.0, 11.0, whole, writer)
        counts = z.ravel()
        for ours, positions, least in ((turned.long, along, 25.0), (turned.lat, across, 11.0)):
            for mine, plain in zip(ours, fill_profile(positions, counts, least, whole), strict=True):
                np.testing.assert_array_equal(mine, plain)
        assert (turned.map_long, turned.map_lat) == map_rms(along, across, counts, overwrite)
        assert turned.deviations == pytest.approx(((counts - 2.5) ** 2).sum())


def test_rotation_keeps_distances_and_pixel_order():
    x, y = np.array([3, 3, 4], np.int32), np.array([7, 8, 8], np.int32)
    along, across = rotate(x, y, Frame(2, 0.6, 0.8, 6.0, 14.0, 100.0, -50.0, True))
    px = np.repeat(x, 4) * 2 + np.tile([0, 0, 1, 1], 3)
    py = np.repeat(y, 4) * 2 + np.tile([0, 1, 0, 1], 3)
    np.testing.assert_allclose(along, 100 + 0.6 * (px - 6) + 0.8 * (py - 14))
    np.testing.assert_allclose(across, -50 - 0.8 * (px - 6) + 0.6 * (py - 14))
    swapped, _ = rotate(x, y, Frame(2, 0.6, 0.8, 6.0, 14.0, 100.0, -50.0, False))
    np.testing.assert_allclose(np.sort(swapped), np.sort(along))
    assert swapped[1] != along[1]


def test_map_adds_or_overwrites():
    """Two pixels in one bin, one alone 4 px further on."""
    along, across = np.array([0.0, 0.2, 4.0]), np.array([0.0, 0.1, 0.0])
    counts = np.array([5.0, 1.0, 3.0])

    def rms(weights):
        mean = 4 * weights[1] / sum(weights)
        return np.sqrt((weights[0] * mean**2 + weights[1] * (4 - mean) ** 2) / sum(weights))

    assert map_rms(along, across, counts, False) == pytest.approx((rms([6, 3]), 0.0))
    assert map_rms(along, across, counts, True) == pytest.approx((rms([1, 3]), 0.0))


def test_whole_profile_holds_all_counts():
    rng = np.random.default_rng(2)
    positions, counts = rng.uniform(-30, 70, 1500), rng.normal(3, 2, 1500)
    profile = fill_profile(positions, counts, 25.0, True)
    x = positions - positions.min()
    expected, _ = np.histogram(x, profile.edges, weights=counts)
    np.testing.assert_allclose(profile.contents, expected, rtol=1e-5)
    np.testing.assert_allclose(profile.squares, np.histogram(x, profile.edges, weights=counts**2)[0])
    assert profile.contents.sum() == pytest.approx(counts.sum(), rel=1e-5)
    assert profile.mean == pytest.approx(np.average(x, weights=counts))
    assert profile.rms == pytest.approx(np.sqrt(np.average((x - profile.mean) ** 2, weights=counts)))


@pytest.mark.parametrize("shift", [0.0, -40.0, -200.5])
def test_dropping_profile_counts_truncated_columns(shift):
    """Bins from the walk over truncated coordinates, which join -1 and 1 at 0; pixels in the last column are out."""
    rng = np.random.default_rng(3)
    positions, counts = rng.uniform(0, 80, 1500) + shift, rng.normal(3, 2, 1500)
    profile = fill_profile(positions, counts, 25.0, False)

    columns = np.trunc(positions).astype(int)
    per_column = np.bincount(columns - columns.min())
    edges, waiting = [0], 0
    for column, n in enumerate(per_column[:-1]):
        if waiting < 25:
            waiting += n
        else:
            edges.append(column)
            waiting = 0
    edges.append(len(per_column) - 1)
    assert profile.edges.tolist() == edges
    x = positions - positions.min()
    inside = x < edges[-1]
    assert inside.all() == (shift == -200.5)  # truncation shortens a profile at its end, or at its negative start
    np.testing.assert_allclose(profile.contents, np.histogram(x[inside], edges, weights=counts[inside])[0], rtol=1e-5)
    assert profile.mean == pytest.approx(np.average(x[inside], weights=counts[inside]))


def test_negative_variance_is_an_rms_of_zero():
    positions, counts = np.array([0.0, 5.0, 10.0]), np.array([-1.0, 3.0, -1.0])
    profile = fill_profile(positions, counts, 1.0, True)
    assert profile.mean == 5.0
    assert profile.rms == 0.0


def test_single_column():
    whole = fill_profile(np.full(4, 7.0), np.ones(4), 25.0, True)
    assert whole.contents.tolist() == [4.0]
    dropping = fill_profile(np.full(4, 7.0), np.ones(4), 25.0, False)
    assert len(dropping.contents) == 0
    assert main_peak(dropping, 3.0, 2.0, 2.0, 6.0, True, True).amplitude == -999
