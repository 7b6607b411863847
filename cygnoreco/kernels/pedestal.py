"""Exact sums of dark frames in one pass over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cygnoreco.kernels.vectors import wide_vectors

#: Counts subtracted before squaring: the sCMOS offset. Any value gives the same rms, since all is in whole numbers.
SHIFT = 100

#: Frames whose sums are certain to fit: 2^16 times the largest count fits 32 bits, 2^16 times its square 64.
MAX_FRAMES = 65536

#: Pixels of a tile: the two sums over the frames of a block, 16 kB each, stay in the first-level cache.
TILE = 4096


@njit(nogil=True, cache=True)
def accumulate(frames: Any, sums: Any, squares: Any) -> None:
    """Add a block of frames to the running sums.

    The sums of the block are made in 32 bits, tile by tile, and added to the running ones once: these are six times
    the size of a frame, and going through them for every frame is what would take the time.

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
    tile_sums, tile_squares = np.empty(TILE, np.uint32), np.empty(TILE, np.uint32)
    for start in range(0, pixels, TILE):
        stop = min(start + TILE, pixels)
        tile_sums[:] = 0
        tile_squares[:] = 0
        largest = np.uint16(0)
        for n in range(count):
            largest = max(largest, _add(frames[n, start:stop], tile_sums, tile_squares))
        furthest = max(np.int64(largest) - SHIFT, SHIFT)
        if count * furthest * furthest < 2**32:
            _add_tile(tile_sums, tile_squares, sums[start:stop], squares[start:stop])
        else:
            for n in range(count):
                _add_wide(frames[n, start:stop], sums[start:stop], squares[start:stop])


@njit(nogil=True, cache=True)
def _add(counts: Any, sums: Any, squares: Any) -> Any:
    """Add a frame to sums of 32 bits, whose squares may overflow; return the largest counts, which tell."""
    wide_vectors()
    largest = np.uint16(0)
    for k in range(len(counts)):
        value = counts[k]
        largest = value if value > largest else largest
        # Unsigned on purpose: a negative difference wraps around and so does its square, to the same 32 bits.
        shifted = np.uint32(np.uint32(value) - np.uint32(SHIFT))
        sums[k] += np.uint32(value)
        squares[k] += np.uint32(shifted * shifted)
    return largest


@njit(nogil=True, cache=True)
def _add_tile(tile_sums: Any, tile_squares: Any, sums: Any, squares: Any) -> None:
    wide_vectors()
    for k in range(len(sums)):
        sums[k] += tile_sums[k]
        squares[k] += np.uint64(tile_squares[k])


@njit(nogil=True, cache=True)
def _add_wide(counts: Any, sums: Any, squares: Any) -> None:
    """Add a frame with counts that 32 bits cannot hold the squares of."""
    for k in range(len(counts)):
        value = np.uint32(counts[k])
        sums[k] += value
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
