"""Wall time of a run against threads and workers, frames a run, and frames a block.

Three questions, one table each: what a second thread or worker process brings, what Dask costs over a loop that does
the same and the driver over the plainest loop, by the length of the run, and what a block size costs in memory and
time. Wall times; they say nothing on a machine that has other work.

Example
-------
python -m bench.scaling --suffix .mid
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench import cases, scenes
from bench._common import best_s, in_fresh_process, machine, peak_mb, print_table, served
from clusters.local import local_client

#: How the work is spread: over threads of this process, over those of one that reads the file for the first time, or
#: over worker processes.
SETUPS = (("threads", 1), ("threads", 2), ("first pass", 1), ("first pass", 2), ("processes", 1), ("processes", 2))


def run_of(folder: Path, frames: int, suffix: str) -> Path:
    """Write a run of some frames of the class ``medium``, unless it is there."""
    path = folder / str(frames) / f"run05001{suffix}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        scenes.write_run(path, islice(cycle(cases.scene("medium", n=4).frames), frames))
    return path


def task_workers(path: str, kind: str, workers: int, block: int) -> dict[str, float]:
    """Seconds of a run with workers that are there and warm, and seconds that starting them took."""
    begin = time.perf_counter()
    with local_client(workers if kind == "processes" else 0) as client:
        started = time.perf_counter() - begin if client else 0.0
        threads = 1 if client else workers
        work = cases.driver(Path(path), block=block, client=client, threads=threads, unread=kind == "first pass")
        (seconds,) = best_s((work,), 3, clock=time.perf_counter)
    return {"run_s": seconds, "start_s": started}


def task_overhead(paths: Sequence[str], block: int) -> list[dict[str, float]]:
    """Wall seconds of the driver, of the plain loop, of parts by Dask and by a loop, for runs of several lengths."""
    found = []
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            works = (
                cases.driver(path, block=block),
                cases.loop(path, block=block),
                cases.parts(path, Path(folder), dask=True, block=block),
                cases.parts(path, Path(folder), dask=False, block=block),
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


def measure(folder: Path, *, suffix: str, frames: int, lengths: Sequence[int], blocks: Sequence[int]) -> dict[str, Any]:
    """Measure everything in fresh processes."""
    path = str(run_of(folder, frames, suffix))
    cases.driver(Path(path))()  # kernels, index

    def task(name: str, **arguments: Any) -> Any:
        return in_fresh_process("bench.scaling", name, **arguments)

    return {
        "machine": machine(),
        "frames": frames,
        "workers": [
            {"kind": kind, "workers": workers, **task("workers", path=path, kind=kind, workers=workers, block=8)}
            for kind, workers in SETUPS
        ],
        "lengths": [
            {"frames": length, **one}
            for length, one in zip(
                lengths,
                task("overhead", paths=[str(run_of(folder, length, suffix)) for length in lengths], block=8),
                strict=True,
            )
        ],
        "blocks": [{"block": block, **task("block", path=path, block=block)} for block in blocks],
    }


def report(found: dict[str, Any]) -> None:
    """Print the tables."""
    frames = found["frames"]
    alone = {one["kind"]: one["run_s"] for one in reversed(found["workers"])}
    rows: list[tuple[object, ...]] = [
        (f"{one['workers']} {one['kind']}" if one["kind"] != "first pass" else f"first pass, {one['workers']} threads",
         one["run_s"], frames / one["run_s"], alone[one["kind"]] / one["run_s"], one["start_s"])
        for one in found["workers"]
    ]  # fmt: skip
    columns = ("workers", "run, s", "frames/s", "times one of the kind", "start of workers, s")
    print_table(f"Workers; a run of {frames} frames, wall time", columns, rows)
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
    parser.add_argument("--suffix", default=".mid.gz", help="container of the run")
    parser.add_argument("-n", type=int, default=96, help="frames of the run")
    parser.add_argument("--lengths", type=int, nargs="+", default=(8, 32, 128, 400))
    parser.add_argument("--blocks", type=int, nargs="+", default=(1, 2, 4, 8, 16))
    parser.add_argument("--folder", type=Path, help="where the runs are made; by default a temporary one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = measure(
            Path(folder), suffix=arguments.suffix, frames=arguments.n, lengths=arguments.lengths,
            blocks=arguments.blocks,
        )  # fmt: skip
    print(json.dumps(found, indent=1)) if arguments.json else report(found)


if __name__ == "__main__" and not served(globals()):
    main()
