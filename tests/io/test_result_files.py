"""The files of a result: ROOT, Zarr and the parts they are made of."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cygnoreco.dataset import load_tables
from cygnoreco.errors import InputError
from cygnoreco.io import parts
from cygnoreco.io.archive import load_arrays
from cygnoreco.io.parts import committed_parts, part_path, read_part, write_part
from cygnoreco.io.root_tables import read_root, write_root
from cygnoreco.io.zarr_tables import read_zarr, write_zarr
from cygnoreco.tables import Tables, empty_tables
from cygnoreco.types import CLUSTER_DTYPE, EVENT_DTYPE, REDPIX_DTYPE, Fault
from tests.tables import random_tables, same


def write(path: Path, pieces: list[Tables]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with write_root(path, key="ab", time=1_700_000_000) as writer:
        for piece in pieces:
            writer.append(piece)
        writer.finish({"nsigma": np.float32(0.6), "rebin": np.int32(4)}, {"key": "ab"})
    return path


def write_tables(path: Path, pieces: list[Tables]) -> Path:
    writer = write_zarr(path)
    for piece in pieces:
        writer.append(piece)
    writer.finish({"key": "ab"})
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_root_file_has_the_official_shape(tmp_path: Path) -> None:
    tables = random_tables(130)
    with uproot.open(write(tmp_path / "reco.root", [tables])) as file:
        tree = file["Events"]
        names = [name for dtype in (EVENT_DTYPE, CLUSTER_DTYPE, REDPIX_DTYPE) for name in dtype.names or ()]
        assert set(tree.keys()) == set(names)
        for counter, counted in (("nSc", "sc_size"), ("nRedpix", "redpix_iz")):
            leaf = tree[counter].member("fLeaves")[0]
            assert leaf.classname == "TLeafI"
            assert leaf.member("fIsUnsigned")  # macros connect a UInt_t to it
            assert tree[counted].member("fLeaves")[0].member("fLeafCount") is leaf
        assert tree["sc_length"].title == "extent along the major axis [px]"
        assert tree["redpix_ix"].typename == "int32_t[]"
        assert file["Reco_params"].arrays(library="np") == {"nsigma": [np.float32(0.6)], "rebin": [4]}
        assert json.loads(file["provenance"]) == {"key": "ab"}


def test_root_file_gives_back_the_tables(tmp_path: Path) -> None:
    tables = random_tables(130)
    path = write(tmp_path / "reco.root", [tables])
    assert same(read_root(path), tables)
    assert same(load_tables(path), tables)


def test_root_file_without_events(tmp_path: Path) -> None:
    assert same(read_root(write(tmp_path / "reco.root", [])), empty_tables())


def test_same_tables_same_bytes_however_they_were_cut(tmp_path: Path) -> None:
    tables = random_tables(150)
    one = write(tmp_path / "a" / "reco.root", [tables])
    time.sleep(1.1)  # a date in the file would show
    pieces = [tables.rows(0, 7), tables.rows(7, 7), tables.rows(7, 100), tables.rows(100, 150)]
    other = write(tmp_path / "b" / "reco.root", pieces)
    assert one.read_bytes() == other.read_bytes()


def test_columns_that_a_file_lacks_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "old.root"
    with uproot.recreate(path) as file:
        tree = file.mktree("Events", {"run": "int32", "sc": "var * {size: float32}"},
                           counter_name=lambda _: "nSc", field_name=lambda a, b: f"{a}_{b}")  # fmt: skip
        tree.extend({"run": np.array([7, 7]), "sc": ak.Array([[{"size": np.float32(3)}], []])})
    tables = read_root(path)
    assert tables.events["run"].tolist() == [7, 7]
    assert tables.clusters["sc_size"].tolist() == [3.0]
    assert tables.clusters["sc_theta"].tolist() == [0.0]


def test_reading_what_is_no_result(tmp_path: Path) -> None:
    other = tmp_path / "other.root"
    with uproot.recreate(other) as file:
        file["note"] = "nothing"
    with pytest.raises(InputError, match=r"no tree 'Events' in .*other.root'; it holds: note"):
        read_root(other)
    text = tmp_path / "text.root"
    text.write_text("no ROOT file at all, but long enough to look at the first bytes of it")
    with pytest.raises(InputError, match="cannot be read as a ROOT file"):
        read_root(text)
    with pytest.raises(InputError, match="no result at"):
        load_tables(tmp_path / "absent.root")
    with pytest.raises(InputError, match="no finished result in"):
        load_tables(tmp_path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7), st.integers(1, 90))
def test_baskets_depend_on_the_events_alone(tmp_path: Path, lengths: list[int], events: int, pixels: int) -> None:
    tables = random_tables(sum(lengths))
    edges = np.concatenate(([0], np.cumsum(lengths, dtype=int)))
    pieces = [tables.rows(int(a), int(b)) for a, b in pairwise(edges)]
    # What the rule says: a basket ends with the event by which it has enough events or enough pixels.
    expected, waiting = [], [0, 0]
    for saved in tables.events["nRedpix"].tolist():
        waiting = [waiting[0] + 1, waiting[1] + saved]
        if waiting[0] == events or waiting[1] >= pixels:
            expected.append(waiting[0])
            waiting = [0, 0]
    with (
        mock.patch("cygnoreco.io.root_tables.BASKET_EVENTS", events),
        mock.patch("cygnoreco.io.root_tables.BASKET_PIXELS", pixels),
    ):
        path = write(tmp_path / "reco.root", pieces)
    assert same(read_root(path), tables)
    with uproot.open(path) as file:
        branch = file["Events"]["redpix_iz"]
        found = [branch.basket(place).num_entries for place in range(branch.num_baskets)]
    assert found == expected + [waiting[0]] * (waiting[0] > 0)


def test_zarr_gives_back_the_tables(tmp_path: Path) -> None:
    tables = random_tables(20)
    path = write_tables(tmp_path / "reco_run00001_3D.zarr", [tables.rows(0, 3), tables.rows(3, 20)])
    assert same(read_zarr(path), tables)
    assert same(load_tables(path), tables)
    assert same(load_tables(tmp_path), tables)


def test_zarr_tables_longer_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cygnoreco.io.zarr_tables.CHUNK", 64)
    tables = random_tables(150)
    pieces = [tables.rows(start, min(start + 7, 150)) for start in range(0, 150, 7)]
    path = write_tables(tmp_path / "t.zarr", pieces)
    assert same(read_zarr(path), tables)
    other = write_tables(tmp_path / "u.zarr", [tables])
    assert files_of(path) == files_of(other)


def test_zarr_without_anything(tmp_path: Path) -> None:
    assert same(read_zarr(write_tables(tmp_path / "t.zarr", [])), empty_tables())
    with pytest.raises(InputError, match="no Zarr group"):
        read_zarr(tmp_path / "none.zarr")


def test_awkward_nests_clusters_and_pixels() -> None:
    tables = random_tables(9)
    array = tables.awkward()
    assert ak.num(array.sc).tolist() == tables.events["nSc"].tolist()
    assert ak.flatten(array.sc.integral).to_list() == tables.clusters["sc_integral"].tolist()
    assert ak.flatten(array.redpix.iz).to_list() == tables.redpix["redpix_iz"].tolist()


def test_awkward_copies(tmp_path: Path) -> None:
    tables = random_tables(1)
    array = tables.awkward()
    before = array.event.tolist()
    tables.events["event"] += 1
    assert array.event.tolist() == before


def test_archives_are_loaded_one_at_a_time(tmp_path: Path) -> None:
    """NumPy parses their heads as Python, which failed now and then when threads did it at once."""
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(3), b=np.float32(2))
    load, at_once, most = np.load, 0, 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.001)
        archive = load(*arguments, **named)
        at_once -= 1
        return archive

    with mock.patch("numpy.load", counted), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load_arrays(path), range(20)))
    assert most == 1
    assert all(each["a"].tolist() == [0, 1, 2] and each["b"] == 2 for each in found)


def test_a_part_gives_back_its_tables(tmp_path: Path) -> None:
    tables = random_tables(8)
    tables = Tables(tables.events, tables.clusters, tables.redpix, vetoed=(3,))
    fault = Fault("unreadable", "bad checksum", event=5, offset=10, frame=4)
    receipt = write_part(tmp_path, 16, 24, tables, seconds={"pedsub": 0.5}, size=1000, faults=(fault,))
    assert (receipt.start, receipt.stop, receipt.vetoed, receipt.faults) == (16, 24, (3,), (fault,))
    assert receipt.counts["clusters"] == len(tables.clusters)
    again = read_part(receipt)
    assert same(again, tables)
    assert again.vetoed == (3,)
    assert committed_parts(tmp_path) == [receipt]


def test_a_damaged_part_does_not_count_and_is_removed(tmp_path: Path) -> None:
    good = write_part(tmp_path, 0, 8, random_tables(8), seconds={}, size=0)
    write_part(tmp_path, 8, 16, random_tables(8), seconds={}, size=0)
    damaged = part_path(tmp_path, 8, 16)
    content = bytearray(damaged.read_bytes())
    content[400] ^= 1
    damaged.write_bytes(content)
    cut = part_path(tmp_path, 16, 24)
    cut.write_bytes(Path(good.path).read_bytes()[:1000])
    assert committed_parts(tmp_path) == [good]
    assert not damaged.exists()
    assert not cut.exists()


def test_a_part_with_other_columns_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = write_part(tmp_path, 0, 8, random_tables(8), seconds={}, size=0)
    other = np.dtype([*EVENT_DTYPE.descr[:-1], ("renamed", EVENT_DTYPE.descr[-1][1])])
    monkeypatch.setitem(parts.TABLES, "events", other)
    with pytest.raises(ValueError, match=r"events\.npy is not a table of 8 rows"):
        read_part(receipt)
    assert committed_parts(tmp_path) == []


def test_threads_read_parts_side_by_side(tmp_path: Path) -> None:
    """NumPy parses the heads of its files as Python, which failed now and then when threads did it at once."""
    pieces = [random_tables(8, seed=seed) for seed in range(4)]
    receipts = [
        write_part(tmp_path, start, start + 8, tables, seconds={}, size=0)
        for start, tables in zip(range(0, 32, 8), pieces, strict=True)
    ]

    def read(turn: int) -> bool:
        return same(read_part(receipts[turn % 4]), pieces[turn % 4])

    with (
        mock.patch("ast.literal_eval", side_effect=AssertionError),
        ThreadPoolExecutor(4) as pool,
    ):
        assert all(pool.map(read, range(200)))


def test_numpy_reads_a_part(tmp_path: Path) -> None:
    tables = random_tables(8)
    receipt = write_part(tmp_path, 0, 8, tables, seconds={}, size=7)
    with np.load(receipt.path) as archive:
        np.testing.assert_array_equal(archive["events"], tables.events)
        np.testing.assert_array_equal(archive["redpix"], tables.redpix)
        assert json.loads(archive["note.json"])["counts"]["bytes"] == 7


def test_damage_anywhere_in_a_part_is_found(tmp_path: Path) -> None:
    """Also in the list of members at its end, over which zipfile trips in a dozen ways."""
    tables = random_tables(2)
    receipt = write_part(tmp_path, 0, 2, tables, seconds={}, size=0)
    path = Path(receipt.path)
    sound = path.read_bytes()
    for place in [*range(300), *range(len(sound) - 1000, len(sound))]:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert same(read_part(receipt), tables)  # of what nobody looks at: dates, attributes
        except ValueError:
            assert committed_parts(tmp_path) == []


def test_of_overlapping_parts_the_longer_is_kept(tmp_path: Path) -> None:
    short = write_part(tmp_path, 0, 4, random_tables(4), seconds={}, size=0)
    long = write_part(tmp_path, 0, 8, random_tables(8), seconds={}, size=0)
    last = write_part(tmp_path, 8, 9, random_tables(1), seconds={}, size=0)
    assert short not in committed_parts(tmp_path)
    assert committed_parts(tmp_path) == [long, last]
