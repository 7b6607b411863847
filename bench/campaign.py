"""What many runs on a real HTCondor pool cost besides the work itself, and how they scale with workers.

Three questions, one table each. *Workers*: of the wall time of all workers, how much is spent in the stages, for runs
of full frames on 1, 2, 4 ... workers of a pool on this machine. *Window*: does the memory of the driver, in which the
scheduler is, grow with the number of runs? *Many*: what planning and submitting a thousand runs takes of the driver.

Examples
--------
python -m bench.campaign workers --frames FOLDER -n 400     frames ``img_*.npz`` (key ``image``), repeated
python -m bench.campaign window --runs 300
python -m bench.campaign many --runs 1000 --blocks 25
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench import scenes
from bench._common import in_fresh_process, machine, print_table, served
from bench.scaling import run_of
from clusters import pool
from clusters.connect import connect
from clusters.site import Limits, Site, load_site
from cygnoreco import open_run
from cygnoreco.campaign import Order, Standing, reconstruct_many
from cygnoreco.io.midas_writer import MidasWriter
from cygnoreco.recipe import Recipe

_SMALL = ["accept.xmax=none", "accept.ymin=none", "accept.ymax=none"]


@contextmanager
def site_here(folder: Path, cpus: int) -> Iterator[Site]:
    """Give a pool of this machine, for the length of a ``with`` block."""
    os.environ.setdefault("CONDOR_POOL_PREFIX", str(Path("~/.cache/cygnoreco/condor").expanduser()))
    quick = "NEGOTIATOR_INTERVAL = 1\nSCHEDD_INTERVAL = 1\n"
    found = pool.up(folder / "pool", cpus=cpus, memory_mb=2048 * cpus, extra=quick)
    try:
        site = load_site(found.site)
        job = site.job.model_copy(update={"memory": 2_000_000_000})
        yield site.model_copy(update={"limits": Limits(interval=1.0), "job": job})
    finally:
        pool.down(folder / "pool")


def task_workers(folder: str, run: str, workers: int, recipe: str, runs: int) -> dict[str, float]:
    """Seconds of runs on so many workers that are warm, and what of them was spent in the stages."""
    home = Path(folder)
    pedestal = home / "pedestal.npz"
    latest = Standing()

    def watch(standing: Standing) -> None:
        nonlocal latest
        latest = standing

    with site_here(home, max(2, workers)) as site, connect(site, workers=workers, logs=home / "logs") as client:
        client.wait_for_workers(workers)
        order = Order(pedestal, home / "out", Recipe.load(recipe))
        for each in ("warm", "out"):
            shutil.rmtree(home / each, ignore_errors=True)
        warm = Order(pedestal, home / "warm", Recipe.load(recipe), block=max(1, 16 // workers))
        list(reconstruct_many([run], warm, client))
        paths = [run] if runs == 1 else copies(Path(run), home / "copies", runs)
        begin = time.perf_counter()
        outcomes = list(reconstruct_many(paths, order, client, watch=watch))
        seconds = time.perf_counter() - begin
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return {"wall_s": seconds, "stages_s": sum(latest.seconds.values()), "frames": latest.frames}


def copies(run: Path, folder: Path, n: int) -> list[str]:
    """Write the frames of a run as several runs with numbers of their own, and read them once."""
    folder.mkdir(exist_ok=True)
    source = open_run(run)
    (camera,) = source.cameras
    frames = len(source.table())
    paths = []
    for index in range(n):
        path = folder / f"run{6000 + index:05d}.mid.gz"
        if not path.exists():
            scenes.write_run(
                path, (source.source.read(camera.name, each, each + 1)[0] for each in range(frames)), run=6000 + index
            )
        _ = open_run(path).cameras
        paths.append(str(path))
    return paths


def small_runs(folder: Path, runs: int, frames: int) -> tuple[Path, list[str]]:
    """Write a pedestal run and runs of small frames, which have been read once."""
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import pedestal_run, write_run

    detector = Detector(height=256, width=320)
    dark = folder / "dark.mid.gz"
    pedestal_run(dark, run=10, frames=12, detector=detector)
    _ = open_run(dark).cameras
    write_run(folder / "run01.mid", run=1, events=demo_plan(frames, detector=detector), detector=detector)
    first = open_run(folder / "run01.mid")
    made = first.source.read("CAM0", 0, len(first.table()))
    paths = []
    for index in range(runs):
        path = folder / f"run{5000 + index:05d}.mid"
        with MidasWriter(path, run=5000 + index, odb=dict(first.odb()), timestamp=1_700_000_000) as writer:
            for number, frame in enumerate(made):
                writer.event(1, {"CAM0": frame}, timestamp=1_700_000_000 + number)
        _ = open_run(path).cameras
        paths.append(str(path))
    return dark, paths


def task_window(folder: str, runs: int, frames: int, block: int, workers: int) -> dict[str, Any]:
    """Have small runs done, and look at the driver meanwhile: memory by the number of runs done, processor time."""
    home = Path(folder)
    dark, paths = small_runs(home, runs, frames)
    here = psutil.Process()
    memory: dict[int, float] = {}
    most = 0

    def watch(standing: Standing) -> None:
        nonlocal most
        most = max(most, standing.waiting)
        memory[standing.runs] = here.memory_info().rss / 1e6

    with site_here(home, workers) as site, connect(site, workers=workers, logs=home / "logs") as client:
        client.wait_for_workers(workers)
        order = Order(dark, home / "out", Recipe.load("lime").override(_SMALL), "none", block=block)
        begin, processor = time.perf_counter(), time.process_time()
        outcomes = list(reconstruct_many(paths, order, client, watch=watch))
        wall, driver = time.perf_counter() - begin, time.process_time() - processor
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    early = [megabytes for done, megabytes in memory.items() if done <= 10]
    late = [megabytes for done, megabytes in memory.items() if done > 0.9 * runs]
    return {
        "runs": runs,
        "blocks": runs * -(-frames // block),
        "wall_s": wall,
        "driver_cpu_s": driver,
        "mb_at_10": max(early),
        "mb_at_end": max(late),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "tasks_at_once": most,
    }


def report_workers(found: Sequence[dict[str, Any]]) -> None:
    """Print the table of workers."""
    alone = found[0]["frames"] / found[0]["wall_s"] / found[0]["workers"]
    rows = [
        (
            f"{one['runs']} run{'s' * (one['runs'] > 1)}, {one['workers']} worker{'s' * (one['workers'] > 1)}",
            one["wall_s"], one["frames"] / one["wall_s"],
            one["frames"] / one["wall_s"] / one["workers"] / alone,
            one["stages_s"] / one["wall_s"] / one["workers"],
        )
        for one in found
    ]  # fmt: skip
    columns = ("full frames", "wall, s", "frames/s", "frames/s a worker, of one's", "in the stages, of workers x wall")
    print_table("Workers of a pool on this machine", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("workers", "window", "many"))
    parser.add_argument("--frames", type=Path, help="folder of img_*.npz; by default frames of the class medium")
    parser.add_argument("-n", type=int, default=400, help="frames of a run of full frames")
    parser.add_argument("--recipe", default="winter23")
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 2, 4, 8))
    parser.add_argument("--runs", type=int, help="by default 1, 300 and 1000")
    parser.add_argument("--blocks", type=int, default=25, help="blocks of a small run, of a frame each")
    parser.add_argument("--folder", type=Path, help="where the runs are made; by default a temporary one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        home = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")
        if arguments.what == "workers":
            path = run_of(home, arguments.n, ".mid.gz", arguments.frames)
            _ = open_run(path).cameras
            scenes.pedestal().save(home / "pedestal.npz")
            runs = arguments.runs or 1
            found: Any = [
                {"workers": count, "runs": runs,
                 **in_fresh_process("bench.campaign", "workers", folder=str(home), run=str(path), workers=count,
                                    recipe=arguments.recipe, runs=runs)}
                for count in arguments.workers
            ]  # fmt: skip
        else:
            runs = arguments.runs or (300 if arguments.what == "window" else 1000)
            frames = 14 if arguments.what == "window" else arguments.blocks
            found = in_fresh_process(
                "bench.campaign", "window", folder=folder, runs=runs, frames=frames,
                block=8 if arguments.what == "window" else 1, workers=2,
            )  # fmt: skip
    if arguments.json:
        print(json.dumps({"machine": machine(), "found": found}, indent=1))
    elif arguments.what == "workers":
        report_workers(found)
    else:
        print_table("The driver of many runs", ("what", "found"), list(found.items()))


if __name__ == "__main__" and not served(globals()):
    main()
