"""What every container of raw data offers: frames by number, what is wrong with them, and the DAQ's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError
from cygnoreco.types import Camera, Fault, Frames


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

    def read(self, camera: str, start: int, stop: int) -> Frames:
        """Frames ``start`` to ``stop`` (rows of :meth:`table`): uint16, shape (stop - start, height, width).

        Raises
        ------
        DataError
            The bytes read are not those that were there when the run was opened.
        """
        ...

    def odb(self) -> Mapping[str, Any]:
        """Return the settings at the begin of the run as nested dictionaries, secrets redacted; empty if none."""
        ...


def read_frames(source: Source, camera: str, start: int, stop: int) -> tuple[Frames, NDArray[Any], tuple[Fault, ...]]:
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
        return source.read(camera, start, stop), rows, ()
    except DataError:
        pass  # one of the frames, or several: each is tried by itself
    frames: list[Frames] = []
    kept: list[int] = []
    faults: list[Fault] = []
    for place in range(start, stop):
        try:
            frames.append(source.read(camera, place, place + 1))
            kept.append(place - start)
        except DataError as error:
            event = int(rows["event"][place - start])
            faults.append(Fault("unreadable", str(error), event=error.event, offset=error.offset, frame=event))
    shape = next(each.shape for each in source.cameras if each.name == camera)
    return np.concatenate([np.empty((0, *shape), np.uint16), *frames]), rows[kept], tuple(faults)
