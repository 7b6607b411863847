"""The command line: ``cygnoreco``.

Exit codes: 0 all good; 1 a bug; 2 wrong usage or input; 3 done, but with bad events or bad runs; 4 a passing fault, try
again; 130 interrupted, the same command goes on where it stopped.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

GOOD, BUG, INPUT, BAD_DATA, TRANSIENT, INTERRUPTED = 0, 1, 2, 3, 4, 130


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        By default those of the process.
    """
    from pipelines.cli.app import app

    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(lambda: app(arguments, standalone_mode=False, prog_name="cygnoreco")))


def run(command: object) -> int:
    """Call a command and turn its outcome into an exit code; errors of ours become one line, bugs keep their traceback.

    Parameters
    ----------
    command : callable
        Takes nothing; returns an exit code or None.
    """
    import click

    from cygnoreco.errors import DataError, InputError, TransientError

    try:
        code = command()  # type: ignore[operator]
    except click.ClickException as error:
        error.show()
        return INPUT
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; what was committed is kept, and the same command goes on from there")
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


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr)
