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
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]
Labels = NDArray[np.int32]


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
def row_starts(rows: IntArray, n_rows: int) -> NDArray[np.int64]:
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
def ball_sums(cols: IntArray, weights: IntArray, starts: IntArray, half: IntArray) -> NDArray[np.int64]:
    """Sum of the weights in the ball around every point, the point itself included: (n,) int64."""
    sums = np.zeros(cols.size, np.int64)
    if cols.size == 0 or half.size == 0:
        return sums
    n_rows, reach = starts.size - 1, half.size - 1
    # left_of[k] is the weight of one row in all columns before origin + k, so an interval of columns is a difference
    # of two entries: no search and no branch for a point, whether the row is crowded or nearly empty.
    origin = cols.min() - reach
    left_of = np.empty(cols.max() + reach + 2 - origin, np.int64)
    for other in range(n_rows):
        if starts[other] == starts[other + 1]:
            continue
        weight, filled = 0, 0
        for i in range(starts[other], starts[other + 1]):
            left_of[filled : cols[i] - origin + 1] = weight
            filled = cols[i] - origin + 1
            weight += weights[i]
        left_of[filled:] = weight
        for row in range(max(0, other - reach), min(n_rows, other + reach + 1)):
            width = half[abs(other - row)]
            for i in range(starts[row], starts[row + 1]):
                k = cols[i] - origin
                sums[i] += left_of[k + width + 1] - left_of[k - width]
    return sums


@njit(nogil=True, cache=True)
def connect(cols: IntArray, starts: IntArray, half: IntArray, core: NDArray[np.bool_]) -> tuple[Labels, int]:
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
    run_of, runs = _find_runs(cols, starts, half, core)
    chain_labels, n_clusters = _label_chains(runs, half)
    labels = np.full(cols.size, -1, np.int32)
    bordered = False
    for i in range(cols.size):
        if run_of[i] >= 0:
            labels[i] = chain_labels[runs.chain[run_of[i]]]
        else:
            bordered = True
    if bordered and n_clusters > 0:
        _adopt_border(cols, starts, half, runs, chain_labels, core, labels)
    return labels, n_clusters


@njit(nogil=True, cache=True)
def connect_subset(
    rows: IntArray, cols: IntArray, subset: IntArray, half: IntArray, core: NDArray[np.bool_]
) -> tuple[Labels, int]:
    """Do :func:`connect` among the points ``subset`` (m,), ascending indices of points; labels are (m,)."""
    if subset.size == 0:
        return np.empty(0, np.int32), 0
    top = rows[subset[0]]
    n_rows = rows[subset[-1]] - top + 1
    return connect(cols[subset], row_starts(rows[subset] - top, n_rows), half, core[subset])


class _Runs(NamedTuple):
    """Core points, summed up row by row.

    A run is a sequence of cores in neighbouring columns, a chain a sequence of runs each within the ball of the one
    before. All of a chain is of one cluster, and different chains of a row are too far apart to touch directly.
    """

    first: IntArray  # (r,) first column of every run
    last: IntArray  # (r,) last column
    chain: IntArray  # (r,) number of its chain
    starts: IntArray  # (n_rows + 1,) index of the first run of every row
    chain_starts: IntArray  # (k + 1,) index of the first run of every chain


@njit(nogil=True, cache=True)
def _find_runs(cols: IntArray, starts: IntArray, half: IntArray, core: NDArray[np.bool_]) -> tuple[Labels, _Runs]:
    """Run of every point (n,), -1 if it is no core, and the runs."""
    n_rows = starts.size - 1
    run_of = np.full(cols.size, -1, np.int32)
    first = np.empty(cols.size, np.int32)
    last = np.empty(cols.size, np.int32)
    chain = np.empty(cols.size, np.int32)
    run_starts = np.empty(n_rows + 1, np.int64)
    chain_starts = np.empty(cols.size + 1, np.int64)
    n_runs = n_chains = 0
    for row in range(n_rows):
        run_starts[row] = n_runs
        for i in range(starts[row], starts[row + 1]):
            if not core[i]:
                continue
            gap = cols[i] - last[n_runs - 1]
            new_chain = n_runs == run_starts[row] or gap > half[0]
            if new_chain:
                chain_starts[n_chains] = n_runs
                n_chains += 1
            if new_chain or gap > 1:
                first[n_runs] = cols[i]
                chain[n_runs] = n_chains - 1
                n_runs += 1
            last[n_runs - 1] = cols[i]
            run_of[i] = n_runs - 1
    run_starts[n_rows] = chain_starts[n_chains] = n_runs
    return run_of, _Runs(first[:n_runs], last[:n_runs], chain[:n_runs], run_starts, chain_starts[: n_chains + 1])


@njit(nogil=True, cache=True)
def _label_chains(runs: _Runs, half: IntArray) -> tuple[Labels, int]:
    """Join all chains that come within the ball of each other, and number the clusters in raster order."""
    n_rows, n_chains = runs.starts.size - 1, runs.chain_starts.size - 1
    parent = np.arange(n_chains).astype(np.int32)
    for row in range(n_rows):
        if runs.starts[row] == runs.starts[row + 1]:
            continue
        # Only with the rows below: the rows above have done their half of the work.
        for other in range(row + 1, min(n_rows, row + half.size)):
            width = half[other - row]
            low, end = runs.starts[other], runs.starts[other + 1]
            for run in range(runs.starts[row], runs.starts[row + 1]):
                while low < end and runs.last[low] < runs.first[run] - width:
                    low += 1
                near = low
                while near < end and runs.first[near] <= runs.last[run] + width:
                    _join(parent, runs.chain[run], runs.chain[near])
                    near = runs.chain_starts[runs.chain[near] + 1]  # the rest of its chain adds nothing
    labels = np.empty(n_chains, np.int32)
    n_clusters = 0
    for chain in range(n_chains):
        root = _root(parent, chain)
        if root == chain:  # a root is the first chain of its cluster
            labels[chain] = n_clusters
            n_clusters += 1
        else:
            labels[chain] = labels[root]
    return labels, n_clusters


@njit(nogil=True, cache=True)
def _adopt_border(
    cols: IntArray,
    starts: IntArray,
    half: IntArray,
    runs: _Runs,
    chain_labels: IntArray,
    core: NDArray[np.bool_],
    labels: IntArray,
) -> None:
    """Give every point that is no core the lowest cluster in its ball."""
    n_rows, reach = starts.size - 1, half.size - 1
    for row in range(n_rows):
        if starts[row] == starts[row + 1]:
            continue
        for other in range(max(0, row - reach), min(n_rows, row + reach + 1)):
            width = half[abs(other - row)]
            low, end = runs.starts[other], runs.starts[other + 1]
            if low == end:
                continue
            for i in range(starts[row], starts[row + 1]):
                if core[i]:
                    continue
                while low < end and runs.last[low] < cols[i] - width:
                    low += 1
                # Chains are more than half[0] >= width apart, so at most two of them fit into the 2 * width of the
                # window: this loop is the window's two ends.
                near = low
                while near < end and runs.first[near] <= cols[i] + width:
                    label = chain_labels[runs.chain[near]]
                    if labels[i] < 0 or label < labels[i]:
                        labels[i] = label
                    near = runs.chain_starts[runs.chain[near] + 1]


@njit(nogil=True, cache=True)
def _root(parent: IntArray, chain: int) -> int:
    while parent[chain] != chain:
        parent[chain] = parent[parent[chain]]  # halve the path: later searches get shorter
        chain = parent[chain]
    return chain


@njit(nogil=True, cache=True)
def _join(parent: IntArray, a: int, b: int) -> None:
    a, b = _root(parent, a), _root(parent, b)
    # The earlier chain becomes the root, which makes the numbering a matter of one pass.
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@njit(nogil=True, cache=True)
def group_points(labels: IntArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Points by label, without the negative ones, and where those of every label that occurs begin."""
    n_labels = max(int(labels.max()) + 1, 0) if labels.size > 0 else 0
    begins = np.zeros(n_labels + 1, np.int64)
    for label in labels:
        if label >= 0:
            begins[label + 1] += 1
    offsets = np.zeros(np.count_nonzero(begins) + 1, np.int64)
    n_found = 0
    for label in range(n_labels):
        if begins[label + 1] > 0:
            n_found += 1
            offsets[n_found] = offsets[n_found - 1] + begins[label + 1]
        begins[label + 1] += begins[label]
    order = np.empty(begins[n_labels], np.int64)
    for i in range(labels.size):
        label = labels[i]
        if label >= 0:
            order[begins[label]] = i
            begins[label] += 1
    return order, offsets
