"""HDF5 files of pictures."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cygnoreco.errors import CygnoError, DataError, InputError
from cygnoreco.io.hdf5_source import open_hdf5
from cygnoreco.types import Camera
from tests.io.picture_files import random_frames, write_hdf5_pictures

FRAMES = random_frames(12)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = {f"pic_run05001_ev{number}": frame for number, frame in enumerate(FRAMES)}
    return write_hdf5_pictures(
        tmp_path_factory.mktemp("hdf5") / "histograms_Run05001.h5", pictures, compression="gzip", chunks=(48, 32)
    )


def test_pictures_come_in_the_orientation_of_the_sensor_and_in_numerical_order(sound: Path) -> None:
    run = pickle.loads(pickle.dumps(open_hdf5(sound)))
    assert (run.container, run.run_number, run.cameras, run.faults) == ("hdf5", 5001, (Camera("CAM0", 32, 48),), ())
    assert run.table("CAM0")["event"].tolist() == list(range(12))
    np.testing.assert_array_equal(run.read("CAM0", 0, 12), FRAMES)
    np.testing.assert_array_equal(run.read("CAM0", 9, 11), FRAMES[9:11])
    assert run.odb() == {}


def test_pictures_that_do_not_belong_are_faults(tmp_path: Path) -> None:
    path = write_hdf5_pictures(
        tmp_path / "run.h5",
        {"pic_run7_ev10": FRAMES[10], "pic_run7_ev9": FRAMES[9], "pic_run7_ev1": FRAMES[1][:16], "map": FRAMES[0]},
    )
    with h5py.File(path, "a") as file:
        file.create_group("pic_run7_ev2")
        file.create_dataset("pic_run7_ev3", data=FRAMES)
        file.create_dataset("pic_run7_ev4", data=np.full((48, 32), b"x"))
        file.create_dataset("pic_run7_ev5", shape=(2**20, 2**20), dtype="u2", chunks=(64, 64))  # nothing is stored
        file["pic_run7_ev6"] = h5py.SoftLink("/nowhere")
    run = open_hdf5(path)
    assert run.table("CAM0")["event"].tolist() == [9, 10]
    np.testing.assert_array_equal(run.read("CAM0", 0, 2), FRAMES[9:11])
    assert {(fault.kind, fault.frame) for fault in run.faults} == {
        ("camera-size", 1), *(("unreadable", event) for event in (2, 3, 4, 5, 6)),
    }  # fmt: skip


def test_values_that_are_no_counts_are_refused(tmp_path: Path) -> None:
    frame = FRAMES[0].astype("i8")
    frame[3, 5] = 70_000
    run = open_hdf5(write_hdf5_pictures(tmp_path / "run.h5", {"pic_run1_ev0": frame}))
    with pytest.raises(DataError, match="holds 70000: no whole number"):
        run.read("CAM0", 0, 1)


def test_a_file_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it holds map"):
        open_hdf5(write_hdf5_pictures(tmp_path / "map.h5", {"map": FRAMES[0]}))


def test_a_cut_file_is_a_clear_error(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes(sound.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"cut\.h5: damaged HDF5 file .*truncated"):
        open_hdf5(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_never_ends_in_a_traceback(sound: Path, data: st.DataObject) -> None:
    content = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = st.one_of(st.integers(8, 3000), st.integers(8, len(content) - 1))
        content[data.draw(place)] = data.draw(st.integers(0, 255))
    path = sound.with_name("damaged.h5")
    path.write_bytes(content[: data.draw(st.one_of(st.none(), st.integers(8, len(content))))])
    with contextlib.suppress(CygnoError):
        run = open_hdf5(path)
        for camera in run.cameras:
            for number in range(len(run.table(camera.name))):
                run.read(camera.name, number, number + 1)
