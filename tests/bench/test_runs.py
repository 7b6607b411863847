"""The tasks that measure whole runs do their work, here on a small sensor, and give what their tables show."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from bench import cases, end_to_end, scaling, scenes
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import generated_response
from cygnoreco.chain import calibrate
from cygnoreco.io.source import beginning_of
from cygnoreco.recipe import Recipe


@pytest.fixture
def recipe(small_runs, monkeypatch):
    """The recipe of every measurement, made to fit the small sensor."""
    fitting = Recipe.load("lime").override(list(small_runs.settings))
    monkeypatch.setattr(Recipe, "load", lambda _: fitting)
    return fitting


@pytest.fixture
def folder(small_runs, recipe, tmp_path):
    """The runs where ``bench.end_to_end`` makes them, and the pedestal of its first task."""
    shutil.copy(small_runs.pedestal, tmp_path / "run05000.mid.gz")
    shutil.copy(small_runs.data, tmp_path / end_to_end.CONTAINERS["gzip-1"])
    made = end_to_end.task_pedestal(str(tmp_path))
    assert made["frames"] == 12
    assert made["cpu_s"] > 0
    return tmp_path


@pytest.fixture
def path(folder, recipe, monkeypatch):
    """A run for ``bench.scaling``, whose pedestal is not simulated."""
    pedestal = Pedestal.load(folder / "pedestal.npz")
    prepared = scenes.Prepared(recipe, calibrate(pedestal, generated_response(pedestal.mean.shape), recipe, "midas"))
    monkeypatch.setattr(scenes, "pedestal", lambda: pedestal)
    monkeypatch.setattr(scenes, "prepared", lambda *_: prepared)
    return folder / end_to_end.CONTAINERS["gzip-1"]


@pytest.mark.parametrize(("first", "block"), [(True, 4), (False, 1)])
def test_a_run_from_end_to_end(folder, small_runs, first, block):
    found = end_to_end.task_run(str(folder), "gzip-1", "lime", block, first=first)
    assert found["frames"] == small_runs.frames
    assert found["mean_ms"] > 0
    assert found["median_ms"] <= found["p90_ms"]
    assert found["clusters"] > 0
    # Frame by frame, all are sorted but those that wait for the start.
    by_class = sum(each["frames"] for each in found["by_class"].values())
    assert by_class == 0 if block > 1 else by_class >= small_runs.frames - 2
    assert (folder / "index-run").exists() != first, "a first pass leaves no index behind"
    json.dumps(found)


def test_reading(folder):
    found = end_to_end.task_read(str(folder), "gzip-1", 4)
    assert found["first_ms"] > 0
    assert found["read_ms"] > 0


@pytest.fixture
def all_cores_again():
    """Give back the cores that a measurement does without."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("all_cores_again")
@pytest.mark.parametrize(("kind", "cores"), [("threads", 1), ("first pass", 2)])
def test_workers(path, kind, cores):
    found = scaling.task_workers(str(path), kind, cores, 4, "lime")
    assert len(os.sched_getaffinity(0)) <= cores
    assert found["run_s"] > 0
    assert found["start_s"] == 0


@pytest.mark.parametrize("unread", [False, True])
def test_the_command_in_a_fresh_process(path, tmp_path, unread):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'name = "small"\nextends = "lime"\nvignetting = "none"\n[accept]\nxmax = "none"\nymin = "none"\nymax = "none"\n'
    )
    found = scaling.whole(path, 1, str(recipe), unread=unread)
    assert found["total_s"] > found["start_s"] > 0
    assert (path.parent / "cache").exists() != unread


def test_overhead(path):
    (found,) = scaling.task_overhead([str(path)], 4, "lime")
    assert set(found) == {"driver_s", "loop_s", "dask_s", "parts_s"}
    assert min(found.values()) > 0


def test_blocks(path):
    found = scaling.task_block(str(path), 4)
    assert found["run_s"] > 0
    assert found["mb"] >= found["import_mb"] > 0


def test_an_unread_run_is_read_from_its_beginning(path, monkeypatch):
    """Each time: what the process or its cache remember of the file would be another measurement."""
    passes = []
    reconstruct = cases.reconstruct

    def watched(run, **options):
        passes.append(beginning_of(run.source) is not None)
        return reconstruct(run, **options)

    monkeypatch.setattr(cases, "reconstruct", watched)
    work = cases.driver(path, block=4, unread=True)
    work(), work()
    assert passes == [True, True]
