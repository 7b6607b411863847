"""Results in an object store: the same bytes as in a folder, whatever the store does; on a real one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import pytest

from clusters.local import local_client
from cygnoreco import reconstruct
from cygnoreco.campaign import Order, Outcome, Standing, reconstruct_many
from cygnoreco.io.opening import open_source
from cygnoreco.recipe import Recipe
from tests.conftest import SmallRuns
from tests.io.test_remote import forget_connections
from tests.services.s3 import Gateway, client, cutting, refusing


@pytest.fixture
def order(small_runs: SmallRuns, bucket: str) -> Order:
    _ = open_source(small_runs.data).cameras  # so that blocks are tasks of their own
    recipe = Recipe.load("lime").override(list(small_runs.settings))
    return Order(small_runs.pedestal, Path(f"s3://{bucket}/reco"), recipe, small_runs.response, block=4)


@contextmanager
def workers(gateway: Gateway) -> Iterator[distributed.Client]:
    """Give workers that know the store by their environment, as this process does meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gateway.environment.items():
            patch.setenv(name, value)
        with local_client(2) as found:
            assert found is not None
            yield found
    forget_connections()


def stored(gateway: Gateway, bucket: str) -> dict[str, bytes]:
    """Every object by its name below the output folder."""
    s3 = client(gateway)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
    return {key.removeprefix("reco/"): s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if "summary" not in name}


def plain(small_runs: SmallRuns, order: Order, out: Path) -> dict[str, str]:
    """Hash of every file of the same result in a folder; the stored pedestal is a campaign's."""
    reconstruct(
        small_runs.data, pedestal=order.pedestal, response=order.response, recipe=order.recipe, out=out, threads=1
    )
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return digests({name: content for name, content in files.items() if not name.endswith(".lock")})


def only(outcomes: Iterator[Outcome]) -> Any:
    (outcome,) = outcomes
    assert outcome.error is None, outcome.error
    return outcome


def without_pedestal(files: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in files.items() if not name.startswith("calibration/")}


def test_a_result_in_a_store_is_that_in_a_folder(
    rgw: Gateway, bucket: str, order: Order, small_runs: SmallRuns, tmp_path: Path
) -> None:
    standings: list[Standing] = []
    with workers(rgw) as here:
        outcome = only(reconstruct_many([small_runs.data], order, here, watch=standings.append))
        found = stored(rgw, bucket)
        assert without_pedestal(digests(found)) == plain(small_runs, order, tmp_path)
        assert sum(name.startswith("calibration/") for name in found) == 1
        assert outcome.summary["output"] == f"s3://{bucket}/reco/reco_run00011_3D.root"
        assert standings[-1].blocks == 4
        again = only(reconstruct_many([small_runs.data], order, here, watch=standings.append))
        assert (again.resumed, standings[-1].blocks) == (14, 0)
        assert stored(rgw, bucket) == found
        forced = only(reconstruct_many([small_runs.data], replace(order, force=True), here, watch=standings.append))
        assert (forced.resumed, standings[-1].blocks) == (0, 4)
        assert digests(stored(rgw, bucket)) == digests(found)


def test_committed_blocks_in_a_store_are_not_done_again(
    rgw: Gateway, bucket: str, order: Order, small_runs: SmallRuns, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(standing: Standing) -> None:
        if standing.blocks:
            raise StoppedError

    standings: list[Standing] = []
    with workers(rgw) as here:
        with pytest.raises(StoppedError):
            list(reconstruct_many([small_runs.data], order, here, watch=stop))
        assert any(".part.npz" in name for name in stored(rgw, bucket))
        outcome = only(reconstruct_many([small_runs.data], order, here, watch=standings.append))
    assert outcome.resumed >= 4
    assert standings[-1].blocks <= 3
    assert without_pedestal(digests(stored(rgw, bucket))) == plain(small_runs, order, tmp_path)


@pytest.mark.parametrize("fault", ["refused", "cut"])
def test_a_store_that_refuses_or_cuts_writes(
    rgw: Gateway, bucket: str, order: Order, small_runs: SmallRuns, tmp_path: Path, fault: str
) -> None:
    with (
        refusing(rgw, 6) if fault == "refused" else cutting(rgw, 2000, times=6) as between,
        workers(between) as here,
    ):
        only(reconstruct_many([small_runs.data], order, here))
    assert without_pedestal(digests(stored(rgw, bucket))) == plain(small_runs, order, tmp_path)


def test_a_damaged_part_in_a_store_is_done_again(
    rgw: Gateway, bucket: str, order: Order, small_runs: SmallRuns, tmp_path: Path
) -> None:
    key = "frames-000000-000004.part.npz"
    standings: list[Standing] = []
    with workers(rgw) as here:
        only(reconstruct_many([small_runs.data], order, here))
        (folder,) = {name.split("/")[1] for name in stored(rgw, bucket) if name.startswith("datasets/")}
        s3 = client(rgw)
        for name in stored(rgw, bucket):
            if "/result/" in name:
                s3.delete_object(Bucket=bucket, Key=f"reco/{name}")
        s3.put_object(Bucket=bucket, Key=f"reco/datasets/{folder}/parts/{key}", Body=b"damaged")
        only(reconstruct_many([small_runs.data], order, here, watch=standings.append))
    assert without_pedestal(digests(stored(rgw, bucket))) == plain(small_runs, order, tmp_path)


def test_keys_that_are_refused_are_one_clear_error(
    rgw: Gateway, bucket: str, order: Order, small_runs: SmallRuns
) -> None:
    with workers(replace(rgw, secret_key="wrong")) as here:
        (outcome,) = reconstruct_many([small_runs.data], order, here)
    assert "access refused" in str(outcome.error)
