"""What the job of a campaign does: the campaign, as from outside, with its files in the place of a terminal."""

from __future__ import annotations

import socket
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusters.inside import AGAIN, seen_from_inside
from cygnoreco.campaign import Standing
from cygnoreco.errors import InputError
from pipelines.cli import GOOD
from pipelines.cli.on_site import campaign
from pipelines.cli.record import (
    Request,
    append_outcome,
    is_over,
    locked,
    read_request,
    read_standing,
    write_standing,
)

if TYPE_CHECKING:
    from distributed import Client

#: Seconds between two tellings, and between two looks for the file that says to stop.
_SECOND = 1.0
#: Seconds before the end of the wall time at which the job asks to be started again, at most; of short jobs a tenth.
_LEAVING = 600.0


class _Leave(Exception):
    """The campaign is to end here; the argument is its state then."""


def run_inside(folder: Path) -> int:
    """Do a campaign that was asked for; the exit code says whether it is over or to be started again.

    Parameters
    ----------
    folder : Path
        Of the campaign.
    """
    begin = time.monotonic()
    try:
        request = read_request(folder)
    except InputError as error:  # of another version, say
        write_standing(folder, {"state": "failed", **vars(Standing()), "error": f"{socket.gethostname()}: {error}"})
        return GOOD
    while True:
        with locked(folder / "lock") as mine:
            if mine:
                return _run(folder, request, begin)
        # Another one is at work on it, which the pool believed dead. Should it be so, we are there.
        time.sleep(_SECOND)


def _run(folder: Path, request: Request, begin: float) -> int:
    if is_over(read_standing(folder)):
        return GOOD
    record = _Record(folder, request, begin)
    try:
        record.tell("starting")
        record.look()
        _check_version(request)
        site = seen_from_inside(request.site)
        done = campaign(
            request.runs, request.order, request.camera, site, request.workers, watch=record.watch, begun=record.begun
        )
        with closing(done):
            for outcome in done:
                append_outcome(folder, outcome)
        record.tell("ended")
    except _Leave as leave:
        record.tell(str(leave))
        return AGAIN if str(leave) == "again" else GOOD
    except InputError as error:  # which another start would not mend
        record.tell("failed", error=str(error))
    except KeyboardInterrupt:
        record.tell("interrupted")
        raise
    except Exception:
        record.tell("interrupted")
        with (folder / "crashes.log").open("a") as file:  # the pool writes the job's own log anew with every start
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}\n{traceback.format_exc()}\n")
        raise
    return GOOD


def _check_version(request: Request) -> None:
    from importlib.metadata import version

    if version("cygnoreco") != request.version:
        raise InputError(
            f"cygnoreco is {version('cygnoreco')} on {socket.gethostname()}: expected {request.version}, by which the "
            f"campaign was asked for; install that where jobs run, or name it in `job.python` or `job.container`"
        )


class _Record:
    """Tells in files how far the campaign is, and looks whether it is to end."""

    def __init__(self, folder: Path, request: Request, begin: float) -> None:
        wall = request.site.job.wall_time
        self._folder = folder
        self._end = begin + wall - min(_LEAVING, wall / 10)
        self._told = 0.0
        self._facts: dict[str, Any] = {
            "host": socket.gethostname(), "starts": read_standing(folder).get("starts", 0) + 1, "begun": time.time(),
        }  # fmt: skip
        self._standing = Standing(total=len(request.runs))

    def begun(self, client: Client, logs: Path) -> None:
        """Note the tag of the workers' jobs, by which they can be removed, and where their logs are."""
        self._facts |= {"tag": getattr(client.cluster, "tag", None), "logs": str(logs)}
        self.tell("running")

    def watch(self, standing: Standing) -> None:
        """Tell once a second how far it is; raise if the campaign is to end."""
        self._standing = standing
        if time.monotonic() - self._told >= _SECOND:
            self.tell("running")
            self.look()

    def look(self) -> None:
        """Raise if the campaign is to end."""
        if (self._folder / "stop").exists():
            raise _Leave("stopped")
        if time.monotonic() > self._end:
            raise _Leave("again")

    def tell(self, state: str, **more: Any) -> None:
        """Write the file."""
        self._told = time.monotonic()
        write_standing(self._folder, {"state": state, **self._facts, **vars(self._standing), **more})
