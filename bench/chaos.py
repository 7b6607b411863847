"""A campaign on a real HTCondor pool while a seeded monkey kills, for minutes: nothing is lost, and nothing is left.

Every few seconds the monkey kills a worker's process, removes a job, kills the schedd or kills the driver, which is
then started again with the same command. Whenever all runs are done their files are compared with those of a quiet
campaign, and the next one begins in a new folder. At the end the queue must be empty, and no temporary file left.

Example: python -m bench.chaos --minutes 2 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench._common import print_table
from bench.kill import content
from clusters import pool
from clusters.pool import Pool

#: What takes seconds in a pool for tests takes many on others.
QUICK = """\
NEGOTIATOR_INTERVAL = 1
SCHEDD_INTERVAL = 1
PERIODIC_EXPR_INTERVAL = 1
SYSTEM_PERIODIC_EXPR_INTERVAL = 1
UPDATE_INTERVAL = 2
MASTER_BACKOFF_CONSTANT = 1
MASTER_BACKOFF_CEILING = 2
"""

SITE = """\
kind = "htcondor"
[pool]
config = {config}
[job]
memory = "1 GB"
disk = "100 MB"
[scheduler]
host = "127.0.0.1"
[workers]
maximum = 4
[limits]
interval = 0.5
connect = 20
lease = 10
backoff = 0.5
backoff_max = 2
failures = 1000
"""


def make_runs(folder: Path, runs: int, frames: int) -> list[str]:
    """Simulate the runs, and read every second one, so that both ways to the blocks are gone."""
    from cygnoreco import open_run
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import pedestal_run, write_run

    detector = Detector(height=256, width=320)
    pedestal_run(folder / "dark.mid.gz", run=10, frames=12, detector=detector)
    paths = []
    for index in range(runs):
        path = folder / f"run{5000 + index:05d}.mid.gz"
        write_run(path, run=5000 + index, events=demo_plan(frames, detector=detector), detector=detector)
        if index % 2:
            _ = open_run(path).cameras
        paths.append(str(path))
    return paths


def command(folder: Path, runs: list[str], out: Path, site: Path) -> list[str]:
    code = "from pipelines.cli import main; main()"
    settings = [word for edge in ("xmax", "ymin", "ymax") for word in ("--set", f"accept.{edge}=none")]
    options = ["--pedestal", str(folder / "dark.mid.gz"), "--vignetting", "none", "--site", str(site), "-o", str(out)]
    return [sys.executable, "-c", code, "reco", *runs, *options, *settings, "--workers", "4", "--block", "4", "--json"]


class Monkey:
    """Kills something of a campaign."""

    def __init__(self, seed: int, site: Pool) -> None:
        self._random = random.Random(seed)
        self._pool = site
        self.kills: Counter[str] = Counter()

    def act(self, driver: subprocess.Popen[Any]) -> None:
        """Do one thing, if there is what it is done to."""
        acts: dict[str, Callable[[subprocess.Popen[Any]], bool]] = {
            "worker": self._worker, "job": self._job, "schedd": self._schedd, "driver": self._driver,
        }  # fmt: skip
        name = self._random.choice(sorted(acts))
        self.kills[name] += acts[name](driver)

    def pause(self) -> float:
        """Draw the seconds until the next act."""
        return self._random.uniform(1, 4)

    def _worker(self, _: object) -> bool:
        mine = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if "spawn_main" in line and str(self._pool.folder) in process.environ().get("_CONDOR_JOB_AD", ""):
                    mine.append(process)
            except psutil.Error:
                continue
        if mine:
            self._random.choice(mine).kill()
        return bool(mine)

    def _job(self, _: object) -> bool:
        jobs = queue(self._pool)
        if jobs:
            self._tool("condor_rm", self._random.choice(jobs))
        return bool(jobs)

    def _schedd(self, _: object) -> bool:
        master = psutil.Process(int((self._pool.folder / "master.pid").read_text()))
        for process in master.children():
            if process.name() == "condor_schedd":
                process.kill()
                return True
        return False

    def _driver(self, driver: subprocess.Popen[Any]) -> bool:
        driver.kill()
        driver.wait()
        return True

    def _tool(self, *words: str) -> str:
        return tool(self._pool, *words)


def tool(site: Pool, *words: str) -> str:
    """Call a command of condor's; a schedd that is down says nothing."""
    program = [str(site.programs / words[0]), *words[1:]]
    done = subprocess.run(program, env={**os.environ, **site.environment}, capture_output=True, text=True)
    return done.stdout


def queue(site: Pool) -> list[str]:
    """Numbers of the jobs in the queue."""
    return tool(site, "condor_q", "-all", "-af:j", "JobStatus").split()[::2]


def rampage(call: Callable[[Path], list[str]], home: Path, minutes: float, monkey: Monkey) -> list[Path]:
    """Start campaign after campaign, and let the monkey go; the folders of those that have ended."""
    done: list[Path] = []
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end or not done:
        out = home / f"chaos-{len(done)}"
        driver = _start(call(out), out)
        next_act = time.monotonic() + monkey.pause()
        while driver.poll() != 0:
            if driver.poll() is not None:
                driver = _start(call(out), out)
            if time.monotonic() > next_act and time.monotonic() < end:
                monkey.act(driver)
                next_act = time.monotonic() + monkey.pause()
            time.sleep(0.1)
        done.append(out)
    return done


def _start(call: list[str], out: Path) -> subprocess.Popen[Any]:
    out.mkdir(exist_ok=True)
    with (out.parent / f"{out.name}.json").open("a") as said, (out.parent / f"{out.name}.err").open("a") as err:
        return subprocess.Popen(call, stdout=said, stderr=err, start_new_session=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")
        os.environ.setdefault("CONDOR_POOL_PREFIX", str(Path("~/.cache/cygnoreco/condor").expanduser()))
        runs = make_runs(home, arguments.runs, arguments.frames)
        site = pool.up(home / "pool", cpus=4, memory_mb=8192, extra=QUICK)
        try:
            found = measure(home, runs, site, arguments)
        finally:
            pool.down(home / "pool")
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        print_table("Chaos on a pool of one machine", ("what", "found"), list(found.items()))
    good = found["identical"] and not (found["jobs left"] or found["temporary files left"] or found["done twice"])
    sys.exit(0 if good else 1)


def measure(home: Path, runs: list[str], site: Pool, arguments: argparse.Namespace) -> dict[str, Any]:
    """Have the runs done in quiet, and then while the monkey kills; what was found."""
    description = home / "chaos.toml"
    description.write_text(SITE.format(config=json.dumps(str(site.config))))

    def call(out: Path) -> list[str]:
        return command(home, runs, out, description)

    begin = time.monotonic()
    subprocess.run(call(home / "quiet"), check=True, stdout=subprocess.DEVNULL)
    quiet = time.monotonic() - begin
    expected = results(home / "quiet")
    monkey = Monkey(arguments.seed, site)
    begin = time.monotonic()
    ended = rampage(call, home, arguments.minutes, monkey)
    seconds = time.monotonic() - begin
    left_by = time.monotonic() + 30  # the last driver that was killed has a lease
    while queue(site) and time.monotonic() < left_by:
        time.sleep(0.5)
    return {
        "quiet, s": quiet,
        "chaos, s": seconds,
        "campaigns that ended": len(ended),
        **{f"kills: {name}": count for name, count in sorted(monkey.kills.items())},
        "files compared": len(expected) * len(ended),
        "identical": all(results(out) == expected for out in ended),
        "done twice": sum(len(list(out.glob("datasets/*"))) - arguments.runs for out in ended),
        "jobs left": len(queue(site)),
        "temporary files left": sum(1 for out in ended for path in out.rglob("*.partial-*")),
    }


def results(out: Path) -> dict[str, str]:
    """Hash of every file of the results, by place; the logs of the jobs and the locks are none."""
    return {name: value for name, value in content(out).items() if not name.startswith("jobs/") and ".lock" not in name}


if __name__ == "__main__":
    main()
