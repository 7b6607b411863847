"""The two kinds of calibration files: ours (NumPy archives) and the experiment's (ROOT histograms)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import InputError
from cygnoreco.io.archive import load_arrays
from cygnoreco.io.atomic import atomic_write


def write_archive(path: str | Path, kind: str, **arrays: Any) -> None:
    """Write a NumPy archive, atomically; the same arrays always give the same bytes.

    Parameters
    ----------
    path : path-like
        The file.
    kind : str
        What it holds, with a version number: a reader must ask for the same.
    **arrays
        Arrays and scalars. They are stored as they are: noise does not compress, and loading is as fast as the disk.
    """
    with atomic_write(path) as partial, partial.open("wb") as stream:
        np.savez(stream, kind=np.array(kind), **arrays)


def read_archive(path: Path, kind: str) -> dict[str, NDArray[Any]]:
    """Read what :func:`write_archive` wrote.

    Raises
    ------
    InputError
        No such file, damaged, or another kind.
    """
    require_file(path)
    if not zipfile.is_zipfile(path):
        raise InputError(f"'{path}' is not a NumPy archive (.npz), or is cut short; expected '{kind}'")
    try:
        arrays = load_arrays(path)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"'{path}' is a damaged NumPy archive: {error}") from error
    found = str(arrays.pop("kind", ""))
    if found != kind:
        raise InputError(f"'{path}' holds '{found or 'something else'}', expected '{kind}'")
    return arrays


@contextmanager
def histograms(path: Path) -> Iterator[Any]:
    """Open a ROOT file for reading.

    Raises
    ------
    InputError
        No such file, not a ROOT file, or damaged.
    """
    import uproot  # imported late: half a second that who only lists recipes need not wait for

    require_file(path)
    try:
        with uproot.open(path) as file:
            yield file
    except InputError:
        raise
    except (ValueError, EOFError, OSError, zlib.error, uproot.DeserializationError) as error:
        raise InputError(f"'{path}' cannot be read as a ROOT file: {error}") from error


def two_dimensional(file: Any, path: Path, *names: str) -> Any:
    """First of the named TH2 histograms that a ROOT file has.

    Raises
    ------
    InputError
        None of them; says which histograms are there.
    """
    there = {name: kind for name, kind in file.classnames(cycle=False).items() if kind.startswith("TH2")}
    for name in names:
        if name in there:
            return file[name]
    wanted = " or ".join(f"'{name}'" for name in names)
    raise InputError(f"no TH2 histogram {wanted} in '{path}'; there: {', '.join(sorted(there)) or 'none'}")


def contents(histogram: Any) -> NDArray[np.float64]:
    """Bin contents as an image: x is the column, y the row."""
    return np.ascontiguousarray(histogram.values().T, np.float64)


def require_file(path: Path) -> None:
    """Raise InputError if there is no such file."""
    if not path.is_file():
        raise InputError(f"no file '{path}'")
