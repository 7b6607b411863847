"""Copies lose nothing: frames, numbers, times, settings, and the MIDAS stream itself."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lz4.frame
import numpy as np
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cygnoreco.errors import DataError, InputError
from cygnoreco.io.convert import PRESETS, convert, verify_copy
from cygnoreco.io.midas_writer import MidasWriter
from cygnoreco.io.opening import open_source
from tests.io.picture_files import random_frames, write_hdf5_pictures, write_root_pictures

SHAPES = {"CAM0": (32, 48), "CAM1": (24, 40)}
COUNT = 19
CAM0 = random_frames(COUNT, *SHAPES["CAM0"], seed=1)
CAM1 = random_frames(COUNT, *SHAPES["CAM1"], seed=2)
ODB = {"Runinfo": {"Run number": 17}, "Logger": {"Password": "opensesame"}, "Values": [1.5, float("inf")]}
INFLATE: dict[str, Callable[[bytes], bytes]] = {
    ".mid": bytes, ".mid.gz": gzip.decompress, ".mid.bz2": bz2.decompress, ".mid.lz4": lz4.frame.decompress,
}  # fmt: skip
COPIES = ("run.zarr", "run.h5", "run.root")


def write_midas(path: Path, count: int = COUNT) -> Path:
    """Two cameras, waveforms, slow events between the triggers, messages, and times that run."""
    with MidasWriter(path, run=17, odb=ODB, timestamp=1_700_000_000) as writer:
        for number in range(count):
            banks: dict[str, Any] = {"DIG0": np.arange(number * 100, dtype="u2"), "CAM0": CAM0[number]}
            if number % 3 == 0:
                banks["CAM1"] = CAM1[number]
            writer.event(1, banks, timestamp=1_700_000_000 + number, serial=number + 5)
            if number % 4 == 0:
                writer.event(5, {"MSRD": np.full(24, number, "f4")}, timestamp=1_700_000_000 + number)
        writer.message("all is well", 1_700_000_100)
    return path


@pytest.fixture(scope="module")
def midas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_midas(tmp_path_factory.mktemp("midas") / "run00017.mid.gz")


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_midas_run_is_the_run(midas: Path, tmp_path: Path, name: str) -> None:
    calls = []
    made = convert(midas, tmp_path / name, shapes=SHAPES, progress=lambda done, total: calls.append((done, total)))
    origin, copy = open_source(midas, shapes=SHAPES), open_source(tmp_path / name)
    assert made.path == copy.path
    assert made.frames == {"CAM0": 19, "CAM1": 7}
    assert made.faults == copy.faults == origin.faults == ()
    assert (copy.run_number, copy.cameras) == (17, origin.cameras)
    assert copy.odb() == origin.odb()
    assert "opensesame" not in str(copy.odb())
    for camera, frames in (("CAM0", CAM0), ("CAM1", CAM1[::3])):
        np.testing.assert_array_equal(copy.table(camera), origin.table(camera))
        np.testing.assert_array_equal(copy.read(camera, 0, len(frames)), frames)
        np.testing.assert_array_equal(copy.read(camera, 3, 6), frames[3:6])
    assert calls[-1] == (26, 26)
    assert calls == sorted(calls)


@pytest.mark.parametrize("suffix", INFLATE)
@pytest.mark.parametrize("name", COPIES)
def test_the_midas_stream_comes_back_bit_for_bit(midas: Path, tmp_path: Path, name: str, suffix: str) -> None:
    convert(midas, tmp_path / name, shapes=SHAPES)
    back = tmp_path / f"back{suffix}"
    made = convert(tmp_path / name, back)
    assert INFLATE[suffix](back.read_bytes()) == gzip.decompress(midas.read_bytes())
    assert made.frames == {"CAM0": 19, "CAM1": 7}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_midas_stream_comes_back_from_every_preset(midas: Path, tmp_path: Path, preset: Any) -> None:
    convert(midas, tmp_path / "run.zarr", shapes=SHAPES, preset=preset)
    convert(tmp_path / "run.zarr", tmp_path / "back.mid")
    assert (tmp_path / "back.mid").read_bytes() == gzip.decompress(midas.read_bytes())


@pytest.mark.parametrize("name", COPIES)
def test_a_stream_longer_than_a_block_comes_back(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cygnoreco.io.walk.RESIDUE_BLOCK", 1000)
    origin = write_midas(tmp_path / "run00017.mid", 4)
    convert(origin, tmp_path / name, shapes=SHAPES)
    convert(tmp_path / name, tmp_path / "back.mid")
    assert (tmp_path / "back.mid").read_bytes() == origin.read_bytes()


def test_midas_may_be_compressed_otherwise(midas: Path, tmp_path: Path) -> None:
    convert(midas, tmp_path / "run.mid.lz4", shapes=SHAPES)
    assert lz4.frame.decompress((tmp_path / "run.mid.lz4").read_bytes()) == gzip.decompress(midas.read_bytes())


def test_all_ways_lead_to_the_same_content(midas: Path, tmp_path: Path) -> None:
    first = convert(midas, tmp_path / "a.zarr", shapes=SHAPES)
    second = convert(tmp_path / "a.zarr", tmp_path / "b.root")
    third = convert(tmp_path / "b.root", tmp_path / "c.h5")
    last = convert(tmp_path / "c.h5", tmp_path / "d.mid")
    assert first.content_digest == second.content_digest == third.content_digest == last.content_digest
    assert all(verify_copy(tmp_path / name) == first.content_digest for name in ("a.zarr", "b.root", "c.h5"))
    assert open_source(tmp_path / "c.h5").header.origin_digest == open_source(midas, shapes=SHAPES).digest
    assert (tmp_path / "d.mid").read_bytes() == gzip.decompress(midas.read_bytes())


def test_programs_of_the_experiment_see_the_first_camera(midas: Path, tmp_path: Path) -> None:
    """They take every object with `pic` in its name, and its transpose for the image."""
    convert(midas, tmp_path / "run.root", shapes=SHAPES)
    with uproot.open(tmp_path / "run.root") as file:
        pictures = [key for key in file.keys() if "pic" in key]  # noqa: SIM118
        assert pictures == [f"pic_run00017_ev{number};1" for number in range(COUNT)]
        assert file["pic_run00017_ev3"].classname == "TH2I"
        np.testing.assert_array_equal(file["pic_run00017_ev3"].values().T, CAM0[3])
        assert file["pic_run00017_ev3"].axis("x").high == 48


@pytest.mark.parametrize("name", COPIES)
def test_a_run_without_cameras_is_kept_too(tmp_path: Path, name: str) -> None:
    with MidasWriter(tmp_path / "run00003.mid", run=3) as writer:
        writer.event(1, {"DIG0": np.arange(1000, dtype="u2")})
    made = convert(tmp_path / "run00003.mid", tmp_path / name)
    assert made.frames == {}
    convert(tmp_path / name, tmp_path / "back.mid")
    assert (tmp_path / "back.mid").read_bytes() == (tmp_path / "run00003.mid").read_bytes()


@pytest.mark.parametrize("name", COPIES)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_run_is_copied_as_far_as_it_can_be_read(tmp_path: Path, name: str, data: st.DataObject) -> None:
    """Whatever is wrong: all that could be inflated comes back, and the faults are told and kept."""
    sound = write_midas(tmp_path / "sound.mid", 5).read_bytes()
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(100, len(sound) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = damaged[: data.draw(st.one_of(st.none(), st.integers(1000, len(sound))))]
    path = tmp_path / "run00017.mid"
    path.write_bytes(damaged)
    origin = open_source(path, shapes=SHAPES)
    made = convert(path, tmp_path / name, shapes=SHAPES, overwrite=True)
    copy = open_source(tmp_path / name)
    assert made.faults == copy.faults == origin.faults
    for camera in origin.cameras:
        count = len(origin.table(camera.name))
        np.testing.assert_array_equal(copy.table(camera.name), origin.table(camera.name))
        np.testing.assert_array_equal(copy.read(camera.name, 0, count), origin.read(camera.name, 0, count))
    convert(tmp_path / name, tmp_path / "back.mid", overwrite=True)
    assert (tmp_path / "back.mid").read_bytes() == damaged


def test_a_cut_compressed_run_keeps_what_could_be_inflated(midas: Path, tmp_path: Path) -> None:
    cut = tmp_path / "run00017.mid.gz"
    cut.write_bytes(midas.read_bytes()[:-20_000])
    made = convert(cut, tmp_path / "run.zarr", shapes=SHAPES)
    assert made.faults
    assert 0 < made.frames["CAM0"] < COUNT
    np.testing.assert_array_equal(
        open_source(tmp_path / "run.zarr").read("CAM0", 0, made.frames["CAM0"]), CAM0[: made.frames["CAM0"]]
    )
    convert(tmp_path / "run.zarr", tmp_path / "back.mid")
    assert gzip.decompress(midas.read_bytes()).startswith((tmp_path / "back.mid").read_bytes())
    with pytest.raises(DataError, match="refused for"):
        convert(cut, tmp_path / "strict.zarr", shapes=SHAPES, strict=True)
    assert not (tmp_path / "strict.zarr").exists()


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("write", [write_root_pictures, write_hdf5_pictures])
def test_pictures_are_copied_with_their_numbers(tmp_path: Path, name: str, write: Callable[..., Path]) -> None:
    origin = write(tmp_path / "origin", {f"pic_run7_ev{2 * number}": CAM0[number] for number in range(COUNT)})
    made = convert(origin, tmp_path / name)
    assert made.frames == {"CAM0": COUNT}
    copy = open_source(tmp_path / name)
    assert copy.run_number == 7
    assert copy.table("CAM0")["event"].tolist() == list(range(0, 2 * COUNT, 2))
    np.testing.assert_array_equal(copy.read("CAM0", 0, COUNT), CAM0)
    with pytest.raises(InputError, match="only a copy of a MIDAS run"):
        convert(tmp_path / name, tmp_path / "back.mid")


def test_a_picture_that_cannot_be_read_is_left_out_and_told(tmp_path: Path) -> None:
    pictures: dict[str, Any] = {f"pic_run7_ev{number}": CAM0[number].astype("i4") for number in range(COUNT)}
    pictures["pic_run7_ev4"][0, 0] = -1
    origin = write_root_pictures(tmp_path / "origin.root", pictures)
    made = convert(origin, tmp_path / "run.zarr")
    assert [(fault.kind, fault.frame) for fault in made.faults] == [("unreadable", 4)]
    copy = open_source(tmp_path / "run.zarr")
    assert copy.faults == made.faults
    assert 4 not in copy.table("CAM0")["event"]
    np.testing.assert_array_equal(copy.read("CAM0", 0, COUNT - 1), np.delete(CAM0, 4, axis=0))
    with pytest.raises(DataError, match=r"holds -1\.0: no whole number"):
        convert(origin, tmp_path / "strict.zarr", strict=True)
    assert not (tmp_path / "strict.zarr").exists()


@pytest.mark.parametrize(
    ("target", "to", "text"),
    [
        ("run.zarrr", None, r"did you mean '.zarr'\?"),
        ("run.zarr", "root", "the name says zarr, not root"),
        ("run.zarr", "zarrr", r"no container 'zarrr' to convert to; did you mean 'zarr'\?"),
        ("origin.root", None, "onto itself"),
        ("there.h5", None, "exists already"),
        ("there.zarr", None, "in the place of the copy is a file"),
    ],
)
def test_targets_that_cannot_be(tmp_path: Path, target: str, to: Any, text: str) -> None:
    origin = write_root_pictures(tmp_path / "origin.root", {"pic_run7_ev0": CAM0[0]})
    for name in ("there.h5", "there.zarr"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=text):
        convert(origin, tmp_path / target, to)
    with pytest.raises(InputError, match="onto itself"):
        convert(origin, origin, overwrite=True)


def test_what_is_there_is_replaced_if_asked(tmp_path: Path) -> None:
    origin = write_root_pictures(tmp_path / "origin.root", {"pic_run7_ev0": CAM0[0]})
    (tmp_path / "run.h5").write_text("old")
    convert(origin, tmp_path / "run.h5", overwrite=True)
    np.testing.assert_array_equal(open_source(tmp_path / "run.h5").read("CAM0", 0, 1), CAM0[:1])


def test_an_interrupted_copy_leaves_nothing(tmp_path: Path) -> None:
    origin = write_root_pictures(tmp_path / "origin.root", {"pic_run7_ev0": CAM0[0]})

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for name in COPIES:
        with pytest.raises(KeyboardInterrupt):
            convert(origin, tmp_path / name, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["origin.root"]


@pytest.mark.parametrize("damage", ["frames/CAM0", "table/CAM0", "residue", "odb", "cygnoreco"])
def test_a_damaged_hdf5_copy_is_a_clear_error(midas: Path, tmp_path: Path, damage: str) -> None:
    convert(midas, tmp_path / "run.h5", shapes=SHAPES)
    with h5py.File(tmp_path / "run.h5", "a") as file:
        del file[damage]
    with pytest.raises((DataError, InputError), match=r"run\.h5"):
        verify_copy(tmp_path / "run.h5")


def test_a_root_copy_that_lost_a_frame_is_a_clear_error(midas: Path, tmp_path: Path) -> None:
    convert(midas, tmp_path / "run.root", shapes=SHAPES)
    with uproot.update(tmp_path / "run.root") as file:
        del file["pic_run00017_ev3"]
    with pytest.raises(DataError, match=r"1 of 19 frames of CAM0 are missing: pic_run00017_ev3"):
        open_source(tmp_path / "run.root")


def test_only_copies_can_be_verified(midas: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no copy"):
        verify_copy(write_root_pictures(tmp_path / "origin.root", {"pic_run7_ev0": CAM0[0]}))
