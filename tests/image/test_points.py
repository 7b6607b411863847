"""Points and their weights."""

from __future__ import annotations

import numpy as np

from cygnoreco.image.points import points


def test_points_are_the_macro_pixels_that_do_not_round_to_zero_in_raster_order():
    edges = np.array([[0.0, 0.5, 0.500001], [3.0, 0.0, 0.2]])
    rows, cols, weights = points(edges, np.full((2, 3), 7.9))
    assert rows.tolist() == [0, 1]
    assert cols.tolist() == [2, 0]
    assert weights.tolist() == [7, 7], "truncated, not rounded"
    assert {array.dtype for array in (rows, cols, weights)} == {np.dtype(np.int32)}


def test_rounding_is_half_to_even():
    edges = np.random.default_rng(8).uniform(0.0, 2.0, (30, 40))
    rows, cols, _ = points(edges, edges)
    assert np.array_equal(np.argwhere(np.rint(edges) != 0), np.column_stack((rows, cols)))


def test_weight_is_at_least_one():
    picture = np.array([[0.3, 1.0, 2.99]])
    assert points(np.ones((1, 3)), picture)[2].tolist() == [1, 1, 2]


def test_unit_weights():
    assert points(np.ones((1, 2)), np.array([[5.0, 9.0]]), weights="unit")[2].tolist() == [1, 1]


def test_an_empty_image_has_no_points():
    assert [len(array) for array in points(np.zeros((4, 4)), np.zeros((4, 4)))] == [0, 0, 0]
