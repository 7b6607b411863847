"""Archives by URL from Ceph's gateway, which verifies signatures; its own log tells what it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cygnoreco.errors import DataError, InputError, TransientError
from cygnoreco.io.opening import open_source
from cygnoreco.io.remote import file_sizes, read_range
from tests.io.test_remote import FRAMES, SHAPE, forget_connections
from tests.io.test_remote import archive as archive  # fixtures
from tests.services.s3 import Gateway, client, killed, watched
from tests.services.s3 import bucket as bucket
from tests.services.s3 import rgw as rgw

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")


@pytest.fixture(autouse=True)
def _keys(rgw: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the library find the gateway where it looks for one: in the environment."""
    for name, value in rgw.environment.items():
        monkeypatch.setenv(name, value)
    forget_connections()
    yield
    forget_connections()


@pytest.fixture
def url(bucket: str, archive: Path) -> str:
    """URL of the archive in the bucket of this test."""
    import fsspec

    fsspec.filesystem("s3").put(str(archive), f"{bucket}/key.zarr", recursive=True)
    return f"s3://{bucket}/key.zarr"


@pytest.mark.parametrize(("start", "stop", "shards"), [(3, 11, 1), (8, 24, 2)])
def test_a_block_costs_its_own_bytes_and_an_index(
    rgw: Gateway, archive: Path, url: str, start: int, stop: int, shards: int
) -> None:
    with watched(rgw) as opening:
        run = open_source(url)
    assert not [each for each in opening if "/frames/CAM0/c/" in each.path and each.method == "GET"]
    with watched(rgw) as served:
        frames = run.read("CAM0", start, stop)
    np.testing.assert_array_equal(frames, FRAMES[start:stop])
    assert {(each.method, each.status) for each in served} == {("GET", 206)}
    assert all("/key.zarr/frames/CAM0/c/" in each.path for each in served)
    assert len(served) == 2 * shards
    # Frames of random numbers all take the same room, so that a block's part of the file is known.
    index, stored = 16 * 16 + 4, sum(size for name, size in file_sizes(archive).items() if "/CAM0/c/" in name)
    sent = sum(each.size for each in served)
    assert sent <= (stop - start) * (2 * SHAPE[0] * SHAPE[1] + 300) + shards * index
    assert sent < stored


def test_what_is_not_there_is_told(rgw: Gateway, bucket: str, url: str) -> None:
    with pytest.raises(DataError, match="a file of it is missing, or the bucket"):
        read_range(Path(f"s3://{bucket}/key.zarr"), "frames/nothing", 0, 10)
    for name in (f"{bucket}/nothing.zarr", f"{bucket}-no/key.zarr"):
        with pytest.raises(DataError, match="cannot be read as a Zarr group"):
            open_source(f"s3://{name}")
    client(rgw).delete_object(Bucket=bucket, Key="key.zarr/frames/CAM0/c/1/0/0")
    with pytest.raises(DataError, match=r"1 of \d+ files damaged: frames/CAM0/c/1/0/0 is missing"):
        open_source(url)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_keys_are_told(url: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "wrong")
    forget_connections()
    with pytest.raises(InputError, match=r"access refused .*; check the keys in the environment"):
        open_source(url)
    with pytest.raises(InputError, match=r"access refused .*; check the keys in the environment"):
        read_range(Path(url), "zarr.json", 0, 10)


def test_a_gateway_that_is_gone_may_come_back(rgw: Gateway, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_connections()
    run = open_source(url)
    with killed(rgw), pytest.raises(TransientError, match="cannot be read now"):
        run.read("CAM0", 3, 11)
    np.testing.assert_array_equal(run.read("CAM0", 3, 11), FRAMES[3:11])
