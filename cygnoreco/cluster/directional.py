"""Directional clustering: long tracks are followed along their direction, the rest is clustered by density."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import ArrayLike, NDArray

from cygnoreco.cluster._fit import straightness
from cygnoreco.cluster._follow import FREE, follow_tracks
from cygnoreco.cluster.lattice import Clustering, check_points, drop_small, find_clusters, group
from cygnoreco.kernels.lattice import ball_sums, connect, connect_subset, half_widths
from cygnoreco.stage import stage


@stage(name="directional", version=1)
def directional(
    rows: ArrayLike,
    cols: ArrayLike,
    weights: ArrayLike,
    *,
    eps: Annotated[float, Gt(0)] = 12.0,
    min_samples: Annotated[int, Ge(0)] = 20,
    metric: Literal["l1", "l2"] = "l1",
    expand_noncore: bool = True,
    radius: Annotated[float, Gt(0)] = 28.0,
    min_accuracy: Annotated[float, Ge(0), Le(1)] = 0.95,
    min_points: Annotated[int, Ge(2)] = 12,
    thickness: Annotated[float, Gt(0)] = 6.5,
    min_inside: Annotated[float, Ge(0), Le(1)] = 0.8,
    max_attempts: Annotated[int, Ge(0)] = 3,
    isolation_radius: Annotated[float, Ge(0)] = 5.0,
    steal: bool = False,
) -> Clustering:
    """Cluster points by density, and follow straight clusters along their track.

    1. Seeds: weighted DBSCAN. Clusters nearly all of whose points lie on a line are straight; if there is none, the
       seeds are the result.
    2. Tracks, the straightest first (among perfect ones the largest): all free points connected to the seed within
       `eps` are fitted by a line, else by a parabola. Points in the band around the curve that are within `radius`
       of the track, one after the other, join it, and it is fitted again, until nothing more is gained.
    3. Rest: free points too near a track are dropped, the others are clustered with their core flags of step 1.
       Clusters smaller than the smallest seed are dropped.

    There are no random numbers and no time limits: the result is a function of the points alone. The method is that
    of the CYGNO collaboration [1]_, the fits are described in ``cygnoreco.cluster._fit``.

    Parameters
    ----------
    rows, cols : (n,) int
        Grid coordinates in macro-pixels, in raster order, no point twice (``merge_points`` makes such).
    weights : (n,) int
        Weight of every point.
    eps : float
        Radius of the density ball in macro-pixels.
    min_samples : int
        Sum of weights in the ball that makes a core point.
    metric : {"l1", "l2"}
        Distance for `eps` and `radius`: ``l1`` sums the offsets in rows and columns, ``l2`` is Euclidean.
    expand_noncore : bool
        Whether tracks also spread from points that are no core points; otherwise those only join.
    radius : float
        Largest step in macro-pixels to the next point of a track.
    min_accuracy : float
        A cluster is straight if more than this fraction of its points lies on a line.
    min_points : int
        A straight cluster and a fitted track have more points than this, a track in the result at least so many.
    thickness : float
        Half width of the band around a track's curve, in macro-pixels at right angles to it.
    min_inside : float
        A curve fits if more than this fraction of the points lies in its band.
    max_attempts : int
        How often a track that still grows is fitted and continued again.
    isolation_radius : float
        Free points nearer than this to a track, in macro-pixels (Euclidean), are dropped.
    steal : bool
        Whether a track takes over points of tracks found before it. winter23: true.

    Returns
    -------
    Clustering
        Tracks have tag 1 and the lowest numbers, in order of discovery; the rest has tag 0. ``cut_short``: a track
        was still growing after `max_attempts`.

    Raises
    ------
    InputError
        The points are not integers, not in raster order, or of different lengths.

    References
    ----------
    .. [1] Meas. Sci. Technol. 34 (2023) 125024.
    """
    points = check_points(rows, cols, weights)
    near = half_widths(eps, metric)
    core, seed_labels, n_seeds = find_clusters(points, near, min_samples)
    order, offsets = group(seed_labels)
    accuracy = straightness(points.rows, points.cols, order, offsets, min_points, min_accuracy)
    straight = np.flatnonzero(accuracy > min_accuracy)
    if straight.size == 0:
        return Clustering(seed_labels, np.zeros(n_seeds, np.int32), n_seeds)

    seed_sizes = np.diff(offsets)
    size_if_perfect = np.where(accuracy == 1, seed_sizes, 0)
    straight = straight[np.lexsort((-size_if_perfect[straight], -accuracy[straight]))]
    if expand_noncore:
        spreads = np.ones_like(core)
        pieces, _ = connect(points.cols, points.starts, near, spreads)
        order, offsets = group(pieces)
    else:
        spreads, pieces = core, seed_labels
    tracks, n_tracks, cut_short = follow_tracks(
        points.rows,
        points.cols,
        points.starts,
        spreads,
        _first_cores(seed_labels, core, n_seeds)[straight],
        near,
        pieces,
        order,
        offsets,
        half_widths(radius, metric),
        min_points,
        thickness,
        min_inside,
        max_attempts,
        steal,
    )
    labels, n_tracks = drop_small(tracks, n_tracks, min_points)

    # Strictly nearer than the radius: the closed ball of the next smaller number.
    isolation = half_widths(float(np.nextafter(isolation_radius, -1.0)), "l2")
    on_track = labels != FREE
    beside_track = ball_sums(points.cols, on_track.astype(np.int64), points.starts, isolation) > 0
    rest = np.flatnonzero(~on_track & ~beside_track)
    rest_labels, n_rest = connect_subset(points.rows, points.cols, rest, near, core)
    rest_labels, n_rest = drop_small(rest_labels, n_rest, int(seed_sizes.min()))
    labels[rest] = np.where(rest_labels == FREE, FREE, rest_labels + n_tracks)
    tags = np.repeat(np.array([1, 0], np.int32), [n_tracks, n_rest])
    return Clustering(labels, tags, n_tracks + n_rest, cut_short)


def _first_cores(labels: NDArray[np.int32], core: NDArray[np.bool_], n_clusters: int) -> NDArray[np.int64]:
    """First core point of every cluster, in raster order."""
    first = np.empty(n_clusters, np.int64)
    cores = np.flatnonzero(core)[::-1]
    first[labels[cores]] = cores  # of several writes to one place the last one stays: the first in raster order
    return first
