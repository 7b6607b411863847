"""ROOT files of pictures, from the experiment and from its simulation."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st
from uproot.writing.identify import to_TAxis, to_TH2x

from cygnoreco.errors import CygnoError, DataError, InputError
from cygnoreco.io.pictures import picture_name, picture_numbers
from cygnoreco.io.root_source import open_root
from cygnoreco.types import FRAME_DTYPE, Camera
from tests.io.picture_files import random_frames, write_root_pictures

FRAMES = random_frames(12)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = {f"pic_run05001_ev{number}": frame for number, frame in enumerate(FRAMES)}
    return write_root_pictures(tmp_path_factory.mktemp("root") / "histograms_Run05001.root", pictures)


def test_pictures_come_in_the_orientation_of_the_sensor_and_in_numerical_order(sound: Path) -> None:
    run = open_root(sound)
    assert (run.container, run.run_number, run.cameras, run.faults) == ("root", 5001, (Camera("CAM0", 32, 48),), ())
    table = run.table("CAM0")
    assert table.dtype == FRAME_DTYPE
    assert table["event"].tolist() == list(range(12))
    assert not table["serial"].any()
    assert not table["timestamp"].any()
    assert run.odb() == {}
    np.testing.assert_array_equal(run.read("CAM0", 0, 12), FRAMES)
    np.testing.assert_array_equal(run.read("CAM0", 9, 11), FRAMES[9:11])
    assert run.read("CAM0", 3, 3).shape == (0, 32, 48)


def test_a_source_travels_as_a_pickle(sound: Path) -> None:
    run = pickle.loads(pickle.dumps(open_root(sound)))
    np.testing.assert_array_equal(run.read("CAM0", 4, 5), FRAMES[4:5])


def test_the_digest_is_the_hash_of_the_file(sound: Path) -> None:
    assert open_root(sound).digest == hashlib.sha256(sound.read_bytes()).hexdigest()


@pytest.mark.parametrize(("dtype", "kind"), [("i2", "TH2S"), ("i4", "TH2I"), ("f4", "TH2F"), ("f8", "TH2D")])
def test_histograms_of_every_number_type_are_read_exactly(tmp_path: Path, dtype: str, kind: str) -> None:
    frame = FRAMES[0] >> 1  # what TH2S can hold
    with uproot.recreate(tmp_path / "run.root") as file:
        edges = [to_TAxis(name, "", bins, 0, bins) for name, bins in (("xaxis", 48), ("yaxis", 32))]
        file["pic_run1_ev0"] = to_TH2x("", "", np.pad(frame.astype(dtype), 1).ravel(), *[0.0] * 8, None, *edges)
    with uproot.open(tmp_path / "run.root") as file:
        assert file["pic_run1_ev0"].classname == kind
    np.testing.assert_array_equal(open_root(tmp_path / "run.root").read("CAM0", 0, 1)[0], frame)


@pytest.mark.parametrize("wrong", [-1.0, 65536.0, 0.5, np.nan])
def test_values_that_are_no_counts_are_refused(tmp_path: Path, wrong: float) -> None:
    frame = FRAMES[0].astype(float)
    frame[3, 5] = wrong
    run = open_root(write_root_pictures(tmp_path / "run.root", {"pic_run1_ev0": frame}))
    with pytest.raises(DataError, match=f"holds {wrong}: no whole number"):
        run.read("CAM0", 0, 1)


def test_pictures_that_do_not_belong_are_faults(tmp_path: Path) -> None:
    pictures = {
        "pic_run00007_ev3": FRAMES[3],
        "pic_run7_ev10": FRAMES[10],
        "pic_run00007_ev00001": FRAMES[1],
        "pic_run7_ev1": FRAMES[2],  # the event again, unpadded
        "pic_run00007_ev4": FRAMES[4][:16],  # another shape
        "pic_run00008_ev5": FRAMES[5],  # another run
        "picture": FRAMES[6],  # no number
        "normmap": FRAMES[7],  # no picture
    }
    path = write_root_pictures(tmp_path / "run.root", pictures)
    with uproot.update(path) as file:
        file["pic_run00007_ev6"] = "a text"
    run = open_root(path)
    assert run.run_number == 7
    assert run.table("CAM0")["event"].tolist() == [1, 3, 10]
    np.testing.assert_array_equal(run.read("CAM0", 0, 3), FRAMES[[1, 3, 10]])
    found = sorted((fault.kind, fault.frame) for fault in run.faults if fault.frame is not None)
    assert found == [("camera-size", 4), ("duplicate", 1), ("unreadable", 6)]
    assert sorted(fault.kind for fault in run.faults if fault.frame is None) == ["other-run", "picture-name"]


def test_the_shape_may_be_told(tmp_path: Path) -> None:
    pictures = {"pic_run1_ev0": FRAMES[0], "pic_run1_ev1": FRAMES[1], "pic_run1_ev2": FRAMES[2][:16]}
    run = open_root(write_root_pictures(tmp_path / "run.root", pictures), shapes={"CAM0": (16, 48)})
    assert run.cameras == (Camera("CAM0", 16, 48),)
    assert [fault.frame for fault in run.faults] == [0, 1]
    np.testing.assert_array_equal(run.read("CAM0", 0, 1), FRAMES[2:3, :16])


def test_a_picture_turned_by_ninety_degrees_is_found_when_read(tmp_path: Path) -> None:
    """Its histogram is as long as the others, so opening, which inflates one of them only, does not see it."""
    run = open_root(
        write_root_pictures(tmp_path / "run.root", {"pic_run1_ev0": FRAMES[0], "pic_run1_ev1": FRAMES[1].T})
    )
    with pytest.raises(DataError, match="'pic_run1_ev1' has 48 x 32 pixels instead of 32 x 48"):
        run.read("CAM0", 0, 2)


def test_only_bad_pictures_make_a_run_without_cameras(tmp_path: Path) -> None:
    run = open_root(write_root_pictures(tmp_path / "run.root", {"picture": FRAMES[0]}))
    assert run.cameras == ()
    assert len(run.faults) == 1
    with pytest.raises(InputError, match="no camera 'CAM0'; cameras: none"):
        run.table("CAM0")


def test_a_file_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    path = write_root_pictures(tmp_path / "map.root", {"normmap_lime": FRAMES[0]})
    with pytest.raises(InputError, match="it holds normmap_lime"):
        open_root(path)


def test_a_range_outside_the_run_is_refused(sound: Path) -> None:
    with pytest.raises(InputError, match=r"frames 10 to 13 of CAM0 asked for, it has 12"):
        open_root(sound).read("CAM0", 10, 13)


def test_a_file_cut_inside_its_pictures_keeps_the_others(sound: Path, tmp_path: Path) -> None:
    """ROOT's list of keys at the end is gone, so nothing can be found; with the list kept, all but the cut one."""
    content = sound.read_bytes()
    cut = tmp_path / "cut.root"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged ROOT file"):
        open_root(cut)
    with uproot.open(sound) as file:
        key = file.key("pic_run05001_ev4")
        start, stop = key.fSeekKey + key.fKeylen, key.fSeekKey + key.fNbytes
    cut.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
    run = open_root(cut)
    assert [(fault.kind, fault.frame) for fault in run.faults] == [("unreadable", 4)]
    np.testing.assert_array_equal(run.read("CAM0", 0, 11), np.delete(FRAMES, 4, axis=0))


def test_a_flipped_bit_inside_a_picture_is_found_when_read(sound: Path, tmp_path: Path) -> None:
    content = bytearray(sound.read_bytes())
    with uproot.open(sound) as file:
        key = file.key("pic_run05001_ev4")
        content[key.fSeekKey + key.fNbytes // 2] ^= 16
    path = tmp_path / "flipped.root"
    path.write_bytes(content)
    run = open_root(path)
    with pytest.raises(DataError, match="'pic_run05001_ev4'"):
        run.read("CAM0", 0, 12)
    np.testing.assert_array_equal(run.read("CAM0", 5, 12), FRAMES[5:])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_never_ends_in_a_traceback(sound: Path, data: st.DataObject) -> None:
    content = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    # The places that matter are few: the header, the keys at the end.
    content[data.draw(st.integers(4, 300))] = data.draw(st.integers(0, 255))
    tail = data.draw(st.integers(1, 3000))
    content[-tail] = data.draw(st.integers(0, 255))
    path = sound.with_name("damaged.root")
    path.write_bytes(content[: data.draw(st.one_of(st.none(), st.integers(4, len(content))))])
    with contextlib.suppress(CygnoError):
        run = open_root(path)
        for camera in run.cameras:
            for number in range(len(run.table(camera.name))):
                run.read(camera.name, number, number + 1)


@given(run=st.integers(0, 2**31 - 1), event=st.integers(0, 2**31 - 1), padding=st.integers(0, 12))
def test_numbers_are_read_from_names_padded_or_not(run: int, event: int, padding: int) -> None:
    assert picture_numbers(f"pic_run{run:0{padding}d}_ev{event:0{padding}d}") == (run, event)
    assert picture_numbers(picture_name(run, event)) == (run, event)


@given(st.text(alphabet="picrunev_0129 ;/-\u0663\u00b2", max_size=30))
def test_any_name_is_a_picture_or_none(name: str) -> None:
    numbers = picture_numbers(name)
    if numbers is not None:
        assert "pic" in name
        assert re.search(f"run0*{numbers[0]}_ev0*{numbers[1]}", name)


@pytest.mark.parametrize(
    "name", ["run1_ev2", "pic_run_ev2", "pic_run1", "pic_run1_ev99999999999", "pic_run\u0661_ev\u0662"]
)
def test_names_that_say_nothing(name: str) -> None:
    assert picture_numbers(name) is None
