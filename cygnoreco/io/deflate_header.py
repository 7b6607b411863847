"""Find where DEFLATE blocks begin: nothing marks the place, but few places look like the header of a block.

A block with codes of its own begins with the lengths of its code words (RFC 1951, 3.2.7). A decoder demands that they
make a complete code, and bits that are something else almost never do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Order in which the lengths of the code of lengths are written.
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.int64)
#: A header takes at most this many bits: 17, 19 lengths of 3 bits, and 286 + 30 code lengths of 7 + 7 bits.
_LONGEST = 17 + 19 * 3 + 316 * 14


@njit(nogil=True, cache=True)
def block_begin(piece: NDArray[np.uint8]) -> Any:
    """Find the first bit of a piece of a stream at which a block with its own codes begins that is not the last one.

    Parameters
    ----------
    piece : (n,) uint8
        Some of the stream; headers that its end cuts are not seen.

    Returns
    -------
    int
        Counted from the least significant bit of the first byte; -1 if there is none. Few bits look so by chance.
    """
    scratch = np.empty(320, np.int64)
    table = np.empty(128, np.int64)
    word = np.uint64(0)
    for byte in range(8):
        word |= np.uint64(piece[byte]) << np.uint64(8 * byte) if len(piece) > 8 else np.uint64(0)
    for byte in range(len(piece) - _LONGEST // 8 - 1):
        for shift in range(8):
            head = np.int64(word >> np.uint64(shift))
            # Not the last block, own codes, at most 286 literals and lengths and 30 distances.
            if head & 7 != 4 or (head >> 3) & 31 > 29 or (head >> 8) & 31 > 29:
                continue
            # Chance is told from a header by the sum over 2^-length, which soon exceeds 1: see below.
            room: Any = 128
            for i in range(min(4 + ((head >> 13) & 15), np.int64(13))):
                room -= (128 >> ((head >> (17 + 3 * i)) & 7)) & 127
                if room < 0:
                    break
            if room >= 0 and _is_header(piece, 8 * byte + shift, scratch, table):
                return 8 * byte + shift
        word = word >> np.uint64(8) | np.uint64(piece[byte + 8]) << np.uint64(56)
    return -1


@njit(nogil=True, cache=True)
def _bits(piece: Any, bit: Any, count: int) -> Any:
    """Up to 17 bits from a place on, which is at least 4 bytes before the end."""
    byte = bit >> 3
    word = np.int64(piece[byte]) | np.int64(piece[byte + 1]) << 8 | np.int64(piece[byte + 2]) << 16
    return (word >> (bit & 7)) & ((1 << count) - 1)


@njit(nogil=True, cache=True)
def _is_header(piece: Any, bit: int, lengths: Any, table: Any) -> bool:
    """Whether the code lengths from a place on make complete codes; `lengths` and `table` are scratch memory."""
    word = _bits(piece, bit, 17)
    n_literals, n_distances, n_written = 257 + ((word >> 3) & 31), 1 + ((word >> 8) & 31), 4 + (word >> 13)
    bit += 17
    # The code of the lengths: it must be full, that is the sum over 2^-length is 1.
    lengths[:19] = 0
    room = 128
    for i in range(n_written):
        length = _bits(piece, bit + 3 * i, 3)
        lengths[_ORDER[i]] = length
        if length:
            room -= 128 >> length
    if room != 0:
        return False
    bit += 3 * n_written
    _fill_table(lengths, table)

    total, done, last = n_literals + n_distances, 0, -1
    while done < total:
        entry = table[_bits(piece, bit, 7)]
        bit += entry & 7
        symbol = entry >> 3
        if symbol < 16:
            lengths[done] = last = symbol
            done += 1
            continue
        if symbol == 16:
            if last < 0:
                return False
            value, repeat = last, 3 + _bits(piece, bit, 2)
            bit += 2
        elif symbol == 17:
            value, repeat = 0, 3 + _bits(piece, bit, 3)
            bit += 3
        else:
            value, repeat = 0, 11 + _bits(piece, bit, 7)
            bit += 7
        if done + repeat > total:
            return False
        for _ in range(repeat):
            lengths[done] = value
            done += 1
        last = value
    if lengths[256] == 0:  # the end of the block needs a word
        return False
    return _room(lengths, 0, n_literals) == 0 and _distances_fit(lengths, n_literals, total)


@njit(nogil=True, cache=True)
def _fill_table(lengths: Any, table: Any) -> None:
    """Symbol and length of the code word that seven bits begin with: canonical codes, first bit lowest."""
    code = 0
    for length in range(1, 8):
        for symbol in range(19):
            if lengths[symbol] != length:
                continue
            reverse = 0
            for i in range(length):
                reverse |= ((code >> i) & 1) << (length - 1 - i)
            for rest in range(128 >> length):
                table[reverse | rest << length] = symbol << 3 | length
            code += 1
        code <<= 1


@njit(nogil=True, cache=True)
def _room(lengths: Any, first: int, last: int) -> int:
    """Compute what code words of these lengths leave free, in units of 2^-15; negative if they are too many."""
    room = 1 << 15
    for i in range(first, last):
        if lengths[i]:
            room -= 1 << (15 - lengths[i])
    return room


@njit(nogil=True, cache=True)
def _distances_fit(lengths: Any, first: int, last: int) -> bool:
    """Whether distances have a complete code, a single word, or none at all."""
    used = 0
    for i in range(first, last):
        used += lengths[i] > 0
    return used <= 1 or _room(lengths, first, last) == 0
