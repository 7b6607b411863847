"""Which pedestal belongs to a run: from a raw run, a saved map, or a folder of both."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import platformdirs

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.errors import CygnoError, InputError
from cygnoreco.image.orient import Orientation
from cygnoreco.io.odb import lookup
from cygnoreco.io.opening import open_source, settings_of
from cygnoreco.io.remote import file_url, public_url, url_of
from cygnoreco.io.source import Buffers, Source, beginning_of, blocks, read_ahead
from cygnoreco.types import Camera, Fault, Frames

_LOG = logging.getLogger(__name__)
_MAP = re.compile(r"(?:pedmap_run|pedestal_run)(\d+)(?:_(CAM\w*?))?(?:_rebin1)?\.(?:root|npz)")
_RAW = re.compile(r"(?:run|histograms_Run)(\d+)()\.(?:mid(?:\.gz|\.lz4|\.bz2)?|root|h5|zarr)")

#: Frames read at a time.
BLOCK = 4


def find_pedestal(
    which: Pedestal | str | Path,
    run: int,
    camera: Camera,
    *,
    orientation: Orientation = "sensor",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pedestal:
    """Find or make the pedestal of a run.

    Parameters
    ----------
    which : Pedestal, str or Path
        A pedestal; a raw pedestal run; a saved pedestal, ours or ``pedmap_run*_rebin1.root``, these also by URL; or a
        local folder of those, of which the latest valid one not after the run is taken.
    run : int
        Run number.
    camera : Camera
        Its camera; the pedestal must have its shape.
    orientation : {'sensor', 'd03a058'}
        Orientation of the maps of the experiment's program (:meth:`Pedestal.load`); files of ours say it themselves.
    cache : Path, optional
        Folder where pedestals made from raw runs are kept; by default the user's cache folder.
    progress : callable, optional
        As for :func:`pedestal_of`, should one be made.

    Raises
    ------
    InputError
        Nothing suitable there, or a pedestal of another camera or shape.
    """
    if isinstance(which, Pedestal):
        pedestal = which
    else:
        path = Path(which)
        if path.is_dir() and path.suffix != ".zarr":
            path = latest_before(path, run, camera.name)
        pedestal = load_or_make(path, camera, orientation=orientation, cache=cache, progress=progress)
    if pedestal.camera not in ("", camera.name):
        raise InputError(f"the pedestal of run {pedestal.run} is of {pedestal.camera}, that of {camera.name} is needed")
    if pedestal.mean.shape != camera.shape:
        raise InputError(
            f"the pedestal of run {pedestal.run} has {pedestal.mean.shape[0]} x {pedestal.mean.shape[1]} pixels, "
            f"{camera.name} of run {run} has {camera.height} x {camera.width}"
        )
    return pedestal


def load_or_make(
    path: Path,
    camera: Camera,
    *,
    orientation: Orientation = "sensor",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pedestal:
    """Load a saved pedestal, or make one from a raw run and keep it for the next time.

    Parameters
    ----------
    path : Path
        A raw run or a saved map, both also by URL.
    camera : Camera
        The camera wanted of a raw run.
    orientation, cache, progress
        As for :func:`find_pedestal`.

    Raises
    ------
    InputError
        No such file, or neither a raw run nor a pedestal.
    """
    remote = url_of(path) is not None
    if not remote and not path.exists():
        raise InputError(f"no pedestal at '{path}'")
    url = file_url(path)
    if is_saved_map(Path(public_url(url)) if url else path):
        from cygnoreco.io.fetch import borrowed

        with borrowed(path) as local:
            return Pedestal.load(local, camera=camera.name, orientation=orientation)
    source = open_source(path)
    stored = (cache or cache_folder()) / f"pedestal-{source.digest[:24]}-{camera.name}.npz"
    try:
        if stored.exists():
            return Pedestal.load(stored)
    except InputError as error:
        _LOG.warning("a kept pedestal is damaged and made again: %s", error)
    pedestal = pedestal_of(source, camera.name, progress=progress)
    try:
        pedestal.save(stored)
    except OSError as error:
        _LOG.debug("the pedestal of %s is not kept: %s", source.path, error)
    return pedestal


def pedestal_of(
    source: Source,
    camera: str,
    *,
    max_frames: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pedestal:
    """Make a pedestal from the frames of a raw run.

    Parameters
    ----------
    source : Source
        An opened run.
    camera : str
        Bank name.
    max_frames : int, optional
        Use the first ones only; the experiment's program takes 201.
    progress : callable, optional
        Called with (frames done, frames in all) after each block; while a file is read for the first time, the
        latter is an estimate.

    Returns
    -------
    Pedestal
        With everything wrong of the run in its ``faults``; frames that cannot be read are left out.

    Raises
    ------
    InputError
        No such camera in the run, or fewer than two frames.
    """
    beginning = (
        beginning_of(source) if max_frames is None else None
    )  # the first frames alone are found by their numbers
    known = {each.name: each for each in (source.cameras if beginning is None else beginning.cameras)}
    if camera not in known:
        known = {each.name: each for each in source.cameras}
    if camera not in known:
        there = ", ".join(known) or "none"
        raise InputError(f"no camera '{camera}' in the pedestal run '{source.path}'; there: {there}")
    faults: list[Fault] = []
    buffers = Buffers(2, BLOCK, known[camera])

    def frames() -> Generator[Frames]:
        for block in read_ahead(blocks(source, known[camera], buffers, BLOCK, max_frames), buffers):
            faults.extend(block.faults)
            yield block.frames
            buffers.give(block.frames)
            if progress:
                progress(block.stop, round(block.stop / block.part))

    with contextlib.closing(frames()) as made:
        pedestal = Pedestal.from_frames(made, run=source.run_number, camera=camera)
    return replace(pedestal, faults=(*source.faults, *faults))


def cache_folder() -> Path:
    """Where pedestals of raw runs are kept: in the user's cache, each by the content that it was made of."""
    return Path(platformdirs.user_cache_dir("cygnoreco")) / "pedestals"


def is_saved_map(path: Path) -> bool:
    """Whether a file is a saved pedestal by its name: ``.npz``, or a ROOT file ``pedmap_...``."""
    return path.suffix == ".npz" or (path.suffix == ".root" and path.name.startswith("pedmap"))


def latest_before(folder: Path, run: int, camera: str) -> Path:
    """Latest pedestal in a folder that is valid for a run.

    Saved maps, and raw runs whose settings say that they are pedestal runs (``/Configurations/Pedestal``), with a run
    number not above the run's. Maps that are named after another camera do not count. Of a map and a raw run of one
    number the map is taken: it costs nothing.

    Raises
    ------
    InputError
        None; says what is there.
    """
    found: list[tuple[int, int, Path]] = []
    for path in folder.iterdir():
        for pattern, rank in ((_MAP, 1), (_RAW, 0)):
            match = pattern.fullmatch(path.name)
            if match and match[2] in (None, "", camera):
                found.append((int(match[1]), rank, path))
    for number, rank, path in sorted(found, reverse=True):
        if number <= run and (rank == 1 or _says_pedestal(path)):
            return path
    there = ", ".join(str(number) for number in sorted({number for number, _, _ in found})) or "none"
    raise InputError(f"no pedestal in '{folder}' at or before run {run}; runs and maps there: {there}")


def _says_pedestal(path: Path) -> bool:
    try:
        flag = lookup(settings_of(path), "/Configurations/Pedestal", False)
    except CygnoError as error:
        _LOG.warning("'%s' is passed over in the search for a pedestal: %s", path, error)
        return False
    return flag in (True, 1, "y", "true")
