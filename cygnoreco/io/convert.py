"""Copy a run into another container without losing a bit, and give a MIDAS stream back from such a copy."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError, nearest
from cygnoreco.io.opening import SUFFIXES, open_source, suffix_container
from cygnoreco.io.remote import url_of
from cygnoreco.io.source import Source
from cygnoreco.io.stored import STORED_DTYPE, ContentDigest, Header, StoredSource
from cygnoreco.io.walk import count_frames, in_blocks, stored_tables, stream_offsets, walk
from cygnoreco.types import Camera, Fault, Frames

if TYPE_CHECKING:
    from cygnoreco.io.zarr_source import Preset

Target = Literal["zarr", "root", "h5", "midas"]
Progress = Callable[[int, int], None]

#: Names of the targets by container.
_TARGETS: Mapping[str, Target] = {"zarr": "zarr", "root": "root", "hdf5": "h5", "midas": "midas"}

#: Presets of a Zarr copy, the default first.
PRESETS: tuple[Preset, ...] = ("archive", "fast")


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` made.

    Attributes
    ----------
    path : Path
        The copy.
    frames : mapping of str to int
        Frames in it by camera.
    faults : tuple of Fault
        Everything wrong in the origin, frames that could not be read included; they are noted in the copy too.
    content_digest : str
        SHA-256 of what the copy holds, the same in each container.
    """

    path: Path
    frames: Mapping[str, int]
    faults: tuple[Fault, ...]
    content_digest: str


class Writer(Protocol):
    """What the containers' writers have in common."""

    def frames(self, camera: Camera, frames: Frames, rows: NDArray[Any]) -> None:
        """Append a block of frames with their rows of ``STORED_DTYPE``."""

    def residue(self, data: NDArray[np.uint8]) -> None:
        """Append a block of the residue."""

    def finish(self, header: Header, tables: Mapping[str, NDArray[Any]], odb: bytes) -> None:
        """Write what is known at the end."""


def convert(
    source_path: str | os.PathLike[str],
    target_path: str | os.PathLike[str],
    to: Target | None = None,
    *,
    preset: Preset | None = None,
    overwrite: bool = False,
    strict: bool = False,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Copy a run into another container: frames, numbers, times, settings, and all the rest of a MIDAS stream.

    At most a block of 16 frames of each camera is in memory. The copy appears when it is complete.

    Parameters
    ----------
    source_path : path-like
        The run, in any container.
    target_path : path-like
        The copy. For ``midas`` its suffix chooses the compression.
    to : {"zarr", "root", "h5", "midas"}, optional
        Container of the copy; by default the one that `target_path` is called after. ``midas`` gives the stream of
        the DAQ back, bit for bit as inflated, and is possible for copies of MIDAS runs (and for these themselves).
    preset : {"archive", "fast"}, optional
        How a Zarr copy is compressed. ``archive``, the default: as small as can be. ``fast``: a fifth larger, and read
        about four times as fast; for runs that are gone through again and again.
    overwrite : bool
        Whether a copy that is there already may be replaced.
    strict : bool
        Refuse a run with faults, rather than copy what can be read and report the rest.
    shapes, cache
        As for :func:`cygnoreco.io.opening.open_source`.
    progress : callable, optional
        Called with (frames done, frames of the run) after each block.

    Returns
    -------
    Conversion
        The copy and what was wrong.

    Raises
    ------
    InputError
        The run or the target cannot be what is asked for.
    DataError
        The run is damaged beyond use, has changed since it was opened, or has any fault if `strict`.
    """
    target = Path(target_path)
    to = _checked_target(Path(source_path), target, to, overwrite)
    preset = _checked_preset(preset, to)
    source = open_source(source_path, shapes=shapes, cache=cache)
    if strict and source.faults:
        first = source.faults[0].message
        raise DataError(f"{source.path}: refused for {len(source.faults)} faults, the first one: {first}")
    if to == "midas":
        return _restore(source, target, progress)
    lost: list[Fault] = []
    digest = ContentDigest()
    rows: dict[str, list[Any]] = {camera.name: [] for camera in source.cameras}
    done, total, residue_size = 0, count_frames(source), 0
    with _writer(to, target, source, preset) as writer:
        for camera, data, block_rows in in_blocks(walk(source, None if strict else lost)):
            if camera is None:
                digest.update("residue", data)
                writer.residue(data)
                residue_size += len(data)
                continue
            digest.update(f"frames/{camera.name}", data)
            writer.frames(camera, data, block_rows)
            rows[camera.name].append(block_rows)
            done += len(data)
            if progress is not None:
                progress(done, total)
        tables = {name: np.concatenate([np.empty(0, STORED_DTYPE), *blocks]) for name, blocks in rows.items()}
        odb = _settings(source)
        header = Header(
            run_number=source.run_number,
            cameras=source.cameras,
            frames={name: len(table) for name, table in tables.items()},
            faults=(*source.faults, *lost),
            residue_size=residue_size if stream_offsets(source) is not None else None,
            content_digest=_complete(digest, source, tables, odb),
            **_origin(source),
        )
        writer.finish(header, tables, odb)
    return Conversion(target, header.frames, header.faults, header.content_digest)


def verify_copy(path: str | os.PathLike[str], *, progress: Progress | None = None) -> str:
    """Read a copy from end to end and compare it with the digest of its content.

    Parameters
    ----------
    path : path-like
        A copy made by :func:`convert`.
    progress : callable, optional
        Called with (frames done, frames of the run) after each block.

    Returns
    -------
    str
        The digest.

    Raises
    ------
    InputError
        It is no copy, and so has no digest to compare with.
    DataError
        It is not what was written.
    """
    source = open_source(path)
    if not isinstance(source, StoredSource) or source.header is None:
        raise InputError(f"{path}: no copy made by 'convert'; only these carry a digest of their content")
    digest = ContentDigest()
    done, total = 0, count_frames(source)
    for camera, data, _ in in_blocks(walk(source, None)):
        digest.update("residue" if camera is None else f"frames/{camera.name}", data)
        done += 0 if camera is None else len(data)
        if progress is not None:
            progress(done, total)
    return _compare(source, digest)


def _restore(source: Source, target: Path, progress: Progress | None) -> Conversion:
    """Write the MIDAS stream that a copy was made of."""
    from cygnoreco.io.midas_writer import MidasWriter

    if stream_offsets(source) is None:
        raise InputError(
            f"{source.path}: only a copy of a MIDAS run can be turned into MIDAS; this holds pictures alone"
        )
    digest = ContentDigest()
    done, total = 0, count_frames(source)
    with MidasWriter(target, run=None) as writer:
        for piece in walk(source, None):
            data = memoryview(piece.data).cast("B")
            digest.update("residue" if piece.camera is None else f"frames/{piece.camera.name}", data)
            writer.raw(data)
            done += piece.camera is not None
            if progress is not None and piece.camera is not None:
                progress(done, total)
        if isinstance(source, StoredSource):
            content = _compare(source, digest)
        else:
            content = _complete(digest, source, stored_tables(source), _settings(source))
    return Conversion(
        target, {camera.name: len(source.table(camera.name)) for camera in source.cameras}, source.faults, content
    )


def _settings(source: Source) -> bytes:
    return json.dumps(source.odb()).encode()


def _origin(source: Source) -> dict[str, str]:
    """Where the frames come from in the first place: a copy of a copy says so too."""
    header = source.header if isinstance(source, StoredSource) else None
    if header is not None:
        names = ("origin_container", "origin_name", "origin_digest")
        return {name: getattr(header, name) for name in names}
    return {"origin_container": source.container, "origin_name": source.path.name, "origin_digest": source.digest}


def _complete(digest: ContentDigest, source: Source, tables: Mapping[str, NDArray[Any]], odb: bytes) -> str:
    """Add what is not streamed to a digest and return it."""
    for name, table in tables.items():
        digest.update(f"table/{name}", np.ascontiguousarray(table).view(np.uint8))
    digest.update("odb", odb)
    return digest.hexdigest(source.run_number, source.cameras)


def _compare(source: StoredSource, digest: ContentDigest) -> str:
    assert source.header is not None
    found = _complete(digest, source, source.tables, _settings(source))
    if found != source.header.content_digest:
        raise DataError(
            f"{source.path}: not what was written: digest {found} instead of {source.header.content_digest}"
        )
    return found


def _checked_preset(preset: Preset | None, to: Target) -> Preset:
    if preset is None:
        return PRESETS[0]
    if preset not in PRESETS:
        raise InputError(f"unknown preset '{preset}'{nearest(str(preset), PRESETS)}")
    if to != "zarr":
        raise InputError(f"preset '{preset}': only Zarr copies have presets, not {to}")
    return preset


def _checked_target(source: Path, target: Path, to: Target | None, overwrite: bool) -> Target:
    if url_of(target):
        raise InputError(f"{url_of(target)}: copies are written to a local disk; upload the folder when it is complete")
    named = suffix_container(target)
    if named is None:
        raise InputError(f"{target}: the name does not say what to make{nearest(target.suffix, SUFFIXES)}")
    if to is None:
        to = _TARGETS[named]
    if to not in _TARGETS.values():
        raise InputError(f"no container '{to}' to convert to{nearest(str(to), _TARGETS.values())}")
    if _TARGETS[named] != to:
        raise InputError(f"{target}: the name says {_TARGETS[named]}, not {to}")
    if not target.exists():
        return to
    if source.exists() and target.samefile(source):
        raise InputError(f"{target}: a run cannot be converted onto itself")
    if target.is_dir() != (to == "zarr"):
        raise InputError(f"{target}: in the place of the copy is a {'folder' if target.is_dir() else 'file'}")
    if not overwrite:
        raise InputError(f"{target}: exists already")
    return to


def _writer(to: Target, target: Path, source: Source, preset: Preset) -> contextlib.AbstractContextManager[Writer]:
    if to == "zarr":
        from cygnoreco.io.zarr_source import write_zarr

        return write_zarr(target, preset)
    if to == "h5":
        from cygnoreco.io.hdf5_source import write_hdf5

        return write_hdf5(target)
    from cygnoreco.io.root_source import write_root

    return write_root(target, source.run_number, source.cameras)
