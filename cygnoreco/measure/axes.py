"""The axes of a cluster: second moments of its macro-pixels and the frame in which its profiles are made."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cygnoreco.measure.profile import moments

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


@njit(nogil=True, cache=True)
def rotate(
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    size: int,
    cos: float,
    sin: float,
    pivot: tuple[float, float],
    origin: tuple[float, float],
    rows_first: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of all pixels of a cluster along its axes.

    Parameters
    ----------
    x, y : ndarray, shape (n,), int32
        Macro-pixels.
    size : int
        Side of a macro-pixel, px.
    cos, sin : float
        Unit vector along the major axis.
    pivot : tuple of float
        Point (x, y), px, about which they are turned.
    origin : tuple of float
        Coordinates along and across of the pivot, px.
    rows_first : bool
        x is the row: pixels follow row by row in a macro-pixel, so the outer one of the two loops is over x.

    Returns
    -------
    along, across : ndarray, shape (n * size**2,), float64
        Along the major axis, and along the minor one (-sin, cos); px.
    """
    along = np.empty(len(x) * size * size)
    across = np.empty_like(along)
    pivot_x, pivot_y = pivot
    origin_along, origin_across = origin
    k = 0
    for m in range(len(x)):
        for outer in range(size):
            for inner in range(size):
                dx = x[m] * size + (outer if rows_first else inner) - pivot_x
                dy = y[m] * size + (inner if rows_first else outer) - pivot_y
                along[k] = origin_along + cos * dx + sin * dy
                across[k] = origin_across - sin * dx + cos * dy
                k += 1
    return along, across


@njit(nogil=True, cache=True)
def map_rms(
    along: NDArray[np.float64], across: NDArray[np.float64], counts: NDArray[np.float64], writer: Any
) -> tuple[float, float]:
    """RMS along both axes of the map with bins of one pixel, from bin centres.

    Parameters
    ----------
    along, across : ndarray, shape (n,), float64
        Coordinates of the pixels, px. A pixel goes to the bin of its rounded distance from the first one.
    counts : ndarray, shape (n,), float64
        Their counts, ADU.
    writer : ndarray, int32
        Empty: pixels that share a bin add up. Else of the map's size: the last one overwrites the others. It then
        holds, for each bin, the pixel that wrote it last. It needs no clearing, from one cluster to the next, because
        only bins that this cluster has written are read.

    Returns
    -------
    along, across : float
        RMS, px; 0 where negative counts make the variance negative, or the counts sum to 0.
    """
    first_along, first_across = along.min(), across.min()
    stride = int(across.max() - first_across) + 2
    for i in range(len(along) if len(writer) else 0):
        bin_along, bin_across = int(np.rint(along[i] - first_along)), int(np.rint(across[i] - first_across))
        writer[bin_along * stride + bin_across] = i
    total = sum_a = sum_aa = sum_b = sum_bb = 0.0
    for i in range(len(along)):
        bin_along, bin_across = int(np.rint(along[i] - first_along)), int(np.rint(across[i] - first_across))
        if len(writer) and writer[bin_along * stride + bin_across] != i:
            continue
        a, b, z = bin_along + 0.5, bin_across + 0.5, counts[i]
        total += z
        sum_a += z * a
        sum_aa += z * a * a
        sum_b += z * b
        sum_bb += z * b * b
    return moments(total, sum_a, sum_aa)[1], moments(total, sum_b, sum_bb)[1]
