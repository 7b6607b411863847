"""A campaign inside a pool, from outside: ask for it, follow it, have it stopped.

What is shown comes from the files of the campaign (:mod:`pipelines.cli.record`), and the state of its job from the
schedd. Whoever follows may be killed at any moment: the campaign goes on, and the next one who follows sees the same.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clusters.inside import SILENT, Decision, DriverJob, Memory, Seen, decide, failed
from clusters.schedd import PoolError
from clusters.site import Site
from cygnoreco.campaign import Order
from cygnoreco.errors import InputError, TransientError
from cygnoreco.io.remote import url_of
from pipelines.cli.console import ERR, frame_progress, print_error
from pipelines.cli.on_site import UNTOLD, absolute, full_names, show_standing
from pipelines.cli.record import (
    Request,
    is_over,
    locked,
    read_outcomes,
    read_request,
    read_standing,
    request_of,
    write_request,
    write_standing,
)

#: Seconds between two looks at the files, and for a job to leave the queue when its campaign is over.
_GLANCE, _LEAVING = 0.5, 10.0


def on_pool(
    paths: Sequence[Path], order: Order, camera: str | None, site: Site, workers: int, *, bar: bool, quiet: bool
) -> list[dict[str, Any]]:
    """Reconstruct runs on a site whose pool runs the campaign as well; as :func:`pipelines.cli.on_site.on_site`.

    A campaign that was asked for before and is not over is followed, not begun again.
    """
    if url_of(order.out):
        raise InputError(f"{order.out}: a scheduler in the pool is followed by files: expected --out to be a folder")
    request = request_of(full_names(paths), absolute(order), camera, site, workers)
    begin(request, quiet=quiet)
    return follow(request.folder, bar=bar, quiet=quiet)


def begin(request: Request, *, quiet: bool = False) -> None:
    """Have the files of a campaign there: of one that goes on, of one that has made all that is asked for, or new ones.

    Raises
    ------
    TransientError
        Another process does the same; or the pool does not answer.
    """
    folder = request.folder
    with _alone(folder, request.site):
        standing = read_standing(folder)
        if not (folder / "request.json").exists():
            write_request(request)
        elif not is_over(standing):
            before = read_request(folder)
            if before.how != request.how and not quiet:
                names = [name for name, value in request.how.items() if before.how[name] != value]
                _say(f"campaign {request.id} goes on as it was begun, with its {', '.join(names)}")
            _take_away_held(before)
        elif request.order.force or not _is_done(folder, standing):
            job_of(request).remove("the campaign is begun again")
            write_request(request)


def follow(folder: Path, *, bar: bool, quiet: bool) -> list[dict[str, Any]]:
    """Follow a campaign to its end, and say what became of its runs; keep its job in the queue until then.

    Parameters
    ----------
    folder : Path
        Of the campaign.
    bar : bool
        Show a progress bar.
    quiet : bool
        Do not tell of the campaign, nor of lost jobs.

    Raises
    ------
    InputError
        The campaign cannot be done.
    clusters.schedd.PoolError
        There is no hope that its job goes on: with the reason, and the last lines of its log.
    """
    request = read_request(folder)
    site, out, name = request.site, request.order.out, folder.name
    if not (quiet or is_over(read_standing(folder))):
        _say(f"campaign {name} runs in the pool; `cygnoreco campaign follow {out} {name}` follows it from anywhere")
    try:
        with frame_progress(bar) as shown:
            task = shown.add_task(f"{site.name}: starting", total=None)
            told = _Told(site, quiet)
            for standing, text in _glances(request, folder, quiet):
                if standing:
                    show_standing(shown, task, site, standing)
                    told.of(standing)
                else:
                    shown.update(task, description=f"{site.name}: {text}")
    except KeyboardInterrupt:
        how = (
            f"not followed any more, but campaign {name} goes on; `cygnoreco campaign follow {out} {name}` or the same "
            f"command follows it, `cygnoreco campaign stop {out} {name}` stops it"
        )
        return [*read_outcomes(folder), _interrupted(read_standing(folder), request, how)]
    standing = read_standing(folder)
    if standing["state"] == "failed":
        raise InputError(f"campaign {name}: {standing['error']}")
    outcomes = read_outcomes(folder)
    if standing["state"] == "stopped":
        how = (
            f"campaign {name} was stopped: {standing['runs']} of {standing['total']} runs have ended, "
            f"{standing['frames']} frames are committed; the same command of `cygnoreco reco` goes on from there"
        )
        outcomes.append(_interrupted(standing, request, how))
    return outcomes


def stop(folder: Path) -> dict[str, Any]:
    """Have a campaign end, keep what is committed, and leave no job; return how far it came.

    Raises
    ------
    clusters.schedd.PoolError
        The pool does not answer; the campaign ends all the same, if its job sees the file system.
    """
    request = read_request(folder)
    job = job_of(request)
    over = is_over(read_standing(folder))
    (folder / "stop").touch()
    try:
        state = job.look()
        if state is not None and state.state == "running" and not over:
            _wait_for(lambda: is_over(read_standing(folder)), request.site.limits.close)
        tag = read_standing(folder).get("tag")  # of workers whose driver did not close them
        job.remove("the campaign is stopped", *([tag] if tag else []))
    except PoolError as error:
        raise PoolError(f"{error}; the campaign ends by itself as soon as its job sees '{folder / 'stop'}'") from None
    standing = read_standing(folder)
    if not is_over(standing):  # nobody was there to say so
        empty = {"runs": 0, "total": len(request.runs), "failed": 0, "frames": 0, "known": 0}
        write_standing(folder, {**empty, **standing, "state": "stopped"})
    return read_standing(folder)


def job_of(request: Request) -> DriverJob:
    """Job of a campaign."""
    module = ("pipelines.cli", "campaign", "run", str(request.folder))
    return DriverJob(request.site, request.folder.name, request.folder, module)


def _glances(request: Request, folder: Path, quiet: bool) -> Iterator[tuple[dict[str, Any], str]]:
    """Look at files and queue until the campaign is over: how far it is, and what its job does."""
    job, limits = job_of(request), request.site.limits
    memory, text, looked, alive = Memory(), "starting", 0.0, 0.0
    last: object = None
    while True:
        standing = read_standing(folder)
        now = time.monotonic()
        if standing.get("time") != last:  # not by its time: the clocks of two machines differ
            last, alive = standing.get("time"), now
        yield standing, text
        if is_over(standing):
            break
        if not looked or now - looked >= limits.interval:
            looked = now
            seen = _seen(job, memory, now, alive=bool(standing) and now - alive < SILENT)
            if is_over(read_standing(folder)):  # and so its job was gone
                continue
            decision = decide(memory, seen, limits)
            memory, text = _acted(decision, job, request, folder, quiet), decision.text
        time.sleep(_GLANCE)
    with contextlib.suppress(PoolError):
        _wait_for(lambda: job.look() is None, _LEAVING)


def _seen(job: DriverJob, memory: Memory, now: float, *, alive: bool) -> Seen:
    try:
        found = job.look()
    except PoolError as error:
        return Seen(now, silent=str(error), alive=alive)
    return Seen(now, found, alive=alive, end=job.end() if found is None and memory.known else "")


def _acted(decision: Decision, job: DriverJob, request: Request, folder: Path, quiet: bool) -> Memory:
    """Do what was decided."""
    site = request.site
    if decision.act == "submit":
        try:
            with _alone(folder, site):
                if job.look() is None:  # nobody else who follows was quicker
                    job.submit()
        except PoolError as error:
            return failed(decision.memory, str(error), time.monotonic(), site.limits)
    elif decision.act == "lost" and not quiet:
        print_error(f"{site.name}: {decision.text}; it is submitted again")
    elif decision.act == "give up":
        text = f"{site.name}: {decision.text}{job.log()}\nlogs: {folder}"
        if decision.memory.away is None:
            with contextlib.suppress(PoolError):
                job.remove("there is no hope for it")
        raise PoolError(f"{text}\nwhat is committed is kept; the same command submits it again")
    return decision.memory


def _take_away_held(request: Request) -> None:
    """Whoever asks again wants another try."""
    job = job_of(request)
    with contextlib.suppress(PoolError):  # who follows will see
        found = job.look()
        if found is not None and found.state == "held":
            job.remove("another one takes its place")


def _is_done(folder: Path, standing: Mapping[str, Any]) -> bool:
    """Whether a campaign that is over has left all that was asked for, and it is still there."""
    outcomes = read_outcomes(folder)
    there = all(each["status"] != "failed" and _is_there(each) for each in outcomes)
    return standing["state"] == "ended" and bool(outcomes) and there


def _is_there(outcome: Mapping[str, Any]) -> bool:
    """Whether a result has not been taken away since, nor its official name been given to that of another recipe."""
    official = Path(outcome["output"])
    with contextlib.suppress(OSError):
        return official.samefile(Path(outcome["dataset"], "result", official.name))
    return False


@contextlib.contextmanager
def _alone(folder: Path, site: Site) -> Iterator[None]:
    """Let no two processes of this machine begin or submit a campaign at once."""
    end = time.monotonic() + 2 * site.limits.request
    while True:
        with locked(folder / "submit.lock") as mine:
            if mine:
                yield
                return
        if time.monotonic() > end:
            raise TransientError(f"another process has been submitting campaign {folder.name} for too long")
        time.sleep(_GLANCE)


def _wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(_GLANCE)


def _interrupted(standing: Mapping[str, Any], request: Request, how: str) -> dict[str, Any]:
    facts = {"runs": 0, "total": len(request.runs), "frames": 0}
    progress = {name: standing.get(name, value) for name, value in facts.items()}
    return {"status": "interrupted", "input": "", "campaign": request.folder.name, **progress, "how": how}


class _Told:
    """Tells what happens to the jobs of the workers, once."""

    def __init__(self, site: Site, quiet: bool) -> None:
        self._site = site
        self._quiet = quiet
        self._read: dict[str, int] = {}

    def of(self, standing: Mapping[str, Any]) -> None:
        """Read what is new in the file of events."""
        logs = standing.get("logs")
        if self._quiet or not logs:
            return
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = Path(logs, "events.jsonl").read_text().split("\n")[:-1]
        for line in lines[self._read.get(logs, 0) :]:
            event = json.loads(line)
            if event["kind"] not in UNTOLD:
                print_error(f"{self._site.name}: {event['text']}")
        self._read[logs] = len(lines)


def _say(text: str) -> None:
    ERR.print(text, markup=False, soft_wrap=True)
