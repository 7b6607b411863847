"""A reconstruction killed with SIGKILL at random moments and started again ends with the bytes of an undisturbed one.

Kills the whole process group, driver and workers. Every second kill comes at a random moment of the time that an
undisturbed run takes, and so hits the start of workers as well; the others come when this start has committed a random
number of blocks, and so hit the work.

Example: python -m bench.kill --kills 10
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def command(pedestal: Path, data: Path, out: Path, workers: int, settings: list[str]) -> list[str]:
    code = "from pipelines.cli import main; main()"
    options = ["--pedestal", str(pedestal), "-o", str(out), "--workers", str(workers), "--block", "1", "-q"]
    return [sys.executable, "-c", code, "reco", str(data), *options, *settings]


def content(out: Path) -> dict[str, str]:
    """Hash of every published file but the summary, which tells times and host."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


def parts(out: Path) -> int:
    return len(list(out.glob("datasets/*/parts/*.npz")))


def run_and_kill(
    call: list[str], environment: dict[str, str], out: Path, *, after_s: float, after_parts: int | None
) -> tuple[bool, float]:
    """Start, wait, kill the whole group; whether it had finished before, and the moment in seconds."""
    start = time.perf_counter()
    there = parts(out)
    process = subprocess.Popen(call, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    reached = after_parts is None
    deadline = start + after_s
    while process.poll() is None and not (reached and time.perf_counter() > deadline):
        if not reached and parts(out) >= there + (after_parts or 0):
            reached, deadline = True, time.perf_counter() + after_s
        time.sleep(0.002)
    moment = time.perf_counter() - start
    if process.poll() is not None:
        return True, moment
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return False, moment


def main() -> None:
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import pedestal_run, write_run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--side", type=int, default=2304, help="pixels of the sensor's side")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    detector = Detector(height=arguments.side, width=arguments.side)
    small = arguments.side < 2304
    settings = ["--set", "accept.xmax=none", "--set", "accept.ymin=none", "--set", "accept.ymax=none"] if small else []
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = {**os.environ, "XDG_CACHE_HOME": str(home / "cache")}
        pedestal, data = home / "run00010.mid.gz", home / "run00011.mid.gz"
        pedestal_run(pedestal, run=10, frames=10, detector=detector)
        write_run(data, run=11, events=demo_plan(arguments.frames, detector=detector), detector=detector)
        call = command(pedestal, data, home / "quiet", arguments.workers, settings)
        subprocess.run(call, check=True, env=environment)  # compiles kernels where that was not done yet
        shutil.rmtree(home / "quiet")
        shutil.rmtree(home / "cache")
        start = time.perf_counter()
        subprocess.run(call, check=True, env=environment)
        duration = time.perf_counter() - start
        shutil.rmtree(home / "cache")  # index and pedestal are made, and killed, as well
        call = command(pedestal, data, home / "killed", arguments.workers, settings)
        out = home / "killed"
        early = 0
        for kill in range(arguments.kills):
            by_work = kill % 2 == 1
            finished, moment = run_and_kill(
                call,
                environment,
                out,
                after_s=rng.uniform(0, 0.2) if by_work else rng.uniform(0, duration),
                after_parts=rng.randint(1, max(1, arguments.frames // arguments.kills)) if by_work else None,
            )
            early += finished
            state = "had finished" if finished else f"killed, {parts(out)} parts committed"
            print(f"{kill + 1:3d}  after {moment:5.2f} s  {state}", flush=True)
            if finished:
                shutil.rmtree(out)
        subprocess.run(call, check=True, env=environment)
        same = content(out) == content(home / "quiet")
        leftovers = [str(path.relative_to(home)) for path in out.rglob("*partial*")]
        print(
            f"undisturbed {duration:.1f} s; {arguments.kills - early} kills; identical: {same}; leftovers: {leftovers}"
        )
        sys.exit(0 if same and not leftovers else 1)


if __name__ == "__main__":
    main()
