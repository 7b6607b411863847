"""``cygnoreco reco --site``: all runs at once, on the workers of a pool."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusters.connect import connect
from clusters.site import Site
from cygnoreco.campaign import Order, Outcome, Standing, reconstruct_many
from cygnoreco.errors import CygnoError, DataError, InputError, TransientError
from cygnoreco.io.remote import full_name
from pipelines.cli.console import frame_progress, print_error

if TYPE_CHECKING:
    from clusters.htcondor import Event


def on_site(
    paths: Sequence[Path], order: Order, camera: str | None, site: Site, workers: int, *, bar: bool, quiet: bool
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
    """
    # Workers have other working folders.
    order = Order(**{**vars(order), "pedestal": order.pedestal.absolute(), "out": order.out.absolute()})
    order.out.mkdir(parents=True, exist_ok=True)
    logs = order.out / "jobs" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    outcomes: list[dict[str, Any]] = []
    latest = Standing(total=len(paths))

    with frame_progress(bar) as shown:
        task = shown.add_task(f"{site.name}: starting", total=None)

        def watch(standing: Standing) -> None:
            nonlocal latest
            latest = standing
            failed = f", {standing.failed} failed" if standing.failed else ""
            what = f"{site.name}: {standing.runs} of {standing.total} runs{failed}"
            shown.update(task, description=what, completed=standing.frames, total=standing.known or None)

        def tell(event: Event) -> None:
            if not quiet and event.kind not in ("submitted", "ended"):
                print_error(f"{site.name}: {event.text}")

        try:
            with (
                connect(site, workers=workers or None, logs=logs, notify=tell) as client,
                closing(reconstruct_many(map(full_name, paths), order, client, camera=camera, watch=watch)) as ended,
            ):
                for outcome in ended:
                    outcomes.append(described(outcome))
        except KeyboardInterrupt:
            progress = {"runs": latest.runs, "total": latest.total, "frames": latest.frames}
            outcomes.append({"status": "interrupted", "input": "", **progress})
    return outcomes


def described(outcome: Outcome) -> dict[str, Any]:
    """Summary of a result, or of why there is none."""
    if outcome.error is None:
        return {**(outcome.summary or {}), "resumed_frames": outcome.resumed}
    return failure(Path(outcome.path), outcome.camera, outcome.error)


def failure(path: Path, camera: str | None, error: BaseException) -> dict[str, Any]:
    """Describe why a run has no result."""
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
