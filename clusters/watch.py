"""What to do about the jobs of a pool, given what is seen of them: pure functions, without a clock or a network.

A *slot* stands for one worker that is wanted; it has at most one job, and its name is that of the job's worker. A slot
whose job is lost is dropped, and another one made in its place when the time has come.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Literal

from clusters.site import Limits, Workers

#: HTCondor's ``JobStatus``. Jobs that are transferring their output, or suspended, are running to us.
STATES = {1: "idle", 2: "running", 3: "removed", 4: "completed", 5: "held", 6: "running", 7: "running"}
_OVER = ("removed", "completed")


@dataclass(frozen=True)
class Slot:
    """A worker that is wanted; times are seconds of one clock.

    Attributes
    ----------
    name : str
        Name of the worker.
    submitted : float or None
        When its job was submitted, as far as we know.
    running : float or None
        When the job was first seen running.
    connected : float or None
        When the worker was first seen.
    seen : float or None
        When it was last seen.
    """

    name: str
    submitted: float | None = None
    running: float | None = None
    connected: float | None = None
    seen: float | None = None


@dataclass(frozen=True)
class Job:
    """A job in the queue.

    Attributes
    ----------
    id : str
        ``12.0``.
    state : str
        A value of ``STATES``.
    reason : str
        Why it is held, or was removed.
    """

    id: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Seen:
    """What was seen at one moment.

    Attributes
    ----------
    now : float
        The moment.
    jobs : mapping or None
        Jobs in the queue by the names of their slots; None if the schedd did not answer.
    workers : set of str
        Workers that are connected to the scheduler.
    backlog : int
        Blocks that are not finished.
    """

    now: float
    jobs: Mapping[str, Job] | None
    workers: Set[str]
    backlog: int


@dataclass(frozen=True)
class Lost:
    """A job that will not give a worker any more.

    Attributes
    ----------
    slot : Slot
        Its slot.
    kind : {'held', 'gone', 'silent', 'ended'}
        Held; not in the queue any more, though its worker was no good for long; running without a worker; ended after
        good work.
    reason : str
        For people.
    """

    slot: Slot
    kind: Literal["held", "gone", "silent", "ended"]
    reason: str


@dataclass(frozen=True)
class Health:
    """What the loop remembers from one look to the next.

    Attributes
    ----------
    slots : mapping
        Slots by name.
    failures : int
        Jobs that failed, or were refused, since a worker was last good.
    not_before : float
        Moment before which no job is submitted.
    away : float or None
        Since when the schedd has not answered.
    alone : float or None
        Since when there has been no worker, though there is work.
    last : str
        The latest failure.
    """

    slots: Mapping[str, Slot] = field(default_factory=dict)
    failures: int = 0
    not_before: float = 0.0
    away: float | None = None
    alone: float | None = None
    last: str = ""


@dataclass(frozen=True)
class Decision:
    """What follows from a look.

    Attributes
    ----------
    health : Health
        To remember.
    lost : tuple of Lost
        Slots to drop.
    strays : tuple of str
        Jobs in the queue that belong to no slot: to remove.
    submit : tuple of str
        Slots that get a job now.
    grow : bool
        New slots may take the place of dropped ones.
    fault : str or None
        Why there is no hope left.
    """

    health: Health
    lost: tuple[Lost, ...] = ()
    strays: tuple[str, ...] = ()
    submit: tuple[str, ...] = ()
    grow: bool = True
    fault: str | None = None


def decide(health: Health, names: Set[str], seen: Seen, limits: Limits) -> Decision:
    """Say what to do.

    Parameters
    ----------
    health : Health
        Of the last look.
    names : set of str
        Slots that there are now.
    seen : Seen
        What is seen.
    limits : Limits
        What is borne.

    Returns
    -------
    Decision
    """
    now = seen.now
    slots = {name: _updated(health.slots.get(name, Slot(name)), seen) for name in sorted(names)}
    lost = tuple(found for slot in slots.values() if (found := _lost(slot, seen, limits)))
    for each in lost:
        del slots[each.slot.name]
    if any(slot.seen == now and now - (slot.connected or now) >= limits.steady for slot in slots.values()):
        health = replace(health, failures=0)
    for each in lost:
        if each.kind != "ended":
            health = failed(health, each.reason, now, limits)
    health = replace(
        health,
        slots=slots,
        away=(health.away or now) if seen.jobs is None else None,
        # Nobody works, and nobody need: no fault.
        alone=(health.alone or now) if seen.backlog and not seen.workers else None,
    )
    exhausted = health.failures >= max(limits.failures, len(names))
    go_on = now >= health.not_before and not exhausted
    strays = (
        ()
        if seen.jobs is None
        else tuple(job.id for name, job in seen.jobs.items() if name not in slots and job.state not in _OVER)
    )
    fresh = tuple(name for name, slot in slots.items() if slot.submitted is None)
    return Decision(
        health,
        lost,
        strays,
        submit=fresh[: max(1, int(limits.interval / limits.stagger))] if go_on and seen.jobs is not None else (),
        grow=go_on,
        fault=None if health.alone is None else _fault(health, exhausted, seen, limits),
    )


def failed(health: Health, reason: str, now: float, limits: Limits) -> Health:
    """Count one more failure, and put off the next trial."""
    failures = health.failures + 1
    pause = min(limits.backoff * 2.0 ** min(failures - 1, 30), limits.backoff_max)
    return replace(health, failures=failures, not_before=now + pause, last=reason)


def _updated(slot: Slot, seen: Seen) -> Slot:
    """Add to a slot what a look shows of it."""
    job = seen.jobs.get(slot.name) if seen.jobs is not None else None
    if job is not None and slot.submitted is None:
        slot = replace(slot, submitted=seen.now)  # the answer to its submission was lost
    if job is not None and job.state == "running" and slot.running is None:
        slot = replace(slot, running=seen.now)
    if slot.name in seen.workers:
        slot = replace(slot, connected=slot.connected or seen.now, seen=seen.now)
    return slot


def _lost(slot: Slot, seen: Seen, limits: Limits) -> Lost | None:
    """Whether, and how, a slot has lost its job."""
    now = seen.now
    if slot.submitted is None or seen.jobs is None:
        return None
    job = seen.jobs.get(slot.name)
    if job is not None and job.state == "held":
        return Lost(slot, "held", f"job {job.id} of worker {slot.name} is held: {job.reason}")
    if slot.name in seen.workers:
        return None
    if job is None or job.state in _OVER:
        if slot.connected and (slot.seen or now) - slot.connected >= limits.steady:
            return Lost(
                slot, "ended", f"worker {slot.name} has ended after {(slot.seen or now) - slot.connected:.0f} s"
            )
        when = "soon after its worker began" if slot.connected else "before its worker reported"
        why = f": {job.reason}" if job is not None and job.reason else ""
        return Lost(slot, "gone", f"the job of worker {slot.name} left the queue {when}{why}")
    if job.state == "running":
        since = slot.seen or slot.running or now
        if now - since >= limits.connect:
            what = "its worker has not been seen since" if slot.connected else "its worker never reported"
            return Lost(slot, "silent", f"job {job.id} of worker {slot.name} has run for {now - since:.0f} s: {what}")
    return None


def _fault(health: Health, exhausted: bool, seen: Seen, limits: Limits) -> str | None:
    """Why work that has no worker will not go on, if so."""
    now = seen.now
    if health.away is not None and now - health.away >= limits.away:
        return f"the schedd has not answered for {now - health.away:.0f} s, and no worker is left"
    if any(job.state == "running" for job in (seen.jobs or {}).values()):
        return None  # its worker may be about to report
    if exhausted:
        return f"{health.failures} jobs failed one after the other, the last one: {health.last}"
    waits = [now - slot.submitted for slot in health.slots.values() if slot.submitted is not None]
    if waits and min(waits) >= limits.idle:
        return f"{len(waits)} jobs wait for a machine, the latest since {min(waits):.0f} s: none of the pool takes them"
    return None


def wanted(
    current: int, backlog: int, low_since: float | None, now: float, workers: Workers
) -> tuple[int, float | None]:
    """How many workers there should be, by the blocks that are not finished.

    More are asked for at once, fewer only when fewer have been enough for a while: a job that was sent away waits in
    the queue again.

    Parameters
    ----------
    current : int
        How many are wanted so far.
    backlog : int
        Unfinished blocks.
    low_since : float or None
        Since when fewer would have been enough.
    now : float
        The time, in seconds.
    workers : Workers
        Bounds; its maximum is not None.

    Returns
    -------
    target : int
        How many are wanted from now on.
    low_since : float or None
        For the next call.
    """
    enough = -(-backlog // workers.blocks)
    enough = max(workers.minimum, min(enough, workers.maximum or enough))
    if enough >= current:
        return enough, None
    if low_since is None:
        return current, now
    return (enough, None) if now - low_since >= workers.cooldown else (current, low_since)
