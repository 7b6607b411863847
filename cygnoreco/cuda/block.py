"""The path of a block of frames on a device: what :func:`cygnoreco.chain.reconstruct_block` does, by CUDA kernels.

Frames go to the device once, as counts or packed, and tables come back; in between the host learns only how many
points, clusters and members there are. While a block is worked on, the frames of the next one are on their way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cygnoreco.chain import Calibration
from cygnoreco.cuda.clusters import cluster_block, group_block
from cygnoreco.cuda.energy import SCRATCH_BYTES, energy_block
from cygnoreco.cuda.image import (
    Maps,
    PixelRules,
    noise_block,
    patches_block,
    pixel_rules,
    points_block,
    redpix_block,
    section_block,
    upload_maps,
)
from cygnoreco.cuda.program import Lane, Program
from cygnoreco.cuda.unpack import unpack_tiles
from cygnoreco.cuda.variables import COLUMNS, measure_block
from cygnoreco.errors import DataError
from cygnoreco.image.correct import mean_and_rms, saturation_polynomial, spark_limit
from cygnoreco.image.orient import MIRRORED_ORIGIN
from cygnoreco.io.packing import most_bytes
from cygnoreco.measure.redpix import is_saved
from cygnoreco.recipe import Recipe
from cygnoreco.tables import CUT_SHORT, SATURATED, SPARK, Tables, empty_tables, event_table
from cygnoreco.types import CLUSTER_DTYPE, REDPIX_DTYPE, Frames, PackedFrames

#: A block of frames and their rows of the frame table.
Block = tuple[Frames | PackedFrames, NDArray[Any]]
#: ``with clock("noisered"): ...`` around the work of a stage.
Clock = Callable[[str], AbstractContextManager[None]]

#: Bytes of memory a point: what lists it, and what the clustering needs while it runs; and bytes a pixel of a point
#: that variables and energy need while they run. Measured with all macro-pixels lit; half again for sorting in CuPy.
_LISTED, _CLUSTERING, _MEASURE, _ENERGY = 64, 128, 26, 26


def reconstruct_block(
    frames: Frames | PackedFrames,
    rows: NDArray[Any],
    calibration: Calibration,
    recipe: Recipe,
    *,
    program: Program,
    origin: str,
    run: int,
    pedestal_run: int,
) -> tuple[Tables, dict[str, float]]:
    """Reconstruct a block of frames on the device of a program; for the rest see the chain's function.

    Returns
    -------
    tables : Tables
        Those of the CPU: whole numbers and images exactly, other columns as :mod:`~cygnoreco.cuda.variables`
        and :mod:`~cygnoreco.cuda.energy` state.
    seconds : dict
        Wall seconds of the host by stage. The device works behind the host, so a stage in which the host waits for a
        number has the time of those before it, too.

    Raises
    ------
    DataError
        As for :func:`reconstruct_blocks`.
    """
    seconds = Counter[str]()
    (tables,) = reconstruct_blocks(
        [(frames, rows)],
        calibration,
        recipe,
        program=program,
        origin=origin,
        run=run,
        pedestal_run=pedestal_run,
        clock=_wall_clock(seconds),
    )
    return tables, dict(seconds)


def reconstruct_blocks(
    blocks: Iterable[Block],
    calibration: Calibration,
    recipe: Recipe,
    *,
    program: Program,
    origin: str,
    run: int,
    pedestal_run: int,
    clock: Clock | None = None,
) -> Iterator[Tables]:
    """Reconstruct blocks one after the other; the frames of the next one travel while a block is worked on.

    The memory in which frames travel belongs to the thread, so a thread can go through one such iterator at a time.

    Parameters
    ----------
    blocks : iterable
        Frames (n, H, W) uint16 in the orientation of the sensor, or packed ones, and their (n,) ``FRAME_DTYPE`` rows.
        Their memory may be used again for the next block.
    calibration, recipe, origin, run, pedestal_run
        As for :func:`cygnoreco.chain.reconstruct_block`.
    program : Program
        Kernels and their device.
    clock : callable, optional
        Context around the launches of every stage, by its name.

    Yields
    ------
    Tables
        One a block.

    Raises
    ------
    DataError
        An escape of packed frames lies outside of its tile, which only the device can see: they are damaged.
    """
    clock = clock or _wall_clock(Counter())
    # Two lanes: the frames in one are worked on while those in the other arrive.
    this, other = _lanes(program)
    before: tuple[Lane, tuple[int, ...], NDArray[Any]] | None = None

    def work(lane: Lane, shape: tuple[int, ...], rows: NDArray[Any]) -> Tables:
        if not len(rows):  # every frame of the block was damaged
            return empty_tables()
        with program.active():
            frames, outside = _unpacked(program, lane.arrived(), shape, clock)
            rules = _rules(frames.shape[1:], recipe, origin)
            found = _reconstruct(program, frames, _maps(program, calibration), rules, recipe, clock)
            if outside is not None and (escapes := int(program.to_host(outside)[0])):
                raise DataError(f"packed frames: {escapes} escapes outside of their tiles")
            return _tables(found, rows, frames.shape[1:], recipe, clock, run, pedestal_run)

    for frames, rows in blocks:
        if len(rows):
            with program.active(), clock("copy in"):
                this.send(*((frames.words, frames.tiles) if isinstance(frames, PackedFrames) else (frames,)))
        if before is not None:
            yield work(*before)
        before = this, frames.shape, rows
        this, other = other, this
    if before is not None:
        yield work(*before)


def planned_bytes(shape: tuple[int, int], block: int, recipe: Recipe) -> int:
    """Most memory of the device that blocks of so many frames of a shape (H, W) can take: every macro-pixel a point."""
    pixels = shape[0] * shape[1]
    side2 = recipe["rebin"]["factor"] ** 2
    points = block * pixels // side2
    maps = 2 * 26 * pixels  # two calibrations: mean, rms, response and threshold
    lanes = block * 2 * most_bytes(pixels)  # packed or not: nobody knows before how well frames will pack
    frames = block * (2 * pixels + 4 * shape[0] + 4 * shape[1])  # unpacked, and columns of totals
    images = 3 * 8 * points
    kept = (_LISTED + 10 * side2) * points  # lists, and patches
    steps = [_CLUSTERING, _MEASURE * side2, 12 * side2]  # one after the other; the last is the pixels saved
    if recipe["energy"]["enabled"]:
        steps.append(_ENERGY * side2)
    tiles = SCRATCH_BYTES if recipe["energy"]["enabled"] else 0
    return int(maps + lanes + frames + images + kept + max(steps) * points + tiles)


def _unpacked(program: Program, arrived: tuple[Any, ...], shape: tuple[int, ...], clock: Clock) -> tuple[Any, Any]:
    """Frames of a block; if they came packed, also where the device counts escapes outside of their tiles."""
    if len(arrived) == 1:
        return arrived[0], None
    words, tiles = arrived
    with clock("unpack"):
        frames = program.xp.empty(shape, np.uint16)
        return frames, unpack_tiles(program, words, tiles, frames)


class _Found(NamedTuple):
    """What comes back from the device, for n frames and k clusters."""

    totals: NDArray[np.float64]  # (6, n): integral, squares, sum of raw counts, points, and two flags
    table: NDArray[np.float64]  # (len(COLUMNS), k)
    kept: NDArray[np.int64]  # (k,) which of all clusters they are
    frame_of: NDArray[np.int64]  # (k,), rising
    members: NDArray[np.int64]  # (k,) macro-pixels of every cluster
    save: Callable[[NDArray[np.int64], NDArray[np.int64], int], tuple[NDArray[Any], ...]]  # pixels of some of them
    side: int


def _rules(shape: tuple[int, int], recipe: Recipe, origin: str) -> PixelRules:
    saturation = dict(recipe["saturation"])
    enabled = saturation.pop("enabled")
    return pixel_rules(
        shape,
        mirrored=recipe["orient"]["orientation"] != "sensor" and origin == MIRRORED_ORIGIN,
        factor=recipe["rebin"]["factor"],
        saturation=saturation_polynomial(**saturation) if enabled else None,
        **recipe["upper_cut"],
        **recipe["suppress"],
        **recipe["accept"],
    )


def _reconstruct(program: Program, frames: Any, maps: Maps, rules: PixelRules, recipe: Recipe, clock: Clock) -> _Found:
    xp = program.xp
    with clock("pedsub"):
        section = section_block(program, frames, maps, rules, median=recipe["median"]["enabled"])
        vetoed = section.raw > _limit(frames.shape[1:], recipe)
    with clock("noisered"):
        filtered = noise_block(program, section.edges, **recipe["noise"])
        points = points_block(program, filtered, section.picture, vetoed, **recipe["points"])
    with clock("DBSCAN"):
        three = points.rows, points.cols, points.weights
        clusters = cluster_block(program, *three, points.offsets, recipe.clustering, recipe[recipe.clustering])
        order, offsets, frame_of_cluster = group_block(program, clusters, points.offsets)
    with clock("variables"):
        pixels = patches_block(program, frames, maps, rules, points, order)
        table, kept = measure_block(
            program,
            pixels.rows,
            pixels.cols,
            offsets,
            frame_of_cluster,
            *pixels[2:5],
            clusters.tags,
            **recipe["measure"],
        )
        energy, length = energy_block(program, pixels.rows, pixels.cols, offsets, pixels.z, **recipe["energy"])
        table[COLUMNS.index("sc_energy")] = energy[kept]
        table[COLUMNS.index("sc_pathlength")] = length[kept]
        numbers = xp.stack((kept, frame_of_cluster[kept].astype(np.int64), offsets[kept + 1] - offsets[kept]))
        totals = (section.integral, section.squares, section.raw, pixels.frame_saturated, clusters.cut_short)
        totals_there = xp.stack([each.astype(np.float64) for each in totals])

    def save(clusters: NDArray[np.int64], begins: NDArray[np.int64], size: int) -> tuple[NDArray[Any], ...]:
        some, where = xp.asarray(clusters), xp.asarray(begins)
        options = {"rows_first": recipe["measure"]["axes"] == "rowcol", "decimals": recipe["redpix"]["decimals"]}
        saved = redpix_block(program, some, where, size, offsets, pixels.rows, pixels.cols, pixels.z, **options)
        return tuple(map(program.to_host, saved))

    with clock("copy out"):
        totals_here = np.vstack((program.to_host(totals_there), np.diff(points.host_offsets)))
        which, frame_of, members = program.to_host(numbers)
        return _Found(totals_here, program.to_host(table), which, frame_of, members, save, rules.factor)


def _tables(
    found: _Found,
    rows: NDArray[Any],
    shape: tuple[int, int],
    recipe: Recipe,
    clock: Clock,
    run: int,
    pedestal_run: int,
) -> Tables:
    """Make the tables of what came back."""
    n = len(rows)
    clusters = np.zeros(len(found.frame_of), CLUSTER_DTYPE)
    # A fit far from any Gaussian can end beyond single precision: infinite then, as in the CPU's table, where compiled
    # code rounds and nobody is warned.
    with np.errstate(over="ignore"):
        for name, column in zip(COLUMNS, found.table, strict=True):
            clusters[name] = column
    redpix = dict(recipe["redpix"])
    redpix.pop("decimals")
    saved = is_saved(clusters, **redpix)
    sizes = np.where(saved, found.members, 0) * found.side**2
    ends = np.cumsum(sizes)
    first = np.searchsorted(found.frame_of, np.arange(n + 1))  # cluster with which a frame begins
    frame_ends = np.concatenate(([0], ends))[first]
    clusters["sc_redpixIdx"] = np.where(saved, ends - sizes - frame_ends[found.frame_of], -1)
    pixels = np.empty(int(frame_ends[-1]), REDPIX_DTYPE)
    with clock("copy out"):
        chosen = np.flatnonzero(saved)
        if len(chosen):
            saved_pixels = found.save(found.kept[chosen], (ends - sizes)[chosen], len(pixels))
            pixels["redpix_ix"], pixels["redpix_iy"], pixels["redpix_iz"] = saved_pixels

    integral, squares, raw, saturated, cut_short, n_points = found.totals
    sparks = raw > _limit(shape, recipe)
    columns: dict[str, Any] = {name: rows[name] for name in ("event", "serial", "timestamp")}
    columns |= {"run": run, "pedestal_run": pedestal_run, "cmos_integral": integral}
    columns["cmos_mean"], columns["cmos_rms"] = mean_and_rms(integral, squares, shape[0] * shape[1])
    bits = SPARK * sparks | SATURATED * (saturated > 0) | CUT_SHORT * (cut_short > 0)
    columns |= {"quality": bits, "lp_len": n_points}
    columns |= {"nSc": np.diff(first), "nRedpix": np.diff(frame_ends)}
    events = event_table(columns, {}, **recipe["tables"])
    if not recipe["spark"]["keep_entry"]:
        events = events[~sparks]
    return Tables(events, clusters, pixels, tuple(rows["event"][sparks].tolist()))


def _limit(shape: tuple[int, int], recipe: Recipe) -> float:
    return spark_limit(shape, baseline=recipe["spark"]["baseline"], excess=recipe["spark"]["excess"])


class _Lanes(threading.local):
    """Two lanes of every thread and program; making pinned memory takes longer than filling it, so they are kept."""

    def __init__(self) -> None:
        self.of: dict[int, tuple[Program, tuple[Lane, Lane]]] = {}


_kept_lanes = _Lanes()


def _lanes(program: Program) -> tuple[Lane, Lane]:
    kept = _kept_lanes.of
    if id(program) not in kept:
        with program.active():
            kept[id(program)] = program, (program.lane(), program.lane())
    return kept[id(program)][1]


_uploaded: deque[tuple[Program, Calibration, Maps]] = deque(maxlen=2)
_uploading = threading.Lock()


def _maps(program: Program, calibration: Calibration) -> Maps:
    """Return the maps of a calibration on the device; a process has one object a content, so the object names it."""
    with _uploading:
        for owner, known, maps in _uploaded:
            if owner is program and known is calibration:
                return maps
        maps = upload_maps(program, *calibration.maps, calibration.cuts)
        _uploaded.append((program, calibration, maps))
        return maps


def _wall_clock(seconds: Counter[str]) -> Clock:
    @contextmanager
    def clock(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] += time.perf_counter() - start  # type: ignore[assignment]

    return clock
