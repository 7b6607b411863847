"""``cygnoreco info``, ``verify``, ``convert`` and ``pedestal``: raw runs without reconstruction."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import cast, get_args

import numpy as np

from cygnoreco.calib.find import pedestal_of
from cygnoreco.errors import InputError, nearest
from cygnoreco.io.convert import Target
from cygnoreco.io.convert import convert as convert_run
from cygnoreco.io.inspect import RunInfo, event_lines, run_info, verify_run
from cygnoreco.raw import open_run
from cygnoreco.types import Fault
from pipelines.cli import BAD_DATA, GOOD
from pipelines.cli.console import OUT, frame_progress, print_facts, print_json, print_table

#: What the events of CYGNO's DAQ are, by their id.
_EVENT_KINDS = {
    1: "trigger",
    3: "high voltage",
    4: "cathode",
    5: "environment",
    6: "gas system",
    7: "camera status",
    8: "trigger module",
    9: "source motor",
    0x8000: "begin of run",
    0x8001: "end of run",
    0x8002: "message",
}


def info(path: Path, events: bool, as_json: bool) -> int:
    """Summarise a raw run, or list its events."""
    if events:
        for line in event_lines(path):
            sys.stdout.write(line + "\n")
        return GOOD
    found = run_info(path)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_info(found)
    return BAD_DATA if found.faults else GOOD


def verify(path: Path, as_json: bool) -> int:
    """Read a raw run from end to end."""
    found = verify_run(path)
    if as_json:
        print_json({"path": str(path), "sound": not found.faults, "faults": [asdict(each) for each in found.faults]})
    elif found.faults:
        print_faults(found.faults)
    else:
        OUT.print(f"{path}: sound", markup=False, soft_wrap=True)
    return BAD_DATA if found.faults else GOOD


def convert(path: Path, to: str, out: Path | None, strict: bool, quiet: bool) -> int:
    """Copy a raw run to another container."""
    if to not in get_args(Target):
        raise InputError(f"unknown container '{to}'" + nearest(to, get_args(Target)))
    suffix = "mid.gz" if to == "midas" else to
    target = out or path.with_name(f"{path.name.partition('.')[0]}.{suffix}")
    with frame_progress(not quiet) as bar:
        task = bar.add_task(f"{path.name}: index", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, description=f"{path.name} to {to}", completed=done, total=total)

        made = convert_run(path, target, cast("Target", to), strict=strict, progress=watch)
    if not quiet:
        OUT.print(str(made.path), markup=False, soft_wrap=True)
        if made.faults:
            print_faults(made.faults)
    return BAD_DATA if made.faults else GOOD


def pedestal(path: Path, out: Path, camera: str | None, max_frames: int | None, as_json: bool, quiet: bool) -> int:
    """Make a pedestal and write it in our format and the experiment's."""
    run = open_run(path)
    sensor = run.camera(camera)
    with frame_progress(not (quiet or as_json)) as bar:
        task = bar.add_task(path.name, total=None, frame_bytes=2 * sensor.height * sensor.width)

        def watch(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        made = pedestal_of(run.source, sensor.name, max_frames=max_frames, progress=watch)
    suffix = f"_{sensor.name}" if len(run.cameras) > 1 else ""
    ours = out / f"pedestal_run{run.number:05d}{suffix}.npz"
    theirs = out / f"pedmap_run{run.number}{suffix}_rebin1.root"
    made.save(ours)
    made.save_root(theirs)
    facts = {
        "frames": made.n_frames,
        "mean of the pixels (ADU)": f"{made.mean.mean():.3f}",
        "noise of the pixels, median (ADU)": f"{np.median(made.rms):.3f}",
        "pixels noisier than 5 times that": int((made.rms > 5 * np.median(made.rms)).sum()),
        "our format": str(ours),
        "the experiment's": str(theirs),
        "sha256": made.digest,
    }
    if as_json:
        print_json({"run": run.number, "camera": sensor.name, **facts})
    elif not quiet:
        print_facts(f"pedestal of run {run.number} {sensor.name}", facts)
        if run.faults:
            print_faults(run.faults)
    return BAD_DATA if run.faults else GOOD


def print_faults(faults: tuple[Fault, ...], shown: int = 20) -> None:
    """Print the first faults of a run, and how many there are."""
    rows = [(each.kind, _or_blank(each.event), _or_blank(each.offset), each.message) for each in faults[:shown]]
    print_table(f"faults ({len(faults)})", ("kind", "event ", "byte ", "what"), rows)


def _print_info(found: RunInfo) -> None:
    facts = {
        "file": found.path,
        "container": found.container,
        "bytes": _or_blank(found.file_size) + (f", inflated {found.inflated_size}" if found.inflated_size else ""),
        "begin": _time(found.begin),
        "end": _time(found.end),
        "sha256": found.digest,
        "faults": len(found.faults) or "none",
    }
    print_facts(f"run {found.run_number}", facts)
    if found.cameras:
        rows = [(each.camera.name, each.camera.height, each.camera.width, each.frames) for each in found.cameras]
        print_table("cameras", ("camera", "rows ", "columns ", "frames "), rows)
    if found.events:
        rows_of_events = [
            (f"{each.event_id:#x}", _EVENT_KINDS.get(each.event_id, ""), each.count, each.broken or "", each.size)
            for each in found.events
        ]
        print_table("events", ("id", "kind", "events ", "broken ", "bytes "), rows_of_events)
        banks = [(f"{b.event_id:#x}", b.name, b.type, b.count, b.smallest, b.largest) for b in found.banks]
        print_table("banks", ("event", "bank", "type ", "banks ", "smallest ", "largest "), banks)
    if found.odb:
        print_facts("settings", found.odb)
    if found.faults:
        print_faults(found.faults)


def _time(seconds: int | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "unknown"


def _or_blank(value: int | None) -> str:
    return "" if value is None else str(value)
