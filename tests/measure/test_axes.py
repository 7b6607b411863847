"""Axes of a cluster: LAPACK's eigenvectors, exact moments."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.measure.axes import eigenvectors, principal_axis, second_moments


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
