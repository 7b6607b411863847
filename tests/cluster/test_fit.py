"""The fits under the directional search, against `numpy.polyfit`."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.cluster._fit import fit_track, in_band, straightness


def values(curve: np.ndarray, along: np.ndarray) -> np.ndarray:
    u = along - curve[0]
    return curve[1] + curve[2] * u + curve[3] * u**2


@pytest.mark.parametrize("degree", [1, 2])
def test_curve_is_the_least_squares_polynomial_of_unevenly_spread_points(degree):
    rng = np.random.default_rng(degree)
    along = 300 + 100 * rng.random(200) ** 3
    across = 40 + 0.3 * along + 0.002 * (along - 300) ** 2 + rng.normal(0, 1, 200)
    curve = np.empty(4)
    assert fit_track(along, across, degree, 50.0, 0.8, curve)
    np.testing.assert_allclose(values(curve, along), np.polyval(np.polyfit(along, across, degree), along), rtol=1e-9)


def test_points_outside_the_band_are_left_out_of_the_second_fit():
    along = np.arange(100.0)
    across = 2.0 * along
    across[[20, 70]] += 60
    curve = np.empty(4)
    assert fit_track(along, across, 1, 10.0, 0.8, curve)
    np.testing.assert_allclose(values(curve, along), 2.0 * along, atol=1e-9)


def test_a_cloud_has_no_track():
    rng = np.random.default_rng(1)
    assert not fit_track(rng.uniform(0, 100, 200), rng.uniform(0, 100, 200), 2, 6.5, 0.8, np.empty(4))


@pytest.mark.parametrize(
    ("along", "degree"), [([5.0], 1), ([5.0, 5.0, 5.0], 1), ([1.0, 2.0], 2), ([1.0, 2.0, 1.0, 2.0], 2)]
)
def test_points_that_do_not_determine_a_curve_have_none(along, degree):
    assert not fit_track(np.array(along), np.arange(len(along), dtype=float), degree, 6.5, 0.8, np.empty(4))


def test_band_is_measured_at_right_angles():
    diagonal = np.array([0.0, 0.0, 1.0, 0.0])
    assert in_band(diagonal, 10.0, 10 + 1.99 * np.sqrt(2), 2.0)
    assert not in_band(diagonal, 10.0, 10 + 2.01 * np.sqrt(2), 2.0)
    parabola = np.array([10.0, 0.0, 0.0, 0.5])  # slope 3 at 13
    assert in_band(parabola, 13.0, 4.5 + 1.99 * np.sqrt(10), 2.0)
    assert not in_band(parabola, 13.0, 4.5 + 2.01 * np.sqrt(10), 2.0)


def accuracy(rows: np.ndarray, cols: np.ndarray, enough: float = 0.95) -> float:
    points = rows.astype(np.int32), cols.astype(np.int32)
    return float(straightness(*points, np.arange(rows.size), np.array([0, rows.size]), 12, enough)[0])


def test_straightness_is_the_fraction_on_a_line_in_every_direction():
    steps = np.arange(60)
    for rows, cols in ((steps, 2 * steps), (steps, 0 * steps), (0 * steps, steps), (steps, -steps), (steps, steps)):
        assert accuracy(rows, cols) == 1
    astray = np.where(abs(steps - 29.5) < 3, 80, 0)
    assert accuracy(steps, steps + astray, enough=0.85) == pytest.approx(0.9)


def test_small_clusters_are_not_tested_and_a_square_is_not_straight():
    assert accuracy(np.arange(12), np.arange(12)) == 0
    assert accuracy(*(side.ravel() for side in np.indices((9, 9)))) < 0.8
