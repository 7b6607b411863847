"""One pass over a MIDAS file, and what it leaves behind: where everything is, and what is wrong with it.

The pass inflates the file once, checks every event, and notes its banks, their checksums and places to begin inflating
again. The result is kept in a folder of the user's cache, so that the other processes that work on the run open it
without a pass of their own. A cache that cannot be read or written is no fault: the pass is done again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from isal.isal_zlib import crc32  # seven times as fast as zlib's
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError
from cygnoreco.io.archive import load_arrays
from cygnoreco.io.atomic import atomic_write
from cygnoreco.io.midas import BEGIN_OF_RUN, Event, is_camera
from cygnoreco.io.midas_events import iter_events
from cygnoreco.io.odb import parse_odb, redact
from cygnoreco.io.seekpoint import SPACING, SeekPoint, SeekPoints
from cygnoreco.io.streams import open_stream
from cygnoreco.types import Fault

logger = logging.getLogger(__name__)

#: Raised whenever the same file would give another index.
INDEX_VERSION = 3

#: How far before a large event a seek point is wanted, bytes: a few blocks of DEFLATE, one of which it will be.
_BEFORE = 512 << 10

#: One row an event, broken ones included. ``flags``: -1 without a list of banks; ``size``: bytes in the file.
EVENT_INDEX_DTYPE = np.dtype(
    [
        ("offset", "<u8"), ("size", "<u8"), ("event_id", "<u2"), ("trigger_mask", "<u2"), ("serial", "<u4"),
        ("timestamp", "<u4"), ("data_size", "<u4"), ("flags", "<i8"), ("broken", "?"),
    ]
)  # fmt: skip

#: One row a bank of a sound event. ``event``: row of its event; ``offset``: of its data in the inflated file;
#: ``frame``: for camera banks their running number, broken ones counted, else -1.
BANK_INDEX_DTYPE = np.dtype(
    [
        ("event", "<i4"), ("name", "S4"), ("type", "<u4"), ("size", "<u4"), ("offset", "<u8"), ("crc32", "<u4"),
        ("frame", "<i4"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class MidasIndex:
    """What one pass over a file found.

    Attributes
    ----------
    path : Path
        The file.
    digest : str
        SHA-256 of the file as it is.
    file_size, inflated_size : int
        Bytes.
    run_number : int or None
        Of the begin of run.
    events, banks : ndarray
        Rows of ``EVENT_INDEX_DTYPE`` and ``BANK_INDEX_DTYPE``.
    faults : tuple of Fault
        In the order of the file.
    points : tuple of SeekPoint
        Places to begin inflating, in their order; none for a plain file.
    written : mapping
        Frames by camera that the DAQ wrote, those lost in broken events included.
    odb : mapping
        Settings at the begin of the run, secrets redacted.
    """

    path: Path
    digest: str
    file_size: int
    inflated_size: int
    run_number: int | None
    events: NDArray[Any]
    banks: NDArray[Any]
    faults: tuple[Fault, ...]
    points: tuple[SeekPoint, ...]
    written: Mapping[str, int]
    odb: Mapping[str, Any]


class Pass:
    """One pass over a file: its events as they come, and at the end the index.

    ::

        with Pass(path) as events:
            for event, rows in events:
                ...                      # rows: of ``BANK_INDEX_DTYPE``, as tuples, one a bank of `event.banks`
        index = events.index()

    Parameters
    ----------
    path : Path
        The file.
    digest : callable, optional
        Gives the SHA-256 of the file, if somebody else works it out; asked for at the end.
    seekable : bool
        Note seek points.

    Raises
    ------
    InputError
        The file cannot be read.
    """

    def __init__(self, path: Path, *, digest: Callable[[], str] | None = None, seekable: bool = True) -> None:
        self.path = path
        self.faults: list[Fault] = []
        self._size = _status(path).st_size
        self._checksum = hashlib.sha256()
        self._digest = digest or self._checksum.hexdigest
        self._points = SeekPoints()
        self._stream = open_stream(
            path,
            points=self._points if seekable else None,
            on_read=self._checksum.update if digest is None else lambda _: None,
        )
        self._events: list[tuple[Any, ...]] = []
        self._banks: list[tuple[Any, ...]] = []
        self._frames: Counter[str] = Counter()
        self.run_number: int | None = None
        self._odb: dict[str, Any] | None = None
        self._inflated_size: int | None = None
        self._large = 0  # bytes of the last event that was large

    def __enter__(self) -> Pass:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[tuple[Event, list[tuple[Any, ...]]]]:
        for item in iter_events(self._stream):
            if isinstance(item, Fault):
                self.faults.append(item)
                continue
            rows = _banks_of(item, len(self._events), self._frames)
            self._note(item, rows)
            yield item, rows
        self._inflated_size = self._stream.offset
        self._stream.drain()

    @property
    def odb(self) -> Mapping[str, Any]:
        """Settings at the begin of the run as far as they were met, secrets redacted."""
        return self._odb or {}

    @property
    def progress(self) -> float:
        """Part of the file that was read, 0 to 1."""
        return min(1.0, self._stream.consumed() / max(1, self._size))

    def _note(self, event: Event, rows: list[tuple[Any, ...]]) -> None:
        self.faults += _faults_of(event, self._frames)
        self._banks += rows
        self._events.append(_row_of(event))
        if len(event.raw) >= SPACING // 4:
            self._large = len(event.raw)
        if self._large:
            # Should the event that comes now be a large one too, a point is wanted shortly before its end.
            self._points.due = self._stream.offset + self._large - _BEFORE
        if event.header.event_id == BEGIN_OF_RUN and event.fault is None and self._odb is None:
            self.run_number = event.header.serial
            try:
                self._odb = redact(parse_odb(event.payload))
            except DataError as error:
                self._odb = {}
                self.faults.append(Fault("odb", str(error), event=event.number, offset=event.offset))

    def index(self) -> MidasIndex:
        """Return what the pass found, once it has come to the end.

        Raises
        ------
        DataError
            There is no event in the file.
        """
        if self._inflated_size is None:
            raise RuntimeError(f"the pass over {self.path} is not at its end")
        events = np.array(self._events, EVENT_INDEX_DTYPE)
        faults = list(self.faults)
        if events["broken"].all():
            reasons = [fault.message for fault in faults if fault.kind not in ("no-begin-of-run", "no-end-of-run")]
            raise DataError(f"{self.path}: no MIDAS event in it: {reasons[0] if reasons else 'it is empty'}")
        for number in np.flatnonzero(events["event_id"][1:] == BEGIN_OF_RUN) + 1:
            message = "another begin of run: what follows is counted to the first run all the same"
            faults.append(Fault("second-run", message, event=int(number), offset=int(events["offset"][number])))
        return MidasIndex(
            path=self.path,
            digest=self._digest(),
            file_size=self._size,
            inflated_size=self._inflated_size,
            run_number=self.run_number,
            events=events,
            banks=np.array(self._banks, BANK_INDEX_DTYPE),
            faults=tuple(faults),
            points=tuple(self._points),
            written=dict(self._frames),
            odb=self.odb,
        )


def known_index(path: Path, cache: Path | None = None) -> MidasIndex | None:
    """Index of a file if an earlier pass left it: in this process's memory or in the cache.

    Parameters
    ----------
    path : Path
        The file.
    cache : Path, optional
        Folder of indices; by default one in the user's cache folder.

    Raises
    ------
    InputError
        There is no such file.
    """
    key = index_key(path)
    stored = _stored(key, cache)
    known = _recent.get(key)
    if known is not None and not stored.exists():  # other processes look in this folder
        _write(stored, known)
    index = known or _read(stored, path)
    return None if index is None else _remember(key, index)


def keep_index(index: MidasIndex, key: str, cache: Path | None = None) -> MidasIndex:
    """Keep the index of a pass for the next time, unless the file is no longer what it was.

    Parameters
    ----------
    index : MidasIndex
        Of a pass.
    key : str
        :func:`index_key` of the file before the pass began.
    cache : Path, optional
        As for :func:`known_index`.
    """
    if index_key(index.path) == key:  # else it is still being written: the next one must look again
        _write(_stored(key, cache), index)
        _remember(key, index)
    return index


def load_index(path: Path, cache: Path | None = None, *, fresh: bool = False) -> MidasIndex:
    """Index of a file: the known one, or else by a pass over the file.

    Parameters
    ----------
    path, cache
        As for :func:`known_index`.
    fresh : bool
        Read the file in any case.

    Raises
    ------
    InputError
        The file cannot be read.
    DataError
        There is no event in it.
    """
    index = None if fresh else known_index(path, cache)
    if index is not None:
        return index
    key = index_key(path)
    return keep_index(scan(path), key, cache)


def scan(path: Path) -> MidasIndex:
    """Read a file from end to end, with the errors of :func:`load_index`."""
    with Pass(path) as events:
        for _ in events:
            pass
    return events.index()


def _stored(key: str, cache: Path | None) -> Path:
    return (cache if cache is not None else _default_cache()) / f"{key}.npz"


#: The last few indices of this process, by key.
_recent: dict[str, MidasIndex] = {}
_RECENT = 4


def _remember(key: str, index: MidasIndex) -> MidasIndex:
    _recent.pop(key, None)
    _recent[key] = index
    while len(_recent) > _RECENT:
        _recent.pop(next(iter(_recent)), None)
    return index


def index_key(path: Path) -> str:
    """Name of a file as it is now: another size or time of change, another name."""
    status = _status(path)
    identity = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{INDEX_VERSION}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _default_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("cygnoreco") / "midas"


def _row_of(event: Event) -> tuple[Any, ...]:
    header = event.header
    return (
        event.offset, len(event.raw), header.event_id, header.trigger_mask, header.serial, header.timestamp,
        header.data_size, -1 if event.flags is None else event.flags, event.fault is not None,
    )  # fmt: skip


def _banks_of(event: Event, row: int, frames: Counter[str]) -> list[tuple[Any, ...]]:
    rows = []
    for bank in event.banks:
        frame = -1
        if is_camera(bank.name):
            frame = frames[bank.name]
            frames[bank.name] += 1
        rows.append(
            (
                row,
                bank.name.encode("latin-1"),
                bank.type,
                bank.size,
                event.offset + bank.offset,
                crc32(bank.data),
                frame,
            )
        )
    return rows


def _faults_of(event: Event, frames: Counter[str]) -> list[Fault]:
    """One fault for every frame that a broken event takes away, or one for the event if it takes none."""
    if event.fault is None:
        return []
    faults = []
    for camera in event.lost_cameras:
        message = f"{event.fault.message}; a frame of {camera} is lost"
        faults.append(replace(event.fault, message=message, frame=frames[camera]))
        frames[camera] += 1
    return faults or [event.fault]


def _write(stored: Path, index: MidasIndex) -> None:
    about = {
        "digest": index.digest,
        "file_size": index.file_size,
        "inflated_size": index.inflated_size,
        "run_number": index.run_number,
        "written": index.written,
        "faults": [asdict(fault) for fault in index.faults],
        "odb": index.odb,
    }
    points = [(point.inflated, point.compressed, len(point.primer), point.primed, point.bits) for point in index.points]
    primers = b"".join(point.primer for point in index.points)
    try:
        with atomic_write(stored) as partial, partial.open("wb") as file:
            np.savez(
                file,
                about=np.frombuffer(json.dumps(about).encode(), "u1"),
                events=index.events,
                banks=index.banks,
                points=np.array(points, "<u8").reshape(-1, 5),
                primers=np.frombuffer(zlib.compress(primers, 1), "u1"),
            )
    except OSError as error:
        logger.debug("the index of %s cannot be kept: %s", index.path, error)


def _read(stored: Path, path: Path) -> MidasIndex | None:
    try:
        arrays = load_arrays(stored)
        about = json.loads(arrays["about"].tobytes())
        primers = zlib.decompress(arrays["primers"].tobytes())
        ends = np.cumsum(arrays["points"][:, 2]).tolist()
        points = tuple(
            SeekPoint(inflated, compressed, primers[end - length : end], primed, bits)
            for (inflated, compressed, length, primed, bits), end in zip(arrays["points"].tolist(), ends, strict=True)
        )
        return MidasIndex(
            path,
            events=arrays["events"].astype(EVENT_INDEX_DTYPE),
            banks=arrays["banks"].astype(BANK_INDEX_DTYPE),
            faults=tuple(Fault(**fault) for fault in about.pop("faults")),
            points=points,
            **about,
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.debug("the index %s is of no use: %s", stored, error)
        return None
