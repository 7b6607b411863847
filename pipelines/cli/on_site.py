"""``cygnoreco reco --site``: all runs at once, on the workers of a pool."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from clusters.connect import connect
from clusters.site import Site
from cygnoreco.campaign import Order, Outcome, Standing, reconstruct_many
from cygnoreco.errors import CygnoError, DataError, InputError, TransientError
from cygnoreco.io.remote import full_name, public_url, shown_path, url_of
from pipelines.cli.console import ERR, frame_progress, print_error

if TYPE_CHECKING:
    from distributed import Client
    from rich.progress import Progress, TaskID

    from clusters.htcondor import Event


def on_site(
    paths: Sequence[Path],
    order: Order,
    camera: str | None,
    site: Site,
    workers: int,
    *,
    bar: bool,
    quiet: bool,
    metrics: int | None = None,
) -> list[dict[str, Any]]:
    """Reconstruct runs on a site, and say what became of each.

    Parameters
    ----------
    paths : sequence of Path
        The runs.
    order : Order
        What is asked for all of them.
    camera : str or None
        Only this camera.
    site : Site
        Where.
    workers : int
        How many; 0 for as many as the work is worth.
    bar : bool
        Show a progress bar.
    quiet : bool
        Do not tell of lost jobs.
    metrics : int, optional
        Port of this machine at which Prometheus can read how far it is; 0 for any.
    """
    outcomes: list[dict[str, Any]] = []
    latest = Standing(total=len(paths))

    with frame_progress(bar) as shown:
        task = shown.add_task(f"{site.name}: starting", total=None)

        def watch(standing: Standing) -> None:
            nonlocal latest
            latest = standing
            show_standing(shown, task, site, vars(standing))

        def tell(event: Event) -> None:
            if not quiet and event.kind not in UNTOLD:
                print_error(f"{site.name}: {event.text}")

        def say_where(client: Client, _: Path) -> None:
            from clusters.dashboard import page_address

            if site.kind != "local" and not quiet:
                ERR.print(f"{site.name}: {page_address(client)}", markup=False, soft_wrap=True)

        try:
            names = full_names(paths)
            going = campaign(
                names, absolute(order), camera, site, workers, watch=watch, tell=tell, begun=say_where, metrics=metrics
            )
            with closing(going) as ended:
                for outcome in ended:
                    outcomes.append(outcome)
        except KeyboardInterrupt:
            progress = {"runs": latest.runs, "total": latest.total, "frames": latest.frames}
            outcomes.append({"status": "interrupted", "input": "", **progress})
    return outcomes


#: Kinds of events that nobody needs to be told of.
UNTOLD = ("submitted", "ended")


def show_standing(bar: Progress, task: TaskID, site: Site, standing: Mapping[str, Any]) -> None:
    """Show in a bar how far a campaign is."""
    failed = f", {standing['failed']} failed" if standing["failed"] else ""
    what = f"{site.name}: {standing['runs']} of {standing['total']} runs{failed}"
    bar.update(task, description=what, completed=standing["frames"], total=standing["known"] or None)


def full_names(paths: Sequence[Path]) -> list[str]:
    """Names by which workers find the runs; InputError for one that has a secret in it."""
    names = list(dict.fromkeys(full_name(path) for path in paths))
    for name in names:
        if url_of(name) and public_url(name) != name:
            raise InputError(f"{public_url(name)}: a presigned URL is for single runs on this machine: name s3://...")
    return names


def absolute(order: Order) -> Order:
    """Order for workers, which have other working folders."""
    response = order.response
    if response is not None and Path(response).exists():
        response = str(Path(response).absolute())
    return replace(order, pedestal=_absolute(order.pedestal), out=_absolute(order.out), response=response)


def _absolute(path: Path) -> Path:
    return path if url_of(path) else path.absolute()


def campaign(
    runs: Sequence[str],
    order: Order,
    camera: str | None,
    site: Site,
    workers: int,
    *,
    watch: Callable[[Standing], None],
    tell: Callable[[Event], None] | None = None,
    begun: Callable[[Client, Path], None] | None = None,
    metrics: int | None = None,
) -> Generator[dict[str, Any]]:
    """Reconstruct runs with the scheduler in this process.

    Parameters
    ----------
    runs : sequence of str
        Full names.
    order, camera, site, workers
        As for :func:`on_site`, with absolute paths.
    watch : callable
        Called with :class:`~cygnoreco.campaign.Standing`, at least once a second.
    tell : callable, optional
        Called with what happens to the jobs of workers, in another thread.
    begun : callable, optional
        Called with the client and the folder of the jobs' logs.
    metrics : int, optional
        Port of this machine at which Prometheus can read how far it is; 0 for any.

    Yields
    ------
    dict
        What became of each camera of each run, in the order in which they end.
    """
    from clusters.dashboard import EVENTS, Run, publish, run_of  # loads Dask

    # Jobs write their logs to a folder; beside the results, unless these are in a store.
    beside = platformdirs.user_log_path("cygnoreco") if url_of(order.out) else order.out
    logs = beside / "jobs" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        served = None
        if metrics is not None:
            from pipelines.metrics import serving

            served = stack.enter_context(serving(metrics))  # first: no job is submitted if the port is taken
        begin, told = time.time(), 0.0
        starts: dict[tuple[str, str], float] = {}
        over: list[Run] = []
        events: deque[Event] = deque(maxlen=EVENTS)

        def hear(event: Event) -> None:
            events.append(event)
            if tell is not None:
                tell(event)

        def see(standing: Standing) -> None:
            nonlocal told
            jobs = getattr(client.cluster, "jobs_by_state", {})
            if served is not None:
                served.update(standing, jobs)
            if time.monotonic() - told >= _SECOND:
                told = time.monotonic()
                starts.update(((each.path, each.camera), each.started) for each in standing.going)
                going = [
                    Run(each.path, each.camera, "running", each.frames, each.known, each.started)
                    for each in standing.going
                ]
                publish(client, standing, [*going, *over], tuple(events), jobs, started=begin)
            watch(standing)

        client = stack.enter_context(connect(site, workers=workers or None, logs=logs, notify=hear))
        if begun is not None:
            begun(client, logs)
        ended = stack.enter_context(closing(reconstruct_many(runs, order, client, camera=camera, watch=see)))
        for outcome in ended:
            found = described(outcome)
            over.append(run_of(found, time.time(), starts.pop((outcome.path, outcome.camera or ""), None)))
            yield found


#: Seconds between two times that the page is told.
_SECOND = 1.0


def described(outcome: Outcome) -> dict[str, Any]:
    """Summary of a result, or of why there is none."""
    if outcome.error is None:
        return {**(outcome.summary or {}), "resumed_frames": outcome.resumed}
    return failure(Path(outcome.path), outcome.camera, outcome.error)


def failure(path: Path, camera: str | None, error: BaseException) -> dict[str, Any]:
    """Describe why a run has no result."""
    path = Path(shown_path(path))
    text = "; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
    where = " ".join([str(path), *([camera] if camera else [])])
    kinds = [kind.__name__ for kind in (InputError, DataError, TransientError) if isinstance(error, kind)]
    return {
        "status": "failed",
        "input": str(path),
        "camera": camera,
        "error": text if str(path) in text else f"{where}: {text}",
        "kind": kinds[0] if kinds else "CygnoError" if isinstance(error, CygnoError) else "bug",
    }
