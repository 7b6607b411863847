"""What a pool has, and what jobs of ours are in its queue."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from clusters.htcondor import LEASE, SLOT, TAG
from clusters.schedd import Schedd
from clusters.site import Site
from clusters.watch import STATES


@dataclass(frozen=True)
class QueuedJob:
    """A job of ours.

    Attributes
    ----------
    id : str
        ``12.0``.
    cluster, worker : str
        The Dask cluster that it belongs to, and its worker there.
    state : str
        ``idle``, ``running``, ``held``, ``removed`` or ``completed``.
    waited_s : float
        Seconds since it was submitted.
    host : str
        Where it runs, if it does.
    reason : str
        Why it is held, if it is.
    lease_s : float
        Seconds for which the pool waits for a sign of life of its driver; negative if the driver is dead.
    """

    id: str
    cluster: str
    worker: str
    state: str
    waited_s: float
    host: str
    reason: str
    lease_s: float


@dataclass(frozen=True)
class Overview:
    """A pool at one moment.

    Attributes
    ----------
    cores, free_cores : int
        Cores of all machines, and of them those without a job.
    memory, free_memory : int
        Bytes, likewise.
    machines : int
        How many.
    gpus : int
        GPUs of all machines.
    jobs : tuple of QueuedJob
        Our jobs.
    others : int
        Jobs in the queue that are not ours.
    """

    cores: int
    free_cores: int
    memory: int
    free_memory: int
    machines: int
    gpus: int
    jobs: tuple[QueuedJob, ...]
    others: int


def overview(site: Site) -> Overview:
    """Look at the pool of an HTCondor site.

    Raises
    ------
    clusters.schedd.PoolError
        It does not answer.
    """
    return asyncio.run(_overview(site))


async def _overview(site: Site) -> Overview:
    schedd = Schedd(site.pool, site.limits.request)
    projection = ["ClusterId", "ProcId", "JobStatus", "QDate", "RemoteHost", "HoldReason", TAG, SLOT, LEASE]
    ads, slots = await asyncio.gather(schedd.query("true", projection), schedd.machines(_OF_A_SLOT))
    now = time.time()
    jobs = tuple(
        QueuedJob(
            id=f"{ad['ClusterId']}.{ad['ProcId']}",
            cluster=str(ad[TAG]),
            worker=str(ad.get(SLOT, "")),
            state=STATES.get(ad["JobStatus"], "running"),
            waited_s=now - ad.get("QDate", now),
            host=str(ad.get("RemoteHost", "")),
            reason=str(ad.get("HoldReason", "")) if ad["JobStatus"] == _HELD else "",
            lease_s=ad.get(LEASE, now) - now,
        )
        for ad in ads
        if TAG in ad
    )
    # A partitionable slot is a machine, and what it has left; the pieces that jobs have of it are slots of their own.
    whole = [slot for slot in slots if slot.get("SlotType") != "Dynamic"]

    def total(name: str) -> int:
        return int(sum(slot.get(name, 0) for slot in whole))

    free = [slot for slot in whole if slot.get("SlotType") == "Partitionable" or slot.get("State") == "Unclaimed"]
    return Overview(
        cores=total("TotalSlotCpus"),
        free_cores=int(sum(slot.get("Cpus", 0) for slot in free)),
        memory=total("TotalSlotMemory") << 20,
        free_memory=int(sum(slot.get("Memory", 0) for slot in free)) << 20,
        machines=len({slot.get("Machine") for slot in whole}),
        gpus=total("TotalSlotGPUs"),
        jobs=jobs,
        others=len(ads) - len(jobs),
    )


_HELD = 5
_OF_A_SLOT = ["Machine", "SlotType", "State", "Cpus", "Memory", "TotalSlotCpus", "TotalSlotMemory", "TotalSlotGPUs"]
