"""DBSCAN of grid points, exact and weighted, and the form in which every clustering hands over its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import ArrayLike, NDArray

from cygnoreco.errors import InputError
from cygnoreco.kernels.lattice import ball_sums, connect, group_points, half_widths, row_starts
from cygnoreco.stage import stage

#: Rows and columns that points may spread over: more than any sensor has, while a table of one side is still small.
MAX_SIDE = 1 << 20


@dataclass(frozen=True)
class Clustering:
    """Which point belongs to which cluster.

    Attributes
    ----------
    labels : (n,) int32
        Cluster of every point, 0 .. ``n_clusters`` - 1, none of them empty; -1 is noise.
    tags : (n_clusters,) int32
        Kind of every cluster: 0 from plain DBSCAN, 1-3 the pass of iDBSCAN, 1 found by the directional search.
        ``tags[labels]`` for points with ``labels >= 0``.
    n_clusters : int
        Number of clusters.
    cut_short : bool
        A limit on the number of iterations stopped a cluster that was still growing.
    """

    labels: NDArray[np.int32]
    tags: NDArray[np.int32]
    n_clusters: int
    cut_short: bool = False


@dataclass(frozen=True)
class Points:
    """Checked points with the table of their rows, as the kernels want them.

    Attributes
    ----------
    rows, cols : (n,) int32
        Coordinates in raster order, counted from the first occupied row and column.
    weights : (n,) int64
        Weights.
    starts : (n_rows + 1,) int64
        Index of the first point of every row.
    """

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    weights: NDArray[np.int64]
    starts: NDArray[np.int64]


@stage(name="dbscan", version=1)
def dbscan(
    rows: ArrayLike,
    cols: ArrayLike,
    weights: ArrayLike,
    *,
    eps: Annotated[float, Gt(0)] = 12.0,
    min_samples: Annotated[int, Ge(0)] = 20,
    metric: Literal["l1", "l2"] = "l1",
) -> Clustering:
    """Cluster points by density: weighted DBSCAN [1]_.

    A point is a core point if the weights in the closed ball of radius `eps` around it, its own included, sum up to
    at least `min_samples`. Core points in each other's ball are of one cluster. Clusters are numbered by their first
    core point in raster order; a point that is no core belongs to the lowest-numbered cluster with a core point in
    its ball. These are the labels of scikit-learn's ``DBSCAN(...).fit(points, sample_weight=weights)``.

    Parameters
    ----------
    rows, cols : (n,) int
        Grid coordinates in macro-pixels, in raster order, no point twice (:func:`merge_points` makes such).
    weights : (n,) int
        Weight of every point.
    eps : float
        Radius of the ball in macro-pixels.
    min_samples : int
        Sum of weights that makes a core point.
    metric : {"l1", "l2"}
        Distance: ``l1`` sums the offsets in rows and columns, ``l2`` is Euclidean.

    Returns
    -------
    Clustering
        All tags are 0.

    Raises
    ------
    InputError
        The points are not integers, not in raster order, or of different lengths.

    References
    ----------
    .. [1] M. Ester, H.-P. Kriegel, J. Sander, X. Xu, "A density-based algorithm for discovering clusters in large
       spatial databases with noise", Proc. KDD 1996, 226-231.
    """
    points = check_points(rows, cols, weights)
    _, labels, n_clusters = find_clusters(points, half_widths(eps, metric), min_samples)
    return Clustering(labels, np.zeros(n_clusters, np.int32), n_clusters)


def find_clusters(
    points: Points, half: NDArray[np.int32], min_samples: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32], int]:
    """Core flags (n,) bool, labels (n,) int32 and number of clusters of checked points."""
    core = ball_sums(points.cols, points.weights, points.starts, half) >= min_samples
    labels, n_clusters = connect(points.cols, points.starts, half, core)
    return core, labels, n_clusters


def select(points: Points, index: NDArray[np.int64]) -> Points:
    """Points with the indices (m,), which ascend."""
    if index.size == 0:
        return Points(points.rows[index], points.cols[index], points.weights[index], np.zeros(1, np.int64))
    rows = points.rows[index] - points.rows[index[0]]
    return Points(rows, points.cols[index], points.weights[index], row_starts(rows, int(rows[-1]) + 1))


def check_points(rows: ArrayLike, cols: ArrayLike, weights: ArrayLike) -> Points:
    """Check that points are integers in raster order without a repeated one, and index their rows.

    Raises
    ------
    InputError
        They are not; says which point is the first at fault.
    """
    row, col, weight = (
        _integers(name, values) for name, values in (("rows", rows), ("cols", cols), ("weights", weights))
    )
    if not row.size == col.size == weight.size:
        raise InputError(f"rows, cols and weights differ in length: {row.size}, {col.size}, {weight.size}")
    if row.size == 0:
        return Points(row.astype(np.int32), col.astype(np.int32), weight.astype(np.int64), np.zeros(1, np.int64))
    ascending = (row[1:] > row[:-1]) | ((row[1:] == row[:-1]) & (col[1:] > col[:-1]))
    if not ascending.all():
        i = int(np.argmin(ascending)) + 1
        here, before = (int(row[i]), int(col[i])), (int(row[i - 1]), int(col[i - 1]))
        fault = (
            f"point {i} at {here} repeats the one before"
            if here == before
            else f"point {i} at {here} is after {before}"
        )
        raise InputError(f"points must be in raster order, each once: {fault}; merge_points() sorts and merges them")
    top, left = row[0], col.min()
    n_rows, n_cols = int(row[-1]) - int(top) + 1, int(col.max()) - int(left) + 1
    if max(n_rows, n_cols) > MAX_SIDE:
        raise InputError(f"points spread over {n_rows} rows and {n_cols} columns; at most {MAX_SIDE} are supported")
    row = (row - top).astype(np.int32)
    return Points(row, (col - left).astype(np.int32), weight.astype(np.int64), row_starts(row, n_rows))


def merge_points(
    rows: ArrayLike, cols: ArrayLike, weights: ArrayLike | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Bring any list of grid points into raster order; repeated points become one with the sum of the weights.

    Parameters
    ----------
    rows, cols : (n,) int
        Coordinates in any order.
    weights : (n,) int, optional
        Weights, 1 each by default; then a point that is listed three times weighs 3.

    Returns
    -------
    rows, cols : (m,) int32
        Distinct points in raster order.
    weights : (m,) int64
        Their weights.
    inverse : (n,) int64
        Where every given point went: ``labels[inverse]`` are the labels of the given list.

    Raises
    ------
    InputError
        The points are not integers or of different lengths.
    """
    row, col = _integers("rows", rows), _integers("cols", cols)
    weight = np.ones(row.size, np.int64) if weights is None else _integers("weights", weights).astype(np.int64)
    if not row.size == col.size == weight.size:
        raise InputError(f"rows, cols and weights differ in length: {row.size}, {col.size}, {weight.size}")
    order = np.lexsort((col, row))
    row, col = row[order], col[order]
    new = np.ones(row.size, bool)
    new[1:] = (row[1:] != row[:-1]) | (col[1:] != col[:-1])
    inverse = np.empty(row.size, np.int64)
    inverse[order] = np.cumsum(new) - 1
    total = np.zeros(np.count_nonzero(new), np.int64)
    np.add.at(total, inverse, weight)
    return row[new].astype(np.int32), col[new].astype(np.int32), total, inverse


def group(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Collect the points of every cluster.

    Parameters
    ----------
    labels : (n,) int
        Cluster of every point, negative for noise.

    Returns
    -------
    order : (m,) int64
        Indices of the points that are not noise, by cluster; within a cluster in their given (raster) order.
    offsets : (k + 1,) int64
        Cluster j is ``order[offsets[j]:offsets[j + 1]]``; numbers that no point has are skipped.
    """
    return group_points(np.asarray(labels))


def drop_small(labels: NDArray[np.int32], n_clusters: int, min_size: int) -> tuple[NDArray[np.int32], int]:
    """Turn clusters of less than `min_size` points, and empty ones, into noise; close the gaps in the numbers."""
    keep = np.bincount(labels[labels >= 0], minlength=n_clusters) >= max(min_size, 1)
    # The extra last entry is where the label -1 looks.
    number = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1).astype(np.int32)
    return number[labels], int(np.count_nonzero(keep))


def _integers(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{name} must be one-dimensional, not of shape {array.shape}")
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers, not {array.dtype}")
    return array
