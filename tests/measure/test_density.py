"""The density calibration against numbers by hand and against its definition, written plainly."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cygnoreco.errors import InputError
from cygnoreco.measure.density import density_calibration, energy_per_count, slice_clusters
from cygnoreco.measure.skeleton import prune, thin
from cygnoreco.stage import stage_of

#: f(6 ADU per pixel), from x = 4.
F6 = (0.132 + 1.22 * 4) / (130283 * (1 - exp(-(4**0.56757) / 117038))) / 1.2


def cluster(macro_pixels, counts=6.0, r=4):
    """One cluster of the set macro-pixels of an image, all pixels with the same counts."""
    rows, cols = np.nonzero(macro_pixels)
    z = np.full((len(rows), r, r), float(counts))
    return rows.astype(np.int32), cols.astype(np.int32), np.array([0, len(rows)]), z


def noisy(seed, size=40, r=4):
    """A random cluster of any shape, in several pieces as like as not, its counts of both signs and some of them 0."""
    random = np.random.default_rng(seed)
    shape = random.integers(1, size, 2)
    noise = ndimage.gaussian_filter(random.normal(size=shape), random.uniform(0.3, 5.0))
    rows, cols, offsets, z = cluster(noise >= np.median(noise), r=r)
    z += random.normal(random.choice([-6.0, -3.0, 5.0]), 4.0, z.shape)
    z[random.random(z.shape) < 0.02] = 0.0
    return rows + np.int32(7), cols + np.int32(11), offsets, z


def disc(radius, size):
    """A round image."""
    rows, cols = np.mgrid[:size, :size]
    return np.hypot(rows - size // 2, cols - size // 2) <= radius


def plain_slices(rows, cols, z, short, radius=30.0, threshold=2.25, prunings=10):
    """Sum, bright pixels and centre of every slice, and the skeleton: the definition with a full image and no grid."""
    r = z.shape[1]
    shift = int(short)
    first_row, first_col = rows.min() * r + shift, cols.min() * r + shift
    counts = np.zeros(((rows.max() + 1) * r - first_row, (cols.max() + 1) * r - first_col))
    image = np.zeros(counts.shape, bool)
    for row, col, block in zip(rows, cols, z, strict=True):
        for i, j in np.ndindex(r, r):
            counts[r * row + i - first_row, r * col + j - first_col] = block[i, j]
            image[r * row + i - first_row, r * col + j - first_col] = not short or block[i, j] != 0

    skeleton = thin(image)
    if short:
        rim = skeleton.copy()
        rim[1:-1, 1:-1] = False
        for _ in range(prunings):
            skeleton = prune(skeleton, 1) | (rim & skeleton)
    else:
        skeleton = prune(skeleton, prunings)

    grid = np.indices(image.shape)
    free, points, found = image.copy(), skeleton.copy(), []
    while points.any():
        centre = np.argwhere(points)[-1]
        inside = ((grid - centre[:, None, None]) ** 2).sum(axis=0) <= radius**2
        members = counts[inside & free]
        found.append((members.sum(), (members > threshold).sum(), centre[0] + first_row, centre[1] + first_col))
        free &= ~inside
        points &= ~inside
    return found, skeleton


def test_off_by_default():
    rows, cols, _, z = cluster(np.ones((3, 2)))
    energy, pathlength = density_calibration(rows, cols, np.array([0, 4, 6]), z)
    assert energy.tolist() == pathlength.tolist() == [-1.0, -1.0]
    assert energy.dtype == pathlength.dtype == np.float64


def test_no_cluster_gives_no_energy():
    nothing = np.empty(0, np.int32)
    energy, pathlength = density_calibration(nothing, nothing, np.zeros(1, int), np.empty((0, 4, 4)), enabled=True)
    assert energy.shape == pathlength.shape == (0,)


def test_the_formula_by_hand():
    """x = 4: 4**0.56757 = 2.19640, light 2.44494, numerator 5.012; x = 1 and no density beside it."""
    assert energy_per_count([6.0, 1.5, 0.0]) == pytest.approx([1.708291, 1.012130, 0.85], rel=1e-5)
    assert energy_per_count([6.0])[0] == pytest.approx(F6, rel=1e-9)


@pytest.mark.parametrize("image", [disc(6, 15), np.ones((1, 100)), np.eye(50), disc(28, 60)])
def test_uniform_density_gives_integral_times_f(image):
    rows, cols, offsets, z = cluster(image)
    energy, _ = density_calibration(rows, cols, offsets, z, enabled=True)
    assert energy == pytest.approx([z.size * 6.0 * F6 / 1000.0], rel=1e-9)


@pytest.mark.parametrize(("counts", "kev"), [(2.25, 16 * 12 * 2.25 * 0.85e-3), (-3.0, 0.0)])
def test_faint_and_negative_slices(counts, kev):
    """No pixel above the threshold: the factor of an empty slice; a negative sum counts as none."""
    energy, _ = density_calibration(*cluster(np.ones((3, 4)), counts), enabled=True)
    assert energy == pytest.approx([kev])


def test_slices_are_corrected_one_by_one():
    """A bar of 397 skeleton pixels, 377 after pruning; its right half is twice as bright."""
    rows, cols, offsets, z = cluster(np.ones((1, 100)))
    z[cols >= 50] *= 2.0
    (slices,) = slice_clusters(rows, cols, offsets, z)
    assert slices.cols.tolist() == list(range(387, 386 - 377, -31))
    density = slices.integral / slices.bright
    assert density.max() == 12.0
    assert density.min() == 6.0
    energy, _ = density_calibration(rows, cols, offsets, z, enabled=True)
    assert energy == pytest.approx([(slices.integral * energy_per_count(density)).sum() / 1000.0])
    of_the_whole = z.sum() * energy_per_count([9.0])[0] / 1000.0
    assert energy[0] > 1.01 * of_the_whole


@pytest.mark.parametrize("path", ["euclidean", "pixels"])
def test_length_and_slices_of_a_straight_line(path):
    """400 pixels: 3 fewer for the width of 4, 2 x 10 pruned; a slice every 31 pixels."""
    line = np.ones((1, 100))
    for image in (line, line.T):
        arrays = cluster(image)
        _, pathlength = density_calibration(*arrays, enabled=True, path=path)
        assert pathlength.tolist() == [377.0]
        (slices,) = slice_clusters(*arrays)
        assert slices.bright.size == int(np.ceil(377 / 31))


def test_length_along_the_diagonal_of_a_sensor():
    """A muon from corner to corner, some 40 pixels wide: its length less the pruned ends and the width."""
    rows, cols = np.mgrid[:576, :576]
    arrays = cluster(np.abs(rows - cols) <= 7)
    _, euclidean = density_calibration(*arrays, enabled=True)
    _, pixels = density_calibration(*arrays, enabled=True, path="pixels")
    assert 2304 - 100 < pixels[0] < 2304
    assert euclidean[0] == pytest.approx(np.sqrt(2.0) * pixels[0], rel=0.01)


def test_a_ring_has_no_ends():
    image = disc(26.5, 60) & ~disc(23.5, 60)
    _, pathlength = density_calibration(*cluster(image), enabled=True)
    _, unpruned = density_calibration(*cluster(image), enabled=True, prunings=0)
    assert pathlength[0] == pytest.approx(2 * np.pi * 100, rel=0.08)
    assert unpruned[0] == pathlength[0]


def test_a_round_spot_is_one_slice_with_its_centre_in_the_middle():
    (slices,) = slice_clusters(*cluster(disc(6.5, 15)))
    assert slices.n_skeleton == 1
    assert slices.n_diagonal == 0
    assert slices.rows[0] == pytest.approx(4 * 7 + 1.5, abs=1)
    assert slices.cols[0] == pytest.approx(4 * 7 + 1.5, abs=1)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), r=st.integers(1, 4), matrix=st.sampled_from(["full", "short"]))
def test_slices_equal_the_plain_definition(seed, r, matrix):
    rows, cols, offsets, z = noisy(seed, r=r)
    (slices,) = slice_clusters(rows, cols, offsets, z, matrix=matrix, coverage="discs")
    if matrix == "short" and min(np.ptp(rows), np.ptp(cols)) == 0 and r == 1:
        assert slices.n_skeleton == slices.bright.size == 0  # nothing is left of a single row or column of pixels
        return
    expected, skeleton = plain_slices(rows, cols, z, matrix == "short")
    integral, bright, centre_rows, centre_cols = np.array(expected, float).reshape(-1, 4).T
    np.testing.assert_allclose(slices.integral, integral, rtol=1e-9, atol=1e-9)
    assert slices.bright.tolist() == bright.tolist()
    assert slices.rows.tolist() == centre_rows.tolist()
    assert slices.cols.tolist() == centre_cols.tolist()
    assert slices.n_skeleton == skeleton.sum()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_pixel_counts_once_and_joins_the_nearest_centre(seed):
    rows, cols, offsets, z = noisy(seed)
    (discs,) = slice_clusters(rows, cols, offsets, z, coverage="discs")
    (everything,) = slice_clusters(rows, cols, offsets, z)
    assert everything.integral.sum() == pytest.approx(z.sum(), abs=1e-6)
    assert everything.bright.sum() == (z > 2.25).sum()
    if discs.rows.size == 0:
        assert everything.bright.size == 1
        return
    pixel_rows, pixel_cols = (
        (4 * macro[:, None, None] + np.indices((4, 4))[axis]).ravel() for axis, macro in enumerate((rows, cols))
    )
    distance2 = (pixel_rows[:, None] - discs.rows) ** 2 + (pixel_cols[:, None] - discs.cols) ** 2
    uncovered = distance2.min(axis=1) > 30.0**2
    expected = discs.integral.copy()
    np.add.at(expected, distance2[uncovered].argmin(axis=1), z.ravel()[uncovered])
    np.testing.assert_allclose(everything.integral, expected, rtol=1e-9, atol=1e-9)


def test_a_cluster_whose_skeleton_is_pruned_away_keeps_its_energy():
    arrays = cluster(np.ones((1, 12)), r=1)
    lost, _ = density_calibration(*arrays, enabled=True, coverage="discs")
    energy, pathlength = density_calibration(*arrays, enabled=True)
    assert lost[0] == 0.0
    assert energy == pytest.approx([12 * 6.0 * F6 / 1000.0])
    assert pathlength[0] == 0.0


def test_short_matrix_loses_a_row_and_a_column():
    """A square of 8 x 8 becomes 7 x 7: the first row and column are overwritten by the last."""
    rows, cols, offsets, z = cluster(np.ones((2, 2)))
    z[...] = 1.0
    z[rows == 1, -1, :] = 100.0
    energy = {
        matrix: slice_clusters(rows, cols, offsets, z, matrix=matrix)[0].integral.sum() for matrix in ("full", "short")
    }
    assert energy == {"full": 56 + 8 * 100.0, "short": 42 + 7 * 100.0}


def test_pixels_without_counts_are_holes_in_the_short_matrix_only():
    rows, cols, offsets, z = cluster(np.ones((5, 5)))
    z[12] = 0.0
    (full,) = slice_clusters(rows, cols, offsets, z)
    (short,) = slice_clusters(rows, cols, offsets, z, matrix="short")
    assert full.n_skeleton == 1
    assert short.n_skeleton > 30


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), down=st.integers(0, 500), right=st.integers(0, 500))
def test_a_shift_moves_the_centres_and_nothing_else(seed, down, right):
    rows, cols, offsets, z = noisy(seed)
    here = density_calibration(rows, cols, offsets, z, enabled=True)
    there = density_calibration(rows + down, cols + right, offsets, z, enabled=True)
    np.testing.assert_array_equal(here, there)
    (centred,) = slice_clusters(rows, cols, offsets, z)
    (moved,) = slice_clusters(rows + down, cols + right, offsets, z)
    assert (moved.rows - centred.rows == 4 * down).all()
    assert (moved.cols - centred.cols == 4 * right).all()


def test_clusters_do_not_see_each_other():
    parts = [noisy(seed) for seed in range(4)]
    rows, cols, z = (np.concatenate([part[which] for part in parts]) for which in (0, 1, 3))
    offsets = np.cumsum([0] + [len(part[0]) for part in parts])
    together = np.array(density_calibration(rows, cols, offsets, z, enabled=True))
    apart = np.hstack([density_calibration(*part, enabled=True) for part in parts])
    np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.zeros((4, 4, 3))}, r"expected \(m,\), \(m,\) and \(m, r, r\)"),
        ({"z": np.zeros((3, 4, 4))}, "expected"),
        ({"rows": np.zeros(5, np.int32)}, "expected"),
        ({"offsets": np.array([0, 3])}, "rise from 0 to 4"),
        ({"offsets": np.array([0, 2, 2, 4])}, "no cluster empty"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    arrays = dict(zip(("rows", "cols", "offsets", "z"), cluster(np.ones((2, 2))), strict=True)) | change
    with pytest.raises(InputError, match=message):
        density_calibration(**arrays, enabled=True)


def test_the_stage_checks_its_parameters():
    described = stage_of(density_calibration)
    assert described.name == "energy"
    assert described.validate({"enabled": True, "matrix": "short"})["matrix"] == "short"
    for bad in ({"slice_radius": 0.0}, {"prunings": -1}, {"matrix": "shrot"}, {"coverage": "most"}):
        with pytest.raises(InputError, match=next(iter(bad))):
            described.validate(bad)
