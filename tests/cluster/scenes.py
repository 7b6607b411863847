"""Points of invented images for the clustering tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scene(NamedTuple):
    """Points in raster order."""

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    weights: NDArray[np.int32]


def points_of(image: NDArray[np.integer]) -> Scene:
    """Pixels that are not zero, weighted by their content."""
    rows, cols = np.nonzero(image)
    return Scene(rows.astype(np.int32), cols.astype(np.int32), image[rows, cols].astype(np.int32))


def speckle(rng: np.random.Generator, shape: tuple[int, int], occupancy: float, max_weight: int) -> Scene:
    """Points all over the image."""
    return points_of(np.where(rng.random(shape) < occupancy, rng.integers(1, max_weight + 1, shape), 0))


def tracks(
    rng: np.random.Generator,
    shape: tuple[int, int] = (576, 576),
    n_tracks: int = 6,
    length: float = 120,
    width: float = 1.5,
    bend: float = 0.01,
    noise: int = 60,
) -> Scene:
    """Tracks of random direction that wander a little, broken by gaps, on sparse noise."""
    image = np.zeros(shape, int)
    for _ in range(n_tracks):
        steps = int(rng.exponential(2 * length)) + 20
        angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, steps))
        axis = rng.uniform(0, shape, 2) + 0.5 * np.cumsum(np.stack([np.sin(angle), np.cos(angle)], 1), axis=0)
        lit = np.sin(np.arange(steps) / rng.uniform(20, 60)) > -0.6
        hits = np.rint(np.repeat(axis[lit], 3, axis=0) + rng.normal(0, width, (3 * lit.sum(), 2))).astype(int)
        hits = hits[((hits >= 0) & (hits < shape)).all(axis=1)]
        np.add.at(image, tuple(hits.T), 1)
    np.add.at(image, tuple(rng.integers(0, shape, (noise, 2)).T), 1)
    return points_of(image)


def strip(image: NDArray[np.integer], start: tuple[float, float], stop: tuple[float, float], width: int = 3) -> None:
    """Draw a straight strip of weight 5 into an image."""
    n = int(np.hypot(stop[0] - start[0], stop[1] - start[1])) * 2
    for offset in range(width):
        rows = np.rint(np.linspace(start[0], stop[0], n)).astype(int)
        cols = np.rint(np.linspace(start[1], stop[1], n)).astype(int)
        if abs(stop[0] - start[0]) > abs(stop[1] - start[1]):
            cols = cols + offset
        else:
            rows = rows + offset
        image[rows, cols] = 5


def partition(labels: NDArray[np.integer]) -> list[int]:
    """Labels renumbered by first appearance, so that equal partitions compare equal; noise stays -1."""
    number: dict[int, int] = {}
    return [-1 if label < 0 else number.setdefault(int(label), len(number)) for label in labels]
