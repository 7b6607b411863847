"""Files behind URLs: fetched once a machine, kept in a cache of limited size, and read from there.

::

    runs/                            user_cache_path("cygnoreco") / "runs"
        room.lock                    held while room is made for a file
        3f0c....lock                 held while that content is fetched or removed; its time says when it was last used
        3f0c..../run05001.mid.gz     the file, under its own name; locked, shared, by whoever uses it

A folder is named by what identifies the content: the URL, and what the store says of the version. So a file that is
replaced at its URL is another one here, and its index and its lineage are found again as those of a local file.
Every lock is the system's and goes with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cygnoreco.errors import DataError, InputError, TransientError
from cygnoreco.io.atomic import atomic_write, remove_leftovers
from cygnoreco.io.remote import file_url, filesystem_of, public_url, store_errors

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Bytes of a request to a store, and how many are under way at once: one alone seldom fills the line.
_PIECE, _AT_ONCE = 8 << 20, 4

#: Bytes taken at a time from an HTTP server: what is lost when it is cut off.
_SIP = 1 << 20

#: Seconds before each new attempt. An attempt that got further starts the list anew.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)

#: How often a file is begun anew that changed on the way, or is not what its checksum says.
_ANEW = 3

_HTTP_TIMEOUT_S = 60.0

#: Seconds between two looks at a lock that another one has. A wait inside the system could not be interrupted.
_LOOK_S = 0.1

_LIMIT = 50_000_000_000
_LIMIT_VARIABLE = "CYGNORECO_RUN_CACHE_GB"


class _Anew(Exception):
    """What was fetched is of no use, but the file may be there."""


@dataclass(frozen=True)
class _Remote:
    """A file at its URL, as it is now.

    Attributes
    ----------
    shown : str
        Its URL without secrets.
    size : int
        Bytes.
    version : str
        ETag, or else the time of change: another content has another one.
    changed : float or None
        Time of change, seconds since 1970.
    md5 : callable
        MD5 that the content must have; None where the store does not tell.
    read : callable
        Gives the bytes from a place on, to the end unless the connection ends before.
    """

    shown: str
    size: int
    version: str
    changed: float | None
    md5: Callable[[], str | None]
    read: Callable[[int], Generator[bytes]]

    @property
    def identity(self) -> str:
        return hashlib.sha256(f"{self.shown}|{self.version}|{self.size}".encode()).hexdigest()[:24]


def fetched(url: str, *, cache: Path | None = None, limit: int | None = None) -> Path:
    """Local copy of a file behind a URL.

    It is fetched once, however many threads and processes of the machine ask for it at once: the others wait for it.
    The copy cannot be removed to make room until :func:`let_go` is called as often as this, or the process ends.

    Parameters
    ----------
    url : str
        Of S3 or another store that fsspec knows, or ``https://``, which may be presigned: the query is no part of the
        file's identity, and is not shown.
    cache : Path, optional
        Folder of copies; by default ``runs`` in the user's cache folder.
    limit : int, optional
        Bytes that all copies together may take. By default the environment variable ``CYGNORECO_RUN_CACHE_GB`` says
        it, in units of 1e9 bytes; without it, it is 50e9, or half of what the disk has for them if that is less.
        Copies that were not used for longest are removed first.

    Returns
    -------
    Path
        The copy, under the file's own name. Bytes and, where the store tells one, checksum have been compared.

    Raises
    ------
    InputError
        There is no such file, the store does not let us in, or the file is larger than the limit.
    TransientError
        The store does not answer, cuts every attempt, or the file changes all the time; or the cache is full of copies
        that are in use.

    Notes
    -----
    What was fetched when the connection is cut is kept, and the rest asked for. What was fetched when this process
    is killed is not: the next one begins anew.
    """
    shown = public_url(url)
    if _file_name(shown) in ("", ".", ".."):
        raise InputError(f"{shown}: not the URL of a file")
    folder = cache if cache is not None else cache_folder()
    limit = _limit() if limit is None else limit
    reason = ""
    for _ in range(_ANEW):
        remote = _patiently(lambda: _look(url))
        try:
            return _kept(remote, folder, limit)
        except _Anew as error:
            reason = str(error)
            _LOG.warning("%s is fetched anew: %s", shown, reason)
        except OSError as error:
            message = f"{shown}: cannot be kept in {folder} ({error.strerror}); XDG_CACHE_HOME names another disk"
            raise InputError(message) from None
    raise TransientError(f"{shown}: fetched {_ANEW} times in vain; {reason}")


def let_go(path: Path) -> None:
    """Say that a copy that :func:`fetched` gave is not used any more; it stays until its room is needed."""
    with contextlib.suppress(KeyError, IndexError):
        os.close(_held[path].pop(0))  # not unlocked: a forked child may go on


@contextlib.contextmanager
def borrowed(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Local path of a run for the length of a ``with`` block: fetched if it is a file behind a URL, else as it is."""
    url = file_url(path)
    if url is None:
        yield Path(path)
        return
    local = fetched(url)
    try:
        yield local
    finally:
        let_go(local)


def cache_folder() -> Path:
    """Where fetched runs are kept: in the user's cache."""
    from platformdirs import user_cache_path

    return user_cache_path("cygnoreco") / "runs"


def _limit() -> int | None:
    text = os.environ.get(_LIMIT_VARIABLE)
    if text is None:
        return None
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise InputError(f"{_LIMIT_VARIABLE}='{text}': a number of units of 1e9 bytes is expected, like 200") from None


def _kept(remote: _Remote, folder: Path, limit: int | None) -> Path:
    """Copy of this version of the file, held: the one that is there, or a new one."""
    path = folder / remote.identity / _file_name(remote.shown)
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / f"{remote.identity}.lock"
    with _locked(lock):
        if not path.is_file() or path.stat().st_size != remote.size:  # somebody else's hand
            _LOG.info("fetching %s, %s", remote.shown, _gb(remote.size))
            try:
                with atomic_write(path) as partial:
                    _reserve(partial, remote, folder, limit)
                    _download(remote, partial)
                    if remote.changed is not None:  # then an index of an earlier copy is that of this one as well
                        os.utime(partial, (time.time(), remote.changed))
            except BaseException:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
                raise
        os.utime(lock)
        _hold(path)
    return path


def _download(remote: _Remote, partial: Path) -> None:
    checksum = hashlib.md5(usedforsecurity=False)
    position, failures = 0, 0
    with partial.open("r+b") as file:
        while position < remote.size:
            try:
                with contextlib.closing(remote.read(position)) as pieces:
                    for data in pieces:
                        file.write(data)
                        checksum.update(data)
                        position += len(data)
                        failures = 0
                if position < remote.size:
                    raise TransientError(f"{remote.shown}: the connection ended early")
            except TransientError as error:
                if failures == len(_PAUSES):
                    raise TransientError(
                        f"{remote.shown}: {position} of {remote.size} bytes fetched, and nothing more in "
                        f"{failures + 1} attempts ({error})"
                    ) from None
                _LOG.info("%s: %d of %d bytes, then cut off (%s)", remote.shown, position, remote.size, error)
                time.sleep(_PAUSES[failures])
                failures += 1
    if position != remote.size or partial.stat().st_size != remote.size:
        raise _Anew(f"{position} bytes instead of {remote.size}")
    found = checksum.hexdigest()
    if found != remote.version.lower() and (expected := remote.md5()) and found != expected:
        raise _Anew(f"its MD5 is {found}, {expected} expected")


def _patiently(function: Callable[[], _T]) -> _T:
    for pause in _PAUSES:
        try:
            return function()
        except TransientError as error:
            _LOG.info("%s; trying again", error)
            time.sleep(pause)
    return function()


# -- what is at a URL --------------------------------------------------------------------------------------------------


def _look(url: str) -> _Remote:
    return _look_http(url) if url.startswith(("http://", "https://")) else _look_store(url)


def _look_store(url: str) -> _Remote:
    shown = public_url(url)
    with store_errors(shown):
        filesystem, root = filesystem_of(url)

    def info() -> dict[str, Any]:
        with _errors(shown, filesystem, root):
            filesystem.invalidate_cache(root.rpartition("/")[0])
            return filesystem.info(root)

    def version_of(found: dict[str, Any]) -> str:
        return str(found.get("ETag") or found.get("etag") or _changed(found) or "").strip('"')

    def piece(start: int, stop: int) -> bytes:
        with _errors(shown, filesystem, root):
            data = filesystem.cat_file(root, start=start, end=stop)
        if len(data) != stop - start:
            raise TransientError(f"{shown}: {len(data)} bytes instead of {stop - start} from byte {start} on")
        return data

    def check() -> None:
        if (found := version_of(info())) != version:
            raise _Anew(f"it changed on the way, from {version} to {found}")

    def read(start: int) -> Generator[bytes]:
        if start:
            check()
        pool = ThreadPoolExecutor(_AT_ONCE, "cygnoreco-fetch")
        try:
            waiting: deque[Future[bytes]] = deque()
            for begin in range(start, size, _PIECE):
                waiting.append(pool.submit(piece, begin, min(begin + _PIECE, size)))
                if len(waiting) == _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
        check()

    def md5() -> str | None:
        if "s3" not in _protocols(filesystem) or not _is_md5(version):
            return None
        bucket, _, key = root.partition("/")
        with _errors(shown, filesystem, root):
            head = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
        return version if _has_md5(head.get("ServerSideEncryption"), head.get("SSECustomerAlgorithm")) else None

    found = info()
    if found.get("type") == "directory":
        raise InputError(f"{shown}: a folder, not a run")
    size, version = _told(shown, found.get("size"), version_of(found))
    return _Remote(shown, size, version, _changed(found), md5, read)


@contextlib.contextmanager
def _errors(shown: str, filesystem: Any, root: str) -> Iterator[None]:
    """As ``store_errors``, for one file that the user named."""
    try:
        with store_errors(shown):
            yield
    except DataError:
        raise InputError(f"{shown}: no such file{_similar_name(shown, filesystem, root)}") from None
    except InputError as error:
        raise InputError(f"{error}; asked was {_where(filesystem, root)}") from None


def _where(filesystem: Any, root: str) -> str:
    endpoint = getattr(getattr(getattr(filesystem, "_s3", None), "meta", None), "endpoint_url", None)
    if endpoint is None:
        return f"'{root}' of {'/'.join(_protocols(filesystem))}"
    return f"bucket '{root.partition('/')[0]}' at {public_url(endpoint)}"


def _similar_name(shown: str, filesystem: Any, root: str) -> str:
    import difflib

    folder, _, name = root.rpartition("/")
    try:
        there = [str(each).rpartition("/")[2] for each in filesystem.ls(folder, detail=False)]
    except FileNotFoundError:
        return f", nor a folder {shown.rpartition('/')[0]}"
    except Exception:  # a hint, no more
        return ""
    close = difflib.get_close_matches(name, there, n=1)
    return f"; did you mean '{shown.rpartition('/')[0]}/{close[0]}'?" if close else ""


def _protocols(filesystem: Any) -> tuple[str, ...]:
    names = filesystem.protocol
    return (names,) if isinstance(names, str) else tuple(names)


def _changed(info: dict[str, Any]) -> float | None:
    """Time of change, under one of the names that stores have for it."""
    for name in ("LastModified", "mtime", "updated", "last_modified", "modified", "timeModified"):
        value = info.get(name)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _told(shown: str, size: Any, version: str) -> tuple[int, str]:
    """Size and version of a file, if its server tells them."""
    if not isinstance(size, int):
        raise InputError(f"{shown}: the server does not say how long it is; fetch it by hand")
    if not version:
        raise InputError(f"{shown}: the server tells neither ETag nor time of change, so that a copy cannot be told "
                         "from that of an older content; fetch it by hand")  # fmt: skip
    if size == 0:
        raise InputError(f"{shown}: the file is empty")
    return size, version


def _is_md5(version: str) -> bool:
    """Whether an ETag of S3 looks like the MD5 of the content: that of an upload in several parts has a dash."""
    return re.fullmatch(r"[0-9a-f]{32}", version) is not None


def _has_md5(encryption: Any, customer: Any) -> bool:
    """Whether it can be the MD5: that of an object under a key of its own is of something else."""
    return customer is None and not str(encryption or "").startswith("aws:kms")


# -- HTTP: urllib follows redirects and proxies, inflates nothing on its own, and logs no URLs -------------------------


def _look_http(url: str) -> _Remote:
    shown = public_url(url)
    # A presigned URL is signed for GET, so that HEAD would be refused.
    with _http(url, "bytes=0-0") as answer:
        size, version = _told(shown, _http_size(answer), _http_version(answer))
        headers = answer.headers
    changed = None
    if "Last-Modified" in headers:
        from email.utils import parsedate_to_datetime

        with contextlib.suppress(ValueError):
            changed = parsedate_to_datetime(headers["Last-Modified"]).timestamp()
    encrypted = [headers.get(f"x-amz-server-side-encryption{end}") for end in ("", "-customer-algorithm")]
    speaks_s3 = "X-Amz-Signature=" in url or any(name.lower().startswith("x-amz-") for name in headers)
    known = speaks_s3 and _is_md5(version) and _has_md5(*encrypted)

    def read(start: int) -> Generator[bytes]:
        with _http(url, f"bytes={start}-") as answer:
            if (_http_size(answer), _http_version(answer)) != (size, version):
                raise _Anew(f"it changed on the way, from {version} to {_http_version(answer)}")
            skip = 0 if answer.status == 206 else start  # a server without ranges sends all of it
            left = size - start
            while left:
                with _http_errors(shown):
                    data = answer.read(min(_SIP, skip or left))
                if not data:
                    return
                if skip:
                    skip -= len(data)
                    continue
                left -= len(data)
                yield data

    return _Remote(shown, size, version, changed, lambda: version if known else None, read)


@contextlib.contextmanager
def _http(url: str, wanted: str) -> Iterator[Any]:
    import urllib.parse
    import urllib.request

    shown = public_url(url)
    quoted = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")
    with _http_errors(shown):
        request = urllib.request.Request(quoted, headers={"Range": wanted, "User-Agent": "cygnoreco"})
        answer = urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT_S)
    with answer:
        yield answer


@contextlib.contextmanager
def _http_errors(shown: str) -> Iterator[None]:
    """Say who can mend it, with nothing in the message that could be the URL with its signature."""
    import http.client
    import urllib.error

    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        code = error.code
        if code in (404, 410):
            raise InputError(f"{shown}: no such file") from None
        if code == 416:
            raise InputError(f"{shown}: the file is empty, or shorter than it was") from None
        if code in (408, 425, 429) or code >= 500:
            raise TransientError(f"{shown}: cannot be read now (HTTP {code})") from None
        why = "; if the URL is presigned, its time may be over" if code in (400, 401, 403) else ""
        raise InputError(f"{shown}: access refused by the server (HTTP {code}){why}") from None
    except urllib.error.URLError as error:
        raise TransientError(f"{shown}: cannot be read now ({type(error.reason).__name__})") from None
    except http.client.InvalidURL:
        raise InputError(f"{shown}: not a URL that can be asked for") from None
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{shown}: cannot be read now ({type(error).__name__})") from None


def _http_size(answer: Any) -> int | None:
    if answer.status == 206:
        text = str(answer.headers.get("Content-Range", "")).rpartition("/")[2]
    else:
        text = str(answer.headers.get("Content-Length", ""))
    return int(text) if text.isdecimal() else None


def _http_version(answer: Any) -> str:
    return str(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "").strip('"')


# -- room and locks ----------------------------------------------------------------------------------------------------

#: Copies that this process uses, by path: descriptors with a shared lock, one for each use. Changed in single steps and
#: under no lock: a run is let go whenever Python collects it, also in the middle of this module.
_held: dict[Path, list[int]] = {}


def _hold(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    _held.setdefault(path, []).append(descriptor)


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file for the length of a ``with`` block; gives False if another one has it and we do not wait."""
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _try_lock(descriptor):
                if _names(path, descriptor):
                    try:
                        yield True
                    finally:
                        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may have it as well
                    return
                continue  # who made room removed it before we had it
            if not wait:
                yield False
                return
        finally:
            os.close(descriptor)
        if not told:
            _LOG.info("waiting for another one who holds %s", path)
            told = True
        time.sleep(_LOOK_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names(path: Path, descriptor: int) -> bool:
    """Whether a path is still the name of an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _reserve(partial: Path, remote: _Remote, folder: Path, limit: int | None) -> None:
    """Make room for a file, and make it, empty but of its full length: so others count it who need room as well."""
    with _locked(folder / "room.lock"):
        _tidy(folder)
        sizes = {each.name: _size_of(each) for each in folder.iterdir() if each.is_dir()}
        used = sum(size for size, _ in sizes.values())
        disk = shutil.disk_usage(folder).free + sum(on_disk for _, on_disk in sizes.values())
        limit = min(_LIMIT, disk // 2) if limit is None else min(limit, disk)
        if remote.size > limit:
            raise InputError(
                f"{remote.shown}: {_gb(remote.size)}, but fetched runs may take {_gb(limit)} in {folder}, whose disk "
                f"has {_gb(disk)} for them; {_LIMIT_VARIABLE} sets the limit, XDG_CACHE_HOME names another disk"
            )
        for name in sorted(sizes, key=lambda name: _last_used(folder, name)):
            if used + remote.size <= limit:
                break
            if _removed(folder, name):
                used -= sizes[name][0]
        if used + remote.size > limit:
            raise TransientError(
                f"{remote.shown}: no room for {_gb(remote.size)} in {folder}: {_gb(used)} of the {_gb(limit)} that "
                "fetched runs may take are in use"
            )
        with partial.open("wb") as file:
            file.truncate(remote.size)


def _tidy(folder: Path) -> None:
    """Remove what killed fetches left."""
    for each in folder.iterdir():
        if each.is_dir():
            with _locked(folder / f"{each.name}.lock", wait=False) as free:
                if free and each.is_dir():
                    remove_leftovers(each)
                    if not any(each.iterdir()):
                        each.rmdir()
                        (folder / f"{each.name}.lock").unlink()


def _removed(folder: Path, name: str) -> bool:
    """Remove a copy, unless somebody uses or fetches it."""
    lock = folder / f"{name}.lock"
    with _locked(lock, wait=False) as free:
        if not free:
            return False
        for path in (folder / name).iterdir():
            with path.open("r+b") as file:
                if not _try_lock(file.fileno()):
                    return False
                path.unlink()
                _LOG.info("removed %s to make room", path)
        (folder / name).rmdir()
        lock.unlink()
    return True


def _size_of(folder: Path) -> tuple[int, int]:
    """Bytes of the files in a folder, and bytes that they take of the disk now."""
    size = on_disk = 0
    with contextlib.suppress(FileNotFoundError):  # a fetch that is given up
        for path in folder.iterdir():
            status = path.stat()
            size, on_disk = size + status.st_size, on_disk + 512 * status.st_blocks
    return size, on_disk


def _last_used(folder: Path, name: str) -> float:
    try:
        return (folder / f"{name}.lock").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _file_name(shown: str) -> str:
    """Own name of a file: it carries the run number, and says what the file is."""
    import urllib.parse

    name = shown.rpartition("/")[2]
    if shown.startswith(("http://", "https://")):
        name = urllib.parse.unquote(name).rpartition("/")[2]
    return name


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
