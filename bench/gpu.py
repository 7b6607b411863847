"""Frames a second on a GPU by batch size and occupancy, where the time goes, and the CPU beside it in the same run.

    python -m bench.gpu [--batches 8 32 128] [--occupancy few medium crowded] [--json]

Four measurements for every batch and occupancy, all of blocks whose frames are in the host's memory, so that reading,
inflating and writing are not in them. All but the last are done with the frames as counts, and again packed as in a
fast Zarr copy: fewer bytes travel, and the device unpacks them. That the cores need not unpack is not in the numbers.

* ``reco``: block by block through ``device.reconstruct_block``, by 1 and by 2 threads, as ``reco --threads`` does it;
* ``stream``: one thread through ``cuda.block.reconstruct_blocks``, which sends the next block's frames while it works
  on one: what a program can get that calls it itself;
* one block with CUDA events around the stages;
* the image section alone, whose bandwidth stands beside that of a copy within the device's memory.

``MB`` are those of a frame that travel to the device. The CPU's number is that of one core, by the chain, on frames of
the same occupancy. What may not fit the memory by the plan that ``reco`` makes is not measured. Without a GPU nothing
is measured, and it says so.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np

from bench.scenes import CLASSES, DATA_RUN, PEDESTAL_RUN, frames_of, prepared, rows_of
from cygnoreco.chain import reconstruct_block as on_cpu
from cygnoreco.cuda.block import reconstruct_blocks
from cygnoreco.cuda.image import pixel_rules, section_block, upload_maps
from cygnoreco.cuda.program import Program, cupy_program
from cygnoreco.device import Device, check_plan, reconstruct_block, resolve_device
from cygnoreco.errors import InputError
from cygnoreco.io.packing import join_packed, pack
from cygnoreco.recipe import Recipe
from cygnoreco.types import Camera, Frames, PackedFrames

#: Simulated frames a class; larger batches repeat them.
DISTINCT = 16
#: Frames that the CPU is measured with.
CPU_FRAMES = 8
#: Blocks that a measurement of several goes through, and threads that share them.
BLOCKS, THREADS = 4, (1, 2)
_NUMBERS = {"origin": "midas", "run": DATA_RUN, "pedestal_run": PEDESTAL_RUN}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    parser.add_argument("--recipe", default="lime")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128], help="frames a block")
    parser.add_argument("--occupancy", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.device.startswith("cuda"):
        parser.error(f"--device {arguments.device}: expected cuda or cuda:N")

    try:
        device = resolve_device(arguments.device)
    except InputError as error:
        print(json.dumps({"not measured": str(error)}) if arguments.json else f"not measured: {error}")
        return
    result = measure(device, arguments.recipe, arguments.batches, arguments.occupancy, arguments.repeats)
    result["device"] = device.description
    print(json.dumps(result) if arguments.json else table(result))


def measure(device: Device, recipe_name: str, batches: list[int], classes: list[str], repeats: int) -> dict[str, Any]:
    """Measure all batches and classes; numbers are the best of some repeats."""
    ready = prepared(recipe_name)
    program = cupy_program(device.index)
    with program.active():
        result: dict[str, Any] = {"copy_gb_s": device_copy_gb_s(program, repeats), "rows": []}
    for occupancy in classes:
        some = frames_of(occupancy, DISTINCT)
        cpu = cpu_frames_a_second(some[:CPU_FRAMES], ready, repeats)
        for batch in batches:
            row = {"occupancy": occupancy, "batch": batch, "cpu_frames_s": cpu}
            try:
                check_plan(device, Camera("CAM0", *some.shape[1:]), batch, ready.recipe, at_once=max(THREADS))
            except InputError as error:
                result["rows"].append(row | {"skipped": str(error)})
                continue
            frames = some[np.arange(batch) % DISTINCT]
            with program.active():
                row["section_gb_s"] = section_gb_s(program, frames, ready, repeats)
            for form, block in (("counts", frames), ("packed", packed(frames))):
                result["rows"].append(row | {"form": form} | measure_block(device, program, block, ready, repeats))
    return result


def measure_block(
    device: Device, program: Program, frames: Frames | PackedFrames, ready: Any, repeats: int
) -> dict[str, Any]:
    """Measure a block in one of its two forms."""
    nbytes = frames.words.nbytes + frames.tiles.nbytes if isinstance(frames, PackedFrames) else frames.nbytes
    row: dict[str, Any] = {"mb_a_frame": nbytes / frames.shape[0] / 1e6}
    row["reco_frames_s"] = {threads: by_blocks(device, threads, frames, ready, repeats) for threads in THREADS}
    with program.active():
        row |= streamed(program, frames, ready, repeats)
        row["ms_a_frame"] = by_stage(program, frames, ready, repeats)
    return row


def packed(frames: Frames) -> PackedFrames:
    """Frames as a fast copy holds them."""
    each = [pack(frame).copy() for frame in frames]
    return join_packed(each, frames.shape, np.empty(sum(map(len, each)), np.uint8))


def cpu_frames_a_second(frames: np.ndarray, ready: Any, repeats: int) -> float:
    """Of one core."""
    rows = rows_of(len(frames))
    work = lambda: on_cpu(frames, rows, ready.calibration, ready.recipe, **_NUMBERS)  # noqa: E731
    return len(frames) / best_wall(work, repeats)


def by_blocks(device: Device, threads: int, frames: Frames | PackedFrames, ready: Any, repeats: int) -> float:
    """Frames a second, block by block, by some threads that share the blocks."""
    rows = rows_of(frames.shape[0])

    def one(_: int) -> None:
        reconstruct_block(frames, rows, ready.calibration, ready.recipe, device=device, **_NUMBERS)

    with ThreadPoolExecutor(threads) as pool:  # the threads of all repeats: their memory for transfers is kept
        seconds = best_wall(lambda: list(pool.map(one, range(BLOCKS))), repeats)
    return BLOCKS * len(rows) / seconds


def streamed(program: Program, frames: Frames | PackedFrames, ready: Any, repeats: int) -> dict[str, float]:
    """Frames a second, each block's frames on their way while another is worked on; clusters a frame."""
    rows = rows_of(frames.shape[0])

    def work() -> int:
        several = repeat((frames, rows), BLOCKS)
        found = reconstruct_blocks(several, ready.calibration, ready.recipe, program=program, **_NUMBERS)
        return sum(len(tables.clusters) for tables in found)

    seconds = best_wall(work, repeats)
    n_frames = BLOCKS * len(rows)
    return {"stream_frames_s": n_frames / seconds, "clusters_a_frame": work() / n_frames}


def by_stage(program: Program, frames: Frames | PackedFrames, ready: Any, repeats: int) -> dict[str, float]:
    """Device ms a frame by stage from CUDA events, and what is left of the wall time: the host's own work.

    Frames go in on a stream of their own, so ``copy in`` has the host's copy to pinned memory and that of the device.
    """
    cuda = program.xp.cuda
    rows = rows_of(frames.shape[0])
    best: dict[str, float] = {}
    for _ in range(repeats + 1):  # the first compiles
        events: list[tuple[str, Any, Any]] = []

        @contextmanager
        def clock(name: str, events: list[tuple[str, Any, Any]] = events) -> Iterator[None]:
            begin, end = cuda.Event(), cuda.Event()
            begin.record()
            yield
            end.record()
            events.append((name, begin, end))

        start = time.perf_counter()
        block = [(frames, rows)]
        list(reconstruct_blocks(block, ready.calibration, ready.recipe, program=program, clock=clock, **_NUMBERS))
        cuda.get_current_stream().synchronize()
        wall = 1e3 * (time.perf_counter() - start)
        spent: Counter[str] = Counter()
        for name, begin, end in events:
            spent[name] += cuda.get_elapsed_time(begin, end)  # type: ignore[assignment]
        spent["rest"] = wall - sum(spent.values())  # type: ignore[assignment]
        if not best or wall < best["wall"]:
            best = {name: value / len(rows) for name, value in spent.items()}
            best["wall"] = wall
    best["wall"] /= len(rows)
    return best


def section_gb_s(program: Program, frames: np.ndarray, ready: Any, repeats: int) -> float:
    """Bandwidth of the section, counting what it must move: frames in, pedestal once, two rebinned images out."""
    recipe: Recipe = ready.recipe
    rules = pixel_rules(
        frames.shape[1:],
        factor=recipe["rebin"]["factor"],
        **recipe["upper_cut"],
        **recipe["suppress"],
        **recipe["accept"],
    )
    maps = upload_maps(program, *ready.calibration.maps, ready.calibration.cuts)
    there = program.xp.asarray(frames)
    section = section_block(program, there, maps, rules)
    moved = there.nbytes + maps.mean.nbytes + maps.threshold.nbytes + section.picture.nbytes + section.edges.nbytes
    return moved / best_on_device(program, lambda: section_block(program, there, maps, rules), repeats) / 1e9


def device_copy_gb_s(program: Program, repeats: int) -> float:
    """Bandwidth of a copy within the device, bytes read and written: the limit of what moves memory."""
    xp = program.xp
    here, there = xp.zeros(1 << 28, np.uint32), xp.empty(1 << 28, np.uint32)
    return 2 * here.nbytes / best_on_device(program, lambda: xp.copyto(there, here), repeats) / 1e9


def best_on_device(program: Program, work: Callable[[], Any], repeats: int) -> float:
    """Smallest time between two events, s, after a warm-up."""
    cuda = program.xp.cuda
    times = []
    for _ in range(repeats + 1):
        begin, end = cuda.Event(), cuda.Event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(cuda.get_elapsed_time(begin, end) / 1e3)
    return min(times[1:])


def best_wall(work: Callable[[], Any], repeats: int) -> float:
    """Smallest wall time, s, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def table(result: dict[str, Any]) -> str:
    """Lay the result out for people."""
    lines = [f"{result['device']}; copy within the device {result['copy_gb_s']:.0f} GB/s"]
    reco = "".join(f"{f'reco, {threads}':>10}" for threads in THREADS)
    heading = f"{'occupancy':10}{'batch':>6}  {'frames':8}{'MB':>6}"
    heading += f"{reco}{'stream':>10}{'one core':>10}{'section GB/s':>14}   ms a frame"
    lines += ["frames/s: reco by 1 and 2 threads, stream, and one core of the CPU", heading]
    for row in result["rows"]:
        start = f"{row['occupancy']:10}{row['batch']:6}"
        if "skipped" in row:
            lines.append(f"{start}   not measured: {row['skipped']}")
            continue
        stages = ", ".join(f"{name} {value:.3f}" for name, value in row["ms_a_frame"].items())
        reco = "".join(f"{rate:10.0f}" for rate in row["reco_frames_s"].values())
        form = f"  {row['form']:8}{row['mb_a_frame']:6.1f}"
        rates = f"{row['stream_frames_s']:10.0f}{row['cpu_frames_s']:10.1f}{row['section_gb_s']:14.0f}"
        lines.append(f"{start}{form}{reco}{rates}   {stages}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
