"""Workers on this machine."""

from __future__ import annotations

import os
import signal

import pytest

from clusters.local import local_client
from cygnoreco.errors import InputError

INTERRUPTS = {signal.SIGINT, signal.SIGTERM}


def _of_the_worker() -> tuple[int, str | None, set[int]]:
    return os.getpid(), os.environ.get("MALLOC_TRIM_THRESHOLD_"), set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_no_workers_is_no_client() -> None:
    with local_client(0) as client:
        assert client is None


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(InputError, match="workers = -1: a number of at least 0"), local_client(-1):
        pass


def test_workers_are_processes_that_leave_interrupts_to_the_driver(recwarn: pytest.WarningsRecorder) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with local_client(2) as client:
        assert client is not None
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & INTERRUPTS
        assert list(client.nthreads().values()) == [1, 1]
        workers = client.run(_of_the_worker)
        assert len({pid for pid, _, _ in workers.values()} - {os.getpid()}) == 2
        for _, trim, blocked in workers.values():
            assert trim == str(512 * 1024 * 1024)
            assert blocked >= INTERRUPTS
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert client.status == "closed"
    assert not [each for each in recwarn if "Port" in str(each.message)]
