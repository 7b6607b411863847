"""The tables of a result: one row an event, one a cluster, one a saved pixel, and how they hang together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.stage import stage
from cygnoreco.types import CLUSTER_DTYPE, EVENT_DTYPE, REDPIX_DTYPE, TIMING_COLUMNS

#: Bits of the column ``quality``.
SPARK, SATURATED, CUT_SHORT, FILE_CHECKSUM = 1, 2, 4, 8


#: The tables of a result by the names of their attributes, and the types of their rows.
TABLES = {"events": EVENT_DTYPE, "clusters": CLUSTER_DTYPE, "redpix": REDPIX_DTYPE}


@dataclass(frozen=True)
class Tables:
    """Events with their clusters and saved pixels.

    Clusters and pixels stand in the order of the events; the columns ``nSc`` and ``nRedpix`` of the events say how
    many belong to each.

    Attributes
    ----------
    events, clusters, redpix : ndarray
        Structured arrays of ``EVENT_DTYPE``, ``CLUSTER_DTYPE`` and ``REDPIX_DTYPE``.
    vetoed : tuple of int
        Frames that the spark veto found; with or without an entry, as the recipe says.
    """

    events: NDArray[Any]
    clusters: NDArray[Any]
    redpix: NDArray[Any]
    vetoed: tuple[int, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.events)

    @property
    def cluster_offsets(self) -> NDArray[np.int64]:
        """Clusters of event ``i`` are ``clusters[offsets[i]:offsets[i + 1]]``; shape (events + 1,)."""
        return offsets_of(self.events["nSc"])

    @property
    def redpix_offsets(self) -> NDArray[np.int64]:
        """Pixels of event ``i`` are ``redpix[offsets[i]:offsets[i + 1]]``; shape (events + 1,)."""
        return offsets_of(self.events["nRedpix"])

    def rows(self, start: int, stop: int) -> Tables:
        """Events ``start`` to ``stop`` with what belongs to them."""
        clusters, redpix = self.cluster_offsets, self.redpix_offsets
        return Tables(
            self.events[start:stop],
            self.clusters[clusters[start] : clusters[stop]],
            self.redpix[redpix[start] : redpix[stop]],
        )

    def awkward(self) -> Any:
        """Return all as one awkward array: the columns of the events, and nested records ``sc`` and ``redpix``."""
        import awkward as ak

        def columns(table: NDArray[Any]) -> dict[str, NDArray[Any]]:
            return {name: table[name].copy() for name in table.dtype.names or ()}

        return ak.zip(
            awkward_columns(columns(self.events), columns(self.clusters), columns(self.redpix)), depth_limit=1
        )


def awkward_columns(
    events: Mapping[str, NDArray[Any]], clusters: Mapping[str, NDArray[Any]], redpix: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Columns of the events, NumPy, with ``sc`` and ``redpix``, awkward lists of records, from those of the tables.

    Nothing is copied; columns are contiguous.
    """
    import awkward as ak

    columns: dict[str, Any] = {name: events[name] for name in EVENT_DTYPE.names or ()}
    for table, dtype, prefix, counter in (
        (clusters, CLUSTER_DTYPE, "sc", "nSc"),
        (redpix, REDPIX_DTYPE, "redpix", "nRedpix"),
    ):
        names = dtype.names or ()
        # Put together from its parts: ak.zip and ak.unflatten would first find out what is known here.
        records = ak.contents.RecordArray(
            [ak.contents.NumpyArray(table[name]) for name in names],
            [name.removeprefix(f"{prefix}_") for name in names],
        )
        columns[prefix] = ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets_of(columns[counter])), records))
    return columns


def offsets_of(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Offsets of a flat table from the lengths of its pieces; shape (n + 1,)."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def empty_tables() -> Tables:
    """No event at all."""
    return Tables(np.empty(0, EVENT_DTYPE), np.empty(0, CLUSTER_DTYPE), np.empty(0, REDPIX_DTYPE))


@stage(name="tables", version=1)
def event_table(columns: dict[str, Any], seconds: dict[str, Any], *, timings: bool = False) -> NDArray[Any]:
    """Make the row of one event, or those of several.

    Parameters
    ----------
    columns : dict
        Values by column of ``EVENT_DTYPE``, without the wall times; numbers, or arrays of shape (n,). ``event`` says
        which.
    seconds : dict
        Wall seconds by the name of the timing column without its ``t_``; numbers, or arrays of shape (n,).
    timings : bool
        Whether the wall times of the stages go into the t_* columns. They differ from one pass to the next, so that
        the same lineage key no longer gives the same bytes; otherwise the columns hold -1 and the times stand in the
        summary beside the file.

    Returns
    -------
    ndarray
        Shape (1,) or (n,), ``EVENT_DTYPE``.
    """
    row = np.zeros(np.size(columns["event"]), EVENT_DTYPE)
    for name, value in columns.items():
        row[name] = value
    for column in TIMING_COLUMNS:
        row[column.name] = seconds.get(column.name.removeprefix("t_"), -1.0) if timings else -1.0
    return row
