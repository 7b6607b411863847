"""What all compressions share: the file as they read it, where they can begin again, how they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from cygnoreco.errors import DataError

#: Inflated bytes between two seek points, at most: a seek costs half of it in vain, a point weighs 32 or 64 kB.
SPACING = 16 << 20
_READ = 1 << 20


@dataclass(frozen=True)
class SeekPoint:
    """Where inflating can begin again.

    Attributes
    ----------
    inflated : int
        Offset in the output.
    compressed : int
        Offset in the file.
    primer : bytes
        What a fresh decoder must be fed first.
    primed : int
        Bytes of output of the primer, to be dropped.
    bits : int
        So many bits of the byte at `compressed` belong to what came before (bzip2 only).
    """

    inflated: int
    compressed: int
    primer: bytes = b""
    primed: int = 0
    bits: int = 0


@dataclass
class SeekPoints:
    """Seek points noted on the way through a file, in their order.

    Attributes
    ----------
    found : list of SeekPoint
        So far.
    due : int
        Offset in the output from which on the next one is wanted: ``SPACING`` after the last one, unless who reads
        knows a better place. A point just before a block of frames saves those who begin there what lies between.
    """

    found: list[SeekPoint] = field(default_factory=list)
    due: int = 0

    def add(self, point: SeekPoint) -> None:
        """Note a point."""
        self.found.append(point)
        self.due = point.inflated + SPACING

    def __iter__(self) -> Iterator[SeekPoint]:
        return iter(self.found)


class StreamError(DataError):
    """The compressed stream cannot be followed any further; ``kind`` is the word for a fault."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class CompressedFile:
    """The bytes of a file as the generators take them, each seen once by `on_read` (which makes the checksum)."""

    file: BinaryIO
    on_read: Callable[[bytes], Any] | None = None
    _buffer: bytes = b""
    _used: int = 0
    _end: int = 0  # file offset of the end of the buffer
    _seen: int = 0  # what `on_read` has seen, for nothing is shown to it twice

    def tell(self) -> int:
        """File offset of the next byte of :meth:`take`."""
        return self._end - len(self._buffer) + self._used

    def seek(self, offset: int) -> None:
        """Go to a file offset."""
        self.file.seek(offset)
        self._buffer, self._used, self._end = b"", 0, offset

    def take(self, size: int) -> bytes:
        """Next `size` bytes, fewer only at the end of the file."""
        while len(self._buffer) - self._used < size and self._read(size):
            pass
        piece = self._buffer[self._used : self._used + size]
        self._used += len(piece)
        return piece

    def view(self, size: int) -> memoryview:
        """Next bytes without a copy, at most `size`, maybe fewer; none only at the end of the file."""
        if self._used == len(self._buffer):
            self._read(size)
        piece = memoryview(self._buffer)[self._used : self._used + size]
        self._used += len(piece)
        return piece

    def _read(self, size: int) -> bool:
        more = self.file.read(max(_READ, size))
        rest = self._buffer[self._used :]
        self._buffer = rest + more if rest else more
        self._used, self._end = 0, self._end + len(more)
        if self.on_read is not None and self._end > self._seen:
            self.on_read(more[self._seen - self._end :])
            self._seen = self._end
        return bool(more)

    def peek(self, size: int) -> bytes:
        """As :meth:`take`, without going forward."""
        piece = self.take(size)
        self.give_back(len(piece))
        return piece

    def give_back(self, size: int) -> None:
        """Let the last `size` bytes be taken again."""
        if size <= self._used:
            self._used -= size
        else:
            self.seek(self.tell() - size)

    def drain(self) -> None:
        """Read on to the end of the file, for `on_read`."""
        while self.take(_READ):
            pass
