"""What every container of raw data offers: frames by number, what is wrong with them, and the DAQ's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

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
