"""A real run of another experiment's MIDAS DAQ: 8,227 events, 16- and 32-bit banks, short bank names."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cygnoreco.io.inspect import event_lines, run_info, verify_run
from cygnoreco.io.midas import Event
from cygnoreco.io.midas_events import iter_events
from cygnoreco.io.midas_writer import MidasWriter
from tests.io.midas_files import SUFFIXES


@pytest.fixture(scope="module")
def real_run(shared_data: Path) -> Path:
    return shared_data / "real" / "midas" / "run00407sub0000.mid.lz4"


def listed(run: Path) -> list[str]:
    return gzip.decompress(run.with_name("run00407sub0000.events.csv.gz").read_bytes()).decode().splitlines()


def test_every_bank_and_checksum_is_as_listed(real_run: Path, tmp_path: Path) -> None:
    lines = list(event_lines(real_run, cache=tmp_path))
    assert len(lines) == 1 + 8227
    assert lines == listed(real_run)


def test_it_is_sound(real_run: Path, tmp_path: Path) -> None:
    found = verify_run(real_run, cache=tmp_path)
    assert found.sound
    info = run_info(real_run, cache=tmp_path)
    assert (info.run_number, info.cameras) == (407, ())
    assert info.odb["/Experiment/Name"] == "hk"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_copy_in_any_compression_is_the_same_run(real_run: Path, tmp_path: Path, suffix: str) -> None:
    copy = tmp_path / f"run00407{suffix}"
    with MidasWriter(copy, run=None) as writer:
        for event in iter_events(real_run):
            assert isinstance(event, Event)
            writer.raw(event.raw)
    assert list(event_lines(copy, cache=tmp_path / "cache")) == listed(real_run)


def test_its_banks_written_anew_are_the_same_bytes(real_run: Path, tmp_path: Path) -> None:
    """Our writer's layout is the DAQ's: headers, order, padding (in which the DAQ leaves what was there before)."""
    events = [event for event in iter_events(real_run) if isinstance(event, Event)]
    for flags in (0x01, 0x11):
        path = tmp_path / f"flags{flags}.mid"
        chosen = [event for event in events if event.flags == flags]
        with MidasWriter(path, run=None, flags=flags) as writer:
            for event in chosen:
                header = event.header
                writer.event(
                    header.event_id,
                    [(bank.name, bank.array(), bank.type) for bank in event.banks],
                    timestamp=header.timestamp,
                    serial=header.serial,
                    trigger_mask=header.trigger_mask,
                )
        assert path.read_bytes() == b"".join(without_padding(event) for event in chosen)


def without_padding(event: Event) -> bytes:
    raw = bytearray(event.raw)
    for bank in event.banks:
        end = bank.offset + bank.size
        raw[end : end + -bank.size % 8] = bytes(-bank.size % 8)
    return bytes(raw)
