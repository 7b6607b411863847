"""A reconstruction killed with SIGKILL at random moments and started again ends with the bytes of an undisturbed one.

Kills the whole process group, driver and workers, each time after a random part of the time that an undisturbed run
takes.

Example: python bench/kill.py --kills 10
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


def run_and_kill(call: list[str], after: float, environment: dict[str, str]) -> bool:
    """Start, wait, kill the whole group; True if it had finished before."""
    process = subprocess.Popen(call, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
        return True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


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
        early = 0
        for kill in range(arguments.kills):
            after = rng.uniform(0.1, 1.0) * duration
            finished = run_and_kill(call, after, environment)
            early += finished
            parts = len(list(home.glob("killed/datasets/*/parts/*.npz")))
            state = "had finished" if finished else f"killed, {parts} parts committed"
            print(f"{kill + 1:3d}  after {after:5.2f} s  {state}")
            if finished:
                shutil.rmtree(home / "killed")
        subprocess.run(call, check=True, env=environment)
        same = content(home / "killed") == content(home / "quiet")
        leftovers = [str(path.relative_to(home)) for path in (home / "killed").rglob("*partial*")]
        print(
            f"undisturbed {duration:.1f} s; {arguments.kills - early} kills; identical: {same}; leftovers: {leftovers}"
        )
        sys.exit(0 if same and not leftovers else 1)


if __name__ == "__main__":
    main()
