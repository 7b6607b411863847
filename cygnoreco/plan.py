"""How much memory a process needs to reconstruct blocks of frames, computed before anything is read.

All that is large is arrays, and their shapes and types follow from camera, block and recipe. Each term below names the
code that allocates it. Three things do not follow, and are stated: what Python and the libraries take (measured), how
many points a frame has (:class:`Occupancy`), and how much of its results a run's driver holds back before it writes.
``python -m bench.memory`` shows the sum beside the peaks of real processes.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from cygnoreco.chain import is_fused
from cygnoreco.device import Device, check_plan, needs_maps, planned_bytes, resolve_device
from cygnoreco.errors import InputError
from cygnoreco.kernels.image import FACTOR
from cygnoreco.kernels.strips import STATE, STRIP
from cygnoreco.recipe import Recipe
from cygnoreco.types import CLUSTER_DTYPE, EVENT_DTYPE, REDPIX_DTYPE, Camera

#: What a process does: everything about a run, as :func:`cygnoreco.reconstruct` without workers; the blocks that it is
#: told of, as one of its workers; or either in turn, as a worker of :func:`cygnoreco.campaign.reconstruct_many`.
Role = Literal["driver", "worker", "campaign"]

MIB = 1 << 20

#: Resident memory of a process before its first array, all kernels loaded: Python, NumPy, numba with LLVM, SciPy's
#: linear algebra, and Dask's worker or else uproot and Zarr. Measured: 230 MiB with either; the rest is for versions.
LIBRARIES = 250 * MIB
#: With both of the latter. Measured: 30 MiB.
BOTH = 32 * MIB
#: What the libraries of a remote store take besides (s3fs, botocore, aiohttp). Measured: 50 MiB.
REMOTE = 64 * MIB
#: What LLVM keeps when a process compiles every kernel itself. Measured: 340 MiB.
COMPILING = 384 * MIB

#: Bytes a point that the directional clustering, the largest, holds at once: points and core flags (17); clusters and
#: pieces, by point and in their order (25); labels and members of tracks (24); their coordinates, and which of them a
#: fit takes (17); runs and chains of the points that are being connected (53).
_CLUSTERING = 136
#: Bytes a point of lists that stay until the frame is done: weights, labels, order, and rows and columns in that order.
_LISTS = 24
#: Bytes a pixel of a point in the energy calibration: address, counts, three queues of the thinning, and a selection.
_ENERGY = 30
#: Images of the sensor that the plain stages hold at once, float64: the median's sorted pairs, and its results.
_PLAIN_IMAGES = 9
#: Events whose memory a stream that inflates keeps (:mod:`cygnoreco.io.streams`).
_EVENTS_KEPT = 3
#: Saved pixels, and events, that wait for their basket of the ROOT file or their chunk of a Zarr column at most
#: (:mod:`cygnoreco.io.root_tables`, :mod:`cygnoreco.io.zarr_tables`); named here because loading these takes long.
_WAITING_PIXELS, _WAITING_EVENTS = 1 << 20, 64
#: Frames of a run, for the clusters that wait until its end.
_RUN = 400

_U2, _F4, _I4, _F8 = (np.dtype(kind).itemsize for kind in (np.uint16, np.float32, np.int32, np.float64))


@dataclass(frozen=True)
class Occupancy:
    """What a frame holds at most, for the parts of the memory that depend on it.

    Attributes
    ----------
    points : int
        Macro-pixels that survive the filters; every one is taken as one of a cluster whose pixels are saved.
    clusters : int
    """

    points: int
    clusters: int


#: A frame that is all noise.
NOISE = Occupancy(25_000, 100)
#: The crowded frames of ``bench/scenes.py``: ten muons and forty electrons each, 51,000 to 56,000 points.
CROWDED = Occupancy(57_000, 100)


@dataclass(frozen=True)
class Memory:
    """Peak memory of a process by what it is for, in bytes; of all its threads together.

    Attributes
    ----------
    libraries : int
        Python and what it loads.
    calibration : int
        Maps of the sensor that stay: response, thresholds, and pedestal in planes or as it is.
    calibrating : int
        More of them while they are made, before the first block is reconstructed.
    frames : int
        Raw counts of the blocks at hand.
    decoder : int
        What reading holds besides.
    images : int
        The two rebinned images of every frame.
    scratch : int
        Filters, points, clustering, pixels of the clusters and their measuring, of the frame at hand.
    plain : int
        Images of the sensor's size, where the recipe has no fused form.
    tables : int
        Results of the blocks, frame by frame and joined.
    merging : int
        A part that is read again, and what waits to be written; not of a worker.
    gpu : int
        Memory of a GPU; then nothing else is planned.
    """

    libraries: int = 0
    calibration: int = 0
    calibrating: int = 0
    frames: int = 0
    decoder: int = 0
    images: int = 0
    scratch: int = 0
    plain: int = 0
    tables: int = 0
    merging: int = 0
    gpu: int = 0

    @property
    def total(self) -> int:
        """Peak, bytes: less than the sum, since not all of it is there at the same time."""
        # Frames are read before the calibration is made; nothing is reconstructed before that. Tables are joined when
        # the image section is long over.
        working = self.images + self.scratch + max(self.plain, self.tables) + self.merging
        stays = self.libraries + self.calibration + self.frames + self.decoder
        return stays + max(self.calibrating, working) + self.gpu


def projected_memory(
    camera: Camera,
    block: int,
    recipe: Recipe,
    *,
    threads: int = 1,
    device: str = "cpu",
    inflates: bool = True,
    remote: bool = False,
    role: Role = "driver",
    compiled: bool = True,
    occupancy: Occupancy = CROWDED,
) -> Memory:
    """Compute how much memory a process needs at most to reconstruct blocks of frames.

    It is an upper bound for frames of the occupancy, of which all in a block are taken to be. The default is the
    crowded class of ``bench/scenes.py``, 57,000 points and 100 clusters; a frame that is all noise (:data:`NOISE`)
    has 25,000 and 100. Frames with more points, of a wrong pedestal say, can need more.

    Parameters
    ----------
    camera : Camera
        Shape of the frames.
    block : int
        Frames a block.
    recipe : Recipe
        Its stages, and the precision of its image section.
    threads : int
        Blocks at once.
    device : str
        As for :func:`cygnoreco.device.resolve_device`. For a GPU this is the memory of the GPU, as
        :func:`cygnoreco.device.planned_bytes` has it, and that of the host is not planned. A GPU that is named need not
        be there.
    inflates : bool
        Frames are stored compressed: ``.mid.gz``, ``.mid.lz4``, ``.mid.bz2``, a Zarr copy. Not so a plain ``.mid``: its
        pages are mapped, and the system takes them back when it needs them, so they are not counted.
    remote : bool
        A copy is read by its URL: the bytes of a block come in one piece.
    role : {'driver', 'worker', 'campaign'}
        What the process does: a ``worker`` does blocks only; a ``driver`` also reads files that nobody has read before,
        and merges. A worker of a ``campaign`` does all of it, and while it reads such a file it holds memory of an
        earlier block, and the calibration that it has chosen, besides those at hand.
    compiled : bool
        Kernels are found compiled. Otherwise the process compiles them, as the first one does after an installation.
    occupancy : Occupancy
        Of every frame.

    Returns
    -------
    Memory

    Notes
    -----
    One calibration is counted, and one camera an event. Not counted are the making of a pedestal from a raw run (50
    bytes a pixel, before the first block), the pictures of ROOT and HDF5 files on their way (20 bytes a pixel and
    thread), and the tables of a whole result, for those who ask for them.
    """
    where = _device(device)
    if where.kind != "cpu":
        return Memory(gpu=threads * planned_bytes(camera, block, recipe))
    pixels = camera.height * camera.width
    frame = _U2 * pixels
    calibration, calibrating = _calibration(camera, recipe, where)
    part = block * _table_bytes(camera, recipe, occupancy)
    tables = threads * 2 * part  # frame by frame, and joined
    waiting = _waiting_bytes(camera, recipe, occupancy)
    both = role == "campaign"
    # A packed frame, and a copy of it for the codec of archives; of MIDAS files less, but for whole events.
    held = max(threads * (2 + block * remote), 0 if role == "worker" else _EVENTS_KEPT)
    return Memory(
        libraries=LIBRARIES + BOTH * both + REMOTE * remote + COMPILING * (not compiled),
        calibration=calibration + 3 * _F8 * pixels * both,
        calibrating=calibrating,
        frames=threads * block * frame * (1 + both),
        decoder=frame * held * inflates,
        images=threads * block * _image_bytes(camera, recipe),
        scratch=threads * _scratch_bytes(camera, recipe, occupancy),
        plain=0 if _has_fused_section(recipe) else threads * _PLAIN_IMAGES * _F8 * pixels,
        tables=max(tables, waiting) if both else tables,  # one task merges, another one reconstructs
        merging={"worker": 0, "campaign": part, "driver": part + waiting}[role],
    )


def check_memory(
    camera: Camera,
    block: int,
    recipe: Recipe,
    *,
    available: int,
    threads: int = 1,
    device: str = "cpu",
    inflates: bool = True,
    remote: bool = False,
    role: Role = "driver",
    compiled: bool = True,
    occupancy: Occupancy = CROWDED,
) -> Memory:
    """Refuse, before anything is submitted, blocks for which a process has not the memory.

    Parameters
    ----------
    camera, block, recipe, threads, device, inflates, remote, role, compiled, occupancy
        As for :func:`projected_memory`.
    available : int
        Bytes that the process may have in all, what it has already counted in; for a GPU, bytes that are free there.

    Returns
    -------
    Memory
        What the blocks need, if that fits.

    Raises
    ------
    InputError
        It does not fit. The message says the largest block that would, or what a block of one frame needs.
    """
    of_block = partial(
        projected_memory,
        camera,
        recipe=recipe,
        threads=threads,
        device=device,
        inflates=inflates,
        remote=remote,
        role=role,
        compiled=compiled,
        occupancy=occupancy,
    )
    where = _device(device)
    if where.kind != "cpu":
        check_plan(where, camera, block, recipe, at_once=threads, free=available)
        return of_block(block)
    needed = of_block(block)
    if needed.total <= available:
        return needed
    fits = bisect_right(range(1, block), available, key=lambda size: of_block(size).total)
    advice = (
        f"the largest block that fits has {fits}"
        if fits
        else f"not even a block of one frame fits, which may need {_mib(of_block(1).total)} MiB"
    )
    if threads > 1:
        advice += "; fewer --threads need less"
    raise InputError(
        f"blocks of {block} frames of {camera.height} x {camera.width} pixels, {threads} at a time, may need "
        f"{_mib(needed.total)} MiB, and there are {available // MIB} MiB; {advice}"
    )


def available_memory() -> int:
    """Bytes that this process may have in all: those that it has, and those that are free.

    What a container, or a job, may have is less than what the machine has; of nested limits the tightest counts.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        groups = [line.split(":", 2)[2].strip() for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        groups = []
    for group in groups:
        place = _CGROUPS / group.lstrip("/")
        for folder in (place, *place.parents):
            if not folder.is_relative_to(_CGROUPS):
                break
            free = min(free, _left(folder))
    return free + int(psutil.Process().memory_info().rss)


_CGROUPS = Path("/sys/fs/cgroup")


def _left(folder: Path) -> int:
    """Bytes that a control group leaves; what it could take back of files counts as free."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return sys.maxsize
        used = int((folder / "memory.current").read_text())
        kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(limit) - used + int(kept["inactive_file"])
    except (OSError, ValueError, KeyError):  # no such group here, or no such limit
        return sys.maxsize


def _device(name: str) -> Device:
    """Device of a name; a GPU that is named is taken at its word, since plans are made where it is not."""
    kind, _, index = name.partition(":")
    if kind == "cuda" and (index or "0").isdecimal():
        return Device("cuda", int(index or 0))
    return resolve_device(name)


def _mib(size: int) -> int:
    """Whole MiB, rounded up: what does not fit then looks so, too."""
    return -(-size // MIB)


def _has_fused_section(recipe: Recipe) -> bool:
    """Whether the image section is fused; single precision has no other (:func:`cygnoreco.chain.check_camera`)."""
    return recipe.precision != "float64" or is_fused(recipe)


def _strips(camera: Camera) -> int:
    return -(-camera.width // (FACTOR * STRIP))


def _macro_pixels(camera: Camera, recipe: Recipe) -> tuple[int, int]:
    """Macro-pixels of a frame, and pixels of a macro-pixel."""
    side2 = int(recipe["rebin"]["factor"]) ** 2
    return camera.height * camera.width // side2, side2


def _calibration(camera: Camera, recipe: Recipe, device: Device) -> tuple[int, int]:
    """Bytes of :class:`cygnoreco.chain.Calibration`, and how many more there are while it is made."""
    pixels = camera.height * camera.width
    stays = (_F8 + _U2) * pixels  # response, thresholds
    if _has_fused_section(recipe):
        line = _strips(camera) * FACTOR * STRIP  # filled up to whole strips
        stays += camera.height * line * np.dtype(recipe.precision).itemsize
    mean_and_rms = 2 * _F8 * pixels
    making = _F8 * camera.height * STRIP  # one plane of a strip on its way to its place
    if needs_maps(device, recipe):
        return stays + mean_and_rms, making
    return stays, making + mean_and_rms


def _image_bytes(camera: Camera, recipe: Recipe) -> int:
    """Bytes a frame of picture and edges (:func:`cygnoreco.kernels.image.image_section`)."""
    macro_pixels, _ = _macro_pixels(camera, recipe)
    images = 2 * _F8 * macro_pixels
    if not _has_fused_section(recipe):
        return 2 * images  # one by one, then as one array
    totals = _strips(camera) * (2 * STRIP * _F8 + STATE * np.dtype(recipe.precision).itemsize)
    return images + totals


def _scratch_bytes(camera: Camera, recipe: Recipe, occupancy: Occupancy) -> int:
    """Bytes from the noise filter to the saved pixels, of one frame."""
    macro_pixels, side2 = _macro_pixels(camera, recipe)
    points = min(occupancy.points, macro_pixels)
    noise = (_F4 + 2 * _I4 + _F8) * macro_pixels  # rounded image; rows, columns and values of what survives
    patches = (_F8 + 1 + 1) * side2 * points  # counts and two flags
    steps = [_CLUSTERING * points]  # one after the other
    if recipe["energy"]["enabled"]:
        # Of all clusters rows and columns, of the largest one its image and the lists of its pixels.
        steps.append((16 + _ENERGY * side2) * points + camera.height * camera.width)
    cluster_map = 0
    if recipe["measure"]["map_collisions"] == "overwrite":
        diagonal = camera.height + camera.width
        cluster_map = _I4 * (diagonal * diagonal // 2 + 3 * diagonal + 4)
    return noise + _LISTS * points + patches + cluster_map + max(steps)


def _saved_pixels(camera: Camera, recipe: Recipe, occupancy: Occupancy) -> int:
    """Pixels of a frame that are saved."""
    macro_pixels, side2 = _macro_pixels(camera, recipe)
    return side2 * min(occupancy.points, macro_pixels)


def _table_bytes(camera: Camera, recipe: Recipe, occupancy: Occupancy) -> int:
    """Bytes of the tables of one frame."""
    saved = _saved_pixels(camera, recipe, occupancy)
    return EVENT_DTYPE.itemsize + CLUSTER_DTYPE.itemsize * occupancy.clusters + REDPIX_DTYPE.itemsize * saved


def _waiting_bytes(camera: Camera, recipe: Recipe, occupancy: Occupancy) -> int:
    """Bytes of columns that wait to be written, and of their packing (:mod:`cygnoreco.merge`)."""
    saved = _saved_pixels(camera, recipe, occupancy)
    for_root = min(_WAITING_PIXELS + saved, _WAITING_EVENTS * saved)  # a basket ends with the event that fills it
    for_zarr = min(_WAITING_PIXELS, _RUN * saved)
    clusters = (_WAITING_EVENTS + _RUN) * occupancy.clusters
    # The longer one twice: while it is packed, column by column, each is turned, joined and compressed.
    return REDPIX_DTYPE.itemsize * (2 * for_root + for_zarr) + CLUSTER_DTYPE.itemsize * clusters
