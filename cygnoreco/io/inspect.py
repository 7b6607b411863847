"""Say what is in a raw run and whether it is sound, without reconstructing it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cygnoreco.errors import DataError, InputError
from cygnoreco.io.convert import verify_copy
from cygnoreco.io.fetch import borrowed
from cygnoreco.io.midas import INTERNAL_EVENTS, bank_name
from cygnoreco.io.midas_index import MidasIndex, load_index
from cygnoreco.io.midas_source import MidasSource, source_of
from cygnoreco.io.odb import lookup
from cygnoreco.io.opening import container_of, open_source
from cygnoreco.io.source import Source, read_frames
from cygnoreco.io.stored import StoredSource
from cygnoreco.types import Camera, Fault

#: First line of the list of events.
EVENT_LINES_HEADER = "serial,event_id,trigger_mask,timestamp,event_data_size,flags,banks(name:type:bytes:crc32)"

#: Settings that matter to a reader of the data.
ODB_EXTRACT = (
    "/Runinfo/Run number",
    "/Runinfo/Start time",
    "/Runinfo/Stop time",
    "/Experiment/Name",
    "/Configurations",
    "/Equipment/Environment/Settings/Names Input",
)

_BLOCK = 8


@dataclass(frozen=True)
class EventSummary:
    """All events of one id: how many, how many of them broken, bytes, first and last time in UNIX seconds."""

    event_id: int
    count: int
    broken: int
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class BankSummary:
    """All banks of one name and type in the events of one id: how many, and their sizes in bytes."""

    event_id: int
    name: str
    type: int
    count: int
    smallest: int
    largest: int


@dataclass(frozen=True)
class CameraSummary:
    """A camera, its readable frames, and the number that the DAQ wrote."""

    camera: Camera
    frames: int
    written: int


@dataclass(frozen=True)
class RunInfo:
    """What is in a raw run.

    Attributes
    ----------
    path : Path
        The file.
    container : str
        ``midas``, ``root``, ``hdf5`` or ``zarr``.
    run_number : int
        0 if unknown.
    digest : str
        SHA-256 of the content.
    file_size, inflated_size : int or None
        Bytes; None where the container does not tell.
    begin, end : int or None
        UNIX seconds of the first and the last event; None where the container knows no times.
    cameras : tuple of CameraSummary
        By name.
    events : tuple of EventSummary
        By id; only MIDAS has events.
    banks : tuple of BankSummary
        By event id and name.
    faults : tuple of Fault
        Everything wrong.
    odb : mapping
        Extract of the settings by path, secrets redacted.
    """

    path: Path
    container: str
    run_number: int
    digest: str
    file_size: int | None
    inflated_size: int | None
    begin: int | None
    end: int | None
    cameras: tuple[CameraSummary, ...]
    events: tuple[EventSummary, ...]
    banks: tuple[BankSummary, ...]
    faults: tuple[Fault, ...]
    odb: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**asdict(self), "path": str(self.path)}


def run_info(
    path: str | os.PathLike[str],
    *,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> RunInfo:
    """Summarise a raw run; arguments and errors as for :func:`cygnoreco.io.opening.open_source`."""
    source = open_source(path, shapes=shapes, cache=cache)
    tables = [source.table(camera.name) for camera in source.cameras]
    index = source.index if isinstance(source, MidasSource) else None
    times = index.events["timestamp"] if index else np.concatenate([[], *(table["timestamp"] for table in tables)])
    times = times[times > 0]
    return RunInfo(
        path=source.path,
        container=source.container,
        run_number=source.run_number,
        digest=source.digest,
        file_size=source.path.stat().st_size if source.path.is_file() else None,
        inflated_size=index.inflated_size if index else None,
        begin=int(times.min()) if len(times) else None,
        end=int(times.max()) if len(times) else None,
        cameras=tuple(
            CameraSummary(camera, len(table), index.written[camera.name] if index else len(table))
            for camera, table in zip(source.cameras, tables, strict=True)
        ),
        events=_event_summaries(index) if index else (),
        banks=_bank_summaries(index) if index else (),
        faults=source.faults,
        odb=odb_extract(source.odb()),
    )


def odb_extract(odb: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the settings of ``ODB_EXTRACT`` that are there, by path, directories taken apart into their values."""
    extract: dict[str, Any] = {}
    for path in ODB_EXTRACT:
        value = lookup(odb, path)
        if value is not None:
            extract.update(_leaves(path, value))
    return extract


def event_lines(path: str | os.PathLike[str], *, cache: str | os.PathLike[str] | None = None) -> Iterator[str]:
    """List the events of a MIDAS run as lines of CSV, a header first.

    Parameters
    ----------
    path, cache
        As for :func:`cygnoreco.io.midas_source.open_midas`.

    Yields
    ------
    str
        ``serial,event_id,trigger_mask,timestamp,event_data_size,flags,banks``; banks as ``name:type:bytes:crc32``
        joined by ``|``, or the word ``internal`` (begin and end of run, messages) or ``broken``.

    Raises
    ------
    InputError
        It is no MIDAS file.
    DataError
        There is no event in it.
    """
    with borrowed(path) as local:
        container = container_of(local)
        if container != "midas":
            raise InputError(f"{local}: only MIDAS files have events to list, this is {container}")
        index = load_index(local, Path(cache) if cache is not None else None)
    yield EVENT_LINES_HEADER
    first = np.searchsorted(index.banks["event"], np.arange(len(index.events) + 1))
    for row, event in enumerate(index.events):
        if event["broken"]:
            banks = "broken"
        elif int(event["event_id"]) in INTERNAL_EVENTS:
            banks = "internal"
        else:
            banks = "|".join(
                f"{bank_name(bank['name'])}:{bank['type']}:{bank['size']}:{bank['crc32']:08x}"
                for bank in index.banks[first[row] : first[row + 1]]
            )
        flags = event["flags"] if event["flags"] >= 0 else ""
        yield (
            f"{event['serial']},{event['event_id']},{event['trigger_mask']},{event['timestamp']},"
            f"{event['data_size']},{flags},{banks}"
        )


@dataclass(frozen=True)
class Verification:
    """Outcome of reading a run from end to end: frames that can be read, and everything wrong."""

    path: Path
    container: str
    digest: str
    frames: int
    faults: tuple[Fault, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**asdict(self), "path": str(self.path), "sound": self.sound}


def verify_run(
    path: str | os.PathLike[str],
    *,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Verification:
    """Read a raw run from end to end, whatever the cache says.

    Arguments and errors are those of :func:`cygnoreco.io.opening.open_source`; what is wrong inside is in the result.
    """
    with borrowed(path) as local:
        return _verified(local, shapes, Path(cache) if cache is not None else None)


def _verified(path: Path, shapes: Mapping[str, tuple[int, int]] | None, cache: Path | None) -> Verification:
    if container_of(path) == "midas":
        source: Source = source_of(load_index(path, cache, fresh=True), shapes, cache)
        unreadable: list[Fault] = []
    else:
        source = open_source(path, shapes=shapes, cache=cache)
        unreadable = _damage(source)
    frames = sum(len(source.table(camera.name)) for camera in source.cameras)
    frames -= sum(fault.frame is not None for fault in unreadable)
    return Verification(path, source.container, source.digest, frames, (*source.faults, *unreadable))


def _damage(source: Source) -> list[Fault]:
    """Find what shows only on reading: frames that cannot be read, or a copy that is not what was written."""
    if isinstance(source, StoredSource) and source.header is not None:
        try:
            verify_copy(source.path)
        except DataError as error:
            whole = Fault("content", str(error))
        else:
            return []
    else:
        whole = None
    faults: list[Fault] = []
    for camera in source.cameras:
        n = len(source.table(camera.name))
        for start in range(0, n, _BLOCK):
            faults += read_frames(source, camera.name, start, min(start + _BLOCK, n))[2]
    return faults or ([whole] if whole else [])


def _event_summaries(index: MidasIndex) -> tuple[EventSummary, ...]:
    summaries = []
    for event_id in np.unique(index.events["event_id"]).tolist():
        events = index.events[index.events["event_id"] == event_id]
        summaries.append(
            EventSummary(
                event_id,
                len(events),
                int(events["broken"].sum()),
                int(events["size"].sum()),
                int(events["timestamp"].min()),
                int(events["timestamp"].max()),
            )
        )
    return tuple(summaries)


def _bank_summaries(index: MidasIndex) -> tuple[BankSummary, ...]:
    banks = index.banks
    kinds = np.empty(len(banks), [("event_id", "<u2"), ("name", "S4"), ("type", "<u4")])
    kinds["event_id"] = index.events["event_id"][banks["event"]]
    kinds["name"], kinds["type"] = banks["name"], banks["type"]
    summaries = []
    for kind in np.unique(kinds):
        sizes = banks["size"][kinds == kind]
        name = bank_name(kind["name"])
        numbers = int(kind["event_id"]), name, int(kind["type"])
        summaries.append(BankSummary(*numbers, len(sizes), int(sizes.min()), int(sizes.max())))
    return tuple(summaries)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{path}/{key}", inner)
    else:
        yield path, value
