"""The tables as a Zarr group, one array a column, for those who do not use ROOT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from cygnoreco.errors import InputError
from cygnoreco.io.columns import Columns
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


def write_zarr(path: Path) -> _ZarrWriter:
    """Write a result as groups ``events``, ``clusters`` and ``redpix`` with one array a column, piece by piece.

    Parameters
    ----------
    path : Path
        Folder to make or to replace; the caller makes it atomic.

    Returns
    -------
    writer
        Append tables in the order of the run, in pieces of any length, then finish. No file stays open.
    """
    return _ZarrWriter(path)


class _ZarrWriter:
    """What :func:`write_zarr` gives."""

    def __init__(self, path: Path) -> None:
        self._root = zarr.open_group(_Folder(path), mode="w", zarr_format=3)
        self._tables = {name: _Table(self._root.create_group(name), *kind) for name, kind in _TABLES.items()}

    def append(self, tables: Tables) -> None:
        """Append the next events of the run with what belongs to them."""
        for name, table in self._tables.items():
            table.append(getattr(tables, name))

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write what is left, and a JSON document as attribute ``provenance`` of the root."""
        for table in self._tables.values():
            table.finish()
        self._root.attrs["provenance"] = json.dumps(provenance, sort_keys=True)


class _Folder(LocalStore):
    """A store that reads and writes its files itself.

    zarr's own hands each of them to a thread, three or four for an array: for arrays as small as most of ours that
    takes longer than all the rest.
    """

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if byte_range is not None:  # of shards, which these arrays do not have
            return await super().get(key, prototype, byte_range)
        try:
            content = (self.root / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)

    async def set(self, key: str, value: Buffer) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.to_bytes())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not (self.root / key).exists():
            await self.set(key, value)


class _Table:
    """A table on its way into a group.

    Rows wait until they fill a chunk: a part of one would be read, joined and compressed again with every piece.
    """

    def __init__(self, group: Any, columns: tuple[Column, ...], dtype: np.dtype[Any]) -> None:
        self._group = group
        self._columns = columns
        self._arrays: dict[str, Any] = {}
        self._waiting = Columns(dtype)
        self._written = 0

    def append(self, rows: NDArray[Any]) -> None:
        start = 0
        while start < len(rows):
            stop = min(len(rows), start + CHUNK - len(self._waiting))
            self._waiting.append(rows[start:stop])
            start = stop
            if len(self._waiting) == CHUNK:
                self._write()

    def finish(self) -> None:
        if len(self._waiting) or not self._arrays:
            self._write()
        for array in self._arrays.values():
            if array.shape[0] > self._written:
                array.resize((self._written,))

    def _write(self) -> None:
        n = self._written + len(self._waiting)
        rows = self._waiting.take()
        for column in self._columns:
            if column.name not in self._arrays:
                self._arrays[column.name] = self._group.create_array(
                    column.name,
                    shape=(n,),
                    dtype=column.dtype,
                    chunks=(max(n, 1),),  # of the first rows: a chunk, or all that there are
                    chunk_key_encoding={"name": "default", "separator": "."},  # no folder for chunks
                    compressors=[_PLACES if np.dtype(column.dtype).kind in "iu" else _NUMBERS],
                    attributes={"unit": column.unit, "description": column.description},
                    config={"write_empty_chunks": True},  # looking whether one is takes longer than writing it
                )
            array = self._arrays[column.name]
            if array.shape[0] < n:  # each time writes the array's metadata
                array.resize((2 * n,))
            array[self._written : n] = rows[column.name]
        self._written = n


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
