"""Committed parts become the files of a result, in the order of the run, while later ones are still being made."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cygnoreco.errors import TransientError
from cygnoreco.io.atomic import flush
from cygnoreco.io.parts import Receipt, read_part
from cygnoreco.threads import executor


class Merge:
    """The ROOT file and the Zarr tables of a result, filled as its parts are committed.

    Whatever is not known before the end is guessed at the beginning: date, quality, that the parts are those that were
    added. Should it turn out otherwise, :meth:`finish` merges once more.

    Parameters
    ----------
    folder : Path
        Where the two are written, as ``root`` and ``zarr``.
    key : str
        Lineage key.
    time : int
        As for :func:`cygnoreco.io.root_tables.write_root`, as far as it is known.
    quality : int
        Quality bits that all events have in common, as far as they are known.
    thread : bool
        Fill the files in a thread of their own, and end the two side by side; else in the thread that adds parts.

    Attributes
    ----------
    folder, root, zarr : Path
        The folder and the two in it.
    sha256 : str
        SHA-256 of the ROOT file, once it is finished.
    """

    def __init__(self, folder: Path, *, key: str, time: int, quality: int, thread: bool) -> None:
        self.folder, self.root, self.zarr = folder, folder / "merged.root", folder / "merged.zarr"
        self.sha256 = ""
        self._key, self._time, self._quality = key, time, quality
        self._early: dict[int, Receipt] = {}  # by their first frames: parts whose turn has not come
        self._merged: list[Receipt] = []
        self._thread = thread
        self._executor = executor(int(thread))
        self._pending: deque[Future[None]] = deque()
        self._failed = False  # the files are lost, and the error on its way
        self._open = ExitStack()
        self._files: tuple[Any, Any] | None = None

    def __enter__(self) -> Merge:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._executor.shutdown(cancel_futures=True)
        finally:
            self._close()

    def add(self, receipt: Receipt) -> None:
        """Take a part, in any order; an error of the merging of an earlier one is raised here."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._early[receipt.start] = receipt
        while (turn := self._early.pop(self._merged[-1].stop if self._merged else 0, None)) is not None:
            self._merged.append(turn)
            self._have(self._append, turn)

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
        if (self._merged, self._quality, self._time) != (receipts, quality, time):
            self._wait()
            self._close()
            self._time, self._quality = time, quality
            for receipt in receipts:
                self._have(self._append, receipt)
        self._have(self._finish, parameters, provenance)
        self._wait()
        if self._failed:
            raise RuntimeError("the merging failed before, and its error was passed over")

    def _have(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have something done, after all that came before; nothing if any of that failed."""

        def unless_failed() -> None:
            if not self._failed:
                self._failed = True
                work(*arguments)
                self._failed = False

        self._pending.append(self._executor.submit(unless_failed))

    def _wait(self) -> None:
        while self._pending:
            self._pending.popleft().result()

    def _append(self, receipt: Receipt) -> None:
        try:
            tables = read_part(receipt)
        except (OSError, ValueError) as error:
            message = f"the part '{receipt.path}' is not what was written ({error}): the same command makes it again"
            raise TransientError(message) from error
        tables.events["quality"] |= self._quality
        for file in self._to_fill():
            file.append(tables)

    def _finish(self, parameters: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        root, zarr = self._to_fill()
        # The many small files of the one take as long as bringing the other to the disk.
        with executor(int(self._thread)) as beside:
            tables = beside.submit(zarr.finish, provenance)
            root.finish(parameters, provenance)
            self._close()
            flush(self.root)
            with self.root.open("rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            tables.result()

    def _to_fill(self) -> tuple[Any, Any]:
        if self._files is None:
            # Loaded by the thread that merges, while others work: together they take as long as a few frames.
            from cygnoreco.io.root_tables import write_root
            from cygnoreco.io.zarr_tables import write_zarr

            self._files = (
                self._open.enter_context(write_root(self.root, key=self._key, time=self._time)),
                write_zarr(self.zarr),
            )
        return self._files

    def _close(self) -> None:
        self._files = None
        self._open.close()
