"""Archives by URL, from a real S3 server on loopback that notes what it is asked for; and the same count on a disk."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cygnoreco.calib.find import find_pedestal
from cygnoreco.errors import DataError, InputError, TransientError
from cygnoreco.io.convert import PRESETS, convert, verify_copy
from cygnoreco.io.inspect import run_info, verify_run
from cygnoreco.io.opening import open_source
from cygnoreco.io.remote import file_sizes, full_name, read_range, read_ranges, url_of
from cygnoreco.raw import open_run
from tests.io.picture_files import random_frames, write_root_pictures
from tests.io.test_convert import SHAPES, write_midas

pytest.importorskip("moto.server")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:moto.*"),
]

COUNT, SHAPE = 37, (64, 96)
FRAMES = random_frames(COUNT, *SHAPE)


@dataclass
class Bucket:
    """An S3 server and what was read from it: (key, range, bytes sent) a request."""

    url: str = ""
    reads: list[tuple[str, str, int]] = field(default_factory=list)

    def counting(self, app: Callable) -> Callable:
        def counted(environ: dict[str, Any], start_response: Callable) -> Any:
            def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
                if environ["REQUEST_METHOD"] == "GET" and status.startswith("2"):
                    size = int({name.lower(): value for name, value in headers}.get("content-length", 0))
                    self.reads.append((environ["PATH_INFO"], environ.get("HTTP_RANGE", ""), size))
                return start_response(status, headers, *rest)

            return app(environ, start)

        return counted

    def upload(self, folder: Path, name: str) -> str:
        import fsspec

        fsspec.filesystem("s3").put(str(folder), f"runs/{name}", recursive=True)
        self.reads.clear()
        return f"s3://runs/{name}"


def forget_connections() -> None:
    """Close what fsspec keeps open, for Zarr's event loop and its own, and let it read the environment anew."""
    import fsspec
    from zarr.core.sync import _get_loop

    stores = fsspec.get_filesystem_class("s3")
    for store in list(stores._cache.values()):
        if store._s3 is not None:
            stores.close_session(_get_loop() if store.asynchronous else store.loop, store._s3)
    stores.clear_instance_cache()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    counted = Bucket()
    server = make_server(
        "127.0.0.1", 0, counted.counting(DomainDispatcherApplication(create_backend_app)), threaded=True
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="runs")
        try:
            yield counted
        finally:
            forget_connections()
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture(scope="module", params=PRESETS)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    pictures = {f"pic_run00042_ev{number}": frame for number, frame in enumerate(FRAMES)}
    origin = write_root_pictures(folder / "run.root", pictures)
    return convert(origin, folder / f"{request.param}.zarr", preset=request.param).path


def test_a_run_by_url_is_the_run(bucket: Bucket, archive: Path) -> None:
    url = bucket.upload(archive, archive.name)
    run, local = open_source(url), open_source(archive)
    assert (run.run_number, run.digest, run.cameras) == (42, local.digest, local.cameras)
    np.testing.assert_array_equal(run.table("CAM0"), local.table("CAM0"))
    for start, stop in ((0, COUNT), (15, 17), (36, 37), (5, 5)):
        np.testing.assert_array_equal(run.read("CAM0", start, stop), FRAMES[start:stop])
    assert verify_copy(url) == local.digest


@pytest.mark.parametrize(("start", "stop", "shards"), [(0, 16, 1), (16, 32, 1), (3, 11, 1), (8, 24, 2), (32, 37, 1)])
def test_a_block_costs_its_own_bytes_and_an_index(
    bucket: Bucket, archive: Path, start: int, stop: int, shards: int
) -> None:
    run = open_source(bucket.upload(archive, archive.name))
    bucket.reads.clear()
    run.read("CAM0", start, stop)
    stored = sum(size for name, size in file_sizes(archive).items() if name.startswith("frames/CAM0/c/"))
    index = 16 * 16 + 4
    # Frames of random numbers all take the same room, so that a block's part of the file is known.
    assert len(bucket.reads) == 2 * shards
    assert sum(size for *_, size in bucket.reads) <= (stop - start) * (2 * SHAPE[0] * SHAPE[1] + 300) + shards * index
    assert sum(size for *_, size in bucket.reads) < stored
    assert all("/frames/CAM0/c/" in key and asked for key, asked, _ in bucket.reads)
    asked_for = sorted(bucket.reads)
    bucket.reads.clear()
    packed = run.read_packed("CAM0", start, stop)
    assert (packed is not None) == ("fast" in archive.name)
    if packed is not None:
        assert sorted(bucket.reads) == asked_for
        words = packed.words.copy()  # the next ones come in the same memory
        here = open_source(archive).read_packed("CAM0", start, stop)
        np.testing.assert_array_equal(words, here.words)
        np.testing.assert_array_equal(packed.tiles, here.tiles)


def test_opening_reads_the_tables_alone(bucket: Bucket, archive: Path) -> None:
    url = bucket.upload(archive, archive.name)
    open_source(url)
    assert not [key for key, *_ in bucket.reads if "/c/" in key and "/frames/" in key]
    assert sum(size for *_, size in bucket.reads) < 100_000


@pytest.mark.parametrize("preset", PRESETS)
def test_a_block_on_the_disk_costs_the_same(archive: Path, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_source(archive)
    sizes: list[int] = []

    def counting(folder: Path, name: str, ranges: Any) -> Any:
        assert name == "frames/CAM0/c/1/0/0"
        sizes.extend(size for _, size in ranges)
        yield from read_ranges(folder, name, ranges)

    monkeypatch.setattr("cygnoreco.io.shards.read_ranges", counting)
    run.read("CAM0", 16, 32)
    assert len(sizes) == 16
    assert sum(sizes) + 16 * 16 + 4 == (archive / "frames/CAM0/c/1/0/0").stat().st_size


def test_a_midas_stream_comes_back_from_s3(bucket: Bucket, tmp_path: Path) -> None:
    origin = write_midas(tmp_path / "run00017.mid", 5)
    convert(origin, tmp_path / "midas.zarr", shapes=SHAPES)
    url = bucket.upload(tmp_path / "midas.zarr", "midas.zarr")
    convert(url, tmp_path / "back.mid")
    assert (tmp_path / "back.mid").read_bytes() == origin.read_bytes()


def test_a_run_by_url_goes_to_tasks_by_its_url(bucket: Bucket, archive: Path) -> None:
    url = bucket.upload(archive, archive.name)
    run = open_run(url)
    assert run.ref().path == url
    np.testing.assert_array_equal(run.frames()[3:5].compute(scheduler="synchronous"), FRAMES[3:5])


def test_it_is_summed_up_and_verified_by_url(bucket: Bucket, archive: Path) -> None:
    url = bucket.upload(archive, archive.name)
    assert run_info(Path(url)).cameras[0].frames == COUNT
    found = verify_run(Path(url))
    assert (found.frames, found.faults) == (COUNT, ())


def test_a_pedestal_run_by_url(bucket: Bucket, archive: Path, tmp_path: Path) -> None:
    url = bucket.upload(archive, archive.name)
    camera = open_source(archive).cameras[0]
    pedestal = find_pedestal(url, 43, camera, cache=tmp_path)
    np.testing.assert_allclose(pedestal.mean, FRAMES.mean(axis=0), rtol=1e-12)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]  # made once
    for name, what in (("pedestal_run00042.npz", "no such file"), ("pedestals", "no known kind of run")):
        with pytest.raises(InputError, match=what):
            find_pedestal(f"s3://runs/{name}", 43, camera, cache=tmp_path)


def test_zarr_itself_reads_it_from_s3(bucket: Bucket, archive: Path) -> None:
    url = bucket.upload(archive, archive.name)
    with pytest.warns(UserWarning, match="not in the Zarr") if "archive" in url else contextlib.nullcontext():
        array = zarr.open_array(f"{url}/frames/CAM0", mode="r")
    np.testing.assert_array_equal(array[15:18], FRAMES[15:18])


def test_what_is_not_there_is_told(bucket: Bucket, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a Zarr group"):
        open_source("s3://runs/nothing.zarr")
    url = bucket.upload(archive, "damaged.zarr")
    import fsspec

    fsspec.filesystem("s3").rm("runs/damaged.zarr/frames/CAM0/c/1/0/0")
    with pytest.raises(DataError, match=r"1 of \d+ files damaged: frames/CAM0/c/1/0/0 is missing"):
        open_source(url)
    with pytest.raises(InputError, match="no such file"):
        open_source("s3://runs/run.mid.gz")
    with pytest.raises(InputError, match="no kind of URL"):
        open_source("s4://runs/run.zarr")
    with pytest.raises(InputError, match="local disk"):
        convert(archive, "s3://runs/new.zarr")


def test_a_server_that_does_not_answer_may_answer_later(bucket: Bucket, archive: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the port where nobody listens
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        forget_connections()
        with pytest.raises(TransientError, match="cannot be read now"):
            read_range(Path("s3://runs/a.zarr"), "zarr.json", 0, 10)
    forget_connections()


def test_parts_read_side_by_side_in_one_thread_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    one = read_ranges(tmp_path, "file", [(0, 3), (10, 5)])
    other = read_ranges(tmp_path, "file", [(50, 2), (60, 30)])
    for begin, beyond in ((0, 50), (10, 60)):
        mine, yours = next(one), next(other)
        tail = read_range(tmp_path, "file", -2, 2)
        read_range(tmp_path, "file", 20, 70)
        assert (mine[0], yours[0], tail.tolist()) == (begin, beyond, [98, 99])
    assert list(one) == list(other) == []


def test_local_parts_use_the_same_memory_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    places = set()
    for _ in range(3):
        places |= {part.ctypes.data for part in read_ranges(tmp_path, "file", [(0, 90), (10, 5)])}
    assert len(places) == 1


def test_a_path_carries_a_url(tmp_path: Path) -> None:
    assert url_of(Path("s3://bucket/key.zarr")) == url_of("s3://bucket/key.zarr") == "s3://bucket/key.zarr"
    assert full_name(Path("s3://bucket/key.zarr")) == "s3://bucket/key.zarr"
    assert url_of(Path("/data/s3:/run.zarr")) is url_of("run.zarr") is url_of("C:/run.zarr") is None
    assert full_name(tmp_path / "a" / ".." / "run.zarr") == str(tmp_path / "run.zarr")
