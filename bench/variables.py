"""Variables of clusters by macro-pixels and by clusters, beside NumPy with SciPy and scikit-image doing part of it.

Clusters are drawn here: bands of light along straight lines, with noise. ``numpy`` makes sums, axes, profiles and
Gaussian fits (no peaks, maps or exceptions); ``regionprops`` of scikit-image makes moments, axes and extremes alone.
CPU times, the smallest of several in turns; read the ratios.

Example
-------
python -m bench.variables --json
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import numpy as np
from skimage.measure import regionprops

from bench import plain
from bench._common import best_s, print_table
from cygnoreco.measure.density import density_calibration
from cygnoreco.measure.redpix import redpix
from cygnoreco.measure.variables import measure

GRID, SIDE = 576, 4
#: Number of clusters and macro-pixels of each.
SCENES = ((4, 60), (10, 100), (10, 500), (10, 1_500), (10, 5_000), (100, 60), (400, 60))


class Clusters:
    """Macro-pixels of some clusters, the image of their light, and what ours and the others want of them."""

    def __init__(self, n_clusters: int, size: int) -> None:
        rng = np.random.default_rng(1)
        across = int(np.ceil(np.sqrt(n_clusters)))
        room = GRID // across
        width = int(np.clip(np.sqrt(size) / 3, 3, room))
        length = min(-(-size // width), room)
        rows, cols = np.divmod(np.arange(length * width, dtype=np.int32), np.int32(width))
        tilt = (rows // 3) % max(room - width, 1)
        k = np.repeat(np.arange(n_clusters, dtype=np.int32), len(rows))
        self.rows = np.tile(rows, n_clusters) + k // across * room
        self.cols = np.tile(cols + tilt, n_clusters).astype(np.int32) + k % across * room
        self.labels = k
        self.offsets = np.arange(n_clusters + 1) * len(rows)
        light = 30 * np.exp(-((np.tile(cols, n_clusters) - width / 2) ** 2) / (width / 3) ** 2)
        self.z = light[:, None, None] + rng.normal(0, 3, (len(k), SIDE, SIDE))
        self.image = np.zeros((GRID * SIDE, GRID * SIDE))
        side = np.arange(SIDE)
        self.image[self.rows[:, None, None] * SIDE + side[:, None], self.cols[:, None, None] * SIDE + side] = self.z
        self.regions = np.zeros(self.image.shape, np.int32)
        self.regions[self.rows[:, None, None] * SIDE + side[:, None], self.cols[:, None, None] * SIDE + side] = (
            k[:, None, None] + 1
        )

    def measured(self) -> tuple[np.ndarray, np.ndarray]:
        """Do all variables."""
        z, tags = self.z, np.zeros(len(self.offsets) - 1, np.int32)
        return measure(self.rows, self.cols, self.offsets, z, z > 3, z > 1e6, tags)

    def saved(self) -> None:
        """Do the pixels that are saved, with the variables before them."""
        table, order = self.measured()
        redpix(table, order, self.rows, self.cols, self.offsets, self.z, "xy")

    def scikit_image(self) -> list[Any]:
        """Do moments, axes and extremes with scikit-image."""
        return [
            (region.centroid_weighted, region.axis_major_length, region.orientation, region.bbox, region.intensity_mean)
            for region in regionprops(self.regions, self.image)
        ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    results = []
    for n_clusters, size in SCENES:
        scene = Clusters(n_clusters, size)
        place = (scene.rows, scene.cols, scene.offsets, scene.z)
        variables, saved, energy, numpy, skimage = best_s(
            (
                scene.measured,
                scene.saved,
                partial(density_calibration, *place, enabled=True),
                partial(plain.variables, scene.image, scene.rows, scene.cols, scene.labels),
                scene.scikit_image,
            ),
            arguments.repeats,
        )
        results.append(
            {
                "clusters": n_clusters,
                "macro-pixels": len(scene.rows),
                "variables ms": 1e3 * variables,
                "us a macro-pixel": 1e6 * variables / len(scene.rows),
                "saved pixels ms": 1e3 * (saved - variables),
                "energy ms": 1e3 * energy,
                "numpy ms": 1e3 * numpy,
                "numpy / ours": numpy / variables,
                "regionprops ms": 1e3 * skimage,
                "regionprops / ours": skimage / variables,
            }
        )
    if arguments.json:
        print(json.dumps(results))
        return
    print_table("CPU time a frame", list(results[0]), [list(row.values()) for row in results])


if __name__ == "__main__":
    main()
