"""A lossless copy of a run as a Zarr folder (format 3): a frame is a chunk, 16 frames are a file.

====================  ============================================================================================
``frames/CAM0``       (n, height, width) uint16 in the sensor's orientation; a camera each
``table/CAM0/...``    ``event``, ``serial``, ``timestamp``, ``offset``: the columns of ``STORED_DTYPE``
``residue``           bytes of the MIDAS stream with the pixels cut out (only if there was such a stream)
``odb``               settings at the begin of the run as JSON, secrets redacted
attribute             ``cygnoreco``: the header; ``files``: name and size of every other file in the folder
====================  ============================================================================================

Three things guard the content. A file that is lost or cut is found when the folder is opened: Zarr itself would take a
missing chunk for zeros. A flipped bit is found when the chunk is read: each carries its CRC-32C. And the digest of the
content, computed while it was written, names the run at the cost of reading one small file; it stays the same when the
run is written again with another compression, which a hash over the files would not. What all this cannot see is a
chunk exchanged for another valid one; :func:`cygnoreco.io.convert.verify_copy` reads everything and finds that too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from cygnoreco.errors import DataError
from cygnoreco.io.atomic import atomic_folder
from cygnoreco.io.stored import (
    FRAMES_A_BLOCK,
    RESIDUE_BLOCK,
    RESIDUE_CHUNK,
    STORED_DTYPE,
    Header,
    StoredSource,
    check_tables,
)
from cygnoreco.types import Camera, Frames

_METADATA = "zarr.json"
#: What Zarr and its codecs raise when the bytes are not what they should be.
_DAMAGED = (ValueError, KeyError, TypeError, RuntimeError, EOFError, OSError, zarr.errors.BaseZarrError)


def open_zarr(path: Path) -> StoredSource:
    """Open a copy of a run.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    StoredSource
        The run; nothing is kept open.

    Raises
    ------
    DataError
        Files are missing, cut or too many, or it is another kind of Zarr folder.
    """
    try:
        attributes = dict(zarr.open_group(path, mode="r", zarr_format=3).attrs)
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read as a Zarr group ({error})") from None
    if "cygnoreco" not in attributes or "files" not in attributes:
        raise DataError(f"{path}: a Zarr group, but not a run: the attributes 'cygnoreco' and 'files' are missing")
    header = Header.from_dict(attributes["cygnoreco"], path)
    _check_files(path, attributes["files"])
    tables = {camera.name: _read_table(path, camera.name) for camera in header.cameras}
    check_tables(header, tables, path)
    return StoredSource(
        path=path,
        container="zarr",
        run_number=header.run_number,
        cameras=header.cameras,
        faults=header.faults,
        tables=tables,
        read_frames=_read_frames,
        known_digest=header.content_digest,
        header=header,
        read_residue=_read_residue if header.residue_size is not None else None,
        read_odb=_read_odb,
    )


class _ZarrWriter:
    """What :func:`write_zarr` gives: takes blocks of frames and of the residue in their order, then the rest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = zarr.open_group(folder, mode="w", zarr_format=3)

    def frames(self, camera: Camera, frames: Frames, rows: NDArray[Any]) -> None:
        """Append a block of frames; their rows of ``STORED_DTYPE`` are written at the end."""
        self._append(f"frames/{camera.name}", frames, (1, *camera.shape), FRAMES_A_BLOCK)

    def residue(self, data: NDArray[np.uint8]) -> None:
        """Append a block of the residue."""
        self._append("residue", data, (RESIDUE_CHUNK,), RESIDUE_BLOCK // RESIDUE_CHUNK)

    def finish(self, header: Header, tables: Mapping[str, NDArray[Any]], odb: bytes) -> None:
        """Write what is known at the end."""
        for camera in header.cameras:  # those without a single frame
            self._append(f"frames/{camera.name}", np.empty((0, *camera.shape), "<u2"), (1, *camera.shape))
        for name, table in tables.items():
            for column in STORED_DTYPE.names or ():
                values = np.ascontiguousarray(table[column])
                self._append(f"table/{name}/{column}", values, (max(1, len(values)),))
        if header.residue_size is not None:
            self._append("residue", np.empty(0, np.uint8), (RESIDUE_CHUNK,))
        self._append("odb", np.frombuffer(odb, np.uint8), (len(odb),))
        files = {name: size for name, size in _files(self._folder).items() if name != _METADATA}
        self._root.attrs.update({"cygnoreco": header.to_dict(), "files": files})

    def _append(self, name: str, data: NDArray[Any], chunks: tuple[int, ...], chunks_a_shard: int = 1) -> None:
        if name not in self._root:
            # Neighbouring high bytes are equal: shuffled, the fastest zstd finds most of what there is to find.
            compressors = [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]
            shards = (chunks_a_shard * chunks[0], *chunks[1:]) if chunks_a_shard > 1 else None
            self._root.create_array(
                name,
                shape=(0, *data.shape[1:]),
                dtype=data.dtype,
                chunks=chunks,
                shards=shards,
                compressors=compressors,
            )
        array: Any = self._root[name]
        start = array.shape[0]
        array.resize((start + len(data), *array.shape[1:]))
        array[start:] = data


@contextlib.contextmanager
def write_zarr(path: Path) -> Iterator[_ZarrWriter]:
    """Write a copy of a run; the folder appears when all of it is on the disk.

    Parameters
    ----------
    path : Path
        The folder to make or to replace.

    Yields
    ------
    writer
        Append blocks of ``FRAMES_A_BLOCK`` frames and ``RESIDUE_BLOCK`` bytes, the last ones shorter, then finish.
    """
    with atomic_folder(path) as partial:
        yield _ZarrWriter(partial)


def _files(folder: Path) -> dict[str, int]:
    """Size of every file in a folder, by its name from there."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            found[file.relative_to(folder).as_posix()] = file.stat().st_size
    return dict(sorted(found.items()))


def _check_files(path: Path, expected: Any) -> None:
    try:
        sizes = {str(name): int(size) for name, size in expected.items()}
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{path}: the list of files in its attributes is damaged") from None
    found = _files(path)
    wrong = sorted(name for name, size in sizes.items() if found.get(name) != size)
    if wrong:
        first = wrong[0]
        state = f"has {found[first]} bytes" if first in found else "is missing"
        raise DataError(
            f"{path}: {len(wrong)} of {len(sizes)} files damaged: {first} {state} instead of {sizes[first]} bytes"
        )


def _array(path: Path, name: str) -> Any:
    return zarr.open_array(path / name, mode="r", zarr_format=3)


def _read_table(path: Path, camera: str) -> NDArray[Any]:
    columns = STORED_DTYPE.names or ()
    try:
        arrays = {column: _array(path, f"table/{camera}/{column}")[:] for column in columns}
        table = np.empty(len(arrays["event"]), STORED_DTYPE)
        for column in columns:
            table[column] = arrays[column]
    except _DAMAGED as error:
        raise DataError(f"{path}: the table of {camera} cannot be read ({error})") from None
    return table


def _read_frames(path: Path, camera: Camera, start: int, stop: int) -> Frames:
    try:
        array = _array(path, f"frames/{camera.name}")
        frames = np.asarray(array[start:stop])
    except _DAMAGED as error:
        raise DataError(f"{path}: frames {start} to {stop} of {camera.name} cannot be read ({error})") from None
    if frames.shape != (stop - start, *camera.shape) or frames.dtype != np.uint16:
        raise DataError(f"{path}: frames of {camera.name} are {frames.dtype} of shape {frames.shape}")
    return frames


def _read_residue(path: Path, start: int, stop: int) -> bytes:
    try:
        return bytes(_array(path, "residue")[start:stop].tobytes())
    except _DAMAGED as error:
        raise DataError(f"{path}: bytes {start} to {stop} of the residue cannot be read ({error})") from None


def _read_odb(path: Path) -> bytes:
    try:
        return bytes(_array(path, "odb")[:].tobytes())
    except _DAMAGED as error:
        raise DataError(f"{path}: the settings of the run cannot be read ({error})") from None
