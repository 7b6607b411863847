"""The path of one block: raw frames in, tables out. Nothing here reads or writes a file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
from cygnoreco.image.filters import median, noise_filter, rebin
from cygnoreco.image.orient import orient
from cygnoreco.image.patches import patches
from cygnoreco.image.points import points
from cygnoreco.kernels.image import FACTOR, Cuts, Section, empty_section, image_section, prepare_cuts
from cygnoreco.measure.density import density_calibration
from cygnoreco.measure.redpix import redpix
from cygnoreco.measure.variables import measure
from cygnoreco.recipe import Recipe
from cygnoreco.tables import CUT_SHORT, SATURATED, SPARK, Tables, concatenate, event_table, offsets_of
from cygnoreco.types import CLUSTER_DTYPE, EVENT_DTYPE, REDPIX_DTYPE, Camera, Frames

#: Steps of the chain whose images can be looked at.
STEPS = ("corrected", "suppressed", "rebinned")

_CLUSTERINGS: dict[str, Callable[..., Clustering]] = {"dbscan": dbscan, "idbscan": idbscan, "directional": directional}


@dataclass(frozen=True)
class Calibration:
    """Calibration of one camera in the orientation of the recipe's images.

    Attributes
    ----------
    mean, rms : ndarray
        Pedestal, (H, W) float64, ADU.
    factor : ndarray
        Inverse of the lens response, (H, W) float64.
    cuts : Cuts
        The recipe's cuts on a pixel as integers, for the fused section.
    """

    mean: NDArray[np.float64]
    rms: NDArray[np.float64]
    factor: NDArray[np.float64]
    cuts: Cuts

    @property
    def maps(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean, rms and factor."""
        return self.mean, self.rms, self.factor


def calibrate(pedestal: Pedestal, response: Response, recipe: Recipe, origin: str) -> Calibration:
    """Put pedestal and response together in the orientation of the recipe.

    Raises
    ------
    InputError
        The two are for different sensors.
    """
    if pedestal.mean.shape != response.factor.shape:
        raise InputError(
            f"the pedestal is for a sensor of {pedestal.mean.shape} pixels, the response for {response.factor.shape}"
        )
    dark = (orient(each, origin, **recipe["orient"]) for each in (pedestal.mean, pedestal.rms))
    mean, rms = map(np.ascontiguousarray, dark)
    cuts = prepare_cuts(mean, rms, **recipe["upper_cut"], **recipe["suppress"], **recipe["accept"])
    return Calibration(mean, rms, response.factor, cuts)  # a response is one of the images, so it is turned already


def check_camera(recipe: Recipe, camera: Camera) -> None:
    """Raise InputError if the recipe does not fit the sensor: its rebin factor, or an acceptance without a pixel."""
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
    quality: int = 0,
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
    quality : int
        Quality bits that all events have in common.

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
    pieces: list[Tables] = []
    vetoed: list[int] = []
    with clock("pedsub"):  # subtraction, suppression, acceptance, median and rebinning in one pass
        section = _section(oriented, calibration, recipe)
    limit = spark_limit(frames.shape[1:], baseline=recipe["spark"]["baseline"], excess=recipe["spark"]["excess"])
    for index, row in enumerate(rows):
        columns: dict[str, Any] = {name: row[name] for name in ("event", "serial", "timestamp")}
        columns |= {"run": run, "pedestal_run": pedestal_run}
        columns["cmos_integral"] = section.integral[index]
        columns["cmos_mean"], columns["cmos_rms"] = mean_and_rms(
            section.integral[index], section.squares[index], frames[index].size
        )
        before = dict(clock.seconds)
        if section.raw[index] > limit:
            vetoed.append(int(row["event"]))
        if section.raw[index] <= limit:
            clusters, pixels, bits, n_points = _clusters(
                oriented[index], section.picture[index], section.edges[index], calibration, recipe, clock
            )
        elif recipe["spark"]["keep_entry"]:
            clusters, pixels = np.empty(0, CLUSTER_DTYPE), np.empty(0, REDPIX_DTYPE)
            bits, n_points = SPARK, 0
        else:
            continue
        columns |= {"quality": quality | bits, "lp_len": n_points, "nSc": len(clusters), "nRedpix": len(pixels)}
        shared = {name: clock.seconds[name] / len(rows) for name in ("orient", "pedsub")}
        spent = {name: value - before.get(name, 0.0) for name, value in clock.seconds.items()}
        event = event_table(columns, {**spent, **shared}, **recipe["tables"])
        pieces.append(Tables(event, clusters, pixels))
    joined = concatenate(pieces) if pieces else Tables(np.empty(0, EVENT_DTYPE), *_NOTHING)
    return Tables(joined.events, joined.clusters, joined.redpix, tuple(vetoed)), dict(clock.seconds)


_NOTHING = (np.empty(0, CLUSTER_DTYPE), np.empty(0, REDPIX_DTYPE))


def _section(frames: Frames, calibration: Calibration, recipe: Recipe) -> Section:
    """Fused form of the image section where there is one for the recipe, else the plain stages: same bits."""
    if not recipe["saturation"]["enabled"] and recipe["rebin"]["factor"] == FACTOR:
        return image_section(frames, calibration.mean, calibration.cuts, median=recipe["median"]["enabled"])
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
        subtract(upper_cut(frame, **recipe["upper_cut"]), calibration.mean), **recipe["saturation"]
    )


def _suppressed(frame: Frames, calibration: Calibration, recipe: Recipe) -> NDArray[np.float64]:
    sub = _subtracted(frame, calibration, recipe)
    return accept(suppress(sub, calibration.rms, **recipe["suppress"]), **recipe["accept"])


def _clusters(
    frame: Frames,
    picture: NDArray[np.float64],
    edges: NDArray[np.float64],
    calibration: Calibration,
    recipe: Recipe,
    clock: _Clock,
) -> tuple[NDArray[Any], NDArray[Any], int, int]:
    """From the two rebinned images of a frame to its clusters, saved pixels, quality bits and number of points."""
    with clock("noisered"):
        rows, cols, weights = points(noise_filter(edges, **recipe["noise"]), picture, **recipe["points"])
    with clock("DBSCAN"):
        clustering = _CLUSTERINGS[recipe.clustering](rows, cols, weights, **recipe[recipe.clustering])
        order, offsets = group(clustering.labels)
    with clock("variables"):
        rows, cols = rows[order], cols[order]
        z, above, saturated = patches(frame, *calibration.maps, rows, cols, **_pixel_parameters(recipe))
        table, kept = measure(rows, cols, offsets, z, above, saturated, clustering.tags, **recipe["measure"])
        members, offsets = _members(offsets, kept)
        rows, cols, z = rows[members], cols[members], z[members]
        energy, length = density_calibration(rows, cols, offsets, z, **recipe["energy"])
        table["sc_energy"], table["sc_pathlength"] = energy, length
        pixels, table = redpix(table, rows, cols, offsets, z, recipe["measure"]["axes"], **recipe["redpix"])
    quality = SATURATED * bool(saturated.any()) | CUT_SHORT * clustering.cut_short
    return table, pixels, quality, len(weights)


def _members(offsets: NDArray[np.int64], kept: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put the members of grouped clusters in the order of some of the clusters: their indices, and the new offsets."""
    sizes = np.diff(offsets)[kept]
    new = offsets_of(sizes)
    return np.arange(new[-1]) + np.repeat(offsets[kept] - new[:-1], sizes), new


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
