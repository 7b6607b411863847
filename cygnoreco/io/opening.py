"""Open a raw run, whatever container it is in."""

from __future__ import annotations

import difflib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cygnoreco.errors import DataError, InputError, nearest
from cygnoreco.io.remote import file_url, public_url, url_of
from cygnoreco.io.source import Source

#: Containers by the end of the file's name.
SUFFIXES = {
    ".mid": "midas",
    ".mid.gz": "midas",
    ".mid.lz4": "midas",
    ".mid.bz2": "midas",
    ".root": "root",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".zarr": "zarr",
}

_MAGICS = {b"root": "root", b"\x89HDF\r\n\x1a\n": "hdf5"}


def open_source(
    path: str | os.PathLike[str],
    *,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Source:
    """Open a raw run.

    Parameters
    ----------
    path : path-like
        A MIDAS, ROOT or HDF5 file, or a Zarr folder. Its first bytes decide what it is, and its name only where
        they say nothing. Both may also be named by URL, ``s3://bucket/run.zarr``: a Zarr folder is read where it
        lies, and a file is fetched first (:func:`cygnoreco.io.fetch.fetched`), and kept at least as long as the run
        that is returned. Its ``path`` is then that of the local copy.
    shapes : mapping, optional
        (height, width) by the name of a camera, for sensors that cannot be told by their number of pixels.
    cache : path-like, optional
        Folder in which the index of a MIDAS file is kept for the next time.

    Returns
    -------
    Source
        The run. Nothing of its frames has been read yet.

    Raises
    ------
    InputError
        There is no such file, it is empty, or it is nothing that can be a run.
    DataError
        It is a run, but damaged beyond use.
    TransientError
        The store behind a URL does not answer.
    """
    url = _url_to_fetch(path)
    if url is not None:
        from cygnoreco.io.fetch import fetched, let_go

        local = fetched(url)
        try:
            source = open_source(local, shapes=shapes, cache=cache)
        except BaseException:
            let_go(local)
            raise
        weakref.finalize(source, let_go, local)
        return source
    path = Path(path)
    container = container_of(path)
    if container == "zarr":
        from cygnoreco.io.zarr_source import open_zarr

        return open_zarr(path)
    if container == "root":
        from cygnoreco.io.root_source import open_root

        return open_root(path, shapes=shapes)
    if container == "hdf5":
        from cygnoreco.io.hdf5_source import open_hdf5

        return open_hdf5(path, shapes=shapes)
    from cygnoreco.io.midas_source import open_midas

    return open_midas(path, shapes=shapes, cache=cache)


def settings_of(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read the settings at the begin of a run, secrets redacted, and of a MIDAS file nothing more.

    Opening a run may read a MIDAS file further; this looks at the first event only. Empty if there are no settings.

    Raises
    ------
    InputError, DataError
        As for :func:`open_source`.
    """
    if _url_to_fetch(path):
        from cygnoreco.io.fetch import borrowed

        with borrowed(path) as local:
            return settings_of(local)
    path = Path(path)
    if container_of(path) != "midas":
        return open_source(path).odb()
    from cygnoreco.io.midas import BEGIN_OF_RUN
    from cygnoreco.io.midas_events import iter_events
    from cygnoreco.io.odb import parse_odb, redact
    from cygnoreco.types import Fault

    first = next(iter_events(path), None)
    if first is None or isinstance(first, Fault) or first.fault or first.header.event_id != BEGIN_OF_RUN:
        return {}
    return redact(parse_odb(first.payload))


def container_of(path: str | os.PathLike[str]) -> str:
    """Tell the container of a run: ``midas``, ``root``, ``hdf5`` or ``zarr``.

    Raises
    ------
    InputError
        There is no such file, it is empty, or it is nothing that can be a run.
    DataError
        Its name promises a container that its content is not.
    """
    if _url_to_fetch(path):
        from cygnoreco.io.fetch import borrowed

        with borrowed(path) as local:
            return container_of(local)
    path = Path(path)
    if url_of(path):
        return "zarr"
    if not path.exists():
        raise InputError(f"{path}: no such file{_similar_name(path)}")
    if path.is_dir():
        return _kind_of_folder(path)
    try:
        with path.open("rb") as file:
            beginning = file.read(16)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not beginning:
        raise InputError(f"{path}: the file is empty")
    named = suffix_container(path)
    found = _kind_of_content(path, beginning)
    if found:
        return found
    if named == "midas":  # its events may begin anywhere, and a broken file is the reader's to report
        return named
    if named:
        raise DataError(f"{path}: called {named}, but does not begin like it ({beginning[:8]!r})")
    name = path.name.partition(".")
    raise InputError(f"{path}: no known kind of run{nearest(name[1] + name[2], SUFFIXES)}")


def _url_to_fetch(path: str | os.PathLike[str]) -> str | None:
    """URL of a file that must be fetched to be opened, if its name can be that of a run; None for everything else."""
    url = file_url(path)
    if url is not None:
        shown = public_url(url)
        name = Path(shown).name
        container = suffix_container(Path(name))
        if container == "zarr":
            raise InputError(f"{shown}: a Zarr store is many files, which a presigned URL does not open")
        if container is None:
            raise InputError(f"{shown}: no known kind of run{nearest(''.join(name.partition('.')[1:]), SUFFIXES)}")
    return url


def suffix_container(path: Path) -> str | None:
    """Container that the name of a file stands for, None if it says nothing."""
    name = path.name.lower()
    return next((container for suffix, container in SUFFIXES.items() if name.endswith(suffix)), None)


def _kind_of_content(path: Path, beginning: bytes) -> str | None:
    from cygnoreco.io.midas import BEGIN_OF_RUN, EVENT_HEADER, MIDAS_MAGIC
    from cygnoreco.io.streams import open_stream

    for magic, container in _MAGICS.items():
        if beginning.startswith(magic):
            return container
    with open_stream(path) as stream:
        header = bytes(stream.take(EVENT_HEADER.size))
    if len(header) == EVENT_HEADER.size and EVENT_HEADER.unpack(header)[:2] == (BEGIN_OF_RUN, MIDAS_MAGIC):
        return "midas"
    return None


def _kind_of_folder(path: Path) -> str:
    if (path / "zarr.json").is_file():
        return "zarr"
    if (path / ".zgroup").is_file() or (path / ".zarray").is_file():
        raise InputError(f"{path}: Zarr of format 2; a run is kept in format 3")
    if path.suffix == ".zarr":
        raise DataError(f"{path}: called Zarr, but has no zarr.json")
    inside = next((entry.name for entry in sorted(path.iterdir()) if suffix_container(entry)), None)
    hint = f"; did you mean '{path / inside}'?" if inside else ""
    raise InputError(f"{path}: a folder, not a run{hint}")


def _similar_name(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor a folder {path.parent}"
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"; did you mean '{path.with_name(close[0])}'?" if close else ""
