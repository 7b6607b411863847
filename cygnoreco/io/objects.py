"""Files of a result in an object store: written whole, once, and checked."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cygnoreco.errors import TransientError
from cygnoreco.io.remote import filesystem_of, store_errors

#: Larger files are sent in pieces, of which the store gives no checksum that we could compare.
_WHOLE = 64 * 2**20
#: So many files are looked at one by one.
_FEW = 8


def put(source: Path, url: str) -> bool:
    """Send a file to a store, where it appears whole or not at all, if there is none of its name: the first one wins.

    Parameters
    ----------
    source : Path
        The file.
    url : str
        Its name in the store.

    Returns
    -------
    bool
        False if there was one already.

    Raises
    ------
    TransientError
        The store does not answer, or has another content than was sent.
    InputError
        It does not let us in.
    """
    with store_errors(url):
        filesystem, name = filesystem_of(url)
        content = source.read_bytes()
        try:
            filesystem.pipe_file(name, content, mode="create")
        except OSError:
            # Of a name that is taken, a store says FileExistsError or, by way of s3fs, anything.
            filesystem.invalidate_cache()
            if filesystem.exists(name):
                return False
            raise
        filesystem.invalidate_cache()
        _check(url, filesystem.info(name), content)
    return True


def put_all(files: Mapping[str, Path], url: str) -> None:
    """Send files to a folder of a store, many at once, in the place of what is there.

    Parameters
    ----------
    files : mapping
        Files by their names in the folder.
    url : str
        The folder.

    Raises
    ------
    TransientError, InputError
        As for :func:`put`.
    """
    with store_errors(url):
        filesystem, root = filesystem_of(url)
        small = {name: path.read_bytes() for name, path in files.items() if path.stat().st_size <= _WHOLE}
        filesystem.pipe({f"{root}/{name}": content for name, content in small.items()})
        for name in files.keys() - small.keys():
            filesystem.put_file(str(files[name]), f"{root}/{name}")
        filesystem.invalidate_cache()
        # A list is one request for a thousand files, but of a large folder it is many.
        few = len(files) <= _FEW
        there = {f"{root}/{name}": filesystem.info(f"{root}/{name}") for name in files} if few else None
        there = there or filesystem.find(root, detail=True)
        for name, path in files.items():
            _check(f"{url}/{name}", there.get(f"{root}/{name}", {}), small.get(name), path.stat().st_size)


def _check(url: str, info: Mapping[str, Any], content: bytes | None, size: int | None = None) -> None:
    """Compare what a store says of a file with what was sent; of large ones, in pieces, it has no checksum of ours."""
    size = len(content) if content is not None else size
    tag = str(info.get("ETag", "")).strip('"')
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() if content is not None else ""
    other = len(tag) == len(md5) and tag != md5  # a tag of another form is no checksum
    if info.get("size") != size or other:
        raise TransientError(
            f"{url}: the store has {info.get('size', 'none')} of {size} bytes that were sent, or others"
        )


def get(url: str, target: Path) -> None:
    """Fetch a file; DataError if it is not there."""
    with store_errors(url):
        filesystem, name = filesystem_of(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(name, str(target))


def names(url: str) -> dict[str, int]:
    """Sizes of all files below a URL, by their names from there; none if there is nothing."""
    with store_errors(url):
        filesystem, root = filesystem_of(url)
        filesystem.invalidate_cache()
        found = filesystem.find(root, detail=True)
    return {name.removeprefix(root).lstrip("/"): int(each["size"]) for name, each in sorted(found.items())}


def remove(files: Iterable[str], url: str) -> None:
    """Remove files of a folder, named from there; it is no matter if some are gone."""
    with store_errors(url):
        filesystem, root = filesystem_of(url)
        for name in files:
            with suppress(FileNotFoundError):
                filesystem.rm_file(f"{root}/{name}")


@contextmanager
def staging() -> Iterator[Path]:
    """Give a folder on this machine where files wait to be sent."""
    with tempfile.TemporaryDirectory(prefix="cygnoreco-") as folder:
        yield Path(folder)
