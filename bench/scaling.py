"""Wall time of a run against workers, frames a run, and frames a block.

Three questions, one table each: what a second worker brings (a process, or a thread of a Dask client in this process),
what the driver with Dask costs over the plainest loop over the same run, by the length of the run, and what a block
size costs in memory and time. Wall times; say nothing on a machine that has other work.

Example
-------
python -m bench.scaling --suffix .mid
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench import cases, scenes
from bench._common import best_s, in_fresh_process, machine, peak_mb, print_table, served

#: How the work is spread, and workers: ``here`` is this process without a client.
SETUPS = (("here", 0), ("processes", 1), ("processes", 2), ("threads", 1), ("threads", 2))


@contextmanager
def client_of(kind: str, workers: int) -> Iterator[Any]:
    """Start a Dask client of processes or of threads in this process; None for ``here``."""
    if kind == "threads":
        from distributed import Client

        with Client(processes=False, n_workers=1, threads_per_worker=workers, dashboard_address=None) as client:
            yield client
        return
    from clusters.local import local_client

    with local_client(workers) as client:
        yield client


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
    with client_of(kind, workers) as client:
        started = time.perf_counter() - begin
        (seconds,) = best_s((cases.driver(Path(path), block=block, client=client),), 3, clock=time.perf_counter)
    return {"run_s": seconds, "start_s": started}


def task_overhead(paths: Sequence[str], block: int) -> list[dict[str, float]]:
    """CPU and wall seconds of the driver and of the plain loop, both in this process, for runs of several lengths."""
    found = []
    for path in map(Path, paths):
        works = (cases.driver(path, block=block), cases.loop(path, block=block))
        driver_s, loop_s = best_s(works, 3, clock=time.perf_counter)
        driver_cpu, loop_cpu = best_s(works, 3)
        found.append({"driver_s": driver_s, "loop_s": loop_s, "driver_cpu_s": driver_cpu, "loop_cpu_s": loop_cpu})
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
    here = found["workers"][0]["run_s"]
    rows: list[tuple[object, ...]] = [
        (f"{one['workers'] or 'no'} {one['kind']}" if one["workers"] else "this process alone",
         one["run_s"], frames / one["run_s"], here / one["run_s"], one["start_s"])
        for one in found["workers"]
    ]  # fmt: skip
    columns = ("workers", "run, s", "frames/s", "times this process alone", "start of workers, s")
    print_table(f"Workers; a run of {frames} frames, wall time", columns, rows)
    rows = [
        (one["frames"], one["loop_s"], one["driver_s"], one["driver_s"] / one["loop_s"],
         one["driver_cpu_s"] / one["loop_cpu_s"])
        for one in found["lengths"]
    ]  # fmt: skip
    columns = ("frames a run", "loop, s", "driver, s", "driver / loop, wall", "driver / loop, CPU")
    print_table("The driver, Dask and the ROOT file over a plain loop in this process", columns, rows)
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
