"""The job in which a whole campaign runs, for drivers that workers cannot reach, behind NAT say.

Scheduler and driver run in one job of the pool. Whoever asked for the campaign, outside, sees that this job is there:
:func:`decide` says what follows from a look at it. Nothing else goes on between the two but files.

The job submits the jobs of its workers, so it must be let in by the schedd as the driver outside is:

* HTCondor's configuration is the file ``pool.config`` of the site, at the same path, or what the execute machine has.
* ``pool.schedd`` is, if the site does not name it, the schedd that the job itself came from.
* A token, ``pool.token``, is at the same path; or it is transferred, ``submit = { transfer_input_files = "..." }``, and
  then found by its name in the job's folder. A transferred token is not renewed: it must outlast the job.
* Without a token the schedd must trust the job's user: file system authentication (``FS``) works on the schedd's own
  machine, which is so on a pool of one machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from clusters.htcondor import HISTORY, TAG, end_of, job_of, single_description
from clusters.logs import indented, last_lines
from clusters.schedd import PoolError, Schedd
from clusters.site import Limits, Site
from clusters.watch import Job

#: Exit code with which the job asks to be started again: its wall time is nearly over.
AGAIN = 75
#: Name of its slot and of its logs.
DRIVER = "driver"
#: Seconds for which a campaign that was silent is still believed to live: a shared file system may be late.
SILENT = 60.0

_OVER = "ExitBySignal =!= true && ExitCode =?= 0"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Memory:
    """What is remembered from one look to the next; moments are seconds of one clock.

    Attributes
    ----------
    known : bool
        A job was there, or was submitted.
    failures : int
        Jobs that were lost, or refused, since one ran for long.
    not_before : float
        Moment before which no job is submitted.
    away : float or None
        Since when the schedd has not answered.
    running : float or None
        Since when the job has run.
    last : str
        The latest failure.
    """

    known: bool = False
    failures: int = 0
    not_before: float = 0.0
    away: float | None = None
    running: float | None = None
    last: str = ""


@dataclass(frozen=True)
class Seen:
    """What was seen at one moment.

    Attributes
    ----------
    now : float
        The moment.
    job : Job or None
        The job; None if there is none.
    silent : str
        Why the schedd did not answer; empty if it did.
    alive : bool
        The campaign's files say that it goes on.
    end : str
        Of a job that is not there any more: how it ended.
    """

    now: float
    job: Job | None = None
    silent: str = ""
    alive: bool = False
    end: str = ""


@dataclass(frozen=True)
class Decision:
    """What follows.

    Attributes
    ----------
    act : {'wait', 'submit', 'lost', 'give up'}
        ``lost``: say so, and wait.
    memory : Memory
        For the next look.
    text : str
        For people.
    """

    act: Literal["wait", "submit", "lost", "give up"]
    memory: Memory
    text: str = ""


def decide(memory: Memory, seen: Seen, limits: Limits) -> Decision:
    """Say what follows from a look at the job of a campaign that is not over."""
    now = seen.now
    if seen.silent:
        since = now if memory.away is None else memory.away
        memory = replace(memory, away=since)
        if now - since > limits.away and not seen.alive:
            return Decision("give up", memory, f"the schedd has not answered for {now - since:.0f} s: {seen.silent}")
        return Decision("wait", memory, seen.silent)
    memory = replace(memory, away=None)
    if seen.job is not None:
        return _of_a_job(memory, seen, seen.job, limits)
    if memory.known:
        memory = failed(memory, seen.end or "its job has left the queue", now, limits)
        return Decision("lost", memory, memory.last)
    if memory.failures >= limits.failures:
        text = f"{memory.failures} jobs of the campaign failed one after the other, the latest: {memory.last}"
        return Decision("give up", memory, text)
    if now < memory.not_before:
        return Decision("wait", memory, f"tries again in {memory.not_before - now:.0f} s")
    return Decision("submit", replace(memory, known=True))


def _of_a_job(memory: Memory, seen: Seen, job: Job, limits: Limits) -> Decision:
    memory = replace(memory, known=True)
    if job.state == "held":
        return Decision("give up", memory, f"job {job.id} of the campaign is held: {job.reason}")
    if job.state != "running":
        return Decision("wait", replace(memory, running=None), f"job {job.id} is {job.state}")
    since = seen.now if memory.running is None else memory.running
    steady = seen.now - since > limits.steady
    memory = replace(memory, running=since, failures=0 if steady else memory.failures)
    return Decision("wait", memory, f"job {job.id} is running")


def failed(memory: Memory, reason: str, now: float, limits: Limits) -> Memory:
    """Count a job that was lost, or refused: the next one comes later."""
    failures = memory.failures + 1
    pause = min(limits.backoff * 2.0 ** (failures - 1), limits.backoff_max)
    return replace(memory, known=False, running=None, failures=failures, not_before=now + pause, last=reason)


@dataclass(frozen=True)
class DriverJob:
    """The job of a campaign, as it is asked for from outside.

    Attributes
    ----------
    site : Site
        Of kind ``htcondor``.
    name : str
        Of the campaign; unlike that of any other.
    folder : Path
        For its logs.
    module : tuple of str
        Module of Python that it runs, and arguments.
    """

    site: Site
    name: str
    folder: Path
    module: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """What it carries as attribute ``CygnoCluster``."""
        return f"campaign-{self.name}"

    def description(self) -> str:
        """Submit file, without its ``queue``."""
        site, limits = self.site, self.site.limits
        job = site.job.model_copy(
            update={"cores": site.scheduler.cores, "memory": site.scheduler.memory, "gpus": 0,
                    "submit": {key: value for key, value in site.job.submit.items() if "gpus" not in key.lower()}}
        )  # fmt: skip
        policy = {
            # It has no lease: the campaign goes on when nobody looks at it.
            "periodic_remove": "false",
            # Whatever ends it but itself, it is started again, and goes on with what is missing.
            "on_exit_remove": f"({_OVER}) || (ExitCode =!= {AGAIN} && NumJobCompletions > {limits.failures})",
            "job_lease_duration": int(limits.lease),  # when a machine dies, the workers do not wait longer for it
        }
        site = site.model_copy(update={"job": job})
        until = time.time() + job.wall_time  # only for people, who see it beside those of workers
        return single_description(site, self.tag, self.folder, DRIVER, list(self.module), until, policy)

    def look(self) -> Job | None:
        """Look for it in the queue.

        Raises
        ------
        PoolError
            The schedd does not answer.
        """
        ads = _now(self._schedd.query(self._constraint, ["ClusterId", "ProcId", "JobStatus", "HoldReason"]))
        jobs = sorted((job_of(ad) for ad in ads), key=lambda job: _ORDER.index(job.state))
        return jobs[0] if jobs else None

    def submit(self) -> str:
        """Submit it, and return its number.

        Raises
        ------
        PoolError
            It was refused; or no answer came, and it may be in the queue all the same.
        """
        (answer,) = _now(self._schedd.submit([self.description()]))
        if isinstance(answer, PoolError):
            raise answer
        return answer

    def remove(self, reason: str, *tags: str) -> None:
        """Remove it, and the jobs of workers with these tags; wait until they are gone.

        Raises
        ------
        PoolError
            The schedd does not answer, or they do not leave the queue in time.
        """
        constraint = " || ".join([self._constraint, *(f'{TAG} == "{tag}"' for tag in tags)])
        end = time.monotonic() + self.site.limits.close
        _now(self._schedd.remove(constraint, reason))
        while left := _now(self._schedd.query(constraint, ["ClusterId"])):
            if time.monotonic() > end:
                raise PoolError(f"{self.site.name}: {len(left)} jobs of campaign {self.name} do not leave the queue")
            time.sleep(min(0.5, self.site.limits.interval))

    def end(self) -> str:
        """Say how the latest job ended that is not in the queue any more; empty if nobody knows."""
        with contextlib.suppress(PoolError):
            ads = _now(self._schedd.history(self._constraint, ["ClusterId", *HISTORY], 1))
            return "; ".join(f"job {ad.get('ClusterId')}.0 has left the queue: {end_of(ad)}" for ad in ads)
        return ""

    def log(self, lines: int = 8) -> str:
        """Last lines that it wrote."""
        return indented(last_lines(self.folder / f"{DRIVER}.err", lines))

    @property
    def _schedd(self) -> Schedd:
        return Schedd(self.site.pool, self.site.limits.request)

    @property
    def _constraint(self) -> str:
        return f'{TAG} == "{self.tag}"'


_ORDER = ("running", "idle", "held", "removed", "completed")


def seen_from_inside(site: Site) -> Site:
    """Site as the job of its campaign has it: with the scheduler where the driver is, which is now in the pool."""
    pool = site.pool
    if pool.schedd is None:
        pool = pool.model_copy(update={"schedd": _own_schedd()})
    if pool.token is not None and not pool.token.exists():
        transferred = Path(os.environ.get("_CONDOR_SCRATCH_DIR", "."), pool.token.name)
        pool = pool.model_copy(update={"token": transferred if transferred.exists() else pool.token})
    scheduler = site.scheduler.model_copy(update={"where": "driver"})
    return site.model_copy(update={"pool": pool, "scheduler": scheduler})


def _own_schedd() -> str | None:
    """Name of the schedd that this job came from; None outside of a job."""
    with contextlib.suppress(OSError):
        ad = Path(os.environ.get("_CONDOR_JOB_AD", "")).read_text(errors="replace")
        found = re.search(r'^GlobalJobId = "([^#"]+)#', ad, re.MULTILINE)
        return found[1] if found else None
    return None


def _now(answer: Awaitable[_T]) -> _T:
    async def wait() -> _T:
        return await answer

    return asyncio.run(wait())
