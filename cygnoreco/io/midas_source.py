"""A MIDAS run as a source of frames."""

from __future__ import annotations

import bisect
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError, nearest
from cygnoreco.io.midas import CAMERA_TYPE, bank_name
from cygnoreco.io.midas_index import MidasIndex, load_index
from cygnoreco.io.odb import lookup
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
    index = load_index(Path(path), folder)
    return source_of(index, shapes, folder)


def source_of(index: MidasIndex, shapes: Shapes | None = None, cache: Path | None = None) -> MidasSource:
    """Sort out the cameras of an index; arguments as for :func:`open_midas`."""
    cameras: list[Camera] = []
    banks: dict[str, NDArray[Any]] = {}
    faults = list(index.faults)
    images = index.banks[index.banks["frame"] >= 0]
    for name in sorted({bank_name(raw) for raw in images["name"].tolist()}):
        rows = images[images["name"] == name.encode("latin-1")]
        shape = _shape(name, rows, index.odb, shapes or {})
        fits = np.zeros(len(rows), bool)
        if shape is not None:
            fits = (rows["size"] == 2 * shape[0] * shape[1]) & (rows["type"] == CAMERA_TYPE)
        faults += [_misfit(name, row, shape) for row in rows[~fits]]
        if shape is not None:
            cameras.append(Camera(name, *shape))
            banks[name] = rows[fits]
    # The sort is stable: faults of the whole file stay behind those of its events.
    faults.sort(key=lambda fault: len(index.events) if fault.event is None else fault.event)
    return MidasSource(index, tuple(cameras), tuple(faults), banks, dict(shapes or {}), cache)


@dataclass(eq=False)
class MidasSource:
    """Frames of a MIDAS run; see :class:`cygnoreco.io.source.Source` for what all sources offer.

    Reading goes on where the last reading ended; elsewhere it begins at the nearest seek point. Several threads may
    read, one at a time; other processes open the run themselves (a pickle holds its path and shapes only).

    Attributes
    ----------
    index : MidasIndex
        Events and banks of the run.
    cameras : tuple of Camera
        Those of known shape.
    faults : tuple of Fault
        Of the file and of its cameras, by event.
    """

    index: MidasIndex
    cameras: tuple[Camera, ...]
    faults: tuple[Fault, ...]
    _banks: dict[str, NDArray[Any]] = field(repr=False)
    _shapes: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    _cache: Path | None = field(default=None, repr=False)
    container: str = "midas"
    origin: str = "midas"
    _stream: InflatedStream | None = field(default=None, repr=False)
    _stream_process: int = field(default=0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self._shapes, self._cache)

    @property
    def path(self) -> Path:
        """The file."""
        return self.index.path

    @property
    def run_number(self) -> int:
        """Run number of the begin of run, or else of the file's name; 0 if neither says."""
        if self.index.run_number is not None:
            return self.index.run_number
        named = re.search(r"run[_-]?(\d+)", self.path.name, re.IGNORECASE)
        return int(named[1]) if named else 0

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.index.digest

    def odb(self) -> Mapping[str, Any]:
        """Return the settings at the begin of the run, secrets redacted."""
        return self.index.odb

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

    def read(self, camera: str, start: int, stop: int) -> Frames:
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
        frames = np.empty((stop - start, *shape), "<u2")
        with self._lock:
            for frame, row in zip(frames, rows[start:stop], strict=True):
                self._read_bank(row, frame.reshape(-1).view("u1").data)
        return frames

    def read_bank(self, row: int) -> bytearray:
        """Bytes of any bank, by its row in ``index.banks``; errors as for :meth:`read`."""
        data = bytearray(int(self.index.banks[row]["size"]))
        with self._lock:
            self._read_bank(self.index.banks[row], memoryview(data))
        return data

    def close(self) -> None:
        """Let go of the file; the next reading opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _rows(self, camera: str) -> NDArray[Any]:
        if camera not in self._banks:
            raise InputError(f"{self.path}: no camera '{camera}'" + nearest(camera, self._banks))
        return self._banks[camera]

    def _read_bank(self, row: Any, buffer: memoryview) -> None:
        offset = int(row["offset"])
        stream = self._stream_at(offset)
        if stream.readinto(buffer) < len(buffer) or crc32(buffer) != row["crc32"]:
            self._close()
            event = int(row["event"])
            raise DataError(f"{self.path}: changed since it was opened", event=event, offset=offset)

    def _stream_at(self, offset: int) -> InflatedStream:
        stream = self._stream
        points = self.index.points
        place = bisect.bisect_right(points, offset, key=lambda point: point.inflated) - 1
        point = points[place] if place >= 0 else None
        # A process that was forked shares the file's position with its parent and must open it anew.
        if (
            stream is None
            or self._stream_process != os.getpid()
            or stream.offset > offset
            or (point is not None and point.inflated > stream.offset)
        ):
            self._close()
            stream = self._stream = open_stream(self.path, point)
            self._stream_process = os.getpid()
        stream.skip(offset - stream.offset)
        return stream


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
