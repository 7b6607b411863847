"""Unpacking on CUDA against that on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.cuda.unpack import unpack_tiles
from cygnoreco.errors import InputError
from cygnoreco.io import packing

HEADER = 16


def tiles_of(packed, first_word=0, first_value=0):
    """Table of the tiles of a packed array that begins at a word, and whose values go to a place."""
    count, tile = int(packed[8:16].view(np.uint64)[0]), 1 << int(packed[5])
    n_tiles = -(-count // tile)
    table = packed[HEADER : HEADER + 8 * n_tiles].view([("base", "<u2"), ("width", "<u2"), ("escapes", "<u4")])
    begin = np.arange(n_tiles) * tile
    length = np.minimum(tile, count - begin)
    words = (length + 15) // 16 * table["width"] + 2 * table["escapes"].astype(np.int64)
    place = first_word + HEADER // 2 + 4 * n_tiles + np.cumsum(words) - words
    columns = [place, table["base"], table["width"], table["escapes"], first_value + begin, length]
    return np.stack([column.astype(np.int64) for column in columns], axis=1)


def camera(shape, seed=0, escapes=0.01):
    """Noise around a pedestal with some pixels far from it."""
    random = np.random.default_rng(seed)
    frame = random.normal(100, 3, shape)
    bright = random.random(shape) < escapes
    frame[bright] = random.uniform(0, 65535, bright.sum())
    return np.clip(frame, 0, 65535).astype(np.uint16)


def unpacked(program, packed, tiles, shape):
    xp = program.xp
    values = xp.zeros(shape, np.uint16)
    outside = unpack_tiles(program, xp.asarray(packed.view(np.uint16)), xp.asarray(tiles), values)
    return program.to_host(values), int(program.to_host(outside)[0])


@pytest.mark.parametrize("escapes", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("shape", [(1,), (15,), (16,), (17,), (128, 128), (129, 131), (200, 256)])
def test_one_array(program, shape, escapes):
    frame = camera(shape, len(shape), escapes)
    packed = packing.pack(frame).copy()
    values, outside = unpacked(program, packed, tiles_of(packed), shape)
    assert outside == 0
    np.testing.assert_array_equal(values, frame)
    np.testing.assert_array_equal(values.reshape(-1), packing.unpack(packed))


@pytest.mark.parametrize("width", range(17))
def test_any_width(program, width):
    """Values that fill a width evenly, around the end of the range: base and bits are added modulo 2**16."""
    values = np.random.default_rng(width).integers(0, 1 << width, 20_001).astype(np.uint16)
    values[:2] = 0, (1 << width) - 1
    packed = packing.pack(values).copy()
    tiles = tiles_of(packed)
    assert (tiles[:, 2] == width).all()
    np.testing.assert_array_equal(unpacked(program, packed, tiles, values.shape)[0], values)
    tiles[:, 1] = (tiles[:, 1] - 1) % 65536
    np.testing.assert_array_equal(unpacked(program, packed, tiles, values.shape)[0], values - np.uint16(1))


def test_a_block_of_frames(program):
    """Arrays one after the other in one buffer, one of them constant: all tiles in one launch."""
    frames = np.stack([camera((96, 200), 1), np.full((96, 200), 77, np.uint16), camera((96, 200), 2, 0.0)])
    packed = [packing.pack(frame).copy() for frame in frames]
    begin = np.cumsum([0] + [len(each) // 2 for each in packed])
    tiles = [tiles_of(each, begin[k], k * frames[0].size) for k, each in enumerate(packed)]
    values, outside = unpacked(program, np.concatenate(packed), np.concatenate(tiles), frames.shape)
    assert outside == 0
    np.testing.assert_array_equal(values, frames)


def test_an_escape_outside_of_its_tile(program):
    frame = camera((64, 64))
    packed = packing.pack(frame).copy()
    words, tiles = packed.view(np.uint16), tiles_of(packed)
    assert tiles[0, 3] > 1
    first = int(tiles[0, 0] + tiles[0, 2] * frame.size // 16)
    place = int(words[first])
    words[first] = frame.size
    values, outside = unpacked(program, packed, tiles, frame.shape)
    assert outside == 1
    np.testing.assert_array_equal(np.delete(values, place), np.delete(frame, place))


def test_nothing_to_unpack(program):
    packed = packing.pack(np.empty(0, np.uint16)).copy()
    values, outside = unpacked(program, packed, tiles_of(packed), (0,))
    assert values.size == outside == 0


def test_faults(program):
    xp = program.xp
    words, tiles = xp.zeros(8, np.uint16), xp.zeros((1, 6), np.int64)
    with pytest.raises(InputError, match="not from uint16 to int32"):
        unpack_tiles(program, words, tiles, xp.zeros(8, np.int32))
    with pytest.raises(InputError, match=r"of shape \(1, 5\): expected \(t, 6\): first word, base"):
        unpack_tiles(program, words, tiles[:, :5], words)
