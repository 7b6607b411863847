"""Committed parts become the files of a result, in the order of the run, while later ones are still being made."""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from cygnoreco.errors import TransientError
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
    threads : bool
        Fill each of the two files in a thread of its own, else in the thread that adds parts.
    """

    def __init__(self, folder: Path, *, key: str, time: int, quality: int, threads: bool) -> None:
        self.folder, self.root, self.zarr = folder, folder / "merged.root", folder / "merged.zarr"
        self._key, self._time, self._quality = key, time, quality
        self._early: dict[int, Receipt] = {}  # by their first frames: parts whose turn has not come
        self._merged: list[Receipt] = []
        self._files = (_File(self._open_root, int(threads)), _File(self._open_zarr, int(threads)))

    def __enter__(self) -> Merge:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:  # each is closed whatever becomes of the other
            for file in self._files:
                stack.callback(file.close)

    def add(self, receipt: Receipt) -> None:
        """Take a part, in any order; an error of the merging of an earlier one is raised here."""
        for file in self._files:
            file.check()
        self._early[receipt.start] = receipt
        while (turn := self._early.pop(self._merged[-1].stop if self._merged else 0, None)) is not None:
            self._merged.append(turn)
            for file in self._files:
                file.append(turn, self._quality)

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
        root, zarr = self._files
        if (self._merged, self._quality, self._time) != (receipts, quality, time):
            self._time, self._quality = time, quality
            for file in self._files:
                file.start_over()
                for receipt in receipts:
                    file.append(receipt, quality)
        root.finish(parameters, provenance)
        zarr.finish(provenance)
        for file in self._files:
            file.wait()

    # Both modules are loaded by the threads that merge, while others work: together they take as long as a few frames.
    def _open_root(self) -> AbstractContextManager[Any]:
        from cygnoreco.io.root_tables import write_root

        return write_root(self.root, key=self._key, time=self._time)

    def _open_zarr(self) -> AbstractContextManager[Any]:
        from cygnoreco.io.zarr_tables import write_zarr

        return write_zarr(self.zarr)


class _File:
    """One of the files, and the thread that fills it."""

    def __init__(self, opened: Callable[[], AbstractContextManager[Any]], threads: int) -> None:
        self._opened = opened
        self._executor = executor(threads)
        self._pending: deque[Future[None]] = deque()
        self._open = ExitStack()
        self._writer: Any = None
        self._failed = False

    def append(self, receipt: Receipt, quality: int) -> None:
        """Have a part appended, all of whose events get some bits of quality."""
        self._pending.append(self._executor.submit(self._append, receipt, quality))

    def check(self) -> None:
        """Raise what went wrong with what was appended so far."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()

    def finish(self, *arguments: Any) -> None:
        """Have the file finished and closed."""
        self._pending.append(self._executor.submit(self._finish, *arguments))

    def wait(self) -> None:
        """Wait until all is done."""
        while self._pending:
            self._pending.popleft().result()

    def start_over(self) -> None:
        """Forget what was appended."""
        self.wait()
        self._close()

    def close(self) -> None:
        """Do nothing more."""
        self._executor.shutdown(cancel_futures=True)
        self._close()

    def _append(self, receipt: Receipt, quality: int) -> None:
        if self._failed:  # the file is lost, and the error on its way
            return
        self._failed = True
        try:
            tables = read_part(Path(receipt.path))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            message = f"the part '{receipt.path}' is not what was written ({error}): the same command makes it again"
            raise TransientError(message) from error
        tables.events["quality"] |= quality
        self._to_fill().append(tables)
        self._failed = False

    def _finish(self, *arguments: Any) -> None:
        if not self._failed:
            self._to_fill().finish(*arguments)
        self._close()

    def _to_fill(self) -> Any:
        if self._writer is None:
            self._writer = self._open.enter_context(self._opened())
        return self._writer

    def _close(self) -> None:
        self._writer = None
        self._open.close()
