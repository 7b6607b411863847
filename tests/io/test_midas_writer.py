"""The writer: the same calls give the same bytes, and nothing half done stays behind."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from cygnoreco.errors import InputError
from cygnoreco.io.midas import END_OF_RUN, Event
from cygnoreco.io.midas_events import iter_events
from cygnoreco.io.midas_writer import MidasWriter, bank_list
from cygnoreco.io.odb import parse_odb
from tests.io.midas_files import ODB, START, SUFFIXES, frames, inflate, write_run


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    with MidasWriter(tmp_path / "a.mid", run=None, flags=0x11) as writer:
        writer.event(3, {"AB": np.array([1, 2, 3], np.uint16)}, timestamp=9, serial=4, trigger_mask=2)
    expected = struct.pack("<HHIII", 3, 2, 4, 9, 28) + struct.pack("<II", 20, 0x11)
    assert (tmp_path / "a.mid").read_bytes() == expected + struct.pack("<4sII3H2x", b"AB", 4, 6, 1, 2, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_calls_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first = write_run(tmp_path / f"a{suffix}", frames(2))
    second = write_run(tmp_path / f"b{suffix}", frames(2))
    assert first.read_bytes() == second.read_bytes()
    assert inflate(first) == write_run(tmp_path / "c.mid", frames(2)).read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_raw_copy_is_the_same_stream(tmp_path: Path, suffix: str) -> None:
    source = write_run(tmp_path / "run05001.mid", frames(3))
    with MidasWriter(tmp_path / f"copy{suffix}", run=None, level=1) as writer:
        for event in iter_events(source):
            assert isinstance(event, Event)
            writer.raw(event.raw)
    assert inflate(tmp_path / f"copy{suffix}") == source.read_bytes()


def test_serials_times_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "run00007.mid"
    with MidasWriter(path, run=7, odb=ODB, timestamp=START) as writer:
        writer.event(1, {}, timestamp=START + 5)
        writer.event(7, {})
        writer.event(1, {})
        writer.event(1, {}, serial=9)
        writer.event(1, {})
        writer.end({"Runinfo": {"Run number": 8}}, timestamp=START + 60)
        writer.end()
    headers = [event.header for event in iter_events(path)]
    assert [header.serial for header in headers] == [7, 0, 0, 1, 9, 10, 7]
    assert [header.timestamp - START for header in headers] == [0, 5, 5, 5, 5, 5, 60]
    last = list(iter_events(path))[-1]
    assert last.header.event_id == END_OF_RUN
    assert parse_odb(last.payload) == {"Runinfo": {"Run number": 8}}


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run00001.mid.gz"
    path.write_bytes(b"older")

    def interrupted() -> None:
        with MidasWriter(path, run=1) as writer:
            writer.event(1, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"older"


def test_settings_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="an ODB value is"), MidasWriter(tmp_path / "a.mid", run=1, odb={"x": None}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_values_of_every_kind(tmp_path: Path) -> None:
    big_endian = np.array([1, 256], ">u2")
    strided = np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2]
    entries = [("BE", big_endian), ("STR", strided), ("BOOL", [True, False]), ("TEXT", "µ"), ("RAW", b"\1", 14)]
    with MidasWriter(tmp_path / "a.mid", run=1) as writer:
        writer.event(1, entries)
    banks = {bank.name: bank for bank in list(iter_events(tmp_path / "a.mid"))[1].banks}
    assert banks["BE"].array().tolist() == [1, 256]
    assert banks["STR"].array().tolist() == strided.ravel().tolist()
    assert (banks["BOOL"].type, banks["BOOL"].array().tolist()) == (8, [1, 0])
    assert (banks["TEXT"].type, bytes(banks["TEXT"].data)) == (12, "µ\0".encode())
    assert (banks["RAW"].type, banks["RAW"].array().tolist()) == (14, [1])


def test_what_the_format_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends with \.mid"):
        MidasWriter(tmp_path / "run.dat", run=1)
    with pytest.raises(InputError, match=r"flags 0x2; valid"):
        MidasWriter(tmp_path / "run.mid", run=1, flags=2)
    with pytest.raises(InputError, match="one to four characters"):
        bank_list({"CAMERA": np.zeros(1)})
    with pytest.raises(InputError, match="no MIDAS type for float16"):
        bank_list({"A": np.zeros(1, np.float16)})
    with pytest.raises(InputError, match="flags 0x01 hold 65535"):
        bank_list({"A": np.zeros(70_000, np.uint8)}, 0x01)
