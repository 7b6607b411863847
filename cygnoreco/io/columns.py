"""The columns of a table in memory of their own, filled from pieces of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Columns:
    """Columns that wait until there are enough rows to write.

    Their memory is used again after :meth:`take`. It grows with the most rows that ever waited, and is asked for in so
    large pieces that it seldom has to.

    Parameters
    ----------
    dtype : dtype
        Structured type of the table.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._memory = {name: np.empty(0, dtype[name]) for name in dtype.names or ()}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: NDArray[Any]) -> None:
        """Take the next rows of the table; they are copied."""
        end = self._rows + len(rows)
        for name, column in self._memory.items():
            if len(column) < end:
                # Far more than is needed: memory that is never written costs nothing, what was outgrown may not be had
                # back.
                grown = np.empty(8 * end, column.dtype)
                grown[: self._rows] = column[: self._rows]
                self._memory[name] = column = grown
            column[self._rows : end] = rows[name]
        self._rows = end

    def take(self) -> dict[str, NDArray[Any]]:
        """Columns of all rows that wait, valid until the next :meth:`append`; then none waits."""
        taken = {name: column[: self._rows] for name, column in self._memory.items()}
        self._rows = 0
        return taken
