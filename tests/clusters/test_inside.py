"""The job of a campaign: what follows from a look at it, what it asks for, and the pool as it sees it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clusters.inside import AGAIN, DriverJob, Memory, Seen, decide, failed, seen_from_inside
from clusters.pool import Pool
from clusters.schedd import PoolError, Schedd
from clusters.site import Limits, Site, load_site
from clusters.watch import Job
from cygnoreco.errors import InputError
from tests.clusters.test_token import by_token as by_token  # a fixture
from tests.clusters.test_token import renew
from tests.clusters.test_token import site_of as site_by_token
from tests.services.condor import run_tool, start_schedd, stop_schedd, wait_until

LIMITS = Limits(failures=2, backoff=10, backoff_max=15, steady=60, away=100)
KNOWN = Memory(known=True)


def test_a_job_that_is_not_there_is_submitted() -> None:
    decision = decide(Memory(), Seen(0.0), LIMITS)
    assert decision.act == "submit"
    assert decision.memory.known


@pytest.mark.parametrize("state", ["idle", "running", "removed", "completed"])
def test_a_job_in_the_queue_is_waited_for(state: str) -> None:
    decision = decide(Memory(), Seen(0.0, Job("12.0", state)), LIMITS)
    assert (decision.act, decision.text) == ("wait", f"job 12.0 is {state}")


def test_a_held_job_is_the_end() -> None:
    decision = decide(KNOWN, Seen(0.0, Job("12.0", "held", "quota")), LIMITS)
    assert (decision.act, decision.text) == ("give up", "job 12.0 of the campaign is held: quota")


def test_a_lost_job_is_submitted_again_later_and_not_for_ever() -> None:
    lost = decide(KNOWN, Seen(100.0, end="removed"), LIMITS)
    assert (lost.act, lost.text) == ("lost", "removed")
    assert decide(lost.memory, Seen(109.0), LIMITS).text == "tries again in 1 s"
    second = decide(lost.memory, Seen(110.0), LIMITS)
    assert second.act == "submit"
    lost = decide(second.memory, Seen(120.0), LIMITS)
    assert lost.memory.not_before == 135.0
    decision = decide(lost.memory, Seen(200.0), LIMITS)
    assert decision.act == "give up"
    assert "2 jobs of the campaign failed one after the other, the latest: its job has left" in decision.text


def test_after_a_long_run_earlier_failures_are_forgotten() -> None:
    memory = failed(Memory(), "refused", 0.0, LIMITS)
    assert memory.failures == 1
    memory = decide(memory, Seen(20.0, Job("1.0", "running")), LIMITS).memory
    assert memory.failures == 1
    memory = decide(memory, Seen(90.0, Job("1.0", "running")), LIMITS).memory
    assert memory.failures == 0


def test_a_schedd_that_is_away_matters_only_if_the_campaign_is_silent() -> None:
    memory = decide(KNOWN, Seen(0.0, silent="no answer"), LIMITS).memory
    assert decide(memory, Seen(101.0, silent="no answer", alive=True), LIMITS).act == "wait"
    decision = decide(memory, Seen(101.0, silent="no answer"), LIMITS)
    assert (decision.act, decision.text) == ("give up", "the schedd has not answered for 101 s: no answer")
    assert decide(memory, Seen(50.0, Job("1.0", "running")), LIMITS).memory.away is None
    assert replace(memory, away=None) == KNOWN


def site_of(**job: object) -> Site:
    return Site.model_validate(
        {"name": "here", "kind": "htcondor", "job": job, "scheduler": {"where": "pool", "cores": 2, "memory": "3 GB"}}
    )


def test_the_job_asks_for_its_own_share_and_stays(tmp_path: Path) -> None:
    site = site_of(memory="9 GB", gpus=1, submit={"gpus_minimum_memory": 8000, "+Group": '"cygno"'})
    lines = DriverJob(site, "3f2a", tmp_path, ("pipelines.cli", "campaign")).description().splitlines()
    words = dict(line.split(" = ", 1) for line in lines if " = " in line)
    assert words["MY.DaskWorkerCores"] == "2"
    assert words["MY.DaskWorkerMemory"] == "3000000000"
    assert not [line for line in lines if "gpus" in line.lower()]
    assert words["+Group"] == '"cygno"'
    assert words["periodic_remove"] == "false"
    assert f"ExitCode =!= {AGAIN}" in words["on_exit_remove"]
    assert words["My.CygnoCluster"] == '"campaign-3f2a"'
    assert words["Error"] == f"{tmp_path}/driver.err"
    assert "-m pipelines.cli campaign" in words["Arguments"]


def test_the_site_has_the_last_word(tmp_path: Path) -> None:
    text = DriverJob(site_of(submit={"on_exit_remove": "true"}), "3f2a", tmp_path).description()
    assert "on_exit_remove = true" in text.splitlines()


def test_the_pool_as_the_job_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.ad").write_text('Owner = "me"\nGlobalJobId = "me@submit.pool#12.0#17957"\n')
    (tmp_path / "cygno").write_text("a.b.c")
    monkeypatch.setenv("_CONDOR_JOB_AD", str(tmp_path / "job.ad"))
    monkeypatch.setenv("_CONDOR_SCRATCH_DIR", str(tmp_path))
    site = site_of()
    outside = site.model_copy(update={"pool": site.pool.model_copy(update={"token": Path("/no/such/cygno")})})
    inside = seen_from_inside(outside)
    assert inside.scheduler.where == "driver"
    assert inside.pool.schedd == "me@submit.pool"
    assert inside.pool.token == tmp_path / "cygno"
    named = outside.model_copy(update={"pool": outside.pool.model_copy(update={"schedd": "submit.pool"})})
    assert seen_from_inside(named).pool.schedd == "submit.pool"
    monkeypatch.delenv("_CONDOR_JOB_AD")
    monkeypatch.setenv("_CONDOR_SCRATCH_DIR", str(tmp_path / "other"))
    assert seen_from_inside(outside).pool.schedd is None
    assert seen_from_inside(outside).pool.token == Path("/no/such/cygno")


def test_ctrl_c_stays_ours() -> None:
    """dask-jobqueue takes it when it is imported, and would leave with exit code 0."""
    code = "import signal; import clusters.htcondor; print(signal.getsignal(signal.SIGINT))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert "default_int_handler" in done.stdout


def of_pool(pool: Pool, **limits: object) -> Site:
    site = load_site(pool.site)
    scheduler = site.scheduler.model_copy(update={"where": "pool", "memory": 500_000_000})
    quick = Limits.model_validate({"interval": 0.5, "lease": 8, "close": 20, "request": 5, **limits})
    return site.model_copy(update={"scheduler": scheduler, "limits": quick})


#: What the job of this test does: it submits a job to the schedd that it came from, and ends badly.
INNER = """
import asyncio, json, sys
from pathlib import Path
from clusters.inside import seen_from_inside
from clusters.schedd import Schedd
from clusters.site import Site

site = seen_from_inside(Site.model_validate(json.loads(Path(sys.argv[1]).read_text())))
job = "executable = /bin/true\\nhold = true\\n+CygnoCluster = \\"of-the-inner\\"\\n"
print(site.pool, asyncio.run(Schedd(site.pool).submit([job])), flush=True)
sys.exit(1)
"""


def submits_jobs(site: Site, pool: Pool, folder: Path) -> None:
    """Check that a job of a site submits jobs, is started again, and is removed with them."""
    (folder / "inner_job.py").write_text(INNER)
    (folder / "site.json").write_text(site.model_dump_json(exclude_unset=True))
    environment = {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])])}
    site = site.model_copy(update={"job": site.job.model_copy(update={"environment": environment})})
    job = DriverJob(site, f"test-{time.time_ns()}", folder, ("inner_job", str(folder / "site.json")))
    assert job.look() is None
    number = job.submit()

    def inner() -> int:
        ads = asyncio.run(Schedd(site.pool).query('CygnoCluster == "of-the-inner"', ["ClusterId"]))
        return len(ads)

    wait_until(lambda: inner() >= 2, "two starts of the job", 30)
    found = job.look()
    assert found is not None
    assert found.id == number
    job.remove("the test is over", "of-the-inner")
    assert job.look() is None
    assert inner() == 0
    assert "removed: the test is over" in job.end()
    assert run_tool(pool, "condor_q", "-all", "-af:j", "JobStatus") == ""


@pytest.mark.slow
def test_a_job_may_submit_jobs_to_the_schedd_of_its_machine(condor_pool: Pool, tmp_path: Path) -> None:
    submits_jobs(of_pool(condor_pool), condor_pool, tmp_path)


@pytest.mark.slow
def test_a_job_may_submit_jobs_by_token(by_token: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONDOR_CONFIG", raising=False)
    site = site_by_token(by_token, renew(by_token, tmp_path / "tokens" / "cygno", 300))
    scheduler = site.scheduler.model_copy(update={"where": "pool", "memory": 500_000_000})
    submits_jobs(site.model_copy(update={"scheduler": scheduler}), by_token, tmp_path)


@pytest.mark.slow
def test_a_refused_job_and_a_schedd_that_is_away(condor_pool: Pool, tmp_path: Path) -> None:
    site = of_pool(condor_pool)
    refused = site.model_copy(update={"job": site.job.model_copy(update={"submit": {"request_cpus": "many and more"}})})
    with pytest.raises(PoolError, match="RequestCpus"):
        DriverJob(refused, "refused", tmp_path, ("clusters.probe",)).submit()
    stop_schedd(condor_pool)
    try:
        with pytest.raises(PoolError):
            DriverJob(site, "away", tmp_path).look()
    finally:
        start_schedd(condor_pool)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "htcondor"\n[scheduler]\nwhere = "poool"', "'scheduler.where' = 'poool'"),
        (
            'kind = "htcondor"\n[scheduler]\nmemory = "1 GB"',
            "memory are of the scheduler's job: expected where = 'pool'",
        ),
        ('kind = "local"\n[scheduler]\nwhere = "pool"', "expected 'driver', or kind = 'htcondor'"),
    ],
)
def test_what_is_wrong_with_a_scheduler_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "here.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_site(tmp_path / "here.toml")
    assert message in str(caught.value)
