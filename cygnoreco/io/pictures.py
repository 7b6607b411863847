"""Pictures by name: what the ROOT and HDF5 files of the experiment have in common.

Each picture is an object of its own called ``pic_run<run>_ev<event>``, the numbers padded or not; nothing else in the
file has ``pic`` in its name. A picture is stored as ``[x][y]`` with x the column and y the row of the sensor.

Source: ``reconstruction.py`` and ``utilities.py`` of CYGNUS-RD/reconstruction.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError
from cygnoreco.io.stored import STORED_DTYPE
from cygnoreco.types import Camera, Fault, Frames

#: The camera of a file that knows only one.
CAMERA = "CAM0"
#: Twice the pixels of the largest sensor in sight: a picture that claims more is damaged, and is not given memory.
MAX_PIXELS = 2**26

_NUMBERS = re.compile(r"run([0-9]+)_ev([0-9]+)")


@dataclass(frozen=True)
class Picture:
    """One picture that was found in a file: its name, its numbers, its shape in the sensor's orientation."""

    name: str
    run: int
    event: int
    shape: tuple[int, int]


def picture_name(run: int, event: int) -> str:
    """Name of a picture, ``pic_run05001_ev3``."""
    return f"pic_run{run:05d}_ev{event}"


def picture_numbers(name: str) -> tuple[int, int] | None:
    """Run and event of a picture from its name, padded or not; None if the name does not tell them.

    Of several pairs the last one counts, as in the experiment's program, whose expression is greedy.
    """
    pairs = _NUMBERS.findall(name)
    if "pic" not in name or not pairs:
        return None
    run, event = (int(number) for number in pairs[-1])
    limit = np.iinfo(np.int32).max
    return (run, event) if run <= limit and event <= limit else None


def nameless(name: str) -> Fault:
    """Fault of an object that is called a picture and does not say which."""
    return Fault("picture-name", f"'{name}' is no pic_run<run>_ev<event>: left out")


def arrange(
    pictures: Iterable[Picture], shape: tuple[int, int] | None
) -> tuple[int, Camera | None, tuple[str, ...], NDArray[Any], list[Fault]]:
    """Put the pictures of a file in order and set those aside that do not belong to its run.

    Parameters
    ----------
    pictures : iterable of Picture
        In any order.
    shape : tuple of int or None
        (height, width) expected; by default the most frequent one.

    Returns
    -------
    run : int
        The most frequent run number; 0 without pictures.
    camera : Camera or None
        None if no picture is left.
    names : tuple of str
        Of the pictures, by event number.
    table : ndarray
        Rows of ``STORED_DTYPE``, one a picture.
    faults : list of Fault
        One for each picture that was set aside: of another run, of another shape, or a second one of an event.
    """
    found = sorted(pictures, key=lambda picture: (picture.event, picture.name))
    run = _most_frequent(picture.run for picture in found) or 0
    shape = shape or _most_frequent(picture.shape for picture in found if picture.run == run)
    kept: dict[int, Picture] = {}
    faults = []
    for picture in found:
        event = picture.event
        if picture.run != run:
            faults.append(Fault("other-run", f"'{picture.name}' is not of run {run}: left out"))
        elif picture.shape != shape:
            message = f"'{picture.name}' has {_size(picture.shape)} pixels instead of {_size(shape)}: left out"
            faults.append(Fault("camera-size", message, frame=event))
        elif event in kept:
            message = f"'{picture.name}' is event {event} like '{kept[event].name}': left out"
            faults.append(Fault("duplicate", message, frame=event))
        else:
            kept[event] = picture
    table = np.zeros(len(kept), STORED_DTYPE)
    table["event"] = list(kept)
    table["offset"] = -1
    camera = Camera(CAMERA, *shape) if kept and shape else None
    return run, camera, tuple(picture.name for picture in kept.values()), table, faults


def expected_shape(shapes: Mapping[str, tuple[int, int]] | None) -> tuple[int, int] | None:
    """Shape that the user gave for the only camera, if any."""
    return (shapes or {}).get(CAMERA)


def as_counts(values: NDArray[Any], out: Frames, what: str, where: Path) -> None:
    """Copy a picture into a frame of 16-bit counts.

    Parameters
    ----------
    values : ndarray
        (height, width), any number type.
    out : ndarray
        The frame to fill.
    what, where
        Name of the picture and its file, for the message.

    Raises
    ------
    DataError
        Its shape is not that of `out`, or a value is no whole number between 0 and 65535.
    """
    if values.shape != out.shape:
        raise DataError(f"{where}: '{what}' has {_size(values.shape)} pixels instead of {_size(out.shape)}")
    with np.errstate(invalid="ignore"):  # not-a-number is found by the comparison
        np.copyto(out, values, casting="unsafe")
    if not np.array_equal(out, values):
        wrong = values[out != values].flat[0]
        raise DataError(f"{where}: '{what}' holds {wrong}: no whole number between 0 and 65535")


def _most_frequent(values: Iterable[Any]) -> Any:
    """Return the most frequent value, the first one seen among equals; None without any."""
    ranking = Counter(values).most_common(1)
    return ranking[0][0] if ranking else None


def _size(shape: tuple[int, ...] | None) -> str:
    return " x ".join(str(side) for side in shape or ())
