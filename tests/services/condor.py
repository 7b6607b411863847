"""A real HTCondor pool for tests, and faults of its schedd.

``tests/conftest.py`` makes the fixtures known; ``condor_pool`` is one pool for the whole session. Without the program
and without a way to fetch it the tests are skipped; where ``CI`` is set they fail.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
import psutil  # type: ignore[import-untyped]
import pytest

from clusters import pool
from clusters.pool import Pool
from cygnoreco.errors import CygnoError

#: What takes seconds in a pool for tests takes many on others. A killed schedd is started again after a second.
QUICK = """\
NEGOTIATOR_INTERVAL = 1
SCHEDD_INTERVAL = 1
PERIODIC_EXPR_INTERVAL = 1
SYSTEM_PERIODIC_EXPR_INTERVAL = 1
MAX_PERIODIC_EXPR_INTERVAL = 1
UPDATE_INTERVAL = 2
STARTER_UPDATE_INTERVAL = 2
STARTER_INITIAL_UPDATE_INTERVAL = 1
SHADOW_QUEUE_UPDATE_INTERVAL = 1
JOB_START_DELAY = 0
MASTER_BACKOFF_CONSTANT = 1
MASTER_BACKOFF_CEILING = 2
"""

#: The user's own, so that it is fetched once and not once a session: by then the tests have another cache folder.
_PREFIX = os.environ.get("CONDOR_POOL_PREFIX") or str(platformdirs.user_cache_path("cygnoreco") / "condor")

_PATIENCE_S = 20.0


@pytest.fixture(scope="session")
def condor() -> Iterator[None]:
    """Have the program installed, and let every pool of this session use it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DIR", "PORT", "CPUS", "MEMORY", "EXTRA"):  # of a pool that the user works with
            patch.delenv(f"CONDOR_POOL_{name}", raising=False)
        patch.setenv("CONDOR_POOL_PREFIX", _PREFIX)
        try:
            pool.install()
        except CygnoError as error:
            if os.environ.get("CI"):
                pytest.fail(f"no HTCondor for the tests: {error}", pytrace=False)
            pytest.skip(f"no HTCondor: {error}")
        yield


@pytest.fixture(scope="session")
def condor_pool(condor: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One pool of four cores and 8 GB, whatever the machine has, for the whole session; its folder has a site file."""
    folder = tmp_path_factory.mktemp("condor")
    found = pool.up(folder, cpus=4, memory_mb=8192, extra=QUICK)
    try:
        yield found
    finally:
        pool.down(folder)


def run_tool(pool: Pool, *command: str) -> str:
    """Call a command of condor's on the pool, and return what it prints."""
    done = subprocess.run(
        [str(pool.programs / command[0]), *command[1:]],
        env={**os.environ, **pool.environment},
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def run_python(pool: Pool, code: str, *arguments: str) -> str:
    """Run Python with the pool's environment, which HTCondor's bindings read once a process; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **pool.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def master_pid(pool: Pool) -> int:
    """Process number of the daemon that has started all others."""
    return int((pool.folder / "master.pid").read_text())


def schedd_pid(pool: Pool) -> int | None:
    """Process number of the schedd; None while there is none."""
    for process in psutil.Process(master_pid(pool)).children():
        with suppress(psutil.Error):  # it may end while one looks at it
            if process.name() == "condor_schedd" and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
    return None


def stop_schedd(pool: Pool) -> None:
    """Have the schedd ended, and not started again: who calls it is refused; jobs that run go on."""
    run_tool(pool, "condor_off", "-fast", "-daemon", "schedd")
    wait_until(lambda: schedd_pid(pool) is None, "the schedd is gone")


def start_schedd(pool: Pool) -> None:
    """Have the schedd started again, and wait until it answers."""
    run_tool(pool, "condor_on", "-daemon", "schedd")
    wait_for_schedd(pool)


def kill_schedd(pool: Pool) -> None:
    """Kill the schedd, as a crash would: the master starts another a second or two later."""
    pid = schedd_pid(pool)
    assert pid is not None, "no schedd to kill"
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: schedd_pid(pool) != pid, "the schedd is gone")


@contextmanager
def frozen_schedd(pool: Pool) -> Iterator[None]:
    """Let the schedd do nothing for the length of a ``with`` block: who calls it waits."""
    pid = schedd_pid(pool)
    assert pid is not None, "no schedd to freeze"
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def wait_for_schedd(pool: Pool) -> None:
    """Wait until the schedd answers."""
    wait_until(lambda: schedd_pid(pool) is not None and _answers(pool), "the schedd answers")


def processes(pool: Pool) -> dict[int, str]:
    """Every process whose environment names the pool's folder, by number: daemons and jobs."""
    return processes_of(pool.folder)


def processes_of(folder: Path) -> dict[int, str]:
    """Every process whose environment names a pool's folder, and that a condor_master has started or is."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it may end while one looks at it
            environment = process.environ()
            if any(value.startswith(f"{folder}/") for value in environment.values()) and (
                process.name() == "condor_master" or any(name.startswith("_CONDOR_ANCESTOR_") for name in environment)
            ):
                found[process.pid] = process.name()
    return found


def wait_until(condition: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> None:
    """Wait for something to become true; fail with what it was."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"not within {patience_s:g} s: {what}"
        time.sleep(0.05)


def _answers(pool: Pool) -> bool:
    done = subprocess.run(
        [str(pool.programs / "condor_q")], env={**os.environ, **pool.environment}, capture_output=True, timeout=30
    )
    return done.returncode == 0
