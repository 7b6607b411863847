"""Thinning against scikit-image, pruning against its eight masks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from skimage import morphology

from cygnoreco.measure.skeleton import prune, thin

images = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20))


def blobs(seed, shape, smoothing):
    """Smooth random shapes, from coarse noise to large blobs with holes."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, smoothing) > 0


def track(seed, size, width):
    """A random walk of straight pieces, as wide as a track."""
    corners = np.random.default_rng(seed).integers(0, size, (5, 2))
    image = np.zeros((size, size), bool)
    for start, stop in pairwise(corners):
        points = np.rint(np.linspace(start, stop, 2 * size)).astype(int)
        image[points[:, 0], points[:, 1]] = True
    return ndimage.distance_transform_edt(~image) <= width / 2


def masks():
    """The end-point masks as (must be set, must be clear): two and their rotations."""
    straight = np.array([[0, 0, 0], [0, 1, 0], [2, 1, 2]])
    diagonal = np.array([[0, 0, 0], [0, 1, 2], [0, 2, 1]])
    for mask in (straight, diagonal):
        for turn in range(4):
            turned = np.rot90(mask, turn)
            yield turned == 1, turned == 0


def prune_by_masks(image, rounds):
    for _ in range(rounds):
        ends = [ndimage.binary_hit_or_miss(image, hit, miss) for hit, miss in masks()]
        image = image & ~np.any(ends, axis=0)
    return image


@settings(deadline=None, max_examples=200)
@given(images)
def test_thin_equals_scikit_image_on_noise(image):
    np.testing.assert_array_equal(thin(image), morphology.thin(image))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    smoothing=st.floats(0.5, 8.0),
)
def test_thin_equals_scikit_image_on_blobs(seed, shape, smoothing):
    image = blobs(seed, shape, smoothing)
    np.testing.assert_array_equal(thin(image), morphology.thin(image))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(20, 150), width=st.floats(1, 25))
def test_thin_equals_scikit_image_on_tracks(seed, size, width):
    image = track(seed, size, width)
    np.testing.assert_array_equal(thin(image), morphology.thin(image))


def test_thin_equals_scikit_image_on_every_image_of_four_by_four():
    """All 65536, side by side with two pixels of background between them."""
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    tiles = np.pad(bits.reshape(256, 256, 4, 4), ((0, 0), (0, 0), (1, 1), (1, 1))).astype(bool)
    mosaic = tiles.transpose(0, 2, 1, 3).reshape(256 * 6, 256 * 6)
    np.testing.assert_array_equal(thin(mosaic), morphology.thin(mosaic))


@pytest.mark.parametrize("seed", range(5))
def test_thinning_keeps_pieces_and_holes(seed):
    image = blobs(seed, (120, 90), 3.0)
    skeleton = thin(image)
    eight = np.ones((3, 3))
    assert not (skeleton & ~image).any()
    assert ndimage.label(skeleton, eight)[1] == ndimage.label(image, eight)[1]
    assert (
        ndimage.label(np.pad(~skeleton, 1, constant_values=True))[1]
        == (ndimage.label(np.pad(~image, 1, constant_values=True))[1])
    )


def test_a_skeleton_is_not_thinned_again():
    skeleton = thin(track(3, 200, 12.0))
    np.testing.assert_array_equal(thin(skeleton), skeleton)


def test_the_input_is_left_as_it_was():
    image = blobs(0, (30, 30), 2.0)
    before = image.copy()
    prune(thin(image), 3)
    np.testing.assert_array_equal(image, before)


@settings(deadline=None, max_examples=100)
@given(images, st.integers(0, 12))
def test_pruning_removes_what_the_masks_hit(image, rounds):
    np.testing.assert_array_equal(prune(image, rounds), prune_by_masks(image, rounds))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), rounds=st.integers(0, 12))
def test_pruning_of_skeletons_removes_what_the_masks_hit(seed, rounds):
    skeleton = thin(blobs(seed, (70, 70), 3.0))
    np.testing.assert_array_equal(prune(skeleton, rounds), prune_by_masks(skeleton, rounds))


def test_a_line_loses_one_pixel_at_each_end_a_round():
    line = np.zeros((3, 30), bool)
    line[1, 2:27] = True
    left = prune(line, 10)
    assert np.argwhere(left).tolist() == [[1, column] for column in range(12, 17)]


@pytest.mark.parametrize(("length", "left"), [(1, 1), (2, 0), (3, 1), (20, 0), (21, 1), (22, 2)])
def test_a_short_line_ends_as_a_point_or_vanishes(length, left):
    """Both pixels of the last pair are ends, a single one is none."""
    assert prune(np.ones((1, length), bool), 10).sum() == left


def test_a_twig_goes_and_the_ring_stays():
    rows, cols = np.mgrid[:60, :60]
    ring = thin(np.abs(np.hypot(rows - 30, cols - 30) - 15) < 2)
    with_twig = ring.copy()
    with_twig[30, np.flatnonzero(ring[30])[-1] :][:8] = True
    assert with_twig.sum() > ring.sum()
    np.testing.assert_array_equal(prune(with_twig, 10), ring)
