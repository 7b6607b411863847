"""Runs by URL: which names are URLs, and byte ranges of files behind them, read like those of a local disk.

Everywhere in the project the name of a run is a :class:`~pathlib.Path`. It carries a URL as well, except that it folds
the two slashes after the scheme into one: ``Path("s3://bucket/run.zarr")`` says ``s3:/bucket/run.zarr``. :func:`url_of`
unfolds them. Keys, end points and the like are taken from where s3fs and fsspec look for them: the environment
(``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID`` ...) and their configuration files.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError, TransientError
from cygnoreco.kernels.scratch import aligned_empty

_free = threading.local()

_URL = re.compile(r"^([a-z][a-z0-9+.-]+):/+(.+)$")


def url_of(path: str | os.PathLike[str]) -> str | None:
    """URL that a path stands for; None for a local one."""
    match = _URL.match(os.fspath(path))
    return f"{match[1]}://{match[2]}" if match else None


def public_url(url: str) -> str:
    """URL as it may be shown and kept: without a password, and for HTTP without a query, which may be a signature."""
    scheme, _, rest = url.partition("://")
    if scheme in ("http", "https"):
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https") or ":" in host.rpartition("@")[0]:
        host = host.rpartition("@")[2]
    return f"{scheme}://{host}{slash}{path}"


def shown_path(path: Path) -> Path:
    """Path as it may be shown: of a URL what :func:`public_url` leaves."""
    url = url_of(path)
    return path if url is None else Path(public_url(url))


def file_url(path: str | os.PathLike[str]) -> str | None:
    """URL of what must be fetched to be read; None for local paths, and for Zarr stores, read where they lie."""
    url = url_of(path)
    return None if url is None or url.rstrip("/").lower().endswith(".zarr") else url


def full_name(path: Path) -> str:
    """Name by which another process in another folder finds the same file: the URL, or the absolute path."""
    return url_of(path) or str(path.resolve())


def read_range(folder: Path, name: str, start: int, size: int) -> NDArray[np.uint8]:
    """Read one part of a file, as :func:`read_ranges` does, into memory of its own."""
    return next(read_ranges(folder, name, [(start, size)])).copy()


def read_ranges(folder: Path, name: str, ranges: Sequence[tuple[int, int]]) -> Iterator[NDArray[np.uint8]]:
    """Read parts of a file: one after the other from a disk, in a single request from a remote store.

    Parameters
    ----------
    folder : Path
        Local folder, or what stands for the URL of one.
    name : str
        File in it, parts separated by slashes.
    ranges : sequence of (int, int)
        First byte (a single range may count from the end of the file, negative) and number of bytes of each part. By
        URL all between the first and the last of them is fetched.

    Yields
    ------
    ndarray
        (size,) uint8, valid until the next one, or the end, of this iterator: local parts share memory, small enough to
        stay in the cache. Iterators under way at the same time do not disturb each other.

    Raises
    ------
    DataError
        The file is not there, or ends before.
    InputError
        The store at the URL does not let us in.
    TransientError
        It does not answer.
    """
    url = url_of(folder)
    if url is not None:
        begin, end = min(start for start, _ in ranges), max(start + size for start, size in ranges)
        with store_errors(url):
            filesystem, root = filesystem_of(url)
            data = np.frombuffer(filesystem.cat_file(f"{root}/{name}", start=begin, end=end or None), np.uint8)
        if len(data) != end - begin:
            raise DataError(f"{url}/{name}: {len(data)} bytes instead of {end - begin} from byte {begin} on")
        yield from (data[start - begin : start - begin + size] for start, size in ranges)
        return
    try:
        largest = max((size for _, size in ranges), default=0)
        with (folder / name).open("rb", buffering=0) as file, _lent(largest) as memory:
            for start, size in ranges:
                part = memory[:size]
                file.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
                found = file.readinto(part.data)
                if found != size:
                    raise DataError(f"{folder / name}: {found} bytes instead of {size} from byte {start} on")
                yield part
    except OSError as error:
        raise DataError(f"{folder / name}: cannot be read ({error.strerror})") from None


@contextlib.contextmanager
def _lent(size: int) -> Iterator[NDArray[np.uint8]]:
    """Memory of the thread that is used again afterwards, but by nobody before: an iterator holds it between its steps.

    Plain :func:`~cygnoreco.kernels.scratch.scratch` would give two iterators of a thread the same.
    """
    free: list[NDArray[np.uint8]] = _free.__dict__.setdefault("memory", [])
    memory = free.pop() if free else np.empty(0, np.uint8)
    if memory.size < size:
        memory = aligned_empty((size,), np.uint8)
    try:
        yield memory
    finally:
        free.append(memory)


def file_sizes(folder: Path) -> dict[str, int]:
    """Size of every file in a folder, by its name from there; errors of a URL as for :func:`read_range`."""
    url = url_of(folder)
    if url is None:
        files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
        found = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    else:
        with store_errors(url):
            filesystem, root = filesystem_of(url)
            filesystem.invalidate_cache(root)
            details = filesystem.find(root, detail=True)
            found = {name.removeprefix(root).lstrip("/"): int(each["size"]) for name, each in details.items()}
    return dict(sorted(found.items()))


@contextlib.contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Say who can mend what goes wrong between us and the store at a URL."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{url}: a file of it is missing, or the bucket") from None
    except PermissionError as error:
        raise InputError(f"{url}: access refused ({error}); check the keys in the environment") from None
    except ImportError as error:
        raise InputError(f"{url}: a package is missing to read it ({error})") from None
    except Exception as error:
        # Every library of a store has its own errors; importing them all to name them would load them all.
        kind = type(error).__name__
        if kind in ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError"):
            raise InputError(f"{url}: access refused ({error}); check the keys in the environment") from None
        if isinstance(error, OSError | TimeoutError) or type(error).__module__.startswith(("botocore", "aiohttp")):
            raise TransientError(f"{url}: cannot be read now ({kind}: {error})") from None
        raise


def filesystem_of(url: str) -> tuple[Any, str]:
    """Filesystem of a URL (fsspec keeps it, and its connections, for the next time), and the path in it."""
    import fsspec.core

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except ValueError as error:
        raise InputError(f"{url}: no kind of URL that can be read ({error})") from None
    return filesystem, root.rstrip("/")
