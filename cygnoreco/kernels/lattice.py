"""Neighbourhoods of points on an integer grid: the one primitive under every clustering.

Points come in raster order: by row, and by column within a row. So all points of a row are one slice, bounded by
``starts[row]`` and ``starts[row + 1]``, and no tree and no list of neighbours is needed.

The closed ball of radius eps around a grid point is, row by row, an interval of columns. At a distance of ``d`` rows
it reaches ``half[d]`` columns to either side; an empty ``half`` is the empty ball. For eps = 3 in the L1 metric::

    d = 3        .           half[3] = 0
    d = 2      . . .         half[2] = 1
    d = 1    . . . . .       half[1] = 2
    d = 0  . . . o . . .     half[0] = 3

The ball's shadow on another row slides to the right as the point does, so a pair of pointers that only move forward
finds it: the work is (points) x (rows of the ball), whatever the number of neighbours, and the memory O(points).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]


def half_widths(eps: float, metric: str) -> NDArray[np.int32]:
    """Half widths of the closed ball by row offset.

    Parameters
    ----------
    eps : float
        Radius, in grid steps; negative for the empty ball.
    metric : {"l1", "l2"}
        ``l1``: ``|rows| + |columns|``; ``l2``: Euclidean.

    Returns
    -------
    (floor(eps) + 1,) int32
        Largest column offset inside the ball at 0, 1, ... rows from its centre.
    """
    reach = math.floor(eps)
    if metric == "l1":
        return np.arange(reach, -1, -1, dtype=np.int32)
    # Compare squares, as exact integers against eps * eps, so that (3, 4) is inside the ball of radius 5.
    return np.array([math.isqrt(math.floor(eps * eps) - d * d) for d in range(reach + 1)], dtype=np.int32)


@njit(nogil=True, cache=True)
def row_starts(rows: IntArray, n_rows: int) -> IntArray:
    """Index of the first point of every row, and the number of points at the end.

    ``rows`` (n,) ascending in 0 .. ``n_rows`` - 1; returns (n_rows + 1,) int64.
    """
    starts = np.zeros(n_rows + 1, np.int64)
    for row in rows:
        starts[row + 1] += 1
    for row in range(n_rows):
        starts[row + 1] += starts[row]
    return starts


@njit(nogil=True, cache=True)
def ball_sums(cols: IntArray, weights: IntArray, starts: IntArray, half: IntArray) -> IntArray:
    """Sum of the weights in the ball around every point, the point itself included: (n,) int64."""
    n_rows, reach = starts.size - 1, half.size - 1
    # before[i] is the weight of all points before i, so the weight of a slice is a difference of two entries.
    before = np.zeros(cols.size + 1, np.int64)
    for i in range(cols.size):
        before[i + 1] = before[i] + weights[i]
    sums = np.zeros(cols.size, np.int64)
    for row in range(n_rows):
        if starts[row] == starts[row + 1]:
            continue
        for other in range(max(0, row - reach), min(n_rows, row + reach + 1)):
            width = half[abs(other - row)]
            low = high = starts[other]
            end = starts[other + 1]
            if low == end:
                continue
            for i in range(starts[row], starts[row + 1]):
                while low < end and cols[low] < cols[i] - width:
                    low += 1
                while high < end and cols[high] <= cols[i] + width:
                    high += 1
                sums[i] += before[high] - before[low]
    return sums


@njit(nogil=True, cache=True)
def connect(cols: IntArray, starts: IntArray, half: IntArray, core: NDArray[np.bool_]) -> tuple[IntArray, int]:
    """Clusters of DBSCAN for given core flags.

    Core points in each other's ball are of one cluster; clusters are numbered by their first core point in raster
    order. Any other point belongs to the lowest of the clusters that have a core point in its ball, else to none.

    Parameters
    ----------
    cols : (n,) int
        Columns of the points in raster order.
    starts : (n_rows + 1,) int64
        From :func:`row_starts`.
    half : (reach + 1,) int32
        The ball, from :func:`half_widths`.
    core : (n,) bool
        Which points are core points.

    Returns
    -------
    labels : (n,) int32
        Cluster of every point, -1 for none.
    n_clusters : int
        Number of clusters.
    """
    # Neighbouring columns are within any eps >= 1 of each other: such a run of cores is joined as a whole. Ten cores
    # in a row cost as much as one.
    first = np.empty(cols.size, np.int32)
    last = np.empty(cols.size, np.int32)
    run_of = np.full(cols.size, -1, np.int32)
    n_rows = starts.size - 1
    run_starts = np.empty(n_rows + 1, np.int64)
    n_runs = 0
    for row in range(n_rows):
        run_starts[row] = n_runs
        for i in range(starts[row], starts[row + 1]):
            if not core[i]:
                continue
            if n_runs > run_starts[row] and cols[i] == last[n_runs - 1] + 1 and half[0] > 0:
                last[n_runs - 1] = cols[i]
            else:
                first[n_runs] = last[n_runs] = cols[i]
                n_runs += 1
            run_of[i] = n_runs - 1
    run_starts[n_rows] = n_runs

    run_labels, n_clusters = _label_runs(first, last, run_starts, half)
    labels = np.full(cols.size, -1, np.int32)
    bordered = False
    for i in range(cols.size):
        if run_of[i] >= 0:
            labels[i] = run_labels[run_of[i]]
        else:
            bordered = True
    if bordered and n_runs > 0:
        _adopt_border(cols, starts, half, run_of, first, last, run_starts, run_labels, labels)
    return labels, n_clusters


@njit(nogil=True, cache=True)
def connect_subset(
    rows: IntArray, cols: IntArray, subset: IntArray, half: IntArray, core: NDArray[np.bool_]
) -> tuple[IntArray, int]:
    """Do :func:`connect` among the points ``subset`` (m,), ascending indices of points; labels are (m,)."""
    if subset.size == 0:
        return np.empty(0, np.int32), 0
    top = rows[subset[0]]
    n_rows = rows[subset[-1]] - top + 1
    return connect(cols[subset], row_starts(rows[subset] - top, n_rows), half, core[subset])


@njit(nogil=True, cache=True)
def _label_runs(first: IntArray, last: IntArray, run_starts: IntArray, half: IntArray) -> tuple[IntArray, int]:
    """Join all runs that come within the ball of each other and number the clusters in raster order."""
    n_rows, n_runs = run_starts.size - 1, run_starts[-1]
    parent = np.arange(n_runs).astype(np.int32)
    for row in range(n_rows):
        if run_starts[row] == run_starts[row + 1]:
            continue
        # A row with itself, then with the rows below: the rows above have done their half of the work.
        for other in range(row, min(n_rows, row + half.size)):
            width = half[other - row]
            low, end = run_starts[other], run_starts[other + 1]
            for run in range(run_starts[row], run_starts[row + 1]):
                while low < end and last[low] < first[run] - width:
                    low += 1
                near = low
                while near < end and first[near] <= last[run] + width:
                    _join(parent, run, near)
                    near += 1
    labels = np.empty(n_runs, np.int32)
    n_clusters = 0
    for run in range(n_runs):
        root = _root(parent, run)
        if root == run:  # a root is the first run of its cluster
            labels[run] = n_clusters
            n_clusters += 1
        else:
            labels[run] = labels[root]
    return labels, n_clusters


@njit(nogil=True, cache=True)
def _adopt_border(
    cols: IntArray,
    starts: IntArray,
    half: IntArray,
    run_of: IntArray,
    first: IntArray,
    last: IntArray,
    run_starts: IntArray,
    run_labels: IntArray,
    labels: IntArray,
) -> None:
    """Give every point that is no core the lowest cluster in its ball."""
    n_rows, reach = starts.size - 1, half.size - 1
    for row in range(n_rows):
        if starts[row] == starts[row + 1]:
            continue
        for other in range(max(0, row - reach), min(n_rows, row + reach + 1)):
            width = half[abs(other - row)]
            low = high = run_starts[other]
            end = run_starts[other + 1]
            if low == end:
                continue
            for i in range(starts[row], starts[row + 1]):
                if run_of[i] >= 0:
                    continue
                while low < end and last[low] < cols[i] - width:
                    low += 1
                high = max(high, low)
                while high < end and first[high] <= cols[i] + width:
                    high += 1
                if low < high:
                    # The two ends of the window tell all: runs of different clusters are more than half[0] >= width
                    # apart, so a third one does not fit into 2 * width.
                    lowest = min(run_labels[low], run_labels[high - 1])
                    if labels[i] < 0 or lowest < labels[i]:
                        labels[i] = lowest


@njit(nogil=True, cache=True)
def _root(parent: IntArray, run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]  # halve the path: later searches get shorter
        run = parent[run]
    return run


@njit(nogil=True, cache=True)
def _join(parent: IntArray, a: int, b: int) -> None:
    a, b = _root(parent, a), _root(parent, b)
    # The earlier run becomes the root, which makes the numbering a matter of one pass.
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b
