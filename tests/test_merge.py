"""Parts become files while others are being made: the same files, whatever the order, and none after an error."""

from __future__ import annotations

import hashlib
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cygnoreco.dataset import dataset_of, publishing
from cygnoreco.errors import TransientError
from cygnoreco.io.parts import Receipt, write_part
from cygnoreco.io.root_tables import read_root
from cygnoreco.io.zarr_tables import read_zarr
from cygnoreco.merge import Merge
from cygnoreco.tables import FILE_CHECKSUM, Tables
from tests.tables import random_tables, same

EVENTS, BLOCK = 100, 7


@pytest.fixture
def tables() -> Tables:
    return random_tables(EVENTS)


@pytest.fixture
def receipts(tables: Tables, tmp_path: Path) -> list[Receipt]:
    """Parts of the tables, in order."""
    edges = [*range(0, EVENTS, BLOCK), EVENTS]
    return [
        write_part(tmp_path, start, stop, tables.rows(start, stop), seconds={}, size=0)
        for start, stop in pairwise(edges)
    ]


def merged(
    folder: Path,
    added: list[Receipt],
    receipts: list[Receipt],
    *,
    thread: bool = True,
    quality: int = 0,
    time: int = 9,
) -> tuple[Path, Path]:
    folder.mkdir()
    with Merge(folder, key="ab", time=9, quality=0, thread=thread) as merge:
        for receipt in added:
            merge.add(receipt)
        merge.finish(receipts, quality=quality, time=time, parameters={"a": np.int32(1)}, provenance={"key": "ab"})
    assert merge.sha256 == hashlib.sha256(merge.root.read_bytes()).hexdigest()
    return merge.root, merge.zarr


@pytest.mark.parametrize("thread", [False, True])
def test_the_order_in_which_parts_come_does_not_matter(
    tables: Tables, receipts: list[Receipt], tmp_path: Path, thread: bool
) -> None:
    root, zarr = merged(tmp_path / "a", receipts, receipts)
    assert same(read_root(root), tables)
    assert same(read_zarr(zarr), tables)
    shuffled = [receipts[place] for place in np.random.default_rng(1).permutation(len(receipts))]
    other, _ = merged(tmp_path / "b", shuffled, receipts, thread=thread)
    assert other.read_bytes() == root.read_bytes()


def test_what_turns_out_at_the_end_is_in_every_event(tables: Tables, receipts: list[Receipt], tmp_path: Path) -> None:
    """Quality and date of the run can be other than was thought when the first part was merged."""
    root, zarr = merged(tmp_path / "a", receipts, receipts, quality=FILE_CHECKSUM, time=1_700_000_000)
    expected = tables.events["quality"] | FILE_CHECKSUM
    np.testing.assert_array_equal(read_root(root).events["quality"], expected)
    np.testing.assert_array_equal(read_zarr(zarr).events["quality"], expected)
    right_away = tmp_path / "b"
    right_away.mkdir()
    with Merge(right_away, key="ab", time=1_700_000_000, quality=FILE_CHECKSUM, thread=False) as merge:
        merge.finish(
            receipts, quality=FILE_CHECKSUM, time=1_700_000_000, parameters={"a": np.int32(1)}, provenance={"key": "ab"}
        )
    assert merge.root.read_bytes() == root.read_bytes()


def test_parts_that_are_not_of_the_run_after_all_are_left_out(
    tables: Tables, receipts: list[Receipt], tmp_path: Path
) -> None:
    root, zarr = merged(tmp_path / "a", receipts, receipts[:-2])
    expected = tables.rows(0, receipts[-3].stop)
    assert same(read_root(root), expected)
    assert same(read_zarr(zarr), expected)


def test_an_error_of_the_merging_is_raised_where_the_parts_come_from(receipts: list[Receipt], tmp_path: Path) -> None:
    Path(receipts[1].path).unlink()
    with pytest.raises(TransientError, match="the same command makes it again"):
        merged(tmp_path / "a", receipts, receipts)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("file", ["root_tables._RootWriter", "zarr_tables._ZarrWriter"])
@pytest.mark.parametrize("step", ["append", "finish"])
def test_an_error_of_either_file_is_raised(
    receipts: list[Receipt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thread: bool, file: str, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(f"cygnoreco.io.{file}.{step}", full)
    with pytest.raises(OSError, match="no space left"):
        merged(tmp_path / "a", receipts, receipts, thread=thread)
    assert not [each for each in threading.enumerate() if each.name.startswith("ThreadPoolExecutor")]


def test_an_error_that_was_passed_over_is_no_result(receipts: list[Receipt], tmp_path: Path) -> None:
    Path(receipts[0].path).unlink()
    with Merge(tmp_path, key="ab", time=9, quality=0, thread=False) as merge:
        with pytest.raises(TransientError):
            merge.add(receipts[0])
        with pytest.raises(RuntimeError, match="failed before"):
            merge.finish(receipts[:1], quality=0, time=9, parameters={}, provenance={})


def test_what_is_not_finished_leaves_nothing(receipts: list[Receipt], tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "out", run=1, camera="CAM0", key="ab", several=False)

    def publish() -> None:
        with publishing(dataset, key="ab", time=9, quality=0, thread=True) as merge:
            for receipt in receipts:
                merge.add(receipt)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish()
    assert not list(dataset.folder.iterdir())
    assert all(Path(receipt.path).exists() for receipt in receipts)
