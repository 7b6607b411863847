"""Clustering of the points of many frames at once: the stages of :mod:`cygnoreco.cluster`, with their very labels.

Inside, a cluster goes by a *name* that no other cluster of the block has: an index among the points of its frame. That
of a density cluster is its first core point. So names ascend as the numbers do that the clusters get in the end, tables
by name need no more room than the points, and no size has to be known on the host before the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cygnoreco.cluster._fit import CONCENTRATION_STEPS, FLAT_TOLERANCE
from cygnoreco.cluster.idbscan import COORDINATES_PER_POINT
from cygnoreco.cluster.lattice import MAX_SIDE
from cygnoreco.cuda.program import Program
from cygnoreco.errors import InputError, nearest
from cygnoreco.kernels.lattice import half_widths

#: Threads of a block, where the kernel leaves the choice.
_THREADS = 256

#: ``TRACK_THREADS`` in the source.
_TRACK_THREADS = 256

#: Lines of the table of rows, and entries of the scratch memory, are counted in 32 bits.
_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Clusters:
    """Which point belongs to which cluster, for a block of n frames; arrays on the device.

    Attributes
    ----------
    labels : (m,) int32
        Cluster of every point, counted in its frame; -1 is noise.
    tags : (K,) int32
        Kind of every cluster, frame after frame; see :class:`cygnoreco.cluster.lattice.Clustering`.
    cluster_offsets : (n + 1,) int64
        Clusters of frame j are ``cluster_offsets[j]`` .. ``cluster_offsets[j + 1] - 1``.
    cut_short : (n,) bool
        A limit on the number of iterations stopped a cluster of the frame that was still growing.
    n_clusters : int
        K, on the host.
    """

    labels: Any
    tags: Any
    cluster_offsets: Any
    cut_short: Any
    n_clusters: int


class Groups(NamedTuple):
    """The points of every cluster of a block of frames; arrays on the device.

    Attributes
    ----------
    order : (g,) int64
        Indices of the points that are not noise, by frame and cluster, in raster order within a cluster.
    offsets : (K + 1,) int64
        Cluster k is ``order[offsets[k]:offsets[k + 1]]``.
    frame_of_cluster : (K,) int32
        Frame of every cluster.
    """

    order: Any
    offsets: Any
    frame_of_cluster: Any


def cluster_block(
    program: Program,
    rows: Any,
    cols: Any,
    weights: Any,
    frame_offsets: Any,
    clustering: str,
    parameters: Mapping[str, Any],
) -> Clusters:
    """Cluster the points of a block of frames.

    Parameters
    ----------
    program : Program
        What runs the kernels.
    rows, cols, weights : (m,) int32
        Points in raster order, frame after frame, no point twice in a frame.
    frame_offsets : (n + 1,) int64
        Points of frame j are ``frame_offsets[j]`` .. ``frame_offsets[j + 1] - 1``.
    clustering : str
        ``dbscan``, ``idbscan`` or ``directional``.
    parameters : mapping
        Every parameter of that stage: its table of a recipe.

    Returns
    -------
    Clusters
        Labels, tags and numbers are those of the stage, frame by frame.

    Raises
    ------
    InputError
        There is no such clustering, or rows spread too far.
    """
    if clustering not in _CLUSTERINGS:
        raise InputError(f"unknown clustering '{clustering}'" + nearest(clustering, _CLUSTERINGS))
    xp, n_frames = program.xp, len(frame_offsets) - 1
    if len(rows) == 0:
        nothing = xp.zeros(0, xp.int32)
        return Clusters(nothing, nothing, xp.zeros(n_frames + 1, xp.int64), xp.zeros(n_frames, xp.bool_), 0)
    points = _index(program, rows, cols, frame_offsets)
    return _CLUSTERINGS[clustering](points, weights, **parameters)


def group_block(program: Program, clusters: Clusters, frame_offsets: Any) -> Groups:
    """Collect the points of every cluster: :func:`cygnoreco.cluster.lattice.group` for a block of frames.

    Parameters
    ----------
    program : Program
        What runs the kernels.
    clusters : Clusters
        From :func:`cluster_block`.
    frame_offsets : (n + 1,) int64
        As there.
    """
    xp, labels, n_points = program.xp, clusters.labels, len(clusters.labels)
    if n_points == 0:
        return Groups(xp.zeros(0, xp.int64), xp.zeros(1, xp.int64), xp.zeros(0, xp.int32))
    of_point = xp.searchsorted(frame_offsets, xp.arange(n_points), side="right") - 1
    number = xp.where(labels >= 0, clusters.cluster_offsets[of_point] + labels, clusters.n_clusters)
    order, number = _sorted_by(xp, number)
    offsets = xp.searchsorted(number, xp.arange(clusters.n_clusters + 1))
    return Groups(
        order[: int(offsets[-1])], offsets, _frame_of_cluster(xp, clusters.cluster_offsets, clusters.n_clusters)
    )


@dataclass(frozen=True)
class _Points:
    """Points of a block of frames, and what finds their neighbours; see ``lattice.cu``."""

    program: Program
    row: Any  # (m,) int32, from the frame's first occupied row
    column: Any  # (m,) int32, from its first occupied column
    frame_of: Any  # (m,) int32
    frame_offsets: Any  # (n + 1,) int64
    starts: Any  # (n * height + 1,) int32
    height: int

    @property
    def xp(self) -> Any:
        return self.program.xp

    @property
    def size(self) -> int:
        return len(self.row)

    @property
    def n_frames(self) -> int:
        return len(self.frame_offsets) - 1

    @property
    def lattice(self) -> tuple[Any, ...]:
        """What the kernels take first."""
        return self.row, self.column, self.frame_of, self.starts, self.height, self.size

    def each(self, kernel: str, *arguments: Any) -> None:
        """Launch a kernel with a thread for every point."""
        self.program.launch(kernel, -(-self.size // _THREADS), _THREADS, *arguments)


class _Ball(NamedTuple):
    half: Any  # (reach + 1,) int32, at least 1 long
    reach: int  # -1: the empty ball


class _Numbered(NamedTuple):
    """Clusters that have got numbers: labels (m,) int32 counted in the frame, and their number in every frame (n,)."""

    labels: Any
    counts: Any


def _index(program: Program, rows: Any, cols: Any, frame_offsets: Any) -> _Points:
    xp, size, n_frames = program.xp, len(rows), len(frame_offsets) - 1
    height = int(rows.max() - rows.min()) + 1
    if height > MAX_SIDE:
        raise InputError(f"points spread over {height} rows; at most {MAX_SIDE} are supported")
    if n_frames * height > _MAX_COUNT or 8 * (size + n_frames) > _MAX_COUNT:
        raise InputError(f"{n_frames} frames of {height} rows, {size} points in all: make the block of frames smaller")
    row, column, frame_of = (xp.empty(size, xp.int32) for _ in range(3))
    starts = xp.empty(n_frames * height + 1, xp.int32)
    program.launch(
        "lattice_index", n_frames, _THREADS, rows, cols, frame_offsets, height, row, column, frame_of, starts
    )
    return _Points(program, row, column, frame_of, frame_offsets, starts, height)


def _dbscan(points: _Points, weights: Any, *, eps: float, min_samples: int, metric: str) -> Clusters:
    ball = _ball(points, eps, metric)
    core = _ball_sums(points, weights, ball) >= min_samples
    return _assemble(points, [_numbered(points, _connect(points, ball, core, _everywhere(points)))], (0,))


def _idbscan(
    points: _Points, weights: Any, *, eps: Sequence[float], min_samples: Sequence[int], cuts: Sequence[int]
) -> Clusters:
    min_sizes = (*(cut // COORDINATES_PER_POINT + 1 for cut in cuts), 1)
    left, passes = _everywhere(points), []
    for step in range(4):
        ball = _ball(points, eps[step], "l2")
        core = left & (_ball_sums(points, left, ball) >= min_samples[step])
        owner = _connect(points, ball, core, left)
        if step == 0:  # takes away the noise
            left = owner >= 0
        else:
            passes.append(_numbered(points, owner, min_sizes[step - 1]))
            left = left & (passes[-1].labels < 0)
    return _assemble(points, passes, (1, 2, 3))


def _directional(
    points: _Points,
    weights: Any,
    *,
    eps: float,
    min_samples: int,
    metric: str,
    expand_noncore: bool,
    radius: float,
    min_accuracy: float,
    min_points: int,
    thickness: float,
    min_inside: float,
    max_attempts: int,
    isolation_radius: float,
    steal: bool,
) -> Clusters:
    xp, near, everywhere = points.xp, _ball(points, eps, metric), _everywhere(points)
    core = _ball_sums(points, weights, near) >= min_samples
    seed_of = _connect(points, near, core, everywhere)
    sizes = _sizes(points, seed_of)
    order, begin = _grouped(points, seed_of, sizes)
    seeds = _straight_seeds(points, sizes, order, begin, min_points, min_accuracy)

    tracks = _Numbered(xp.full(points.size, -1, xp.int32), xp.zeros(points.n_frames, xp.int32))
    cut_short = xp.zeros(points.n_frames, xp.bool_)
    if len(seeds):
        if expand_noncore:
            spreads = everywhere
            pieces = _connect(points, near, spreads, everywhere)
            order, begin = _grouped(points, pieces, _sizes(points, pieces))
        else:
            spreads, pieces = core, seed_of
        labels = xp.empty(points.size, xp.int32)
        stride = points.size + points.n_frames
        points.program.launch(
            "track_follow",
            points.n_frames,
            _TRACK_THREADS,
            *(points.row, points.column, points.starts, points.frame_offsets, points.height),
            *(spreads, seeds, _offsets_of(points, seeds), pieces, order, begin),
            *(*near, *_ball(points, radius, metric), min_points, float(thickness), float(min_inside)),
            *(max_attempts, steal, np.int64(stride), xp.empty(7 * stride, xp.int32), xp.empty(4 * stride, xp.bool_)),
            *(labels, cut_short),
        )
        names = xp.where(labels >= 0, labels + points.frame_offsets[points.frame_of], -1).astype(xp.int32)
        tracks = _numbered(points, names, min_points)

    # A frame without a straight seed has no tracks: all of it is the rest, and its clusters are the seeds again.
    # Strictly nearer than the radius: the closed ball of the next smaller number.
    isolation = _ball(points, float(np.nextafter(isolation_radius, -1.0)), "l2")
    on_track = tracks.labels >= 0
    rest = ~on_track & (_ball_sums(points, on_track, isolation) == 0)
    rest_of = _connect(points, near, core & rest, rest)
    smallest = xp.full(points.n_frames, _MAX_COUNT, xp.int32)
    points.each("lattice_smallest", sizes, points.frame_of, points.size, smallest)
    others = _numbered(points, rest_of, smallest[points.frame_of])
    return _assemble(points, [tracks, others], (1, 0), cut_short)


_CLUSTERINGS: Mapping[str, Callable[..., Clusters]] = {
    "dbscan": _dbscan,
    "idbscan": _idbscan,
    "directional": _directional,
}


def _straight_seeds(points: _Points, sizes: Any, order: Any, begin: Any, min_points: int, min_accuracy: float) -> Any:
    """Names of the straight clusters, by frame and in the order in which they are followed: (s,) int32."""
    xp = points.xp
    seeds = xp.flatnonzero(sizes > min_points).astype(xp.int32)
    accuracy = xp.zeros(len(seeds))
    points.program.launch(
        "track_straightness",
        len(seeds),
        _TRACK_THREADS,
        *(points.row, points.column, order, begin, seeds),
        *(float(min_accuracy), FLAT_TOLERANCE, float(FLAT_TOLERANCE * np.sqrt(2.0)), CONCENTRATION_STEPS),
        *(xp.empty(points.size, xp.bool_), accuracy),
    )
    straight = xp.flatnonzero(accuracy > min_accuracy)
    seeds, accuracy = seeds[straight], accuracy[straight]
    if len(seeds) == 0:
        return seeds
    size_if_perfect = xp.where(accuracy == 1, sizes[seeds], 0)
    keys = xp.stack([each.astype(xp.float64) for each in (-size_if_perfect, -accuracy, points.frame_of[seeds])])
    return seeds[xp.lexsort(keys)]


def _ball(points: _Points, eps: float, metric: str) -> _Ball:
    half = half_widths(eps, metric)
    return _Ball(points.xp.asarray(half if half.size else np.zeros(1, np.int32)), half.size - 1)


def _everywhere(points: _Points) -> Any:
    return points.xp.ones(points.size, points.xp.bool_)


def _ball_sums(points: _Points, weights: Any, ball: _Ball) -> Any:
    """Sum of the weights (m,) in the ball around every point: (m,) int64."""
    sums = points.xp.empty(points.size, points.xp.int64)
    points.each("lattice_ball_sums", *points.lattice, _sum_before(points, weights, points.xp.int64), *ball, sums)
    return sums


def _connect(points: _Points, ball: _Ball, core: Any, member: Any) -> Any:
    """Names (m,) int32 of the clusters of DBSCAN among the members for given core flags, -1 for none."""
    xp, (row, column, frame_of, starts, height, size) = points.xp, points.lattice
    rank = _sum_before(points, core, xp.int32)
    cores, columns, parent, owner = (xp.empty(size, xp.int32) for _ in range(4))
    points.each("lattice_gather", column, core, rank, size, cores, columns, parent)
    points.each("lattice_connect", row, frame_of, starts, height, size, *ball, rank, cores, columns, parent)
    points.each("lattice_owner", *points.lattice, *ball, member, core, rank, cores, columns, parent, owner)
    return owner


def _sizes(points: _Points, owner: Any) -> Any:
    """Count the points of every cluster: (m,) int32 by name."""
    sizes = points.xp.zeros(points.size, points.xp.int32)
    points.each("lattice_sizes", owner, points.size, sizes)
    return sizes


def _grouped(points: _Points, owner: Any, sizes: Any) -> tuple[Any, Any]:
    """Points (m,) int32 by cluster, those without one last; and where each cluster begins, by name (m + 1,) int32."""
    xp = points.xp
    order, _ = _sorted_by(xp, xp.where(owner >= 0, owner, points.size))
    return order.astype(xp.int32), _sum_before(points, sizes, xp.int32)


def _numbered(points: _Points, owner: Any, min_size: Any = 1) -> _Numbered:
    """Give the clusters of at least `min_size` points their numbers; an array (m,) has it by name."""
    xp, first, sizes = points.xp, points.frame_offsets, _sizes(points, owner)
    keep = (sizes >= min_size) & (sizes > 0)
    number = _sum_before(points, keep, xp.int32)
    labels = xp.where((owner >= 0) & keep[owner], number[owner] - number[first[points.frame_of]], -1)
    return _Numbered(labels.astype(xp.int32), number[first[1:]] - number[first[:-1]])


def _assemble(points: _Points, passes: Sequence[_Numbered], kinds: Sequence[int], cut_short: Any = None) -> Clusters:
    """Put the clusters of several passes one after the other, frame by frame; `kinds` are their tags."""
    xp, frame_of = points.xp, points.frame_of
    labels, found = passes[0]
    ends = [found]
    for each in passes[1:]:
        labels = xp.where(each.labels >= 0, each.labels + found[frame_of], labels)
        found = found + each.counts
        ends.append(found)
    offsets = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(found, dtype=xp.int64)])
    n_clusters = int(offsets[-1])
    frame = _frame_of_cluster(xp, offsets, n_clusters)
    place = xp.arange(n_clusters) - offsets[frame]
    tags = xp.full(n_clusters, kinds[0], xp.int32)
    for end, kind in zip(ends[:-1], kinds[1:], strict=True):
        tags = xp.where(place >= end[frame], kind, tags)
    if cut_short is None:
        cut_short = xp.zeros(points.n_frames, xp.bool_)
    return Clusters(labels.astype(xp.int32), tags.astype(xp.int32), offsets, cut_short, n_clusters)


def _sum_before(points: _Points, values: Any, dtype: Any) -> Any:
    """Sum the values before every point: (m + 1,)."""
    xp = points.xp
    return xp.concatenate([xp.zeros(1, dtype), xp.cumsum(values, dtype=dtype)])


def _sorted_by(xp: Any, number: Any) -> tuple[Any, Any]:
    """Sort indices (m,) by number, equal ones in their order; the numbers in that order come with them.

    Number and index make one key, no two of which are equal: the result is the same whatever sorts it.
    """
    size = max(len(number), 1)
    keys = xp.sort(number.astype(xp.int64) * size + xp.arange(len(number)))
    return keys % size, keys // size


def _frame_of_cluster(xp: Any, cluster_offsets: Any, n_clusters: int) -> Any:
    return (xp.searchsorted(cluster_offsets, xp.arange(n_clusters), side="right") - 1).astype(xp.int32)


def _offsets_of(points: _Points, chosen: Any) -> Any:
    """Where each frame's begin in a list of points by frame: (n + 1,) int64."""
    xp = points.xp
    return xp.searchsorted(points.frame_of[chosen], xp.arange(points.n_frames + 1)).astype(xp.int64)
