"""Noise filter and points in one walk over the rebinned image.

The filter is that of :func:`cygnoreco.image.filters.noise_filter`. Here its survivors are listed instead of drawn, and
of the filtered image no more than two rows are held.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cygnoreco.kernels.scratch import scratch

#: Macro-pixels of a row that are skipped at once where nothing can survive: one byte each in a 64-bit word.
WORD = 8


def find_points(
    edges: NDArray[np.float64],
    picture: NDArray[np.float64],
    *,
    difference: float,
    min_average: float,
    min_neighbours: int,
    unit_weights: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """List the points of one image: the stages ``noise`` and ``points`` in one.

    Parameters
    ----------
    edges, picture : ndarray, shape (h, w), float64
        Rebinned image with and without the median.
    difference, min_average, min_neighbours
        Of the stage ``noise``.
    unit_weights : bool
        Of the stage ``points``.

    Returns
    -------
    rows, cols, weights : ndarray, shape (m,), int32
        As from :func:`cygnoreco.image.points.points`, in memory that the thread's next call uses again.
    """
    rows, cols, _ = survivors(edges, difference, min_average, min_neighbours, 0.5)
    weights = scratch("point weights", rows.shape, np.int32)
    _weigh(picture, rows, cols, unit_weights, weights)
    return rows, cols, weights


def survivors(
    edges: NDArray[np.float64], difference: float, min_average: float, min_neighbours: int, least: float
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Macro-pixels that the noise filter leaves with a value above ``least``, in raster order.

    Parameters
    ----------
    edges : ndarray, shape (h, w), float64
        Rebinned image.
    difference, min_average, min_neighbours
        Of the stage ``noise``.
    least : float
        Values above this one are listed.

    Returns
    -------
    rows, cols : ndarray, shape (m,), int32
        Where they are.
    values : ndarray, shape (m,), float64
        What the filter makes of them. All three lie in memory that the thread's next call uses again.
    """
    width = edges.shape[1]
    padded = width + -width % WORD
    rounded = scratch("noise filter image", edges.shape, np.float32)
    np.copyto(rounded, edges, casting="same_kind")  # twice as fast as the same loop in the kernel
    rounded[:2] = rounded[-2:] = 0.0
    rounded[:, :2] = rounded[:, -2:] = 0.0
    rows, cols = (scratch(f"point {axis}", (edges.size,), np.int32) for axis in ("rows", "cols"))
    values = scratch("point values", (edges.size,), np.float64)
    found = _walk(
        edges,
        rounded,
        np.float32(difference),
        np.float32(min_average),
        min_neighbours,
        least,
        scratch("noise filter rows", (3, padded), np.float32),
        scratch("noise filter flags", (padded,), np.uint8),
        rows,
        cols,
        values,
    )
    return rows[:found], cols[:found], values[:found]


@njit(nogil=True, cache=True)
def _walk(
    image: Any,
    rounded: Any,
    difference: Any,
    min_average: Any,
    min_neighbours: int,
    least: float,
    memory: Any,
    candidate: Any,
    rows: Any,
    cols: Any,
    values: Any,
) -> int:
    """Filter an image and list what survives; ``memory`` (3, w + ...) and ``candidate`` (w + ...) are scratch."""
    height, width = image.shape
    memory[:] = 0.0
    candidate[:] = 0
    words = candidate.view(np.uint64)
    quiet_averages = memory[2]
    n = 0
    for y in range(1, height - 2):
        # The row above as the filter has left it, this one and the next one as they came.
        above, here, below, left_over = memory[(y + 1) % 2], rounded[y], rounded[y + 1], memory[y % 2]
        # All neighbours but the left one are known before the row is walked, and that one is zero nearly everywhere.
        # There this is the average, to the last bit: a zero changes no sum. A loop of its own, because it runs over
        # many macro-pixels at once where the walk must go one by one.
        for x in range(1, width - 2):
            outer = above[x - 1] + below[x - 1] + above[x] + below[x]
            average = (outer + above[x + 1] + here[x + 1] + below[x + 1]) * np.float32(0.125)
            quiet_averages[x] = average
            candidate[x] = not average < min_average
        left_over[:] = 0.0
        left = np.float32(0.0)
        x = 1
        while x < width - 2:
            if left == 0.0 and not candidate[x]:
                x += WORD if x % WORD == 0 and words[x // WORD] == 0 else 1
                continue
            outer = above[x - 1] + left + below[x - 1] + above[x] + below[x]
            average = (outer + above[x + 1] + here[x + 1] + below[x + 1]) * np.float32(0.125)
            alive = (left != 0.0) + (here[x] != 0.0) + (here[x + 1] != 0.0)
            for neighbour in (x - 1, x, x + 1):
                alive += (above[neighbour] != 0.0) + (below[neighbour] != 0.0)
            value = 0.0
            if average < min_average or alive < min_neighbours:
                left = np.float32(0.0)
            elif abs(here[x] - average) > difference:
                left = average
                value = np.float64(average)
            else:
                left = here[x]
                if left != 0.0:
                    value = image[y, x]
            left_over[x] = left
            if value > least:
                rows[n], cols[n], values[n] = y, x, value
                n += 1
            x += 1
    return n


@njit(nogil=True, cache=True)
def _weigh(picture: Any, rows: Any, cols: Any, unit: bool, weights: Any) -> None:
    """Weights of points: the picture there in whole ADU, at least 1."""
    for k in range(len(rows)):
        weights[k] = 1 if unit else max(np.int32(picture[rows[k], cols[k]]), np.int32(1))
