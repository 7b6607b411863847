"""The official ROOT file: tree ``Events`` with one-level jagged counters, ``Reco_params``, and the provenance."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import awkward as ak
import numpy as np
import uproot
import uproot.writing._cascadetree

from cygnoreco.errors import InputError
from cygnoreco.io.columns import Columns
from cygnoreco.tables import TABLES, Tables, awkward_columns
from cygnoreco.types import (
    CLUSTER_COLUMNS,
    CLUSTER_DTYPE,
    EVENT_COLUMNS,
    EVENT_DTYPE,
    REDPIX_COLUMNS,
    REDPIX_DTYPE,
    TIMING_COLUMNS,
)

#: A basket ends with the event by which it has so many events, or so many saved pixels: few megabytes a column. The
#: events alone decide, so that the file does not depend on how the run was cut into blocks.
BASKET_EVENTS, BASKET_PIXELS = 64, 1 << 20
#: The head of the tree has room for so many baskets less one; with more it is written anew, ten times as large.
_BASKETS = 40

_PATCHING = threading.Lock()
_COUNTERS = {"sc": "nSc", "redpix": "nRedpix"}
_TITLES = {
    column.name: f"{column.description} [{column.unit}]" if column.unit else column.description
    for column in (*EVENT_COLUMNS, *TIMING_COLUMNS, *CLUSTER_COLUMNS, *REDPIX_COLUMNS)
}


@contextlib.contextmanager
def write_root(path: Path, *, key: str, time: int) -> Iterator[_RootWriter]:
    """Write a result as the experiment's ROOT file, piece by piece; the same tables give the same bytes.

    Parameters
    ----------
    path : Path
        File to write; the caller makes it atomic.
    key : str
        Lineage key, hexadecimal: the file's UUID is made from it.
    time : int
        UNIX seconds that the file carries as its date, the run's own: a file dated by the clock would never be the
        same twice.

    Yields
    ------
    writer
        Append tables in the order of the run, in pieces of any length, then finish.
    """
    # An open file: uproot would look after one that it opens with every one of its thousands of small writes.
    with path.open("wb+") as stream:
        with _reproducible(time):
            file = uproot.recreate(
                stream, compression=uproot.ZSTD(2), uuid_function=lambda: uuid.uuid5(uuid.NAMESPACE_OID, key)
            )
        try:
            yield _RootWriter(file, time)
        finally:
            with _reproducible(time):
                file.close()


class _RootWriter:
    """What :func:`write_root` gives."""

    def __init__(self, file: Any, time: int) -> None:
        self._file = file
        self._time = time
        self._waiting = {name: Columns(dtype) for name, dtype in TABLES.items()}
        with _reproducible(time):
            self._tree = file.mktree(
                "Events",
                _branches(),
                title="Events",
                counter_name=_COUNTERS.__getitem__,
                field_name=lambda outer, inner: f"{outer}_{inner}",
                initial_basket_capacity=_BASKETS,
            )

    def append(self, tables: Tables) -> None:
        """Append the next events of the run."""
        events, pixels = self._waiting["events"], self._waiting["redpix"]
        ends = tables.redpix_offsets[1:]
        start = pixels_before = 0
        while start < len(tables):
            enough = int(np.searchsorted(ends, pixels_before + BASKET_PIXELS - len(pixels))) + 1
            stop = min(len(tables), start + BASKET_EVENTS - len(events), enough)
            rows = tables.rows(start, stop)
            for name, columns in self._waiting.items():
                columns.append(getattr(rows, name))
            if len(events) == BASKET_EVENTS or len(pixels) >= BASKET_PIXELS:
                self._extend()
            start, pixels_before = stop, ends[stop - 1]

    def finish(self, parameters: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Write what is known at the end.

        Parameters
        ----------
        parameters : mapping
            Scalars for the one entry of ``Reco_params``.
        provenance : mapping
            JSON document, stored as the string object ``provenance``.
        """
        if len(self._waiting["events"]):
            self._extend()
        with _reproducible(self._time):
            self._file.mktree("Reco_params", {name: np.asarray(value).dtype for name, value in parameters.items()})
            self._file["Reco_params"].extend({name: np.asarray([value]) for name, value in parameters.items()})
            self._file["provenance"] = json.dumps(provenance, sort_keys=True)

    def _extend(self) -> None:
        columns = awkward_columns(**{name: columns.take() for name, columns in self._waiting.items()})
        with _reproducible(self._time):
            self._tree.extend({name: columns[name] for name in columns if name not in _COUNTERS.values()})


def read_root(path: Path) -> Tables:
    """Tables of a ROOT file that this package or the experiment's program wrote; columns it lacks are 0.

    Raises
    ------
    InputError
        No tree ``Events`` in the file, or no ROOT file.
    """
    try:
        file = uproot.open(path)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read as a ROOT file: {error}") from None
    with file:
        if "Events" not in file:
            there = ", ".join(file.keys(cycle=False)) or "nothing"
            raise InputError(f"no tree 'Events' in '{path}'; it holds: {there}")
        tree = file["Events"]
        columns_there = set(tree.keys())

        def table(dtype: np.dtype[Any], counter: str | None) -> Any:
            names = [name for name in dtype.names or () if name in columns_there]
            columns = tree.arrays(names)
            flat = {name: ak.to_numpy(ak.flatten(columns[name]) if counter else columns[name]) for name in names}
            out = np.zeros(len(next(iter(flat.values()))) if flat else 0, dtype)
            for name, values in flat.items():
                out[name] = values
            return out

        return Tables(table(EVENT_DTYPE, None), table(CLUSTER_DTYPE, "nSc"), table(REDPIX_DTYPE, "nRedpix"))


def _branches() -> dict[str, Any]:
    def record(dtype: np.dtype[Any], prefix: str) -> str:
        fields = (f"{name.removeprefix(prefix)}: {dtype[name].name}" for name in dtype.names or ())
        return f"var * {{{', '.join(fields)}}}"

    counters = set(_COUNTERS.values())
    branches: dict[str, Any] = {name: EVENT_DTYPE[name] for name in EVENT_DTYPE.names or () if name not in counters}
    return {**branches, "sc": record(CLUSTER_DTYPE, "sc_"), "redpix": record(REDPIX_DTYPE, "redpix_")}


class _Tree(uproot.writing._cascadetree.Tree):
    """uproot's writer gives every counter a signed type and every branch a formal title.

    The official file has unsigned counters (``nSc/i``), and macros that connect a ``UInt_t`` to them fail otherwise.
    """

    def _branch_np(self, branch_name, branch_type, branch_dtype, counter=None, kind="normal"):  # type: ignore[no-untyped-def]
        if kind == "counter":
            branch_type = branch_dtype = np.dtype(np.uint32)
        branch = super()._branch_np(branch_name, branch_type, branch_dtype, counter=counter, kind=kind)
        branch["fTitle"] = _TITLES.get(branch_name, branch["fTitle"])
        return branch


@contextlib.contextmanager
def _reproducible(time: int) -> Iterator[None]:
    """Let uproot use our tree writer, and date what it writes by the run instead of the clock."""
    moment = datetime.datetime.fromtimestamp(max(time, 788918400), datetime.UTC)  # ROOT's dates begin with 1995
    # The patches are seen by the whole process: two threads that write take turns.
    code = uproot._util.datetime_to_code(moment)

    def code_of_run(_: object) -> Any:  # called thousands of times, which a mock would all keep count of
        return code

    with (
        _PATCHING,
        mock.patch.object(uproot._util, "datetime_to_code", code_of_run),
        mock.patch.object(uproot.writing._cascadetree, "Tree", _Tree),
    ):
        yield
