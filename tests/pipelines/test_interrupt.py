"""Ctrl-C, SIGTERM and dying workers: the run can be gone on with, and nothing is left running."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.cli import reco
from tests.conftest import SmallRuns
from tests.pipelines.conftest import Command, Outcome, Running, Start, content, parts, reco_options


def stopped_cleanly(outcome: Outcome, running: Running, out: Path, total: str = "120") -> None:
    assert outcome.code == 130
    committed = len(parts(out))  # one frame each
    frames = f"{committed} of {total} frames of run00021.mid.gz"
    assert outcome.err.splitlines() == [f"interrupted: {frames} are committed; the same command goes on from there"]
    assert not list(out.rglob("*.partial-*"))
    deadline = time.monotonic() + 5
    while running.others() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running.others() == {}


def test_the_first_pass_over_a_file_is_gone_on_with(
    small_runs: SmallRuns, long_run: Path, tmp_path: Path, call: Command, start: Start
) -> None:
    """Nobody has read the file: it is read and reconstructed at once, so the number of frames is not known yet."""
    run, out, undisturbed = tmp_path / long_run.name, tmp_path / "out", tmp_path / "undisturbed"
    shutil.copy(long_run, run)
    arguments = ["reco", run, *reco_options(small_runs, out, "--block", 1)]
    for sign in (signal.SIGINT, signal.SIGTERM):
        running = start(*arguments)
        before = len(parts(out))
        running.wait_until(lambda before=before: len(parts(out)) >= before + 8)
        running.signal_group(sign)
        outcome = running.outcome()
        (message,) = outcome.err.splitlines()
        total = re.search(r"of (about \d+) frames", message)
        assert total is not None
        stopped_cleanly(outcome, running, out, total[1])
    committed = len(parts(out))
    assert committed < 120
    (summary,) = call(*arguments, "--json").document()
    assert (summary["resumed_frames"], summary["frames"]) == (committed, 120)
    assert call("reco", run, *reco_options(small_runs, undisturbed, "-q")).code == 0
    assert content(out) == content(undisturbed)


def test_interrupted_twice_and_gone_on_with(
    small_runs: SmallRuns, long_run: Path, tmp_path: Path, call: Command, start: Start
) -> None:
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    arguments = ["reco", long_run, *reco_options(small_runs, out, "--block", 1, "--workers")]
    assert call("info", long_run, "--json").code == 0  # a run whose index is known is left to the workers

    running = start(*arguments, 2)
    running.wait_until(lambda: len(parts(out)) >= 4)
    before = running.workers()
    os.kill(before[0], signal.SIGKILL)  # Dask starts another one; the run goes on
    at_death = len(parts(out))
    running.wait_until(lambda: len(parts(out)) >= at_death + 8)
    running.signal_group(signal.SIGINT)  # as a terminal does on Ctrl-C
    time.sleep(0.1)
    running.signal_group(signal.SIGINT)  # by an impatient user
    stopped_cleanly(running.outcome(), running, out)

    running = start(*arguments, 0)
    at_start = len(parts(out))
    running.wait_until(lambda: len(parts(out)) >= at_start + 8)
    running.signal_group(signal.SIGTERM)
    stopped_cleanly(running.outcome(), running, out)

    committed = len(parts(out))
    final = call(*arguments, 0, "--json")
    assert final.code == 0
    (summary,) = final.document()
    assert (summary["resumed_frames"], summary["frames"]) == (committed, 120)
    assert call("reco", long_run, *reco_options(small_runs, undisturbed, "--workers", 0, "-q")).code == 0
    assert content(out) == content(undisturbed)


IN_A_LOCK = """
import os, signal, threading, time
from pipelines import cli

class Lock:
    def __init__(self):
        self.lock = threading.Lock()
        self.acquire, self.release = self.lock.acquire, self.lock.release
    def __enter__(self):
        self.lock.acquire()
        os.kill(os.getpid(), signal.SIGINT)
        return True
    def __exit__(self, *_):
        self.lock.release()

cli._on_interrupt(cli._interrupt)
condition = threading.Condition(Lock())
begin = time.monotonic()
try:
    with condition:
        pass
    while time.monotonic() < begin + 3:
        pass
except KeyboardInterrupt:
    print("unlocked" if condition._lock.lock.acquire(timeout=0) else "locked for ever")
"""


def test_an_interrupt_waits_until_a_lock_is_unlocked() -> None:
    """A thread that reports a finished block would wait for that lock for ever, and the command for the thread."""
    done = subprocess.run([sys.executable, "-c", IN_A_LOCK], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.split() == ["unlocked"]


WAITING = """
import os, signal, threading, time
from pipelines import cli

cli._on_interrupt(cli._interrupt)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
begin = time.monotonic()
try:
    threading.Event().wait(30)
except KeyboardInterrupt:
    print("soon" if time.monotonic() - begin < cli._PATIENCE_S / 2 else "late")
"""


def test_who_waits_is_interrupted_soon() -> None:
    done = subprocess.run([sys.executable, "-c", WAITING], check=True, stdout=subprocess.PIPE, text=True, timeout=20)
    assert done.stdout.split() == ["soon"]


def test_interrupted_before_the_first_frame(
    small_runs: SmallRuns, tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: the signal comes while the pedestal is made."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reco, "find_pedestal", interrupted)
    outcome = call("reco", small_runs.data, *reco_options(small_runs, tmp_path, "--workers", 0, "--json"))
    assert outcome.code == 130
    assert outcome.document() == [{"status": "interrupted", "input": str(small_runs.data)}]
    assert outcome.err == (
        "interrupted before the first frame of run00011.mid.gz; the same command goes on from there\n"
    )
