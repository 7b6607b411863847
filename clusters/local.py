"""Workers on this machine: the default site."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from cygnoreco.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

#: Bytes of free memory at the heap's top that glibc keeps. Dask's own default of 64 kB gives every freed frame back to
#: the system and takes it again for the next one, which costs more than half of the processor time.
_TRIM_THRESHOLD = 512 * 1024 * 1024


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def local_client(workers: int | None = None) -> Iterator[Client | None]:
    """Start workers, one process of one thread each, for the length of a ``with`` block.

    One thread a process: parts of the work hold Python's lock, and memory is planned by worker.

    Parameters
    ----------
    workers : int, optional
        How many; by default one a processor core that this process may use. 0 means no cluster: the block gets None
        and computes in its own process.

    Yields
    ------
    distributed.Client or None

    Raises
    ------
    InputError
        A negative number.
    """
    if workers is None:
        workers = cores()
    if workers < 0:
        raise InputError(f"workers = {workers}: a number of at least 0 is needed")
    if workers == 0:
        yield None
        return
    import dask
    from distributed import Client, LocalCluster

    environment = {
        **dask.config.get("distributed.nanny.pre-spawn-environ"),
        "MALLOC_TRIM_THRESHOLD_": _TRIM_THRESHOLD,
    }
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}), contextlib.ExitStack() as running:
        with _deaf_to_signals():
            cluster = running.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # its small HTTP server starts anyway
                    silence_logs=logging.CRITICAL,
                )
            )
            client = running.enter_context(Client(cluster))
        yield client


@contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """Let the threads and processes started in the block never receive an interrupt.

    A terminal sends Ctrl-C to the whole process group, and batch systems send SIGTERM so. The driver alone is to act
    on it: workers that die at the same moment would be started again while it closes them. A mask is inherited by the
    threads that watch the workers, and so by workers that take the place of dead ones. SIGKILL passes, and workers
    leave by themselves when the driver is gone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's affair
        return
    # Python's helper that counts shared semaphores: starting it would open the mask of the thread that needs it first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
