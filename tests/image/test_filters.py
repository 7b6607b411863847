"""Median, rebinning and noise filter against independent forms of the same definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import median_filter

from cygnoreco.errors import InputError
from cygnoreco.image.filters import median, noise_filter, rebin


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (8, 12), (31, 17)])
def test_median_is_the_upper_median_of_scipy(shape):
    image = np.random.default_rng(2).normal(size=shape)
    assert np.array_equal(median(image), median_filter(image, size=2))


def test_median_of_a_block_of_images_is_that_of_each():
    images = np.random.default_rng(3).normal(size=(3, 8, 8))
    assert all(np.array_equal(filtered, median(image)) for filtered, image in zip(median(images), images, strict=True))


def test_median_removes_one_pixel_and_keeps_two_neighbours():
    image = np.zeros((6, 6))
    image[2, 2] = 9.0
    assert not median(image).any()
    image[2, 3] = 4.0
    assert np.argwhere(median(image)).tolist() == [[2, 3], [3, 3]]


def test_median_can_be_switched_off():
    image = np.eye(4)
    assert median(image, enabled=False) is image


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 6])
def test_rebin_is_the_mean_of_blocks(factor):
    image = np.random.default_rng(4).normal(size=(2, 12, 24))
    blocks = image.reshape(2, 12 // factor, factor, 24 // factor, factor).mean(axis=(2, 4))
    assert rebin(image, factor=factor) == pytest.approx(blocks)


def test_rebin_refuses_sides_that_do_not_divide():
    with pytest.raises(InputError, match=r"rebin\.factor = 5 .* 12 x 24"):
        rebin(np.zeros((12, 24)), factor=5)


def slow_noise_filter(edges, difference=10.0, min_average=1.2, min_neighbours=3):
    """The filter as the words define it, without the shortcut for quiet neighbourhoods."""
    image = edges.copy()
    image[[0, 1, -2, -1]] = 0
    image[:, [0, 1, -2, -1]] = 0
    for y in range(1, image.shape[0] - 2):
        for x in range(1, image.shape[1] - 2):
            window = image[y - 1 : y + 2, x - 1 : x + 2].astype(np.float32)
            average = np.float32(0)
            for neighbour in np.delete(window.T.ravel(), 4):
                average += neighbour
            average /= np.float32(8)
            value = image[y, x]
            if abs(window[1, 1] - average) > difference:
                value = average
            if average < np.float32(min_average) or np.count_nonzero(window) < min_neighbours:
                value = 0
            image[y, x] = value
    return image


@pytest.mark.parametrize(("shape", "scale"), [((40, 40), 1.7), ((24, 50), 2.0), ((50, 24), 8.0), ((30, 30), 40.0)])
def test_noise_filter_equals_the_slow_form(shape, scale):
    """Sparse and dense images, square and rectangular."""
    edges = np.maximum(np.random.default_rng(5).normal(0.0, scale, shape), 0.0)
    before = edges.copy()
    filtered = noise_filter(edges)
    assert np.array_equal(filtered, slow_noise_filter(edges))
    assert np.array_equal(edges, before), "the input is not changed"
    assert 0 < np.count_nonzero(filtered) < edges.size


def test_noise_filter_parameters_act():
    edges = np.maximum(np.random.default_rng(6).normal(0.0, 4.0, (40, 40)), 0.0)
    for change in ({"difference": 1.0}, {"min_average": 2.5}, {"min_neighbours": 6}):
        filtered = noise_filter(edges, **change)
        assert np.array_equal(filtered, slow_noise_filter(edges, **change))
        assert not np.array_equal(filtered, noise_filter(edges))


def test_noise_filter_of_a_block_of_images_is_that_of_each():
    edges = np.maximum(np.random.default_rng(7).normal(0.0, 4.0, (3, 20, 20)), 0.0)
    assert np.array_equal(noise_filter(edges)[2], noise_filter(edges[2]))


def test_noise_filter_brings_back_a_bright_point_on_the_second_row():
    """Row 1 is cleared and then judged: beside bright macro-pixels it takes their average; row h - 2 does not."""
    edges = np.zeros((12, 12))
    edges[2, 3:9] = edges[-3, 3:9] = 100.0
    filtered = noise_filter(edges)
    assert filtered[1].any()
    assert not filtered[-2].any()


def test_noise_filter_removes_a_lone_macro_pixel():
    edges = np.zeros((12, 12))
    edges[6, 6] = 9.0
    assert not noise_filter(edges).any()
