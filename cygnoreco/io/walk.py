"""Go through a run once, from end to end: its frames, and what the MIDAS stream holds between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError
from cygnoreco.io.source import Source
from cygnoreco.io.stored import FRAMES_A_BLOCK, RESIDUE_BLOCK, STORED_DTYPE, StoredSource
from cygnoreco.io.streams import open_stream
from cygnoreco.types import FRAME_DTYPE, Camera, Fault, Frames


@dataclass(frozen=True)
class Piece:
    """A frame of a camera with its row of ``STORED_DTYPE``; or bytes of the residue, without either."""

    data: Any
    camera: Camera | None = None
    row: Any = None


def walk(source: Source, lost: list[Fault] | None) -> Iterator[Piece]:
    """Everything in a run, frame by frame: in the order of the MIDAS stream if there is (or was) one.

    Parameters
    ----------
    source : Source
        The run.
    lost : list of Fault or None
        Pictures that cannot be read are noted here and left out; with None the first one raises its `DataError`. In a
        MIDAS stream and in what was made of one nothing may be left out: there it always does.
    """
    offsets = stream_offsets(source)
    if offsets is None:
        for camera in source.cameras:
            yield from _frames(source, camera, lost)
        return
    cuts = sorted((int(offset), camera) for camera in source.cameras for offset in offsets[camera.name])
    if isinstance(source, StoredSource):
        yield from _walk_copy(source, cuts)
    else:
        yield from _walk_stream(
            source, cuts, {camera.name: iter(stored_tables(source)[camera.name]) for camera in source.cameras}
        )


def _walk_stream(source: Source, cuts: list[tuple[int, Camera]], rows: Mapping[str, Iterator[Any]]) -> Iterator[Piece]:
    """One pass through a MIDAS file; to seek for the frames first would inflate it twice."""
    checksum = hashlib.sha256()
    with open_stream(source.path, on_read=checksum.update) as stream:
        for offset, camera in cuts:
            while stream.offset < offset:
                yield Piece(_taken(source, stream, min(RESIDUE_BLOCK, offset - stream.offset)))
            pixels = _taken(source, stream, camera.height * camera.width * 2)
            yield Piece(pixels.view("<u2").reshape(camera.shape), camera, next(rows[camera.name]))
        while len(rest := stream.take(RESIDUE_BLOCK)):
            yield Piece(np.frombuffer(rest, np.uint8))
        stream.drain()
    if checksum.hexdigest() != source.digest:
        raise DataError(f"{source.path}: changed since it was opened")


def _taken(source: Source, stream: Any, size: int) -> NDArray[np.uint8]:
    start = stream.offset
    data = np.frombuffer(stream.take(size), np.uint8)
    if len(data) < size:
        raise DataError(f"{source.path}: changed since it was opened, it ends inside a frame", offset=start + len(data))
    return data


def _walk_copy(source: StoredSource, cuts: list[tuple[int, Camera]]) -> Iterator[Piece]:
    frames = {camera.name: _frames(source, camera, None) for camera in source.cameras}
    position, in_stream = 0, 0
    for offset, camera in cuts:
        end = position + offset - in_stream
        yield from _residue(source, position, end)
        yield next(frames[camera.name])
        position, in_stream = end, offset + camera.height * camera.width * 2
    yield from _residue(source, position, _residue_size(source))


def _residue(source: StoredSource, start: int, stop: int) -> Iterator[Piece]:
    if not start <= stop <= _residue_size(source) or source.read_residue is None:
        raise DataError(f"{source.path}: the offsets of the frames do not fit the residue")
    for position in range(start, stop, RESIDUE_BLOCK):
        data = source.read_residue(source.path, position, min(stop, position + RESIDUE_BLOCK))
        yield Piece(np.frombuffer(data, np.uint8))


def _residue_size(source: StoredSource) -> int:
    return (source.header and source.header.residue_size) or 0


def _frames(source: Source, camera: Camera, lost: list[Fault] | None) -> Iterator[Piece]:
    """Frames of one camera in order; those that cannot be read are noted in `lost`, or raise if that is None."""
    rows = stored_tables(source)[camera.name]
    for start in range(0, len(rows), FRAMES_A_BLOCK):
        stop = min(start + FRAMES_A_BLOCK, len(rows))
        try:
            block = source.read(camera.name, start, stop)
        except DataError:
            if lost is None:
                raise
            yield from _frames_singly(source, camera, rows, range(start, stop), lost)
        else:
            yield from (Piece(frame, camera, row) for frame, row in zip(block, rows[start:stop], strict=True))


def _frames_singly(
    source: Source, camera: Camera, rows: NDArray[Any], numbers: range, lost: list[Fault]
) -> Iterator[Piece]:
    for number in numbers:
        try:
            yield Piece(source.read(camera.name, number, number + 1)[0], camera, rows[number])
        except DataError as error:
            lost.append(Fault("unreadable", str(error), frame=int(rows["event"][number])))


def in_blocks(pieces: Iterator[Piece]) -> Iterator[tuple[Camera | None, NDArray[Any], NDArray[Any]]]:
    """Gather frames, camera by camera, and bytes of the residue into blocks of the size in which they are stored."""
    pending: dict[Camera, tuple[Frames, list[Any]]] = {}
    residue = bytearray()
    no_rows = np.empty(0, STORED_DTYPE)
    for piece in pieces:
        camera = piece.camera
        if camera is None:
            residue += memoryview(piece.data)
            while len(residue) >= RESIDUE_BLOCK:
                yield None, np.frombuffer(bytes(residue[:RESIDUE_BLOCK]), np.uint8), no_rows
                del residue[:RESIDUE_BLOCK]
            continue
        if camera not in pending:
            pending[camera] = np.empty((FRAMES_A_BLOCK, *camera.shape), "<u2"), []
        frames, rows = pending[camera]
        frames[len(rows)] = piece.data
        rows.append(piece.row)
        if len(rows) == FRAMES_A_BLOCK:
            yield camera, frames, np.array(rows, STORED_DTYPE)
            rows.clear()
    for camera, (frames, rows) in sorted(pending.items()):
        if rows:
            yield camera, frames[: len(rows)], np.array(rows, STORED_DTYPE)
    if residue:
        yield None, np.frombuffer(bytes(residue), np.uint8), no_rows


def stream_offsets(source: Source) -> Mapping[str, NDArray[np.int64]] | None:
    """Where in the MIDAS stream the pixels of each frame begin; None if there is no such stream."""
    if isinstance(source, StoredSource):
        if source.read_residue is None:
            return None
        return {camera.name: source.tables[camera.name]["offset"] for camera in source.cameras}
    return {camera.name: source.offsets(camera.name) for camera in source.cameras}  # type: ignore[attr-defined]


def stored_tables(source: Source) -> dict[str, NDArray[Any]]:
    """Rows of ``STORED_DTYPE`` by camera."""
    if isinstance(source, StoredSource):
        return dict(source.tables)
    offsets = stream_offsets(source) or {}
    tables = {}
    for camera in source.cameras:
        rows = source.table(camera.name)
        table = np.empty(len(rows), STORED_DTYPE)
        for column in FRAME_DTYPE.names or ():
            table[column] = rows[column]
        table["offset"] = offsets[camera.name]
        tables[camera.name] = table
    return tables


def count_frames(source: Source) -> int:
    """Count the readable frames of all cameras."""
    return sum(len(source.table(camera.name)) for camera in source.cameras)
