"""Inflate ``.gz``, ``.lz4`` and ``.bz2`` piece by piece, and take up the work again in the middle.

Each compression is one generator that yields inflated pieces from the beginning or from a :class:`SeekPoint`. On the
way through a file it can note seek points: the place in the compressed file, and a *primer*: bytes that bring a fresh
decoder into the state it had there. Every primer is an ordinary piece of compressed data, so the decoders stay those
of the well-kept libraries:

* gzip: one stored block with the 32 kB of output before the point, then empty blocks whose lengths add up to the
  number of bits by which the point misses a byte boundary;
* lz4: a frame header and one stored block with the 64 kB before the point (none if the blocks are independent);
* bzip2: blocks know nothing of each other; the header alone, and the rest of the file shifted to a byte boundary.

Formats: RFC 1951 and 1952; "LZ4 Frame Format" 1.6.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import InputError
from cygnoreco.io.seekpoint import CompressedFile, SeekPoint, SeekPoints, StreamError
from cygnoreco.types import Fault

_READ = 1 << 20
#: How much memory of events is used again: that of the event at hand, of the one before it, and of a third.
_KEEP, _KEPT = 64 << 20, 3


@dataclass
class InflatedStream:
    """A forward view on inflated bytes, in whatever pieces they come.

    Attributes
    ----------
    offset : int
        Position of the next byte in the inflated stream.
    fault : Fault or None
        Why the stream ended, if it was not by its proper end; known once :meth:`take` runs dry.
    drain : callable
        Reads what is left of the file, for the sake of `on_read`.
    consumed : callable
        Bytes of the file that were taken so far.
    """

    pieces: Iterator[bytes | memoryview]
    offset: int = 0
    fault: Fault | None = None
    close: Callable[[], None] = lambda: None
    drain: Callable[[], None] = lambda: None
    consumed: Callable[[], int] = lambda: 0
    _waiting: deque[memoryview] = field(default_factory=deque)
    _kept: list[tuple[NDArray[np.uint8], weakref.ref[NDArray[np.uint8]]]] = field(default_factory=list)

    def __enter__(self) -> InflatedStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def take(self, size: int) -> memoryview:
        """Next `size` bytes, read-only; fewer only where the stream ends. A view of the piece where possible."""
        if self._fill() and len(self._waiting[0]) >= size:
            return self._first(size)
        buffer = self._memory(size).data
        return buffer[: self.readinto(buffer)].toreadonly()

    def peek(self, size: int) -> memoryview:
        """As :meth:`take`, without going forward."""
        view = self.take(size)
        self.push_back(view)
        return view

    def push_back(self, view: memoryview) -> None:
        """Let bytes be taken again, the last first."""
        if len(view):
            self._waiting.appendleft(view)
            self.offset -= len(view)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer of bytes; returns how many there were."""
        done = 0
        while done < len(buffer) and self._fill():
            piece = self._first(len(buffer) - done)
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def skip(self, size: int) -> int:
        """Go forward; returns by how much."""
        done = 0
        while done < size and self._fill():
            done += len(self._first(size - done))
        return done

    def _memory(self, size: int) -> NDArray[np.uint8]:
        """Memory for an event: that of an earlier one which nobody holds any more, for fresh memory costs a pass."""
        place = next((i for i, (kept, view) in enumerate(self._kept) if len(kept) >= size and view() is None), None)
        # Only what is really written costs memory, however much a damaged header asks for.
        memory = np.empty(size, "u1") if place is None else self._kept.pop(place)[0]
        view = memory[:size]
        if size <= _KEEP:
            # Whoever holds a memoryview of the view holds the view, so memory whose view is gone is free.
            self._kept.append((memory, weakref.ref(view)))
            del self._kept[:-_KEPT]
        return view

    def _first(self, size: int) -> memoryview:
        piece = self._waiting.popleft()
        if len(piece) > size:
            self._waiting.appendleft(piece[size:])
            piece = piece[:size]
        self.offset += len(piece)
        return piece

    def _fill(self) -> bool:
        while not self._waiting:
            try:
                piece = next(self.pieces)
            except StopIteration:
                return False
            except StreamError as error:
                self.fault = Fault(error.kind, str(error), offset=self.offset)
                return False
            if len(piece):
                self._waiting.append(memoryview(piece).toreadonly())
        return True


def open_stream(
    path: Path | str,
    start: SeekPoint | None = None,
    *,
    points: SeekPoints | None = None,
    on_read: Callable[[bytes], Any] | None = None,
) -> InflatedStream:
    """Open a file of any compression; its first bytes tell which.

    Parameters
    ----------
    path : path-like
        Plain, gzip, lz4 or bzip2.
    start : SeekPoint, optional
        Where to begin, from an earlier pass over the same file.
    points : SeekPoints, optional
        Where to note seek points on the way.
    on_read : callable, optional
        Called with every piece of the file as it is, in order.

    Returns
    -------
    InflatedStream
        Plain files are mapped, so what is taken from them is not copied (unless `on_read` wants to see it).

    Raises
    ------
    InputError
        There is no such file, or it may not be read.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    kind = compression(file)
    source = CompressedFile(file, on_read)
    offset = start.inflated if start is not None else 0
    if start is not None:
        source.seek(start.compressed)
    if kind == "none" and on_read is None:
        return InflatedStream(_mapped(file, offset), offset, close=file.close)
    pieces = _inflate(kind, source, start, points)
    return InflatedStream(pieces, offset, close=file.close, drain=source.drain, consumed=source.tell)


def compression(file: BinaryIO) -> str:
    """``gzip``, ``lz4``, ``bzip2`` or ``none``, by the first bytes of the file."""
    magic = file.read(4)
    file.seek(0)
    if magic[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if magic == b"\x04\x22\x4d\x18":
        return "lz4"
    return "bzip2" if magic[:3] == b"BZh" else "none"


def _mapped(file: BinaryIO, offset: int) -> Iterator[memoryview]:
    try:
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[offset:]
    except ValueError:
        return  # an empty file cannot be mapped


def _inflate(kind: str, source: CompressedFile, start: SeekPoint | None, points: SeekPoints | None) -> Iterator[bytes]:
    # Each decoder is imported only by those who have such a file.
    if kind == "gzip":
        from cygnoreco.io.deflate import inflate_gzip

        return inflate_gzip(source, start, points)
    if kind == "lz4":
        from cygnoreco.io.lz4frame import inflate_lz4

        return inflate_lz4(source, start, points)
    if kind == "bzip2":
        from cygnoreco.io.bzip2 import inflate_bzip2

        return inflate_bzip2(source, start, points)
    return iter(lambda: source.take(_READ), b"")
