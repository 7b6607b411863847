"""What ``info`` and ``verify`` have to say."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from cygnoreco.errors import InputError
from cygnoreco.io.convert import convert
from cygnoreco.io.inspect import EVENT_LINES_HEADER, event_lines, odb_extract, run_info, verify_run
from cygnoreco.io.midas_writer import MidasWriter
from tests.io.midas_files import HEIGHT, SHAPES, START, WIDTH, event_offsets, frames, write_run

FRAME_BYTES = 2 * HEIGHT * WIDTH


def test_events_as_lines(tmp_path: Path) -> None:
    images = frames(2)
    path = write_run(tmp_path / "run05001.mid.gz", images)
    lines = list(event_lines(path, cache=tmp_path / "cache"))
    assert lines[0] == EVENT_LINES_HEADER
    assert lines[1].startswith(f"5001,32768,18765,{START},")
    assert lines[1].endswith(",,internal")
    waveform, header = np.full(37, 1, np.uint16), np.arange(5, dtype=np.uint32)
    banks = "|".join(
        f"{name}:{kind}:{values.nbytes}:{zlib.crc32(values.tobytes()):08x}"
        for name, kind, values in (("DIG0", 4, waveform), ("DGH0", 6, header), ("CAM0", 4, images[1]))
    )
    size = 8 + 3 * 16 + 80 + 24 + FRAME_BYTES
    assert lines[3] == f"1,1,1,{START + 2},{size},49,{banks}"
    assert len(lines) == 1 + 6


def test_broken_events_and_empty_ones_have_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "run00001.mid"
    with MidasWriter(path, run=1) as writer:
        writer.event(1, {}, timestamp=5)
        writer.event(2, {"A": b"x"})
    data = bytearray(path.read_bytes())
    at = data.index(b"A\0\0\0") - 4
    data[at] = 0x42  # flags
    path.write_bytes(data)
    assert [line.rpartition(",")[2] for line in event_lines(path, cache=tmp_path)][1:4] == ["internal", "", "broken"]


def test_a_summary(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run05001.mid.gz", frames(4))
    info = run_info(path, shapes=SHAPES, cache=tmp_path / "cache")
    assert (info.run_number, info.container, info.begin, info.end) == (5001, "midas", START, START + 4)
    assert info.file_size == path.stat().st_size
    assert [(event.event_id, event.count) for event in info.events] == [
        (1, 4),
        (7, 2),
        (0x8000, 1),
        (0x8001, 1),
        (0x8002, 1),
    ]
    assert [(bank.name, bank.count, bank.smallest, bank.largest) for bank in info.banks] == [
        ("CAM0", 4, FRAME_BYTES, FRAME_BYTES), ("DGH0", 4, 20, 20), ("DIG0", 4, 74, 74), ("TCAM", 2, 8, 8),
    ]  # fmt: skip
    assert [(camera.camera.name, camera.frames, camera.written) for camera in info.cameras] == [("CAM0", 4, 4)]
    assert info.odb["/Configurations/Exposure"] == 0.3
    assert "mangiafuoco" not in json.dumps(info.to_dict())


def test_the_extract_of_the_settings_is_flat() -> None:
    odb = {"Runinfo": {"Run number": 3, "State": 1}, "Configurations": {"Cameras": {"CAM0": {"Width": 5}}}, "Log": 1}
    assert odb_extract(odb) == {"/Runinfo/Run number": 3, "/Configurations/Cameras/CAM0/Width": 5}


def test_verifying_finds_what_the_cache_does_not_know(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run05001.mid.gz", frames(4))
    assert verify_run(path, shapes=SHAPES, cache=tmp_path / "cache").sound
    data = bytearray(path.read_bytes())
    data[-6] ^= 0x10  # the checksum in the trailer, the file's time and size kept
    stamp = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(stamp, stamp))
    found = verify_run(path, shapes=SHAPES, cache=tmp_path / "cache")
    assert [fault.kind for fault in found.faults] == ["trailer"]
    assert (found.frames, found.sound) == (4, False)
    assert json.loads(json.dumps(found.to_dict()))["faults"][0]["kind"] == "trailer"


def test_lost_frames_are_counted(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run05001.mid", frames(4))
    path.write_bytes(path.read_bytes()[: event_offsets(path)[5] + 900])
    info = run_info(path, shapes=SHAPES, cache=tmp_path / "cache")
    assert [(camera.frames, camera.written) for camera in info.cameras] == [(3, 4)]
    assert [(fault.kind, fault.frame) for fault in info.faults] == [("truncated", 3), ("no-end-of-run", None)]
    assert info.events[0].broken == 1


def test_other_containers_are_summarised_and_verified_as_well(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    images = frames(3, shape=(64, 64))
    path = tmp_path / "histograms_Run00012.h5"
    with h5py.File(path, "w") as file:
        for number, image in enumerate(images):
            file[f"pic_run12_ev{number}"] = image
    info = run_info(path)
    assert (info.container, info.events, info.cameras[0].frames) == ("hdf5", (), 3)
    assert verify_run(path).frames == 3
    with pytest.raises(InputError, match="only MIDAS files have events"):
        list(event_lines(path))


def test_verifying_a_copy_sees_exchanged_frames(tmp_path: Path) -> None:
    copy = tmp_path / "run05001.h5"
    convert(write_run(tmp_path / "run05001.mid", frames(4)), copy, "h5", shapes=SHAPES, cache=tmp_path / "cache")
    assert not verify_run(copy).faults
    with h5py.File(copy, "r+") as file:
        stored = file["frames/CAM0"]
        stored[0], stored[1] = stored[1], stored[0]
    found = verify_run(copy)
    assert [fault.kind for fault in found.faults] == ["content"]
    assert found.frames == 4


def test_two_runs_in_one_file_are_seen(tmp_path: Path) -> None:
    one, both = tmp_path / "run05001.mid.gz", tmp_path / "run05002.mid.gz"
    write_run(one, frames(2))
    both.write_bytes(one.read_bytes() * 2)  # members of a gzip file may follow each other
    found = run_info(both, shapes=SHAPES, cache=tmp_path / "cache")
    assert [fault.kind for fault in found.faults] == ["second-run"]
    assert found.cameras[0].frames == 4
