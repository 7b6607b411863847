"""From a run to Dask arrays: frames, corrected images, and parts; a block is one chunk and one task.

Pixels never travel: a task holds the name of a file and a range of frames, reads the block where it runs, and gives
back tables. Files and calibration are opened once a process and found again by content.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.calib.find import cache_folder, find_pedestal
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import Response, load_response
from cygnoreco.chain import STEPS, Calibration, calibrate, check_camera, correct
from cygnoreco.device import Device, needs_maps, reconstruct_block, resolve_device
from cygnoreco.errors import DataError, InputError, nearest
from cygnoreco.io import objects
from cygnoreco.io.opening import open_source
from cygnoreco.io.parts import Receipt, write_part
from cygnoreco.io.remote import url_of
from cygnoreco.io.source import Block, Source, read_frames, read_packed_frames
from cygnoreco.kernels.scratch import scratch
from cygnoreco.lineage import canonical_json
from cygnoreco.recipe import Recipe
from cygnoreco.tables import Tables
from cygnoreco.types import Camera, Fault, Frames, PackedFrames

if TYPE_CHECKING:
    import dask.array as da

Bounds = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class RunRef:
    """What a task needs to find a run's frames: small, and the same on every machine that sees the file."""

    path: str
    digest: str
    camera: Camera
    origin: str
    shapes: tuple[tuple[str, tuple[int, int]], ...] = ()
    cache: str | None = None


@dataclass(frozen=True)
class CalibrationRef:
    """What a task needs to find the calibration: files by content hash, and the recipe that prepares them."""

    pedestal: str
    pedestal_digest: str
    response: str
    response_digest: str
    recipe: Recipe
    key: str

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class Work:
    """What is done with every block of a run, small enough to travel with a task.

    Attributes
    ----------
    ref : RunRef
        The run and one of its cameras.
    calibration : CalibrationRef
        Calibration and recipe.
    run, pedestal_run : int
        Run numbers for the tables.
    folder : str
        Where parts are committed: a folder, or the URL of one.
    device : str
        ``cpu`` or ``cuda:0`` and so on, as :func:`cygnoreco.device.resolve_device` takes it.
    """

    ref: RunRef
    calibration: CalibrationRef
    run: int
    pedestal_run: int
    folder: str
    device: str = "cpu"


class Payloads:
    """Pedestal and response of a run until its calibration is made of them, and then that: their maps can go."""

    def __init__(self, pedestal: Pedestal, response: Response) -> None:
        self._lock = threading.Lock()
        self._maps: tuple[Pedestal, Response] | None = (pedestal, response)
        self._calibration: Calibration | None = None

    def calibration(self, recipe: Recipe, origin: str, maps: bool) -> Calibration:
        """Make the calibration when first asked for it; the arguments are the same every time."""
        with self._lock:
            if self._calibration is None:
                assert self._maps is not None
                self._calibration = calibrate(*self._maps, recipe, origin, maps=maps)
                self._maps = None
            return self._calibration


@dataclass(frozen=True)
class CalibrationChoice:
    """The calibration of a run.

    Attributes
    ----------
    reference : CalibrationRef
        What tasks need to find it.
    pedestal_run : int
        Number of the pedestal run.
    pedestal_faults : tuple of Fault
        What was wrong with it.
    payloads : Payloads
        For tasks of this process.
    """

    reference: CalibrationRef
    pedestal_run: int
    pedestal_faults: tuple[Fault, ...]
    payloads: Payloads


def choose_calibration(
    run: int,
    camera: Camera,
    recipe: Recipe,
    pedestal: Pedestal | str | Path,
    response: str | Path | None = None,
    *,
    folder: Path | None = None,
    here: bool = False,
) -> CalibrationChoice:
    """Find the calibration of a run and make sure that tasks will find the same.

    Parameters
    ----------
    run : int
        Run number.
    camera : Camera
        One of its cameras.
    recipe, pedestal, response
        As for :func:`cygnoreco.reconstruct`.
    folder : Path, optional
        Where a pedestal is stored by its content for the tasks to load; by default the user's cache folder.
    here : bool
        All tasks run in this process, inside of :func:`at_hand`: nothing is stored.

    Raises
    ------
    InputError
        The calibration does not exist or does not fit the camera.
    """
    check_camera(recipe, camera)
    found = find_pedestal(pedestal, run, camera, orientation=recipe["orient"]["orientation"])
    stored = (folder or cache_folder()) / f"pedestal-{found.digest[:16]}.npz"
    if not here and not _holds(stored, found.digest):
        found.save(stored)
    name = str(response) if response is not None else recipe.vignetting
    name = str(Path(name).resolve()) if Path(name).exists() else name
    factor = load_response(name, camera.shape, **recipe["response"])
    key = canonical_json([found.digest, factor.digest, recipe.canonical()])
    reference = CalibrationRef(str(stored.resolve()), found.digest, name, factor.digest, recipe, key)
    return CalibrationChoice(reference, found.run, found.faults, Payloads(found, factor))


@contextmanager
def at_hand(choice: CalibrationChoice, work: Work) -> Iterator[None]:
    """Let tasks of this process find the calibration of some work without loading it, for the length of a ``with``.

    Raises
    ------
    InputError
        The device of the work is not one of this process.
    """
    wanted = _wanted(work, resolve_device(work.device))
    with _at_hand_lock:
        _at_hand.setdefault(wanted, []).append(choice.payloads)
    try:
        yield
    finally:
        with _at_hand_lock:
            _at_hand[wanted].remove(choice.payloads)
            if not _at_hand[wanted]:
                del _at_hand[wanted]


#: What makes a calibration: the key of its reference, the origin of the frames, and whether maps are needed.
_Wanted = tuple[str, str, bool]
#: Payloads by that, one entry for every ``with`` that holds them.
_at_hand: dict[_Wanted, list[Payloads]] = {}
_at_hand_lock = threading.Lock()


def _wanted(work: Work, device: Device) -> _Wanted:
    return work.calibration.key, work.ref.origin, needs_maps(device, work.calibration.recipe)


def _calibration_of(work: Work, device: Device) -> Calibration:
    """Calibration for a block of some work on a device: that at hand, or else loaded."""
    wanted = _wanted(work, device)
    with _at_hand_lock:
        held = _at_hand.get(wanted, ())
        payloads = held[-1] if held else None
    _, origin, maps = wanted
    if payloads is not None:
        return payloads.calibration(work.calibration.recipe, origin, maps)
    return _calibrate(work.ref.camera.shape, origin, work.calibration, maps)


def _holds(path: Path, digest: str) -> bool:
    """Whether a pedestal is stored there whole."""
    try:
        return path.exists() and Pedestal.load(path).digest == digest
    except InputError:  # damaged: it is written again
        return False


def cut(n: int, block: int) -> list[tuple[int, int]]:
    """Bounds of the blocks of ``n`` frames; InputError if a block would have none."""
    if block < 1:
        raise InputError(f"block = {block}: at least 1 frame is needed")
    return [(start, min(start + block, n)) for start in range(0, n, block)]


def frames_array(ref: RunRef, bounds: Bounds) -> da.Array:
    """Frames as a lazy array, one chunk a block.

    Parameters
    ----------
    ref : RunRef
        The run and one of its cameras.
    bounds : sequence of (int, int)
        First and last-plus-one frame of each block.

    Returns
    -------
    dask.array.Array
        Shape (frames, height, width), uint16; chunks are never cut inside a frame.
    """
    import dask.array as da  # loads for a quarter of a second, in vain where no array is made
    from dask.base import tokenize

    return da.map_blocks(
        _load,
        chunks=(tuple(stop - start for start, stop in bounds), (ref.camera.height,), (ref.camera.width,)),
        dtype=np.uint16,
        meta=np.empty((0, 0, 0), np.uint16),
        name=f"frames-{tokenize(ref, tuple(bounds))}",
        ref=ref,
        bounds=tuple(bounds),
    )


def corrected_array(ref: RunRef, bounds: Bounds, calibration: CalibrationRef, what: str) -> da.Array:
    """Corrected images as a lazy array; ``what`` as for :func:`cygnoreco.chain.correct`."""
    import dask.array as da

    if what not in STEPS:
        raise InputError(f"unknown step '{what}'" + nearest(what, STEPS))
    frames = frames_array(ref, bounds)
    factor = calibration.recipe["rebin"]["factor"] if what == "rebinned" else 1
    return da.map_blocks(
        _correct,
        frames,
        chunks=(frames.chunks[0], (ref.camera.height // factor,), (ref.camera.width // factor,)),
        dtype=np.float64,
        meta=np.empty((0, 0, 0)),
        ref=ref,
        calibration=calibration,
        what=what,
    )


def parts_array(work: Work, bounds: Bounds) -> da.Array:
    """Parts of a run as a lazy array of their receipts (:class:`~cygnoreco.io.parts.Receipt`), one chunk a block.

    Reading and reconstruction of a block are one task, so that a graph has as many tasks as blocks.
    """
    import dask.array as da
    from dask.base import tokenize

    return da.map_blocks(
        _commit,
        chunks=((1,) * len(bounds),),
        dtype=object,
        meta=np.empty(0, object),
        name=f"part-{tokenize(work.calibration.key, work.ref, tuple(bounds), work.folder, work.device)}",
        work=work,
        bounds=tuple(bounds),
    )


def commit_block(work: Work, start: int, stop: int) -> Receipt:
    """Read frames ``start`` to ``stop``, packed for a GPU if they are stored so, reconstruct and commit their part."""
    device = resolve_device(work.device)
    if device.unpacks and (receipt := _commit_packed(work, device, start, stop)):
        return receipt
    ref = work.ref
    begin = time.perf_counter()
    memory = scratch("block", (stop - start, *ref.camera.shape), "<u2")
    block = Block(start, *read_frames(_open(ref), ref.camera.name, start, stop, memory))
    return make_part(block, work, time.perf_counter() - begin, device)


def _commit_packed(work: Work, device: Device, start: int, stop: int) -> Receipt | None:
    """Do the same with packed frames; None if there are none, or some must be set aside."""
    calibration = _calibration_of(work, device)
    begin = time.perf_counter()
    packed = read_packed_frames(_open(work.ref), work.ref.camera.name, start, stop)
    if packed is None:
        return None
    try:
        return _make(*packed, (start, stop), work, device, calibration, time.perf_counter() - begin)
    except DataError:  # an escape outside of its tile, which only the device saw
        return None


def make_part(block: Block, work: Work, read_s: float = 0.0, device: Device | None = None) -> Receipt:
    """Reconstruct a block and commit its part.

    Parameters
    ----------
    block : Block
        Its frames.
    work : Work
        What is done with it.
    read_s : float
        Wall seconds that reading it took.
    device : Device, optional
        That of the work, if it has been resolved already.
    """
    device = device or resolve_device(work.device)
    ready = _calibration_of(work, device)
    return _make(block.frames, block.rows, (block.start, block.stop), work, device, ready, read_s, block.faults)


def _make(
    frames: Frames | PackedFrames,
    rows: NDArray[Any],
    bounds: tuple[int, int],
    work: Work,
    device: Device,
    calibration: Calibration,
    read_s: float,
    faults: tuple[Fault, ...] = (),
) -> Receipt:
    tables, seconds = reconstruct_block(
        frames,
        rows,
        calibration,
        work.calibration.recipe,
        device=device,
        origin=work.ref.origin,
        run=work.run,
        pedestal_run=work.pedestal_run,
    )
    size = 2 * math.prod(frames.shape)
    return commit(work, *bounds, tables, seconds={"read": read_s, **seconds}, size=size, faults=faults)


def commit(
    work: Work,
    start: int,
    stop: int,
    tables: Tables,
    *,
    seconds: Mapping[str, float],
    size: int,
    faults: tuple[Fault, ...] = (),
) -> Receipt:
    """Commit a part where the work wants it; parameters as for :func:`cygnoreco.io.parts.write_part`."""
    if url_of(work.folder) is None:
        return write_part(Path(work.folder), start, stop, tables, seconds=seconds, size=size, faults=faults)
    with objects.staging() as folder:
        receipt = write_part(folder, start, stop, tables, seconds=seconds, size=size, faults=faults)
        url = f"{work.folder}/{Path(receipt.path).name}"
        objects.put(Path(receipt.path), url)
    return replace(receipt, path=url)


def _load(ref: RunRef, bounds: Bounds, block_id: tuple[int, ...] | None = None) -> Frames:
    assert block_id is not None
    return _open(ref).read(ref.camera.name, *bounds[block_id[0]])


def _correct(frames: Frames, ref: RunRef, calibration: CalibrationRef, what: str) -> NDArray[np.float64]:
    ready = _calibrate(ref.camera.shape, ref.origin, calibration, True)
    return correct(frames, ready, calibration.recipe, ref.origin, what)


def _commit(work: Work, bounds: Bounds, block_id: tuple[int, ...] | None = None) -> NDArray[Any]:
    assert block_id is not None
    receipts = np.empty(1, object)
    receipts[0] = commit_block(work, *bounds[block_id[0]])
    return receipts


def _once(size: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``lru_cache`` that makes a value once even when two threads of a worker ask for it together."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        cached = lru_cache(maxsize=size)(function)
        lock = threading.Lock()

        def call(*args: Any) -> Any:
            with lock:
                return cached(*args)

        return call

    return wrap


@_once(4)
def _open(ref: RunRef) -> Source:
    source = open_source(Path(ref.path), shapes=dict(ref.shapes), cache=Path(ref.cache) if ref.cache else None)
    if source.digest != ref.digest:
        raise DataError(f"'{ref.path}' is not the file it was: SHA-256 {source.digest[:12]}, was {ref.digest[:12]}")
    return source


def _pedestal(path: str) -> Pedestal:
    if url_of(path) is None:
        return Pedestal.load(Path(path))
    with objects.staging() as folder:
        objects.get(path, folder / Path(path).name)
        return Pedestal.load(folder / Path(path).name)


@_once(2)
def _calibrate(shape: tuple[int, int], origin: str, calibration: CalibrationRef, maps: bool) -> Calibration:
    pedestal = _pedestal(calibration.pedestal)
    response = load_response(calibration.response, shape, **calibration.recipe["response"])
    for what, found, expected in (
        ("pedestal", pedestal.digest, calibration.pedestal_digest),
        ("response", response.digest, calibration.response_digest),
    ):
        if found != expected:
            raise DataError(f"the {what} is not what it was: SHA-256 {found[:12]}, was {expected[:12]}")
    return calibrate(pedestal, response, calibration.recipe, origin, maps=maps)
