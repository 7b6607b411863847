"""Runs in HDF5 files: one dataset a picture, and lossless copies of a run.

In a file of pictures each dataset whose name holds ``pic`` is one picture, stored as ``[x][y]`` like a TH2. A copy is
laid out like that in Zarr (:mod:`cygnoreco.io.zarr_source`), in the orientation of the sensor:

====================  ============================================================================================
``frames/CAM0``       (n, height, width) uint16, a chunk a frame
``table/CAM0``        rows of ``STORED_DTYPE``
``residue``           bytes of the MIDAS stream with the pixels cut out (only if there was such a stream)
``odb``               settings at the begin of the run as JSON, secrets redacted
``cygnoreco``         the header as JSON
====================  ============================================================================================
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import CygnoError, DataError, InputError
from cygnoreco.io.atomic import atomic_write
from cygnoreco.io.pictures import MAX_PIXELS, Picture, arrange, as_counts, expected_shape, nameless, picture_numbers
from cygnoreco.io.stored import RESIDUE_CHUNK, STORED_DTYPE, Header, StoredSource, check_tables
from cygnoreco.types import Camera, Fault, Frames

#: What h5py raises when the bytes are not what they should be.
_DAMAGED = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
_HEADER = "cygnoreco"


def open_hdf5(path: Path, *, shapes: Mapping[str, tuple[int, int]] | None = None) -> StoredSource:
    """Open an HDF5 file of pictures, or a copy of a run.

    Parameters
    ----------
    path : Path
        The file.
    shapes : mapping, optional
        (height, width) expected of ``CAM0``; by default that of most pictures. A copy knows its own.

    Returns
    -------
    StoredSource
        The run; nothing is kept open. Pictures of another shape or another run are in its faults.

    Raises
    ------
    InputError
        There is no picture in it.
    DataError
        It cannot be read at all, or a copy is not complete.
    """
    with _opened(path) as file:
        if _HEADER in file:
            return _open_copy(path, file)
        return _open_pictures(path, file, expected_shape(shapes))


def _open_pictures(path: Path, file: Any, shape: tuple[int, int] | None) -> StoredSource:
    candidates = [name for name in file if "pic" in name]
    if not candidates:
        listed = ", ".join(list(file)[:5]) or "nothing"
        raise InputError(f"{path}: no dataset 'pic_run<run>_ev<event>' in this HDF5 file; it holds {listed}")
    pictures, faults = [], []
    for name in candidates:
        numbers = picture_numbers(name)
        if numbers is None:
            faults.append(nameless(name))
            continue
        try:
            pictures.append(Picture(name, *numbers, _inspect(file[name])))
        except _DAMAGED as error:
            faults.append(Fault("unreadable", f"'{name}' cannot be read ({error}): left out", frame=numbers[1]))
    run, camera, kept, table, set_aside = arrange(pictures, shape)
    return StoredSource(
        path=path,
        container="hdf5",
        run_number=run,
        cameras=(camera,) if camera else (),
        faults=(*faults, *set_aside),
        tables={camera.name: table} if camera else {},
        read_frames=partial(_read_pictures, kept),
    )


def _open_copy(path: Path, file: Any) -> StoredSource:
    header = Header.from_json(file[_HEADER][()], path)
    tables = {camera.name: file[f"table/{camera.name}"][:].astype(STORED_DTYPE) for camera in header.cameras}
    check_tables(header, tables, path)
    for camera in header.cameras:
        frames, expected = file[f"frames/{camera.name}"], (header.frames[camera.name], *camera.shape)
        if frames.shape != expected or frames.dtype != np.uint16:
            raise DataError(f"{path}: frames of {camera.name} are {frames.dtype} {frames.shape} instead of {expected}")
    return StoredSource(
        path=path,
        container="hdf5",
        run_number=header.run_number,
        cameras=header.cameras,
        faults=header.faults,
        tables=tables,
        read_frames=_read_frames,
        header=header,
        read_residue=_read_residue if header.residue_size is not None else None,
        read_odb=_read_odb,
    )


class _Hdf5Writer:
    """What :func:`write_hdf5` gives: takes blocks of frames and of the residue in their order, then the rest."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def frames(self, camera: Camera, frames: Frames, rows: NDArray[Any]) -> None:
        """Append a block of frames; their rows of ``STORED_DTYPE`` are written at the end."""
        self._append(f"frames/{camera.name}", frames, (1, *camera.shape))

    def residue(self, data: NDArray[np.uint8]) -> None:
        """Append a block of the residue."""
        self._append("residue", data, (RESIDUE_CHUNK,))

    def finish(self, header: Header, tables: Mapping[str, NDArray[Any]], odb: bytes) -> None:
        """Write what is known at the end."""
        for camera in header.cameras:  # those without a single frame
            self._append(f"frames/{camera.name}", np.empty((0, *camera.shape), "<u2"), (1, *camera.shape))
        if header.residue_size is not None:
            self._append("residue", np.empty(0, np.uint8), (RESIDUE_CHUNK,))
        for name, table in tables.items():
            self._file.create_dataset(f"table/{name}", data=table)
        self._file.create_dataset("odb", data=np.frombuffer(odb, np.uint8))
        self._file.create_dataset(_HEADER, data=np.bytes_(json.dumps(header.to_dict()).encode()))

    def _append(self, name: str, data: NDArray[Any], chunks: tuple[int, ...]) -> None:
        if name not in self._file:
            # Neighbouring high bytes are equal: shuffled, the fastest gzip finds most of what there is to find.
            # gzip's own checksum guards each chunk.
            self._file.create_dataset(
                name, (0, *data.shape[1:]), data.dtype, maxshape=(None, *data.shape[1:]), chunks=chunks,
                shuffle=data.itemsize > 1, compression="gzip", compression_opts=1, track_times=False,
            )  # fmt: skip
        array = self._file[name]
        start = len(array)
        array.resize(start + len(data), axis=0)
        array[start:] = data


@contextlib.contextmanager
def write_hdf5(path: Path) -> Iterator[_Hdf5Writer]:
    """Write a copy of a run; the file appears when all of it is on the disk.

    Parameters
    ----------
    path : Path
        The file to make or to replace.

    Yields
    ------
    writer
        Append blocks of frames and residue, then finish.
    """
    with atomic_write(path) as partial_path, h5py.File(partial_path, "w") as file:
        yield _Hdf5Writer(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; whatever h5py finds wrong with it becomes a `DataError`."""
    try:
        # Files appear complete, so no lock is needed; shared disks that know no locks would refuse it.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except CygnoError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{path}: damaged HDF5 file ({error})") from None


def _inspect(dataset: Any) -> tuple[int, int]:
    """Shape of a picture in the sensor's orientation."""
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2 or dataset.dtype.kind not in "iuf":
        raise ValueError("no two-dimensional dataset of numbers")
    width, height = dataset.shape
    if width * height > MAX_PIXELS:
        raise ValueError(f"it claims {width} x {height} pixels")
    return height, width


def _read_pictures(names: Sequence[str], path: Path, camera: Camera, start: int, stop: int, frames: Frames) -> None:
    with _opened(path) as file:
        for frame, name in zip(frames, names[start:stop], strict=True):
            try:
                values = file[name][()].T
            except _DAMAGED as error:
                raise DataError(f"{path}: '{name}' cannot be read ({error})") from None
            as_counts(values, frame, name, path)


def _read_frames(path: Path, camera: Camera, start: int, stop: int, frames: Frames) -> None:
    with _opened(path) as file:
        if stop > start:
            file[f"frames/{camera.name}"].read_direct(frames, np.s_[start:stop])


def _read_residue(path: Path, start: int, stop: int) -> bytes:
    with _opened(path) as file:
        return bytes(file["residue"][start:stop].tobytes())


def _read_odb(path: Path) -> bytes:
    with _opened(path) as file:
        return bytes(file["odb"][:].tobytes())
