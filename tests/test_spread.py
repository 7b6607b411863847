"""Blocks that are done by workers: in what order, and what becomes of faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from cygnoreco import Recipe, graph, open_run
from cygnoreco.graph import Work, choose_calibration, cut
from cygnoreco.io.parts import Receipt
from cygnoreco.spread import by_number
from tests.conftest import SmallRuns


@pytest.fixture
def work(small_runs: SmallRuns, tmp_path: Path) -> Work:
    run = open_run(small_runs.data)
    recipe = Recipe.load("lime").override(small_runs.settings)
    choice = choose_calibration(run.number, run.camera(), recipe, small_runs.pedestal, "none", folder=tmp_path)
    return Work(run.ref(), choice.reference, run.number, 10, str(tmp_path))


@pytest.fixture
def bounds(work: Work, small_runs: SmallRuns) -> list[tuple[int, int]]:
    return cut(small_runs.frames, 1)


def starts(work: Work, bounds: list[tuple[int, int]], client: Client) -> list[int]:
    return [made.start for made, _ in by_number(work, bounds, len(bounds), client, 1) if made is not None]


@pytest.fixture
def one_worker() -> Any:
    """A worker of one thread in this process, where its tasks can be disturbed."""
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        yield client


def test_workers_go_in_the_order_of_the_run(work: Work, bounds: list[tuple[int, int]], one_worker: Client) -> None:
    """Or merging, which follows it, would begin when all is done."""
    assert starts(work, bounds, one_worker) == sorted(first for first, _ in bounds)


def test_a_passing_fault_of_a_worker_is_tried_again(
    work: Work, bounds: list[tuple[int, int]], one_worker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, failed = graph.commit_block, []

    def at_second_try(work: Work, start: int, stop: int) -> Receipt:
        if start == 3 and len(failed) < 2:
            failed.append(start)
            raise OSError("input/output error")
        return commit(work, start, stop)

    monkeypatch.setattr(graph, "commit_block", at_second_try)
    assert sorted(starts(work, bounds, one_worker)) == [first for first, _ in bounds]
    assert failed == [3, 3]


def test_a_fault_that_stays_is_raised(
    work: Work, bounds: list[tuple[int, int]], one_worker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def never(work: Work, start: int, stop: int) -> Receipt:
        tries.append(start)
        raise OSError("input/output error")

    monkeypatch.setattr(graph, "commit_block", never)
    with pytest.raises(OSError, match="input/output"):
        starts(work, bounds[:1], one_worker)
    assert len(tries) == 3
