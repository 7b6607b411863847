"""CPU and memory of one run on one core, everything from the compressed file to the written ROOT file.

A run is made of given frames (a folder of ``img_*.npz`` with key ``image``) or of simulated ones; the work happens in
fresh processes, so that memory and CPU are those of the work alone. Shown side by side: reading alone, the pedestal,
and the whole reconstruction.

Example: python bench/end_to_end.py --frames ../shared/data/frames --dark dark-frames/
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

CAMERA = {"Configurations": {"Pedestal": False}}


def write_frames(path: Path, run: int, frames: Iterator[Any]) -> None:
    from cygnoreco.io.midas_writer import MidasWriter

    with MidasWriter(path, run=run, odb=CAMERA, timestamp=1_700_000_000, level=1) as writer:
        for index, frame in enumerate(frames):
            writer.event(1, {"CAM0": frame}, timestamp=1_700_000_000 + index)


def make_runs(folder: Path, frames: Path | None, dark: Path | None, n: int) -> tuple[Path, Path]:
    pedestal, data = folder / "run05000.mid.gz", folder / "run05001.mid.gz"
    if frames and dark:
        write_frames(pedestal, 5000, (np.load(path) for path in sorted(dark.glob("dark_*.npy"))))
        write_frames(
            data, 5001, (np.load(path)["image"] for path in islice(cycle(sorted(frames.glob("img_*.npz"))), n))
        )
    else:
        from simulation.plan import demo_plan
        from simulation.run import pedestal_run, write_run

        pedestal_run(pedestal, run=5000, frames=100)
        write_run(data, run=5001, events=demo_plan(n))
    return pedestal, data


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall, "result": result}


def in_fresh_process(task: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--task", task, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def task_warm(pedestal: str, data: str, out: str, block: str) -> dict[str, Any]:
    """Compile and cache the kernels, so that no task below pays for them."""
    return task_reco(pedestal, data, out, block)


def task_pedestal(pedestal: str, out: str) -> dict[str, Any]:
    from cygnoreco.calib.find import pedestal_of
    from cygnoreco.io.opening import open_source

    found = measured(
        lambda: pedestal_of(open_source(Path(pedestal), cache=Path(out) / "index-p"), "CAM0").save(Path(out) / "p.npz")
    )
    return {"cpu_s": found["cpu_s"], "wall_s": found["wall_s"]}


def task_read(data: str, out: str, block: str) -> dict[str, Any]:
    """Index the file, then read every block: the inflation that nothing can avoid."""
    from cygnoreco.io.opening import open_source

    cache = Path(out) / "index-r"
    index = measured(lambda: open_source(Path(data), cache=cache))
    source = open_source(Path(data), cache=cache)
    n = len(source.table("CAM0"))

    def read() -> None:
        for start in range(0, n, int(block)):
            source.read("CAM0", start, min(start + int(block), n))

    return {"index_ms": 1e3 * index["cpu_s"] / n, "read_ms": 1e3 * measured(read)["cpu_s"] / n}


def task_reco(pedestal: str, data: str, out: str, block: str) -> dict[str, Any]:
    from cygnoreco import open_run
    from cygnoreco.driver import reconstruct

    marks: list[tuple[int, float]] = []
    start = time.process_time()

    def work() -> Any:
        run = open_run(data, cache=Path(out) / f"index-{block}")
        return reconstruct(
            run, pedestal=pedestal, recipe="lime", out=Path(out) / f"out-{block}", block=int(block), force=True,
            watch=lambda progress: marks.append((progress.frames, time.process_time() - start)),
        )  # fmt: skip

    found = measured(work)
    n = marks[-1][0]
    ends = [0.0, *(second for _, second in marks)]
    per_block = [(later - earlier) / (count - before) for (before, earlier), (count, later) in pairwise(marks)]
    fixed = found["cpu_s"] - (ends[-1] - ends[1])  # index, calibration, merging and writing
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "frames": n,
        "mean_ms": 1e3 * found["cpu_s"] / n,
        "median_ms": 1e3 * (statistics.median(per_block) + fixed / n),
        "fixed_ms": 1e3 * fixed / n,
        "peak_mb": peak,
        "clusters": int(found["result"].summary["clusters"]),
        "ms_by_stage": {
            name: round(1e3 * value / n, 2) for name, value in found["result"].summary["seconds_by_stage"].items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="folder of img_*.npz")
    parser.add_argument("--dark", type=Path, help="folder of dark_*.npy, the pedestal run")
    parser.add_argument("-n", type=int, default=60, help="frames of the run; given ones are repeated")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    if arguments.task:
        print(json.dumps(globals()[f"task_{arguments.task[0]}"](*arguments.task[1:], *rest)))
        return
    with tempfile.TemporaryDirectory() as folder:
        pedestal, data = map(str, make_runs(Path(folder), arguments.frames, arguments.dark, arguments.n))
        in_fresh_process("warm", pedestal, data, folder, "8")
        found = {
            "pedestal": in_fresh_process("pedestal", pedestal, folder),
            "read": in_fresh_process("read", data, folder, "8"),
            "frame by frame": in_fresh_process("reco", pedestal, data, folder, "1"),
            "blocks of 8": in_fresh_process("reco", pedestal, data, folder, "8"),
        }
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    from pipelines.cli.console import print_table

    reading = found["read"]["index_ms"] + found["read"]["read_ms"]
    rows: list[tuple[object, ...]] = [
        ("pedestal run, in all", f"{1e3 * found['pedestal']['cpu_s']:.0f}", "", "10000"),
        (
            "index of the file, a frame",
            f"{found['read']['index_ms']:.1f}",
            f"{found['read']['index_ms'] / reading:.2f}",
            "",
        ),
        (
            "reading by block, a frame",
            f"{found['read']['read_ms']:.1f}",
            f"{found['read']['read_ms'] / reading:.2f}",
            "",
        ),
    ]
    for name in ("frame by frame", "blocks of 8"):
        one = found[name]
        rows.append(
            (
                f"everything, {name}: median a frame",
                f"{one['median_ms']:.1f}",
                f"{one['median_ms'] / reading:.2f}",
                "100",
            )
        )
        rows.append(
            (f"everything, {name}: mean a frame", f"{one['mean_ms']:.1f}", f"{one['mean_ms'] / reading:.2f}", "")
        )
        rows.append((f"peak memory, {name} (MB)", f"{one['peak_mb']:.0f}", "", "1000"))
    print_table("one core, CPU", ("what", "ms ", "times reading ", "at most "), rows)
    stages = found["blocks of 8"]["ms_by_stage"]
    print_table("stages, ms a frame", ("stage", "ms "), sorted(stages.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()
