"""A MIDAS run as a source of frames."""

from __future__ import annotations

import bisect
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError, nearest
from cygnoreco.io.midas import CAMERA_TYPE, bank_name
from cygnoreco.io.midas_index import BANK_INDEX_DTYPE, MidasIndex, Pass, index_key, keep_index, known_index, load_index
from cygnoreco.io.odb import lookup
from cygnoreco.io.source import Beginning, Block, Buffers
from cygnoreco.io.streams import InflatedStream, open_stream
from cygnoreco.types import FRAME_DTYPE, SENSORS, Camera, Fault, Frames

Shapes = Mapping[str, tuple[int, int]]


def open_midas(
    path: str | os.PathLike[str], *, shapes: Shapes | None = None, cache: str | os.PathLike[str] | None = None
) -> MidasSource:
    """Open a MIDAS run, plain or compressed.

    Parameters
    ----------
    path : path-like
        ``.mid``, ``.mid.gz``, ``.mid.lz4`` or ``.mid.bz2``.
    shapes : mapping, optional
        (height, width) by bank name, for sensors that cannot be told by their number of pixels. Without it the
        settings of the run are asked (``/Configurations/Cameras/<bank>/Height`` and ``Width``), then the sensors of
        the field.
    cache : path-like, optional
        Folder of indices; by default one in the user's cache folder.

    Returns
    -------
    MidasSource
        The run. What is wrong with it is in its ``faults``.

    Raises
    ------
    InputError
        The file cannot be read.
    DataError
        There is no event in it.
    """
    folder = Path(cache) if cache is not None else None
    path = Path(path)
    index = known_index(path, folder)
    if index is not None:
        return source_of(index, shapes, folder)
    beginning = _look(path, shapes or {})
    if beginning is None:  # what is wrong with it is better known now
        return source_of(load_index(path, folder), shapes, folder)
    return MidasSource(path, dict(shapes or {}), folder, beginning)


def source_of(index: MidasIndex, shapes: Shapes | None = None, cache: Path | None = None) -> MidasSource:
    """Make a source of a known index; arguments as for :func:`open_midas`."""
    source = MidasSource(index.path, dict(shapes or {}), cache)
    source.adopt(index)
    return source


#: Events among which the first image is looked for.
_LOOK = 100


def _look(path: Path, shapes: Shapes) -> Beginning | None:
    """Read the first events of a run, up to the first image; None if they are not just as they should be."""
    with Pass(path, digest=lambda: "", seekable=False) as events:
        for event, rows in events:
            if events.faults or event.fault is not None or event.number > _LOOK:
                return None
            found = np.array(rows, BANK_INDEX_DTYPE)
            found = found[found["frame"] >= 0]
            if not len(found):
                continue
            odb, run = events.odb, events.run_number
            cameras = [(name, _shape(name, found[found["name"] == name.encode("latin-1")], odb, shapes))
                       for name in sorted({bank_name(raw) for raw in found["name"].tolist()})]  # fmt: skip
            if run is None or any(shape is None for _, shape in cameras):
                return None
            known = tuple(Camera(name, *shape) for name, shape in cameras if shape is not None)
            return Beginning(run, known, odb, event.header.timestamp)
    return None


@dataclass(frozen=True)
class _Content:
    """An index with its cameras sorted out."""

    index: MidasIndex
    cameras: tuple[Camera, ...]
    faults: tuple[Fault, ...]
    banks: Mapping[str, NDArray[Any]]


def _sorted_out(index: MidasIndex, shapes: Shapes) -> _Content:
    cameras: list[Camera] = []
    banks: dict[str, NDArray[Any]] = {}
    faults = list(index.faults)
    images = index.banks[index.banks["frame"] >= 0]
    for name in sorted({bank_name(raw) for raw in images["name"].tolist()}):
        rows = images[images["name"] == name.encode("latin-1")]
        shape = _shape(name, rows, index.odb, shapes)
        fits = np.zeros(len(rows), bool)
        if shape is not None:
            fits = (rows["size"] == 2 * shape[0] * shape[1]) & (rows["type"] == CAMERA_TYPE)
        faults += [_misfit(name, row, shape) for row in rows[~fits]]
        if shape is not None:
            cameras.append(Camera(name, *shape))
            banks[name] = rows[fits]
    # The sort is stable: faults of the whole file stay behind those of its events.
    faults.sort(key=lambda fault: len(index.events) if fault.event is None else fault.event)
    return _Content(index, tuple(cameras), tuple(faults), banks)


class MidasSource:
    """Frames of a MIDAS run; see :class:`cygnoreco.io.source.Source` for what all sources offer.

    The file is read from end to end when something is asked for that needs it, unless an earlier pass left its index;
    :meth:`first_pass` gives the frames on the way. With an index, reading goes on where the last reading of the
    thread ended, and elsewhere begins at the nearest seek point. Threads read side by side, each with a
    decoder of its own; other processes open the run themselves (a pickle holds its path and shapes only).

    Parameters
    ----------
    path : Path
        The file.
    shapes : mapping
        (height, width) by bank name, where the user declares them.
    cache : Path, optional
        Folder of indices.
    beginning : Beginning, optional
        Of a file that has not been read to its end.
    """

    container = "midas"
    origin = "midas"

    def __init__(
        self,
        path: Path,
        shapes: dict[str, tuple[int, int]],
        cache: Path | None = None,
        beginning: Beginning | None = None,
    ) -> None:
        self._path, self._shapes, self._cache = path, shapes, cache
        self._beginning = beginning
        self._key = index_key(path)
        self._known: _Content | None = None
        self._digest: str | None = None
        self._lock = threading.RLock()
        self._own = _Own()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self._shapes, self._cache)

    def __repr__(self) -> str:
        return f"MidasSource('{self.path}')"

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def beginning(self) -> Beginning | None:
        """What the first events told; None once the whole file is known."""
        return self._beginning if self._known is None else None

    @property
    def _content(self) -> _Content:
        if self._known is None:
            with self._lock:
                if self._known is None:
                    self._check_unchanged()
                    self.adopt(load_index(self.path, self._cache))
        assert self._known is not None
        return self._known

    def _check_unchanged(self) -> None:
        try:
            same = index_key(self.path) == self._key
        except InputError:  # it is gone
            same = False
        if not same:
            raise DataError(f"{self.path}: changed since it was opened")

    def adopt(self, index: MidasIndex) -> None:
        """Take the index of a finished pass."""
        self._known = _sorted_out(index, self._shapes)

    @property
    def index(self) -> MidasIndex:
        """Events and banks of the run."""
        return self._content.index

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Those of known shape."""
        return self._content.cameras

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Of the file and of its cameras, by event."""
        return self._content.faults

    @property
    def run_number(self) -> int:
        """Run number of the begin of run, or else of the file's name; 0 if neither says."""
        beginning = self.beginning
        if beginning is not None:
            return beginning.run_number
        if self.index.run_number is not None:
            return self.index.run_number
        named = re.search(r"run[_-]?(\d+)", self.path.name, re.IGNORECASE)
        return int(named[1]) if named else 0

    @property
    def digest(self) -> str:
        """SHA-256 of the file; it needs no pass."""
        if self._known is not None:
            return self._known.index.digest
        with self._lock:
            if self._digest is None:
                with self.path.open("rb") as file:
                    self._digest = hashlib.file_digest(file, "sha256").hexdigest()
            return self._digest

    def odb(self) -> Mapping[str, Any]:
        """Return the settings at the begin of the run, secrets redacted."""
        beginning = self.beginning
        return beginning.odb if beginning is not None else self.index.odb

    def first_pass(self, camera: Camera, buffers: Buffers) -> Iterator[Block]:
        """Read the file from end to end and give the frames of a camera on the way, block by block.

        At the end the index is known, here and in the cache, and with it what is wrong with the file.

        Parameters
        ----------
        camera : Camera
            One of the :attr:`beginning`.
        buffers : Buffers
            Where blocks are put together; each block must be given back.

        Yields
        ------
        Block
            Frames in their order. The blocks of a pass that is given up early leave no index.

        Raises
        ------
        DataError
            There is no event in the file; or the file changed on the way, and the blocks may be of either content.
        """
        self._check_unchanged()
        name, size = camera.name.encode("latin-1"), 2 * camera.height * camera.width
        rows: list[tuple[int, int, int]] = []
        start = 0
        buffer = buffers.take()
        with Pass(self.path, digest=lambda: self.digest) as events:
            for event, found in events:
                for bank, row in zip(event.banks, found, strict=True):
                    if row[1] != name or bank.size != size or bank.type != CAMERA_TYPE:
                        continue
                    buffer[len(rows)].reshape(-1).view("u1")[:] = bank.data
                    rows.append((row[-1], event.header.serial, event.header.timestamp))
                    if len(rows) == len(buffer):
                        yield Block(start, buffer, _frame_table(rows), part=events.progress)
                        start += len(rows)
                        rows, buffer = [], buffers.take()
            if rows:
                yield Block(start, buffer[: len(rows)], _frame_table(rows))
            else:
                buffers.give(buffer)
            self._check_unchanged()
            self.adopt(keep_index(events.index(), self._key, self._cache))

    def table(self, camera: str) -> NDArray[Any]:
        """Rows of ``FRAME_DTYPE``, one a readable frame of the camera, in the order of the file."""
        rows = self._rows(camera)
        table = np.empty(len(rows), FRAME_DTYPE)
        table["event"] = rows["frame"]
        for column in ("serial", "timestamp"):
            table[column] = self.index.events[column][rows["event"]]
        return table

    def offsets(self, camera: str) -> NDArray[np.int64]:
        """Where the pixels of each frame begin in the inflated file."""
        return self._rows(camera)["offset"].astype(np.int64)

    def read(self, camera: str, start: int, stop: int, out: Frames | None = None) -> Frames:
        """Frames ``start`` to ``stop`` (rows of :meth:`table`): uint16, shape (stop - start, height, width).

        Raises
        ------
        InputError
            There are no such frames.
        DataError
            The bytes read are not those that were there when the run was opened.
        """
        rows = self._rows(camera)
        if not 0 <= start <= stop <= len(rows):
            raise InputError(f"{self.path}: no frames {start} to {stop} of {camera}, it has {len(rows)}")
        shape = next(known.shape for known in self.cameras if known.name == camera)
        frames = np.empty((stop - start, *shape), "<u2") if out is None else out[: stop - start]
        for frame, row in zip(frames, rows[start:stop], strict=True):
            self._read_bank(row, frame.reshape(-1).view("u1").data)
        return frames

    def read_bank(self, row: int) -> bytearray:
        """Bytes of any bank, by its row in ``index.banks``; errors as for :meth:`read`."""
        data = bytearray(int(self.index.banks[row]["size"]))
        self._read_bank(self.index.banks[row], memoryview(data))
        return data

    def close(self) -> None:
        """Let go of the file, as far as this thread reads it; the next reading opens it again."""
        self._own.close()

    def _rows(self, camera: str) -> NDArray[Any]:
        banks = self._content.banks
        if camera not in banks:
            raise InputError(f"{self.path}: no camera '{camera}'" + nearest(camera, banks))
        return banks[camera]

    def _read_bank(self, row: Any, buffer: memoryview) -> None:
        offset = int(row["offset"])
        stream = self._stream_at(offset)
        if stream.readinto(buffer) < len(buffer) or crc32(buffer) != row["crc32"]:
            self.close()
            event = int(row["event"])
            raise DataError(f"{self.path}: changed since it was opened", event=event, offset=offset)

    def _stream_at(self, offset: int) -> InflatedStream:
        points = self.index.points
        place = bisect.bisect_right(points, offset, key=lambda point: point.inflated) - 1
        point = points[place] if place >= 0 else None
        stream = self._own.stream()
        if stream is None or stream.offset > offset or (point is not None and point.inflated > stream.offset):
            stream = self._own.keep(open_stream(self.path, point))
        stream.skip(offset - stream.offset)
        return stream


class _Own(threading.local):
    """The stream of a thread of a process: one that was forked shares the file's position with its parent."""

    _kept: InflatedStream | None = None
    _process = 0

    def stream(self) -> InflatedStream | None:
        return self._kept if self._process == os.getpid() else None

    def keep(self, stream: InflatedStream) -> InflatedStream:
        self.close()
        self._kept, self._process = stream, os.getpid()
        return stream

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None


def _frame_table(rows: list[tuple[int, int, int]]) -> NDArray[Any]:
    table = np.empty(len(rows), FRAME_DTYPE)
    for column, values in zip(("event", "serial", "timestamp"), zip(*rows, strict=True), strict=True):
        table[column] = values
    return table


def _reopen(path: Path, shapes: dict[str, tuple[int, int]], cache: Path | None) -> MidasSource:
    return open_midas(path, shapes=shapes, cache=cache)


def _shape(name: str, rows: NDArray[Any], odb: Mapping[str, Any], shapes: Shapes) -> tuple[int, int] | None:
    """Shape of a camera: the user's, that of the run's settings, or that of the first frame of a known sensor."""
    if name in shapes:
        height, width = shapes[name]
        return int(height), int(width)
    declared = [lookup(odb, f"/Configurations/Cameras/{name}/{side}") for side in ("Height", "Width")]
    if all(isinstance(side, int) and side > 0 for side in declared):
        return declared[0], declared[1]
    sensors = {2 * height * width: (height, width) for height, width in SENSORS}
    return next((sensors[size] for size in rows["size"].tolist() if size in sensors), None)


def _misfit(name: str, row: Any, shape: tuple[int, int] | None) -> Fault:
    found = f"{name} has {row['size']} bytes"
    if row["type"] != CAMERA_TYPE:
        found += f" of type {row['type']}"
    expected = f"{shape[0]} x {shape[1]} pixels of 16 bits expected" if shape else "no known sensor; declare its shape"
    return Fault("camera-size", f"{found}: {expected}", int(row["event"]), int(row["offset"]), int(row["frame"]))
