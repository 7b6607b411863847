"""Tables of made-up values for tests of the files that hold them."""

from __future__ import annotations

import numpy as np

from cygnoreco.tables import Tables, empty_tables
from cygnoreco.types import CLUSTER_DTYPE, EVENT_DTYPE, REDPIX_DTYPE


def random_tables(events: int, *, seed: int = 0) -> Tables:
    """Events with 0 to 4 clusters and 0 to 50 saved pixels each, every column filled with its own values."""
    rng = np.random.default_rng(seed)

    def fill(length: int, dtype: np.dtype) -> np.ndarray:
        table = np.zeros(length, dtype)
        for name in dtype.names or ():
            table[name] = rng.integers(0, 1000, length)
        return table

    table = fill(events, EVENT_DTYPE)
    table["event"] = np.arange(events)
    table["nSc"] = rng.integers(0, 5, events)
    table["nRedpix"] = rng.integers(0, 51, events)
    clusters = fill(int(table["nSc"].sum()), CLUSTER_DTYPE)
    return Tables(table, clusters, fill(int(table["nRedpix"].sum()), REDPIX_DTYPE))


def same(one: Tables, other: Tables) -> bool:
    """Whether two tables are equal to the last bit."""
    return all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in ("events", "clusters", "redpix")
    )


def concatenate(pieces: list[Tables]) -> Tables:
    """Join tables in the given order."""
    if not pieces:
        return empty_tables()
    return Tables(
        np.concatenate([piece.events for piece in pieces]),
        np.concatenate([piece.clusters for piece in pieces]),
        np.concatenate([piece.redpix for piece in pieces]),
        tuple(frame for piece in pieces for frame in piece.vetoed),
    )
