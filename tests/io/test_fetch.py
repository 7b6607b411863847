"""Files by URL are fetched once, whole, and never mixed up: from a real S3 server and an HTTP server that misbehave."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cygnoreco import Recipe, open_run, reconstruct
from cygnoreco.calib.find import find_pedestal
from cygnoreco.errors import InputError, TransientError
from cygnoreco.io import fetch
from cygnoreco.io.fetch import fetched, let_go
from cygnoreco.io.inspect import event_lines, run_info, verify_run
from cygnoreco.io.opening import container_of, open_source, settings_of
from cygnoreco.io.remote import file_url, public_url, shown_path
from tests.conftest import SmallRuns
from tests.io.test_convert import SHAPES, write_midas
from tests.io.test_remote import forget_connections
from tests.tables import same

pytest.importorskip("moto.server")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:moto.*"),
]

SIZE = 300_000
SECRET = "X-Amz-Signature=0123456789abcdef&X-Amz-Credential=somebody"


def content(seed: int, size: int = SIZE) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@dataclass
class Faults:
    """What a server does wrong, and what it was asked for: (path, range, bytes sent) a GET."""

    reads: list[tuple[str, str, int]] = field(default_factory=list)
    cuts: int = 0  # answers that end in the middle
    flips: int = 0  # answers with a wrong byte
    busy: int = 0  # answers with 503
    denied: bool = False
    delay_s: float = 0.0
    before: Callable[[], Any] | None = None  # done once, before the next answer that has `before_range`
    before_range: str = ""

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]

    def spoiled(self, body: bytes) -> bytes:
        if self.flips and body:
            self.flips -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        if self.cuts and len(body) > 1:
            self.cuts -= 1
            body = body[: len(body) // 2]
        return body

    def meet(self, wanted: str) -> None:
        time.sleep(self.delay_s)
        if self.before and self.before_range in wanted:
            before, self.before = self.before, None
            before()

    @property
    def bytes(self) -> int:
        return sum(size for *_, size in self.reads)

    def faulty(self, app: Callable) -> Callable:
        """The same WSGI application, with these faults."""

        def answer(environ: dict[str, Any], start_response: Callable) -> Any:
            own = "cygnoreco-test" in environ.get("HTTP_USER_AGENT", "")
            if self.denied and not own:
                start_response("403 Forbidden", [("Content-Type", "application/xml")])
                return [b"<Error><Code>SignatureDoesNotMatch</Code><Message>no such key</Message></Error>"]
            if environ["REQUEST_METHOD"] != "GET" or own or environ["PATH_INFO"].count("/") < 2:
                return app(environ, start_response)
            self.meet(environ.get("HTTP_RANGE", ""))
            if self.busy:
                self.busy -= 1
                start_response("503 Slow Down", [])
                return [b""]
            body = self.spoiled(b"".join(app(environ, start_response)))
            self.reads.append((environ["PATH_INFO"], environ.get("HTTP_RANGE", ""), len(body)))
            return [body]

        return answer


@pytest.fixture(scope="module")
def server() -> Iterator[Faults]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            """Nothing."""

    faults = Faults()
    app = faults.faulty(DomainDispatcherApplication(create_backend_app))
    served = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{served.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setenv(name, value)
        forget_connections()
        _client().create_bucket(Bucket="raw")
        try:
            yield faults
        finally:
            forget_connections()
            served.shutdown()
            thread.join()
            served.server_close()


@pytest.fixture
def s3(server: Faults, monkeypatch: pytest.MonkeyPatch) -> Faults:
    server.reset()
    monkeypatch.setattr(fetch, "_PAUSES", (0.01, 0.01, 0.01))
    return server


@pytest.fixture(autouse=True)
def _all_let_go() -> Iterator[None]:
    yield
    for path, uses in fetch._held.items():
        for _ in list(uses):
            let_go(path)


def _client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(user_agent_extra="cygnoreco-test"))


def put(name: str, data: bytes, **more: Any) -> str:
    _client().put_object(Bucket="raw", Key=name, Body=data, **more)
    return f"s3://raw/{name}"


@dataclass
class Web(Faults):
    """An HTTP server of a few files."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(fetch, "_PAUSES", (0.01, 0.01, 0.01))
    web = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            wanted = self.headers.get("Range", "")
            web.meet(wanted)
            if web.busy:
                web.busy -= 1
                return self.send_error(503)
            if web.denied or "expired" in query:
                return self.send_error(403, "Request has expired")
            if path not in web.files:
                return self.send_error(404)
            data = web.files[path]
            start, stop = 0, len(data)
            if web.ranges and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
                start, stop = int(asked[1]), min(len(data), int(asked[2] or stop) + 1)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            else:
                self.send_response(200)
            if web.validators:
                self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
                self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.send_header("Content-Encoding", "gzip")  # of the file's own: not to be taken off
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            body = data[start:stop] if wanted == "bytes=0-0" else web.spoiled(data[start:stop])
            with contextlib.suppress(OSError):
                self.wfile.write(body)
            web.reads.append((path, wanted, len(body)))
            return None

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    web.url = f"http://127.0.0.1:{served.server_port}"
    try:
        yield web
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


def fetching(url: str, cache: Path, *, then: str = "") -> subprocess.Popen[str]:
    """Another process that fetches a file."""
    code = "import sys; from pathlib import Path; from cygnoreco.io.fetch import fetched; "
    code += f"print(fetched(sys.argv[1], cache=Path(sys.argv[2])), flush=True); {then}"
    return subprocess.Popen([sys.executable, "-c", code, url, str(cache)], stdout=subprocess.PIPE, text=True)


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*/*"))


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- once --------------------------------------------------------------------------------------------------------------


def test_four_processes_fetch_once(s3: Faults, tmp_path: Path) -> None:
    data = content(1, 20 << 20)
    url = put("field/run05001.mid.gz", data)
    s3.delay_s = 0.3  # so that all of them are there before it is done
    processes = [fetching(url, tmp_path) for _ in range(4)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    (path,) = paths
    assert Path(path).name == "run05001.mid.gz"
    assert Path(path).read_bytes() == data
    assert (len(s3.reads), s3.bytes) == (3, len(data))  # pieces of 8 MB
    s3.reset()
    assert str(fetched(url, cache=tmp_path)) == path
    assert not s3.reads
    let_go(Path(path))


def test_threads_fetch_once(web: Web, tmp_path: Path) -> None:
    web.files["/run00001.h5"] = content(2)
    web.delay_s = 0.05
    with ThreadPoolExecutor(6) as pool:
        paths = set(pool.map(lambda _: fetched(f"{web.url}/run00001.h5", cache=tmp_path), range(6)))
    (path,) = paths
    assert path.read_bytes() == content(2)
    assert [wanted for _, wanted, _ in web.reads].count("bytes=0-") == 1
    assert len(fetch._held[path]) == 6
    for _ in range(6):
        let_go(path)
    assert not fetch._held[path]
    let_go(path)  # no harm


def test_the_same_name_elsewhere_is_another_file(s3: Faults, tmp_path: Path) -> None:
    one, other = (fetched(put(f"{folder}/run1.mid", content(3)), cache=tmp_path) for folder in "ab")
    assert one != other
    assert one.name == other.name == "run1.mid"
    newer = fetched(put("a/run1.mid", content(4)), cache=tmp_path)
    assert newer not in (one, other)
    assert (one.read_bytes(), newer.read_bytes()) == (content(3), content(4))
    assert fetched(put("a/run1.mid", content(3)), cache=tmp_path) == one  # the old content is still known


def test_a_copy_spoiled_by_hand_is_fetched_again(s3: Faults, tmp_path: Path) -> None:
    url = put("run1.mid", content(3))
    path = fetched(url, cache=tmp_path)
    path.write_bytes(b"short")
    assert fetched(url, cache=tmp_path).read_bytes() == content(3)
    path.unlink()
    assert fetched(url, cache=tmp_path).read_bytes() == content(3)
    assert len(fetch._held[path]) == 3
    assert os.path.samestat(os.fstat(fetch._held[path][-1]), path.stat())


# -- cut, changed, spoiled ---------------------------------------------------------------------------------------------


def test_a_cut_fetch_goes_on_where_it_stopped(s3: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_PIECE", 50_000)
    url = put("cut.mid", content(5))
    s3.cuts = 9
    assert fetched(url, cache=tmp_path).read_bytes() == content(5)
    assert s3.cuts == 0
    assert s3.bytes <= SIZE + 9 * 25_000 + 4 * 50_000


@pytest.mark.parametrize("ranges", [True, False])
def test_an_http_server_that_cuts(web: Web, tmp_path: Path, ranges: bool) -> None:
    web.files["/run2.mid.gz"], web.cuts, web.ranges = content(6, 5 << 20), 3, ranges
    path = fetched(f"{web.url}/run2.mid.gz", cache=tmp_path)
    assert path.read_bytes() == content(6, 5 << 20)
    assert path.stat().st_mtime == 1445412480  # an index of it can be found again
    starts = [int(wanted[6:-1]) for _, wanted, _ in web.reads if wanted != "bytes=0-0"]
    assert starts == sorted(starts)
    assert len(set(starts)) >= (4 if ranges else 2)
    if ranges:
        assert web.bytes <= (5 << 20) + 4 * (1 << 20)


def test_one_that_always_cuts_is_given_up(web: Web, s3: Faults, tmp_path: Path) -> None:
    web.files["/run2.mid.gz"], web.busy = content(6), 2
    fetched(f"{web.url}/run2.mid.gz", cache=tmp_path / "busy")
    web.busy = 1000
    with pytest.raises(TransientError, match=r"run2\.mid\.gz: .*HTTP 503"):
        fetched(f"{web.url}/run2.mid.gz", cache=tmp_path)
    url = put("cut.mid", content(5))
    s3.busy = 1000
    with pytest.raises(TransientError, match=r"0 of 300000 bytes fetched, and nothing more in 4 attempts"):
        fetched(url, cache=tmp_path)
    assert kept(tmp_path / "busy") == ["run2.mid.gz"]
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "busy"]


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_PAUSES", (0.01,))
    with pytest.raises(TransientError, match=r"http://127\.0\.0\.1:9/run1\.mid: cannot be read now"):
        fetched(f"http://127.0.0.1:9/run1.mid?{SECRET}", cache=tmp_path)


@pytest.mark.parametrize("size", [SIZE, SIZE - 60_000, SIZE + 60_000])
def test_a_file_that_changes_on_the_way(
    s3: Faults, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(fetch, "_PIECE", 50_000)
    url = put("changing.mid", content(7))
    s3.before_range = "bytes=150000-"
    s3.before = lambda: _client().put_object(Bucket="raw", Key="changing.mid", Body=content(8, size))
    assert fetched(url, cache=tmp_path).read_bytes() == content(8, size)
    assert kept(tmp_path) == ["changing.mid"]

    web.files["/changing.mid"] = content(7)
    web.cuts, web.before_range = 1, "bytes=150000-"
    web.before = lambda: web.files.update({"/changing.mid": content(8, size)})
    assert fetched(f"{web.url}/changing.mid", cache=tmp_path / "web").read_bytes() == content(8, size)


def test_a_file_that_always_changes_is_given_up(s3: Faults, tmp_path: Path) -> None:
    url = put("changing.mid", content(0))
    seeds = iter(range(1, 100))

    def change() -> None:
        put("changing.mid", content(next(seeds)))
        s3.before = change

    s3.before = change
    with pytest.raises(TransientError, match=r"fetched 3 times in vain; it changed on the way"):
        fetched(url, cache=tmp_path)
    assert kept(tmp_path) == []


def test_a_wrong_byte_is_noticed(s3: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_PIECE", 50_000)  # of a file in one piece botocore compares a checksum itself
    url = put("spoiled.mid", content(9))
    s3.flips = 1
    assert fetched(url, cache=tmp_path).read_bytes() == content(9)
    s3.flips = 1000
    with pytest.raises(TransientError, match="its MD5 is"):
        fetched(url, cache=tmp_path / "other")
    assert kept(tmp_path / "other") == []
    # The ETag of an object under a key of its own is the MD5 of something else.
    fetched(put("secret.mid", content(9), ServerSideEncryption="aws:kms"), cache=tmp_path)


def test_a_wrong_byte_behind_a_presigned_url_is_noticed(s3: Faults, tmp_path: Path) -> None:
    put("spoiled.mid", content(9))
    url = _client().generate_presigned_url("get_object", {"Bucket": "raw", "Key": "spoiled.mid"})
    s3.flips = 2  # that of the first look, which takes no notice, and the file's
    assert fetched(url, cache=tmp_path).read_bytes() == content(9)
    assert [asked for _, asked, _ in s3.reads] == ["bytes=0-0", "bytes=0-"] * 2


def test_an_upload_in_parts_has_no_md5(s3: Faults, tmp_path: Path) -> None:
    from boto3.s3.transfer import TransferConfig

    source = tmp_path / "run3.mid"
    source.write_bytes(content(10, 11 << 20))
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    _client().upload_file(str(source), "raw", "run3.mid", Config=parts)
    path = fetched("s3://raw/run3.mid", cache=tmp_path / "cache")
    assert path.read_bytes() == source.read_bytes()


def test_a_killed_fetch_leaves_nothing_wrong(s3: Faults, tmp_path: Path) -> None:
    url = put("killed.mid", content(11, 40 << 20))
    s3.delay_s = 0.5
    process = fetching(url, tmp_path)
    wait_for(lambda: len(s3.reads) >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = kept(tmp_path)
    assert left.startswith("killed.mid.partial-")
    s3.reset()
    other = put("other.mid", content(12))
    fetched(other, cache=tmp_path)  # somebody else tidies up
    assert kept(tmp_path) == ["other.mid"]
    assert len(list(tmp_path.glob("*.lock"))) == 2  # its own and that of the room
    assert fetched(url, cache=tmp_path).read_bytes() == content(11, 40 << 20)
    assert kept(tmp_path) == ["killed.mid", "other.mid"]


# -- refused -----------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_told_with_the_nearest_name(s3: Faults, web: Web, tmp_path: Path) -> None:
    put("near/run05001.mid.gz", content(1))
    put("near/run05002.mid.gz", b"")
    with pytest.raises(InputError, match=r"no such file; did you mean 's3://raw/near/run05001\.mid\.gz'\?"):
        fetched("s3://raw/near/run5001.mid.gz", cache=tmp_path)
    with pytest.raises(InputError, match=r"no such file$"):
        fetched("s3://raw/near/otherwise.h5", cache=tmp_path)
    with pytest.raises(InputError, match=r"no such file, nor a folder s3://raw/far"):
        fetched("s3://raw/far/run05001.mid.gz", cache=tmp_path)
    with pytest.raises(InputError, match=r"no such file, nor a folder s3://nowhere"):
        fetched("s3://nowhere/run05001.mid.gz", cache=tmp_path)
    with pytest.raises(InputError, match="a folder, not a run"):
        fetched("s3://raw/near", cache=tmp_path)
    with pytest.raises(InputError, match="the file is empty"):
        fetched("s3://raw/near/run05002.mid.gz", cache=tmp_path)
    with pytest.raises(InputError, match="no kind of URL"):
        fetched("s4://raw/run1.mid", cache=tmp_path)
    with pytest.raises(InputError, match=r"no such file$"):
        fetched(f"{web.url}/run1.mid?{SECRET}", cache=tmp_path)
    web.files["/run1.mid"], web.validators = content(1), False
    with pytest.raises(InputError, match="neither ETag nor time of change"):
        fetched(f"{web.url}/run1.mid", cache=tmp_path)
    with pytest.raises(InputError, match="not the URL of a file"):
        fetched("https://somewhere/?run1.mid", cache=tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match=r"cannot be kept in .*file"):
        fetched(put("run1.mid", content(1)), cache=blocked)


def test_wrong_keys_are_told_with_the_place(s3: Faults, tmp_path: Path) -> None:
    url = put("run1.mid", content(1))
    s3.denied = True
    port = os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]
    with pytest.raises(InputError, match=rf"refused.*check the keys.*bucket 'raw' at http://127\.0\.0\.1:{port}"):
        fetched(url, cache=tmp_path)


# -- room --------------------------------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_makes_room(s3: Faults, tmp_path: Path) -> None:
    urls = [put(f"room/run{number}.mid", content(number)) for number in range(5)]

    def get(number: int, limit: int = 2 * SIZE + 1000) -> Path:
        path = fetched(urls[number], cache=tmp_path, limit=limit)
        assert path.read_bytes() == content(number)
        return path

    for number in (0, 1, 0):
        let_go(get(number))
    held = get(2)
    assert kept(tmp_path) == ["run0.mid", "run2.mid"]
    let_go(get(3))
    assert kept(tmp_path) == ["run2.mid", "run3.mid"]
    other = fetching(urls[3], tmp_path, then="input()")  # ends when its input does
    assert other.stdout is not None
    assert other.stdout.readline().strip().endswith("run3.mid")
    with pytest.raises(TransientError, match=r"no room for 0\.0003 GB .* are in use"):
        get(4)
    assert kept(tmp_path) == ["run2.mid", "run3.mid"]
    other.kill()
    other.communicate()
    let_go(held)
    with pytest.raises(InputError, match=r"run4\.mid: 0\.0003 GB, but fetched runs may take 0\.0002 GB"):
        get(4, limit=200_000)
    assert kept(tmp_path) == ["run2.mid", "run3.mid"]
    let_go(get(4))
    assert kept(tmp_path) == ["run3.mid", "run4.mid"]
    assert len(list(tmp_path.glob("*.lock"))) == 3


def test_the_limit_by_environment(s3: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = put("run1.mid", content(1))
    monkeypatch.setenv("CYGNORECO_RUN_CACHE_GB", "0.0001")
    with pytest.raises(InputError, match=r"may take 0\.0001 GB .* CYGNORECO_RUN_CACHE_GB sets the limit"):
        fetched(url, cache=tmp_path)
    monkeypatch.setenv("CYGNORECO_RUN_CACHE_GB", "much")
    with pytest.raises(InputError, match="CYGNORECO_RUN_CACHE_GB='much': a number"):
        fetched(url, cache=tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=500_000))
    monkeypatch.delenv("CYGNORECO_RUN_CACHE_GB")
    with pytest.raises(InputError, match=r"may take 0\.00025 GB"):
        fetched(url, cache=tmp_path)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_presigned_url_is_no_part_of_anything(
    s3: Faults, web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = write_midas(tmp_path / "run00017.mid.gz", 4)
    put("signed/run00017.mid.gz", run.read_bytes())
    wanted = {"Bucket": "raw", "Key": "signed/run00017.mid.gz"}
    signed = [_client().generate_presigned_url("get_object", wanted, ExpiresIn=age) for age in (600, 700)]
    assert signed[0] != signed[1]
    caplog.clear()  # botocore logs what it signs
    paths = {fetched(url) for url in signed}
    assert len(paths) == 1
    assert len([1 for _, asked, _ in s3.reads if asked != "bytes=0-0"]) == 1
    opened = open_run(signed[0], shapes=SHAPES)
    assert opened.path.name == "run00017.mid.gz"
    assert opened.source.digest == open_source(run).digest

    web.files["/run00017.mid.gz"] = run.read_bytes()
    web.cuts, web.busy = 1, 1
    messages = []
    opened = open_run(f"{web.url}/run00017.mid.gz?{SECRET}", shapes=SHAPES)
    shown = [repr(opened), str(opened.ref("CAM0")), str(opened.path), str(run_info(opened.path, shapes=SHAPES))]
    for wrong in (f"/missing.mid?{SECRET}", f"/run00017.mid.gz?{SECRET}&expired", f"/run.zarr?{SECRET}", f"/a?{SECRET}",
                  f"/run1 7.mid?{SECRET} a b", f":port/run17.mid?{SECRET}"):  # fmt: skip
        with pytest.raises((InputError, TransientError)) as caught:
            open_run(web.url + wrong)
        messages.append(str(caught.value))
    assert "access refused by the server (HTTP 403); if the URL is presigned, its time may be over" in messages[1]
    text = "\n".join([*shown, *messages, caplog.text, *map(str, (tmp_path / "cache").rglob("*"))])
    assert f"{web.url}/missing.mid: no such file" in text
    for secret in ("X-Amz", "0123456789abcdef", "somebody", *(url.rpartition("=")[2] for url in signed)):
        assert secret not in text


def test_what_of_a_url_is_shown() -> None:
    assert public_url("https://me:pw@host:1/a/run1.mid?X-Amz-Signature=1#b") == "https://host:1/a/run1.mid"
    assert public_url("https://host?secret=/a") == "https://host"
    assert public_url("s3://bucket/what?.mid") == "s3://bucket/what?.mid"
    assert public_url("sftp://me:pw@host/run1.mid") == "sftp://host/run1.mid"
    assert public_url("abfs://container@account/run1.mid") == "abfs://container@account/run1.mid"
    assert shown_path(Path(f"https://host/run1.mid?{SECRET}")) == Path("https://host/run1.mid")
    assert shown_path(Path("run1.mid?what")) == Path("run1.mid?what")
    assert file_url(Path("s3://bucket/run1.mid")) == "s3://bucket/run1.mid"
    assert file_url("s3://bucket/run1.zarr/") is file_url("run1.mid") is None


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_by_url_is_the_run(s3: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = write_midas(tmp_path / "run00017.mid.gz")
    url = put("runs/run00017.mid.gz", local.read_bytes())
    here, there = open_run(local, shapes=SHAPES), open_run(url, shapes=SHAPES)
    assert there.source.digest == here.source.digest
    assert (there.number, there.cameras, there.faults) == (here.number, here.cameras, here.faults)
    assert there.ref("CAM0").path == url  # a worker elsewhere fetches its own
    for camera in ("CAM0", "CAM1"):
        np.testing.assert_array_equal(there.frames(camera).compute(scheduler="synchronous"), here.frames(camera))
    assert container_of(Path(url)) == "midas"
    assert settings_of(url) == settings_of(local)
    assert list(event_lines(url)) == list(event_lines(local))
    assert verify_run(url, shapes=SHAPES).digest == here.source.digest
    assert s3.bytes == local.stat().st_size
    opened = open_source(url)
    copy, before = opened.path, len(fetch._held[opened.path])
    del opened
    assert len(fetch._held[copy]) == before - 1  # tasks of this process have another one open
    with pytest.raises(InputError, match=r"no known kind of run; did you mean '\.mid\.gz'"):
        open_run("s3://runs/run1.mid.gzz")


def test_reconstructed_by_url_it_is_the_same(
    s3: Faults, small_runs: SmallRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, dark = (put(f"reco/{path.name}", path.read_bytes()) for path in (small_runs.data, small_runs.pedestal))
    recipe = Recipe.load("lime").override(small_runs.settings)
    by_url = reconstruct(data, pedestal=dark, response="none", recipe=recipe, out=tmp_path / "url")
    local = reconstruct(
        small_runs.data, pedestal=small_runs.pedestal, response="none", recipe=recipe, out=tmp_path / "local"
    )
    assert by_url.summary["key"] == local.summary["key"]
    assert by_url.path is not None
    assert local.path is not None
    assert by_url.path.read_bytes() == local.path.read_bytes()
    same(by_url.tables, local.tables)
    assert s3.bytes == small_runs.data.stat().st_size + small_runs.pedestal.stat().st_size


@pytest.mark.slow
def test_workers_of_a_machine_share_a_copy(
    s3: Faults, small_runs: SmallRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusters.local import local_client

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = put("shared/run00011.mid.gz", small_runs.data.read_bytes())
    recipe = Recipe.load("lime").override(small_runs.settings)
    options: dict[str, Any] = {"pedestal": small_runs.pedestal, "response": "none", "recipe": recipe, "block": 2}
    with local_client(2) as client:
        shared = reconstruct(url, client=client, out=tmp_path / "url", **options)
        assert any(client.run(_copies).values())
    assert s3.bytes == small_runs.data.stat().st_size
    same(shared.tables, reconstruct(small_runs.data, **options).tables)


def _copies() -> int:
    return sum(map(len, fetch._held.values()))


def test_a_saved_pedestal_by_url(
    s3: Faults, small_runs: SmallRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    camera = open_run(small_runs.data).camera()
    made = find_pedestal(small_runs.pedestal, 11, camera, cache=tmp_path)
    (saved,) = tmp_path.glob("*.npz")
    url = put("pedestals/pedestal_run00010.npz", saved.read_bytes())
    assert find_pedestal(url, 11, camera).digest == made.digest
    with pytest.raises(InputError, match="no known kind of run"):
        find_pedestal("s3://raw/pedestals", 11, camera)
