"""How straight is a cluster, and which curve does a track follow: fits without random numbers.

The published method draws random samples of 50-80 % of the points (RANSAC) and keeps the best of a hundred fits.
Samples that large are nearly the whole, so the fits scatter closely around the least-squares fit of all points. Here
that fit is taken, and improved as RANSAC improves its best sample: by fitting again the points that agree with it
(a concentration step, P. Rousseeuw and K. Van Driessen, Data Min. Knowl. Discov. 12 (2006) 29).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]

#: Concentration steps of the straightness test, at most: it ends when the points on the line stay the same.
CONCENTRATION_STEPS = 3

#: Tolerance in macro-pixels for clusters more than half of whose points share one coordinate (median deviation 0).
FLAT_TOLERANCE = 0.1


@njit(nogil=True, cache=True)
def straightness(
    rows: IntArray, cols: IntArray, order: IntArray, offsets: IntArray, min_points: int, enough: float
) -> FloatArray:
    """Fraction of every cluster's points that lie on one straight line.

    "On the line" is within the median absolute deviation of the columns: the line has to explain the points much
    better than a constant does. A cluster that fails as column = f(row) is tried again turned by 45 degrees, where
    steep lines become flat ones.

    Parameters
    ----------
    rows, cols : (n,) int
        Points.
    order, offsets : (m,) int64, (k + 1,) int64
        Points by cluster, from ``group``.
    min_points : int
        Clusters of at most so many points are not tested: their straightness is 0.
    enough : float
        Straightness that makes the second try needless; below it the second try alone counts.

    Returns
    -------
    (k,) float64
        0 .. 1.
    """
    straight = np.zeros(offsets.size - 1)
    for cluster in range(straight.size):
        members = order[offsets[cluster] : offsets[cluster + 1]]
        if members.size <= min_points:
            continue
        x, y = rows[members].astype(np.float64), cols[members].astype(np.float64)
        straight[cluster] = _fraction_on_line(x, y, FLAT_TOLERANCE)
        if straight[cluster] < enough:
            # Without the factor 1 / sqrt(2) of the rotation the coordinates stay whole numbers.
            straight[cluster] = _fraction_on_line(x - y, x + y, FLAT_TOLERANCE * np.sqrt(2.0))
    return straight


@njit(nogil=True, cache=True)
def _fraction_on_line(x: FloatArray, y: FloatArray, flat_tolerance: float) -> float:
    tolerance = np.median(np.abs(y - np.median(y)))
    if tolerance == 0:
        tolerance = flat_tolerance
    on_line = np.ones(x.size, np.bool_)
    line = np.empty(4)
    most = 0
    for _ in range(1 + CONCENTRATION_STEPS):
        if not _least_squares(x, y, on_line, 1, line):
            break
        changed, count = False, 0
        for i in range(x.size):
            near = abs(_across(line, x[i]) - y[i]) <= tolerance
            changed |= near != on_line[i]
            on_line[i] = near
            count += near
        most = max(most, count)
        if not changed:
            break
    return most / x.size


@njit(nogil=True, cache=True)
def fit_track(
    along: FloatArray, across: FloatArray, degree: int, thickness: float, min_inside: float, curve: FloatArray
) -> bool:
    """Fit the curve that a track follows, by least squares of all points and then of those in its band.

    Parameters
    ----------
    along, across : (n,) float64
        The points; `along` is the coordinate in which they spread more.
    degree : int
        1 or 2.
    thickness : float
        Half width of the band, see :func:`in_band`.
    min_inside : float
        More than this fraction of the points must lie in the band of the first fit.
    curve : (4,) float64
        Filled with origin, constant, slope and curvature of
        ``across = constant + (slope + curvature * u) * u``, ``u = along - origin``.

    Returns
    -------
    bool
        Whether there is such a curve.
    """
    chosen = np.ones(along.size, np.bool_)
    if not _least_squares(along, across, chosen, degree, curve):
        return False
    inside = 0
    for i in range(along.size):
        chosen[i] = in_band(curve, along[i], across[i], thickness)
        inside += chosen[i]
    return inside > min_inside * along.size and _least_squares(along, across, chosen, degree, curve)


@njit(nogil=True, cache=True)
def in_band(curve: FloatArray, along: float, across: float, thickness: float) -> bool:
    """Whether a point is nearer than `thickness` to the curve, measured at right angles to it."""
    u = along - curve[0]
    slope = curve[2] + 2 * curve[3] * u
    # At right angles the distance is shorter than along the axis by the cosine of the slope's angle.
    return (_across(curve, along) - across) ** 2 < thickness * thickness * (1 + slope * slope)


@njit(nogil=True, cache=True)
def _across(curve: FloatArray, along: float) -> float:
    u = along - curve[0]
    return curve[1] + (curve[2] + curve[3] * u) * u


@njit(nogil=True, cache=True)
def _least_squares(x: FloatArray, y: FloatArray, chosen: NDArray[np.bool_], degree: int, curve: FloatArray) -> bool:
    """Polynomial of degree 1 or 2 through the chosen points; False if they do not determine it."""
    n, x0, y0 = 0, 0.0, 0.0
    for i in range(x.size):
        if chosen[i]:
            n += 1
            x0 += x[i]
            y0 += y[i]
    if n <= degree:
        return False
    x0 /= n
    y0 /= n
    u2 = u3 = u4 = uy = u2y = 0.0
    for i in range(x.size):
        if chosen[i]:
            u, v = x[i] - x0, y[i] - y0
            u2 += u * u
            u3 += u * u * u
            u4 += u * u * u * u
            uy += u * v
            u2y += u * u * v
    if u2 <= 0:
        return False
    curve[0], curve[1], curve[2], curve[3] = x0, y0, uy / u2, 0.0
    if degree == 2:
        # In polynomials that are orthogonal on these points - 1, u and q = u^2 - skew u - mean - each coefficient
        # stands alone, and the line above is already the rest of the answer.
        skew, mean = u3 / u2, u2 / n
        norm = u4 - skew * u3 - mean * u2  # sum of q^2
        if norm <= 1e-9 * u4:
            return False
        curve[3] = (u2y - skew * uy) / norm
        curve[2] -= skew * curve[3]
        curve[1] -= mean * curve[3]
    return True
