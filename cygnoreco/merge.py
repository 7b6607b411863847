"""Committed parts become the files of a result, in the order of the run, while later ones are still being made."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cygnoreco.io.parts import Receipt, read_part


class Merge:
    """The ROOT file and the Zarr tables of a result, filled as its parts are committed.

    Whatever is not known before the end is guessed at the beginning: that no bit of quality concerns all events, that
    the parts are those that were added. Should it turn out otherwise, :meth:`finish` merges once more.

    Parameters
    ----------
    folder : Path
        Where the two are written.
    key : str
        Lineage key.
    time : int
        As for :func:`cygnoreco.io.root_tables.write_root`, as far as it is known.
    executor : Executor
        Of one thread, which merges; it is shut down at the end.
    """

    def __init__(self, folder: Path, *, key: str, time: int, executor: Executor) -> None:
        self.folder, self.root, self.zarr = folder, folder / "merged.root", folder / "merged.zarr"
        self._key, self._time, self._quality = key, time, 0
        self._executor = executor
        self._early: dict[int, Receipt] = {}  # by their first frames: parts whose turn has not come
        self._merged: list[Receipt] = []
        self._pending: deque[Future[None]] = deque()
        self._files = ExitStack()
        self._writers: tuple[Any, Any] | None = None

    def __enter__(self) -> Merge:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._files.close()

    def add(self, receipt: Receipt) -> None:
        """Take a part, in any order; an error of the merging of an earlier one is raised here."""
        self._early[receipt.start] = receipt
        while (turn := self._early.pop(self._merged[-1].stop if self._merged else 0, None)) is not None:
            self._merged.append(turn)
            self._pending.append(self._executor.submit(self._append, turn))
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()

    def finish(
        self,
        receipts: list[Receipt],
        *,
        quality: int,
        time: int,
        parameters: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        """Merge what is left, and complete and close both files.

        Parameters
        ----------
        receipts : list of Receipt
            All parts of the run, in order.
        quality : int
            Quality bits that all events have in common.
        time : int
            As for the class.
        parameters, provenance
            For the end of the files.
        """
        for pending in self._pending:
            pending.result()
        if (self._merged, self._quality, self._time) != (receipts, quality, time):
            self._start_over(receipts, quality, time)
        root, zarr = self._opened()
        root.finish(parameters, provenance)
        zarr.finish(provenance)
        self._files.close()

    def _opened(self) -> tuple[Any, Any]:
        if self._writers is None:
            # Loaded by the thread that merges, while others work: together they take as long as a few frames.
            from cygnoreco.io.root_tables import write_root
            from cygnoreco.io.zarr_tables import write_zarr

            self._writers = (
                self._files.enter_context(write_root(self.root, key=self._key, time=self._time)),
                self._files.enter_context(write_zarr(self.zarr)),
            )
        return self._writers

    def _append(self, receipt: Receipt) -> None:
        tables = read_part(Path(receipt.path))
        tables.events["quality"] |= self._quality
        for writer in self._opened():
            writer.append(tables)

    def _start_over(self, receipts: list[Receipt], quality: int, time: int) -> None:
        self._files.close()
        self._writers, self._quality, self._time = None, quality, time
        for receipt in receipts:
            self._append(receipt)
