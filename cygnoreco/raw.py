"""A raw run as its users see it: what is in it, and its frames as lazy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cygnoreco.errors import InputError, nearest
from cygnoreco.io.opening import open_source
from cygnoreco.io.remote import full_name, public_url, url_of
from cygnoreco.io.source import Source, beginning_of
from cygnoreco.types import Camera, Fault, Frames

if TYPE_CHECKING:
    import dask.array as da

    from cygnoreco.calib.pedestal import Pedestal
    from cygnoreco.graph import RunRef
    from cygnoreco.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """An opened raw run; make one with :func:`open_run`.

    Attributes
    ----------
    source : Source
        The file and its frames.
    shapes : mapping
        Shapes of cameras that the user declared, by bank name.
    cache : Path or None
        Folder of indices.
    named : Path or None
        What the user calls the run, where that is not the path of the source: its URL.
    """

    source: Source
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    cache: Path | None = None
    named: Path | None = None

    @property
    def path(self) -> Path:
        """The file, or its URL: workers elsewhere fetch a copy of their own. A presigned URL is not told to anybody."""
        return self.named or self.source.path

    @property
    def number(self) -> int:
        """Run number."""
        return self.source.run_number

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Cameras with frames in the run."""
        return self.source.cameras

    @property
    def known_cameras(self) -> tuple[Camera, ...]:
        """Cameras known so far: those of the first image, and all once the file has been read to its end."""
        beginning = beginning_of(self.source)
        return self.cameras if beginning is None else beginning.cameras

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Everything wrong that was found in the file."""
        return self.source.faults

    def camera(self, name: str | None = None) -> Camera:
        """One of the run's cameras; without a name the only one.

        Raises
        ------
        InputError
            No such camera, or several and none named.
        """
        for camera in self.known_cameras:
            if name == camera.name or (name is None and len(self.known_cameras) == 1):
                return camera
        names = [camera.name for camera in self.cameras]
        if not names:
            raise InputError(f"'{self.path}' holds no camera frames")
        if name is None and len(names) > 1:
            raise InputError(f"'{self.path}' holds several cameras: name one of {', '.join(names)}")
        if name is not None and name not in names:
            raise InputError(f"no camera '{name}' in '{self.path}'" + nearest(name, names))
        return self.cameras[names.index(name) if name else 0]

    def table(self, camera: str | None = None) -> NDArray[Any]:
        """Rows of ``FRAME_DTYPE``, one a frame."""
        return self.source.table(self.camera(camera).name)

    def frame(self, event: int, camera: str | None = None) -> Frames:
        """Read one frame by its event number (column ``event`` of the tables): uint16, shape (height, width).

        Raises
        ------
        InputError
            No such event.
        """
        events = self.table(camera)["event"]
        place = events.searchsorted(event)
        if place == len(events) or events[place] != event:
            raise InputError(
                f"no frame of event {event} in '{self.path}': it holds "
                + (f"{len(events)} frames, events {events[0]} to {events[-1]}" if len(events) else "none")
            )
        return self.source.read(self.camera(camera).name, int(place), int(place) + 1)[0]

    def odb(self) -> Mapping[str, Any]:
        """Return the DAQ's settings at the begin of the run, secrets redacted."""
        return self.source.odb()

    def ref(self, camera: str | None = None) -> RunRef:
        """Small picklable name of the run for tasks."""
        from cygnoreco.graph import RunRef

        return RunRef(
            full_name(self.path),
            self.source.digest,
            self.camera(camera),
            self.source.origin,
            tuple((name, (int(height), int(width))) for name, (height, width) in self.shapes.items()),
            str(self.cache) if self.cache else None,
        )

    def frames(self, camera: str | None = None, *, block: int = 8) -> da.Array:
        """Frames as a lazy array.

        Parameters
        ----------
        camera : str, optional
            Bank name; needed when the run has several cameras.
        block : int
            Frames a chunk.

        Returns
        -------
        dask.array.Array
            Shape (frames, height, width), uint16, orientation of the sensor; one chunk a block.
        """
        from cygnoreco.graph import cut, frames_array

        return frames_array(self.ref(camera), cut(len(self.table(camera)), block))

    def corrected(
        self,
        recipe: Recipe | str | Path = "lime",
        *,
        pedestal: Pedestal | str | Path,
        response: str | Path | None = None,
        what: str = "corrected",
        camera: str | None = None,
        block: int = 8,
    ) -> da.Array:
        """Images at a step of the chain as a lazy array, to look at.

        Parameters
        ----------
        recipe : Recipe, str or Path
            Recipe, name of a shipped one, or TOML file.
        pedestal, response : Pedestal, str, Path
            As for :func:`~cygnoreco.reconstruct`.
        what : str
            ``corrected``: pedestal subtracted, saturation and lens response corrected; ``suppressed``: also zero
            suppressed and cut to the acceptance; ``rebinned``: that, averaged over macro-pixels without the lens
            response, as the filters see it.
        camera : str, optional
            Bank name; needed when the run has several cameras.
        block : int
            Frames a chunk.

        Returns
        -------
        dask.array.Array
            Shape (frames, height, width), for ``rebinned`` divided by the rebin factor; float64, ADU; in the
            orientation of the recipe.
        """
        from cygnoreco.graph import choose_calibration, corrected_array, cut
        from cygnoreco.recipe import Recipe

        choice = choose_calibration(self.number, self.camera(camera), Recipe.load(recipe), pedestal, response)
        return corrected_array(self.ref(camera), cut(len(self.table(camera)), block), choice.reference, what)


def open_run(
    path: str | Path, *, shapes: Mapping[str, tuple[int, int]] | None = None, cache: Path | None = None
) -> Run:
    """Open a raw run: MIDAS (``.mid``, ``.mid.gz``, ``.mid.lz4``, ``.mid.bz2``), ROOT, HDF5 or Zarr.

    A MIDAS file is read once from end to end to find its events and what is wrong with them: when something is asked
    for that needs it, or on the way of :func:`~cygnoreco.reconstruct`. The index is kept in a cache, so that
    opening the run again, in this or another process, costs nothing.

    Parameters
    ----------
    path : str or Path
        The file, or the folder of a Zarr store; or the URL of either, where a file is fetched first
        (:func:`cygnoreco.io.fetch.fetched`).
    shapes : mapping, optional
        Shape (rows, columns) by bank name of cameras whose sensor is none of the field's.
    cache : Path, optional
        Folder for indices; by default the user's cache folder.

    Raises
    ------
    InputError
        No such file, or not a raw run.
    TransientError
        The store behind a URL does not answer.
    """
    url = url_of(path)
    named = Path(url) if url is not None and public_url(url) == url else None
    return Run(open_source(Path(path), shapes=shapes, cache=cache), dict(shapes or {}), cache, named)
