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

Any reader of Zarr reads the folder. We read frames ourselves (:mod:`cygnoreco.io.shards`), and the rest through Zarr.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from cygnoreco.errors import DataError, InputError, TransientError
from cygnoreco.io.atomic import atomic_folder
from cygnoreco.io.remote import file_sizes, filesystem_of, read_range, store_errors, url_of
from cygnoreco.io.shards import Shards, read_packed, read_shards, shards_of
from cygnoreco.io.stored import (
    FRAMES_A_BLOCK,
    RESIDUE_BLOCK,
    RESIDUE_CHUNK,
    STORED_DTYPE,
    Header,
    StoredSource,
    check_tables,
)
from cygnoreco.types import Camera, Frames, PackedFrames

#: How frames are compressed: as small as can be, or as quick to read as a copy in memory.
Preset = Literal["archive", "fast"]

_METADATA = "zarr.json"
_OTHER_CODECS = {"compressors": [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]}
#: What Zarr and its codecs raise when the bytes are not what they should be.
_DAMAGED = (ValueError, KeyError, TypeError, RuntimeError, EOFError, OSError, zarr.errors.BaseZarrError)


def open_zarr(path: Path) -> StoredSource:
    """Open a copy of a run.

    Parameters
    ----------
    path : Path
        The folder, or what stands for its URL (:mod:`cygnoreco.io.remote`).

    Returns
    -------
    StoredSource
        The run; nothing is kept open.

    Raises
    ------
    DataError
        Files are missing or cut, or it is another kind of Zarr folder. Files that the run has not written are passed
        over: file systems and transfers leave some, and none of them can stand for one of the run's.
    InputError, TransientError
        The store at a URL does not let us in, or does not answer.
    """
    with _damaged(f"{path}: cannot be read as a Zarr group", path):
        attributes: dict[str, Any] = dict(zarr.open_group(_store(path), mode="r", zarr_format=3).attrs)
    if "cygnoreco" not in attributes or "files" not in attributes:
        raise DataError(f"{path}: a Zarr group, but not a run: the attributes 'cygnoreco' and 'files' are missing")
    header = Header.from_dict(attributes["cygnoreco"], path)
    _check_files(path, attributes["files"])
    tables = {camera.name: _read_table(path, camera.name) for camera in header.cameras}
    check_tables(header, tables, path)
    shards = {camera.name: _layout(path, attributes["files"], header, camera) for camera in header.cameras}
    return StoredSource(
        path=path,
        container="zarr",
        run_number=header.run_number,
        cameras=header.cameras,
        faults=header.faults,
        tables=tables,
        read_frames=partial(_read_frames, shards),
        read_packed_frames=partial(_read_packed_frames, shards),
        known_digest=header.content_digest,
        header=header,
        read_residue=_read_residue if header.residue_size is not None else None,
        read_odb=_read_odb,
    )


class _ZarrWriter:
    """What :func:`write_zarr` gives: takes blocks of frames and of the residue in their order, then the rest."""

    def __init__(self, folder: Path, preset: Preset) -> None:
        self._folder = folder
        self._preset = preset
        self._root = zarr.open_group(folder, mode="w", zarr_format=3)
        self._arrays: dict[str, Any] = {}

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
        files = {name: size for name, size in file_sizes(self._folder).items() if name != _METADATA}
        self._root.attrs.update({"cygnoreco": header.to_dict(), "files": files})

    def _append(self, name: str, data: NDArray[Any], chunks: tuple[int, ...], chunks_a_shard: int = 1) -> None:
        if name not in self._arrays:
            self._arrays[name] = self._create(name, data, chunks, chunks_a_shard)
        array = self._arrays[name]
        start = array.shape[0]
        array.resize((start + len(data), *array.shape[1:]))
        array[start:] = data

    def _create(self, name: str, data: NDArray[Any], chunks: tuple[int, ...], chunks_a_shard: int) -> Any:
        frames = name.startswith("frames/")
        with warnings.catch_warnings():
            # That pcodec is no part of the specification: true, and said in our documents.
            warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr", zarr.errors.ZarrUserWarning)
            return self._root.create_array(
                name,
                shape=(0, *data.shape[1:]),
                dtype=data.dtype,
                chunks=chunks,
                shards=(chunks_a_shard * chunks[0], *chunks[1:]) if chunks_a_shard > 1 else None,
                # A frame of zeros is a frame: one that is not there is lost.
                config={"write_empty_chunks": frames},
                **(_frame_codecs(self._preset) if frames else _OTHER_CODECS),
            )


def _frame_codecs(preset: Preset) -> dict[str, Any]:
    """Arguments of ``create_array``: the codecs of frames, chosen by measurement (``bench/storage.py``)."""
    if preset == "fast":
        from cygnoreco.io.packing_codecs import ZarrPacking

        return {"serializer": ZarrPacking(), "compressors": [Crc32cCodec()]}
    from zarr.codecs.numcodecs import PCodec

    # Level 8 reaches the entropy of the values within 2 %. Searching for multiples and the like finds nothing in noise.
    return {"serializer": PCodec(level=8, mode_spec="classic"), "compressors": [Crc32cCodec()]}


@contextlib.contextmanager
def write_zarr(path: Path, preset: Preset = "archive") -> Iterator[_ZarrWriter]:
    """Write a copy of a run; the folder appears when all of it is on the disk.

    Parameters
    ----------
    path : Path
        The folder to make or to replace.
    preset : {"archive", "fast"}
        How the frames are compressed: pcodec or :mod:`cygnoreco.io.packing`.

    Yields
    ------
    writer
        Append blocks of ``FRAMES_A_BLOCK`` frames and ``RESIDUE_BLOCK`` bytes, the last ones shorter, then finish.
    """
    with atomic_folder(path) as unfinished:
        yield _ZarrWriter(unfinished, preset)


def _check_files(path: Path, expected: Any) -> None:
    try:
        sizes = {str(name): int(size) for name, size in expected.items()}
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{path}: the list of files in its attributes is damaged") from None
    found = file_sizes(path)
    wrong = sorted(name for name, size in sizes.items() if found.get(name) != size)
    if wrong:
        first = wrong[0]
        state = f"has {found[first]} bytes" if first in found else "is missing"
        raise DataError(
            f"{path}: {len(wrong)} of {len(sizes)} files damaged: {first} {state} instead of {sizes[first]} bytes"
        )


@contextlib.contextmanager
def _damaged(what: str, path: Path) -> Iterator[None]:
    """Turn what Zarr raises into our own errors; what a remote store raises first, as Zarr passes that on."""
    try:
        with store_errors(url) if (url := url_of(path)) else contextlib.nullcontext():
            yield
    except (InputError, TransientError):
        raise
    except (DataError, *_DAMAGED) as error:
        raise DataError(f"{what} ({error})") from None


def _store(path: Path, name: str = "") -> Any:
    """Where Zarr finds a folder, or an array in it."""
    url = url_of(path)
    if url is None:
        return path / name
    filesystem_of(url)  # refuses unknown kinds of URL in our words
    return f"{url}/{name}".rstrip("/")


def _array(path: Path, name: str) -> Any:
    with _damaged(f"{path}: {name} cannot be read", path):
        return zarr.open_array(_store(path, name), mode="r", zarr_format=3)


def _layout(path: Path, files: Mapping[str, int], header: Header, camera: Camera) -> Shards | None:
    """How the frames of a camera are stored; None if Zarr must read them."""
    name = f"frames/{camera.name}/{_METADATA}"
    with _damaged(f"{path}: {name} cannot be read", path):
        metadata = json.loads(read_range(path, name, 0, int(files[name])).tobytes())
        found, expected = tuple(metadata["shape"]), (header.frames[camera.name], *camera.shape)
        if found != expected or metadata["data_type"] != "uint16":
            raise DataError(f"{path}: {camera.name} is {metadata['data_type']} {found} instead of uint16 {expected}")
    return shards_of(metadata)


def _read_table(path: Path, camera: str) -> NDArray[Any]:
    columns = STORED_DTYPE.names or ()
    with _damaged(f"{path}: the table of {camera} cannot be read", path):
        arrays = {column: _array(path, f"table/{camera}/{column}")[:] for column in columns}
        table = np.empty(len(arrays["event"]), STORED_DTYPE)
        for column in columns:
            table[column] = arrays[column]
    return table


def _read_frames(
    shards: Mapping[str, Shards | None], path: Path, camera: Camera, start: int, stop: int, frames: Frames
) -> None:
    name, layout = f"frames/{camera.name}", shards[camera.name]
    with _damaged(f"{path}: frames {start} to {stop} of {camera.name} cannot be read", path):
        if layout is not None:
            read_shards(path, name, layout, start, frames)
        else:
            frames[:] = _array(path, name)[start:stop]


def _read_packed_frames(
    shards: Mapping[str, Shards | None], path: Path, camera: Camera, start: int, stop: int
) -> PackedFrames | None:
    layout = shards[camera.name]
    with _damaged(f"{path}: frames {start} to {stop} of {camera.name} cannot be read", path):
        return None if layout is None else read_packed(path, f"frames/{camera.name}", layout, start, stop)


def _read_residue(path: Path, start: int, stop: int) -> bytes:
    with _damaged(f"{path}: bytes {start} to {stop} of the residue cannot be read", path):
        return bytes(_array(path, "residue")[start:stop].tobytes())


def _read_odb(path: Path) -> bytes:
    with _damaged(f"{path}: the settings of the run cannot be read", path):
        return bytes(_array(path, "odb")[:].tobytes())
