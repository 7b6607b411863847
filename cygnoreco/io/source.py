"""What every container of raw data offers: frames by number, what is wrong with them, and the DAQ's settings."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError
from cygnoreco.types import Camera, Fault, Frames, PackedFrames


class Source(Protocol):
    """Random access to the frames of one raw run.

    Every array of frames is in the orientation of the sensor: ``frame[row, column]``, row 0 first in a MIDAS bank.

    Attributes
    ----------
    path : Path
        The file, or the folder of a Zarr store.
    container : str
        ``midas``, ``root``, ``hdf5`` or ``zarr``.
    origin : str
        Container that the frames first came in: that of the original for a copy of ours, else ``container``.
    run_number : int
        From the file, or else from its name; 0 if neither says.
    cameras : tuple of Camera
        In the order of their names; empty for a run without camera banks.
    faults : tuple of Fault
        Everything wrong that was found; empty for a sound run.
    digest : str
        SHA-256 of the file's content, hexadecimal: the identity of the input.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def container(self) -> str: ...  # noqa: D102
    @property
    def origin(self) -> str: ...  # noqa: D102
    @property
    def run_number(self) -> int: ...  # noqa: D102
    @property
    def cameras(self) -> tuple[Camera, ...]: ...  # noqa: D102
    @property
    def faults(self) -> tuple[Fault, ...]: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102

    def table(self, camera: str) -> NDArray[Any]:
        """Rows of ``FRAME_DTYPE``, one a readable frame of the camera, in the order of the file."""
        ...

    def read(self, camera: str, start: int, stop: int, out: Frames | None = None) -> Frames:
        """Frames ``start`` to ``stop`` (rows of :meth:`table`): uint16, shape (stop - start, height, width).

        They are put into ``out``, if it is given, from its beginning on; it has room for as many at least.

        Raises
        ------
        DataError
            The bytes read are not those that were there when the run was opened.
        """
        ...

    def odb(self) -> Mapping[str, Any]:
        """Return the settings at the begin of the run as nested dictionaries, secrets redacted; empty if none."""
        ...


@dataclass(frozen=True)
class Block:
    """Some frames of a run, one after the other.

    Attributes
    ----------
    start : int
        Row of the frame table at which they begin.
    frames : ndarray
        (n, H, W) uint16, in memory of :class:`Buffers`.
    rows : ndarray
        (n,) ``FRAME_DTYPE``.
    faults : tuple of Fault
        Frames left out.
    part : float
        Part of the file that has been read with it, 0 to 1.
    """

    start: int
    frames: Frames
    rows: NDArray[Any]
    faults: tuple[Fault, ...] = ()
    part: float = 1.0

    @property
    def stop(self) -> int:
        """Row of the frame table at which the next block begins: it counts frames that could not be read."""
        return self.start + len(self.rows) + len(self.faults)


class Buffers:
    """Memory for a few blocks, used again and again: who reads waits until one is given back.

    Parameters
    ----------
    count : int
        Blocks that may be in use at once.
    block : int
        Frames of a block.
    camera : Camera
        Whose frames.
    """

    def __init__(self, count: int, block: int, camera: Camera) -> None:
        self._free: queue.SimpleQueue[Frames | None] = queue.SimpleQueue()
        self._closed = False
        for _ in range(count):
            self._free.put(np.empty((block, camera.height, camera.width), "<u2"))

    def take(self) -> Frames:
        """Memory of a block, as soon as there is one that is not in use.

        Raises
        ------
        RuntimeError
            The buffers were closed.
        """
        memory = None if self._closed else self._free.get()
        if memory is None:
            raise RuntimeError("nobody waits for blocks any more")
        return memory

    def give(self, frames: Frames) -> None:
        """Give back what :meth:`take` gave, or the first frames of it."""
        self._free.put(frames if frames.base is None else frames.base)

    def close(self) -> None:
        """Let nobody wait for a block any more."""
        self._closed = True
        self._free.put(None)


def blocks(
    source: Source, camera: Camera, buffers: Buffers, size: int, max_frames: int | None = None
) -> Generator[Block]:
    """Read a run from its first frame on, ``size`` frames at a time, each block into memory of ``buffers``.

    A MIDAS file that nobody has read before is read once; see
    :meth:`cygnoreco.io.midas_source.MidasSource.first_pass`.

    Parameters
    ----------
    source : Source
        The run.
    camera : Camera
        One of its cameras.
    buffers : Buffers
        Memory for blocks of that size; each block must be given back.
    size : int
        Frames a block.
    max_frames : int, optional
        Read the first ones only, by their numbers.
    """
    if beginning_of(source) is not None and max_frames is None:
        yield from source.first_pass(camera, buffers)  # type: ignore[attr-defined]
        return
    n = len(source.table(camera.name))
    n = n if max_frames is None else min(n, max_frames)
    for start in range(0, n, size):
        stop = min(start + size, n)
        yield Block(start, *read_frames(source, camera.name, start, stop, buffers.take()), part=stop / n)


def read_ahead(made: Generator[Block], buffers: Buffers) -> Iterator[Block]:
    """Let blocks be read by a thread of its own, as far ahead as it finds memory for them.

    Parameters
    ----------
    made : generator
        Of :func:`blocks`.
    buffers : Buffers
        Those that it takes; closed at the end, with the thread, whoever ends it.
    """
    ready: queue.SimpleQueue[Block | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            with contextlib.closing(made):
                for block in made:
                    ready.put(block)
            ready.put(None)
        except BaseException as error:  # raised where the blocks are wanted
            ready.put(error)

    thread = threading.Thread(target=read, daemon=True, name="read-ahead")
    thread.start()
    try:
        while (block := ready.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block
    finally:
        buffers.close()
        thread.join()


@dataclass(frozen=True)
class Beginning:
    """What the first events of a MIDAS run tell, before the file is read to its end.

    Attributes
    ----------
    run_number : int
        Of the begin of run.
    cameras : tuple of Camera
        Those of the first event that has any; others may follow later.
    odb : mapping
        Settings, secrets redacted.
    timestamp : int
        UNIX seconds of that event.
    """

    run_number: int
    cameras: tuple[Camera, ...]
    odb: Mapping[str, Any]
    timestamp: int


def beginning_of(source: Source) -> Beginning | None:
    """Return what is known of a run that must be read to its end before a frame can be found by its number.

    None for a run whose frames can be found: it has been read before, or is in a container that says where they are.
    """
    return getattr(source, "beginning", None)


def read_frames(
    source: Source, camera: str, start: int, stop: int, out: Frames | None = None
) -> tuple[Frames, NDArray[Any], tuple[Fault, ...]]:
    """Read a block and leave out the frames that cannot be read.

    What is wrong with a file is mostly found when it is opened, but some damage shows only when pixels are inflated.

    Parameters
    ----------
    source : Source
        The run.
    camera : str
        Bank name.
    start, stop : int
        Frames of the block.
    out : ndarray, optional
        Memory for them, (m, H, W) uint16 with m at least ``stop - start``.

    Returns
    -------
    frames : ndarray
        (n, H, W) uint16, n at most ``stop - start``.
    rows : ndarray
        (n,) ``FRAME_DTYPE``, their rows of the frame table.
    faults : tuple of Fault
        One a frame left out.
    """
    rows = source.table(camera)[start:stop]
    try:
        return source.read(camera, start, stop, out), rows, ()
    except DataError:
        pass  # one of the frames, or several: each is tried by itself
    shape = next(each.shape for each in source.cameras if each.name == camera)
    frames = np.empty((stop - start, *shape), "<u2") if out is None else out
    kept: list[int] = []
    faults: list[Fault] = []
    for place in range(start, stop):
        try:
            source.read(camera, place, place + 1, frames[len(kept) :])
            kept.append(place - start)
        except DataError as error:
            event = int(rows["event"][place - start])
            faults.append(Fault("unreadable", str(error), event=error.event, offset=error.offset, frame=event))
    return frames[: len(kept)], rows[kept], tuple(faults)


def read_packed_frames(source: Source, camera: str, start: int, stop: int) -> tuple[PackedFrames, NDArray[Any]] | None:
    """Read a block as it is packed, for a device that unpacks it.

    Parameters
    ----------
    source, camera, start, stop
        As for :func:`read_frames`.

    Returns
    -------
    tuple of PackedFrames and ndarray, or None
        All frames of the block, in memory that this thread uses again the next time, and their (n,) ``FRAME_DTYPE``
        rows. None if the run does not have them packed, or if one is damaged: :func:`read_frames` leaves out that one.
    """
    read = getattr(source, "read_packed", None)
    try:
        frames = None if read is None else read(camera, start, stop)
    except DataError:
        return None
    return None if frames is None else (frames, source.table(camera)[start:stop])
