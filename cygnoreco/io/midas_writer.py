"""Write a MIDAS run as the DAQ does: begin of run, events, messages, end of run.

The same calls give the same bytes: nothing of the clock or of the machine goes into the file.
"""

from __future__ import annotations

import bz2
import contextlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np

from cygnoreco.errors import InputError, nearest
from cygnoreco.io.atomic import atomic_write
from cygnoreco.io.midas import (
    BANK_HEADERS,
    BANK_LIST_HEADER,
    BEGIN_OF_RUN,
    END_OF_RUN,
    MESSAGE,
    MIDAS_MAGIC,
    EventHeader,
)
from cygnoreco.io.odb import dump_odb

#: Values of a bank: an array, or bytes that are taken as characters.
Values = Any
#: Banks in their order: a mapping, or pairs (name, values), or triples (name, values, MIDAS type number).
Banks = Mapping[str, Values] | Iterable[tuple[str, Values] | tuple[str, Values, int]]

_TYPES = {"u1": 1, "i1": 2, "u2": 4, "i2": 5, "u4": 6, "i4": 7, "b1": 8, "f4": 9, "f8": 10, "i8": 17, "u8": 18}
_CHARACTERS, _STRING = 3, 12


class _Compressor(Protocol):
    def compress(self, data: Any, /) -> bytes: ...
    def flush(self) -> bytes: ...


class MidasWriter:
    """Write one run; use it in a ``with`` block.

    The file appears under its name when the block ends well, with the end of run written. After an exception nothing
    is left behind.

    Parameters
    ----------
    path : path-like
        ``.mid``, ``.mid.gz``, ``.mid.lz4`` or ``.mid.bz2``; the suffix chooses the compression.
    run : int or None
        Run number of the begin and end of run; None writes neither (for raw copies with :meth:`raw`).
    odb : mapping, optional
        The DAQ's settings, dumped at the begin and the end of the run; see :func:`cygnoreco.io.odb.dump_odb`.
    timestamp : int
        UNIX seconds of the begin of run, and of events that name no time.
    flags : {0x31, 0x11, 0x01}
        Bank headers of 16, 12 or 8 bytes (the last for banks under 64 kB).
    level : int, optional
        Compression level; by default 1 for gzip (what the DAQ uses), 0 for lz4 and 9 for bzip2.

    Raises
    ------
    InputError
        Unknown suffix or flags.

    Examples
    --------
    >>> with MidasWriter(path, run=5001, odb={"Runinfo": {"Run number": 5001}}, timestamp=1_700_000_000) as writer:
    ...     writer.event(1, {"CAM0": frame}, timestamp=1_700_000_001)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: int | None,
        odb: Mapping[str, Any] | None = None,
        timestamp: int = 0,
        flags: int = 0x31,
        level: int | None = None,
    ) -> None:
        self.path = Path(path)
        if flags not in BANK_HEADERS:
            raise InputError(f"bank flags {flags:#x}; valid: {', '.join(map(hex, BANK_HEADERS))}")
        self._compressor = _compressor(self.path, level)
        self._run, self._odb, self._flags = run, odb or {}, flags
        self._timestamp = self._last_timestamp = timestamp
        self._serials: Counter[int] = Counter()
        self._ended = False
        self._file: BinaryIO | None = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> MidasWriter:
        with contextlib.ExitStack() as stack:
            partial = stack.enter_context(atomic_write(self.path))
            self._file = stack.enter_context(partial.open("wb"))
            stack.push(self._conclude)
            if self._run is not None:
                self._internal(BEGIN_OF_RUN, MIDAS_MAGIC, self._run, dump_odb(self._odb), self._timestamp)
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)
        self._file = None

    def _conclude(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._file is not None:
            self.end()
            self._file.write(self._compressor.flush())

    def event(
        self,
        event_id: int,
        banks: Banks,
        *,
        timestamp: int | None = None,
        serial: int | None = None,
        trigger_mask: int = 1,
    ) -> None:
        """Write a user event.

        Parameters
        ----------
        event_id : int
            1 for a trigger; see the DAQ's equipment for others.
        banks : mapping or iterable
            Banks in their order: ``{name: values}``, or pairs ``(name, values)``, or triples
            ``(name, values, MIDAS type number)``. Names have one to four characters and may come twice in pairs.
        timestamp : int, optional
            UNIX seconds; that of the event before by default.
        serial : int, optional
            By default counted from 0 for every event id.
        trigger_mask : int
            Goes into the header.

        Raises
        ------
        InputError
            A name, type or size that the format does not have.
        """
        pieces = bank_list(banks, self._flags)
        number = self._serials[event_id] if serial is None else serial
        self._serials[event_id] = number + 1
        size = sum(memoryview(piece).nbytes for piece in pieces)
        self._write(EventHeader(event_id, trigger_mask, number, self._time(timestamp), size), pieces)

    def message(self, text: str, timestamp: int | None = None) -> None:
        """Write a message of the DAQ; `timestamp` in UNIX seconds, that of the event before by default."""
        self._internal(MESSAGE, 1, self._serials[MESSAGE], text.encode() + b"\0", timestamp)
        self._serials[MESSAGE] += 1

    def raw(self, event: bytes | memoryview) -> None:
        """Write an event as it is, header included."""
        self._put(event)

    def end(self, odb: Mapping[str, Any] | None = None, *, timestamp: int | None = None) -> None:
        """Write the end of run, once; done by the end of the ``with`` block if not called."""
        if self._run is not None and not self._ended:
            dump = dump_odb(self._odb if odb is None else odb)
            self._internal(END_OF_RUN, MIDAS_MAGIC, self._run, dump, timestamp)
        self._ended = True

    def _internal(self, event_id: int, mask: int, serial: int, text: bytes, timestamp: int | None) -> None:
        self._write(EventHeader(event_id, mask, serial, self._time(timestamp), len(text)), [text])

    def _time(self, timestamp: int | None) -> int:
        self._last_timestamp = self._last_timestamp if timestamp is None else timestamp
        return self._last_timestamp

    def _write(self, header: EventHeader, pieces: Iterable[bytes | memoryview]) -> None:
        self._put(header.pack())
        for piece in pieces:
            self._put(piece)

    def _put(self, piece: bytes | memoryview) -> None:
        assert self._file is not None, "MidasWriter writes inside a `with` block only"
        self._file.write(self._compressor.compress(piece))


def bank_list(banks: Banks, flags: int = 0x31) -> list[bytes | memoryview]:
    """Make the data of a user event, in pieces to be written one after the other (images are not copied).

    Parameters
    ----------
    banks : mapping or iterable
        As for :meth:`MidasWriter.event`.
    flags : {0x31, 0x11, 0x01}
        Kind of the bank headers.
    """
    layout = BANK_HEADERS[flags]
    pieces: list[bytes | memoryview] = []
    for entry in banks.items() if isinstance(banks, Mapping) else banks:
        name, values, *given = entry
        encoded = name.encode("latin-1")
        if not 1 <= len(encoded) <= 4:
            raise InputError(f"bank name {name!r}: one to four characters expected")
        natural, data = _encode(name, values)
        if flags == 0x01 and len(data) > 0xFFFF:
            raise InputError(f"bank {name} has {len(data)} bytes: flags 0x01 hold 65535, use 0x31")
        type_number = given[0] if given else natural
        reserved = (0,) if flags == 0x31 else ()
        pieces += [layout.pack(encoded, type_number, len(data), *reserved), data, b"\0" * (-len(data) % 8)]
    total = sum(map(len, pieces))
    return [BANK_LIST_HEADER.pack(total, flags), *pieces]


def _encode(name: str, values: Values) -> tuple[int, bytes | memoryview]:
    """MIDAS type number and little-endian bytes of the values."""
    if isinstance(values, str):
        return _STRING, values.encode() + b"\0"
    if isinstance(values, (bytes, bytearray, memoryview)):
        return _CHARACTERS, bytes(values)
    array = np.asarray(values)
    code = array.dtype.str[1:]
    if code not in _TYPES:
        raise InputError(f"bank {name}: no MIDAS type for {array.dtype}" + nearest(array.dtype.name, _NAMES))
    array = array.astype("<u4" if code == "b1" else array.dtype.newbyteorder("<"), copy=False)
    return _TYPES[code], np.ascontiguousarray(array).reshape(-1).view("u1").data


_NAMES = [np.dtype(code).name for code in _TYPES]


class _Stored:
    """No compression, in the form of a compressor."""

    def compress(self, data: Any, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Lz4:
    """LZ4 frame with the settings of the DAQ's logger: linked blocks of 4 MB, a checksum of the content."""

    def __init__(self, level: int) -> None:
        from lz4.frame import BLOCKSIZE_MAX4MB, LZ4FrameCompressor

        self._compressor = LZ4FrameCompressor(
            block_size=BLOCKSIZE_MAX4MB, block_linked=True, content_checksum=True, compression_level=level
        )
        self._begun = False

    def compress(self, data: Any, /) -> bytes:
        return self._begin() + self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._begin() + self._compressor.flush()

    def _begin(self) -> bytes:
        header = b"" if self._begun else self._compressor.begin()
        self._begun = True
        return header


def _compressor(path: Path, level: int | None) -> _Compressor:
    kinds: dict[str, Callable[[], _Compressor]] = {
        ".mid": _Stored,
        # zlib writes a header without name and time; its blocks are those of the DAQ's files.
        ".gz": lambda: zlib.compressobj(1 if level is None else level, zlib.DEFLATED, 31),
        ".lz4": lambda: _Lz4(level or 0),
        ".bz2": lambda: bz2.BZ2Compressor(level or 9),
    }
    if path.suffix not in kinds:
        raise InputError(f"{path.name}: a MIDAS file ends with .mid, .mid.gz, .mid.lz4 or .mid.bz2")
    return kinds[path.suffix]()
