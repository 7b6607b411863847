"""Workers on an HTCondor pool: dask-jobqueue's cluster, and what makes it last.

dask-jobqueue makes the worker's command line and the job's description. Everything else is done by one loop, which
looks at the queue and at the connected workers, decides (:mod:`clusters.watch`) and acts. Dask's ``SpecCluster`` holds
the slots: a job for a new one is submitted by the next turn of the loop, and a job without a slot is removed by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shlex
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import ProcessInterface

from clusters import watch
from clusters._jobqueue import HTCondorCluster, HTCondorJob, quote_environment
from clusters.dashboard import add_pages
from clusters.logs import indented, last_lines
from clusters.schedd import PoolError, Schedd
from clusters.site import Site

logger = logging.getLogger(__name__)

#: Attributes of our own on every job: the cluster that it belongs to, its slot, and the end of its driver's lease.
TAG, SLOT, LEASE = "CygnoCluster", "CygnoWorker", "CygnoLease"
#: Of the job's memory the worker may use so much; the rest is its nanny's, and a margin before the pool holds the job.
_WORKERS_SHARE = 0.9
#: Seconds that a worker has to leave when its job is removed.
_GRACE = 30
#: Seconds between two glances at the blocks that wait.
_GLANCE = 0.5
#: Seconds before the end of the wall time at which a worker leaves by itself, at most; for short jobs a tenth of it.
_LEAVING = 600.0


@dataclass(frozen=True)
class Event:
    """Something that happened to the jobs of a cluster.

    Attributes
    ----------
    time : float
        UNIX seconds.
    kind : str
        ``submitted``, ``refused``; ``held``, ``gone``, ``silent``, ``ended``, see :class:`clusters.watch.Lost`;
        ``away``, ``back``, of the schedd; ``fault``; ``left``: jobs that could not be removed.
    text : str
        For people.
    worker : str or None
        Which worker.
    log : str
        Last lines of its job's log.
    """

    time: float
    kind: str
    text: str
    worker: str | None = None
    log: str = ""


class _Job(HTCondorJob):
    """A slot; the loop of the cluster submits and removes its job."""

    async def start(self) -> None:
        await ProcessInterface.start(self)

    async def close(self) -> None:
        await ProcessInterface.close(self)  # dask-jobqueue's leaves the status, and closing the cluster fails

    def description(self, lease: float) -> str:
        """Submit file, without its ``queue``."""
        own = {f"My.{SLOT}": f'"{self.name}"', f"My.{LEASE}": int(lease), **self._files()}
        lines = [f"{key} = {value}" for key, value in own.items()]
        script = self.job_script().splitlines()
        body = [line for line in script if line.strip().lower() != "queue" and not line.startswith("#!")]
        return "\n".join([*lines, *body])  # what the site says comes last, and wins

    def _files(self) -> dict[str, Any]:
        files = {key: f"{self.log_directory}/{self.name}.{end}" for key, end in _FILES.items()}
        return {**files, "Stream_Output": True, "Stream_Error": True}


_FILES = {"Output": "out", "Error": "err", "Log": "log"}


class PoolCluster(HTCondorCluster):
    """A Dask cluster whose workers are jobs of an HTCondor pool.

    Parameters
    ----------
    site : Site
        Of kind ``htcondor``.
    logs : Path
        Folder for the logs of jobs and for ``events.jsonl``; workers write there, too, if they see it.
    notify : callable, optional
        Called with every :class:`Event`, in a thread of the cluster.

    Attributes
    ----------
    tag : str
        What all its jobs carry as attribute ``CygnoCluster``.
    fault : PoolError or None
        Why there is no hope that the work goes on, once that is so.
    """

    job_cls = _Job

    def __init__(self, site: Site, *, logs: Path, notify: Callable[[Event], None] | None = None) -> None:
        self.site = site
        self.tag = f"cygno-{uuid.uuid4().hex[:12]}"
        self.fault: PoolError | None = None
        self._logs = logs.resolve()
        self._notify = notify
        self._schedd = Schedd(site.pool, site.limits.request)
        self._health = watch.Health()
        self._states: dict[str, int] = {}
        self._target = site.workers.minimum
        self._fixed = False
        self._low: float | None = None
        self._leased = 0.0
        self._last_lost: str | None = None
        self._turn: asyncio.Task[None] | None = None
        self._wake: asyncio.Event | None = None
        self._logs.mkdir(parents=True, exist_ok=True)
        host = {} if site.scheduler.host is None else {"host": site.scheduler.host}
        options = {"port": site.scheduler.port, "dashboard_address": ":0", **host}
        super().__init__(
            name=self.tag,
            scheduler_options=options,
            silence_logs=logging.CRITICAL,
            **_of_jobs(site, self.tag, self._logs),
        )

    async def _start(self) -> None:
        await super()._start()
        if self._turn is None:
            assert self.scheduler is not None
            add_pages(self.scheduler)
            self._wake = asyncio.Event()
            self._turn = asyncio.ensure_future(self._watch())

    def scale(self, n: Any = 0, memory: Any = None, cores: Any = None, jobs: Any = None) -> Any:  # type: ignore[override]
        """Want so many workers, instead of as many as the blocks that wait are worth."""
        if self.status in (Status.closing, Status.closed):
            return super().scale(n)  # Dask's own end: all slots at once
        self._target, self._fixed = n if jobs is None else jobs, True
        assert self.loop is not None
        self.loop.add_callback(self._wake_up)
        return None

    @property
    def jobs_by_state(self) -> dict[str, int]:
        """Number of its jobs in the queue by their states, at the last look that the schedd answered."""
        return dict(self._states)

    def _wake_up(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        # SpecCluster's would drop the slot of a worker that is away for a while: that is our loop's affair.
        Cluster._update_worker_status(self, op, msg)

    async def _watch(self) -> None:
        """Look, decide, act, for ever."""
        assert self._wake is not None
        while True:
            try:
                await self._once()
            except PoolError as error:
                logger.debug("%s", error)  # the next turn sees how things are
            except Exception as error:  # a loop that ended in silence would leave everybody waiting
                logger.exception("the watch over the jobs of %s has failed", self.site.name)
                self._announce("fault", f"the watch over the jobs has failed: {error!r}")
                self.fault = PoolError(f"{self.site.name}: the watch over its jobs has failed ({error!r})")
                return
            await self._rest()

    async def _rest(self) -> None:
        """Wait for the next turn: an interval, or less if there is something to do."""
        assert self._wake is not None
        end = time.monotonic() + self.site.limits.interval
        while (left := end - time.monotonic()) > 0 and not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(left, _GLANCE))
            if not self._fixed and self._wanted(time.monotonic())[0] > self._target:
                break  # new blocks should not wait for a look at the queue
        self._wake.clear()

    def _wanted(self, now: float) -> tuple[int, float | None]:
        return watch.wanted(self._target, self._backlog(), self._low, now, self.site.workers)

    def _backlog(self) -> int:
        assert self.scheduler is not None
        return sum(task.state in _UNFINISHED for task in self.scheduler.tasks.values())

    async def _once(self) -> None:
        limits = self.site.limits
        assert self.scheduler is not None
        workers = {str(worker.name): worker for worker in self.scheduler.workers.values()}
        jobs = await self._jobs()
        if jobs:
            await self._renew()  # first: the rest may fail, or take long
        now = time.monotonic()
        seen = watch.Seen(now, jobs, workers.keys(), self._backlog())
        decision = watch.decide(self._health, self.worker_spec.keys(), seen, limits)
        self._health = decision.health
        for index, lost in enumerate(decision.lost):
            await self._announce_loss(lost, ask=index < _ASKED)
            self._drop(lost.slot.name)
        if not self._fixed:
            self._target, self._low = self._wanted(now)
        if decision.fault and self.fault is None:
            last = self._log_of(self._last_lost) if self._last_lost else []
            self._announce("fault", decision.fault, log="\n".join(last))
            self.fault = PoolError(f"{self.site.name}: {decision.fault}{indented(last)}\nlogs: {self._logs}")
        self._shrink({name: len(worker.processing) for name, worker in workers.items()})
        if decision.grow and self.fault is None:
            while len(self.worker_spec) < self._target:
                self.worker_spec.update(self.new_worker_spec())
                self._wake_up()  # to submit them
        await self._correct_state()
        if decision.strays:
            await self._remove(decision.strays, "its worker is not wanted any more")
        if self.fault is None:
            await self._submit(decision.submit)

    async def _jobs(self) -> dict[str, watch.Job] | None:
        """Our jobs in the queue by slot; None if the schedd does not answer."""
        try:
            ads = await self._schedd.query(self._constraint, _PROJECTION)
        except PoolError as error:
            if self._health.away is None:
                self._announce("away", str(error))
            return None
        if self._health.away is not None:
            self._announce("back", f"{self._schedd} answers again")
        jobs = {ad[SLOT]: job_of(ad) for ad in ads if SLOT in ad}
        self._states = dict(Counter(job.state for job in jobs.values()))
        return jobs

    @property
    def _constraint(self) -> str:
        return f'{TAG} == "{self.tag}"'

    def _drop(self, name: str) -> None:
        """Forget a slot; the next turn removes its job, if there is one still."""
        self.worker_spec.pop(name, None)

    def _shrink(self, busy: dict[str, int]) -> None:
        """Let slots go that are too many: first those without a worker, then those whose worker has nothing to do."""
        excess = len(self.worker_spec) - self._target
        if excess <= 0:
            return
        free = sorted((name for name in self.worker_spec if not busy.get(name)), key=lambda name: name in busy)
        for name in free[:excess]:
            self._drop(name)

    async def _submit(self, names: tuple[str, ...]) -> None:
        jobs = {name: self.workers[name] for name in names if name in self.workers}
        if not jobs:
            return
        lease = time.time() + self.site.limits.lease
        try:
            answers = await self._schedd.submit([job.description(lease) for job in jobs.values()])
        except PoolError as error:  # those that went through all the same are found in the queue
            self._health = watch.failed(self._health, str(error), time.monotonic(), self.site.limits)
            self._announce("refused", str(error))
            return
        slots, now = dict(self._health.slots), time.monotonic()
        for name, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, PoolError):
                self._health = watch.failed(self._health, str(answer), now, self.site.limits)
                self._announce("refused", str(answer), name)
                continue
            slots[name] = watch.Slot(name, submitted=now)
            self._announce("submitted", f"job {answer} for worker {name}", name)
        self._health = replace(self._health, slots=slots)

    async def _remove(self, ids: tuple[str, ...], reason: str) -> None:
        parts = (each.split(".") for each in ids)
        of = " || ".join(f"(ClusterId == {cluster} && ProcId == {process})" for cluster, process in parts)
        await self._schedd.remove(f"{self._constraint} && ({of})", reason)

    async def _renew(self) -> None:
        """Tell the pool that the driver lives: when the lease ends, ``periodic_remove`` of the jobs is true."""
        now, lease = time.time(), self.site.limits.lease
        if now - self._leased >= lease / 3:
            await self._schedd.edit(self._constraint, LEASE, str(int(now + lease)))
            self._leased = now

    async def _close(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._turn
            self._turn = None
        begun = self.status not in (Status.closing, Status.closed)
        try:
            await super()._close()
        finally:
            if begun:
                await self._leave_nothing()

    async def _leave_nothing(self) -> None:
        """Remove all our jobs, and see that they are gone."""
        end = time.monotonic() + self.site.limits.close
        error, left = "", 0
        while True:
            try:
                await self._schedd.remove(self._constraint, "the driver has ended")
                left = len(await self._schedd.query(self._constraint, [SLOT]))
                error = f"{left} of its jobs do not leave the queue"
                if not left:
                    return
            except PoolError as failure:
                error = str(failure)
            if time.monotonic() > end:
                break
            await asyncio.sleep(min(1.0, self.site.limits.interval))
        until = time.strftime("%H:%M:%S", time.localtime(self._leased + self.site.limits.lease))
        text = f"{error}; the pool itself removes them when their lease ends, at {until}"
        self._announce("left", text)
        logger.warning("%s: %s", self.site.name, text)

    async def _announce_loss(self, lost: watch.Lost, *, ask: bool) -> None:
        """Tell of a lost job, with what its history and log say."""
        name, text = lost.slot.name, lost.reason
        if lost.kind == "gone" and ask:
            with contextlib.suppress(PoolError):
                ads = await self._schedd.history(f'{self._constraint} && {SLOT} == "{name}"', HISTORY, 1)
                text = "; ".join([text, *(end_of(ad) for ad in ads)])
                self._health = replace(self._health, last=text)
        self._last_lost = name
        self._announce(lost.kind, text, name, log="\n".join(self._log_of(name)))

    def _log_of(self, name: str) -> list[str]:
        """Last lines of a job's complaints."""
        return last_lines(self._logs / f"{name}.err")

    def _announce(self, kind: str, text: str, worker: str | None = None, log: str = "") -> None:
        event = Event(time.time(), kind, text, worker, log)
        try:
            with (self._logs / "events.jsonl").open("a") as file:
                file.write(json.dumps(asdict(event)) + "\n")
        except OSError as error:  # a full disk of logs stops no work
            logger.warning("%s: %s is not kept: %s", self._logs, event, error)
        if self._notify is not None:
            try:
                self._notify(event)
            except Exception:  # whoever listens must not end the watch
                logger.exception("telling of %s has failed", event)


#: Lost jobs of one turn whose history is asked for: going through it takes long.
_ASKED = 3
_UNFINISHED = ("waiting", "queued", "no-worker", "processing")
_PROJECTION = [SLOT, "ClusterId", "ProcId", "JobStatus", "HoldReason", "RemoveReason"]
#: What :func:`end_of` wants to know.
HISTORY = ["RemoveReason", "LastHoldReason", "ExitCode", "ExitSignal", "LastRemoteHost"]


def job_of(ad: dict[str, Any]) -> watch.Job:
    """Say what a job in the queue is, by attributes of ``_PROJECTION``."""
    state = watch.STATES.get(ad["JobStatus"], "running")
    number = f"{ad['ClusterId']}.{ad['ProcId']}"
    reason = {"held": "HoldReason", "removed": "RemoveReason"}.get(state, "")
    return watch.Job(number, state, str(ad.get(reason, "")))


def end_of(ad: dict[str, Any]) -> str:
    """Say how a job ended, from its history."""
    names = {
        "RemoveReason": "removed: {}", "LastHoldReason": "was held: {}", "ExitCode": "exit code {}",
        "ExitSignal": "signal {}", "LastRemoteHost": "on {}",
    }  # fmt: skip
    return ", ".join(text.format(ad[name]) for name, text in names.items() if ad.get(name) not in (None, ""))


def probe_description(site: Site, tag: str, folder: Path, arguments: list[str], lease: float) -> str:
    """Submit file of a job that is like a worker's, but runs :mod:`clusters.probe`.

    Parameters
    ----------
    site : Site
        Of kind ``htcondor``.
    tag : str
        Its attribute ``CygnoCluster``.
    folder : Path
        For its logs.
    arguments : list of str
        Those of the probe.
    lease : float
        UNIX seconds at which the pool removes it.
    """
    return single_description(site, tag, folder, "probe", ["clusters.probe", *arguments], lease, {})


def single_description(
    site: Site, tag: str, folder: Path, name: str, module: list[str], lease: float, policy: dict[str, Any]
) -> str:
    """Submit file of a job that is like a worker's, but runs a module of Python.

    Parameters
    ----------
    site, tag, folder, lease
        As for :func:`probe_description`.
    name : str
        Its slot, and the name of its logs.
    module : list of str
        The module and its arguments.
    policy : dict
        Submit commands that differ from a worker's; those of the site win.
    """
    of_job = _of_jobs(site, tag, folder)
    of_job["job_extra_directives"] = {**of_job["job_extra_directives"], **policy, **site.job.submit}
    job = _Job("tcp://nobody:0", name=name, **of_job)
    job._command_template = shlex.join([*of_job["python"].split(), "-m", *module])
    return job.description(lease)


def _of_jobs(site: Site, tag: str, logs: Path) -> dict[str, Any]:
    """Arguments of dask-jobqueue that describe a job and its worker."""
    job, limits = site.job, site.limits
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), job.cores)
    environment = quote_environment({**threads, **job.environment})
    leaving = min(_LEAVING, job.wall_time / 10)
    python = job.python or ("python3" if job.container else sys.executable)
    directives: dict[str, Any] = {
        f"My.{TAG}": f'"{tag}"',
        "Environment": f'"{environment}"',
        # Not of a running job: it ends by itself when its scheduler is gone, and the shadow that would decide on it
        # does not hear of a renewed lease.
        "periodic_remove": f"JobStatus != 2 && JobStatus != 6 && JobStatus != 7 && time() > {LEASE}",
        "allowed_job_duration": int(job.wall_time),
        "kill_sig": "SIGTERM",
        "job_max_vacate_time": _GRACE,
    }
    if job.gpus:
        directives["request_gpus"] = job.gpus
    if job.requirements:
        directives["requirements"] = job.requirements
    if job.container:
        directives["universe"], directives["container_image"] = "container", job.container
    return {
        "cores": job.cores,
        "memory": f"{job.memory}B",
        "disk": f"{job.disk}B",
        "processes": 1,  # jobs of several are not replaced
        "python": f"exec {python}",  # else the shell gets the signals, and the worker none
        "death_timeout": f"{limits.connect:.0f}s",
        "local_directory": job.scratch,
        "log_directory": str(logs),
        "job_directives_skip": ("LogDirectory", "Output", "Error", "Log", "Stream_Output", "Stream_Error"),
        "worker_extra_args": [
            "--memory-limit", f"{int(job.memory * _WORKERS_SHARE)}B",
            "--lifetime", f"{job.wall_time - leaving:.0f}s",
            "--lifetime-stagger", f"{leaving / 2:.0f}s",
            "--no-dashboard",
        ],
        "job_extra_directives": {**directives, **job.submit},
    }  # fmt: skip
