"""Packed frames back to counts on a GPU: a quarter of the bytes of a frame go over the bus, and all of them are there.

The format is that of :mod:`cygnoreco.io.packing`, which also makes the table of tiles: after it each tile can be
unpacked by itself, in one block of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cygnoreco.cuda.program import Program
from cygnoreco.errors import InputError

#: Columns of a table of tiles.
TILE_COLUMNS = ("first word", "base", "width", "escapes", "first value", "values")


def unpack_tiles(program: Program, words: Any, tiles: Any, values: Any) -> Any:
    """Unpack tiles into an array of the device.

    Nothing waits for the device, so the one fault that only the device can see is left to the caller.

    Parameters
    ----------
    program : Program
        Kernels, and the arrays they work on.
    words : array of uint16, shape (w,)
        Packed arrays, one after the other, as words.
    tiles : array of int64, shape (t, 6)
        Of every tile, any number of packed arrays together: its first word, counted from the first of `words`; base,
        width in bits, number of escapes; its first value, counted from the first of `values`, and number of values.
        The tiles must lie within both arrays.
    values : array of uint16, C-contiguous, any shape
        Where the values go.

    Returns
    -------
    array of int32, shape (1,)
        On the device: how many escapes lay outside of their tiles. Anything but 0 means that the data are damaged.

    Raises
    ------
    InputError
        An array is of another type or shape.
    """
    xp = program.xp
    if words.dtype != np.uint16 or values.dtype != np.uint16 or not values.flags.c_contiguous:
        raise InputError(
            f"unpacking goes from words of uint16 to contiguous uint16, not from {words.dtype} to {values.dtype}"
        )
    if tiles.ndim != 2 or tiles.shape[1] != len(TILE_COLUMNS):
        raise InputError(f"a table of tiles of shape {tiles.shape}: expected (t, 6): {', '.join(TILE_COLUMNS)}")
    outside = xp.zeros(1, np.int32)
    program.launch("unpack_tiles", len(tiles), 256, words, xp.ascontiguousarray(tiles, np.int64), values, outside)
    return outside
