"""One pass over a MIDAS file, and what it leaves behind: where everything is, and what is wrong with it.

The pass inflates the file once, checks every event, and notes its banks, their checksums and places to begin inflating
again. The result is kept in a folder of the user's cache, so that the other processes that work on the run open it
without a pass of their own. A cache that cannot be read or written is no fault: the pass is done again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32  # seven times as fast as zlib's
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError
from cygnoreco.io.atomic import atomic_write
from cygnoreco.io.midas import BEGIN_OF_RUN, Event, is_camera
from cygnoreco.io.midas_events import iter_events
from cygnoreco.io.odb import parse_odb, redact
from cygnoreco.io.seekpoint import SeekPoint
from cygnoreco.io.streams import open_stream
from cygnoreco.types import Fault

logger = logging.getLogger(__name__)

#: Raised whenever the same file would give another index.
INDEX_VERSION = 1

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


def scan(path: Path) -> MidasIndex:
    """Read a file from end to end.

    Raises
    ------
    InputError
        The file cannot be read.
    DataError
        There is no event in it.
    """
    checksum = hashlib.sha256()
    points: list[SeekPoint] = []
    events: list[tuple[Any, ...]] = []
    banks: list[tuple[Any, ...]] = []
    faults: list[Fault] = []
    frames: Counter[str] = Counter()
    run_number, odb = None, None
    with open_stream(path, points=points, on_read=checksum.update) as stream:
        for item in iter_events(stream):
            if isinstance(item, Fault):
                faults.append(item)
                continue
            faults += _faults_of(item, frames)
            banks += _banks_of(item, len(events), frames)
            events.append(_row_of(item))
            if item.header.event_id == BEGIN_OF_RUN and item.fault is None and odb is None:
                run_number = item.header.serial
                try:
                    odb = redact(parse_odb(item.payload))
                except DataError as error:
                    odb = {}
                    faults.append(Fault("odb", str(error), event=item.number, offset=item.offset))
        inflated_size = stream.offset
        stream.drain()
    event_table = np.array(events, EVENT_INDEX_DTYPE)
    if event_table["broken"].all():
        reasons = [fault.message for fault in faults if fault.kind not in ("no-begin-of-run", "no-end-of-run")]
        raise DataError(f"{path}: no MIDAS event in it: {reasons[0] if reasons else 'it is empty'}")
    for number in np.flatnonzero(event_table["event_id"][1:] == BEGIN_OF_RUN) + 1:
        message = "another begin of run: what follows is counted to the first run all the same"
        faults.append(Fault("second-run", message, event=int(number), offset=int(event_table["offset"][number])))
    return MidasIndex(
        path=path,
        digest=checksum.hexdigest(),
        file_size=path.stat().st_size,
        inflated_size=inflated_size,
        run_number=run_number,
        events=event_table,
        banks=np.array(banks, BANK_INDEX_DTYPE),
        faults=tuple(faults),
        points=tuple(points),
        written=dict(frames),
        odb=odb or {},
    )


def load_index(path: Path, cache: Path | None = None, *, fresh: bool = False) -> MidasIndex:
    """Index of a file: from this process's memory, from the cache, or by a pass over the file.

    Parameters
    ----------
    path : Path
        The file.
    cache : Path, optional
        Folder of indices; by default one in the user's cache folder.
    fresh : bool
        Read the file in any case.

    Raises
    ------
    InputError
        The file cannot be read.
    DataError
        There is no event in it.
    """
    key = _key(path)
    folder = cache if cache is not None else _default_cache()
    stored = folder / f"{key}.npz"
    if not fresh:
        known = _recent.get(key)
        if known is not None and not stored.exists():  # other processes look in this folder
            _write(stored, known)
        index = known or _read(stored, path)
        if index is not None:
            return _remember(key, index)
    index = scan(path)
    if _key(path) == key:  # else it is still being written: the next one must look again
        _write(stored, index)
        _remember(key, index)
    return index


#: The last few indices of this process, by key.
_recent: dict[str, MidasIndex] = {}
_RECENT = 4


def _remember(key: str, index: MidasIndex) -> MidasIndex:
    _recent.pop(key, None)
    _recent[key] = index
    while len(_recent) > _RECENT:
        _recent.pop(next(iter(_recent)), None)
    return index


def _key(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    identity = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{INDEX_VERSION}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:40]


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
        with stored.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            primers = zlib.decompress(arrays["primers"].tobytes())
            ends = np.cumsum(arrays["points"][:, 2]).tolist()
            points = tuple(
                SeekPoint(inflated, compressed, primers[end - length : end], primed, bits)
                for (inflated, compressed, length, primed, bits), end in zip(
                    arrays["points"].tolist(), ends, strict=True
                )
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
