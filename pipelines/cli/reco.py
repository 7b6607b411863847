"""``cygnoreco reco``: one run after the other, none stops the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clusters.local import local_client
from cygnoreco.driver import Progress, reconstruct
from cygnoreco.errors import DataError, InputError
from cygnoreco.raw import Run, open_run
from cygnoreco.recipe import Recipe
from cygnoreco.types import Fault
from pipelines.cli import BAD_DATA, GOOD, INPUT
from pipelines.cli.console import ERR, OUT, frame_progress, print_facts, print_json, print_table
from pipelines.cli.raw import print_faults


def reco(
    runs: Sequence[Path],
    *,
    pedestal: Path | None,
    vignetting: str | None,
    recipe: str,
    settings: list[str],
    out: Path,
    camera: str | None,
    workers: int | None,
    block: int,
    force: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Reconstruct raw runs; the parameters are the options of the command."""
    if pedestal is None:
        raise InputError("no pedestal: name a pedestal run, a saved pedestal or a folder of them with --pedestal")
    chosen = Recipe.load(recipe).override(settings)
    outcomes: list[dict[str, Any]] = []
    with local_client(workers) as client, frame_progress(not (quiet or as_json)) as bar:
        for path in runs:
            task = bar.add_task(f"{path.name}: index", total=None)
            try:
                run = open_run(path)
                # A run without any camera goes through as well: the error says so.
                names: list[str | None] = [camera] if camera else [each.name for each in run.cameras]
                for name in names or [None]:
                    outcomes.append(
                        _one(
                            run, name, bar, task,
                            pedestal=pedestal, response=vignetting, recipe=chosen, client=client, block=block, out=out,
                            force=force, strict=strict,
                        )
                    )  # fmt: skip
            except (InputError, DataError) as error:
                outcomes.append(
                    {"status": "failed", "input": str(path), "error": str(error), "kind": type(error).__name__}
                )
            bar.remove_task(task)
    if as_json:
        print_json(outcomes)
    elif not quiet:
        print_outcomes(outcomes)
    for outcome in outcomes:
        if outcome["status"] == "failed":
            ERR.print(f"{outcome['input']}: {outcome['error']}", style="red", markup=False, soft_wrap=True)
    return _code(outcomes)


def _one(run: Run, camera: str | None, bar: Any, task: Any, **options: Any) -> dict[str, Any]:
    size = run.camera(camera).height * run.camera(camera).width * 2

    def watch(progress: Progress) -> None:
        bar.update(
            task,
            description=f"{run.path.name}",
            total=progress.total,
            completed=progress.frames,
            clusters=progress.clusters,
            frame_bytes=size,
        )

    result = reconstruct(run, camera=camera, watch=watch, **options)
    return {**result.summary, "resumed_frames": result.resumed}


def print_outcomes(outcomes: list[dict[str, Any]]) -> None:
    """Print what became of each run."""
    for outcome in outcomes:
        if outcome["status"] == "failed":
            continue
        frames, fresh = outcome["frames"], outcome["frames"] - outcome["resumed_frames"]
        facts = {
            "frames": f"{frames}" + (f" ({outcome['resumed_frames']} were done before)" if fresh < frames else ""),
            "clusters": outcome["clusters"],
            "vetoed as sparks": len(outcome["vetoed"]) or "none",
            "faults of the file": len(outcome["faults"]) or "none",
            "wall time": f"{outcome['wall_s']:.1f} s"
            + (f", {fresh / outcome['wall_s']:.1f} frames/s" if fresh else ""),
            "recipe, key": f"{outcome['recipe']}, {outcome['key']}",
            "ROOT file": outcome["output"],
            "dataset": outcome["dataset"],
        }
        print_facts(f"run {outcome['run']} {outcome['camera']}", facts)
        seconds = outcome["seconds_by_stage"]
        if seconds and frames:
            rows = [
                (name, f"{1e3 * value / frames:.2f}") for name, value in sorted(seconds.items(), key=lambda s: -s[1])
            ]
            print_table("time by stage", ("stage", "ms a frame "), rows)
        if outcome["faults"]:
            print_faults(tuple(Fault(**fault) for fault in outcome["faults"]))
        OUT.print()
    if len(outcomes) > 1:
        table = [
            (Path(each["input"]).name, each["status"], each.get("frames", ""), each.get("clusters", ""))
            for each in outcomes
        ]
        print_table("runs", ("run", "status", "frames ", "clusters "), table)


def _code(outcomes: list[dict[str, Any]]) -> int:
    statuses = {(outcome["status"], outcome.get("kind")) for outcome in outcomes}
    if ("failed", "InputError") in statuses:
        return INPUT if len(outcomes) == 1 else BAD_DATA
    return GOOD if statuses <= {("good", None)} else BAD_DATA
