"""Files and folders that appear whole or not at all, whatever kills the writer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

#: ``<name>.partial-<pid>-<random>``; the random part begins with :func:`_home`.
_PARTIAL = re.compile(r"\.partial-(?P<pid>\d+)-(?P<home>[0-9a-f]{6})[0-9a-f]{8}$")
_ABANDONED_S = 24 * 3600.0


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file that nobody ever sees half done.

    Parameters
    ----------
    path : path-like
        The file to make or to replace. Its folder is made if need be.

    Yields
    ------
    Path
        A name in the same folder, not existing yet: write there. When the block ends, the file is flushed to the
        disk and takes its name in one step; when it raises, the file is removed and an older `path` stays.

    Notes
    -----
    The temporary name does not end like `path`: a library that takes its format from the suffix must be told.
    """
    target = Path(path)
    with _partial_beside(target) as partial:
        yield partial
        flush(partial)
        partial.replace(target)
        flush(target.parent)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder that nobody ever sees half done.

    Parameters
    ----------
    path : path-like
        The folder to make or to replace.

    Yields
    ------
    Path
        A new, empty folder beside it: write there. When the block ends, everything in it is flushed to the disk and
        it takes its name; when it raises, it is removed.

    Notes
    -----
    A folder cannot be put in the place of another in one step, as a file can. An older one is moved aside first:
    between the two moves, microseconds, there is no `path`; its content is not lost if the process dies there, but lies
    under a ``.partial-`` name until the next writer.
    """
    target = Path(path)
    with _partial_beside(target) as partial:
        partial.mkdir()
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                flush(Path(folder, name))
            flush(Path(folder))
        aside = _partial_name(target)
        with contextlib.suppress(FileNotFoundError):
            target.rename(aside)
        partial.rename(target)
        flush(target.parent)
        _remove(aside)


def remove_leftovers(folder: str | os.PathLike[str], name: str | None = None) -> list[Path]:
    """Remove what killed writers left behind.

    Parameters
    ----------
    folder : path-like
        Where to look.
    name : str, optional
        Only the leftovers of this file or folder; of all by default.

    Returns
    -------
    list of Path
        What was removed. Something is a leftover when its name says that it is partial and its writer is dead: a
        process of this machine that does not exist any more, or one elsewhere that has not touched it for a day.
    """
    removed = []
    for entry in sorted(Path(folder).iterdir()):
        match = _PARTIAL.search(entry.name)
        if match is None or (name is not None and entry.name[: match.start()] != name):
            continue
        if match["home"] == _home():
            dead = not _is_running(int(match["pid"]))
        else:
            dead = time.time() - _last_touched(entry) > _ABANDONED_S
        if dead and _remove(entry):
            removed.append(entry)
    return removed


@contextlib.contextmanager
def _partial_beside(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent, target.name)
    partial = _partial_name(target)
    try:
        yield partial
    finally:
        _remove(partial)


def _partial_name(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial-{os.getpid()}-{_home()}{secrets.token_hex(4)}")


@cache
def _home() -> str:
    """Six hexadecimal digits of where this process's number is valid: machine, boot and process namespace.

    On a shared disk, or in a container, a process number says nothing about a writer elsewhere.
    """
    parts = [os.uname().nodename]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:6]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _last_touched(path: Path) -> float:
    latest = 0.0
    for entry in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with contextlib.suppress(OSError):  # its writer may be alive and finishing
            latest = max(latest, entry.lstat().st_mtime)
    return latest


def _remove(path: Path) -> bool:
    """Remove a file or a folder; False if it is not there or not ours to remove."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    try:
        path.unlink()
    except OSError:
        return False
    return True


def flush(path: Path) -> None:
    """Wait until a file, or the list of names of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
