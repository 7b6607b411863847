"""Many runs at once on the workers of a client."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dask
import distributed  # has defaults of its own, which must be there before some are changed
import pytest

from clusters.local import local_client
from cygnoreco import load_tables, reconstruct
from cygnoreco.campaign import Order, Outcome, Standing, reconstruct_many
from cygnoreco.errors import DataError, InputError, TransientError
from cygnoreco.io.opening import open_source
from cygnoreco.recipe import Recipe
from tests.conftest import SmallRuns


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with local_client(2) as client:
        assert client is not None
        yield client


@pytest.fixture
def order(small_runs: SmallRuns, tmp_path: Path) -> Order:
    recipe = Recipe.load("lime").override(list(small_runs.settings))
    return Order(small_runs.pedestal, tmp_path / "out", recipe, small_runs.response, block=4)


@pytest.fixture
def seen(small_runs: SmallRuns) -> Path:
    """A run whose index is known, so that its blocks are tasks of their own."""
    _ = open_source(small_runs.data).cameras
    return small_runs.data


def copies(run: Path, folder: Path, n: int) -> list[Path]:
    """The same run under other names: the workers have not seen them."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index}-{run.name}" for index in range(n)]
    for path in paths:
        path.write_bytes(run.read_bytes())
    return paths


def files(out: Path) -> dict[str, str]:
    """SHA-256 of every file of a result but its summary, by place."""
    found = sorted(
        path for path in out.glob("datasets/*/result/**/*") if path.is_file() and path.name != "summary.json"
    )
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def plain(run: Path, order: Order, out: Path) -> dict[str, str]:
    """Files of the run reconstructed in this process."""
    reconstruct(run, pedestal=order.pedestal, response=order.response, recipe=order.recipe, out=out)
    return files(out)


def only(outcomes: Iterator[Outcome]) -> Outcome:
    (outcome,) = outcomes
    return outcome


def test_a_known_run_is_done_block_by_block(
    client: distributed.Client, order: Order, seen: Path, tmp_path: Path
) -> None:
    standings: list[Standing] = []
    outcome = only(reconstruct_many([seen], order, client, watch=standings.append))
    assert outcome.error is None
    assert outcome.summary is not None
    assert (outcome.summary["status"], outcome.summary["frames"], outcome.resumed) == ("good", 14, 0)
    last = standings[-1]
    assert (last.runs, last.total, last.frames, last.known, last.blocks, last.waiting) == (1, 1, 14, 14, 4, 0)
    assert last.bytes == 14 * 256 * 320 * 2
    assert last.seconds["read"] > 0
    assert (last.going, last.resumed) == ((), 0)
    going = [each for standing in standings for each in standing.going]
    assert going
    assert all((each.path, each.known) == (str(seen), 14) and each.frames <= 14 for each in going)
    assert files(order.out) == plain(seen, order, tmp_path / "plain")


def test_a_run_that_nobody_has_read_is_done_while_it_is_read(
    client: distributed.Client, order: Order, small_runs: SmallRuns, tmp_path: Path
) -> None:
    paths = copies(small_runs.data, tmp_path / "copies", 1)
    os.utime(paths[0], (1, 1))
    content = paths[0].read_bytes()
    paths[0].write_bytes(content + b"\0")  # another content: a trailing fault, and no index in any cache
    standings: list[Standing] = []
    outcome = only(reconstruct_many(paths, order, client, watch=standings.append))
    assert outcome.error is None
    assert standings[-1].frames == 14
    assert files(order.out) == plain(paths[0], order, tmp_path / "plain")


def test_a_bad_run_stops_no_other(client: distributed.Client, order: Order, seen: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "run00012.mid.gz"
    nothing.write_bytes(b"no run")
    outcomes = {
        Path(each.path).name: each for each in reconstruct_many([tmp_path / "no.mid.gz", nothing, seen], order, client)
    }
    assert outcomes[seen.name].error is None
    assert isinstance(outcomes["no.mid.gz"].error, InputError)
    assert isinstance(outcomes["run00012.mid.gz"].error, DataError)


def test_what_is_done_is_not_done_again(client: distributed.Client, order: Order, seen: Path) -> None:
    only(reconstruct_many([seen], order, client))
    standings: list[Standing] = []
    outcome = only(reconstruct_many([seen], order, client, watch=standings.append))
    assert (outcome.resumed, standings[-1].blocks) == (14, 0)


def test_committed_blocks_are_not_done_again(client: distributed.Client, order: Order, seen: Path) -> None:
    campaign = reconstruct_many([seen], replace(order, strict=False), client, watch=_stop_at_a_block)
    with pytest.raises(_StoppedError):
        list(campaign)
    standings: list[Standing] = []
    outcome = only(reconstruct_many([seen], order, client, watch=standings.append))
    assert outcome.resumed >= 4
    assert standings[-1].resumed == outcome.resumed
    assert standings[-1].blocks <= 3


class _StoppedError(Exception):
    pass


def _stop_at_a_block(standing: Standing) -> None:
    if standing.blocks:
        raise _StoppedError


def test_force_does_everything_again(client: distributed.Client, order: Order, seen: Path) -> None:
    only(reconstruct_many([seen], order, client))
    before = files(order.out)
    standings: list[Standing] = []
    outcome = only(reconstruct_many([seen], replace(order, force=True), client, watch=standings.append))
    assert (outcome.resumed, standings[-1].blocks) == (0, 4)
    assert files(order.out) == before


def test_one_camera_can_be_asked_for(client: distributed.Client, order: Order, seen: Path) -> None:
    assert only(reconstruct_many([seen], order, client, camera="CAM0")).camera == "CAM0"
    wrong = only(reconstruct_many([seen], order, client, camera="CAM7"))
    assert isinstance(wrong.error, InputError)


DEADLY = """
import os
import threading
from pathlib import Path
from cygnoreco import graph

commit_block = graph.commit_block

def commit(work, start, stop):
    if start <= int(Path(__file__).with_name("frame").read_text()) < stop:
        os._exit(137)
    return commit_block(work, start, stop)

graph.commit_block = commit
"""


@pytest.mark.slow
def test_a_frame_of_which_workers_die_is_set_aside(
    order: Order, seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DEADLY)  # for every Python that the workers are, and start
    (tmp_path / "frame").write_text("6")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    standings: list[Standing] = []
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), local_client(2) as client:
        assert client is not None
        outcome = only(reconstruct_many([seen], order, client, watch=standings.append))
    assert outcome.error is None
    assert outcome.summary is not None
    (fault,) = outcome.summary["faults"]
    assert (fault["kind"], fault["frame"]) == ("quarantined", 6)
    assert "exit code 137" in fault["message"]
    assert (outcome.summary["status"], outcome.summary["frames"]) == ("bad events", 13)
    assert standings[-1].retried >= 1  # an innocent block may have been at hand
    assert (standings[-1].quarantined, standings[-1].frames) == (1, 14)
    assert load_tables(order.out / "reco_run00011_3D.root").events["event"].tolist() == [*range(6), *range(7, 14)]


def test_a_cluster_without_hope_ends_what_is_left(order: Order, seen: Path, tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as idle,
    ):
        cluster.fault = TransientError("no worker came")  # type: ignore[attr-defined]
        outcomes = list(reconstruct_many([seen, tmp_path / "other.mid.gz"], order, idle))
    assert [str(each.error) for each in outcomes] == ["no worker came"] * 2


def test_a_block_of_no_frames_is_refused(client: distributed.Client, order: Order, seen: Path) -> None:
    with pytest.raises(InputError, match="block = 0"):
        list(reconstruct_many([seen], replace(order, block=0), client))


def test_blocks_that_do_not_fit_a_worker_are_refused(order: Order, seen: Path) -> None:
    watched = dict.fromkeys((f"distributed.worker.memory.{what}" for what in ("target", "spill", "pause")), False)
    with (
        dask.config.set(watched),  # what the whole process of the tests has is no matter
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit="400MB", processes=False
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as small,
    ):
        (outcome,) = reconstruct_many([seen], replace(order, block=5000), small)
    assert isinstance(outcome.error, InputError)
    assert "block" in str(outcome.error)


@pytest.mark.slow
def test_a_frame_of_which_workers_die_in_a_run_that_nobody_has_read(
    order: Order, small_runs: SmallRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        DEADLY.replace("commit_block", "make_part")
        .replace(
            "def commit(work, start, stop):\n    if start <=",
            "def commit(block, *more):\n    start, stop = block.start, block.stop\n    if start <=",
        )
        .replace("return make_part(work, start, stop)", "return make_part(block, *more)")
        + "\nfrom cygnoreco import spread\nspread.make_part = commit\n"
    )
    (tmp_path / "frame").write_text("6")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    standings: list[Standing] = []
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), local_client(1) as client:
        assert client is not None
        outcome = only(reconstruct_many([small_runs.data], order, client, watch=standings.append))
    assert outcome.error is None
    assert outcome.summary is not None
    assert [(fault["kind"], fault["frame"]) for fault in outcome.summary["faults"]] == [("quarantined", 6)]
    assert outcome.summary["frames"] == 13


def test_a_run_that_another_process_works_on_is_tried_again(
    client: distributed.Client, order: Order, seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(reconstruct_many([seen], order, client))
    (folder,) = order.out.glob("datasets/*")
    standings: list[Standing] = []
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        threading.Timer(1.0, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        outcome = only(reconstruct_many([seen], replace(order, force=True), client, watch=standings.append))
    assert outcome.error is None
    assert standings[-1].blocks == 4


def test_what_never_passes_is_an_error_of_its_run(
    client: distributed.Client, order: Order, seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cygnoreco.campaign._TRIES", 2)
    monkeypatch.setattr("cygnoreco.campaign._PAUSE", 0.1)
    only(reconstruct_many([seen], order, client))
    (folder,) = order.out.glob("datasets/*")
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        outcome = only(reconstruct_many([seen], replace(order, force=True), client))
    assert isinstance(outcome.error, TransientError)
    assert "another process is at work" in str(outcome.error)
