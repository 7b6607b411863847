"""Wall time of a run against cores, threads and workers, frames a run, and frames a block.

Four questions, one table each: what a second core brings, to threads and to worker processes of one run, and to runs
beside each other; how long a whole run
takes in a fresh process, and where the time goes; what Dask costs over a loop that does the same and the driver over
the plainest loop, by the length of the run; and what a block size costs in memory and time. Wall times; they say
nothing on a machine that has other work.

Examples
--------
python -m bench.scaling
python -m bench.scaling --frames FOLDER -n 400      frames ``img_*.npz`` (key ``image``), repeated
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench import cases, scenes
from bench._common import best_s, in_fresh_process, machine, peak_mb, print_table, served
from clusters.local import local_client
from cygnoreco.io.convert import convert
from cygnoreco.types import Frames

#: How the work is spread: over threads of this process, over those of one that reads the file for the first time, or
#: over worker processes.
KINDS = ("threads", "first pass", "processes")

#: Containers: the DAQ's, and our copy for repeated passes.
SUFFIXES = (".mid.gz", ".zarr")


def run_of(folder: Path, frames: int, suffix: str, source: Path | None = None) -> Path:
    """Write a run of some frames, those of a folder or of the class ``medium``, unless it is there."""
    path = folder / str(frames) / f"run05001{suffix}"
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    if suffix == ".zarr":
        origin = run_of(folder, frames, ".mid.gz", source)
        convert(origin, path, preset="fast", cache=path.parent / "index")
        return path
    given = sorted(source.glob("img_*.npz")) if source else []
    made: Iterable[Any] = (np.load(each)["image"] for each in cycle(given)) if given else cycle(_made())
    return scenes.write_run(path, islice(made, frames))


def _made() -> Frames:
    return cases.scene("medium", n=4).frames


def only_cores(count: int) -> None:
    """Let this process, and those that it starts, use so many cores: files are written by threads of their own."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def task_workers(path: str, kind: str, cores: int, block: int, recipe: str) -> dict[str, float]:
    """Seconds of a run on so many cores with workers that are there and warm, and seconds that starting them took."""
    only_cores(cores)
    begin = time.perf_counter()
    with local_client(cores if kind == "processes" else 0) as client:
        started = time.perf_counter() - begin if client else 0.0
        threads = 1 if client else cores
        work = cases.driver(
            Path(path), recipe=recipe, block=block, client=client, threads=threads, unread=kind == "first pass"
        )
        (seconds,) = best_s((work,), 3, clock=time.perf_counter)
    return {"run_s": seconds, "start_s": started}


def task_beside(path: str, runs: int, block: int, recipe: str) -> float:
    """Seconds of so many runs beside each other, each in a warm process of its own with one thread."""
    with ProcessPoolExecutor(runs, mp_context=get_context("spawn")) as pool:
        one = partial(_one_of_them, path, block, recipe)
        (seconds,) = best_s((lambda: list(pool.map(one, range(runs))),), 3, clock=time.perf_counter)
    return float(seconds)


def _one_of_them(path: str, block: int, recipe: str, index: int) -> None:
    cases.driver(Path(path), recipe=recipe, block=block, out=f"out-{index}")()


def whole(path: Path, cores: int, recipe: str, *, unread: bool) -> dict[str, float]:
    """Wall seconds of ``cygnoreco reco`` in a fresh process: all of it, and until it begins with the run."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        cache = Path(folder) / "cache" if unread else path.parent / "cache"
        options = ["--pedestal", path.parent / "pedestal.npz", "--recipe", recipe, "--threads", cores, "-o", folder]
        program = "from pipelines.cli import main; main()"
        launched, begin = time.time(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, "reco", path, *map(str, options), "--json"],
            check=True, stdout=subprocess.PIPE, env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            preexec_fn=partial(only_cores, cores),
        )  # fmt: skip
        total = time.perf_counter() - begin
        (summary,) = json.loads(done.stdout)
    return {"total_s": total, "start_s": summary["started"] - launched}


def task_overhead(paths: Sequence[str], block: int, recipe: str) -> list[dict[str, float]]:
    """Wall seconds of the driver, of the plain loop, of parts by Dask and by a loop, for runs of several lengths."""
    found = []
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            works = (
                cases.driver(path, recipe=recipe, block=block),
                cases.loop(path, recipe=recipe, block=block),
                cases.parts(path, Path(folder), dask=True, recipe=recipe, block=block),
                cases.parts(path, Path(folder), dask=False, recipe=recipe, block=block),
            )
            names = ("driver_s", "loop_s", "dask_s", "parts_s")
            found.append(dict(zip(names, best_s(works, 3, clock=time.perf_counter), strict=True)))
    return found


def task_block(path: str, block: int) -> dict[str, float]:
    """Wall seconds and memory of a run in this process."""
    before = peak_mb()
    scenes.prepared()
    (seconds,) = best_s((cases.driver(Path(path), block=block),), 3, clock=time.perf_counter)
    return {"run_s": seconds, "mb": peak_mb(), "import_mb": before}


def measure(
    folder: Path, *, frames: int, source: Path | None, recipe: str, lengths: Sequence[int], blocks: Sequence[int]
) -> dict[str, Any]:
    """Measure everything in fresh processes."""
    paths = {suffix: run_of(folder, frames, suffix, source) for suffix in SUFFIXES}
    scenes.pedestal().save(folder / str(frames) / "pedestal.npz")
    packed = str(paths[".mid.gz"])
    cases.driver(paths[".mid.gz"], recipe=recipe)()  # kernels, index

    def task(name: str, **arguments: Any) -> Any:
        return in_fresh_process("bench.scaling", name, block=8, recipe=recipe, **arguments)

    setups = [(kind, suffix) for kind in KINDS for suffix in SUFFIXES if (kind, suffix) != ("first pass", ".zarr")]
    ways = [(".mid.gz", True), (".mid.gz", False), (".zarr", False)]

    def fastest(suffix: str, cores: int, unread: bool) -> dict[str, float]:
        runs = [whole(paths[suffix], cores, recipe, unread=unread) for _ in range(3)]
        return min(runs, key=lambda one: one["total_s"])

    return {
        "machine": machine(),
        "frames": frames,
        "workers": [
            {"kind": kind, "suffix": suffix, "cores": cores,
             **task("workers", path=str(paths[suffix]), kind=kind, cores=cores)}
            for kind, suffix in setups for cores in (1, 2)
        ],
        "beside": [
            {"suffix": suffix, "cores": cores, "run_s": task("beside", path=str(path), runs=cores) / cores}
            for suffix, path in paths.items() for cores in (1, 2)
        ],
        "whole": [
            {"suffix": suffix, "unread": unread, "cores": cores,
             **fastest(suffix, cores, unread)}
            for suffix, unread in ways for cores in (1, 2)
        ],
        "lengths": [
            {"frames": length, **one}
            for length, one in zip(
                lengths,
                task("overhead", paths=[str(run_of(folder, length, ".mid.gz", source)) for length in lengths]),
                strict=True,
            )
        ],
        "blocks": [
            {"block": block, **in_fresh_process("bench.scaling", "block", path=packed, block=block)} for block in blocks
        ],
    }  # fmt: skip


def report(found: dict[str, Any]) -> None:
    """Print the tables."""
    frames = found["frames"]
    alone = {(one["kind"], one["suffix"]): one["run_s"] for one in found["workers"] if one["cores"] == 1}
    rows: list[tuple[object, ...]] = [
        (f"{one['kind']}, {one['suffix']}, {one['cores']} core{'s' * (one['cores'] > 1)}", one["run_s"],
         frames / one["run_s"], alone[one["kind"], one["suffix"]] / one["run_s"], one["start_s"])
        for one in found["workers"]
    ]  # fmt: skip
    columns: tuple[str, ...] = ("workers that are warm", "run, s", "frames/s", "times one core", "start of workers, s")
    print_table(f"Cores; a run of {frames} frames, wall time", columns, rows)
    first = {one["suffix"]: one["run_s"] for one in found["beside"] if one["cores"] == 1}
    rows = [
        (f"{one['suffix']}, {one['cores']}", one["run_s"], frames / one["run_s"], first[one["suffix"]] / one["run_s"])
        for one in found["beside"]
    ]
    columns = ("runs beside each other, a warm process each", "a run, s", "frames/s", "times one")
    print_table(f"Throughput of runs of {frames} frames, wall time", columns, rows)
    single = {(one["suffix"], one["unread"]): one["total_s"] for one in found["whole"] if one["cores"] == 1}
    rows = [
        (f"{one['suffix']}{', never seen' * one['unread']}, {one['cores']} core{'s' * (one['cores'] > 1)}",
         one["total_s"], one["start_s"], frames / one["total_s"],
         single[one["suffix"], one["unread"]] / one["total_s"])
        for one in found["whole"]
    ]  # fmt: skip
    columns = ("cygnoreco reco in a fresh process", "all, s", "of it before the run, s", "frames/s", "times one core")
    print_table(f"Whole runs of {frames} frames, wall time", columns, rows)
    rows = [
        (one["frames"], one["loop_s"], one["parts_s"], one["dask_s"] / one["parts_s"], one["driver_s"],
         one["driver_s"] / one["loop_s"])
        for one in found["lengths"]
    ]  # fmt: skip
    columns = ("frames a run", "loop, s", "with parts, s", "Dask / loop with parts", "driver, s", "driver / loop")
    print_table("What comes on top of a plain loop in this process, wall time", columns, rows)
    least = min(one["run_s"] for one in found["blocks"])
    rows = [(one["block"], 1e3 * one["run_s"] / frames, one["run_s"] / least, one["mb"]) for one in found["blocks"]]
    print_table("Frames a block", ("block", "ms a frame", "times the best", "peak MB"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="folder of img_*.npz; by default frames of the class medium")
    parser.add_argument("--recipe", default="lime")
    parser.add_argument("-n", type=int, default=96, help="frames of the run")
    parser.add_argument("--lengths", type=int, nargs="+", default=(8, 32, 128, 400))
    parser.add_argument("--blocks", type=int, nargs="+", default=(1, 2, 4, 8, 16))
    parser.add_argument("--folder", type=Path, help="where the runs are made; by default a temporary one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = measure(
            Path(folder), frames=arguments.n, source=arguments.frames, recipe=arguments.recipe,
            lengths=arguments.lengths, blocks=arguments.blocks,
        )  # fmt: skip
    print(json.dumps(found, indent=1)) if arguments.json else report(found)


if __name__ == "__main__" and not served(globals()):
    main()
