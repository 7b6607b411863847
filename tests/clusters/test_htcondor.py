"""Every fault of a pool, on a real one: the computation finishes, the queue is empty, and the user sees the reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clusters.connect import connect
from clusters.htcondor import TAG, Event, PoolCluster
from clusters.pool import Pool
from clusters.schedd import PoolError
from clusters.site import Limits, Site, load_site
from tests.services.condor import kill_schedd, run_tool, start_schedd, stop_schedd, wait_until

if TYPE_CHECKING:
    from distributed import Client

pytestmark = pytest.mark.slow

QUICK = Limits(
    interval=0.5,
    connect=10,
    idle=4,
    steady=20,
    failures=2,
    backoff=0.5,
    backoff_max=1,
    request=5,
    away=6,
    lease=8,
    close=20,
)


def site_of(pool: Pool, limits: Limits = QUICK, **job: Any) -> Site:
    """Site of the pool with quick limits."""
    site = load_site(pool.site)
    return site.model_copy(update={"limits": limits, "job": site.job.model_copy(update=job)})


class Running:
    """A cluster with two workers, and what it told."""

    def __init__(self, client: Client, events: list[Event]) -> None:
        self.client = client
        self.events = events

    @property
    def cluster(self) -> PoolCluster:
        cluster = self.client.cluster
        assert isinstance(cluster, PoolCluster)
        return cluster

    def told(self, kind: str) -> list[str]:
        return [event.text for event in self.events if event.kind == kind]

    def job(self, index: int = 0) -> str:
        """Number of a job that was submitted, in the order in which they were."""
        return self.told("submitted")[index].split()[1]

    def result(self, futures: list[Any], patience: float = 50.0) -> list[Any]:
        """Results of futures; the fault of the cluster if it has one."""
        end = time.monotonic() + patience
        while any(not future.done() for future in futures):
            if self.cluster.fault is not None:
                raise self.cluster.fault
            assert time.monotonic() < end, [event.text for event in self.events]
            time.sleep(0.1)
        return list(self.client.gather(futures))


Connect = Callable[..., Any]


@pytest.fixture
def running(condor_pool: Pool, tmp_path: Path) -> Iterator[Connect]:
    """Connect to the pool; at the end of the test its queue is empty."""

    @contextmanager
    def start(workers: int = 2, limits: Limits = QUICK, **job: Any) -> Iterator[Running]:
        events: list[Event] = []
        with connect(
            site_of(condor_pool, limits, **job), workers=workers, logs=tmp_path, notify=events.append
        ) as client:
            yield Running(client, events)

    yield start
    assert queue(condor_pool) == []


def queue(pool: Pool) -> list[str]:
    """Every job in the queue with its state."""
    return run_tool(pool, "condor_q", "-all", "-af:j", "JobStatus", TAG).splitlines()


def slow(x: int) -> int:
    time.sleep(0.4)
    return x


def work(run: Running, n: int = 20) -> list[Any]:
    return run.client.map(slow, range(n), pure=False)


def wait_for_workers(run: Running, n: int = 2) -> None:
    wait_until(lambda: len(run.client.scheduler_info()["workers"]) == n, f"{n} workers", 30)


def test_work_is_done_and_workers_leave_gracefully(running: Connect, tmp_path: Path) -> None:
    with running() as run:
        assert run.result(work(run, 4)) == [0, 1, 2, 3]
        wait_for_workers(run)
        assert not run.told("gone")
    logs = [path.read_text() for path in sorted(tmp_path.glob("*.err"))]
    assert len(logs) == 2
    assert all("End worker" in log for log in logs)
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == len(run.events)


def test_a_killed_worker_process_comes_again(running: Connect) -> None:
    with running() as run:
        wait_for_workers(run)
        futures = work(run)
        os.kill(next(iter(run.client.run(os.getpid).values())), signal.SIGKILL)
        assert run.result(futures) == list(range(20))


def test_a_removed_job_is_replaced(condor_pool: Pool, running: Connect) -> None:
    with running() as run:
        wait_for_workers(run)
        futures = work(run)
        run_tool(condor_pool, "condor_rm", run.job(), "-reason", "taken by the operator")
        wait_until(lambda: len(run.told("submitted")) == 3, "a third job", 30)
        assert run.result(futures) == list(range(20))
        (reason,) = run.told("gone")
        assert "taken by the operator" in reason


def test_a_held_job_is_replaced(condor_pool: Pool, running: Connect) -> None:
    with running() as run:
        wait_for_workers(run)
        futures = work(run)
        run_tool(condor_pool, "condor_hold", run.job(), "-reason", "quota of the group")
        wait_until(lambda: len(run.told("submitted")) == 3, "a third job", 30)
        assert run.result(futures) == list(range(20))
        (reason,) = run.told("held")
        assert "quota of the group" in reason


def test_jobs_held_before_they_connect_are_an_error_with_the_reason(running: Connect) -> None:
    with (
        running(submit={"Output": "/there/is/no/such/folder/out", "Stream_Output": "False"}) as run,
        pytest.raises(PoolError, match=r"jobs failed one after the other.*is held(.|\n)*no/such/folder"),
    ):
        run.result(work(run))


def test_jobs_whose_worker_cannot_start_are_an_error_with_the_log(running: Connect) -> None:
    with (
        running(python=f"{sys.executable} -m no_such_module") as run,
        pytest.raises(PoolError, match=r"jobs failed one after the other(.|\n)*No module named no_such_module"),
    ):
        run.result(work(run))


def test_jobs_that_nobody_takes_are_an_error(running: Connect) -> None:
    with running(requirements="false") as run, pytest.raises(PoolError, match="2 jobs wait for a machine"):
        run.result(work(run))


def test_submissions_that_are_refused_are_an_error_with_the_reason(running: Connect) -> None:
    with (
        running(submit={"request_cpus": "many and more"}) as run,
        pytest.raises(PoolError, match=r"jobs failed one after the other(.|\n)*RequestCpus"),
    ):
        run.result(work(run))


def test_a_schedd_that_is_down_at_the_beginning_is_waited_for(condor_pool: Pool, running: Connect) -> None:
    patient = QUICK.model_copy(update={"away": 60.0})
    stop_schedd(condor_pool)
    try:
        with running(limits=patient) as run:
            futures = work(run, 4)
            wait_until(lambda: bool(run.told("away")), "that the schedd is away")
            start_schedd(condor_pool)
            assert run.result(futures) == [0, 1, 2, 3]
            assert run.told("back")
    finally:
        start_schedd(condor_pool)


def test_a_schedd_that_stays_down_is_an_error(condor_pool: Pool, running: Connect) -> None:
    stop_schedd(condor_pool)
    try:
        with (
            running(limits=QUICK.model_copy(update={"close": 1.0})) as run,
            pytest.raises(PoolError, match="the schedd has not answered"),
        ):
            run.result(work(run))
    finally:
        start_schedd(condor_pool)


def test_a_schedd_that_crashes_stops_nobody(condor_pool: Pool, running: Connect) -> None:
    with running() as run:
        wait_for_workers(run)
        futures = work(run)
        kill_schedd(condor_pool)
        assert run.result(futures) == list(range(20))


def test_a_schedd_that_is_down_at_the_end_leaves_no_job(condor_pool: Pool, running: Connect) -> None:
    with running() as run:
        run.result(work(run, 4))
        stop_schedd(condor_pool)
        restart = subprocess.Popen(
            ["sh", "-c", f"sleep 3; exec {condor_pool.programs}/condor_on -daemon schedd"],
            env={**os.environ, **condor_pool.environment}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    assert restart.wait() == 0
    assert not run.told("left")


def test_a_schedd_that_stays_down_at_the_end_is_told_and_the_lease_ends_the_jobs(
    condor_pool: Pool, running: Connect
) -> None:
    with running(limits=QUICK.model_copy(update={"close": 1.0}), requirements="false") as run:
        wait_until(lambda: len(run.told("submitted")) == 2, "two jobs")
        stop_schedd(condor_pool)
    assert "the pool itself removes them when their lease ends" in run.told("left")[0]
    start_schedd(condor_pool)
    wait_until(lambda: queue(condor_pool) == [], "the end of the lease", 30)


DRIVER = """
    import sys, time
    from clusters.connect import connect
    from tests.clusters.test_htcondor import QUICK
    from clusters.site import load_site

    site = load_site(sys.argv[1])
    with connect(site.model_copy(update={"limits": QUICK}), workers=8, logs=sys.argv[2]) as client:
        client.wait_for_workers(1)
        print("running", flush=True)
        time.sleep(60)
"""


def test_a_killed_driver_leaves_no_job(condor_pool: Pool, running: Connect, tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(condor_pool.site), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == b"running\n"
    assert len(queue(condor_pool)) > 4  # more than have a machine
    driver.kill()
    driver.communicate()
    wait_until(lambda: queue(condor_pool) == [], "an empty queue", 40)


def _hog(megabytes: int) -> None:
    """Take memory in a process that the worker's nanny does not see."""
    subprocess.run([sys.executable, "-c", f"import time; x = bytearray({megabytes} << 20); time.sleep(30)"], check=True)


def test_jobs_that_want_too_much_memory_are_an_error_with_the_reason(running: Connect) -> None:
    policy = {
        "periodic_hold": "MemoryUsage > RequestMemory",
        "periodic_hold_reason": '"took more memory than it asked for"',
    }
    with (
        running(workers=1, memory=600_000_000, submit=policy) as run,
        pytest.raises(Exception, match=r"took more memory than it asked for|died"),
    ):
        run.result(run.client.map(_hog, [900], pure=False))
    assert any("took more memory" in text for text in run.told("held"))


def test_the_number_of_workers_follows_the_work(condor_pool: Pool, tmp_path: Path) -> None:
    site = site_of(condor_pool)
    bounds = site.workers.model_copy(update={"minimum": 0, "maximum": 3, "blocks": 4, "cooldown": 1.0})
    events: list[Event] = []
    with connect(site.model_copy(update={"workers": bounds}), logs=tmp_path, notify=events.append) as client:
        run = Running(client, events)
        assert not run.told("submitted")
        assert run.result(work(run, 24)) == list(range(24))
        assert len(run.told("submitted")) == 3
        wait_until(lambda: queue(condor_pool) == [], "no worker without work", 20)
    assert queue(condor_pool) == []


def test_a_watch_that_fails_is_an_error(running: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(workers=1) as run:
        wait_for_workers(run, 1)

        async def broken(_: object) -> None:
            raise KeyError("no such thing")

        monkeypatch.setattr(PoolCluster, "_once", broken)
        with pytest.raises(PoolError, match=r"the watch over its jobs has failed \(KeyError"):
            run.result(work(run, 50))
