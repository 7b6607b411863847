"""``cygnoreco demo``: the whole way on a run that it makes itself."""

from __future__ import annotations

import time
from pathlib import Path

from clusters.local import cores, local_client
from cygnoreco.display.figure import show_png
from cygnoreco.driver import Progress, reconstruct
from cygnoreco.raw import open_run
from cygnoreco.recipe import Recipe
from pipelines.cli import GOOD
from pipelines.cli.console import ERR, frame_progress, print_json, print_line
from pipelines.cli.reco import print_outcomes
from pipelines.cli.show import event_view
from simulation.plan import demo_plan
from simulation.run import pedestal_run, write_run

PEDESTAL_RUN, DATA_RUN = 5000, 5001


def demo(
    out: Path,
    frames: int,
    pedestal_frames: int,
    seed: int,
    threads: int | None,
    workers: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Simulate, reconstruct, show; the parameters are the options of the command."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    dark, data = out / f"run{PEDESTAL_RUN:05d}.mid.gz", out / f"run{DATA_RUN:05d}.mid.gz"
    talk = not (quiet or as_json)
    with frame_progress(talk) as bar:
        task = bar.add_task("simulating", total=None)
        pedestal_run(dark, run=PEDESTAL_RUN, frames=pedestal_frames, seed=seed)
        truth = write_run(data, run=DATA_RUN, events=demo_plan(frames, seed=seed), seed=seed)
        bar.update(task, description="reconstructing", frame_bytes=2304 * 2304 * 2)

        def watch(progress: Progress) -> None:
            bar.update(task, total=progress.total, completed=progress.frames, clusters=progress.clusters)

        run = open_run(data)
        with local_client(workers) as client:
            result = reconstruct(
                run, pedestal=dark, client=client, threads=threads or cores(), out=out, block=4, watch=watch
            )
        bar.update(task, description="drawing")
        richest = int(result.tables.events["event"][result.tables.events["nSc"].argmax()])
        picture = show_png(
            event_view(run, richest, recipe=Recipe.load("lime"), pedestal=dark, stored=result.tables),
            out / f"run{DATA_RUN:05d}-event{richest:04d}.png",
        )
    summary = {**result.summary, "resumed_frames": result.resumed, "picture": str(picture), "truth": str(truth)}
    if as_json:
        print_json(summary)
    elif not quiet:
        print_outcomes([summary])
        print_line(f"truth          {truth}\nevent display  {picture}")
        ERR.print(f"done in {time.monotonic() - started:.0f} s")
    return GOOD
