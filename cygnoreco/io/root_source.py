"""Runs in ROOT files: the experiment's pictures ``pic_run<run>_ev<event>``, and lossless copies of a run.

A copy is a file that the experiment's programs read as their own. Only the frames of its first camera have ``pic`` in
their name, so a program that knows one camera sees one:

==============================  ======================================================================
``pic_run05001_ev3``            TH2I of the first camera: content at x = column, y = row
``CAM1/frame_ev3``              TH2I of each other camera
``table_CAM0``                  tree: ``event``, ``serial``, ``timestamp``, ``offset`` of the frames
``residue``                     tree, branch ``byte``: the MIDAS stream with the pixels cut out
``odb``                         settings at the begin of the run as JSON, secrets redacted
``cygnoreco``                   the header as JSON
==============================  ======================================================================
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import uproot
from numpy.typing import NDArray
from uproot.compression import cramjam  # what uproot inflates with: the only way to its error
from uproot.writing.identify import to_TAxis, to_TH2x

from cygnoreco.errors import CygnoError, DataError, InputError
from cygnoreco.io.atomic import atomic_write
from cygnoreco.io.pictures import (
    MAX_PIXELS,
    Picture,
    arrange,
    as_counts,
    expected_shape,
    nameless,
    picture_name,
    picture_numbers,
)
from cygnoreco.io.stored import RESIDUE_CHUNK, STORED_DTYPE, Header, StoredSource, check_tables
from cygnoreco.types import Camera, Fault, Frames

#: What uproot raises when bytes are not what they should be: it has no error of its own for most of it.
_DAMAGED = (
    uproot.DeserializationError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    ArithmeticError, NotImplementedError, RuntimeError, EOFError, struct.error, zlib.error, lzma.LZMAError,
    cramjam.DecompressionError,
)  # fmt: skip
#: Header of a compressed block: algorithm, method, sizes of the block compressed and not, 3 bytes each.
_BLOCK_HEADER = struct.Struct("<2sB3s3s")


def open_root(path: Path, *, shapes: Mapping[str, tuple[int, int]] | None = None) -> StoredSource:
    """Open a ROOT file of pictures, or a copy of a run.

    Parameters
    ----------
    path : Path
        The file.
    shapes : mapping, optional
        (height, width) expected of ``CAM0``; by default that of most pictures. A copy knows its own.

    Returns
    -------
    StoredSource
        The run; nothing is kept open. Pictures that are cut off, of another shape or another run are in its
        faults. Bits that are wrong inside a compressed picture show only when it is read.

    Raises
    ------
    InputError
        There is no picture in it.
    DataError
        It cannot be read at all, or a copy is not complete.
    """
    with _opened(path) as file:
        keys = file.keys(recursive=False, cycle=False)
        if "cygnoreco" in keys:
            return _open_copy(path, file)
        return _open_pictures(path, file, list(dict.fromkeys(keys)), expected_shape(shapes))


def _open_pictures(path: Path, file: Any, names: list[str], shape: tuple[int, int] | None) -> StoredSource:
    candidates = [name for name in names if "pic" in name]
    if not candidates:
        listed = ", ".join(names[:5]) or "nothing"
        raise InputError(f"{path}: no picture 'pic_run<run>_ev<event>' in this ROOT file; it holds {listed}")
    pictures, faults = [], []
    known_shapes: dict[tuple[str, int], tuple[int, int]] = {}
    with path.open("rb") as raw:
        for name in candidates:
            numbers = picture_numbers(name)
            if numbers is None:
                faults.append(nameless(name))
                continue
            try:
                pictures.append(Picture(name, *numbers, _inspect(file, raw, name, known_shapes)))
            except _DAMAGED as error:
                faults.append(Fault("unreadable", f"'{name}' cannot be read ({error}): left out", frame=numbers[1]))
    run, camera, kept, table, set_aside = arrange(pictures, shape)
    return StoredSource(
        path=path,
        container="root",
        run_number=run,
        cameras=(camera,) if camera else (),
        faults=(*faults, *set_aside),
        tables={camera.name: table} if camera else {},
        read_frames=partial(_read_frames, {camera.name: kept} if camera else {}),
    )


def _open_copy(path: Path, file: Any) -> StoredSource:
    header = Header.from_json(str(file["cygnoreco"]), path)
    tables, names = {}, {}
    present = set(file.keys(cycle=False))
    for camera in header.cameras:
        columns = file[f"table_{camera.name}"].arrays(STORED_DTYPE.names, library="np")
        table = np.empty(len(columns["event"]), STORED_DTYPE)
        for column in STORED_DTYPE.names or ():
            table[column] = columns[column]
        tables[camera.name] = table
        names[camera.name] = tuple(_frame_name(header.run_number, header.cameras, camera, e) for e in table["event"])
        missing = [name for name in names[camera.name] if name not in present]
        if missing:
            raise DataError(f"{path}: {len(missing)} of {len(table)} frames of {camera.name} are missing: {missing[0]}")
    check_tables(header, tables, path)
    return StoredSource(
        path=path,
        container="root",
        run_number=header.run_number,
        cameras=header.cameras,
        faults=header.faults,
        tables=tables,
        read_frames=partial(_read_frames, names),
        header=header,
        read_residue=_read_residue if header.residue_size is not None else None,
        read_odb=_read_odb,
    )


class _RootWriter:
    """What :func:`write_root` gives: takes blocks of frames and of the residue in their order, then the rest."""

    def __init__(self, file: Any, run_number: int, cameras: Sequence[Camera]) -> None:
        self._file = file
        self._run_number = run_number
        self._cameras = cameras
        self._residue: Any = None

    def frames(self, camera: Camera, frames: Frames, rows: NDArray[Any]) -> None:
        """Append frames with their rows of ``STORED_DTYPE``."""
        for frame, event in zip(frames, rows["event"], strict=True):
            name = _frame_name(self._run_number, self._cameras, camera, event)
            self._file[name] = _histogram(frame, f"{camera.name} run {self._run_number} event {event}")

    def residue(self, data: NDArray[np.uint8]) -> None:
        """Append bytes of the residue."""
        if self._residue is None:
            self._residue = self._file.mktree("residue", {"byte": np.uint8}, title="MIDAS stream without the pixels")
        for start in range(0, len(data), RESIDUE_CHUNK):  # each call makes one basket, inflated as a whole when read
            self._residue.extend({"byte": data[start : start + RESIDUE_CHUNK]})

    def finish(self, header: Header, tables: Mapping[str, NDArray[Any]], odb: bytes) -> None:
        """Write what is known at the end."""
        for name, table in tables.items():
            columns = {column: np.ascontiguousarray(table[column]) for column in STORED_DTYPE.names or ()}
            tree = self._file.mktree(f"table_{name}", {column: values.dtype for column, values in columns.items()})
            tree.extend(columns)
        self._file["odb"] = odb.decode()
        self._file["cygnoreco"] = json.dumps(header.to_dict())


@contextlib.contextmanager
def write_root(path: Path, run_number: int, cameras: Sequence[Camera]) -> Iterator[_RootWriter]:
    """Write a copy of a run; the file appears when all of it is on the disk.

    Parameters
    ----------
    path : Path
        The file to make or to replace.
    run_number : int
        Goes into the names of the pictures.
    cameras : sequence of Camera
        The frames of the first one are called as the experiment calls them.

    Yields
    ------
    writer
        Append blocks of frames and residue, then finish.
    """
    # zstd at its fastest: a tenth smaller than zlib at its fastest, in a third of the time; ROOT reads it since 6.20.
    with atomic_write(path) as partial_path, uproot.recreate(partial_path, compression=uproot.ZSTD(1)) as file:
        yield _RootWriter(file, run_number, cameras)


def _frame_name(run_number: int, cameras: Sequence[Camera], camera: Camera, event: int) -> str:
    if camera == cameras[0]:
        return picture_name(run_number, event)
    return f"{camera.name}/frame_ev{event}"


def _histogram(frame: Frames, title: str) -> Any:
    """TH2I of a frame: the narrowest type of ROOT that holds all 16-bit counts."""
    height, width = frame.shape
    bins = np.zeros((height + 2, width + 2), ">i4")  # ROOT's own byte order; a border of under- and overflows
    bins[1:-1, 1:-1] = frame
    return to_TH2x(
        fName=None,
        fTitle=title,
        data=bins.ravel(),
        fEntries=frame.size,
        **dict.fromkeys(("fTsumw", "fTsumw2", "fTsumwx", "fTsumwx2", "fTsumwy", "fTsumwy2", "fTsumwxy"), 0.0),
        fSumw2=None,
        fXaxis=to_TAxis("xaxis", "", width, 0, width),
        fYaxis=to_TAxis("yaxis", "", height, 0, height),
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; whatever uproot finds wrong with it becomes a `DataError`."""
    try:
        # Plain reads without threads or memory maps: a file cut meanwhile is an error, not a dead process.
        with uproot.open(
            path, handler=uproot.MultithreadedFileSource, use_threads=False, object_cache=None, array_cache=None
        ) as file:
            yield file
    except CygnoError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{path}: damaged ROOT file ({_brief(error)})") from None


def _inspect(
    file: Any, raw: BinaryIO, name: str, known_shapes: dict[tuple[str, int], tuple[int, int]]
) -> tuple[int, int]:
    """Shape of a picture in the sensor's orientation, from its key where possible.

    To inflate every picture would cost as much as to reconstruct them. Histograms of one class and equal length have
    one shape (or its transpose, which reading finds), so one of each length is inflated and the others are only checked
    for being whole.
    """
    key = file.key(name)
    if not key.fClassName.startswith("TH2"):
        raise ValueError(f"a {key.fClassName} instead of a TH2")
    if key.fObjlen > MAX_PIXELS * 8:
        raise ValueError(f"it claims {key.fObjlen} bytes")
    _check_whole(raw, key)
    kind = (key.fClassName, key.fObjlen - len(key.fName) - len(key.fTitle))
    if kind not in known_shapes:
        width, height = file[name].values().shape
        known_shapes[kind] = (height, width)
    return known_shapes[kind]


def _check_whole(raw: BinaryIO, key: Any) -> None:
    """Make sure that an object's compressed blocks follow each other up to its declared end.

    Raises
    ------
    ValueError
        The file is cut inside, or overwritten.
    """
    position, end = key.fSeekKey + key.fKeylen, key.fSeekKey + key.fNbytes
    size = os.fstat(raw.fileno()).st_size
    if end > size:
        raise ValueError(f"it ends at byte {end}, the file at {size}")
    if end - position == key.fObjlen:  # not compressed
        return
    inflated = 0
    while position < end:
        raw.seek(position)
        algorithm, _, packed, unpacked = _BLOCK_HEADER.unpack(raw.read(_BLOCK_HEADER.size))
        if algorithm not in (b"ZL", b"XZ", b"L4", b"ZS"):
            raise ValueError(f"no compressed block at byte {position}")
        position += _BLOCK_HEADER.size + int.from_bytes(packed, "little")
        inflated += int.from_bytes(unpacked, "little")
    if position != end or inflated != key.fObjlen:
        raise ValueError(f"its blocks hold {inflated} bytes instead of {key.fObjlen}")


def _read_frames(
    names: Mapping[str, Sequence[str]], path: Path, camera: Camera, start: int, stop: int, frames: Frames
) -> None:
    with _opened(path) as file:
        for frame, name in zip(frames, names[camera.name][start:stop], strict=True):
            try:
                values = file[name].values().T
            except _DAMAGED as error:
                raise DataError(f"{path}: '{name}' cannot be read ({_brief(error)})") from None
            as_counts(values, frame, name, path)


def _read_residue(path: Path, start: int, stop: int) -> bytes:
    with _opened(path) as file:
        if stop <= start:
            return b""
        return bytes(file["residue"]["byte"].array(entry_start=start, entry_stop=stop, library="np").tobytes())


def _read_odb(path: Path) -> bytes:
    with _opened(path) as file:
        return str(file["odb"]).encode()


def _brief(error: BaseException) -> str:
    """First line of an error's text: uproot's go on for a page."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
