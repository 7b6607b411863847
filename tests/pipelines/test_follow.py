"""Campaigns whose scheduler runs in a job of a real pool: followed, lost, held, stopped, and gone on with."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusters.pool import Pool
from pipelines.cli.record import append_outcome, read_outcomes, read_standing
from tests.conftest import SmallRuns
from tests.pipelines.conftest import Command, Start, content, parts, reco_options
from tests.services.condor import run_tool, wait_until

pytestmark = pytest.mark.slow

SITE = """\
kind = "htcondor"
[pool]
config = {config}
[job]
memory = "1 GB"
disk = "100 MB"
{job}
[scheduler]
where = "pool"
host = "127.0.0.1"
memory = "1 GB"
[limits]
interval = 0.5
connect = 20
steady = 20
failures = 3
backoff = 0.5
backoff_max = 1
lease = 10
close = 20
"""


@pytest.fixture
def site(condor_pool: Pool, tmp_path: Path) -> Iterator[Path]:
    """Site of the pool with the scheduler inside; at the end of the test its queue is empty."""
    yield written(condor_pool, tmp_path / "inside.toml")
    wait_until(lambda: queue(condor_pool) == [], f"an empty queue: {queue(condor_pool)}", 20)


def written(pool: Pool, path: Path, job: str = "") -> Path:
    path.write_text(SITE.format(config=json.dumps(str(pool.config)), job=job))
    return path


def queue(pool: Pool, *more: str) -> list[str]:
    """Jobs in the queue: number, and slot."""
    return run_tool(pool, "condor_q", "-all", *more, "-af:j", "CygnoWorker").splitlines()


def driver_jobs(pool: Pool) -> list[str]:
    """Numbers of the jobs of campaigns that run."""
    running = queue(pool, "-constraint", 'CygnoWorker == "driver" && JobStatus == 2')
    return [line.split()[0] for line in running]


def results(out: Path) -> dict[str, str]:
    """Hash of every file of the results; the logs of jobs and the files of campaigns are none."""
    return {name: each for name, each in content(out).items() if not name.startswith(("jobs/", "campaigns/"))}


def only_campaign(out: Path) -> Path:
    (folder,) = (out / "campaigns").iterdir()
    return folder


@pytest.fixture
def plain(small_runs: SmallRuns, tmp_path: Path, call: Command) -> dict[str, str]:
    """Hashes of what ``reco`` makes in this process."""
    out = tmp_path / "plain"
    assert call("reco", small_runs.data, *reco_options(small_runs, out, "-q")).code == 0
    return results(out)


#: So many that there is time for a fault on the way.
FRAMES = 400


@pytest.fixture(scope="module")
def longer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run 22 of the same camera."""
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import write_run

    path = tmp_path_factory.mktemp("longer") / "run00022.mid.gz"
    detector = Detector(height=256, width=320)
    write_run(path, run=22, events=demo_plan(FRAMES, detector=detector), detector=detector)
    return path


@pytest.fixture
def long_command(small_runs: SmallRuns, longer_run: Path, tmp_path: Path, site: Path) -> list[Any]:
    """A command that takes some seconds, in blocks of one frame; nobody has read the run."""
    run = tmp_path / longer_run.name
    shutil.copy(longer_run, run)
    options = ["--block", 1, "--workers", 1, "--site", site]
    return ["reco", run, *reco_options(small_runs, tmp_path / "out", *options)]


def test_a_campaign_inside_makes_the_same_files_and_is_not_done_twice(
    small_runs: SmallRuns, tmp_path: Path, site: Path, plain: dict[str, str], call: Command, condor_pool: Pool
) -> None:
    out = tmp_path / "out"
    arguments = ["reco", small_runs.data, *reco_options(small_runs, out, "--site", site, "--json")]
    first = call(*arguments)
    assert first.code == 0, first.err
    (summary,) = first.document()
    assert (summary["frames"], summary["resumed_frames"]) == (14, 0)
    assert results(out) == plain
    folder = only_campaign(out)
    assert f"cygnoreco campaign follow {out} {folder.name}" in first.err
    wait_until(lambda: queue(condor_pool) == [], "an empty queue")

    begun = read_standing(folder)["begun"]
    assert call(*arguments).document() == first.document()
    assert call("campaign", "follow", out, "--json").document() == first.document()
    assert read_standing(folder)["begun"] == begun, "nothing was submitted"
    (listed,) = call("campaign", "list", out, "--json").document()
    assert (listed["state"], listed["runs"], listed["frames"]) == ("ended", 1, 14)
    assert folder.name in call("campaign", "list", out).out

    shutil.rmtree(next((out / "datasets").iterdir()))
    again = call(*arguments)
    assert again.code == 0, again.err
    assert read_standing(folder)["begun"] > begun
    assert results(out) == plain


def test_a_killed_follower_stops_nothing(
    small_runs: SmallRuns, long_command: list[Any], tmp_path: Path, call: Command, start: Start, condor_pool: Pool
) -> None:
    out = tmp_path / "out"
    running = start(*long_command)
    running.wait_until(lambda: len(parts(out)) >= 8)
    running.signal_group(signal.SIGKILL)
    assert running.outcome().code == -signal.SIGKILL
    assert not list(out.glob("*.root"))
    attached = call(*long_command, "--json")
    assert attached.code == 0, attached.err
    (summary,) = attached.document()
    assert summary["frames"] == FRAMES
    assert read_standing(only_campaign(out))["starts"] == 1


def test_a_campaign_ends_by_itself_when_nobody_follows_it(
    long_command: list[Any], tmp_path: Path, call: Command, start: Start, condor_pool: Pool
) -> None:
    out = tmp_path / "out"
    running = start(*long_command)
    running.wait_until(lambda: bool(driver_jobs(condor_pool)))
    running.signal_group(signal.SIGINT)
    outcome = running.outcome()
    folder = only_campaign(out)
    assert outcome.code == 130
    assert f"campaign {folder.name} goes on" in outcome.err
    assert f"cygnoreco campaign stop {out} {folder.name}" in outcome.err
    wait_until(lambda: read_standing(folder).get("state") == "ended", "the end of the campaign", 50)
    wait_until(lambda: queue(condor_pool) == [], "an empty queue")
    (summary,) = call("campaign", "follow", out, folder.name[:4], "--json").document()
    assert summary["frames"] == FRAMES


def test_two_of_the_same_command_follow_one_campaign(
    long_command: list[Any], tmp_path: Path, start: Start, condor_pool: Pool
) -> None:
    outcomes = [running.outcome() for running in [start(*long_command, "--json") for _ in range(2)]]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].out == outcomes[1].out
    assert read_standing(only_campaign(tmp_path / "out"))["starts"] == 1
    submitted = run_tool(
        condor_pool, "condor_history", "-constraint", f'CygnoCluster == "{tag_of(tmp_path)}"', "-af", "ClusterId"
    )
    assert len(submitted.splitlines()) == 1


def tag_of(folder: Path) -> str:
    return f"campaign-{only_campaign(folder / 'out').name}"


def test_ctrl_c_with_the_scheduler_outside_tidies_up(
    long_command: list[Any], tmp_path: Path, start: Start, site: Path
) -> None:
    inside = 'where = "pool"\nhost = "127.0.0.1"\nmemory = "1 GB"\n'
    site.write_text(site.read_text().replace(inside, 'host = "127.0.0.1"\n'))
    running = start(*long_command)
    running.wait_until(lambda: len(parts(tmp_path / "out")) >= 8)
    running.signal_group(signal.SIGINT)
    outcome = running.outcome()
    assert outcome.code == 130
    assert "interrupted: 0 of 1 runs have ended" in outcome.err


def test_a_removed_job_is_submitted_again(
    long_command: list[Any], tmp_path: Path, start: Start, condor_pool: Pool
) -> None:
    out = tmp_path / "out"
    running = start(*long_command, "--json")
    running.wait_until(lambda: len(parts(out)) >= 8)
    (job,) = driver_jobs(condor_pool)
    run_tool(condor_pool, "condor_rm", job, "-reason", "taken by the operator")
    outcome = running.outcome()
    assert outcome.code == 0, outcome.err
    assert f"job {job} has left the queue: removed: taken by the operator" in outcome.err
    (summary,) = json.loads(outcome.out)
    assert summary["frames"] == FRAMES
    assert summary["resumed_frames"] >= 8
    assert read_standing(only_campaign(out))["starts"] == 2


def test_a_job_that_dies_is_started_again_by_the_pool(
    long_command: list[Any], tmp_path: Path, start: Start, condor_pool: Pool
) -> None:
    out = tmp_path / "out"
    running = start(*long_command, "--json")
    running.wait_until(lambda: len(parts(out)) >= 8)
    (job,) = driver_jobs(condor_pool)
    run_tool(condor_pool, "condor_vacate_job", "-fast", job)
    outcome = running.outcome()
    assert outcome.code == 0, outcome.err
    (summary,) = json.loads(outcome.out)
    assert summary["frames"] == FRAMES
    standing = read_standing(only_campaign(out))
    assert (standing["state"], standing["starts"]) == ("ended", 2)


def test_a_held_job_is_an_error_with_the_reason(
    long_command: list[Any], tmp_path: Path, start: Start, call: Command, condor_pool: Pool
) -> None:
    running = start(*long_command)
    running.wait_until(lambda: bool(driver_jobs(condor_pool)))
    (job,) = driver_jobs(condor_pool)
    run_tool(condor_pool, "condor_hold", job, "-reason", "quota of the group")
    outcome = running.outcome()
    assert outcome.code == 4
    assert f"job {job} of the campaign is held: quota of the group" in outcome.err
    assert "the same command submits it again" in outcome.err
    again = call(*long_command, "--json")
    assert again.code == 0, again.err


def test_a_job_that_cannot_start_is_an_error_with_its_log(
    small_runs: SmallRuns, tmp_path: Path, site: Path, condor_pool: Pool, call: Command
) -> None:
    broken = written(condor_pool, tmp_path / "broken.toml", 'python = "python3 -m no_such_module"')
    outcome = call("reco", small_runs.data, *reco_options(small_runs, tmp_path / "out", "--site", broken))
    assert outcome.code == 4
    assert "3 jobs of the campaign failed one after the other" in outcome.err
    assert "No module named no_such_module" in outcome.err


def test_a_campaign_is_stopped_and_gone_on_with(
    long_command: list[Any], tmp_path: Path, start: Start, call: Command, condor_pool: Pool
) -> None:
    out = tmp_path / "out"
    running = start(*long_command)
    running.wait_until(lambda: len(parts(out)) >= 8)
    stopped = call("campaign", "stop", out, only_campaign(out).name[:6])
    assert stopped.code == 0
    assert "is stopped: 0 of 1 runs" in stopped.out
    assert queue(condor_pool) == []
    outcome = running.outcome()
    assert outcome.code == 130
    assert "was stopped: 0 of 1 runs have ended" in outcome.err
    committed = len(parts(out))
    assert committed >= 8
    (summary,) = call(*long_command, "--json").document()
    assert (summary["resumed_frames"], summary["frames"]) == (committed, FRAMES)


def test_a_campaign_whose_job_waits_is_stopped(
    small_runs: SmallRuns, tmp_path: Path, site: Path, condor_pool: Pool, call: Command, start: Start
) -> None:
    out = tmp_path / "out"
    nowhere = written(condor_pool, tmp_path / "nowhere.toml", 'requirements = "false"')
    running = start("reco", small_runs.data, *reco_options(small_runs, out, "--site", nowhere))
    running.wait_until(lambda: len(queue(condor_pool)) == 1)
    assert call("campaign", "stop", out, only_campaign(out).name).code == 0
    assert running.outcome().code == 130


def test_campaigns_that_are_not_there(tmp_path: Path, call: Command) -> None:
    outcome = call("campaign", "follow", tmp_path)
    assert outcome.code == 2
    assert f"no campaign in '{tmp_path}': expected the output folder" in outcome.err
    (tmp_path / "campaigns" / "3f2a").mkdir(parents=True)
    (tmp_path / "campaigns" / "3f2a" / "request.json").write_text("{}")
    outcome = call("campaign", "stop", tmp_path, "3f2b")
    assert "no campaign '3f2b'" in outcome.err
    assert "did you mean '3f2a'?" in outcome.err
    assert "is not the request of a campaign" in call("campaign", "stop", tmp_path, "3f2a").err


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    append_outcome(tmp_path, {"input": "a", "camera": "CAM0", "status": "failed"})
    with (tmp_path / "outcomes.jsonl").open("a") as file:
        file.write('{"input": "b", "came')
    append_outcome(tmp_path, {"input": "a", "camera": "CAM0", "status": "good"})
    assert read_outcomes(tmp_path) == [{"input": "a", "camera": "CAM0", "status": "good"}]
