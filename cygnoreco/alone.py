"""A block of which workers have died, frame by frame in processes of their own: only the one to blame is set aside.

Dask blames every task that a dead worker had at hand, the innocent ones as well. A process of which a single frame is
asked leaves no doubt, and its end is no harm to the worker.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from cygnoreco.errors import CygnoError
from cygnoreco.graph import Work, commit, commit_block
from cygnoreco.io.parts import Receipt, part_path, receipt_of
from cygnoreco.io.remote import url_of
from cygnoreco.raw import open_run
from cygnoreco.tables import empty_tables
from cygnoreco.types import Fault


def commit_alone(work: Work, start: int, stop: int) -> list[Receipt]:
    """Commit frames one by one, each by a process of its own; a task of a worker.

    Parameters
    ----------
    work : Work
        What is done with them.
    start, stop : int
        The frames.

    Returns
    -------
    list of Receipt
        One a frame. That of a frame whose process died says so in its faults, and the event is missing in the result.

    Raises
    ------
    RuntimeError
        A process ended with an error, as it would have in the worker; what it said.
    """
    return [_there(work, frame) or _commit(work, frame) for frame in range(start, stop)]


def _there(work: Work, frame: int) -> Receipt | None:
    """Receipt of a frame that an earlier trial has committed; in a store, the first part of a name stays anyway."""
    path = part_path(Path(work.folder), frame, frame + 1)
    try:
        return None if url_of(work.folder) else receipt_of(path, frame, frame + 1)
    except (FileNotFoundError, ValueError):
        return None


def _commit(work: Work, frame: int) -> Receipt:
    done = subprocess.run(
        [sys.executable, "-m", "cygnoreco.alone"], input=pickle.dumps((work, frame)), capture_output=True
    )
    if done.returncode == 0:
        found = pickle.loads(done.stdout)  # what our own process wrote
        if isinstance(found, CygnoError):
            raise found
        return found
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    if 0 < done.returncode < _BY_SIGNAL:
        raise RuntimeError(f"frame {frame}: {said[0] if said else f'exit code {done.returncode}'}")
    return quarantine(work, frame, f"the process that reconstructed it died (exit code {done.returncode})")


#: Exit codes above it, and negative ones, are those of processes that were killed.
_BY_SIGNAL = 128


def quarantine(work: Work, frame: int, reason: str) -> Receipt:
    """Commit a part that says why a frame is not done.

    The event is missing in the result, and its fault is listed there.
    """
    if there := _there(work, frame):
        return there
    table = open_run(work.ref.path, shapes=dict(work.ref.shapes)).table(work.ref.camera.name)
    fault = Fault("quarantined", reason, frame=int(table["event"][frame]))
    return commit(work, frame, frame + 1, empty_tables(), seconds={}, size=0, faults=(fault,))


if __name__ == "__main__":
    _work, _frame = pickle.load(sys.stdin.buffer)
    _found: Receipt | CygnoError
    try:
        _found = commit_block(_work, _frame, _frame + 1)
    except CygnoError as error:
        _found = error
    sys.stdout.buffer.write(pickle.dumps(_found))
