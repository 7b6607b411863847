"""Runs with something special about them, and the command line in this process and in others."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cygnoreco.io.midas_writer import MidasWriter
from pipelines import cli
from tests.conftest import SmallRuns

#: Python tells where each thread is if it is aborted, which says why a command hangs.
PROGRAM = [sys.executable, "-X", "faulthandler", "-c", "from pipelines.cli import main; main()"]


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and its two outputs."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        """The one JSON document on standard output; NaN and infinity are none."""
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


Command = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Command:
    """Call a command in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = cli.run([str(each) for each in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


def reco_options(runs: SmallRuns, out: Path, *more: object) -> list[str]:
    """Options of ``reco`` and ``show`` that suit the small sensor, with the output folder."""
    settings = [word for setting in runs.settings for word in ("--set", setting)]
    options = ["--pedestal", runs.pedestal, "--vignetting", runs.response, *settings, "-o", out, *more]
    return [str(each) for each in options]


@pytest.fixture(scope="session")
def damaged_run(small_runs: SmallRuns, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run 11, cut off in the middle of a frame."""
    path = tmp_path_factory.mktemp("damaged") / "run00012.mid.gz"
    content = small_runs.data.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


@pytest.fixture(scope="session")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run 21 of the same camera, long enough to be stopped on the way."""
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import write_run

    path = tmp_path_factory.mktemp("long") / "run00021.mid.gz"
    detector = Detector(height=256, width=320)
    write_run(path, run=21, events=demo_plan(120, detector=detector), detector=detector)
    return path


@dataclass(frozen=True)
class TwoCameras:
    """A pedestal run and a data run of two cameras of different shape."""

    pedestal: Path
    data: Path
    frames: int


@pytest.fixture(scope="session")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> TwoCameras:
    """Runs 10 (pedestal) and 11 of CAM0, 128 x 160, and CAM1, 96 x 256."""
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import simulate_event

    folder = tmp_path_factory.mktemp("cameras")
    detectors = {"CAM0": Detector(height=128, width=160), "CAM1": Detector(height=96, width=256)}
    shapes = {name: {"Width": each.width, "Height": each.height} for name, each in detectors.items()}
    for run, n in ((10, 8), (11, 6)):
        plans = {name: [()] * n if run == 10 else demo_plan(n, detector=each) for name, each in detectors.items()}
        odb = {"Runinfo": {"Run number": run}, "Configurations": {"Pedestal": run == 10, "Cameras": shapes}}
        with MidasWriter(folder / f"run{run:05d}.mid.gz", run=run, odb=odb, timestamp=1_700_000_000) as writer:
            for event in range(n):
                frames = {
                    name: simulate_event(plans[name][event], detector=each, seed=place, run=run, event=event)[0]
                    for place, (name, each) in enumerate(detectors.items())
                }
                writer.event(1, frames)
    return TwoCameras(folder / "run00010.mid.gz", folder / "run00011.mid.gz", 6)


def write_frames(path: Path, run: int, frames: list[Any]) -> Path:
    """Write a run of CAM0, 256 x 320, from arrays that need not be frames."""
    odb = {"Runinfo": {"Run number": run}, "Configurations": {"Cameras": {"CAM0": {"Width": 320, "Height": 256}}}}
    with MidasWriter(path, run=run, odb=odb, timestamp=1_700_000_000) as writer:
        writer.event(7, {"TCAM": np.array([-5.0])})
        for frame in frames:
            writer.event(1, {"CAM0": frame})
    return path


class Running:
    """A command in a process group of its own, as a terminal has it."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for something to happen while the command runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < deadline, "it takes too long"
            time.sleep(0.005)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the group."""
        os.killpg(self._process.pid, number)

    def outcome(self, seconds: float = 60) -> Outcome:
        """Wait for the end."""
        try:
            out, err = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            out, err = self._process.communicate()
            pytest.fail(f"no end within {seconds} s; it said {out!r} and stood at\n{err}")
        return Outcome(self._process.returncode, out, err)

    def is_over(self, after: float) -> bool:
        """Whether it ends by itself within some seconds."""
        try:
            self._process.wait(after)
        except subprocess.TimeoutExpired:
            return False
        return True

    def others(self) -> dict[int, str]:
        """Processes of the group that run, but for the first one: command line by process number."""
        found = {}
        for process in psutil.process_iter(["cmdline", "status"]):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(process.pid) == self._process.pid != process.pid:
                    found[process.pid] = process.info
        return {
            pid: " ".join(info["cmdline"] or [])
            for pid, info in found.items()
            if info["status"] != psutil.STATUS_ZOMBIE
        }

    def close(self) -> None:
        """Kill what a failed test left running."""
        for pid in self.others():
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()

    def workers(self) -> list[int]:
        """Process numbers of Dask's workers."""
        return [pid for pid, command in self.others().items() if "spawn_main" in command]


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start commands in processes of their own; none outlives the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(contextlib.closing(Running(*arguments)))


def parts(out: Path) -> list[Path]:
    """Blocks committed below an output folder."""
    return list(out.glob("datasets/*/parts/*.part.npz"))


def content(out: Path) -> dict[str, str]:
    """Hash of every file but the summary, which tells times and host, and the calibration that workers load."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "summary.json" and path.parent.name != "calibration"
    }
