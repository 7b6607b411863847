"""Variables of clusters on CUDA against the stage ``measure``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import generated_response
from cygnoreco.chain import calibrate, correct
from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.lattice import group
from cygnoreco.cuda.program import source
from cygnoreco.cuda.variables import COLUMNS, THETA_TOLERANCE, measure_block
from cygnoreco.image.filters import median, noise_filter, rebin
from cygnoreco.image.orient import orient
from cygnoreco.image.patches import patches
from cygnoreco.image.points import points
from cygnoreco.measure.axes import principal_axis
from cygnoreco.measure.variables import measure
from cygnoreco.recipe import Recipe
from cygnoreco.types import CLUSTER_DTYPE
from tests.cuda.agreement import assert_columns_agree

SIDE = 4
RECIPES = ("lime", "winter23")


class Block(NamedTuple):
    """Arguments of ``measure_block`` for the clusters of several frames."""

    rows: Any
    cols: Any
    offsets: Any
    frame_of_cluster: Any
    z: Any
    above: Any
    saturated: Any
    tags: Any


def block_of(frames, side=SIDE, seed=0):
    """Block of frames, each a list of clusters (rows, cols, z)."""
    clusters = [cluster for frame in frames for cluster in frame]
    empty = np.empty(0, np.int32), np.empty(0, np.int32), np.empty((0, side, side))
    rows, cols, z = (np.concatenate(each) for each in zip(empty, *clusters, strict=True))
    sizes = [len(each[0]) for each in clusters]
    return Block(
        rows.astype(np.int32),
        cols.astype(np.int32),
        np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        np.repeat(np.arange(len(frames)), [len(frame) for frame in frames]).astype(np.int32),
        z,
        z > 5.0,
        z > 90.0,
        np.random.default_rng(seed).integers(0, 4, len(clusters)).astype(np.int32),
    )


def on_cpu(block, n_frames, parameters):
    """Tables of the frames one after the other, and which clusters they are."""
    tables, orders = [np.empty(0, CLUSTER_DTYPE)], [np.empty(0, np.int64)]
    for frame in range(n_frames):
        first, last = np.searchsorted(block.frame_of_cluster, (frame, frame + 1))
        offsets = block.offsets[first : last + 1]
        inside = slice(offsets[0], offsets[-1])
        pixels = (each[inside] for each in (block.z, block.above, block.saturated))
        table, order = measure(
            block.rows[inside],
            block.cols[inside],
            offsets - offsets[0],
            *pixels,
            block.tags[first:last],
            **parameters,
        )
        tables.append(table)
        orders.append(order + first)
    return np.concatenate(tables), np.concatenate(orders)


def assert_same(program, block, parameters, n_frames=1):
    """Measure on the program and on the CPU; the table of the CPU."""
    found = measure_block(program, *(program.xp.asarray(each) for each in block), **parameters)
    table, order = on_cpu(block, n_frames, parameters)
    assert program.to_host(found.order).tolist() == order.tolist()
    columns = {name: program.to_host(column) for name, column in found.columns.items()}
    if program.xp is np:  # the same functions of the C library as the CPU's form has
        for name in COLUMNS:
            np.testing.assert_array_equal(columns[name].astype(np.float32), table[name], err_msg=name)
    assert_columns_agree(columns, table)
    return table


@lru_cache
def parameters_of(recipe, **changes):
    return {**Recipe.load(recipe)["measure"], **changes}


def blob(rng, n=60, offset=20.0, spread=(6, 3), side=SIDE, scatter=15.0):
    """Lumpy cluster of distinct macro-pixels in raster order, some of its pixels negative."""
    cells = np.unique(rng.normal(0, spread, (n, 2)).round().astype(np.int32) + 100, axis=0)
    return cells[:, 0], cells[:, 1], rng.normal(offset, scatter, (len(cells), side, side))


def rectangle(height, width, counts, row=20, col=30):
    """Full rectangle of macro-pixels; ``counts(row, col)`` of the pixels."""
    rows, cols = (each.ravel() + start for each, start in zip(np.mgrid[:height, :width], (row, col), strict=True))
    inside = np.arange(SIDE)
    light = counts(rows[:, None, None] * SIDE + inside[:, None], cols[:, None, None] * SIDE + inside)
    return rows, cols, np.broadcast_to(light, (len(rows), SIDE, SIDE)).astype(float)


def track(length=60, slope=0.4, half_width=2, bumps=(20.0, 45.0), seed=0):
    """Inclined track with bright places."""
    rows, cols = np.mgrid[0:length, 0 : length + 10]
    inside = np.abs(rows - 5 - slope * cols) <= half_width
    rows, cols = rows[inside], cols[inside]
    z = np.random.default_rng(seed).normal(4, 3, (len(rows), SIDE, SIDE))
    for bump in bumps:
        z += (40 + bump) * np.exp(-((cols - bump) ** 2) / 8)[:, None, None]
    return rows, cols, z


@lru_cache
def simulated(recipe_name):
    """Clusters of simulated frames after the CPU's clustering: block, and its number of frames."""
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import simulate_event

    detector = Detector(height=256, width=320)
    dark = np.stack([simulate_event((), detector=detector, seed=1, run=1, event=k)[0] for k in range(8)])
    pedestal = Pedestal.from_frames(iter([dark]), run=1, camera="CAM0")
    events = [*demo_plan(5, detector=detector)[:3], (), *demo_plan(6, detector=detector)[4:5]]
    frames = np.stack([simulate_event(e, detector=detector, seed=2, run=2, event=k)[0] for k, e in enumerate(events)])
    recipe = Recipe.load(recipe_name)
    cuts = {"xmin": None, "xmax": None, "ymin": None, "ymax": None}
    recipe = recipe.override([f"accept.{name}=none" for name in cuts])
    calibration = calibrate(pedestal, generated_response(detector.shape), recipe, "midas")
    suppressed = correct(frames, calibration, recipe, "midas", "suppressed") / calibration.factor
    pieces = []
    for frame, zs in zip(orient(frames, "midas", **recipe["orient"]), suppressed, strict=True):
        edges = noise_filter(rebin(median(zs), factor=SIDE), **recipe["noise"])
        rows, cols, weights = points(edges, rebin(zs, factor=SIDE), **recipe["points"])
        clustering = directional(rows, cols, weights, **recipe["directional"])
        order, offsets = group(clustering.labels)
        rows, cols = rows[order], cols[order]
        pixels = patches(np.ascontiguousarray(frame), *calibration.maps, rows, cols, **cuts)
        pieces.append((rows, cols, np.diff(offsets), *pixels, clustering.tags))
    rows, cols, sizes, z, above, saturated, tags = (np.concatenate(each) for each in zip(*pieces, strict=True))
    frame_of_cluster = np.repeat(np.arange(len(frames)), [len(piece[2]) for piece in pieces]).astype(np.int32)
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    return Block(rows, cols, offsets, frame_of_cluster, z, above, saturated, tags), len(frames)


@pytest.mark.parametrize("recipe", RECIPES)
def test_clusters_of_simulated_frames(program, recipe):
    block, n_frames = simulated(recipe)
    table = assert_same(program, block, parameters_of(recipe), n_frames)
    assert len(table) >= 8
    assert (table["sc_lstatus"] == 3).any()
    assert (table["sc_lp0fwhm"] > 0).any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_lumpy_clusters_of_many_frames_some_of_them_empty(program, recipe):
    rng = np.random.default_rng(1)
    frames = [
        [blob(rng, n, offset) for n in (3, 25, 90) for offset in (-40.0, 0.0, 20.0)] if k % 3 else [] for k in range(5)
    ]
    assert_same(program, block_of(frames), parameters_of(recipe), len(frames))


def corner_cases():
    rng = np.random.default_rng(2)
    pair = np.array([7, 7]), np.array([3, 4]), rng.normal(20, 5, (2, SIDE, SIDE))
    diagonal = np.array([7, 8]), np.array([3, 4]), np.full((2, SIDE, SIDE), 10.0)
    return {
        "two macro-pixels": [pair],
        "two on a diagonal": [diagonal],
        "one column": [rectangle(30, 1, lambda r, c: 30 + r % 7 + 0 * c)],
        "one row": [rectangle(1, 30, lambda r, c: 30 + c % 7 + 0 * r)],
        "a square": [rectangle(8, 8, lambda r, c: 10.0 + 0 * (r + c))],
        "a round spot": [rectangle(12, 12, lambda r, c: 90 * np.exp(-((r - 103.5) ** 2 + (c - 143.5) ** 2) / 200))],
        "negative": [rectangle(6, 9, lambda r, c: -1.0 - (r + c) % 3)],
        "nothing": [rectangle(6, 9, lambda r, c: 0.0 * (r + c))],
        "holes in the profile": [rectangle(4, 40, lambda r, c: np.where(c % 24 < 12, 20.0 + c % 5, 0.0) + 0 * r)],
        "one pixel": [rectangle(9, 9, lambda r, c: np.where((r == 95) & (c == 140), 500.0, 0.0))],
        "faint": [rectangle(5, 7, lambda r, c: 0.01 * ((r + c) % 2))],
        "plateaus": [rectangle(3, 60, lambda r, c: 20.0 * (c // 24 % 2) + 0 * r)],
        "peaks": [track(), track(slope=1.1, bumps=(10.0, 18.0, 30.0)), track(slope=0.0)],
        "equal integrals": [pair, diagonal, pair, diagonal, pair],
    }


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("case", corner_cases())
def test_corner_cases(program, case, recipe):
    assert_same(program, block_of([corner_cases()[case]]), parameters_of(recipe))


@pytest.mark.parametrize("which", ["highest", "last"])
@pytest.mark.parametrize("distance", [1.0, 4.5, 15.0])
def test_many_peaks_some_of_them_equal(program, distance, which):
    rng = np.random.default_rng(7)
    clusters = []
    for levels in (2, 3, 6, 200):
        heights = rng.integers(0, levels, 2000) * (60.0 / levels)
        clusters.append(rectangle(2, 60, lambda r, c, heights=heights: heights[c] + 0 * r))
    everything = {"bin_error_long": 1.0, "peak_height": 0.0, "peak_prominence": 0.0, "peak_width": 0.0}
    parameters = parameters_of("lime", **everything, peak_distance=distance, main_peak_is=which)
    table = assert_same(program, block_of([clusters]), parameters)
    assert (table["sc_lp0fwhm"] > 0).all()


OTHER_VALUES = [
    ("axes", "rowcol"),
    ("theta", "first"),
    ("axis_sign", "lapack"),
    ("pivot", "pixel"),
    ("profile_bins", "dropping"),
    ("map_collisions", "overwrite"),
    ("main_peak_is", "last"),
    ("peak_width_in", "bin"),
    ("faint_positions", "zero"),
    ("min_macropixels", 12),
    ("bin_error_long", 1.0),
    ("bin_error_lat", 0.05),
    ("peak_height", 3e3),
    ("peak_prominence", 1.5e3),
    ("peak_width", 0.0),
    ("peak_distance", 2.5),
    ("fit_mean_range", 0.01),
    ("fit_sigma_limit", 0.5),
    ("fit_max_steps", 2),
    ("faint_integral", 1e5),
    ("density_quadratic", 0.5),
]


@pytest.mark.parametrize(("name", "value"), OTHER_VALUES)
def test_every_parameter(program, name, value):
    rng = np.random.default_rng(3)
    frames = [[blob(rng, 8), track(), blob(rng, 80, spread=(9, 9)), blob(rng, 40, offset=-5.0)]]
    # Whole profiles do not depend on the pivot, and only positions that are set to zero on what is faint.
    recipe = "winter23" if name in ("pivot", "faint_integral") else "lime"
    table = assert_same(program, block_of(frames), parameters_of(recipe, **{name: value}))
    assert table.tobytes() != on_cpu(block_of(frames), 1, parameters_of(recipe))[0].tobytes()


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("recipe", RECIPES)
def test_other_sizes_of_macro_pixels(program, recipe, side):
    rng = np.random.default_rng(4)
    clusters = [blob(rng, 200, side=side), blob(rng, 30, side=side)]
    assert_same(program, block_of([clusters], side), parameters_of(recipe))


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_clusters_and_only_small_ones(program, recipe):
    parameters = parameters_of(recipe)
    assert len(assert_same(program, block_of([[], []]), parameters, 2)) == 0
    single = np.array([5]), np.array([7]), np.full((1, SIDE, SIDE), 50.0)
    assert len(assert_same(program, block_of([[], [single], [single, single]]), parameters, 3)) == 0
    mixed = block_of([[single, track(), single], [single], [track(slope=1.3), single]])
    assert len(assert_same(program, mixed, parameters, 3)) == 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_huge_cluster(program, recipe):
    """Two thousand macro-pixels in a ring: profiles of several tiles of bins, far from Gaussian."""
    rows, cols = np.mgrid[0:150, 0:150]
    inside = np.abs(np.hypot(rows - 75, cols - 75) - 70) < 2.5
    rng = np.random.default_rng(5)
    ring = rows[inside], cols[inside], rng.normal(15, 10, (np.count_nonzero(inside), SIDE, SIDE))
    assert_same(program, block_of([[ring]]), parameters_of(recipe))


@pytest.mark.parametrize("recipe", RECIPES)
def test_integral_and_angle_in_double_precision(program, recipe):
    """The integral is that of a plain loop to the last bit, since it orders the clusters."""
    rng = np.random.default_rng(8)
    block = block_of([[blob(rng, n, spread=(rng.uniform(1, 9), 4)) for n in (5, 30, 60, 90, 300)]])
    parameters = parameters_of(recipe)
    found = measure_block(program, *(program.xp.asarray(each) for each in block), **parameters)
    columns = {name: program.to_host(column) for name, column in found.columns.items()}
    for k, cluster in enumerate(program.to_host(found.order)):
        inside = slice(*block.offsets[cluster : cluster + 2])
        assert columns["sc_integral"][k] == np.cumsum(block.z[inside])[-1]
        axes = [block.cols[inside], block.rows[inside]]
        if parameters["axes"] == "rowcol":
            axes.reverse()
        *_, theta = principal_axis(*axes, parameters["axis_sign"] == "lapack", parameters["theta"] == "first")
        assert abs(columns["sc_theta"][k] - theta) <= THETA_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_cluster_of_100_000_macro_pixels(program, recipe):
    rng = np.random.default_rng(6)
    rows, cols, z = rectangle(310, 330, lambda r, c: np.exp(-((r - 700) ** 2) / 2e5) * (50 + 0.01 * c))
    assert_same(program, block_of([[(rows, cols, z + rng.normal(0, 5, z.shape))]]), parameters_of(recipe))


def test_the_kernels_number_the_columns_as_the_table_does():
    (text,) = re.findall(r"enum MeasureColumn \{(.*?)\}", source(), re.DOTALL)
    assert tuple(re.findall(r"\w+", text)) == COLUMNS
