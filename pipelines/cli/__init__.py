"""The command line: ``cygnoreco``.

Exit codes: 0 all good; 1 a bug; 2 wrong usage or input; 3 done, but with bad events or bad runs; 4 a passing fault, try
again; 130 interrupted, the same command goes on where it stopped.

Results go to standard output, everything else that is said to standard error.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from types import FrameType

GOOD, BUG, INPUT, BAD_DATA, TRANSIENT, INTERRUPTED = 0, 1, 2, 3, 4, 130

_RESUMABLE = "interrupted; what was committed is kept, and the same command goes on from there"
_SHOW_CURSOR = "\x1b[?25h"
#: Closing the workers takes a second or two.
_PATIENCE_S = 5.0
#: After how long an interrupt that came at a bad moment is tried again.
_AGAIN_S = 0.01
#: New objects after which Python looks for garbage, by itself 700. A command that starts makes hundreds of thousands of
#: objects that stay; going through them again and again takes a third of a second.
_COLLECT_AFTER = 50_000
#: Python's own modules that lock in Python; besides ``concurrent.futures``.
_WITH_LOCKS = ("threading", "queue", "importlib", "logging", "asyncio", "weakref")


class Interrupted(Exception):
    """A command was interrupted and has tidied up; the message says how far it came."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        By default those of the process.
    """
    _on_interrupt(_interrupt)
    gc.set_threshold(_COLLECT_AFTER)
    try:
        code = run(arguments)
        _ignore_interrupts()
    except KeyboardInterrupt:  # so early that nothing had begun, or so late that everything was done
        _ignore_interrupts()
        _say(_RESUMABLE)
        code = INTERRUPTED
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run a command and turn its outcome into an exit code; errors of ours become one line, bugs keep their traceback.

    Parameters
    ----------
    arguments : list of str, optional
        By default those of the process.
    """
    from typer import Abort, BadParameter

    from cygnoreco.errors import DataError, InputError, TransientError
    from pipelines.cli.app import app

    # Click's base class; Typer brings a Click of its own or uses the installed one, by its version.
    usage_error: type[Exception] = next(each for each in BadParameter.__mro__ if each.__name__ == "ClickException")
    try:
        code = app(arguments, standalone_mode=False, prog_name="cygnoreco")
        if code == INTERRUPTED:  # Typer's own answer to KeyboardInterrupt
            _say(_RESUMABLE)
    except usage_error as error:
        error.show()  # type: ignore[attr-defined]
        return INPUT
    except (Abort, KeyboardInterrupt):
        _say(_RESUMABLE)
        return INTERRUPTED
    except Interrupted as error:
        _say(str(error))
        return INTERRUPTED
    except InputError as error:
        _say(f"error: {error}")
        return INPUT
    except DataError as error:
        _say(f"bad data: {error}")
        return BAD_DATA
    except (TransientError, BlockingIOError, ConnectionError, TimeoutError) as error:
        _say(f"it may work if tried again: {error}")
        return TRANSIENT
    except OSError as error:
        _say(f"error: {error}")
        return INPUT
    return code if isinstance(code, int) else GOOD


def _on_interrupt(handler: signal._HANDLER) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """First interrupt: unwind, closing workers and files on the way.

    More of them are passed over at first: terminals and wrappers like to send the same one twice. Should the way out
    take long, the next one ends it: what is on the disk is whole or has a temporary name, and workers leave by
    themselves when the driver is gone.
    """
    first = time.monotonic()
    unwinding: float | None = None
    before: tuple[FrameType | None, int] | None = None

    def leave_at_once(number: int, frame: FrameType | None) -> None:
        if unwinding is not None and time.monotonic() - unwinding > _PATIENCE_S:
            _say((_SHOW_CURSOR if sys.stderr.isatty() else "") + _RESUMABLE)
            sys.stderr.flush()
            os._exit(INTERRUPTED)

    def unwind(number: int, frame: FrameType | None) -> None:
        nonlocal before, unwinding
        here = (frame, frame.f_lasti if frame else 0)
        # Better a moment later than in the middle of a lock. Who is where he was a moment ago waits for one, and a wait
        # can be interrupted: what it waits for is not his.
        if _holds_locks(frame) and here != before and time.monotonic() - first < _PATIENCE_S:
            before = here
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            unwinding = time.monotonic()
            raise KeyboardInterrupt

    _on_interrupt(leave_at_once)
    signal.signal(signal.SIGALRM, unwind)
    unwind(number, frame)


def _ignore_interrupts() -> None:
    """Everything is said and done."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    _on_interrupt(signal.SIG_IGN)


def _holds_locks(frame: FrameType | None) -> bool:
    """Whether a frame, or one of its callers, is of a module of Python's own that has locks written in Python.

    An exception from nowhere that arrives between the locking of a lock and the block that will unlock it leaves it
    locked: the next thread that wants it, one that reports a finished block say, waits for ever, and we for it.
    """
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.split(".")[0] in _WITH_LOCKS or name.startswith("concurrent.futures"):
            return True
        frame = frame.f_back
    return False


def _say(text: str) -> None:
    print(text, file=sys.stderr)
