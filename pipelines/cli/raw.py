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
from cygnoreco.io.convert import PRESETS, Target
from cygnoreco.io.convert import convert as convert_run
from cygnoreco.io.inspect import RunInfo, event_lines, run_info, verify_run
from cygnoreco.io.remote import shown_path, url_of
from cygnoreco.raw import open_run
from cygnoreco.types import Fault
from pipelines.cli import BAD_DATA, GOOD
from pipelines.cli.console import frame_progress, print_facts, print_json, print_line, print_table

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
        lines = event_lines(path)
        if as_json:
            print_json([_event_fields(line) for line in list(lines)[1:]])
            return GOOD
        for line in lines:
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
    with frame_progress(not as_json) as bar:
        bar.add_task(f"{shown_path(path).name}: reading", total=None)
        found = verify_run(path)
    if as_json:
        print_json(found.to_dict())
    else:
        print_line(f"{shown_path(path)}: {found.frames} frames, " + ("sound" if found.sound else "NOT SOUND"))
        if found.faults:
            print_faults(found.faults)
    return BAD_DATA if found.faults else GOOD


def convert(
    path: Path,
    to: str,
    out: Path | None,
    preset: str | None,
    force: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Copy a raw run to another container."""
    if to not in get_args(Target):
        raise InputError(f"unknown container '{to}'" + nearest(to, get_args(Target)))
    if preset is not None and preset not in PRESETS:
        raise InputError(f"unknown preset '{preset}'" + nearest(preset, PRESETS))
    if out is None and url_of(path):
        raise InputError(f"{shown_path(path)}: --out must say where on a local disk the copy goes")
    suffix = "mid.gz" if to == "midas" else to
    target = out or path.with_name(f"{path.name.partition('.')[0]}.{suffix}")
    if target.exists() and not force:
        raise InputError(f"{target}: exists already; --force replaces it, --out names another")
    with frame_progress(not (quiet or as_json)) as bar:
        task = bar.add_task(f"{shown_path(path).name}: index", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, description=f"{shown_path(path).name} to {to}", completed=done, total=total)

        made = convert_run(
            path,
            target,
            cast("Target", to),
            preset=preset,
            overwrite=force,
            strict=strict,
            progress=watch,
        )
    if as_json:
        print_json({**asdict(made), "bytes": _size(made.path)})
    elif not quiet:
        print_line(f"{made.path}: {sum(made.frames.values())} frames, {_size(made.path)} bytes")
        if made.faults:
            print_faults(made.faults)
    return BAD_DATA if made.faults else GOOD


def pedestal(path: Path, out: Path, camera: str | None, max_frames: int | None, as_json: bool, quiet: bool) -> int:
    """Make a pedestal and write it in our format and the experiment's."""
    with frame_progress(not (quiet or as_json)) as bar:
        task = bar.add_task(f"{shown_path(path).name}: index", total=None)
        run = open_run(path)
        sensor = run.camera(camera)

        def watch(done: int, total: int) -> None:
            size = 2 * sensor.height * sensor.width
            bar.update(task, description=shown_path(path).name, completed=done, total=total, frame_bytes=size)

        made = pedestal_of(run.source, sensor.name, max_frames=max_frames, progress=watch)
    suffix = f"_{sensor.name}" if len(run.cameras) > 1 else ""
    ours = out / f"pedestal_run{run.number:05d}{suffix}.npz"
    theirs = out / f"pedmap_run{run.number}{suffix}_rebin1.root"
    made.save(ours)
    made.save_root(theirs)
    noise = float(np.median(made.rms))
    found = {
        "run": run.number,
        "camera": sensor.name,
        "frames": made.n_frames,
        "mean": float(made.mean.mean()),
        "noise": noise,
        "noisy_pixels": int((made.rms > 5 * noise).sum()),
        "npz": str(ours),
        "root": str(theirs),
        "sha256": made.digest,
        "faults": [asdict(fault) for fault in run.faults],
    }
    if as_json:
        print_json(found)
    elif not quiet:
        facts = {
            "frames": found["frames"],
            "mean of the pixels": f"{found['mean']:.3f} ADU",
            "median of their noise": f"{noise:.3f} ADU",
            "noisier than 5 times that": f"{found['noisy_pixels']} pixels",
            "our format": ours,
            "the experiment's": theirs,
            "sha256": made.digest,
        }
        print_facts(f"pedestal of run {run.number} {sensor.name}", facts)
        if run.faults:
            print_faults(run.faults)
    return BAD_DATA if run.faults else GOOD


def print_faults(faults: tuple[Fault, ...], shown: int = 20) -> None:
    """Print the first faults of a run, and how many there are."""
    rows = [(each.kind, _or_blank(each.event), _or_blank(each.offset), each.message) for each in faults[:shown]]
    title = f"faults ({len(faults)})" + (f", the first {shown}" if len(faults) > shown else "")
    print_table(title, ("kind", "event ", "byte ", "what"), rows)


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
        print_facts("settings", {path: _short(value) for path, value in found.odb.items()})
    if found.faults:
        print_faults(found.faults)


def _event_fields(line: str) -> dict[str, object]:
    *numbers, banks = line.split(",")
    names = ("serial", "event_id", "trigger_mask", "timestamp", "event_data_size", "flags")
    return {
        **{name: int(number) if number else None for name, number in zip(names, numbers, strict=True)},
        "banks": banks.split("|") if banks else [],
    }


def _short(value: object, length: int = 60) -> str:
    """Put a setting on one line; all of it is in the JSON."""
    if isinstance(value, (list, tuple)):
        text = ", ".join(map(str, value))
        return text if len(text) <= length else f"{text[:length]}... ({len(value)} values)"
    return str(value)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(each.stat().st_size for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file())


def _time(seconds: int | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "unknown"


def _or_blank(value: int | None) -> str:
    return "" if value is None else str(value)
