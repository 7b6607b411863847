"""``cygnoreco reco``: one run after the other, none stops the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusters.local import cores, local_client
from clusters.site import Site, load_site
from cygnoreco.calib.find import find_pedestal
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.chain import check_camera
from cygnoreco.device import resolve_device
from cygnoreco.driver import Progress, reconstruct
from cygnoreco.errors import CygnoError, InputError, TransientError
from cygnoreco.io.parts import committed_parts
from cygnoreco.raw import Run, open_run
from cygnoreco.recipe import Recipe
from cygnoreco.types import Fault
from pipelines.cli import BAD_DATA, GOOD, INPUT, TRANSIENT, Interrupted
from pipelines.cli.console import OUT, frame_progress, print_error, print_facts, print_json, print_table
from pipelines.cli.raw import print_faults

if TYPE_CHECKING:
    from distributed import Client
    from rich.progress import Progress as Bar

    from clusters.htcondor import Event

#: What became of one camera of one run: the summary of a result, or why there is none.
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What is asked for all runs alike."""

    recipe: Recipe
    pedestal: Path
    response: str | None
    out: Path
    block: int
    force: bool
    strict: bool
    client: Callable[[], Client | None] | None
    elsewhere: bool  # workers are on other machines
    threads: int
    device: str


def reco(
    runs: Sequence[Path],
    *,
    pedestal: Path | None,
    vignetting: str | None,
    recipe: str,
    settings: list[str],
    out: Path,
    camera: str | None,
    threads: int | None,
    workers: int,
    site: str | None,
    device: str,
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
    place = load_site(site) if site is not None else None
    outcomes: list[Outcome] = []
    with frame_progress(not (quiet or as_json)) as bar, ExitStack() as stack:
        # Workers take seconds to start: only when there is something to do.
        client: Callable[[], Client | None] | None = None
        if place is not None:
            client = cache(lambda: stack.enter_context(_connected(place, workers, out, quiet)))
        elif workers:
            client = cache(lambda: stack.enter_context(local_client(workers)))
        elsewhere = place is not None and place.kind != "local"
        at_once = threads or (1 if elsewhere else _threads(workers, device))
        request = Request(chosen, pedestal, vignetting, out, block, force, strict, client, elsewhere, at_once, device)
        watch = _Watch(bar)
        try:
            for path in runs:
                for outcome in _outcomes(path, camera, request, watch):
                    outcomes.append(outcome)
                if strict and outcomes[-1]["status"] == "failed":
                    break
        except KeyboardInterrupt:
            stack.close()  # first: until they are closed, workers may commit what they were at
            outcomes.append({"status": "interrupted", "input": str(path), **watch.committed()})
    if as_json:
        print_json(outcomes)
    elif not quiet:
        print_outcomes(outcomes)
    for outcome in outcomes:
        if outcome["status"] == "failed":
            print_error(outcome["error"])
        elif outcome["status"] == "interrupted":
            raise Interrupted(_how_to_go_on(outcome))
    return _code(outcomes)


def _connected(site: Site, workers: int, out: Path, quiet: bool) -> AbstractContextManager[Client]:
    """Connect to a site; the logs of its jobs are kept beside the results."""
    from clusters.connect import connect

    def tell(event: Event) -> None:
        if not quiet and event.kind not in ("submitted", "ended"):
            print_error(f"{site.name}: {event.text}")

    logs = out / "jobs" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return connect(site, workers=workers or None, logs=logs, notify=tell)


def _threads(workers: int, device: str) -> int:
    """Blocks at once if the user does not say: one a core; on a GPU, whose memory they share, one and the next."""
    return max(workers, cores()) if resolve_device(device).kind == "cpu" else 2


class _Watch:
    """Shows how far the run at hand is, and remembers it."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, visible=False)
        self._latest: Progress | None = None

    def begin(self, what: str, size: int | None = None) -> None:
        """Start from nothing; ``size`` is that of a frame in bytes, once it is known."""
        self._latest = None
        self._bar.remove_task(self._task)
        fields: dict[str, Any] = {} if size is None else {"frame_bytes": size}
        self._task = self._bar.add_task(what, total=None, **fields)

    def pedestal(self, frames: int, total: int) -> None:
        """Frames of the pedestal run that were read."""
        self._bar.update(self._task, completed=frames, total=total)

    def __call__(self, progress: Progress) -> None:
        """Frames that were reconstructed."""
        self._latest = progress
        self._bar.update(self._task, completed=progress.frames, total=progress.total, clusters=progress.clusters)

    def committed(self) -> dict[str, Any]:
        """Frames of the run at hand that a second start need not do, and all of them; nothing if it had not begun."""
        if self._latest is None:
            return {}
        parts, total = self._latest.parts, self._latest.total
        if not parts.is_dir():  # merged and published already
            return {"frames": total, "total": total, "estimated": False}
        frames = sum(each.stop - each.start for each in committed_parts(parts))
        return {"frames": frames, "total": total, "estimated": self._latest.estimated}


def _outcomes(path: Path, camera: str | None, request: Request, watch: _Watch) -> Iterator[Outcome]:
    """Do one run, camera by camera, and say what became of each."""
    watch.begin(path.name)
    done: set[str] = set()
    try:
        run = open_run(path)
        while True:
            # Reading the run for one camera may show another; one without any goes through as well: the error says so.
            names = [camera] if camera else [each.name for each in run.known_cameras] or [""]
            names = [name for name in names if name not in done]
            if not names:
                return
            done.add(names[0])
            try:
                yield _one(run, names[0] or None, request, watch)
            except CygnoError as error:
                yield _failure(path, names[0] or None, error)
    except CygnoError as error:
        yield _failure(path, None, error)


def _one(run: Run, camera: str | None, request: Request, watch: _Watch) -> Outcome:
    sensor = run.camera(camera)
    check_camera(request.recipe, sensor)
    what, size = f"{run.path.name} {sensor.name}", 2 * sensor.height * sensor.width
    watch.begin(f"{what}: pedestal", size)

    def pedestal() -> Pedestal:
        found = find_pedestal(
            request.pedestal,
            run.number,
            sensor,
            orientation=request.recipe["orient"]["orientation"],
            progress=watch.pedestal,
        )
        watch.begin(what, size)
        return found

    result = reconstruct(
        run,
        pedestal=pedestal(),  # held by nobody here, so that its maps can go
        response=request.response,
        recipe=request.recipe,
        camera=sensor.name,
        # On this machine, a file that nobody has read is reconstructed by this process while it reads it.
        client=request.client() if request.client and request.elsewhere else request.client,
        threads=request.threads,
        device=request.device,
        block=request.block,
        out=request.out,
        force=request.force,
        strict=request.strict,
        watch=watch,
    )
    return {**result.summary, "resumed_frames": result.resumed}


def _failure(path: Path, camera: str | None, error: CygnoError) -> Outcome:
    text = str(error)
    where = " ".join([str(path), *([camera] if camera else [])])
    return {
        "status": "failed",
        "input": str(path),
        "camera": camera,
        "error": text if str(path) in text else f"{where}: {text}",
        "kind": type(error).__name__,
    }


def _how_to_go_on(outcome: Outcome) -> str:
    name = Path(outcome["input"]).name
    if "frames" not in outcome:
        return f"interrupted before the first frame of {name}; the same command goes on from there"
    about = "about " if outcome["estimated"] else ""
    return (
        f"interrupted: {outcome['frames']} of {about}{outcome['total']} frames of {name} are committed; "
        "the same command goes on from there"
    )


def print_outcomes(outcomes: list[Outcome]) -> None:
    """Print what became of each run."""
    for outcome in outcomes:
        if outcome["status"] in ("failed", "interrupted"):
            continue
        frames, fresh = outcome["frames"], outcome["frames"] - outcome["resumed_frames"]
        before = f" ({outcome['resumed_frames']} of them done before)" if outcome["resumed_frames"] else ""
        facts = {
            "frames": f"{frames}{before}",
            "clusters": outcome["clusters"],
            "vetoed as sparks": len(outcome["vetoed"]) or "none",
            "faults of the file": len(outcome["faults"]) or "none",
            "wall time": f"{outcome['wall_s']:.1f} s, {fresh / outcome['wall_s']:.1f} frames/s"
            if fresh > 0
            else "nothing was left to do",
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
            (
                Path(each["input"]).name,
                each.get("camera") or "",
                each["status"],
                each.get("frames", ""),
                each.get("clusters", ""),
            )
            for each in outcomes
        ]
        print_table("runs", ("run", "camera", "status", "frames ", "clusters "), table)


def _code(outcomes: list[Outcome]) -> int:
    failures = {outcome["kind"] for outcome in outcomes if outcome["status"] == "failed"}
    if TransientError.__name__ in failures:
        return TRANSIENT
    if failures == {InputError.__name__} and all(outcome["status"] == "failed" for outcome in outcomes):
        return INPUT
    return GOOD if all(outcome["status"] == "good" for outcome in outcomes) else BAD_DATA
