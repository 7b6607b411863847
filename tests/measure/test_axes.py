"""Axes of a cluster: LAPACK's eigenvectors, exact moments, rotation, the unit-binned map."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.measure.axes import eigenvectors, map_rms, principal_axis, rotate, second_moments

NO_MAP = np.empty(0, np.int32)


def random_points(rng, n):
    return rng.integers(0, 576, n).astype(np.int32), rng.integers(0, 576, n).astype(np.int32)


def test_eigenvectors_are_those_of_lapack():
    """Order and signs too, for round, diagonal and general matrices."""
    rng = np.random.default_rng(1)
    for a, b, d in rng.integers(-3, 4, (500, 3)).astype(float):
        values, vectors = np.linalg.eig(np.array([[a, b], [b, d]]))
        found = eigenvectors(a, b, d)
        np.testing.assert_allclose([found.first, found.second], values, atol=1e-12)
        np.testing.assert_allclose([[found.cos, -found.sin], [found.sin, found.cos]], vectors, atol=1e-12)


def test_second_moments_are_the_covariance():
    rng = np.random.default_rng(2)
    x, y = random_points(rng, 200)
    expected = np.cov(x, y)
    for exact in (True, False):
        xx, xy, yy = second_moments(x, y, exact)
        np.testing.assert_allclose([[xx, xy], [xy, yy]], expected, rtol=1e-12)


def test_exact_moments_of_symmetric_clusters_have_no_rounding():
    """Variances that are equal come out equal, and no covariance as 0, anywhere on the sensor."""
    diamond_x, diamond_y = np.array([0, 1, 2, 1, 1]), np.array([1, 0, 1, 2, 1])
    for shift in range(0, 576, 7):
        xx, xy, yy = second_moments((diamond_x + shift).astype(np.int32), (diamond_y + 301).astype(np.int32), True)
        assert xx == yy
        assert xy == 0


@pytest.mark.parametrize("angle", [-89.0, -45.0, -20.0, 0.0, 30.0, 45.0, 77.0, 90.0])
def test_theta_of_a_line(angle):
    t = np.linspace(-100, 100, 400)
    x = np.round(300 + t * np.cos(np.radians(angle))).astype(np.int32)
    y = np.round(300 + t * np.sin(np.radians(angle))).astype(np.int32)
    cos, sin, theta = principal_axis(x, y, False, False)
    assert theta == pytest.approx(angle, abs=0.3)
    assert np.degrees(np.arctan2(sin, cos)) == pytest.approx(theta)


def test_lapack_axis_is_the_same_line():
    """Its sign is LAPACK's, and theta may be the minor axis's."""
    rng = np.random.default_rng(3)
    minor = 0
    for _ in range(100):
        x, y = random_points(rng, 12)
        cos, sin, _ = principal_axis(x, y, False, False)
        values, vectors = np.linalg.eig(np.cov(x, y))
        lapack_cos, lapack_sin, theta = principal_axis(x, y, True, True)
        np.testing.assert_allclose([lapack_cos, lapack_sin], vectors[:, values.argmax()], atol=1e-9)
        assert cos * lapack_cos + sin * lapack_sin == pytest.approx(1.0) or (
            cos * lapack_cos + sin * lapack_sin == pytest.approx(-1.0)
        )
        assert theta == pytest.approx(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
        minor += values.argmax() == 1
    assert 0 < minor < 100


def test_rotation_keeps_distances_and_pixel_order():
    x, y = np.array([3, 3, 4], np.int32), np.array([7, 8, 8], np.int32)
    along, across = rotate(x, y, 2, 0.6, 0.8, (6.0, 14.0), (100.0, -50.0), True)
    px = np.repeat(x, 4) * 2 + np.tile([0, 0, 1, 1], 3)
    py = np.repeat(y, 4) * 2 + np.tile([0, 1, 0, 1], 3)
    np.testing.assert_allclose(along, 100 + 0.6 * (px - 6) + 0.8 * (py - 14))
    np.testing.assert_allclose(across, -50 - 0.8 * (px - 6) + 0.6 * (py - 14))
    swapped, _ = rotate(x, y, 2, 0.6, 0.8, (6.0, 14.0), (100.0, -50.0), False)
    np.testing.assert_allclose(np.sort(swapped), np.sort(along))
    assert swapped[1] != along[1]


def test_map_adds_or_overwrites():
    """Two pixels in one bin, one alone 4 px further on."""
    along, across = np.array([0.0, 0.2, 4.0]), np.array([0.0, 0.1, 0.0])
    counts = np.array([5.0, 1.0, 3.0])

    def rms(weights):
        mean = 4 * weights[1] / sum(weights)
        return np.sqrt((weights[0] * mean**2 + weights[1] * (4 - mean) ** 2) / sum(weights))

    assert map_rms(along, across, counts, NO_MAP) == pytest.approx((rms([6, 3]), 0.0))
    assert map_rms(along, across, counts, np.empty(100, np.int32)) == pytest.approx((rms([1, 3]), 0.0))


def test_map_memory_needs_no_clearing():
    rng = np.random.default_rng(4)
    along, across, counts = rng.uniform(0, 9, 60), rng.uniform(0, 5, 60), rng.normal(5, 3, 60)
    fresh = map_rms(along, across, counts, np.full(11 * 7, -1, np.int32))
    used = map_rms(along, across, counts, rng.integers(0, 60, 11 * 7).astype(np.int32))
    assert fresh == used
