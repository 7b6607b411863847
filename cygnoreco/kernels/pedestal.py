"""Exact sums of dark frames in one pass over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

#: Counts subtracted before squaring: the sCMOS offset. Any value gives the same rms, since all is in whole numbers.
SHIFT = 100

#: Frames whose sums are certain to fit: 2^16 times the largest count fits 32 bits, 2^16 times its square 64.
MAX_FRAMES = 65536

#: Pixels of a tile: its two accumulators, 24 kB, stay in the first-level cache for all frames of a block.
TILE = 2048


@njit(nogil=True, cache=True)
def accumulate(frames: Any, sums: Any, squares: Any) -> None:
    """Add a block of frames to the running sums.

    Parameters
    ----------
    frames : ndarray, shape (n, pixels), uint16
        Raw counts.
    sums : ndarray, shape (pixels,), uint32
        Sum of the counts, updated.
    squares : ndarray, shape (pixels,), uint64
        Sum of (counts - SHIFT)^2, updated.
    """
    count, pixels = frames.shape
    for start in range(0, pixels, TILE):
        stop = min(start + TILE, pixels)
        tile_sums, tile_squares = sums[start:stop], squares[start:stop]
        for n in range(count):
            _add(frames[n, start:stop], tile_sums, tile_squares)


@njit(nogil=True, cache=True)
def _add(counts: Any, sums: Any, squares: Any) -> None:
    for k in range(len(counts)):
        value = np.uint32(counts[k])
        sums[k] += value
        # Unsigned on purpose: a negative difference wraps around and so does its square, to the same 32 bits.
        shifted = np.uint32(value - np.uint32(SHIFT))
        squares[k] += np.uint64(np.uint32(shifted * shifted))


@njit(nogil=True, cache=True)
def moments(sums: Any, squares: Any, count: int, mean: Any, rms: Any) -> None:
    """Mean and standard deviation (n - 1) of every pixel from its exact sums.

    Parameters
    ----------
    sums, squares : ndarray, shape (pixels,), integer
        As :func:`accumulate` leaves them.
    count : int
        Frames summed, 2 to ``MAX_FRAMES``.
    mean, rms : ndarray, shape (pixels,), float64
        Results, ADU.
    """
    frames = np.uint64(count)
    for k in range(len(sums)):
        mean[k] = np.float64(sums[k]) / np.float64(count)
        shifted = np.uint64(abs(np.int64(sums[k]) - np.int64(SHIFT) * np.int64(count)))
        # n sum(x^2) - sum(x)^2 in whole numbers: the subtraction that ruins this formula in floating point is exact.
        spread = frames * np.uint64(squares[k]) - shifted * shifted
        rms[k] = np.sqrt(np.float64(spread) / (np.float64(count) * np.float64(count - 1)))
