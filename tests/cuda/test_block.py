"""A whole block on the device against the chain: the same tables."""

from __future__ import annotations

import dataclasses
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import generated_response
from cygnoreco.chain import calibrate
from cygnoreco.chain import reconstruct_block as on_cpu
from cygnoreco.cuda.block import _Found, _tables, _wall_clock, planned_bytes, reconstruct_block, reconstruct_blocks
from cygnoreco.cuda.energy import SCRATCH_BYTES
from cygnoreco.cuda.variables import COLUMNS
from cygnoreco.recipe import Recipe
from cygnoreco.types import FRAME_DTYPE
from simulation.detector import Detector
from simulation.plan import demo_plan
from simulation.run import simulate_event
from tests.cuda.agreement import TOLERANCES, assert_columns_agree

SHAPE = (256, 320)
WINDOW = ("accept.xmax=none", "accept.ymin=none", "accept.ymax=none")
RUN = {"run": 11, "pedestal_run": 10}


@pytest.fixture(scope="module")
def frames():
    """Eight simulated frames; the third is dark, the fifth a spark, the sixth has a saturated spot on a track."""
    detector = Detector(height=SHAPE[0], width=SHAPE[1])
    plan = list(demo_plan(8, detector=detector))
    plan[2] = ()
    images = [
        simulate_event(event, detector=detector, seed=3, run=11, event=number)[0] for number, event in enumerate(plan)
    ]
    images[4] = images[4] + np.uint16(5000)
    images[5] = images[0].copy()
    images[5][images[5] > images[5].max() // 2] = 9000
    return np.stack(images)


@pytest.fixture(scope="module")
def pedestal():
    detector = Detector(height=SHAPE[0], width=SHAPE[1])
    dark = [simulate_event((), detector=detector, seed=3, run=10, event=event)[0] for event in range(12)]
    return Pedestal.from_frames([np.stack(dark)], run=10)


def rows_of(n, first=0):
    rows = np.zeros(n, FRAME_DTYPE)
    rows["event"] = np.arange(first, first + n)
    rows["serial"], rows["timestamp"] = rows["event"] + 100, rows["event"] + 1_700_000_000
    return rows


def prepared(pedestal, name, *settings):
    recipe = Recipe.load(name).override((*WINDOW, "spark.excess=9e7", *settings))
    return recipe, calibrate(pedestal, generated_response(SHAPE), recipe, "midas")


def assert_same_tables(ours, theirs):
    assert ours.events.tobytes() == theirs.events.tobytes()
    assert ours.redpix.tobytes() == theirs.redpix.tobytes()
    assert ours.vetoed == theirs.vetoed
    assert ours.clusters.dtype == theirs.clusters.dtype
    assert len(ours.clusters) == len(theirs.clusters)
    assert_columns_agree(ours.clusters, theirs.clusters)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lime", ()),
        ("winter23", ()),
        ("winter23", ("energy.enabled=true",)),
        ("lime", ("energy.enabled=true", "saturation.enabled=true", "rebin.factor=8")),
        ("mango", ()),
        ("lime", ("spark.keep_entry=false", "points.weights=unit", "median.enabled=false", "redpix.min_integral=0")),
    ],
)
def test_tables_are_those_of_the_chain(program, frames, pedestal, name, settings):
    recipe, calibration = prepared(pedestal, name, *settings)
    expected, _ = on_cpu(frames, rows_of(len(frames)), calibration, recipe, origin="midas", **RUN)
    found, seconds = reconstruct_block(
        frames, rows_of(len(frames)), calibration, recipe, program=program, origin="midas", **RUN
    )
    assert len(expected.clusters) > 5
    assert expected.vetoed == (4,)
    assert {int(each) for each in expected.events["quality"]} >= ({0, 1, 2} if len(expected.events) == 8 else {0, 2})
    assert_same_tables(found, expected)
    assert set(seconds) == {"copy in", "pedsub", "noisered", "DBSCAN", "variables", "copy out"}


def test_results_do_not_depend_on_the_blocks(program, frames, pedestal):
    recipe, calibration = prepared(pedestal, "lime")
    together, _ = reconstruct_block(frames, rows_of(8), calibration, recipe, program=program, origin="midas", **RUN)
    cuts = [(0, 3), (3, 4), (4, 8)]
    blocks = [(frames[start:stop], rows_of(stop - start, start)) for start, stop in cuts]
    pieces = list(reconstruct_blocks(blocks, calibration, recipe, program=program, origin="midas", **RUN))
    assert len(pieces) == 3
    for field in ("events", "clusters", "redpix"):
        joined = np.concatenate([getattr(piece, field) for piece in pieces])
        assert joined.tobytes() == getattr(together, field).tobytes(), field


@pytest.mark.parametrize("chosen", [[], [2], [4], [2, 4, 2]])
def test_blocks_without_a_cluster(program, frames, pedestal, chosen):
    """No frame, a dark one, a spark, and these together; no pixel survives."""
    recipe, calibration = prepared(pedestal, "lime", "suppress.nsigma=50")
    some = frames[chosen]
    expected, _ = on_cpu(some, rows_of(len(some)), calibration, recipe, origin="midas", **RUN)
    found, _ = reconstruct_block(some, rows_of(len(some)), calibration, recipe, program=program, origin="midas", **RUN)
    assert len(found.clusters) == 0
    assert_same_tables(found, expected)


def test_a_frame_full_of_points(program, pedestal):
    recipe, calibration = prepared(pedestal, "lime", "spark.excess=1e12")
    bright = np.full((1, *SHAPE), 400, np.uint16)
    expected, _ = on_cpu(bright, rows_of(1), calibration, recipe, origin="root", **RUN)
    found, _ = reconstruct_block(bright, rows_of(1), calibration, recipe, program=program, origin="root", **RUN)
    assert expected.events["lp_len"][0] > 4000
    assert_same_tables(found, expected)


@pytest.mark.parametrize("name", ["lime", "winter23"])
def test_planned_memory_is_enough_for_a_frame_full_of_points(program, pedestal, name):
    if program.xp is not np:
        pytest.skip("counts the arrays of NumPy")
    recipe, calibration = prepared(pedestal, name, "spark.excess=1e12", "energy.enabled=true")
    bright = np.full((3, *SHAPE), 400, np.uint16)
    tracemalloc.start()
    try:
        reconstruct_block(bright, rows_of(3), calibration, recipe, program=program, origin="root", **RUN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    planned = planned_bytes(SHAPE, 3, recipe) - SCRATCH_BYTES
    assert 0.4 * planned < peak < planned


def test_calibration_is_uploaded_once(program, frames, pedestal, monkeypatch):
    from cygnoreco.cuda import block

    recipe, calibration = prepared(pedestal, "lime")
    uploads = []
    upload = block.upload_maps
    monkeypatch.setattr(block, "upload_maps", lambda *arguments: uploads.append(1) or upload(*arguments))
    for _ in range(3):
        reconstruct_block(frames[:1], rows_of(1), calibration, recipe, program=program, origin="midas", **RUN)
    assert len(uploads) == 1
    other = dataclasses.replace(calibration)
    reconstruct_block(frames[:1], rows_of(1), other, recipe, program=program, origin="midas", **RUN)
    assert len(uploads) == 2


def test_the_documentation_quotes_the_tolerances():
    text = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()
    quoted = {name: float(value) for name, value in re.findall(r"`(\w+_TOLERANCE)` = (\S+)", text)}
    assert quoted == TOLERANCES


def test_a_number_beyond_single_precision_is_infinite_and_nobody_is_warned():
    table = np.zeros((len(COLUMNS), 1))
    table[COLUMNS.index("sc_lgaussamp")] = -1e300
    found = _Found(
        np.zeros((6, 1)),
        table,
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
        np.ones(1, np.int64),
        lambda clusters, begins, size: (np.zeros(size),) * 3,
        4,
    )
    tables = _tables(found, rows_of(1), SHAPE, Recipe.load("lime"), _wall_clock(Counter()), 11, 10)
    assert tables.clusters["sc_lgaussamp"].tolist() == [-np.inf]
