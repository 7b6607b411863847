"""Packing of frames into a few bits a pixel: a lossless codec for camera noise that costs no more than a copy.

Most pixels of a frame lie within 16 or 32 counts of each other; four or five bits hold them, and the rest, pixels of
tracks and hot ones, are kept in a list of **escapes**. A compressor that finds the last half of a bit takes several
times as long to give the pixels back (``bench/storage.py``).

Format, version 1; all numbers are little-endian, bytes counted from the start of a packed array:

======  =============  ===============================================================================================
byte    type           content
======  =============  ===============================================================================================
0       4 bytes        ``CYPK``
4       u1             version, 1
5       u1             log2 of the tile length L; written with 14, L = 16384
6       u2             0
8       u8             number N of values
16      8 bytes a      base (u2), width w in bits (u2, at most 16), escapes (u4). There are ceil(N / L) tiles: tile t
        tile           holds the values t L to min(N, (t + 1) L)
...     a tile after   its planes, then the positions (u2 each) of its escapes in the tile, then their values (u2 each)
        the other
======  =============  ===============================================================================================

A tile of n values is filled up to n', the next multiple of 16. Its width is taken apart into powers of two (5 = 4 + 1),
and each of these, p, from the largest to the smallest, is a **plane** that holds p bits of every value, the lowest bits
first, in m = n' p / 16 words of 16 bits: word i holds the values i, i + m, i + 2m, ..., the first one in its lowest
bits. So whole vectors of neighbouring words give whole vectors of neighbouring values. A value is base + bits, modulo
2**16, unless its position is among the escapes: then it is the escape's value, and its bits say nothing.

The size of a tile follows from its entry in the table: after a running sum over the table every tile can be unpacked by
itself, 324 of them in a frame of 2304 x 2304, each within 32 kB: a block of threads each on a GPU.

The writer takes for each tile the width that needs the fewest bits. That is at most 16 without escapes, so that nothing
grows by more than 46 bytes and one in four thousand. Nothing in the format guards the content against flipped bits
(in a Zarr array CRC-32C does), but the reader checks every size and position before it follows it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError
from cygnoreco.kernels.scratch import scratch
from cygnoreco.types import PackedFrames

MAGIC, VERSION = b"CYPK", 1
_TILE_LOG2 = 14
_HEADER = np.dtype([("magic", "S4"), ("version", "u1"), ("tile_log2", "u1"), ("zero", "<u2"), ("count", "<u8")])
_TABLE = np.dtype([("base", "<u2"), ("width", "<u2"), ("escapes", "<u4")])

#: Widths tried with escapes; wider tiles hold no camera noise and are packed without.
_NARROW = 8
_BINS = 1 << _NARROW
#: Values by which the last tile is filled up, at most.
_PADDING = 15
#: The width is chosen from one value in so many.
_STRIDE = 16

if sys.byteorder != "little":  # the kernels read the file's words as their own
    raise ImportError("cygnoreco.io.packing needs a little-endian machine")


def pack(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Pack an array.

    Parameters
    ----------
    values : ndarray
        uint16 in native order, of any shape; read in C order.

    Returns
    -------
    ndarray
        uint8: the packed array, in memory that this thread uses again the next time. Copy it to keep it.

    Raises
    ------
    InputError
        `values` are of another type.
    """
    if values.dtype != np.dtype(np.uint16):
        raise InputError(f"packing takes native uint16, not {values.dtype}")
    flat = np.ascontiguousarray(values).reshape(-1)
    tiles = -(-flat.size >> _TILE_LOG2)
    start = _HEADER.itemsize + tiles * _TABLE.itemsize
    packed = scratch("packing", (start + 2 * (flat.size + _PADDING),), np.uint8)
    packed[: _HEADER.itemsize] = np.array((MAGIC, VERSION, _TILE_LOG2, 0, flat.size), _HEADER).reshape(1).view("u1")
    table = packed[_HEADER.itemsize : start].view(_TABLE)
    words = packed[start : start + (len(packed) - start) // 2 * 2].view(np.uint16)
    used = _pack(flat, 1 << _TILE_LOG2, table["base"], table["width"], table["escapes"], words)
    return packed[: start + 2 * used]


def unpack(packed: Any, out: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
    """Give a packed array back.

    Parameters
    ----------
    packed : buffer
        What :func:`pack` gave.
    out : ndarray, optional
        C-contiguous uint16 of as many values, any shape: where they go.

    Returns
    -------
    ndarray
        `out`, or a new array of shape (n,).

    Raises
    ------
    DataError
        These bytes are no packed array, are damaged or cut, or hold another number of values than `out`.
    """
    data = np.frombuffer(packed, np.uint8)
    if data.ctypes.data % 2:  # the kernel reads words
        data = data.copy()
    count, tile, table, start = _checked(data)
    if out is None:
        out = np.empty(count, np.uint16)
    if out.dtype != np.dtype(np.uint16) or not out.flags.c_contiguous:
        raise InputError(f"packed values go into a C-contiguous array of native uint16, not of {out.dtype}")
    if out.size != count:
        raise DataError(f"packed array: {count} values instead of {out.size}")
    words = data[start:].view(np.uint16)
    bad = _unpack(words, tile, table["base"], table["width"], table["escapes"], out.reshape(-1))
    if bad >= 0:
        raise DataError(f"packed array: an escape of tile {bad} lies outside of it")
    return out


def tile_table(packed: Any, first_word: int = 0, first_value: int = 0) -> NDArray[np.int64]:
    """Say where each tile of a packed array lies, for whoever unpacks them side by side.

    Parameters
    ----------
    packed : buffer
        What :func:`pack` gave.
    first_word, first_value : int
        Added to the places: where the packed array begins among others, in words of 16 bits, and where its values go.

    Returns
    -------
    ndarray
        (tiles, 6) int64: first word, base, width in bits, escapes, first value, number of values.

    Raises
    ------
    DataError
        As for :func:`unpack`, except that the positions of the escapes are not looked at.
    """
    data = np.frombuffer(packed, np.uint8)
    count, tile, table, start = _checked(data)
    lengths, words = _sizes(table, count, tile)
    places = first_word + start // 2 + np.cumsum(words) - words
    values = first_value + tile * np.arange(len(table), dtype=np.int64)
    columns = (places, table["base"], table["width"], table["escapes"], values, lengths)
    return np.stack([column.astype(np.int64) for column in columns], axis=1)


def most_bytes(count: int) -> int:
    """Most bytes that so many values take, as :func:`pack` packs them, together with their table of tiles."""
    tiles = -(-count >> _TILE_LOG2)
    return _HEADER.itemsize + tiles * (_TABLE.itemsize + 6 * 8) + 2 * (count + _PADDING)


def join_packed(
    packed: Iterable[NDArray[np.uint8]], shape: tuple[int, int, int], memory: NDArray[np.uint8]
) -> PackedFrames:
    """Put packed frames one after the other, with one table for the tiles of all of them.

    Parameters
    ----------
    packed : iterable of ndarray
        What :func:`pack` gave for each frame; each is done with before the next is asked for.
    shape : tuple of int
        (n, H, W) of the frames.
    memory : ndarray
        (b,) uint8 with room for all of them: where they go.

    Returns
    -------
    PackedFrames
        Its words are in `memory`.

    Raises
    ------
    DataError
        As for :func:`tile_table`, or a frame has another number of pixels.
    """
    pixels, at, tables = shape[1] * shape[2], 0, [np.empty((0, 6), np.int64)]
    for frame, each in enumerate(packed):
        tables.append(tile_table(each, at // 2, frame * pixels))
        if (count := int(tables[-1][:, 5].sum())) != pixels:
            raise DataError(f"packed array: {count} values instead of {pixels}")
        memory[at : at + len(each)] = each
        at += len(each)
    return PackedFrames(memory[:at].view(np.uint16), np.concatenate(tables), shape)


def _checked(data: NDArray[np.uint8]) -> tuple[int, int, NDArray[Any], int]:
    """Give number of values, tile length, table and begin of the tiles, all of which fit the length of the data."""
    if len(data) < _HEADER.itemsize:
        raise DataError(f"packed array: {len(data)} bytes, its header alone has {_HEADER.itemsize}")
    header = data[: _HEADER.itemsize].view(_HEADER)[0]
    if header["magic"] != MAGIC:
        raise DataError(f"packed array: begins with {header['magic']!r} instead of {MAGIC!r}")
    if header["version"] != VERSION:
        raise DataError(f"packed array: version {header['version']}, this program reads {VERSION}")
    count, log2 = int(header["count"]), int(header["tile_log2"])
    if not 4 <= log2 <= 16:
        raise DataError(f"packed array: tiles of 2**{log2} values instead of 2**4 to 2**16")
    start = _HEADER.itemsize + -(-count >> log2) * _TABLE.itemsize
    if start > len(data):
        raise DataError(f"packed array: {len(data)} bytes, {start} for the table of its {count} values alone")
    table = data[_HEADER.itemsize : start].view(_TABLE)
    if len(table) and table["width"].max() > 16:
        raise DataError(f"packed array: a width of {table['width'].max()} bits, 16 at most are possible")
    lengths, words = _sizes(table, count, 1 << log2)
    if (table["escapes"] > lengths).any():
        raise DataError("packed array: a tile with more escapes than values")
    if start + 2 * words.sum() != len(data):
        raise DataError(f"packed array: {len(data) - start} bytes of tiles instead of {2 * words.sum()}")
    return count, 1 << log2, table, start


def _sizes(table: NDArray[Any], count: int, tile: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Values of each tile, and words of 16 bits."""
    lengths = np.minimum(tile, count - tile * np.arange(len(table), dtype=np.int64))
    return lengths, (lengths + 15) // 16 * table["width"] + 2 * table["escapes"].astype(np.int64)


# Numba computes with 64 bits, and LLVM may not narrow a shift by a number that it does not know: the loops below would
# run on a quarter of each vector. These two shift 16 bits as 16 bits; the number must be below 16.
def _shift_down(context, word, n):  # type: ignore[no-untyped-def]
    return types.uint16(types.uint16, types.uint16), lambda _, builder, __, args: builder.lshr(*args)


def _shift_up(context, word, n):  # type: ignore[no-untyped-def]
    return types.uint16(types.uint16, types.uint16), lambda _, builder, __, args: builder.shl(*args)


_down: Any = intrinsic(_shift_down)
_up: Any = intrinsic(_shift_up)


@njit(nogil=True, cache=True)
def _unpack(words, tile, bases, widths, escapes, values):  # type: ignore[no-untyped-def]
    """Unpack all tiles; return the first one with an escape outside of it, or -1."""
    at = 0
    for t in range(len(bases)):
        part = values[t * tile : (t + 1) * tile]
        part[:] = bases[t]  # stays in the fastest cache until the planes are added
        shift = 0
        for log2 in range(4, -1, -1):
            bits = 1 << log2
            if widths[t] & bits:
                m = (len(part) + 15) // 16 * bits
                _add_plane(words[at : at + m], bits, shift, part)
                at += m
                shift += bits
        n = escapes[t]
        for i in range(at, at + n):
            if words[i] >= len(part):
                return t
            part[words[i]] = words[i + n]
        at += 2 * n
    return -1


@njit(nogil=True, cache=True)
def _add_plane(words, bits, shift, part):  # type: ignore[no-untyped-def]
    mask = np.uint16((1 << bits) - 1)
    for k in range(16 // bits):
        down, up, some = np.uint16(k * bits), np.uint16(shift), part[k * len(words) : (k + 1) * len(words)]
        for i in range(len(some)):
            some[i] += _up(_down(words[i], down) & mask, up)


@njit(nogil=True, cache=True)
def _pack(values, tile, bases, widths, escapes, words):  # type: ignore[no-untyped-def]
    """Pack all tiles; return the number of words written."""
    at = 0
    rest = np.empty((tile + 15) // 16 * 16, np.uint16)
    for t in range(len(bases)):
        part = values[t * tile : (t + 1) * tile]
        base, width = _choose(part)
        padded = (len(part) + 15) // 16 * 16
        n = 0
        if width < 16:
            n = _count_beyond(part, base, width)
            if padded * width + 32 * n >= padded * 16:  # the sample misled
                base, width, n = np.uint16(0), 16, 0
        bases[t], widths[t], escapes[t] = base, width, n
        for i in range(len(part)):
            rest[i] = part[i] - base
        rest[len(part) : padded] = 0
        shift = 0
        for log2 in range(4, -1, -1):
            bits = 1 << log2
            if width & bits:
                m = padded // 16 * bits
                _put_plane(rest, bits, shift, words[at : at + m])
                at += m
                shift += bits
        if n:
            _put_escapes(rest, part, width, n, words[at : at + 2 * n])
        at += 2 * n
    return at


@njit(nogil=True, cache=True)
def _put_plane(rest, bits, shift, words):  # type: ignore[no-untyped-def]
    mask, m = np.uint16((1 << bits) - 1), len(words)
    words[:] = 0
    for k in range(16 // bits):
        down, up, some = np.uint16(shift), np.uint16(k * bits), rest[k * m : (k + 1) * m]
        for i in range(m):
            words[i] |= _up(_down(some[i], down) & mask, up)


@njit(nogil=True, cache=True)
def _count_beyond(part, base, width):  # type: ignore[no-untyped-def]
    """How many values do not fit into `width` bits above `base`."""
    n = 0
    for i in range(len(part)):
        n += _down(np.uint16(part[i] - base), np.uint16(width)) != 0
    return n


@njit(nogil=True, cache=True)
def _put_escapes(rest, part, width, n, words):  # type: ignore[no-untyped-def]
    found, start, limit = 0, 0, np.uint16(1 << width)
    while found < n:
        few = rest[start : min(start + 32, len(part))]
        beyond = np.uint16(0)
        for i in range(len(few)):
            beyond |= few[i]
        if beyond >= limit:  # else none of them is an escape
            for i in range(len(few)):
                if few[i] >= limit:
                    words[found] = start + i
                    words[n + found] = part[start + i]
                    found += 1
        start += 32


@njit(nogil=True, cache=True)
def _choose(part):  # type: ignore[no-untyped-def]
    """Choose the base and width that need the fewest bits: without escapes, or of the bulk with escapes.

    The bulk is judged by a histogram around the median of a sample; a bad sample costs space, never a value.
    """
    low, high = part[0], part[0]
    for i in range(len(part)):
        low, high = min(low, part[i]), max(high, part[i])
    base, width = low, 0
    while (high - low) >> width:
        width += 1
    if width == 0:
        return base, width
    size = (len(part) + _STRIDE - 1) // _STRIDE
    first = _median(part, size) - _BINS // 2
    below: Any = np.zeros(_BINS + 1, np.int64)  # of the sample, below first + i
    for i in range(0, len(part), _STRIDE):
        place = np.int64(part[i]) - first
        if 0 <= place < _BINS:
            below[place + 1] += 1
    for i in range(_BINS):
        below[i + 1] += below[i]
    fewest = width * size
    for narrow in range(min(width, _NARROW + 1)):
        span = 1 << narrow
        most, where = -1, 0
        for i in range(_BINS - span + 1):
            if below[i + span] - below[i] > most:
                most, where = below[i + span] - below[i], i
        bits = narrow * size + 32 * (size - most)
        if bits < fewest:
            fewest, base, width = bits, np.uint16(first + where), narrow
    return base, width


@njit(nogil=True, cache=True)
def _median(part, size):  # type: ignore[no-untyped-def]
    """Median of a sample, to 64 counts."""
    coarse = np.zeros(1024, np.int64)
    for i in range(0, len(part), _STRIDE):
        coarse[part[i] >> 6] += 1
    place, seen = -1, 0
    while 2 * seen < size:
        place += 1
        seen += coarse[place]
    return np.int64(place) * 64 + 32
