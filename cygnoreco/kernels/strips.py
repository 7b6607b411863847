"""The loops of the image section over a strip of a macro-pixel row, each short enough to become vectors.

How a strip lies in memory is described in :mod:`cygnoreco.kernels.image`. Everything about it lies in one array at
distances that the compiler knows, or else it could not tell that the parts do not overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cygnoreco.kernels.vectors import wide_vectors

#: Macro-pixel columns of a strip: the planes of its four rows are 13 kB. A multiple of the widest vector, 16 float32.
STRIP = 96

# A row of a strip: one pixel to the left of the strip, at the end of a cache line, then plane 3, to whose right
# that pixel belongs, then planes 0, 1 and 2.
_LINE = 16
PLANE_3, PLANE_0, PLANE_1, PLANE_2 = _LINE, _LINE + STRIP, _LINE + 2 * STRIP, _LINE + 3 * STRIP
ROW = _LINE + 4 * STRIP

# The state of a strip: smaller and larger of each pixel of the row above and its left neighbour by planes, the two sums
# down the columns, and the two results of a row of macro-pixels.
LOW, HIGH, SUMS, SQUARES, PICTURE, EDGES, STATE = (k * STRIP for k in (0, 4, 8, 9, 10, 11, 12))


@njit(nogil=True, cache=True)
def turn(counts: Any, turned: Any) -> None:
    """Mirror a row."""
    wide_vectors()
    last = np.uint64(len(counts) - 1)  # unsigned, because a signed index could be a negative one, counted from the end
    for x in range(len(counts)):
        turned[x] = counts[last - np.uint64(x)]


@njit(nogil=True, cache=True)
def keep(counts: Any, threshold: Any, ceiling: Any, kept: Any) -> Any:
    """Copy the counts that survive and zeros for the others; return the sum of all counts."""
    wide_vectors()
    total = np.uint32(0)  # holds 65537 saturated pixels, and 32-bit lanes are twice as many as 64-bit ones
    for x in range(len(counts)):
        value = counts[x]
        total = np.uint32(total + np.uint32(value))
        kept[x] = value if (value > threshold[x]) & (value <= ceiling) else np.uint16(0)
    return np.uint64(total)


@njit(nogil=True, cache=True)
def sum_row(counts: Any) -> Any:
    """Sum of the counts of a row."""
    wide_vectors()
    total = np.uint32(0)
    for x in range(len(counts)):
        total = np.uint32(total + np.uint32(counts[x]))
    return np.uint64(total)


@njit(nogil=True, cache=True)
def expand(words: Any, mean: Any, z: Any) -> None:
    """Subtract the pedestal from four counts a word.

    Counts that survive are above the pedestal and zeros are not, so the larger of the difference and zero is the
    suppressed pixel.
    """
    wide_vectors()
    mask = np.uint64(0xFFFF)
    for j in range(STRIP):
        word = words[j]
        a = np.float64(word & mask) - mean[j]
        b = np.float64((word >> np.uint64(16)) & mask) - mean[STRIP + j]
        c = np.float64((word >> np.uint64(32)) & mask) - mean[2 * STRIP + j]
        d = np.float64(word >> np.uint64(48)) - mean[3 * STRIP + j]
        z[PLANE_0 + j] = a if a > 0.0 else 0.0
        z[PLANE_1 + j] = b if b > 0.0 else 0.0
        z[PLANE_2 + j] = c if c > 0.0 else 0.0
        z[PLANE_3 + j] = d if d > 0.0 else 0.0


@njit(nogil=True, cache=True)
def expand_narrow(halves: Any, mean: Any, z: Any) -> None:
    """Do the same in single precision, for which two counts a word leave no lane of a vector empty."""
    wide_vectors()
    mask = np.uint32(0xFFFF)
    zero = np.float32(0)
    for j in range(STRIP):
        first, second = halves[2 * j], halves[2 * j + 1]
        a = np.float32(np.float32(np.uint32(first & mask)) - mean[j])
        b = np.float32(np.float32(np.uint32(first >> np.uint32(16))) - mean[STRIP + j])
        c = np.float32(np.float32(np.uint32(second & mask)) - mean[2 * STRIP + j])
        d = np.float32(np.float32(np.uint32(second >> np.uint32(16))) - mean[3 * STRIP + j])
        z[PLANE_0 + j] = a if a > zero else zero
        z[PLANE_1 + j] = b if b > zero else zero
        z[PLANE_2 + j] = c if c > zero else zero
        z[PLANE_3 + j] = d if d > zero else zero


@njit(nogil=True, cache=True)
def blocks_and_totals(z: Any, state: Any) -> None:
    """Average the macro-pixels, and add rows and their squares to the sums down the columns."""
    wide_vectors()
    sixteenth = state.dtype.type(0.0625)  # a power of two: multiplying by it is dividing by 4 twice, to the last bit
    for j in range(STRIP):
        sums, squares = state[SUMS + j], state[SQUARES + j]
        block = state.dtype.type(0)
        for row in range(0, 4 * ROW, ROW):
            a, b, c, d = z[row + PLANE_0 + j], z[row + PLANE_1 + j], z[row + PLANE_2 + j], z[row + PLANE_3 + j]
            total = a + b + c + d
            block += total
            sums += total
            squares += a * a + b * b + c * c + d * d
        state[PICTURE + j] = block * sixteenth
        state[SUMS + j] = sums
        state[SQUARES + j] = squares


@njit(nogil=True, cache=True)
def mirror_above(z: Any, state: Any) -> None:
    """Make the first row of the image the row above it, too."""
    for j in range(STRIP):
        left = z[PLANE_3 + j - 1]
        for plane, start in enumerate((PLANE_0, PLANE_1, PLANE_2, PLANE_3)):
            here = z[start + j]
            state[LOW + plane * STRIP + j] = min(left, here)
            state[HIGH + plane * STRIP + j] = max(left, here)
            left = here


@njit(nogil=True, cache=True)
def medians(z: Any, state: Any) -> None:
    """Find the upper medians of the 2 x 2 pixels that end at each pixel, and average them by blocks."""
    wide_vectors()
    sixteenth = state.dtype.type(0.0625)
    for j in range(STRIP):
        # Written out for the four planes, so that the row above is kept in registers.
        low_0, low_1, low_2, low_3 = (
            state[LOW + j],
            state[LOW + STRIP + j],
            state[LOW + 2 * STRIP + j],
            state[LOW + 3 * STRIP + j],
        )
        high_0, high_1, high_2, high_3 = (
            state[HIGH + j],
            state[HIGH + STRIP + j],
            state[HIGH + 2 * STRIP + j],
            state[HIGH + 3 * STRIP + j],
        )
        block = state.dtype.type(0)
        for row in range(0, 4 * ROW, ROW):
            left, a = z[row + PLANE_3 + j - 1], z[row + PLANE_0 + j]
            b, c, d = z[row + PLANE_1 + j], z[row + PLANE_2 + j], z[row + PLANE_3 + j]
            total, low_0, high_0 = _third(low_0, high_0, left, a)
            median, low_1, high_1 = _third(low_1, high_1, a, b)
            total += median
            median, low_2, high_2 = _third(low_2, high_2, b, c)
            total += median
            median, low_3, high_3 = _third(low_3, high_3, c, d)
            total += median
            block += total
        state[EDGES + j] = block * sixteenth
        state[LOW + j] = low_0
        state[LOW + STRIP + j] = low_1
        state[LOW + 2 * STRIP + j] = low_2
        state[LOW + 3 * STRIP + j] = low_3
        state[HIGH + j] = high_0
        state[HIGH + STRIP + j] = high_1
        state[HIGH + 2 * STRIP + j] = high_2
        state[HIGH + 3 * STRIP + j] = high_3


@njit(nogil=True, cache=True, inline="always")
def _third(low_above: Any, high_above: Any, left: Any, here: Any) -> Any:
    """Third smallest of two pairs, and the lower pair in order."""
    # "a if a < b else b" is one instruction; min() of Python's rules about NaN is three.
    low = left if left < here else here
    high = left if left > here else here
    larger_low = low if low > low_above else low_above
    smaller_high = high if high < high_above else high_above
    return (larger_low if larger_low > smaller_high else smaller_high), low, high


@njit(nogil=True, cache=True)
def flush(state: Any, columns: Any) -> None:
    """Move the two sums of every column to double precision."""
    for strip in range(len(state)):
        for j in range(2 * STRIP):
            columns[strip, j] += state[strip, SUMS + j]
            state[strip, SUMS + j] = state.dtype.type(0)
