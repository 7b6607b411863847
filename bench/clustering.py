"""Clustering by number of points, side by side: DBSCAN of scikit-learn and ours, the other two methods, and scaling.

Points are drawn here on the grid of macro-pixels of the camera: short tracks, two macro-pixels wide, over a thin
speckle, as many as asked for. CPU times, the smallest of several in turns; read the ratios.

Example
-------
python -m bench.clustering --json
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import numpy as np

from bench import plain
from bench._common import best_s, print_table
from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.idbscan import idbscan
from cygnoreco.cluster.lattice import dbscan

SIDE = 576
EPS, MIN_SAMPLES = 12.0, 20
SIZES = (710, 5_000, 50_000)


def drawn(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About n points of tracks and speckle: rows, columns, weights, in raster order."""
    rng = np.random.default_rng(seed)
    image = np.zeros((SIDE, SIDE), bool)
    while np.count_nonzero(image) < n:
        row, col, angle = rng.uniform(0, [SIDE, SIDE, np.pi])
        steps = np.arange(rng.integers(10, 200)) * 0.7
        for beside in (0.0, 1.0):
            y = (row + steps * np.sin(angle) + beside * np.cos(angle)).astype(int)
            x = (col + steps * np.cos(angle) - beside * np.sin(angle)).astype(int)
            inside = (y >= 0) & (y < SIDE) & (x >= 0) & (x < SIDE)
            image[y[inside], x[inside]] = True
        image[rng.integers(0, SIDE, 2), rng.integers(0, SIDE, 2)] = True
    return listed(image)


def separate(n_clusters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Straight tracks of 24 points each on a regular grid, too far apart to touch."""
    image = np.zeros((SIDE, SIDE), bool)
    across = int(np.ceil(np.sqrt(n_clusters)))
    for k in range(n_clusters):
        row, col = k // across * 26, k % across * 26
        image[row : row + 12, col : col + 2] = True
    return listed(image)


def listed(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of an image, each of the weight of a core."""
    rows, cols = (each.astype(np.int32) for each in np.nonzero(image))
    return rows, cols, np.full(len(rows), MIN_SAMPLES // 3, np.int32)


def by_points(repeats: int) -> list[dict[str, Any]]:
    """All methods at the three sizes, and scikit-learn beside them."""
    results = []
    for size in SIZES:
        points = drawn(size)
        labels = dbscan(*points, eps=EPS, min_samples=MIN_SAMPLES).labels
        theirs = partial(plain.dbscan, *points, EPS, MIN_SAMPLES)
        same = bool(np.array_equal(labels, theirs()))
        ours = (partial(dbscan, *points, eps=EPS, min_samples=MIN_SAMPLES), partial(idbscan, *points))
        found = best_s((theirs, *ours, partial(directional, *points)), repeats)
        results.append(
            {
                "points": len(points[0]),
                "same labels": same,
                "scikit-learn ms": 1e3 * found[0],
                "dbscan ms": 1e3 * found[1],
                "times faster": found[0] / found[1],
                "idbscan ms": 1e3 * found[2],
                "directional ms": 1e3 * found[3],
            }
        )
    return results


def by_clusters(repeats: int) -> list[dict[str, Any]]:
    """Microseconds a point against the number of clusters; all of them straight, so that each is followed."""
    results = []
    for n_clusters in (25, 100, 400):
        points = separate(n_clusters)
        works = (partial(dbscan, *points), partial(idbscan, *points), partial(directional, *points))
        found = [1e6 * each / len(points[0]) for each in best_s(works, repeats)]
        row = {"clusters": n_clusters, "points": len(points[0])}
        results.append(row | dict(zip(("dbscan us", "idbscan us", "directional us"), found, strict=True)))
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    measured = {"points": by_points(arguments.repeats), "clusters": by_clusters(arguments.repeats)}
    if arguments.json:
        print(json.dumps(measured))
        return
    print_table("CPU ms a frame", list(measured["points"][0]), [list(row.values()) for row in measured["points"]])
    print_table("CPU us a point", list(measured["clusters"][0]), [list(row.values()) for row in measured["clusters"]])


if __name__ == "__main__":
    main()
