"""Is a site fit for work? One probe job, and a list of what it found with a remedy for each fault."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import platform
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dask.utils import format_bytes
from distributed.utils import get_ip

from clusters.htcondor import TAG, probe_description
from clusters.logs import indented, last_lines
from clusters.probe import PACKAGES, report
from clusters.schedd import PoolError, Schedd
from clusters.site import Site
from clusters.watch import STATES


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes
    ----------
    name : str
        What was looked at.
    good : bool
        Whether it is as it should be.
    found : str
        What is so.
    remedy : str
        What to do about it, if it is not good.
    """

    name: str
    good: bool
    found: str
    remedy: str = ""


def examine(
    site: Site, *, store: str | None = None, patience: float = 60.0, watch: Callable[[Check], None] | None = None
) -> list[Check]:
    """Examine an HTCondor site, from here and from inside a job.

    Parameters
    ----------
    site : Site
        Of kind ``htcondor``.
    store : str, optional
        URL that jobs should reach, ``s3://bucket``.
    patience : float
        Seconds that the probe job may take, to start and to report.
    watch : callable, optional
        Called with every finding when it is there.

    Returns
    -------
    list of Check
        All findings, in the order in which a fault of one explains those after it. After a fault that leaves nothing
        more to find the list ends.
    """
    return asyncio.run(_examine(site, store, patience, watch or (lambda _: None)))


async def _examine(site: Site, store: str | None, patience: float, watch: Callable[[Check], None]) -> list[Check]:
    checks: list[Check] = []

    def say(name: str, good: bool, found: str, remedy: str = "") -> bool:
        checks.append(Check(name, good, found, "" if good else remedy))
        watch(checks[-1])
        return good

    if site.pool.token is not None and not say("token", *_token(site.pool.token)):
        return checks
    schedd = Schedd(site.pool, site.limits.request)
    begin = time.monotonic()
    try:
        jobs = await schedd.query("true", ["JobStatus"])
    except PoolError as error:
        say(
            "schedd", False, str(error),
            "is it running, and does `pool` in the site file name it (config, collector, schedd)? "
            "A refusal means that the token or the pool's ALLOW_WRITE does not let you in",
        )  # fmt: skip
        return checks
    say("schedd", True, f"answers in {time.monotonic() - begin:.1f} s, {len(jobs)} jobs in its queue")
    say("machines", *await _machines(schedd, site))
    await _probe(say, schedd, site, store, patience)
    return checks


def _token(path: Path) -> tuple[bool, str, str]:
    """Whether a token file is there, and until when it is good."""
    remedy = "get a new one from whoever runs the pool (condor_token_fetch, or your token service)"
    try:
        text = path.read_text().strip()
    except OSError as error:
        return False, f"'{path}' cannot be read: {error.strerror}", remedy
    try:
        middle = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, binascii.Error, ValueError):
        return False, f"'{path}' holds no token (three parts with dots between, of which the second is JSON)", remedy
    ends = claims.get("exp")
    if ends is None:
        return True, f"of {claims.get('sub', 'nobody')}, without an end", ""
    left = ends - time.time()
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(ends))
    return left > 0, f"of {claims.get('sub', 'nobody')}, {'good until' if left > 0 else 'ended'} {when}", remedy


async def _machines(schedd: Schedd, site: Site) -> tuple[bool, str, str]:
    """Whether any machine is large enough for a job."""
    job = site.job
    try:
        slots = await schedd.machines(["Name", "TotalSlotCpus", "TotalSlotMemory", "SlotType"])
    except PoolError as error:
        return False, str(error), "is `pool.collector` the pool's central manager?"
    whole = [slot for slot in slots if slot.get("SlotType") != "Dynamic"]
    fit = [
        slot for slot in whole
        if slot.get("TotalSlotCpus", 0) >= job.cores and slot.get("TotalSlotMemory", 0) * 2**20 >= job.memory
    ]  # fmt: skip
    wants = f"{job.cores} cores and {format_bytes(job.memory)}"
    found = f"{len(fit)} of {len(whole)} slots have the {wants} of a job"
    return bool(fit), found, "ask for less in the site file's `job`, or for larger machines"


async def _probe(say: Callable[..., bool], schedd: Schedd, site: Site, store: str | None, patience: float) -> None:
    """Submit a probe, and say what it finds."""
    heard: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line and not heard.done():
            heard.set_result(json.loads(line))
        writer.close()

    host = site.scheduler.host or get_ip()
    try:
        server = await asyncio.start_server(hear, host, site.scheduler.port)
    except OSError as error:
        say(
            "address", False, f"{host}:{site.scheduler.port}: {error.strerror or error}",
            "`scheduler.host` is an address of this machine, and `scheduler.port` a free port, or 0",
        )  # fmt: skip
        return
    port = server.sockets[0].getsockname()[1]
    tag = f"cygno-probe-{uuid.uuid4().hex[:12]}"
    mine = f'{TAG} == "{tag}"'
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cygnoreco-probe-", ignore_cleanup_errors=True) as folder:
        arguments = [host, str(port), store or "", str(site.pool.token or "")]
        try:
            (answer,) = await schedd.submit([probe_description(site, tag, Path(folder), arguments, time.time() + 600)])
            if isinstance(answer, PoolError):
                say("submission", False, str(answer), "the pool's administrator can say what it refuses, and why")
                return
            say("submission", True, f"job {answer}")
            state = await _followed(schedd, mine, heard, begin + patience)
            if heard.done():
                _findings(say, heard.result(), site, store, time.monotonic() - begin)
                await _call_back(say, heard.result()["address"])
                return
            said = indented(last_lines(Path(folder) / "probe.err", 3))
            say(
                "job",
                False,
                f"{state} after {time.monotonic() - begin:.0f} s{said}",
                _remedy_of(state, said, host, port),
            )
        except PoolError as error:
            say("schedd", False, str(error), "it answered before: try again")
        finally:
            server.close()
            try:
                await schedd.remove(mine, "the examination has ended")
            except PoolError as error:
                say("removal", False, str(error), "the pool removes the probe by itself in ten minutes")


async def _followed(schedd: Schedd, mine: str, heard: asyncio.Future[dict[str, Any]], end: float) -> str:
    """Wait for the report, or until there is no hope: the state of the job."""
    state, reason = "idle", ""
    while time.monotonic() < end:
        done, _ = await asyncio.wait([heard], timeout=1.0)
        if done:
            return "running"
        jobs = await schedd.query(mine, ["JobStatus", "HoldReason"])
        if not jobs:
            await asyncio.wait([heard], timeout=2.0)
            return "ended without a report"
        state = STATES.get(jobs[0]["JobStatus"], "running")
        reason = f": {jobs[0]['HoldReason']}" if jobs[0].get("HoldReason") else ""
        if state == "held":
            break
    return state + reason


def _remedy_of(state: str, said: str, host: str, port: int) -> str:
    if state.startswith("held"):
        return "the reason says what to change; logs and folders must exist where the job runs"
    if "No module named" in said or "not found" in said or "No such file" in said:
        return "the job found no cygnoreco: set `job.python` or `job.container` in the site file"
    if "refused" in said or "timed out" in said or "unreachable" in said:
        return f"jobs cannot reach tcp://{host}:{port}: set `scheduler.host` and a port that the firewall lets through"
    if state == "idle":
        return "no machine took it: see `condor_q -better-analyze`, or ask for less in `job`"
    return f"no report came to tcp://{host}:{port}: set `scheduler.host`, or look at the logs of the job"


def _findings(say: Callable[..., bool], found: dict[str, Any], site: Site, store: str | None, seconds: float) -> None:
    """Compare a report with what is needed."""
    job = site.job
    here = report()
    say("job to driver", True, f"reported from {found['host']} in {seconds:.0f} s")
    minor = [version.rsplit(".", 1)[0] for version in (found["python"], here["python"])]
    say(
        "Python", minor[0] == minor[1], f"{found['python']} in the job, {platform.python_version()} here",
        "use the same minor version: what Dask sends is read by the other side",
    )  # fmt: skip
    other = [
        f"{name} {found['versions'][name] or 'missing'} (here {here['versions'][name]})"
        for name in PACKAGES
        if found["versions"][name] != here["versions"][name]
    ]
    say(
        "packages", not other, "; ".join(other) or "the versions are those of the driver",
        "install the driver's versions where the job runs (constraints.txt, or the image of the same release)",
    )  # fmt: skip
    for what, needed in (("disk", job.disk), ("memory", job.memory)):
        good, has = found[what] >= needed, format_bytes(found[what])
        say(
            what, good, f"{has}, asked for {format_bytes(needed)}", f"ask for less `job.{what}`, or exclude the machine"
        )
    if job.gpus:
        gpus = found["gpus"]
        remedy = "does the machine's driver work (nvidia-smi), and does the container see it?"
        say("GPU", len(gpus) >= job.gpus, ", ".join(gpus) or "none", remedy)
    if store:
        say(
            "store", found["store"] == "reachable", found["store"],
            "give the job credentials and endpoint in `job.environment`, or let the firewall pass",
        )  # fmt: skip


async def _call_back(say: Callable[..., bool], address: list[Any]) -> None:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(*address), 10)
    except (OSError, TimeoutError) as error:
        say(
            "driver to job", False, f"tcp://{address[0]}:{address[1]}: {str(error) or 'no answer'}",
            "open the pool's worker ports to this machine, or let the driver run inside the pool",
        )  # fmt: skip
        return
    writer.close()
    say("driver to job", True, f"tcp://{address[0]}:{address[1]} answers")
