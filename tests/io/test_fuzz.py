"""Whatever happens to a file: the reader ends, says what is wrong, and never gives a frame that was not written."""

from __future__ import annotations

import contextlib
import tempfile
import tracemalloc
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cygnoreco.errors import DataError
from cygnoreco.io.inspect import event_lines
from cygnoreco.io.midas import BrokenBanks, Event, parse_banks
from cygnoreco.io.midas_events import iter_events
from cygnoreco.io.midas_index import scan
from cygnoreco.io.midas_source import source_of
from cygnoreco.io.odb import parse_odb, redact
from cygnoreco.io.opening import container_of
from cygnoreco.types import Fault
from tests.io.midas_files import SHAPES, SUFFIXES, compress, event_offsets, frames, write_run

IMAGES = frames(5)
FUZZ = settings(
    max_examples=80,
    deadline=timedelta(seconds=10),  # a hang, not a slow machine
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

#: Positions as fractions of the file, so that one list of damages serves every container.
POSITION = st.floats(0, 1, exclude_max=True)
DAMAGE = st.one_of(
    st.tuples(st.just("set"), POSITION, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), POSITION, st.binary(min_size=1, max_size=300)),
    st.tuples(st.just("delete"), POSITION, st.integers(1, 3000)),
    st.tuples(st.just("cut"), POSITION, st.just(0)),
)


@cache
def sound(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_run(Path(folder) / f"run05001{suffix}", IMAGES).read_bytes()


@cache
def sound_offsets() -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        return event_offsets(write_run(Path(folder) / "run05001.mid", IMAGES))


def apply(data: bytes, damages) -> tuple[bytes, int]:
    """Damaged bytes, and the first position that was touched."""
    first = len(data)
    for kind, fraction, value in damages:
        at = int(fraction * len(data))
        first = min(first, at)
        if kind == "set":
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        else:
            data = data[:at] + (data[at + value :] if kind == "delete" else b"")
    return data, first


def check(data: bytes, suffix: str) -> list[int] | None:
    """Read a file in every way; returns the numbers of its readable frames, None if there is no event in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"run05001{suffix}"
        path.write_bytes(data)
        for item in iter_events(path):
            assert isinstance(item, (Event, Fault))
        try:
            source = source_of(scan(path), SHAPES)
        except DataError:
            return None
        readable = []
        for camera in source.cameras:
            table = source.table(camera.name)
            assert (np.diff(table["event"]) > 0).all()
            for row in range(len(table)):
                assert source.read(camera.name, row, row + 1).shape == (1, *camera.shape)
                readable.append(int(table["event"][row]))
        if container_of(path) == "midas":  # else the damage made it begin like something else
            assert len(list(event_lines(path, cache=Path(folder) / "cache"))) == len(source.index.events) + 1
        source.close()
        return readable


@pytest.mark.parametrize("suffix", SUFFIXES)
@FUZZ
@given(damages=st.lists(DAMAGE, min_size=1, max_size=4))
def test_a_damaged_file(suffix: str, damages) -> None:
    data, _ = apply(sound(suffix), damages)
    check(data, suffix)


@FUZZ
@given(damages=st.lists(DAMAGE, min_size=1, max_size=2), suffix=st.sampled_from(SUFFIXES))
def test_a_damaged_run_in_a_sound_container(damages, suffix: str) -> None:
    """All frames in front of the damage are there, but for one whose end the damage touches."""
    data, first = apply(sound(".mid"), damages)
    readable = check(compress(data, suffix), suffix)
    offsets = [*sound_offsets(), len(sound(".mid"))]
    triggers = [number for number, offset in enumerate(offsets[:-1]) if sound(".mid")[offset : offset + 2] == b"\1\0"]
    before = [frame for frame, number in enumerate(triggers) if offsets[number + 2] <= first]
    if readable is None:
        assert not before
    else:
        assert readable[: len(before)] == before


@FUZZ
@given(data=st.binary(max_size=3000), head=st.sampled_from([b"", b"\x1f\x8b\x08", b"\x04\x22\x4d\x18", b"BZh9"]))
def test_any_bytes(data: bytes, head: bytes) -> None:
    check(head + data, ".mid")


@FUZZ
@given(data=st.binary(max_size=200), flags=st.sampled_from([0x01, 0x11, 0x31, 0x21]))
def test_any_list_of_banks(data: bytes, flags: int) -> None:
    payload = len(data).to_bytes(4, "little") + flags.to_bytes(4, "little") + data
    with contextlib.suppress(BrokenBanks):
        _, banks = parse_banks(memoryview(payload))
        assert sum(bank.size for bank in banks) <= len(data)
        for bank in banks:
            bank.array()


@FUZZ
@given(
    dump=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda data: b"{" + data),
        st.text(alphabet='{}[]":,/key01xtypeNa<>!? \0', max_size=200).map(str.encode),
        st.text(alphabet='<>/="dirkeyname typINT', max_size=200).map(lambda text: b"<odb>" + text.encode()),
    )
)
def test_any_settings(dump: bytes) -> None:
    with contextlib.suppress(DataError):
        assert isinstance(redact(parse_odb(dump)), dict)


@pytest.mark.parametrize("declared", [0x7FFF_FFFF, 300_000_000])
def test_no_memory_is_taken_for_what_is_only_declared(tmp_path: Path, declared: int) -> None:
    data = bytearray(sound(".mid"))
    start = sound_offsets()[2]
    data[start + 12 : start + 20] = (declared + 8).to_bytes(4, "little") + declared.to_bytes(4, "little")
    path = tmp_path / "run05001.mid.gz"
    path.write_bytes(compress(bytes(data), ".mid.gz"))
    tracemalloc.start()
    try:
        source = source_of(scan(path), SHAPES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Address space for a believable size may be asked for; it is not written to.
    assert peak < (declared + (8 << 20) if declared < 1 << 30 else 8 << 20)
    assert source.table("CAM0")["event"].tolist() == [0, 2, 3, 4]
