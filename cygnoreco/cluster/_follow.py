"""The directional search: from a straight piece along its track, across gaps, as far as points go on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cygnoreco.cluster._fit import fit_track, in_band
from cygnoreco.kernels.lattice import connect_subset

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]

FREE = -1


@njit(nogil=True, cache=True)
def follow_tracks(
    rows: IntArray,
    cols: IntArray,
    starts: IntArray,
    spreads: NDArray[np.bool_],
    seeds: IntArray,
    near: IntArray,
    neighbourhood: IntArray,
    order: IntArray,
    offsets: IntArray,
    far: IntArray,
    min_points: int,
    thickness: float,
    min_inside: float,
    max_attempts: int,
    steal: bool,
) -> tuple[NDArray[np.int32], int, bool]:
    """Grow a track from every seed in turn.

    Parameters
    ----------
    rows, cols : (n,) int32
        Points in raster order.
    starts : (n_rows + 1,) int64
        Index of the first point of every row.
    spreads : (n,) bool
        Points that pass a cluster on to their neighbours.
    seeds : (s,) int64
        Points to start from, in this order.
    near : (e + 1,) int32
        Ball (half widths) in which the first piece of a track is connected.
    neighbourhood : (n,) int32
        Number of the connected piece, under `near`, that a point is in when all points are free; -1 for none.
    order, offsets : (m,) int64, (k + 1,) int64
        Points by `neighbourhood`.
    far : (r + 1,) int32
        Ball in which a track is continued.
    min_points, thickness, min_inside, max_attempts, steal
        As in the stage.

    Returns
    -------
    labels : (n,) int32
        Track of every point, -1 for none.
    n_tracks : int
        Tracks so far; with `steal`, some may have no point left.
    cut_short : bool
        A track was still growing when its attempts were used up.
    """
    labels = np.full(rows.size, FREE, np.int32)
    failed_at = np.full(rows.size, -1, np.int32)
    n_tracks, cut_short = 0, False
    curve = np.empty(4)
    for seed in seeds:
        # A piece that no curve fits will fail again for another of its seeds, unless a track has been found since.
        if labels[seed] != FREE or failed_at[seed] == n_tracks:
            continue
        piece = neighbourhood[seed]
        members = _still_free(rows, cols, spreads, near, order[offsets[piece] : offsets[piece + 1]], labels, seed)
        if members.size > min_points:
            along, across, turned = _along_track(rows, cols, members)
            degree = 1
            if not fit_track(along, across, degree, thickness, min_inside, curve):
                degree = 2
                if not fit_track(along, across, degree, thickness, min_inside, curve):
                    failed_at[members] = n_tracks
                    continue
            labels[members] = n_tracks
            cut_short |= _grow(
                rows, cols, starts, spreads, far, labels, n_tracks, members,
                curve, turned, degree, thickness, min_inside, max_attempts, steal,
            )  # fmt: skip
        else:
            labels[members] = n_tracks
        n_tracks += 1
    return labels, n_tracks, cut_short


@njit(nogil=True, cache=True)
def _still_free(
    rows: IntArray,
    cols: IntArray,
    spreads: NDArray[np.bool_],
    near: IntArray,
    piece: IntArray,
    labels: IntArray,
    seed: np.integer[Any],
) -> IntArray:
    """Free points of a piece that are still connected to the seed."""
    free = piece[labels[piece] == FREE]
    if free.size == piece.size:
        return free
    parts, _ = connect_subset(rows, cols, free, near, spreads)
    return free[parts == parts[np.searchsorted(free, seed)]]


@njit(nogil=True, cache=True)
def _along_track(rows: IntArray, cols: IntArray, members: IntArray) -> tuple[FloatArray, FloatArray, bool]:
    """Coordinates along and across a cluster: the axis of larger spread is taken as the one along it."""
    n = members.size
    row_sum = row_squares = col_sum = col_squares = np.int64(0)
    for i in members:
        row, col = np.int64(rows[i]), np.int64(cols[i])
        row_sum += row
        row_squares += row * row
        col_sum += col
        col_squares += col * col
    # n^2 times the variances, in whole numbers: a tie is a tie on every machine.
    turned = n * col_squares - col_sum * col_sum > n * row_squares - row_sum * row_sum
    along, across = np.empty(n), np.empty(n)
    for k in range(n):
        row, col = rows[members[k]], cols[members[k]]
        along[k], across[k] = (col, row) if turned else (row, col)
    return along, across, bool(turned)


@njit(nogil=True, cache=True)
def _grow(
    rows: IntArray,
    cols: IntArray,
    starts: IntArray,
    spreads: NDArray[np.bool_],
    far: IntArray,
    labels: IntArray,
    track: int,
    members: IntArray,
    curve: FloatArray,
    turned: bool,
    degree: int,
    thickness: float,
    min_inside: float,
    max_attempts: int,
    steal: bool,
) -> bool:
    """Absorb points in the curve's band and fit again, in turn; True if the attempts ended it.

    When a line gains nothing more, or no longer fits, a parabola takes over.
    """
    size = 0
    for attempt in range(max_attempts + 1):
        last_size, size_before = size, members.size
        members = _absorb(rows, cols, starts, spreads, far, labels, track, members, curve, turned, thickness, steal)
        size = members.size
        along, across, turned = _along_track(rows, cols, members)
        fitted = fit_track(along, across, degree, thickness, min_inside, curve)
        if attempt == max_attempts:
            return size > size_before
        if size == last_size or not fitted:
            if degree == 2:
                return False
            degree = 2
            if not fit_track(along, across, degree, thickness, min_inside, curve):
                return False
    return False


@njit(nogil=True, cache=True)
def _absorb(
    rows: IntArray,
    cols: IntArray,
    starts: IntArray,
    spreads: NDArray[np.bool_],
    far: IntArray,
    labels: IntArray,
    track: int,
    members: IntArray,
    curve: FloatArray,
    turned: bool,
    thickness: float,
    steal: bool,
) -> IntArray:
    """Label all points of the band that are connected to the track, and return the track's points.

    Only the rows around the track are searched; the window is widened until what was found leaves a margin.
    """
    n_rows, reach = starts.size - 1, far.size - 1
    margin = reach
    top, bottom = rows[members[0]], rows[members[-1]]
    while True:
        window_top, window_bottom = max(0, top - margin), min(n_rows - 1, bottom + margin)
        begin, end = starts[window_top], starts[window_bottom + 1]
        nodes = np.empty(end - begin, np.int64)
        n_nodes = 0
        for i in range(begin, end):
            wanted = labels[i] == track
            if not wanted and (steal or labels[i] == FREE):
                along, across = (cols[i], rows[i]) if turned else (rows[i], cols[i])
                wanted = in_band(curve, along, across, thickness)
            if wanted:
                nodes[n_nodes] = i
                n_nodes += 1
        nodes = nodes[:n_nodes]
        parts, n_parts = connect_subset(rows, cols, nodes, far, spreads)
        reached = np.zeros(n_parts, np.bool_)
        for k in range(n_nodes):
            if labels[nodes[k]] == track and spreads[nodes[k]]:
                reached[parts[k]] = True
        for k in range(n_nodes):
            if parts[k] >= 0 and reached[parts[k]]:
                labels[nodes[k]] = track
        members = nodes[labels[nodes] == track]
        top, bottom = rows[members[0]], rows[members[-1]]
        if (window_top == 0 or top - reach >= window_top) and (
            window_bottom == n_rows - 1 or bottom + reach <= window_bottom
        ):
            return members
        margin *= 2
