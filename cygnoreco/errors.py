"""The exception tree: who can mend the fault decides the class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CygnoError(Exception):
    """Base of every error that cygnoreco raises on purpose."""


class InputError(CygnoError, ValueError):
    """The user can mend it: the message says what, where, what was expected and the nearest valid choice."""


class DataError(CygnoError):
    """A file or an event is bad: it is set aside, counted and reported, and the work goes on.

    Parameters
    ----------
    message : str
        What was found and what was expected.
    event : int, optional
        Position of the event in its file, counted from 0.
    offset : int, optional
        Byte offset in the (inflated) stream.
    """

    def __init__(self, message: str, *, event: int | None = None, offset: int | None = None) -> None:
        where = ", ".join(
            f"{what} {value}" for what, value in (("event", event), ("byte", offset)) if value is not None
        )
        super().__init__(f"{message} ({where})" if where else message)
        self.event = event
        self.offset = offset


class TransientError(CygnoError):
    """It may work if tried again: a busy disk, a lost connection."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which valid name comes closest, for the end of an error message.

    Parameters
    ----------
    name : str
        What the user wrote.
    valid : iterable of str
        What would have been right.

    Returns
    -------
    str
        ``"; did you mean 'x'?"``, or the list of valid names when none is close.
    """
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; valid: {', '.join(choices)}"
