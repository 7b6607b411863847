"""Memory of a block: its sum from shapes and types, what is refused, and the peaks of real processes."""

from __future__ import annotations

import re
from dataclasses import astuple
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest

from bench import memory
from cygnoreco import plan
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import flat_response
from cygnoreco.chain import calibrate, reconstruct_block
from cygnoreco.device import USABLE, planned_bytes
from cygnoreco.errors import InputError
from cygnoreco.io import root_tables, streams, zarr_tables
from cygnoreco.kernels import scratch
from cygnoreco.plan import CROWDED, MIB, NOISE, Memory, Occupancy, check_memory, projected_memory
from cygnoreco.recipe import Recipe
from cygnoreco.types import FRAME_DTYPE, Camera

LIME = Camera("CAM0", 2304, 2304)
SMALL = Camera("CAM0", 64, 480)  # the last strip of a row is not full
RECIPE = Recipe.load("lime")

RECIPES = {
    "double precision": RECIPE,
    "single precision": RECIPE.override(["precision=float32"]),
    "plain stages": RECIPE.override(["saturation.enabled=true"]),
    "other macro-pixels": RECIPE.override(["rebin.factor=2"]),
    "winter23": Recipe.load("winter23"),
    "energy": RECIPE.override(["energy.enabled=true"]),
}


@pytest.fixture(params=RECIPES)
def recipe(request):
    return RECIPES[request.param]


def total(block, recipe=RECIPE, **options):
    return projected_memory(LIME, block, recipe, **options).total


def test_more_needs_more(recipe):
    for role in ("worker", "driver", "campaign"):
        blocks = [total(block, recipe, role=role) for block in range(1, 40)]
        assert blocks == sorted(blocks)
        assert blocks[0] < blocks[-1]
        threads = [total(8, recipe, role=role, threads=count) for count in (1, 2, 3, 16)]
        assert threads == sorted(set(threads))
        occupancies = [total(8, recipe, role=role, occupancy=each) for each in (Occupancy(0, 0), NOISE, CROWDED)]
        assert occupancies == sorted(set(occupancies))
    assert total(8, recipe, role="worker") < total(8, recipe) < total(8, recipe, role="campaign")
    for option in ({"compiled": False}, {"remote": True}):
        assert total(8, recipe) < total(8, recipe, **option)
    assert total(8, recipe, inflates=False) < total(8, recipe)


def test_the_peak_is_not_the_sum_of_what_is_there_at_different_times():
    small, large = (projected_memory(LIME, block, RECIPE, role="worker") for block in (1, 16))
    assert small.total == sum(astuple(small)) - small.images - small.scratch - small.tables
    assert large.total == sum(astuple(large)) - large.calibrating


def test_a_frame_has_no_more_points_than_macro_pixels():
    everything = SMALL.height * SMALL.width // 16
    options = {"role": "worker"}
    at_most = projected_memory(SMALL, 8, RECIPE, **options, occupancy=Occupancy(everything, 100))
    assert projected_memory(SMALL, 8, RECIPE, **options, occupancy=Occupancy(10**9, 100)) == at_most
    assert at_most.tables == 2 * 8 * (plan.EVENT_DTYPE.itemsize + 100 * 156 + 12 * SMALL.height * SMALL.width)


def calibration_of(camera, recipe, *, maps):
    pedestal = Pedestal(np.full(camera.shape, 99.5), np.full(camera.shape, 2.0))
    return calibrate(pedestal, flat_response(camera.shape), recipe, "midas", maps=maps)


def test_arrays_are_those_of_the_code(recipe):
    """Calibration, frames and images of a block are the very bytes that are allocated; scratch is no more."""
    fitting = recipe.override(["accept.xmax=none", "accept.ymin=none", "accept.ymax=none"])
    calibration = calibration_of(SMALL, fitting, maps=plan.needs_maps(plan.Device("cpu"), fitting))
    frames = np.random.default_rng(1).poisson(100, (3, *SMALL.shape)).astype(np.uint16)
    kept, found = {}, []

    def work():
        rows = np.zeros(3, FRAME_DTYPE)
        found.append(reconstruct_block(frames, rows, calibration, fitting, origin="midas", run=1, pedestal_run=0)[0])
        kept.update({name: each.nbytes for name, each in scratch._memory.__dict__.items()})

    thread = Thread(target=work)  # what a thread keeps is its own
    thread.start()
    thread.join()
    events = found[0].events
    occupancy = Occupancy(int(events["lp_len"].max()), int(events["nSc"].max()))
    assert occupancy.points > 100
    planned = projected_memory(SMALL, 3, fitting, role="worker", occupancy=occupancy)

    arrays = [calibration.factor, calibration.cuts.threshold, *(calibration.pedestal or ())]
    if calibration.cuts.planes is not None:
        arrays.append(calibration.cuts.planes)
    assert planned.calibration == sum(each.nbytes for each in arrays)
    assert planned.frames == frames.nbytes
    images = sum(kept.pop(name, 0) for name in ("chain.picture", "chain.edges", "image.columns", "image.state"))
    if images:
        assert planned.images == images
        assert planned.plain == 0
    else:  # the plain stages have arrays of their own: those of the frames, and of all
        assert planned.images == 2 * 2 * 8 * frames.size // fitting["rebin"]["factor"] ** 2
        assert planned.plain == 9 * 8 * SMALL.height * SMALL.width
    some_rows = 2**15  # of the frame that the section is at
    assert sum(kept.values()) <= planned.scratch + some_rows
    assert 2 * sum(each.nbytes for each in (events, found[0].clusters, found[0].redpix)) <= planned.tables


def test_numbers_of_other_modules():
    """They are written down again where importing those modules would take long."""
    assert plan._WAITING_PIXELS == root_tables.BASKET_PIXELS == zarr_tables.CHUNK
    assert plan._WAITING_EVENTS == root_tables.BASKET_EVENTS
    assert plan._EVENTS_KEPT == streams._KEPT


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_that_do_not_fit_are_refused_with_the_largest_that_does(threads):
    options = {"threads": threads, "role": "worker"}
    for fits in (1, 5, 30):
        available = total(fits, **options)
        planned = check_memory(LIME, fits, RECIPE, available=available, **options)
        assert planned == projected_memory(LIME, fits, RECIPE, **options)
        for block in (fits + 1, 31, 10**9):
            with pytest.raises(InputError, match=f"largest block that fits has {fits}(;|$)"):
                check_memory(LIME, block, RECIPE, available=available, **options)
        short = f"largest block that fits has {fits - 1}(;|$)" if fits > 1 else "not even a block of one frame fits"
        with pytest.raises(InputError, match=short):
            check_memory(LIME, fits, RECIPE, available=available - 1, **options)


def test_what_is_said():
    needed, one = (-(-total(block, role="worker") // MIB) for block in (16, 1))
    with pytest.raises(InputError) as refused:
        check_memory(LIME, 16, RECIPE, available=700 * MIB, role="worker")
    assert str(refused.value) == (
        f"blocks of 16 frames of 2304 x 2304 pixels, 1 at a time, may need {needed} MiB, and there are 700 MiB; "
        "the largest block that fits has 8"
    )
    with pytest.raises(InputError) as refused:
        check_memory(LIME, 16, RECIPE, available=300 * MIB, role="worker")
    assert str(refused.value).endswith(
        f"there are 300 MiB; not even a block of one frame fits, which may need {one} MiB"
    )
    with pytest.raises(InputError, match=r"2 at a time.*; fewer --threads need less$"):
        check_memory(LIME, 16, RECIPE, available=700 * MIB, threads=2, role="worker")
    # By a single byte: both numbers are whole, and still it looks as if it did not fit.
    with pytest.raises(InputError) as refused:
        check_memory(LIME, 16, RECIPE, available=total(16) - 1)
    may_need, there = map(int, re.search(r"may need (\d+) MiB, and there are (\d+)", str(refused.value)).groups())
    assert may_need > there


def test_a_gpu_is_planned_by_its_own_rules(monkeypatch):
    """No GPU need be there, since jobs are planned elsewhere."""
    needed = planned_bytes(LIME, 16, RECIPE)
    for name in ("cuda", "cuda:3"):
        planned = projected_memory(LIME, 16, RECIPE, device=name, threads=2)
        assert planned == Memory(gpu=2 * needed)
        assert planned.total == 2 * needed
    enough = int(needed / USABLE) + 1
    assert check_memory(LIME, 16, RECIPE, available=enough, device="cuda") == Memory(gpu=needed)
    with pytest.raises(InputError, match=r"may need .* GiB on cuda:1, .* largest block that fits has 16"):
        check_memory(LIME, 17, RECIPE, available=enough, device="cuda:1")
    with pytest.raises(InputError, match="float64 only"):
        check_memory(LIME, 1, RECIPES["single precision"], available=enough, device="cuda")
    for name in ("gpu", "cuda:x", "cuda0"):
        with pytest.raises(InputError, match=f"unknown device '{name}'"):
            projected_memory(LIME, 16, RECIPE, device=name)
    monkeypatch.setattr(plan, "resolve_device", lambda name: plan.Device("cuda", 0) if name == "auto" else None)
    assert projected_memory(LIME, 16, RECIPE, device="auto") == Memory(gpu=needed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of full frames, and processes that find compiled kernels."""
    folder = tmp_path_factory.mktemp("memory")
    memory.make_runs(folder, ("few", "crowded"), frames=16)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in memory.ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        memory.measure(folder, memory.Case("worker", "crowded", "float64", 1))
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 4, 8, 16])
@pytest.mark.parametrize("occupancy", ["few", "crowded"])
def test_the_peak_of_a_real_process_is_what_was_projected(folder, occupancy, block):
    found = memory.measure(folder, memory.Case("worker", occupancy, "float64", block))
    assert 1.0 <= found.ratio <= 1.3, found


@pytest.mark.slow
def test_the_peak_of_a_process_that_does_a_whole_run(folder):
    found = memory.measure(folder, memory.Case("driver", "crowded", "float64", 8, unread=True))
    assert 1.0 <= found.ratio <= 1.3, found
    # Whether two threads are at their peaks at the same time is chance.
    assert memory.measure(folder, memory.Case("driver", "crowded", "float64", 4, threads=2)).ratio >= 1.0


def test_what_there_is_is_no_more_than_the_machine_has_and_the_group_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_CGROUPS", tmp_path)
    whole = plan.available_memory()
    assert 0 < whole <= psutil.virtual_memory().total
    for name, text in (("max", "1000000"), ("current", "400000"), ("stat", "anon 1\ninactive_file 100000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert abs(plan.available_memory() - psutil.Process().memory_info().rss - 700_000) < 50e6
    (tmp_path / "memory.max").write_text("max\n")
    assert plan.available_memory() > 1e8
