"""A real S3 server for tests, Ceph's RADOS gateway, and faults of it and of the way to it.

``rgw`` is one gateway for the whole session, ``bucket`` a fresh bucket in it for one test. A module has them by
importing them; modules that do share the gateway. Without the program and without a way to fetch it the tests are
skipped; where ``CI`` is set they fail.
"""

from __future__ import annotations

import dataclasses
import http.client
import io
import math
import os
import re
import shlex
import signal
import socket
import socketserver
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import platformdirs
import pytest

_SCRIPT = Path(__file__).with_name("rgw.sh")

#: The user's own, so that it is fetched once and not once a session: by then the tests have another cache folder.
_PREFIX = os.environ.get("CEPH_PREFIX") or str(platformdirs.user_cache_path("cygnoreco") / "ceph")

_PATIENCE_S = 20.0

#: Number, method, path, status, bytes and range of a line of the gateway's log.
_SERVED = re.compile(r' beast: (0x\w+): \S+ - \S+ \[.*?\] "(\S+) (\S+) \S+" (\d+) (\d+) \S+ (?:".*?"|-) (\S+) latency=')

_ERROR = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Not so fast.</Message></Error>'
_SLOW_DOWN = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    % (len(_ERROR), _ERROR)
)


@dataclass(frozen=True)
class Gateway:
    """An S3 server.

    Attributes
    ----------
    endpoint : str
        URL.
    access_key, secret_key : str
        Of the one user it has.
    folder : Path
        Configuration, objects, logs (``log``) and process numbers of its daemons.
    version : str
        Of Ceph, as in "16.2.15".
    """

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path
    version: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """What s3fs and fsspec want to know."""
        return {"key": self.access_key, "secret": self.secret_key, "client_kwargs": {"endpoint_url": self.endpoint}}

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables of the environment, for whoever is given nothing but a URL."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def release(self) -> tuple[int, int]:
        """The first two numbers of the version."""
        first, second, *_ = self.version.split(".")
        return int(first), int(second)


@dataclass(frozen=True)
class Served:
    """A request that the gateway has answered, by its own log.

    Attributes
    ----------
    method, path : str
        Without the query.
    range : str
        As in "bytes=0-9"; empty if none was asked for.
    status : int
        Of HTTP.
    size : int
        Bytes sent for a GET, bytes received for a PUT.
    """

    method: str
    path: str
    range: str
    status: int
    size: int


@pytest.fixture(scope="session")
def rgw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for the whole session. If a test fails its folder stays, with the logs."""
    folder = tmp_path_factory.getbasetemp() / "rgw"
    installed = _call("install", folder)
    if installed.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"no S3 server for the tests: {installed.stderr}", pytrace=False)
        pytest.skip(f"no S3 server: {installed.stderr}")
    try:
        yield _up(folder)
    finally:
        if folder.exists():  # else another module that had this fixture has done it
            _call("down" if request.session.testsfailed else "purge", folder)


@pytest.fixture
def bucket(rgw: Gateway) -> Iterator[str]:
    """Name of a fresh bucket; it is emptied and removed at the end."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client(rgw).create_bucket(Bucket=name)
    try:
        yield name
    finally:
        remove(rgw, name)


def client(gateway: Gateway, *, secret_key: str | None = None, **config: Any) -> Any:
    """Client of boto3 that tries everything once.

    Parameters
    ----------
    gateway : Gateway
        To talk to.
    secret_key : str, optional
        Another one than the right one.
    **config
        For ``botocore.config.Config``.
    """
    import boto3
    from botocore.config import Config  # type: ignore[import-untyped]

    settings = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 20, **config}
    return boto3.client(
        "s3",
        endpoint_url=gateway.endpoint,
        aws_access_key_id=gateway.access_key,
        aws_secret_access_key=secret_key or gateway.secret_key,
        region_name="us-east-1",
        config=Config(**settings),
    )


def remove(gateway: Gateway, bucket: str) -> None:
    """Remove a bucket with all that is in it: objects, their versions, and uploads that have not ended."""
    s3 = client(gateway)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = page.get("Versions", []) + page.get("DeleteMarkers", [])
        if found:
            names = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": names})
            assert "Errors" not in answer, answer["Errors"]
    s3.delete_bucket(Bucket=bucket)  # the gateway itself gives up unfinished uploads


@contextmanager
def watched(gateway: Gateway) -> Iterator[list[Served]]:
    """Note what the gateway answers for the length of a ``with`` block; the list is filled when that ends."""
    log, found = gateway.folder / "log" / "client.rgw.log", list[Served]()
    start = log.stat().st_size
    yield found
    # Lines are written after the answers, so a last request of our own tells when all are there.
    host, mark = urlsplit(gateway.endpoint).netloc, f"/?{uuid.uuid4()}"
    last = http.client.HTTPConnection(host, timeout=_PATIENCE_S)
    last.request("GET", mark)
    last.getresponse().read()
    last.close()

    def text() -> str:
        with log.open("rb") as file:
            file.seek(start)
            return file.read().decode()

    _wait_until(
        lambda: mark in (now := text()) and now.count(" starting new request ") == now.count(" beast: 0x"),
        "the gateway's log is complete",
    )
    for _, method, path, status, size, asked in _SERVED.findall(text().split(mark)[0]):
        name = unquote(path.partition("?")[0])
        found.append(Served(method, name, "" if asked == "-" else asked, int(status), int(size)))


@contextmanager
def frozen(gateway: Gateway) -> Iterator[None]:
    """Let the gateway do nothing for the length of a ``with`` block: who calls it waits."""
    number = gateway_pid(gateway)
    os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(number, signal.SIGCONT)


@contextmanager
def killed(gateway: Gateway) -> Iterator[None]:
    """Have no gateway for the length of a ``with`` block, as after a crash: who calls it is refused."""
    os.kill(gateway_pid(gateway), signal.SIGKILL)
    _wait_until(lambda: not _listens(gateway), "the gateway is gone")
    try:
        yield
    finally:
        _up(gateway.folder)


def restarted(gateway: Gateway) -> Gateway:
    """Return the gateway after a crash and a new start: its address, keys and objects are the same."""
    with killed(gateway):
        pass
    return gateway


def gateway_pid(gateway: Gateway) -> int:
    """Process number of the gateway; monitor and OSD are others."""
    return int((gateway.folder / "rgw.pid").read_text())


@contextmanager
def cutting(gateway: Gateway, after_bytes: int, *, times: float = math.inf) -> Iterator[Gateway]:
    """Cut the connection in the middle of requests: the gateway sees its end, the caller a reset.

    Parameters
    ----------
    gateway : Gateway
        To which everything is passed on.
    after_bytes : int
        So many bytes of the body of a request are passed on. Requests with less are left alone.
    times : float, optional
        So many requests are cut; the rest are left alone.

    Yields
    ------
    Gateway
        The same at another address, for the length of the ``with`` block.
    """
    with _proxy(gateway, times, after_bytes) as between:
        yield between


@contextmanager
def refusing(gateway: Gateway, times: float) -> Iterator[Gateway]:
    """Answer so many requests with 503 (SlowDown), and pass the rest on; yields as :func:`cutting` does."""
    with _proxy(gateway, times, None) as between:
        yield between


def _call(word: str, folder: Path) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != "RGW_PORT"}  # of one the user works with
    return subprocess.run(
        ["bash", str(_SCRIPT), word],
        env={**known, "CEPH_PREFIX": _PREFIX, "RGW_DIR": str(folder)},
        capture_output=True,
        text=True,
    )


def _up(folder: Path) -> Gateway:
    done = _call("up", folder)
    assert done.returncode == 0, done.stderr
    words = shlex.split(_call("env", folder).stdout)[1:]
    found = dict(word.split("=", 1) for word in words)
    return Gateway(
        found["AWS_ENDPOINT_URL"],
        found["AWS_ACCESS_KEY_ID"],
        found["AWS_SECRET_ACCESS_KEY"],
        folder,
        found["RGW_VERSION"],
    )


def _address(gateway: Gateway) -> tuple[str, int]:
    parts = urlsplit(gateway.endpoint)
    return str(parts.hostname), int(parts.port or 80)


def _listens(gateway: Gateway) -> bool:
    with suppress(OSError), socket.create_connection(_address(gateway), timeout=1):
        return True
    return False


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not within {_PATIENCE_S:g} s: {what}"
        time.sleep(0.01)


@contextmanager
def _proxy(gateway: Gateway, times: float, after_bytes: int | None) -> Iterator[Gateway]:
    with _Proxy(gateway, times, after_bytes) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield dataclasses.replace(gateway, endpoint=f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()
            for each in list(server.open):  # what callers keep for their next request
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


class _Proxy(socketserver.ThreadingTCPServer):
    """Passes requests on to a gateway, except for the first ``times`` of those that it has something against."""

    def __init__(self, gateway: Gateway, times: float, after_bytes: int | None) -> None:
        self.gateway = _address(gateway)
        self.after_bytes = after_bytes
        self.open: set[socket.socket] = set()
        self._left, self._lock = times, threading.Lock()
        super().__init__(("127.0.0.1", 0), _Connection)

    def strikes(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0


class _Connection(socketserver.BaseRequestHandler):
    """A connection of a caller, and one to the gateway for it alone."""

    server: _Proxy
    request: socket.socket

    def handle(self) -> None:
        with (
            suppress(OSError),  # either side may go at any time
            socket.create_connection(self.server.gateway) as gateway,
            self.request.makefile("rb") as caller,
        ):
            self.server.open |= {self.request, gateway}
            answers = threading.Thread(target=_pump, args=(gateway, self.request))
            answers.start()
            try:
                while (head := _head(caller)) and self._pass_on(head, caller, gateway):
                    pass
            finally:
                with suppress(OSError):
                    gateway.shutdown(socket.SHUT_WR)
                answers.join()
                self.server.open -= {self.request, gateway}

    def _pass_on(self, head: bytes, caller: io.BufferedReader, gateway: socket.socket) -> bool:
        """Pass a request on; False if it was the last of its connection."""
        assert b"\r\ntransfer-encoding:" not in head.lower(), "a request without a length"
        length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.IGNORECASE)
        left, limit = int(length[1]) if length else 0, self.server.after_bytes
        if limit is None and self.server.strikes():
            self.request.sendall(_SLOW_DOWN)
            self.request.shutdown(socket.SHUT_WR)
            caller.read()  # a connection closed before all is read is a reset, and the answer may be lost
            return False
        cut = limit is not None and left > limit and self.server.strikes()
        if cut and limit is not None:
            left = limit
        gateway.sendall(head)
        while left and (part := caller.read1(min(left, 1 << 16))):
            gateway.sendall(part)
            left -= len(part)
        if cut:
            self.request.shutdown(socket.SHUT_RDWR)
        return not cut


def _head(caller: io.BufferedReader) -> bytes:
    """Return the next request up to its body; nothing at the end of the connection."""
    head = b""
    while (line := caller.readline()) not in (b"\r\n", b""):
        head += line
    return head and head + b"\r\n"


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(1 << 16):
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
