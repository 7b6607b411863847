"""What is measured: single stages, reading, blocks and whole runs, beside their plain forms, and the scenes for them.

A case makes its inputs and gives a callable that does the work and nothing else. ``table``, ``ratios`` and ``scaling``
take theirs from here, so that a number means the same in each.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from dask.local import get_sync
from numpy.typing import NDArray

from bench import plain, scenes
from bench._common import Work
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.chain import correct, reconstruct_block
from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.lattice import dbscan, group
from cygnoreco.driver import reconstruct
from cygnoreco.graph import Work as Todo
from cygnoreco.graph import choose_calibration, cut, make_part, parts_array
from cygnoreco.image.filters import noise_filter
from cygnoreco.image.patches import patches
from cygnoreco.image.points import points
from cygnoreco.io.opening import open_source
from cygnoreco.io.source import Block, read_frames
from cygnoreco.kernels.image import empty_section, image_section
from cygnoreco.kernels.points import find_points
from cygnoreco.measure.variables import measure
from cygnoreco.raw import open_run
from cygnoreco.recipe import Recipe

#: Frames a block, as the driver's default.
BLOCK = 8

EPS, MIN_SAMPLES = 12.0, 20


@dataclass(frozen=True)
class Scene:
    """A few frames of an occupancy class and what the stages before make of the first.

    Attributes
    ----------
    occupancy : str
        One of :data:`bench.scenes.CLASSES`.
    recipe : str
        Name of the recipe.
    frames : ndarray, shape (n, H, W), uint16
    """

    occupancy: str
    recipe: str
    frames: NDArray[np.uint16]

    @cached_property
    def prepared(self) -> scenes.Prepared:
        """Recipe and calibration."""
        return scenes.prepared(self.recipe)

    @cached_property
    def section(self) -> Any:
        """Result of the image section of the first frame."""
        calibration = self.prepared.calibration
        return image_section(self.frames[:1], calibration.cuts)

    @cached_property
    def points(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Rows, columns and weights of the first frame's points."""
        recipe = self.prepared.recipe
        edges = noise_filter(self.section.edges[0], **recipe["noise"])
        return points(edges, self.section.picture[0], **recipe["points"])

    @property
    def n_points(self) -> int:
        """How many there are."""
        return len(self.points[0])


@cache
def scene(occupancy: str, recipe: str = "lime", n: int = 2) -> Scene:
    """Make a scene; kept for the next time."""
    return Scene(occupancy, recipe, _frames(occupancy, n))


@cache
def _frames(occupancy: str, n: int) -> NDArray[np.uint16]:
    return scenes.frames_of(occupancy, n)


def section_ours() -> Work:
    """Fused image section of a block, into memory that is used again."""
    here = scene("few", n=BLOCK)
    out = empty_section(BLOCK, here.frames.shape[1:])
    calibration = here.prepared.calibration
    return lambda: image_section(here.frames, calibration.cuts, out=out)


def section_plain() -> Work:
    """Plain stages, one frame: blocks would not make their images of the sensor's size any cheaper."""
    here = scene("few", n=BLOCK)
    return lambda: plain.section(here.frames[0], here.prepared)


def noise_ours(occupancy: str = "few") -> Work:
    """Noise filter and points of one frame."""
    here = scene(occupancy)
    edges, picture = here.section.edges[0], here.section.picture[0]
    recipe = here.prepared.recipe
    unit = recipe["points"]["weights"] == "unit"
    return lambda: find_points(edges, picture, **recipe["noise"], unit_weights=unit)


def noise_plain(occupancy: str = "few") -> Work:
    """Do the part of the filter that NumPy can do: the walk in place, which makes it what it is, is left out."""
    here = scene(occupancy)
    edges, picture = here.section.edges[0], here.section.picture[0]
    return lambda: plain.noise_and_points(edges, picture)


def dbscan_ours(occupancy: str) -> Work:
    """DBSCAN of one frame's points."""
    found = scene(occupancy).points
    return lambda: dbscan(*found, eps=EPS, min_samples=MIN_SAMPLES)


def dbscan_plain(occupancy: str) -> Work:
    """DBSCAN of the same points by scikit-learn."""
    found = scene(occupancy).points
    return lambda: plain.dbscan(*found, EPS, MIN_SAMPLES)


def directional_ours(occupancy: str) -> Work:
    """Directional clustering of one frame's points."""
    here = scene(occupancy, "winter23")
    found, options = here.points, here.prepared.recipe["directional"]
    return lambda: directional(*found, **options)


def variables_ours(occupancy: str) -> Work:
    """Variables of the clusters of one frame; their pixels are cut out already."""
    here = scene(occupancy)
    recipe, calibration = here.prepared.recipe, here.prepared.calibration
    rows, cols, weights = here.points
    clustering = dbscan(rows, cols, weights, eps=EPS, min_samples=MIN_SAMPLES)
    order, offsets = group(clustering.labels)
    rows, cols, tags = rows[order], cols[order], clustering.tags
    cuts = {**recipe["upper_cut"], **recipe["suppress"], **recipe["accept"]}
    pixels = patches(here.frames[0], *calibration.maps, rows, cols, **cuts)
    return lambda: measure(rows, cols, offsets, *pixels, tags, **recipe["measure"])


def variables_plain(occupancy: str) -> Work:
    """Variables of the clusters of one frame by NumPy and SciPy; the image they are cut from is there already."""
    here = scene(occupancy)
    recipe, calibration = here.prepared.recipe, here.prepared.calibration
    image = correct(here.frames[:1], calibration, recipe, "midas")[0]
    rows, cols, weights = here.points
    labels = dbscan(rows, cols, weights, eps=EPS, min_samples=MIN_SAMPLES).labels
    return lambda: plain.variables(image, rows, cols, labels)


def pedestal_ours(n: int = 16) -> Work:
    """Pedestal of n dark frames that are in memory."""
    dark = _dark(n)
    return lambda: Pedestal.from_frames([dark])


def pedestal_plain(n: int = 16) -> Work:
    """Pedestal of the same frames by NumPy."""
    dark = _dark(n)
    return lambda: plain.pedestal(dark)


@lru_cache(maxsize=1)
def _dark(n: int) -> NDArray[np.uint16]:
    return np.stack(list(scenes.dark_frames(n)))


def block_of(occupancy: str, recipe: str = "lime", n: int = 1) -> Work:
    """Everything after inflation, for a block of n frames: tables, and wall seconds by stage."""
    here = scene(occupancy, recipe, max(n, 2))
    frames, rows = here.frames[:n], scenes.rows_of(n)
    chain: dict[str, Any] = {"origin": "midas", "run": scenes.DATA_RUN, "pedestal_run": scenes.PEDESTAL_RUN}
    calibration = here.prepared.calibration
    return lambda: reconstruct_block(frames, rows, calibration, here.prepared.recipe, **chain)


def stages_s(occupancy: str, recipe: str = "lime", n: int = 1, repeats: int = 7) -> dict[str, float]:
    """CPU seconds a frame by stage as the chain itself counts them, the smallest of several, and ``all``."""
    work = block_of(occupancy, recipe, n)
    work()
    best: dict[str, float] = {}
    for _ in range(repeats):
        begin = time.process_time()
        with mock.patch("time.perf_counter", time.process_time):  # the chain's clock, which is one of the wall
            _, seconds = work()
        seconds = {**seconds, "all": time.process_time() - begin}
        for name, value in seconds.items():
            best[name] = min(best.get(name, value), value)
    return {name: value / n for name, value in best.items()}


def read_ours(path: Path, *, name: str = "CAM0", block: int = BLOCK) -> Work:
    """All frames of a run in blocks, into memory that is used again; a file that needs an index has it already."""
    source = open_source(path, cache=path.parent / "index")
    n = len(source.table(name))
    (camera,) = source.cameras
    memory = np.zeros((block, *camera.shape), np.uint16)

    def read() -> None:
        for start in range(0, n, block):
            source.read(name, start, min(start + block, n), memory)

    return read


def loop(path: Path, *, recipe: str = "lime", block: int = BLOCK) -> Work:
    """Do the least that can be done with a run: read a block, reconstruct it, keep its tables."""
    source = open_source(path, cache=path.parent / "index")
    here = scenes.prepared(recipe)
    n = len(source.table("CAM0"))

    def work() -> list[Any]:
        tables = []
        for start in range(0, n, block):
            frames, rows, _ = read_frames(source, "CAM0", start, min(start + block, n))
            done = reconstruct_block(
                frames, rows, here.calibration, here.recipe,
                origin=source.origin, run=scenes.DATA_RUN, pedestal_run=scenes.PEDESTAL_RUN,
            )  # fmt: skip
            tables.append(done[0])
        return tables

    return work


def parts(path: Path, folder: Path, *, dask: bool, recipe: str = "lime", block: int = BLOCK) -> Work:
    """Reconstruct a run and commit its parts: as tasks of a Dask graph, or in a loop that does the same."""
    run = open_run(path, cache=path.parent / "index")
    choice = choose_calibration(run.number, run.camera(), Recipe.load(recipe), scenes.pedestal(), folder=folder)
    todo = Todo(run.ref(), choice.reference, run.number, choice.pedestal_run, str(folder))
    bounds = cut(len(run.table()), block)

    def by_dask() -> Any:
        made = parts_array(todo, bounds)
        return [made.blocks[index].compute(scheduler=get_sync) for index in range(made.numblocks[0])]

    def by_loop() -> Any:
        memory = np.empty((block, *run.camera().shape), "<u2")
        return [
            make_part(Block(start, *read_frames(run.source, run.camera().name, start, stop, memory)), todo)
            for start, stop in bounds
        ]

    return by_dask if dask else by_loop


def driver(
    path: Path,
    *,
    recipe: str = "lime",
    block: int = BLOCK,
    client: Any = None,
    threads: int = 1,
    unread: bool = False,
    out: str = "out",
) -> Work:
    """Have :func:`cygnoreco.reconstruct` do it, which plans, commits every block, merges and writes the ROOT file.

    With ``unread`` the index of the run is forgotten each time, as if nobody had read the file before.
    """
    folder, cache = path.parent / out, path.parent / "index"
    dark = scenes.pedestal()

    def work() -> Any:
        if unread:
            shutil.rmtree(cache, ignore_errors=True)
            os.utime(path)  # this process remembers indices by the time of the file
        run = open_run(path, cache=cache)
        return reconstruct(
            run, pedestal=dark, recipe=recipe, out=folder, block=block, client=client, threads=threads, force=True
        )

    return work
