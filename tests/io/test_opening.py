"""What a path is, is told by its content first and its name second, and every refusal helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cygnoreco.errors import DataError, InputError
from cygnoreco.io.convert import convert
from cygnoreco.io.midas_writer import MidasWriter
from cygnoreco.io.opening import container_of, open_source
from tests.io.picture_files import random_frames, write_hdf5_pictures, write_root_pictures

FRAMES = random_frames(2)
PICTURES = {"pic_run3_ev0": FRAMES[0], "pic_run3_ev1": FRAMES[1]}


@pytest.mark.parametrize("name", ["run.h5", "run.HDF5", "download"])
def test_hdf5_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    source = open_source(write_hdf5_pictures(tmp_path / name, PICTURES))
    assert source.container == "hdf5"
    np.testing.assert_array_equal(source.read("CAM0", 0, 2), FRAMES)


@pytest.mark.parametrize("name", ["run.root", "download", "run.h5", "with:colon.root"])
def test_root_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    source = open_source(str(write_root_pictures(tmp_path / "written.root", PICTURES).rename(tmp_path / name)))
    assert source.container == "root"
    np.testing.assert_array_equal(source.read("CAM0", 0, 2), FRAMES)


@pytest.mark.parametrize("name", ["run.mid", "run.mid.gz", "run.mid.lz4", "run.mid.bz2"])
def test_midas_is_known_by_its_first_event_or_by_its_name(tmp_path: Path, name: str) -> None:
    with MidasWriter(tmp_path / name, run=3) as writer:
        writer.event(1, {"CAM0": FRAMES[0].ravel()})
    assert container_of(tmp_path / name) == "midas"
    (tmp_path / name).rename(tmp_path / "download")
    assert container_of(tmp_path / "download") == "midas"
    with MidasWriter(tmp_path / name, run=None) as writer:  # no begin of run
        writer.event(1, {"CAM0": FRAMES[0].ravel()})
    assert container_of(tmp_path / name) == "midas"


def test_midas_is_opened_with_the_shapes_that_are_told(tmp_path: Path) -> None:
    path = tmp_path / "run00003.mid.gz"
    with MidasWriter(path, run=3) as writer:
        writer.event(1, {"CAM0": FRAMES[0].ravel()})
    source = open_source(path, shapes={"CAM0": (32, 48)}, cache=tmp_path / "cache")
    assert source.container == "midas"
    np.testing.assert_array_equal(source.read("CAM0", 0, 1), FRAMES[:1])


def test_zarr_is_a_folder(tmp_path: Path) -> None:
    root = write_root_pictures(tmp_path / "run.root", PICTURES)
    source = open_source(convert(root, tmp_path / "run.zarr").path)
    assert source.container == "zarr"
    np.testing.assert_array_equal(source.read("CAM0", 0, 2), FRAMES)


def test_a_missing_file_names_one_that_is_called_alike(tmp_path: Path) -> None:
    (tmp_path / "run05001.mid.gz").touch()
    with pytest.raises(InputError, match=r"run05010.mid.gz: no such file; did you mean '.*run05001.mid.gz'\?"):
        open_source(tmp_path / "run05010.mid.gz")
    with pytest.raises(InputError, match=r"no such file, nor a folder"):
        open_source(tmp_path / "nowhere" / "run.mid")
    with pytest.raises(InputError, match=r"x: no such file$"):
        open_source(tmp_path / "x")


@pytest.mark.parametrize("name", ["run.mid.gz", "run.root", "run.h5", "x"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="the file is empty"):
        open_source(tmp_path / name)


def test_an_unknown_kind_names_the_nearest_suffix(tmp_path: Path) -> None:
    (tmp_path / "run.mid.zg").write_bytes(b"what is this, really?")
    with pytest.raises(InputError, match=r"no known kind of run; did you mean '.mid.gz'\?"):
        open_source(tmp_path / "run.mid.zg")
    (tmp_path / "notes").write_bytes(b"what is this, really?")
    with pytest.raises(InputError, match=r"valid: .h5, .hdf5, .mid"):
        open_source(tmp_path / "notes")


@pytest.mark.parametrize("name", ["run.root", "run.h5"])
def test_a_file_that_is_not_what_its_name_promises_is_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404 not found</html>")
    with pytest.raises(DataError, match="does not begin like it"):
        open_source(tmp_path / name)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder, not a run$"):
        open_source(tmp_path)
    (tmp_path / "run00001.mid").touch()
    with pytest.raises(InputError, match=r"did you mean '.*run00001.mid'\?"):
        open_source(tmp_path)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DataError, match=r"no zarr\.json"):
        open_source(tmp_path / "empty.zarr")
    (tmp_path / "empty.zarr" / ".zgroup").touch()
    with pytest.raises(InputError, match="format 2"):
        open_source(tmp_path / "empty.zarr")


def test_a_suffix_in_capitals_counts(tmp_path: Path) -> None:
    (tmp_path / "RUN.MID").write_bytes(b"\x01\x00" + bytes(30))
    assert container_of(tmp_path / "RUN.MID") == "midas"
