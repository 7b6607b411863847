"""iDBSCAN: density clustering in three passes, from dense and long to sparse and small."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import ArrayLike

from cygnoreco.cluster.lattice import Clustering, check_points, drop_small, find_clusters, select
from cygnoreco.kernels.lattice import half_widths
from cygnoreco.stage import stage

Radius = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(0)]

#: The published cuts are on the number of coordinates of a cluster (the size of its n x 2 array), two a point.
COORDINATES_PER_POINT = 2


@stage(name="idbscan", version=1)
def idbscan(
    rows: ArrayLike,
    cols: ArrayLike,
    weights: ArrayLike,
    *,
    eps: tuple[Radius, Radius, Radius, Radius] = (2.26, 3.5, 2.8, 6.0),
    min_samples: tuple[Count, Count, Count, Count] = (2, 30, 6, 2),
    cuts: tuple[Count, Count] = (900, 150),
) -> Clustering:
    """Cluster points by density in three passes: iDBSCAN [1]_.

    Pass 0 removes noise: points that DBSCAN leaves without a cluster. Pass 1 clusters what is left with a high
    density and keeps the clusters above the first cut: long tracks. Pass 2 clusters the rest with a lower density and
    keeps those above the second cut: medium ones. Pass 3 clusters the rest and keeps all. Distances are Euclidean,
    and every point counts 1: the weights are checked, but have no influence.

    Parameters
    ----------
    rows, cols : (n,) int
        Grid coordinates in macro-pixels, in raster order, no point twice (``merge_points`` makes such).
    weights : (n,) int
        Weight of every point; not used by this method.
    eps : tuple of 4 float
        Radius of the ball of passes 0 to 3, in macro-pixels.
    min_samples : tuple of 4 int
        Number of points in the ball that makes a core point, in passes 0 to 3.
    cuts : tuple of 2 int
        Passes 1 and 2 keep clusters with more coordinates than this. A point has two coordinates: 900 are 450 points.

    Returns
    -------
    Clustering
        Numbered in the order of creation; the tag is the pass: 1 long, 2 medium, 3 small.

    Raises
    ------
    InputError
        The points are not integers, not in raster order, or of different lengths.

    References
    ----------
    .. [1] E. Baracchini et al., "A density-based clustering algorithm for the CYGNO data analysis",
       JINST 15 (2020) T12003, arXiv:2007.01763.
    """
    points = check_points(rows, cols, weights)
    points = replace(points, weights=np.ones_like(points.weights))
    min_sizes = (*(cut // COORDINATES_PER_POINT + 1 for cut in cuts), 1)

    _, first_labels, _ = find_clusters(points, half_widths(eps[0], "l2"), min_samples[0])
    left = np.flatnonzero(first_labels >= 0)
    labels = np.full(points.cols.size, -1, np.int32)
    found = [0, 0, 0]
    for step in range(3):
        _, found_labels, n_found = find_clusters(
            select(points, left), half_widths(eps[step + 1], "l2"), min_samples[step + 1]
        )
        found_labels, found[step] = drop_small(found_labels, n_found, min_sizes[step])
        kept = found_labels >= 0
        labels[left[kept]] = found_labels[kept] + sum(found[:step])
        left = left[~kept]
    return Clustering(labels, np.repeat(np.array([1, 2, 3], np.int32), found), sum(found))
