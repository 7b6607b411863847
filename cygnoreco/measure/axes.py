"""The axes of a cluster, from the second moments of its macro-pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_EPS = np.finfo(np.float64).eps


class Eigenvectors(NamedTuple):
    """Eigenvectors of a symmetric 2 x 2 matrix: the second one is the first turned by +90 degrees.

    Attributes
    ----------
    first, second : float
        Eigenvalues.
    cos, sin : float
        First eigenvector; the second one is (-sin, cos).
    """

    first: float
    second: float
    cos: float
    sin: float


@njit(nogil=True, cache=True)
def eigenvectors(a: float, b: float, d: float) -> Eigenvectors:
    """Eigenvectors of ((a, b), (b, d)), in the order and with the signs of LAPACK's ``dgeev``.

    ``dgeev`` makes no promise about order and sign, but for a 2 x 2 matrix both follow from its standardisation of
    2 x 2 blocks, ``dlanv2``. The experiment's program takes them as they come, so they show in its output. A matrix
    that ``dlahqr`` takes for diagonal keeps its axes.
    """
    big, small = max(abs(d), abs(a - d)), min(abs(d), abs(a - d))
    negligible = abs(b) <= _EPS * (abs(a) + abs(d)) and b * b <= _EPS * small * big
    if b == 0.0 or negligible:
        return Eigenvectors(a, d, 1.0, 0.0)
    half = 0.5 * (a - d)
    scale = max(abs(half), abs(b))
    z = half + math.copysign(math.sqrt(scale) * math.sqrt(half / scale * half + abs(b) / scale * abs(b)), half)
    norm = math.hypot(b, z)
    return Eigenvectors(d + z, d - abs(b) / z * abs(b), z / norm, b / norm)


@njit(nogil=True, cache=True)
def second_moments(x: NDArray[np.int32], y: NDArray[np.int32], exact: bool) -> tuple[float, float, float]:
    """Covariance of integer points, with n - 1: of x and x, x and y, y and y.

    Parameters
    ----------
    x, y : ndarray, shape (n,), int32
        Points, n >= 2.
    exact : bool
        True: the sums are taken from the integer part of the mean, so they are integers and exact: symmetric clusters
        have a covariance of exactly 0, and the result does not depend on where the cluster lies. False: they are taken
        from the rounded mean, as ``numpy.cov`` does; the rounding then decides between the axes of a symmetric cluster.
    """
    n = len(x)
    x0, y0 = x.sum() / n, y.sum() / n
    if exact:
        x0, y0 = np.floor(x0), np.floor(y0)
    sum_x = sum_y = sum_xx = sum_xy = sum_yy = 0.0
    for i in range(n):
        dx, dy = x[i] - x0, y[i] - y0
        sum_x += dx
        sum_y += dy
        sum_xx += dx * dx
        sum_xy += dx * dy
        sum_yy += dy * dy
    norm = 1.0 / (n - 1)
    return (sum_xx - sum_x * sum_x / n) * norm, (sum_xy - sum_x * sum_y / n) * norm, (sum_yy - sum_y * sum_y / n) * norm


@njit(nogil=True, cache=True)
def principal_axis(
    x: NDArray[np.int32], y: NDArray[np.int32], as_lapack: bool, theta_of_first: bool
) -> tuple[float, float, float]:
    """Major axis of a cluster and its angle.

    Parameters
    ----------
    x, y : ndarray, shape (n,), int32
        Macro-pixels, n >= 2; each counts the same.
    as_lapack : bool
        True: the sign of the axis is that of LAPACK's eigenvector of ``numpy.cov``. False: the axis points to growing
        x, or to growing y if it is parallel to y, so that its angle is in (-90, 90] degrees; without a major axis (both
        variances equal, no covariance) it is the x axis.
    theta_of_first : bool
        The angle is that of LAPACK's first eigenvector, whichever axis that is.

    Returns
    -------
    cos, sin : float
        Unit vector along the major axis.
    theta : float
        Angle, degrees, from x towards y.
    """
    found = eigenvectors(*second_moments(x, y, not as_lapack))
    cos, sin = (found.cos, found.sin) if found.first >= found.second else (-found.sin, found.cos)
    if not as_lapack and (cos < 0.0 or (cos == 0.0 and sin < 0.0)):
        cos, sin = -cos, -sin
    if theta_of_first:
        return cos, sin, math.degrees(math.atan2(found.sin, found.cos))
    return cos, sin, math.degrees(math.atan2(sin, cos))
