"""The path of one block: raw frames in, tables out. Nothing here reads or writes a file."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import Response
from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.idbscan import idbscan
from cygnoreco.cluster.lattice import Clustering, dbscan, group
from cygnoreco.errors import InputError, nearest
from cygnoreco.image.correct import (
    accept,
    correct_saturation,
    mean_and_rms,
    saturation_polynomial,
    spark_limit,
    subtract,
    suppress,
    totals,
    upper_cut,
)
from cygnoreco.image.filters import median, rebin
from cygnoreco.image.orient import orient
from cygnoreco.image.patches import patch_memory, patches
from cygnoreco.kernels.image import FACTOR, Cuts, Section, empty_section, image_section, prepare_cuts
from cygnoreco.kernels.patches import cut_patches
from cygnoreco.kernels.points import find_points
from cygnoreco.kernels.scratch import scratch
from cygnoreco.measure.density import density_calibration
from cygnoreco.measure.redpix import redpix
from cygnoreco.measure.variables import measure
from cygnoreco.recipe import Recipe
from cygnoreco.tables import CUT_SHORT, SATURATED, SPARK, Tables, event_table
from cygnoreco.types import CLUSTER_DTYPE, REDPIX_DTYPE, Camera, Frames

#: Steps of the chain whose images can be looked at.
STEPS = ("corrected", "suppressed", "rebinned")

_CLUSTERINGS: dict[str, Callable[..., Clustering]] = {"dbscan": dbscan, "idbscan": idbscan, "directional": directional}


@dataclass(frozen=True)
class Calibration:
    """Calibration of one camera in the orientation of the recipe's images.

    Attributes
    ----------
    factor : ndarray
        Inverse of the lens response, (H, W) float64.
    cuts : Cuts
        The recipe's cuts on a pixel as integers, for the fused section.
    pedestal : tuple of ndarray, or None
        Mean and rms, (H, W) float64, ADU; None where nobody needs them besides the cuts.
    """

    factor: NDArray[np.float64]
    cuts: Cuts
    pedestal: tuple[NDArray[np.float64], NDArray[np.float64]] | None

    @property
    def maps(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean, rms and factor."""
        if self.pedestal is None:
            raise RuntimeError("calibrated without the maps of the pedestal")
        return *self.pedestal, self.factor


def calibrate(pedestal: Pedestal, response: Response, recipe: Recipe, origin: str, *, maps: bool = True) -> Calibration:
    """Put pedestal and response together in the orientation of the recipe.

    Parameters
    ----------
    pedestal, response : Pedestal, Response
        Of the same sensor.
    recipe : Recipe
        Stages and parameters.
    origin : str
        As for :func:`correct`.
    maps : bool
        Keep the maps of the pedestal, which :func:`reconstruct_block` can do without if :func:`is_fused`.

    Raises
    ------
    InputError
        The two are for different sensors.
    """
    if pedestal.mean.shape != response.factor.shape:
        raise InputError(
            f"the pedestal is for a sensor of {pedestal.mean.shape} pixels, the response for {response.factor.shape}"
        )
    mean, rms = (orient(each, origin, **recipe["orient"]) for each in (pedestal.mean, pedestal.rms))
    stages = {**recipe["upper_cut"], **recipe["suppress"], **recipe["accept"]}
    cuts = prepare_cuts(mean, rms, precision=recipe.precision, planes=_fused(recipe), **stages)
    # A response is one of the images, so it is turned already.
    return Calibration(response.factor, cuts, (mean, rms) if maps else None)


def is_fused(recipe: Recipe) -> bool:
    """Whether all of the recipe that touches pixels has a fused form: it takes the cuts for the pedestal."""
    return _fused(recipe) and recipe.precision == "float64"


def _fused(recipe: Recipe) -> bool:
    """Whether there is a fused form of the recipe's image section."""
    return not recipe["saturation"]["enabled"] and recipe["rebin"]["factor"] == FACTOR


def check_camera(recipe: Recipe, camera: Camera) -> None:
    """Raise InputError if the recipe cannot be done, or not on this sensor.

    That is: a rebin factor that does not divide its sides, an acceptance without a pixel, or a precision that only the
    fused section has.
    """
    if recipe.precision != "float64" and not _fused(recipe):
        raise InputError(
            f"precision = {recipe.precision} of recipe '{recipe.name}' needs rebin.factor = {FACTOR} and no saturation "
            "correction; without, use float64"
        )
    height, width = camera.shape
    factor = recipe["rebin"]["factor"]
    if height % factor or width % factor:
        raise InputError(f"rebin.factor = {factor} does not divide the {height} x {width} pixels of {camera.name}")
    for low, high, size, axis in (("xmin", "xmax", width, "columns"), ("ymin", "ymax", height, "rows")):
        first, last = recipe["accept"][low] or 0, recipe["accept"][high]
        if first >= min(size if last is None else last, size):
            raise InputError(
                f"accept.{low} = {first} and accept.{high} = {last} leave none of the {size} {axis} of {camera.name}"
            )


def correct(
    frames: Frames, calibration: Calibration, recipe: Recipe, origin: str, what: str = "corrected"
) -> NDArray[np.float64]:
    """Images at a step of the chain, by the plain stages.

    Parameters
    ----------
    frames : ndarray
        (n, H, W) uint16, orientation of the sensor.
    calibration : Calibration
        From :func:`calibrate` with the same recipe.
    recipe : Recipe
        Stages and parameters.
    origin : str
        Container that the frames first came in, which decides the orientation in ``winter23``.
    what : str
        ``corrected``, ``suppressed`` or ``rebinned``; see :meth:`cygnoreco.raw.Run.corrected`.

    Returns
    -------
    ndarray
        (n, H, W) or, for ``rebinned``, (n, H / factor, W / factor) float64, ADU.
    """
    if what not in STEPS:
        raise InputError(f"unknown step '{what}'" + nearest(what, STEPS))
    factor = recipe["rebin"]["factor"] if what == "rebinned" else 1
    height, width = frames.shape[1:]
    images = np.empty((len(frames), height // factor, width // factor))
    for image, frame in zip(images, orient(frames, origin, **recipe["orient"]), strict=True):
        if what == "corrected":
            np.multiply(_subtracted(frame, calibration, recipe), calibration.factor, out=image)
        elif what == "suppressed":
            np.multiply(_suppressed(frame, calibration, recipe), calibration.factor, out=image)
        else:
            image[:] = rebin(_suppressed(frame, calibration, recipe), **recipe["rebin"])
    return images


def reconstruct_block(
    frames: Frames,
    rows: NDArray[Any],
    calibration: Calibration,
    recipe: Recipe,
    *,
    origin: str,
    run: int,
    pedestal_run: int,
) -> tuple[Tables, dict[str, float]]:
    """Reconstruct a block of frames.

    Parameters
    ----------
    frames : ndarray
        (n, H, W) uint16, orientation of the sensor.
    rows : ndarray
        (n,) ``FRAME_DTYPE``: event numbers and times of the frames.
    calibration : Calibration
        From :func:`calibrate` with the same recipe.
    recipe : Recipe
        Stages and parameters.
    origin : str
        As for :func:`correct`.
    run, pedestal_run : int
        Run numbers for the tables.

    Returns
    -------
    tables : Tables
        One event a frame, without the frames that the spark veto left without an entry.
    seconds : dict
        Wall seconds by stage, summed over the block.
    """
    clock = _Clock()
    with clock("orient"):
        oriented = orient(frames, origin, **recipe["orient"])
    with clock("pedsub"):  # subtraction, suppression, acceptance, median and rebinning in one pass
        section = _section(oriented, calibration, recipe)
    sparks = section.raw > spark_limit(frames.shape[1:], **{k: recipe["spark"][k] for k in ("baseline", "excess")})
    entries = np.flatnonzero(~sparks | recipe["spark"]["keep_entry"])
    found, laps = [], []
    for index in entries:
        before = Counter(clock.seconds)
        found.append(
            _NOTHING
            if sparks[index]
            else _clusters(oriented[index], section.picture[index], section.edges[index], calibration, recipe, clock)
        )
        laps.append({name: clock.seconds[name] - before[name] for name in clock.seconds})

    columns: dict[str, Any] = {name: rows[name][entries] for name in ("event", "serial", "timestamp")}
    columns |= {"run": run, "pedestal_run": pedestal_run, "cmos_integral": section.integral[entries]}
    columns["cmos_mean"], columns["cmos_rms"] = mean_and_rms(
        section.integral[entries], section.squares[entries], math.prod(frames.shape[1:])
    )
    columns["quality"] = [each.quality for each in found]
    columns["lp_len"] = [each.n_points for each in found]
    columns["nSc"] = [len(each.table) for each in found]
    columns["nRedpix"] = [len(each.pixels) for each in found]
    shared = {name: clock.seconds[name] / len(rows) for name in ("orient", "pedsub")} if len(rows) else {}
    seconds = {name: np.array([lap.get(name, 0.0) for lap in laps]) for name in clock.seconds}
    tables = Tables(
        event_table(columns, {**seconds, **shared}, **recipe["tables"]),
        _joined([each.table for each in found], CLUSTER_DTYPE),
        _joined([each.pixels for each in found], REDPIX_DTYPE),
        tuple(rows["event"][sparks].tolist()),
    )
    return tables, dict(clock.seconds)


class _Found(NamedTuple):
    """What is in one frame: its clusters, their saved pixels, quality bits and number of points."""

    table: NDArray[Any]
    pixels: NDArray[Any]
    quality: int
    n_points: int


_NOTHING = _Found(np.empty(0, CLUSTER_DTYPE), np.empty(0, REDPIX_DTYPE), SPARK, 0)


def _joined(pieces: list[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Join tables as the bytes that they are; NumPy joins them, and copies one to another, column by column."""
    joined = np.empty(sum(map(len, pieces)), dtype)
    content = joined.view(np.uint8)
    end = 0
    for piece in pieces:
        assert piece.dtype == dtype
        content[end : end + piece.nbytes] = piece.view(np.uint8)
        end += piece.nbytes
    return joined


def _section(frames: Frames, calibration: Calibration, recipe: Recipe) -> Section:
    """Fused form of the image section where there is one for the recipe, else the plain stages: same bits.

    The images are memory of the thread, valid until it runs the next section. The plain stages know double precision
    only.
    """
    if _fused(recipe):
        count, height, width = frames.shape
        images = (count, height // FACTOR, width // FACTOR)
        out = Section(
            scratch("chain.picture", images, np.float64),
            scratch("chain.edges", images, np.float64),
            np.empty(count),
            np.empty(count),
            np.empty(count, np.uint64),
        )
        return image_section(frames, calibration.cuts, median=recipe["median"]["enabled"], out=out)
    pieces = []
    for frame in frames:  # one by one: the plain stages need several images of the sensor's size
        zs = _suppressed(frame, calibration, recipe)
        picture, edges = (rebin(image, **recipe["rebin"]) for image in (zs, median(zs, **recipe["median"])))
        pieces.append((picture, edges, *totals(zs), frame.sum(dtype=np.uint64)))
    if not pieces:
        return empty_section(0, frames.shape[1:])
    return Section(*map(np.array, zip(*pieces, strict=True)))


def _subtracted(frame: Frames, calibration: Calibration, recipe: Recipe) -> NDArray[np.float64]:
    return correct_saturation(
        subtract(upper_cut(frame, **recipe["upper_cut"]), calibration.maps[0]), **recipe["saturation"]
    )


def _suppressed(frame: Frames, calibration: Calibration, recipe: Recipe) -> NDArray[np.float64]:
    sub = _subtracted(frame, calibration, recipe)
    return accept(suppress(sub, calibration.maps[1], **recipe["suppress"]), **recipe["accept"])


def _clusters(
    frame: Frames,
    picture: NDArray[np.float64],
    edges: NDArray[np.float64],
    calibration: Calibration,
    recipe: Recipe,
    clock: _Clock,
) -> _Found:
    """From the two rebinned images of a frame to what is in it."""
    with clock("noisered"):
        unit = recipe["points"]["weights"] == "unit"
        rows, cols, weights = find_points(edges, picture, **recipe["noise"], unit_weights=unit)
    with clock("DBSCAN"):
        clustering = _CLUSTERINGS[recipe.clustering](rows, cols, weights, **recipe[recipe.clustering])
        order, offsets = group(clustering.labels)
    with clock("variables"):
        rows, cols = rows[order], cols[order]
        pixels = patch_memory(len(rows), recipe["rebin"]["factor"])
        if is_fused(recipe):
            cimax = recipe["upper_cut"]["cimax"]
            cut_patches(frame, calibration.cuts, calibration.factor, rows, cols, cimax=cimax, out=pixels)
        else:
            patches(frame, *calibration.maps, rows, cols, **_pixel_parameters(recipe), out=pixels)
        z, above, saturated = pixels
        table, kept = measure(rows, cols, offsets, z, above, saturated, clustering.tags, **recipe["measure"])
        energy, length = density_calibration(rows, cols, offsets, z, **recipe["energy"])
        table["sc_energy"], table["sc_pathlength"] = energy[kept], length[kept]
        saved, table = redpix(table, kept, rows, cols, offsets, z, recipe["measure"]["axes"], **recipe["redpix"])
    quality = SATURATED * bool(saturated.any()) | CUT_SHORT * clustering.cut_short
    return _Found(table, saved, quality, len(weights))


def _pixel_parameters(recipe: Recipe) -> dict[str, Any]:
    """Collect what :func:`patches` needs of the stages before the filters."""
    saturation = recipe["saturation"]
    polynomial = saturation_polynomial(saturation["quadratic"], saturation["onset"], saturation["counts_per_density"])
    return {
        "factor": recipe["rebin"]["factor"],
        "saturation": polynomial if saturation["enabled"] else None,
        **recipe["upper_cut"],
        **recipe["suppress"],
        **recipe["accept"],
    }


class _Clock:
    """Wall seconds by stage: ``with clock("pedsub"): ...``."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start  # type: ignore[assignment]
