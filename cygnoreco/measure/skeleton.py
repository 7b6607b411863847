"""Skeletons of binary images: thinning to lines one pixel wide and the pruning of their twigs.

Both are parallel algorithms: in one step every pixel is judged by its eight neighbours as they were before the step.
The neighbours x1...x8 are counted anticlockwise from the east, as in the literature; as the bits 0...7 of a number they
make the address in a table of 256 verdicts.

The kernels work on a flat image with a frame of background one pixel wide, so that no neighbour is ever outside, and
on the list of its foreground pixels: their cost is that of the pixels, not of the box around them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: The neighbourhood of a pixel inside the image, which no sub-iteration deletes.
SURROUNDED = 255

#: Bits of a pixel of the flat image: it is set; it is set and no pruning may take it.
FOREGROUND = 1
PROTECTED = 2
#: It waits in the queue of the first sub-iteration of the thinning; the second one's is the next bit.
QUEUED = 4


def _verdicts() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tables over the 256 neighbourhoods: deletable in either sub-iteration (2, 256), end of a line (256,)."""
    neighbours = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(bool)
    x1, x2, x3, x4, x5, x6, x7, x8 = neighbours.T
    sides, corners = neighbours[:, 0::2], neighbours[:, 1::2]
    next_sides = np.roll(sides, -1, axis=1)

    branches = (~sides & (corners | next_sides)).sum(axis=1)
    pairs = np.minimum((sides | corners).sum(axis=1), (corners | next_sides).sum(axis=1))
    simple = (branches == 1) & (pairs >= 2) & (pairs <= 3)
    not_east = ~((x2 | x3 | ~x8) & x1)
    not_west = ~((x6 | x7 | ~x4) & x5)

    end = np.zeros(256, bool)
    for k in range(8):
        far = [(k + step) % 8 for step in range(2, 7)]
        end |= neighbours[:, k] & ~neighbours[:, far].any(axis=1)
    return np.stack([simple & not_east, simple & not_west]), end


DELETABLE, END = _verdicts()


def thin(image: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a binary image to lines one pixel wide, keeping its connections and holes.

    Two sub-iterations alternate until neither finds anything. Each deletes at once all pixels for which

    1. exactly one i of 1...4 has x(2i-1) = 0 and (x(2i) = 1 or x(2i+1) = 1), indices modulo 8: no connection breaks;
    2. min(n1, n2) is 2 or 3, n1 = sum of x(2k-1) or x(2k), n2 = sum of x(2k) or x(2k+1): no end of a line;
    3. first sub-iteration (x2 or x3 or not x8) and x1 = 0, second one (x6 or x7 or not x4) and x5 = 0: only
       one side at a time, or a line two pixels wide would vanish.

    Parameters
    ----------
    image : ndarray of bool, shape (height, width)
        The image; all is background outside.

    Returns
    -------
    ndarray of bool, shape (height, width)
        The skeleton.

    References
    ----------
    Z. Guo and R. W. Hall, "Parallel thinning with two-subiteration algorithms", Comm. ACM 32 (1989) 359, algorithm A1.
    """
    flat, width = _framed(image)
    thin_pixels(flat, width, np.flatnonzero(flat).astype(np.int32))
    return _unframed(flat, width)


def prune(skeleton: NDArray[np.bool_], rounds: int) -> NDArray[np.bool_]:
    """Shorten every line of a skeleton from its ends, by one pixel a round.

    An end has one neighbour, or two or three that touch: ``x(k) = 1`` for some k and no neighbour but x(k-1) and
    x(k+1) beside it. In the language of hit-or-miss masks these are eight, the rotations of ::

        0 0 0       0 0 0
        0 1 0  and  0 1 *      (* = any)
        * 1 *       0 * 1

    A single pixel is no end and stays; a free line of an even number of pixels, at most twice the rounds, vanishes.

    Parameters
    ----------
    skeleton : ndarray of bool, shape (height, width)
        Thin lines; all is background outside.
    rounds : int
        Length of the twigs that vanish, in pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)
        What is left.
    """
    flat, width = _framed(skeleton)
    prune_pixels(flat, width, np.flatnonzero(flat).astype(np.int32), rounds)
    return _unframed(flat, width)


def _framed(image: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
    framed = np.pad(np.asarray(image, bool), 1).astype(np.uint8)
    return framed.ravel(), framed.shape[1]


def _unframed(flat: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    return flat.reshape(-1, width)[1:-1, 1:-1] != 0


@njit(nogil=True, cache=True)
def _neighbours(image: NDArray[np.uint8], width: int, at: int) -> int:
    """x1...x8 of a pixel as the bits 0...7: east, north-east, north, and so on anticlockwise."""
    north, south = at - width, at + width
    return (
        (image[at + 1] & FOREGROUND)
        | (image[north + 1] & FOREGROUND) << 1
        | (image[north] & FOREGROUND) << 2
        | (image[north - 1] & FOREGROUND) << 3
        | (image[at - 1] & FOREGROUND) << 4
        | (image[south - 1] & FOREGROUND) << 5
        | (image[south] & FOREGROUND) << 6
        | (image[south + 1] & FOREGROUND) << 7
    )


@njit(nogil=True, cache=True)
def thin_pixels(image: NDArray[np.uint8], width: int, pixels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Thin a framed flat image in place, see :func:`thin`.

    A verdict can only change where a neighbour has gone since. Each sub-iteration therefore keeps a queue of the
    pixels to judge: at first those at an edge, then the neighbours of deleted ones. A pixel is judged at most 18 times,
    however thick the image, and the result is that of complete passes.

    Parameters
    ----------
    image : ndarray of uint8, shape (height * width,)
        Bits of the pixels, frame included; changed.
    width : int
        Width with the frame, in pixels.
    pixels : ndarray of int32, shape (n,)
        Addresses of the foreground.

    Returns
    -------
    ndarray of int32
        Addresses of the skeleton, in the order given.
    """
    queues = np.empty((2, pixels.size), np.int32)
    waiting = np.zeros(2, np.int64)
    for at in pixels:
        if _neighbours(image, width, at) != SURROUNDED:
            image[at] |= QUEUED | QUEUED << 1
            queues[0, waiting[0]] = queues[1, waiting[0]] = at
            waiting += 1
    deleted = np.empty(pixels.size, np.int32)

    turn = 0
    while waiting.any():
        n_deleted = 0
        for at in queues[turn, : waiting[turn]]:
            image[at] ^= QUEUED << turn
            if image[at] & FOREGROUND and DELETABLE[turn, _neighbours(image, width, at)]:
                deleted[n_deleted] = at
                n_deleted += 1
        waiting[turn] = 0

        for at in deleted[:n_deleted]:
            image[at] ^= FOREGROUND
        for at in deleted[:n_deleted]:
            for beside in range(at - width, at + width + 1, width):
                for neighbour in range(beside - 1, beside + 2):
                    if image[neighbour] & FOREGROUND:
                        for queue in range(2):
                            if not image[neighbour] & QUEUED << queue:
                                image[neighbour] |= QUEUED << queue
                                queues[queue, waiting[queue]] = neighbour
                                waiting[queue] += 1
        turn = 1 - turn
    return _foreground(image, pixels)


@njit(nogil=True, cache=True)
def prune_pixels(image: NDArray[np.uint8], width: int, pixels: NDArray[np.int32], rounds: int) -> NDArray[np.int32]:
    """Prune a framed flat image in place, see :func:`prune`; pixels with the bit ``PROTECTED`` are no ends.

    Parameters
    ----------
    image : ndarray of uint8, shape (height * width,)
        Bits of the pixels, frame included; changed.
    width : int
        Width with the frame, in pixels.
    pixels : ndarray of int32, shape (n,)
        Addresses of the foreground.
    rounds : int
        Number of rounds.

    Returns
    -------
    ndarray of int32
        Addresses of what is left, in the order given.
    """
    ends = np.empty(pixels.size, np.int32)
    for _ in range(rounds):
        n_ends = 0
        for at in pixels:
            if not image[at] & PROTECTED and END[_neighbours(image, width, at)]:
                ends[n_ends] = at
                n_ends += 1
        if n_ends == 0:
            break
        for at in ends[:n_ends]:
            image[at] ^= FOREGROUND
        pixels = _foreground(image, pixels)
    return pixels


@njit(nogil=True, cache=True)
def _foreground(image: NDArray[np.uint8], pixels: NDArray[np.int32]) -> NDArray[np.int32]:
    return pixels[(image[pixels] & FOREGROUND) != 0]
