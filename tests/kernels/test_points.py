"""Noise filter and points in one walk: the same as the two stages."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.image.points import points
from cygnoreco.kernels.points import find_points
from tests.image.test_filters import slow_noise_filter

NOISE = {"difference": 10.0, "min_average": 1.2, "min_neighbours": 3}


@pytest.mark.parametrize(("shape", "scale"), [((40, 40), 1.7), ((24, 51), 2.0), ((53, 24), 8.0), ((30, 30), 40.0)])
@pytest.mark.parametrize("weights", ["charge", "unit"])
def test_points_are_those_of_the_stages(shape, scale, weights):
    rng = np.random.default_rng(1)
    edges = np.maximum(rng.normal(0.0, scale, shape), 0.0)
    picture = rng.normal(3.0, scale, shape)
    expected = points(slow_noise_filter(edges, **NOISE), picture, weights=weights)
    found = find_points(edges, picture, **NOISE, unit_weights=weights == "unit")
    assert len(expected[0]) > 0
    for ours, plain in zip(found, expected, strict=True):
        assert ours.dtype == plain.dtype
        assert np.array_equal(ours, plain)


def test_dark_rows_between_bright_ones():
    """Most rows and columns are skipped at once; what is left of one image in the memory is not seen by the next."""
    edges = np.zeros((64, 100))
    edges[20:23, 50:60] = edges[45:47, 3:9] = edges[2, 90:98] = 7.0
    picture = np.full(edges.shape, 4.0)
    expected = points(slow_noise_filter(edges, **NOISE), picture)
    find_points(np.full(edges.shape, 30.0), picture, **NOISE, unit_weights=False)
    found = find_points(edges, picture, **NOISE, unit_weights=False)
    assert [each.tolist() for each in found] == [each.tolist() for each in expected]


def test_an_image_without_light_has_no_points():
    assert [len(each) for each in find_points(np.zeros((8, 8)), np.zeros((8, 8)), **NOISE, unit_weights=False)] == [
        0
    ] * 3
