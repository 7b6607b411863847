"""The tables as a Zarr group, one array a column, for those who do not use ROOT."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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

#: Sorted by their bits, numbers of nearly equal size pack three times as fast as by zstd alone, and as small.
_COMPRESSOR = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")


def write_zarr(
    path: Path, pieces: Iterable[Tables], *, lengths: Mapping[str, int], provenance: Mapping[str, Any]
) -> None:
    """Write a result as groups ``events``, ``clusters`` and ``redpix`` with one array a column.

    Parameters
    ----------
    path : Path
        Folder to make; the caller makes it atomic.
    pieces : iterable of Tables
        Tables in the order of the run, in pieces of any length.
    lengths : mapping
        Total rows of each of the three tables.
    provenance : mapping
        JSON document, stored as attribute ``provenance`` of the root.
    """
    root = zarr.open_group(path, mode="w-", zarr_format=3)
    root.attrs["provenance"] = json.dumps(provenance, sort_keys=True)
    arrays: dict[str, dict[str, Any]] = {}
    for table, (columns, _) in _TABLES.items():
        group = root.create_group(table)
        arrays[table] = {}
        for column in columns:
            arrays[table][column.name] = group.create_array(
                column.name,
                shape=(lengths[table],),
                dtype=column.dtype,
                chunks=(min(CHUNK, max(lengths[table], 1)),),
                compressors=[_COMPRESSOR],
                attributes={"unit": column.unit, "description": column.description},
            )
    waiting: dict[str, list[NDArray[Any]]] = {table: [] for table in _TABLES}
    filled = dict.fromkeys(_TABLES, 0)

    def write(table: str, *, all_rows: bool) -> None:
        # Whole chunks only, until the end: a part of one would be read, joined and compressed again with every piece.
        rows = np.concatenate(waiting[table])
        n = len(rows) if all_rows else len(rows) - len(rows) % CHUNK
        for name, array in arrays[table].items():
            array[filled[table] : filled[table] + n] = rows[name][:n]
        waiting[table], filled[table] = [rows[n:]], filled[table] + n

    for piece in pieces:
        for table in _TABLES:
            waiting[table].append(getattr(piece, table))
            if sum(map(len, waiting[table])) >= CHUNK:
                write(table, all_rows=False)
    for table in _TABLES:
        if waiting[table]:
            write(table, all_rows=True)


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
