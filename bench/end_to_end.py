"""CPU and memory of whole runs on one machine, by container, recipe and occupancy, beside the floor of this moment.

One run, written as ``.mid.gz`` (level 1 and 6), plain ``.mid`` and our two Zarr copies, goes through everything from
the file to the written ROOT file, each in a fresh process with compiled kernels. The floors are what nothing that
reads the same file can avoid: a bare inflation of it, or a copy of a frame. Times are CPU of the whole process, all its
threads.

Examples
--------
python -m bench.end_to_end                                    simulated frames
python -m bench.end_to_end --frames FOLDER --dark FOLDER      ``img_*.npz`` (key ``image``) and ``dark_*.npy``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench import plain, scenes
from bench._common import FRAME_BYTES, best_s, in_fresh_process, limits, machine, peak_mb, print_table, served
from cygnoreco.types import Frames

RECIPES = ("lime", "winter23")

#: File of the run by the name that the tables give it.
CONTAINERS = {
    "gzip-1": "run05001.mid.gz",
    "gzip-6": "six/run05001.mid.gz",
    "plain .mid": "run05001.mid",
    "Zarr, archive": "archive.zarr",
    "Zarr, fast": "fast.zarr",
}

#: Points of a frame of each class are below this.
CLASS_LIMITS = {"few": 1500, "medium": 15_000, "crowded": 10**9}

#: Frames a block, as the driver's default.
_BLOCK = 8

#: Fewer frames of the last class are enough, and simulating them is slow.
_MIX = (("few", 0.6), ("medium", 0.3), ("crowded", 0.1))


def make_runs(folder: Path, frames: Path | None, dark: Path | None, n: int) -> None:
    """Write the pedestal run and the data run in every container."""
    from cygnoreco.io.convert import PRESETS, convert

    scenes.write_run(folder / "run05000.mid.gz", _dark(dark), run=scenes.PEDESTAL_RUN)
    (folder / "six").mkdir()
    for name, level in (("gzip-1", 1), ("gzip-6", 6), ("plain .mid", None)):
        scenes.write_run(folder / CONTAINERS[name], _frames(frames, n), level=level)
    for preset in PRESETS:
        copy = folder / CONTAINERS[f"Zarr, {preset}"]
        convert(folder / CONTAINERS["gzip-1"], copy, preset=preset, cache=folder / "index")


def _dark(folder: Path | None) -> Iterator[Frames]:
    return (np.load(path) for path in sorted(folder.glob("dark_*.npy"))) if folder else scenes.dark_frames(100)


def _frames(folder: Path | None, n: int) -> Iterator[Frames]:
    """Frames of the run, given ones or a mix of the classes, repeated until there are n."""
    if folder:
        return (np.load(path)["image"] for path in islice(cycle(sorted(folder.glob("img_*.npz"))), n))
    mix = [frame for name, part in _MIX for frame in _simulated(name, max(1, round(part * min(n, 20))))]
    return islice(cycle(mix), n)


_made: dict[tuple[str, int], Frames] = {}


def _simulated(name: str, n: int) -> Frames:
    if (name, n) not in _made:
        _made[name, n] = scenes.frames_of(name, n)
    return _made[name, n]


def task_pedestal(folder: str) -> dict[str, float]:
    """Pedestal of the 100 dark frames from their file, and saving it."""
    from cygnoreco.calib.find import pedestal_of
    from cygnoreco.io.opening import open_source

    start = time.process_time()
    with tempfile.TemporaryDirectory(dir=folder) as cache:  # as if nobody had read it
        source = open_source(Path(folder) / "run05000.mid.gz", cache=cache)
        found = pedestal_of(source, "CAM0")
    made = time.process_time() - start
    found.save(Path(folder) / "pedestal.npz")
    return {"cpu_s": made, "frames": found.n_frames, "saving_s": time.process_time() - start - made, "mb": peak_mb()}


def task_read(folder: str, container: str, block: int) -> dict[str, float]:
    """Read a run for the first time, then every block by its number."""
    from cygnoreco.io.opening import open_source
    from cygnoreco.io.source import Buffers, blocks

    path = Path(folder) / CONTAINERS[container]
    clock = time.process_time
    with tempfile.TemporaryDirectory(dir=folder) as cache:  # imports and kernels are no cost of a frame
        (camera,) = open_source(path, cache=cache).cameras
    buffers = Buffers(1, block, camera)
    memory = buffers.take()
    memory[:] = 0  # nor is fresh memory
    buffers.give(memory)
    begin = clock()
    source = open_source(path, cache=path.parent / "index-read")
    for each in blocks(source, camera, buffers, block):
        buffers.give(each.frames)
    first = clock()
    n = len(source.table("CAM0"))
    for start in range(0, n, block):
        source.read("CAM0", start, min(start + block, n), memory)
    return {"first_ms": 1e3 * (first - begin) / n, "read_ms": 1e3 * (clock() - first) / n}


def task_floor(folder: str, container: str) -> dict[str, float]:
    """Measure what nothing can avoid, a frame: inflating the file, or a copy."""
    path = Path(folder) / CONTAINERS[container]
    n = _count(folder)
    if path.suffix == ".gz":
        return {"floor_ms": 1e3 * best_s((lambda: plain.inflate_isal(path),), 2)[0] / n}
    return {"floor_ms": limits().copy_ms}


def _count(folder: str) -> int:
    return round((Path(folder) / CONTAINERS["plain .mid"]).stat().st_size / FRAME_BYTES)


def task_run(folder: str, container: str, recipe: str, block: int, first: bool = False) -> dict[str, Any]:
    """From the file to the ROOT file; ``first`` opens it as if it had never been seen."""
    begin = time.process_time()
    from cygnoreco import open_run, reconstruct

    path = Path(folder) / CONTAINERS[container]
    marks: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory(dir=folder) as out:
        run = open_run(path, cache=Path(out) / "index" if first else path.parent / "index-run")
        result = reconstruct(
            run, pedestal=Path(folder) / "pedestal.npz", recipe=recipe, out=out, block=block,
            watch=lambda progress: marks.append((progress.frames, time.process_time())),
        )  # fmt: skip
        total = time.process_time() - begin
        tables = result.tables
    marks = sorted(dict(reversed(marks)).items())  # a total that changes is told as well
    n = marks[-1][0]
    steps = [1e3 * (later - now) / (count - before) for (before, now), (count, later) in pairwise(marks)]
    steps = steps[1:] or steps  # the first block waits for calibration and kernels: a cost of the run
    by_class: dict[str, list[float]] = {}
    if block == 1:
        for step, points in zip(steps, tables.events["lp_len"][-len(steps) :].tolist(), strict=True):
            name = next(name for name, limit in CLASS_LIMITS.items() if points < limit)
            by_class.setdefault(name, []).append(step)
    return {
        "frames": n,
        "mean_ms": 1e3 * total / n,
        "median_ms": float(np.median(steps)),
        "p90_ms": float(np.percentile(steps, 90)),
        "fixed_s": total - n * float(np.mean(steps)) / 1e3,
        "mb": peak_mb(),
        "clusters": len(tables.clusters),
        "by_class": {name: {"frames": len(each), **_spread(each)} for name, each in by_class.items()},
    }


def task_after_inflation(folder: str, frames: str | None, recipe: str, n: int) -> dict[str, Any]:
    """CPU of frames with their pixels in memory by class, each by itself and in whole blocks of 8 of one class."""
    from cygnoreco.calib.pedestal import Pedestal
    from cygnoreco.calib.response import load_response
    from cygnoreco.chain import calibrate, reconstruct_block
    from cygnoreco.recipe import Recipe

    loaded = Recipe.load(recipe)
    found = load_response(loaded.vignetting, FRAME_SHAPE, **loaded["response"])
    calibration = calibrate(Pedestal.load(Path(folder) / "pedestal.npz"), found, loaded, "midas")

    def timed(block: Frames) -> tuple[float, int]:
        """Give the least ms a frame, and the points of all."""
        best = float("inf")
        for _ in range(3):  # the first of all loads kernels
            start = time.process_time()
            tables, _ = reconstruct_block(
                block, scenes.rows_of(len(block)), calibration, loaded, origin="midas", run=1, pedestal_run=0
            )
            best = min(best, time.process_time() - start)
        return 1e3 * best / len(block), int(tables.events["lp_len"].sum())

    images = (
        _frames(Path(frames), n) if frames else (f for name in CLASS_LIMITS for f in _simulated(name, _few(name, n)))
    )
    classes: dict[str, list[tuple[Frames, float, int]]] = {}
    for frame in images:
        ms, points = timed(frame[np.newaxis])
        name = next(name for name, limit in CLASS_LIMITS.items() if points < limit)
        classes.setdefault(name, []).append((frame, ms, points))
    return {
        name: {
            "frames": len(each),
            "points": float(np.median([points for _, _, points in each])),
            **_spread([ms for _, ms, _ in each]),
            "block_ms": float(np.median(
                [timed(np.array([frame for frame, _, _ in each[start : start + _BLOCK]]))[0]
                 for start in range(0, max(len(each) - _BLOCK, 0) + 1, _BLOCK)]
            )),
        }
        for name, each in classes.items()
    }  # fmt: skip


FRAME_SHAPE = (2304, 2304)


def _few(name: str, n: int) -> int:
    return max(2, min(n, 20) // (4 if name == "crowded" else 1))


def _spread(times: list[float]) -> dict[str, float]:
    return {"median_ms": float(np.median(times)), "p90_ms": float(np.percentile(times, 90))}


def task_start(folder: str) -> dict[str, float]:
    """Import, open, and reconstruct until the first block is committed, kernels being compiled."""
    begin, wall = time.process_time(), time.perf_counter()
    from cygnoreco import open_run, reconstruct

    imported = time.process_time() - begin
    marks: list[tuple[float, float]] = []

    class _Enough(Exception):
        pass

    def watch(progress: Any) -> None:
        if progress.frames:
            marks.append((time.process_time() - begin, time.perf_counter() - wall))
            raise _Enough

    path = Path(folder) / CONTAINERS["plain .mid"]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        try:
            run = open_run(path, cache=path.parent / "index-run")
            reconstruct(run, pedestal=Path(folder) / "pedestal.npz", out=out, watch=watch)
        except _Enough:
            pass
    return {"import_s": imported, "cpu_s": marks[0][0], "wall_s": marks[0][1], "mb": peak_mb()}


def bare_python_s() -> float:
    """Wall time of an interpreter that does nothing."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - start


def measure(
    folder: Path, frames: Path | None, dark: Path | None, n: int, recipes: tuple[str, ...], containers: tuple[str, ...]
) -> dict[str, Any]:
    """Make the runs in a folder and measure everything."""
    make_runs(folder, frames, dark, n)
    here = str(folder)

    def task(name: str, **arguments: Any) -> Any:
        return in_fresh_process("bench.end_to_end", name, folder=here, **arguments)

    found: dict[str, Any] = {"machine": machine(), "limits": vars(limits()), "frames": n}
    found["pedestal"] = min((task("pedestal") for _ in range(3)), key=lambda each: each["cpu_s"])
    found["pedestal"]["floor_s"] = best_s((lambda: plain.inflate_isal(folder / "run05000.mid.gz"),), 1)[0]
    for recipe in recipes:  # compile what is not yet
        task("run", container="plain .mid", recipe=recipe, block=8)
    found["start"] = min((task("start") for _ in range(3)), key=lambda each: each["wall_s"])
    found["start"]["python_s"] = min(bare_python_s() for _ in range(3))
    found["containers"] = {
        name: {
            **task("floor", container=name),
            **task("read", container=name, block=8),
            "first": task("run", container=name, recipe=recipes[0], block=8, first=True),
        }
        for name in containers
    }
    found["recipes"] = {
        recipe: {
            "after inflation": task(
                "after_inflation", frames=str(frames.resolve()) if frames else None, recipe=recipe, n=n
            ),
            "containers": {
                name: {str(block): task("run", container=name, recipe=recipe, block=block) for block in (1, 8)}
                for name in containers
            },
        }
        for recipe in recipes
    }
    return found


def report(found: dict[str, Any]) -> None:
    """Print the tables."""
    copy_ms = found["limits"]["copy_ms"]
    print(f"{found['machine']['cpu']}, {found['machine']['cores']} cores; copy of a frame {copy_ms:.2f} ms")
    rows: list[tuple[object, ...]] = []
    for name, one in found["containers"].items():
        first, again, floor = one["first_ms"], one["read_ms"], one["floor_ms"]
        rows.append((name, floor, first, again, first / floor, again / floor))
    columns: tuple[str, ...] = (
        "reading, CPU ms a frame",
        "floor",
        "first pass",
        "by number",
        "first / floor",
        "by number / floor",
    )
    print_table("Reading; the floor is a bare inflation by ISA-L, or a copy of a frame", columns, rows)

    for recipe, one in found["recipes"].items():
        rows = []
        for name, blocks in one["containers"].items():
            floor = found["containers"][name]["floor_ms"]
            first = found["containers"][name]["first"]
            runs = [(f"blocks of {block}", each) for block, each in blocks.items()]
            runs += [("blocks of 8, file never seen", first)] if recipe == next(iter(found["recipes"])) else []
            rows += [
                (f"{name}, {what}", each["median_ms"], each["p90_ms"], each["mean_ms"], each["mean_ms"] / floor,
                 each["fixed_s"], each["mb"])
                for what, each in runs
            ]  # fmt: skip
        columns = ("CPU ms a frame", "median", "90 %", "mean, all in", "mean / floor", "fixed s", "peak MB")
        print_table(f"{recipe}: from the file to the ROOT file, {found['frames']} frames", columns, rows)

        rows = []
        for name, each in one["after inflation"].items():
            rows.append(
                (f"{name}: after inflation, each by itself", each["frames"], each["points"], each["median_ms"],
                 each["p90_ms"], each["median_ms"] / copy_ms)
            )  # fmt: skip
            rows.append(
                (f"{name}: after inflation, in blocks of {_BLOCK}", each["frames"], each["points"], each["block_ms"],
                 None, each["block_ms"] / copy_ms)
            )  # fmt: skip
            for container, blocks in one["containers"].items():
                if name in blocks["1"]["by_class"]:
                    with_file = blocks["1"]["by_class"][name]
                    rows.append(
                        (f"{name}: {container}, frame by frame", with_file["frames"], None, with_file["median_ms"],
                         with_file["p90_ms"], with_file["median_ms"] / copy_ms)
                    )  # fmt: skip
        columns = ("CPU ms a frame", "frames", "points", "median", "90 %", "median / copy")
        print_table(f"{recipe}: by occupancy", columns, rows)

    start, dark = found["start"], found["pedestal"]
    rows = [
        ("an interpreter alone, wall", start["python_s"], 1.0),
        ("import -> first block of 8 done, wall", start["wall_s"], start["wall_s"] / start["python_s"]),
        ("the same, CPU", start["cpu_s"], None),
        ("of that, import", start["import_s"], None),
        (f"pedestal of {dark['frames']} frames, CPU", dark["cpu_s"], dark["cpu_s"] / dark["floor_s"]),
        ("saving it, CPU", dark["saving_s"], None),
    ]
    print_table("Fixed costs; the pedestal's floor is a bare inflation of its file", ("s", "", "ratio"), rows)
    print(f"\npeak memory: start {start['mb']:.0f} MB, pedestal {dark['mb']:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="folder of img_*.npz")
    parser.add_argument("--dark", type=Path, help="folder of dark_*.npy, the pedestal run")
    parser.add_argument("-n", type=int, default=60, help="frames of the run; what there is, is repeated")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--containers", nargs="+", default=tuple(CONTAINERS), choices=tuple(CONTAINERS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            Path(folder), arguments.frames, arguments.dark, arguments.n, tuple(arguments.recipes),
            tuple(arguments.containers),
        )  # fmt: skip
    print(json.dumps(found, indent=1)) if arguments.json else report(found)


if __name__ == "__main__" and not served(globals()):
    main()
