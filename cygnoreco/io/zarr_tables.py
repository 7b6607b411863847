"""The tables as a Zarr group, one array a column, for those who do not use ROOT."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from cygnoreco.errors import InputError
from cygnoreco.tables import Tables
from cygnoreco.types import (
    CLUSTER_COLUMNS,
    CLUSTER_DTYPE,
    EVENT_COLUMNS,
    EVENT_DTYPE,
    REDPIX_COLUMNS,
    REDPIX_DTYPE,
    TIMING_COLUMNS,
    Column,
)

_TABLES: dict[str, tuple[tuple[Column, ...], np.dtype[Any]]] = {
    "events": (EVENT_COLUMNS + TIMING_COLUMNS, EVENT_DTYPE),
    "clusters": (CLUSTER_COLUMNS, CLUSTER_DTYPE),
    "redpix": (REDPIX_COLUMNS, REDPIX_DTYPE),
}

#: Rows of one chunk: a few MB, so that a whole run's clusters are one chunk a column.
CHUNK = 1 << 20

# Sorted by their bits, numbers of nearly equal size pack three times as fast as by zstd alone, and as small. Places of
# pixels follow each other, and are next to nothing however they are packed: there the fastest does.
_NUMBERS = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
_PLACES = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")


@contextlib.contextmanager
def write_zarr(path: Path) -> Iterator[_ZarrWriter]:
    """Write a result as groups ``events``, ``clusters`` and ``redpix`` with one array a column, piece by piece.

    A context like that of the ROOT file, whose end means nothing here: no file stays open.

    Parameters
    ----------
    path : Path
        Folder to make or to replace; the caller makes it atomic.

    Yields
    ------
    writer
        Append tables in the order of the run, in pieces of any length, then finish.
    """
    yield _ZarrWriter(path)


class _ZarrWriter:
    """What :func:`write_zarr` gives."""

    def __init__(self, path: Path) -> None:
        self._root = zarr.open_group(path, mode="w", zarr_format=3)
        self._tables = {
            name: _Columns(self._root.create_group(name), columns) for name, (columns, _) in _TABLES.items()
        }

    def append(self, tables: Tables) -> None:
        """Append the next events of the run with what belongs to them."""
        for name, columns in self._tables.items():
            columns.append(getattr(tables, name))

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write what is left, and a JSON document as attribute ``provenance`` of the root."""
        for columns in self._tables.values():
            columns.finish()
        self._root.attrs["provenance"] = json.dumps(provenance, sort_keys=True)


class _Columns:
    """The columns of one table on their way into a group.

    Rows wait until they fill a chunk: a part of one would be read, joined and compressed again with every piece.
    """

    def __init__(self, group: Any, columns: tuple[Column, ...]) -> None:
        self._group = group
        self._columns = columns
        self._arrays: dict[str, Any] = {}
        # The system hands out memory when it is first written, so what is too much here costs nothing.
        self._waiting = {column.name: np.empty(CHUNK, column.dtype) for column in columns}
        self._filled = self._written = 0

    def append(self, rows: NDArray[Any]) -> None:
        start = 0
        while start < len(rows):
            stop = min(len(rows), start + CHUNK - self._filled)
            for name, memory in self._waiting.items():
                memory[self._filled : self._filled + stop - start] = rows[name][start:stop]
            self._filled += stop - start
            start = stop
            if self._filled == CHUNK:
                self._write()

    def finish(self) -> None:
        if self._filled or not self._arrays:
            self._write()
        for array in self._arrays.values():
            if array.shape[0] > self._written:
                array.resize((self._written,))

    def _write(self) -> None:
        n = self._written + self._filled
        for column in self._columns:
            if column.name not in self._arrays:
                self._arrays[column.name] = self._group.create_array(
                    column.name,
                    shape=(n,),
                    dtype=column.dtype,
                    chunks=(max(n, 1),),  # of the first rows: a chunk, or all that there are
                    compressors=[_PLACES if np.dtype(column.dtype).kind in "iu" else _NUMBERS],
                    attributes={"unit": column.unit, "description": column.description},
                )
            array = self._arrays[column.name]
            if array.shape[0] < n:  # each time writes the array's metadata
                array.resize((2 * n,))
            array[self._written : n] = self._waiting[column.name][: self._filled]
        self._written, self._filled = n, 0


def read_zarr(path: Path) -> Tables:
    """Tables that :func:`write_zarr` wrote.

    Raises
    ------
    InputError
        No such group.
    """
    try:
        root = zarr.open_group(path, mode="r")
    except FileNotFoundError:
        raise InputError(f"no Zarr group at '{path}'") from None
    if any(table not in root for table in _TABLES):
        raise InputError(f"'{path}' holds no reconstructed tables (groups {', '.join(_TABLES)})")

    def read(table: str) -> NDArray[Any]:
        columns, dtype = _TABLES[table]
        group: Any = root[table]
        out = np.zeros(group[columns[0].name].shape[0], dtype)
        for column in columns:
            out[column.name] = group[column.name][:]
        return out

    return Tables(read("events"), read("clusters"), read("redpix"))
