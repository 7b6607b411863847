"""``cygnoreco reco``: one run after the other, none stops the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusters.local import cores, local_client
from clusters.site import load_site
from cygnoreco.calib.find import find_pedestal
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.campaign import Order
from cygnoreco.chain import check_camera
from cygnoreco.device import resolve_device
from cygnoreco.driver import Progress, reconstruct
from cygnoreco.errors import CygnoError, InputError, TransientError
from cygnoreco.io.parts import committed_parts
from cygnoreco.io.remote import shown_path, url_of
from cygnoreco.raw import Run, open_run
from cygnoreco.recipe import Recipe
from cygnoreco.types import Fault
from pipelines.cli import BAD_DATA, BUG, GOOD, INPUT, TRANSIENT, Interrupted
from pipelines.cli.console import OUT, frame_progress, print_error, print_facts, print_json, print_line, print_table
from pipelines.cli.follow import on_pool
from pipelines.cli.on_site import failure, on_site
from pipelines.cli.raw import print_faults

if TYPE_CHECKING:
    from distributed import Client
    from rich.progress import Progress as Bar


#: What became of one camera of one run: the summary of a result, or why there is none.
Outcome = dict[str, Any]

#: Of more runs than these only a line of a table is printed.
_IN_FULL = 10


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
    metrics: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Reconstruct raw runs; the parameters are the options of the command."""
    if pedestal is None:
        raise InputError("no pedestal: name a pedestal run, a saved pedestal or a folder of them with --pedestal")
    chosen = Recipe.load(recipe).override(settings)
    paths = expand(runs)
    place = load_site(site) if site is not None else None
    if url_of(out) and place is None:
        place = load_site("local")  # results are brought to a store by workers
    if place is not None and (place.kind != "local" or url_of(out)):
        if threads is not None:
            raise InputError("--threads is of this process, --site of others: --workers says how many")
        order = Order(pedestal, out, chosen, vignetting, device, block, force, strict)
        shown = not (quiet or as_json)
        if place.scheduler.where == "pool":
            if metrics is not None:
                raise InputError("--metrics is of a campaign in this process, that of this site runs in the pool")
            outcomes = on_pool(paths, order, camera, place, workers, bar=shown, quiet=quiet)
        else:
            outcomes = on_site(paths, order, camera, place, workers, bar=shown, quiet=quiet, metrics=metrics)
    elif metrics is not None:
        raise InputError("--metrics needs a --site whose jobs a pool runs")
    else:
        outcomes = []
        with frame_progress(not (quiet or as_json)) as bar, ExitStack() as stack:
            # Workers take seconds to start: only when there is something to do.
            processes = workers or (cores() if place is not None else 0)
            client = cache(lambda: stack.enter_context(local_client(processes))) if processes else None
            at_once = threads or _threads(processes, device)
            request = Request(chosen, pedestal, vignetting, out, block, force, strict, client, at_once, device)
            watch = _Watch(bar)
            try:
                for path in paths:
                    for outcome in _outcomes(path, camera, request, watch):
                        outcomes.append(outcome)
                    if strict and outcomes[-1]["status"] == "failed":
                        break
            except KeyboardInterrupt:
                stack.close()  # first: until they are closed, workers may commit what they were at
                outcomes.append({"status": "interrupted", "input": str(shown_path(path)), **watch.committed()})
    return report(outcomes, as_json=as_json, quiet=quiet)


def report(outcomes: list[Outcome], *, as_json: bool, quiet: bool) -> int:
    """Print what became of each run, and say it as an exit code.

    Raises
    ------
    Interrupted
        One of them is that the command was.
    """
    if as_json:
        print_json(outcomes)
    elif not quiet:
        print_outcomes(outcomes)
    failed = [outcome["error"] for outcome in outcomes if outcome["status"] == "failed"]
    for error in failed[:_IN_FULL]:
        print_error(error)
    if len(failed) > _IN_FULL:
        print_error(f"and {len(failed) - _IN_FULL} more runs failed")
    for outcome in outcomes:
        if outcome["status"] == "interrupted":
            raise Interrupted(_how_to_go_on(outcome))
    return _code(outcomes)


def expand(runs: Sequence[Path]) -> list[Path]:
    """Name all runs that are meant: paths and URLs as they are, patterns, and lists of all of these.

    Parameters
    ----------
    runs : sequence of Path
        ``run05001.mid.gz``; ``'data/run05*.mid.gz'``, where the shell has not done it; ``@runs.txt``, a file with one
        of them a line, empty lines and those that begin with ``#`` apart.

    Returns
    -------
    list of Path
        In that order, patterns sorted, each run once.

    Raises
    ------
    InputError
        A pattern that no file fits, or a list that cannot be read.
    """
    found: dict[Path, None] = {}
    for run in runs:
        name = str(run)
        if name.startswith("@"):
            try:
                lines = Path(name[1:]).read_text().splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"the list of runs '{name[1:]}' cannot be read: {error}") from None
            inner = [Path(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#")]
            found.update(dict.fromkeys(expand(inner)))
        elif any(sign in name for sign in "*?[") and not run.exists() and url_of(run) is None:
            fitting = sorted(Path(path) for path in glob(name, recursive=True))  # noqa: PTH207  patterns may be absolute
            if not fitting:
                raise InputError(f"no file fits '{name}'")
            found.update(dict.fromkeys(fitting))
        else:
            found[run] = None
    return list(found)


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
    watch.begin(shown_path(path).name)
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
                yield failure(path, names[0] or None, error)
    except CygnoError as error:
        yield failure(path, None, error)


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
        client=request.client,
        threads=request.threads,
        device=request.device,
        block=request.block,
        out=request.out,
        force=request.force,
        strict=request.strict,
        watch=watch,
    )
    return {**result.summary, "resumed_frames": result.resumed}


def _how_to_go_on(outcome: Outcome) -> str:
    if "how" in outcome:
        return str(outcome["how"])
    if "runs" in outcome:
        return (
            f"interrupted: {outcome['runs']} of {outcome['total']} runs have ended, "
            f"{outcome['frames']} frames are committed; the same command goes on from there"
        )
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
    for outcome in outcomes if len(outcomes) <= _IN_FULL else ():
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
                _why(each),
            )
            for each in outcomes
            if each["status"] != "interrupted"
        ]
        print_table("runs", ("run", "camera", "status", "frames ", "clusters ", "why"), table)
        count = Counter(each["status"] for each in outcomes)
        print_line(", ".join(f"{number} {status}" for status, number in sorted(count.items())))


def _why(outcome: Outcome) -> str:
    """Say in a line why a run is not done, or not whole."""
    if outcome["status"] == "failed":
        return str(outcome["error"]).splitlines()[0]
    kinds = Counter(fault["kind"] for fault in (*outcome.get("faults", ()), *outcome.get("pedestal_faults", ())))
    return ", ".join(f"{number} x {kind}" for kind, number in sorted(kinds.items()))


def _code(outcomes: list[Outcome]) -> int:
    failures: set[str] = {outcome["kind"] for outcome in outcomes if outcome["status"] == "failed"}
    if "bug" in failures:
        return BUG
    if TransientError.__name__ in failures:
        return TRANSIENT
    if failures == {InputError.__name__} and all(outcome["status"] == "failed" for outcome in outcomes):
        return INPUT
    return GOOD if all(outcome["status"] == "good" for outcome in outcomes) else BAD_DATA
