"""A run in a container of frames (ROOT, HDF5, Zarr): one kind of source, and the lossless copy that they share.

A **copy** of a run is made by :func:`cygnoreco.io.convert.convert`. Its frames are those of the run, bit for bit. When
the run came as a MIDAS stream, the copy also keeps the stream's **residue**: its bytes with the pixels of the frames
cut out. The column ``offset`` of the copy's tables says where in the stream each frame's pixels belong, so residue and
frames give the stream back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError
from cygnoreco.types import FRAME_DTYPE, Camera, Fault, Frames, PackedFrames

LAYOUT = "cygnoreco raw run"
LAYOUT_VERSION = 1
#: Frames written at once, and kept together in one shard of a Zarr array.
FRAMES_A_BLOCK = 16
#: Bytes of the residue written at once, and compressed together.
RESIDUE_BLOCK, RESIDUE_CHUNK = 1 << 24, 1 << 20

#: ``FRAME_DTYPE`` and the byte in the MIDAS stream where the frame's pixels begin, -1 where there was no stream.
STORED_DTYPE = np.dtype([*FRAME_DTYPE.descr, ("offset", "<i8")])


@dataclass(frozen=True)
class Header:
    """What a copy says about itself.

    Attributes
    ----------
    run_number : int
        Number of the run.
    cameras : tuple of Camera
        In the order of their names.
    frames : mapping of str to int
        Number of frames by camera.
    faults : tuple of Fault
        Everything wrong that was found in the origin, and when it was copied.
    origin_container, origin_name, origin_digest : str
        Kind, file name and SHA-256 of what was copied.
    residue_size : int or None
        Bytes of the residue; None when the origin was no MIDAS stream.
    content_digest : str
        SHA-256 of the content, see :class:`ContentDigest`.
    """

    run_number: int
    cameras: tuple[Camera, ...]
    frames: Mapping[str, int]
    faults: tuple[Fault, ...]
    origin_container: str
    origin_name: str
    origin_digest: str
    residue_size: int | None
    content_digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return the header as what JSON can hold."""
        return {"layout": LAYOUT, "version": LAYOUT_VERSION, **asdict(self)}

    @staticmethod
    def from_dict(values: Any, where: Path) -> Header:
        """Read a header back.

        Raises
        ------
        DataError
            It is incomplete, or not a header of this layout.
        InputError
            It was written by a later version.
        """
        layout, version = (values.get("layout"), values.get("version")) if isinstance(values, dict) else (None, None)
        if layout != LAYOUT or not isinstance(version, int):
            raise DataError(f"{where}: layout '{layout}', version {version} instead of '{LAYOUT}'")
        if version > LAYOUT_VERSION:
            raise InputError(
                f"{where}: written in version {version} of the layout, this program reads up to {LAYOUT_VERSION}; "
                "use a newer cygnoreco"
            )
        names = ("origin_container", "origin_name", "origin_digest", "content_digest")
        try:
            return Header(
                run_number=int(values["run_number"]),
                cameras=tuple(Camera(**camera) for camera in values["cameras"]),
                frames={str(name): int(count) for name, count in values["frames"].items()},
                faults=tuple(Fault(**fault) for fault in values["faults"]),
                residue_size=None if values["residue_size"] is None else int(values["residue_size"]),
                **{name: str(values[name]) for name in names},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{where}: the header of the copy is damaged ({error!r})") from None

    @staticmethod
    def from_json(text: str | bytes, where: Path) -> Header:
        """Read a header back from JSON, with the errors of :meth:`from_dict`."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where}: the header of the copy is damaged ({error})") from None
        return Header.from_dict(values, where)


@dataclass(frozen=True)
class StoredSource:
    """A run in ROOT, HDF5 or Zarr: the frames' places are known, nothing is kept open.

    Every call opens and closes the file, which costs milliseconds: there is no handle to share after a fork, to lose in
    a pickle or to forget. See :class:`cygnoreco.io.source.Source` for the attributes and methods that all sources have.

    Attributes
    ----------
    tables : mapping of str to ndarray
        Rows of ``STORED_DTYPE`` by camera.
    read_frames : callable
        ``read_frames(path, camera, start, stop, frames)`` fills an array with frames of one camera.
    read_packed_frames : callable or None
        ``read_packed_frames(path, camera, start, stop)`` gives frames of one camera packed, or None if they are not.
    known_digest : str
        SHA-256 of the content where it is known without reading all; empty: the digest is that of the file.
    header : Header or None
        Of a copy; None for a file of another program.
    read_residue : callable or None
        ``read_residue(path, start, stop)`` gives bytes of the residue.
    read_odb : callable or None
        ``read_odb(path)`` gives the settings, redacted, as JSON.
    """

    path: Path
    container: str
    run_number: int
    cameras: tuple[Camera, ...]
    faults: tuple[Fault, ...]
    tables: Mapping[str, NDArray[Any]] = field(repr=False)
    read_frames: Callable[[Path, Camera, int, int, Frames], None] = field(repr=False)
    read_packed_frames: Callable[[Path, Camera, int, int], PackedFrames | None] | None = field(default=None, repr=False)
    known_digest: str = field(default="", repr=False)
    header: Header | None = field(default=None, repr=False)
    read_residue: Callable[[Path, int, int], bytes] | None = field(default=None, repr=False)
    read_odb: Callable[[Path], bytes] | None = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        """Container that the frames first came in."""
        return self.header.origin_container if self.header else self.container

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, computed when first asked for; of the content, for a Zarr folder."""
        if self.known_digest:
            return self.known_digest
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from None

    def table(self, camera: str) -> NDArray[Any]:
        """Rows of ``FRAME_DTYPE`` of one camera."""
        rows = self.tables[self._camera(camera).name]
        table = np.empty(len(rows), FRAME_DTYPE)
        for name in FRAME_DTYPE.fields or ():
            table[name] = rows[name]
        return table

    def read(self, camera: str, start: int, stop: int, out: Frames | None = None) -> Frames:
        """Frames `start` to `stop` of one camera, (stop - start, height, width)."""
        sensor = self._checked(camera, start, stop)
        frames = np.empty((stop - start, *sensor.shape), np.uint16) if out is None else out[: stop - start]
        self.read_frames(self.path, sensor, start, stop, frames)
        return frames

    def read_packed(self, camera: str, start: int, stop: int) -> PackedFrames | None:
        """Frames `start` to `stop` of one camera as they are packed, in memory that this thread uses again.

        Returns
        -------
        PackedFrames or None
            None if they are not stored in our packing.

        Raises
        ------
        DataError
            Bytes are missing or damaged.
        """
        sensor = self._checked(camera, start, stop)
        read = self.read_packed_frames
        return None if read is None else read(self.path, sensor, start, stop)

    def odb(self) -> Mapping[str, Any]:
        """Return the settings at the begin of the run, secrets redacted; empty where the container has none."""
        if self.read_odb is None:
            return {}
        try:
            settings = json.loads(self.read_odb(self.path) or b"{}")
        except ValueError as error:
            raise DataError(f"{self.path}: the settings stored with the run are damaged ({error})") from None
        return settings if isinstance(settings, dict) else {}

    def _checked(self, camera: str, start: int, stop: int) -> Camera:
        sensor, count = self._camera(camera), len(self.tables[camera])
        if not 0 <= start <= stop <= count:
            raise InputError(f"{self.path}: frames {start} to {stop} of {camera} asked for, it has {count}")
        return sensor

    def _camera(self, name: str) -> Camera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        names = ", ".join(camera.name for camera in self.cameras) or "none"
        raise InputError(f"{self.path}: no camera '{name}'; cameras: {names}")


class ContentDigest:
    """SHA-256 of what a copy holds, computed as it streams by.

    It does not depend on the container or on how it is compressed: one hash a part (frames, tables, residue, settings),
    and the digest is the hash of their sorted list. So a copy can be verified, and compared with another one.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}

    def update(self, part: str, data: Any) -> None:
        """Add bytes, or a C-contiguous array, to a part."""
        self._parts.setdefault(part, hashlib.sha256()).update(data)

    def hexdigest(self, run_number: int, cameras: Iterable[Camera]) -> str:
        """Return the digest, hexadecimal."""
        lines = [f"run {run_number}", *(f"{camera.name} {camera.height} {camera.width}" for camera in cameras)]
        lines += [f"{part} {self._parts[part].hexdigest()}" for part in sorted(self._parts)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_tables(header: Header, tables: Mapping[str, NDArray[Any]], where: Path) -> None:
    """Make sure that a copy's tables are as long as its header says.

    Raises
    ------
    DataError
        They are not.
    """
    for camera in header.cameras:
        found, expected = len(tables[camera.name]), header.frames.get(camera.name)
        if found != expected:
            raise DataError(f"{where}: the table of {camera.name} has {found} rows instead of {expected}")
