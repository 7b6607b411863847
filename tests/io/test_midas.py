"""MIDAS events: every kind of bank list, and what is left of a run that is damaged."""

from __future__ import annotations

import hashlib
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cygnoreco.errors import DataError, InputError
from cygnoreco.io import midas_index
from cygnoreco.io.midas import (
    MESSAGE,
    BrokenBanks,
    Event,
    EventHeader,
    bank_variant,
    parse_banks,
)
from cygnoreco.io.midas_events import iter_events
from cygnoreco.io.midas_index import known_index
from cygnoreco.io.midas_source import MidasSource, open_midas
from cygnoreco.io.midas_writer import MidasWriter, bank_list
from cygnoreco.io.source import Buffers
from cygnoreco.types import Camera, Fault
from tests.io.midas_files import HEIGHT, ODB, SHAPES, START, SUFFIXES, WIDTH, event_offsets, frames, write_run

FRAME_BYTES = 2 * HEIGHT * WIDTH


def payload_of(banks, flags: int = 0x31) -> bytearray:
    return bytearray(b"".join(bytes(piece) for piece in bank_list(banks, flags)))


def kinds(faults) -> list[str]:
    return [fault.kind for fault in faults]


def damaged(path: Path, change) -> Path:
    """Change the bytes of a plain file in place; `change` gets a bytearray and the offsets of the events."""
    offsets = event_offsets(path)
    data = bytearray(path.read_bytes())
    changed = change(data, offsets)
    path.write_bytes(data if changed is None else changed)
    return path


def opened(path: Path, tmp_path: Path, shapes=SHAPES) -> MidasSource:
    return open_midas(path, shapes=shapes, cache=tmp_path / "cache")


@pytest.mark.parametrize("flags", [0x01, 0x11, 0x31])
def test_banks_of_all_variants_come_out_as_they_went_in(flags: int) -> None:
    entries = [
        ("DIG0", np.arange(7, dtype=np.uint16)),
        ("PMT", np.array([-1.5, 2.5])),
        ("E", np.empty(0, np.float32)),  # empty
        ("DIG0", np.arange(3, dtype=np.uint16)),  # a second bank of one name
        ("TEXT", b"abcdefghi"),
        ("INT8", np.array([-1, 2, 3], np.int8)),
    ]
    found_flags, banks = parse_banks(memoryview(payload_of(entries, flags)))
    assert found_flags == flags
    assert [bank.name for bank in banks] == [name for name, _ in entries]
    for bank, (_, values) in zip(banks, entries, strict=True):
        if isinstance(values, bytes):
            assert bytes(bank.data) == values
        else:
            np.testing.assert_array_equal(bank.array(), values)
            assert bank.array().dtype == values.dtype


def test_bit_5_is_tested_before_bit_4() -> None:
    assert [bank_variant(flags) for flags in (0x01, 0x11, 0x21, 0x31)] == [0x01, 0x11, 0x31, 0x31]
    assert [bank_variant(flags) for flags in (0, 0x10, 0x30, 0x41, 0x131, 0xFFFFFFFF)] == [None] * 6


@pytest.mark.parametrize(
    ("position", "value", "kind"),
    [(0, 0xFFFF, "bank-total"), (4, 0x42, "flags"), (16, 0x7FFFFFF0, "bank-size"), (16, 30, "bank-size")],
)
def test_a_list_that_contradicts_itself_is_refused(position: int, value: int, kind: str) -> None:
    payload = payload_of({"CAM0": np.zeros(8, np.uint16)})
    struct.pack_into("<I", payload, position, value)
    with pytest.raises(BrokenBanks) as caught:
        parse_banks(memoryview(payload))
    assert caught.value.kind == kind


def test_events_without_banks_and_without_data() -> None:
    assert parse_banks(memoryview(payload_of({}))) == (0x31, ())
    assert parse_banks(memoryview(b"")) == (None, ())
    with pytest.raises(BrokenBanks, match="no list of banks"):
        parse_banks(memoryview(b"abc"))


def test_a_flood_of_empty_banks_is_stopped() -> None:
    with pytest.raises(BrokenBanks, match="more than 10000 banks") as caught:
        parse_banks(memoryview(payload_of([("A", b"")] * 10_001)))
    assert caught.value.kind == "bank-count"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_events_together_are_the_file(tmp_path: Path, suffix: str) -> None:
    images = frames(4)
    path = write_run(tmp_path / f"run05001{suffix}", images)
    events = list(iter_events(path))
    assert all(isinstance(event, Event) and event.fault is None for event in events)
    plain = write_run(tmp_path / "plain.mid", images).read_bytes()
    assert b"".join(event.raw for event in events) == plain
    assert [event.number for event in events] == list(range(len(events)))
    camera = events[2].banks[2]
    assert plain[events[2].offset :][camera.offset : camera.offset + camera.size] == images[1].tobytes()
    messages = [bytes(event.payload) for event in events if event.header.event_id == MESSAGE]
    assert messages == [b"all is well\0"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_gives_its_frames_in_any_order(tmp_path: Path, suffix: str) -> None:
    images = frames(7)
    source = opened(write_run(tmp_path / f"run05001{suffix}", images), tmp_path)
    assert (source.faults, source.run_number, source.container) == ((), 5001, "midas")
    assert source.cameras == (Camera("CAM0", HEIGHT, WIDTH),)
    table = source.table("CAM0")
    assert table["event"].tolist() == table["serial"].tolist() == list(range(7))
    assert table["timestamp"].tolist() == [START + 1 + number for number in range(7)]
    for start, stop in ((0, 3), (3, 7), (5, 6), (0, 7), (2, 2)):
        block = source.read("CAM0", start, stop)
        assert block.dtype == np.uint16
        np.testing.assert_array_equal(block, images[start:stop])


def test_the_settings_are_there_without_their_secrets(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run05001.mid", frames(1))
    source = opened(path, tmp_path)
    assert source.odb() == source.index.odb  # the same from the beginning alone and from the whole file
    odb = source.odb()
    assert odb["Runinfo"] == ODB["Runinfo"]
    assert odb["Configurations"] == ODB["Configurations"]
    assert odb["Experiment"]["Security"]["Password"] == "<redacted>"
    for kept in (tmp_path / "cache").iterdir():
        assert b"mangiafuoco" not in kept.read_bytes()


@pytest.mark.parametrize("shape", [(2304, 2304), (2048, 2048), (2304, 4096)])
def test_sensors_are_told_by_their_number_of_pixels(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = np.zeros(shape, np.uint16)
    image[3, 5] = 77
    path = write_run(tmp_path / "run00001.mid.gz", image[None])
    source = opened(path, tmp_path, shapes=None)
    assert source.cameras == (Camera("CAM0", *shape),)
    np.testing.assert_array_equal(source.read("CAM0", 0, 1)[0], image)


def test_an_unknown_sensor_is_a_fault_until_its_shape_is_declared(tmp_path: Path) -> None:
    images = frames(2)
    path = write_run(tmp_path / "run05001.mid", images)
    source = opened(path, tmp_path, shapes=None)
    assert source.cameras == ()
    assert [(fault.kind, fault.frame) for fault in source.faults] == [("camera-size", 0), ("camera-size", 1)]
    assert opened(path, tmp_path).faults == ()
    declared = {"Configurations": {"Cameras": {"CAM0": {"Height": HEIGHT, "Width": WIDTH}}}}
    with MidasWriter(tmp_path / "declared.mid", run=1, odb=declared) as writer:
        writer.event(1, {"CAM0": images[0]})
    assert opened(tmp_path / "declared.mid", tmp_path, shapes=None).cameras == (Camera("CAM0", HEIGHT, WIDTH),)


def test_several_cameras_are_counted_apart(tmp_path: Path) -> None:
    images = frames(4)
    with MidasWriter(tmp_path / "run00002.mid.gz", run=2) as writer:
        writer.event(1, [("CAM1", images[0]), ("CAM0", images[1][:12])])
        writer.event(1, [("CAM1", images[2])])
        writer.event(1, [("CAM1", images[3]), ("CAM0", images[1])])
    source = opened(tmp_path / "run00002.mid.gz", tmp_path, {"CAM1": (HEIGHT, WIDTH), "CAM0": (12, WIDTH)})
    assert [camera.name for camera in source.cameras] == ["CAM0", "CAM1"]
    assert source.table("CAM1")["serial"].tolist() == [0, 1, 2]
    assert source.table("CAM0")["event"].tolist() == [0]
    np.testing.assert_array_equal(source.read("CAM1", 0, 3), images[[0, 2, 3]])
    assert [(fault.kind, fault.event, fault.frame) for fault in source.faults] == [("camera-size", 3, 1)]


def test_wrong_questions_are_answered_with_the_right_ones(tmp_path: Path) -> None:
    source = opened(write_run(tmp_path / "run05001.mid", frames(2)), tmp_path)
    with pytest.raises(InputError, match="did you mean 'CAM0'"):
        source.read("CAM1", 0, 1)
    with pytest.raises(InputError, match="no frames 1 to 3 of CAM0, it has 2"):
        source.read("CAM0", 1, 3)
    with pytest.raises(InputError, match="No such file"):
        opened(tmp_path / "run09999.mid", tmp_path)


def test_a_run_without_cameras_is_a_run(tmp_path: Path) -> None:
    with MidasWriter(tmp_path / "run00003.mid", run=3) as writer:
        writer.event(5, {"INPT": np.zeros(24, np.float32)})
    source = opened(tmp_path / "run00003.mid", tmp_path)
    assert (source.cameras, source.faults) == ((), ())


@pytest.mark.parametrize(
    ("position", "value", "kind"),
    [
        (16, 0xFFFF, "bank-total"),  # of the list of banks
        (20, 0x42, "flags"),
        (32, 0x10000000, "bank-size"),  # of the first bank
    ],
)
def test_a_broken_list_of_banks_costs_its_event_alone(tmp_path: Path, position: int, value: int, kind: str) -> None:
    images = frames(4)
    path = damaged(
        write_run(tmp_path / "run05001.mid", images),
        lambda data, offsets: struct.pack_into("<I", data, offsets[2] + position, value),
    )
    source = opened(path, tmp_path)
    (fault,) = source.faults
    assert (fault.kind, fault.event, fault.frame) == (kind, 2, 1)
    assert fault.offset is not None
    assert event_offsets(path)[2] <= fault.offset < event_offsets(path)[3]
    assert source.table("CAM0")["event"].tolist() == [0, 2, 3]
    np.testing.assert_array_equal(source.read("CAM0", 0, 3), images[[0, 2, 3]])


@pytest.mark.parametrize("size", [0, 8, 1000, 5000, 0x10000000, 0xFFFFFFFF])
def test_a_wrong_event_size_costs_its_event_alone(tmp_path: Path, size: int) -> None:
    images = frames(6)
    path = damaged(
        write_run(tmp_path / "run05001.mid", images),
        lambda data, offsets: struct.pack_into("<I", data, offsets[2] + 12, size),
    )
    source = opened(path, tmp_path)
    assert kinds(source.faults)[0] in ("event-header", "event-size", "bank-total")
    assert [fault.frame for fault in source.faults if fault.frame is not None] == [1]
    np.testing.assert_array_equal(source.read("CAM0", 0, 5), images[[0, 2, 3, 4, 5]])
    assert source.table("CAM0")["event"].tolist() == [0, 2, 3, 4, 5]


def test_missing_bytes_in_the_middle_do_not_pass_for_pixels(tmp_path: Path) -> None:
    images = frames(6)

    def lose(data: bytearray, offsets: list[int]) -> bytearray:
        return data[: offsets[2] + 700] + data[offsets[2] + 1100 :]

    source = opened(damaged(write_run(tmp_path / "run05001.mid", images), lose), tmp_path)
    assert [(fault.kind, fault.event, fault.frame) for fault in source.faults] == [("event-size", 2, 1)]
    np.testing.assert_array_equal(source.read("CAM0", 0, 5), images[[0, 2, 3, 4, 5]])


def test_foreign_bytes_are_skipped_and_the_event_before_them_is_not_trusted(tmp_path: Path) -> None:
    """They may as well have come into that event and pushed its end out, so that its pixels are displaced."""
    images = frames(4)

    def insert(data: bytearray, offsets: list[int]) -> bytearray:
        return data[: offsets[2] + 700] + b"\x55" * 123 + data[offsets[2] + 700 :]

    source = opened(damaged(write_run(tmp_path / "run05001.mid", images), insert), tmp_path)
    assert [(fault.kind, fault.event, fault.frame) for fault in source.faults] == [
        ("event-size", 2, 1),
        ("foreign-bytes", 3, None),
    ]
    assert "123 bytes skipped" in source.faults[1].message
    np.testing.assert_array_equal(source.read("CAM0", 0, 3), images[[0, 2, 3]])


def test_zeros_behind_the_last_event_do_not_cost_it(tmp_path: Path) -> None:
    """A machine that breaks down leaves them in the blocks that were not written any more."""
    images = frames(3)

    def zeros(data: bytearray, offsets: list[int]) -> bytearray:
        return data[: offsets[3]] + bytes(4096)

    source = opened(damaged(write_run(tmp_path / "run05001.mid", images), zeros), tmp_path)
    assert kinds(source.faults) == ["event-header", "no-end-of-run"]
    np.testing.assert_array_equal(source.read("CAM0", 0, 2), images[:2])


@pytest.mark.parametrize("where", ["begin", "header", "pixels", "before the end of run"])
def test_a_cut_file_keeps_what_is_whole(tmp_path: Path, where: str) -> None:
    images = frames(4)

    def cut(data: bytearray, offsets: list[int]) -> bytearray:
        at = {"begin": offsets[3], "header": offsets[3] + 9, "pixels": offsets[3] + 900}
        return data[: at.get(where, offsets[-1])]

    path = write_run(tmp_path / "run05001.mid", images)
    last = len(event_offsets(path)) - 1
    source = opened(damaged(path, cut), tmp_path)
    # Event 2 is frame 1, event 3 the camera's temperature, event 4 frame 2.
    expected = {
        "begin": [("no-end-of-run", 3)],
        "header": [("truncated", 3), ("no-end-of-run", 4)],
        "pixels": [("truncated", 3), ("no-end-of-run", 4)],
        "before the end of run": [("no-end-of-run", last)],
    }[where]
    if where == "pixels":
        source = opened(damaged(write_run(path, images), lambda data, offsets: data[: offsets[4] + 900]), tmp_path)
        expected = [("truncated", 4), ("no-end-of-run", 5)]
        assert source.faults[0].frame == 2
    assert [(fault.kind, fault.event) for fault in source.faults] == expected
    readable = len(source.table("CAM0"))
    assert readable == {"before the end of run": 4}.get(where, 2)
    np.testing.assert_array_equal(source.read("CAM0", 0, readable), images[:readable])


def test_a_run_that_does_not_begin_is_reported(tmp_path: Path) -> None:
    images = frames(2)
    path = damaged(write_run(tmp_path / "run05001.mid", images), lambda data, offsets: data[offsets[1] :])
    source = opened(path, tmp_path)
    assert kinds(source.faults) == ["no-begin-of-run"]
    assert source.run_number == 5001  # of the file's name
    np.testing.assert_array_equal(source.read("CAM0", 0, 2), images)


def test_settings_that_cannot_be_read_are_a_fault(tmp_path: Path) -> None:
    path = damaged(
        write_run(tmp_path / "run05001.mid", frames(1)),
        lambda data, offsets: data.__setitem__(slice(offsets[1] - 5, offsets[1]), b"#####"),
    )
    source = opened(path, tmp_path)
    assert kinds(source.faults) == ["odb"]
    assert source.odb() == {}


@pytest.mark.parametrize("content", [b"", b"PNG not a run", bytes(5000), b"\x1f\x8b\x08\x00broken"])
def test_a_file_without_events_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run00001.mid.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no MIDAS event"):
        opened(path, tmp_path)


def test_an_event_larger_than_believable_is_not_taken(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run05001.mid", frames(3))
    faults = [item.fault for item in iter_events(path, limit=1000) if isinstance(item, Event) and item.fault]
    assert {fault.kind for fault in faults} == {"event-header"}


def test_another_process_needs_no_pass_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = frames(3)
    path = write_run(tmp_path / "run05001.mid.gz", images)
    source = opened(path, tmp_path)
    copy = pickle.dumps(source)
    assert len(source.index.events) == 7

    def forbidden(path: Path) -> None:
        raise AssertionError("scanned again")

    monkeypatch.setattr(midas_index, "scan", forbidden)
    opened(path, tmp_path)  # this process remembers
    monkeypatch.setattr(midas_index, "_recent", {})
    again = pickle.loads(copy)  # another one finds it in the cache
    assert again.digest == source.digest
    assert again.index.points == source.index.points
    np.testing.assert_array_equal(again.read("CAM0", 0, 3), images)


def test_the_cache_is_a_help_and_no_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = frames(2)
    path = write_run(tmp_path / "run05001.mid.gz", images)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    np.testing.assert_array_equal(open_midas(path, shapes=SHAPES, cache=blocked).read("CAM0", 0, 2), images)
    opened(path, tmp_path)
    monkeypatch.setattr(midas_index, "_recent", {})
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(b"PK\x03\x04 not an archive")
    np.testing.assert_array_equal(opened(path, tmp_path).read("CAM0", 0, 2), images)


def test_a_changed_file_is_indexed_again_and_an_open_one_refuses(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run05001.mid", frames(2))
    source = opened(path, tmp_path)
    write_run(path, frames(2, seed=9))
    with pytest.raises(DataError, match="changed since it was opened"):
        source.read("CAM0", 1, 2)
    np.testing.assert_array_equal(opened(path, tmp_path).read("CAM0", 0, 2), frames(2, seed=9))


def test_any_bank_can_be_read_by_its_row(tmp_path: Path) -> None:
    source = opened(write_run(tmp_path / "run05001.mid.gz", frames(2)), tmp_path)
    rows = np.flatnonzero(source.index.banks["name"] == b"DIG0")
    assert bytes(source.read_bank(int(rows[1]))) == np.full(37, 1, "<u2").tobytes()


def test_an_end_of_run_is_found_again_behind_damage(tmp_path: Path) -> None:
    """The end of run has no banks to recognise it by."""
    header = EventHeader(1, 1, 0, 0, 40).pack()
    with MidasWriter(tmp_path / "run00004.mid", run=4) as writer:
        writer.event(7, {"TCAM": np.zeros(1)})
        writer.raw(header[:12] + b"\xff\xff\xff\xff" + (32).to_bytes(4, "little") + bytes(36))
    items = list(iter_events(tmp_path / "run00004.mid"))
    assert [isinstance(item, Fault) for item in items] == [False] * 4
    assert [item.fault.kind if item.fault else None for item in items] == [None, None, "event-header", None]


def test_threads_may_read_the_same_source(tmp_path: Path) -> None:
    images = frames(8)
    source = opened(write_run(tmp_path / "run05001.mid.gz", images), tmp_path)
    order = [5, 0, 7, 2, 6, 1, 4, 3] * 3
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda row: source.read("CAM0", row, row + 1)[0], order))
    np.testing.assert_array_equal(read, images[order])


def test_a_closed_source_opens_its_file_again(tmp_path: Path) -> None:
    images = frames(2)
    source = opened(write_run(tmp_path / "run05001.mid.gz", images), tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(source.read("CAM0", 1, 2), images[1:])
        source.close()


def test_the_first_pass_gives_the_frames_and_leaves_the_index(tmp_path: Path) -> None:
    images = frames(5)
    path = write_run(tmp_path / "run05001.mid.gz", images)
    source = opened(path, tmp_path)
    assert source.beginning is not None
    assert source.run_number == 5001
    assert source.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    (camera,) = source.beginning.cameras
    buffers = Buffers(2, 2, camera)
    seen, rows = [], []
    for block in source.first_pass(camera, buffers):
        assert block.start == len(rows)
        seen += [frame.copy() for frame in block.frames]
        rows += block.rows.tolist()
        buffers.give(block.frames)
    np.testing.assert_array_equal(seen, images)
    assert source.beginning is None
    assert known_index(path, tmp_path / "cache") is not None
    assert rows == source.table("CAM0").tolist()
    assert source.index.digest == midas_index.scan(path).digest
    np.testing.assert_array_equal(source.read("CAM0", 1, 4), images[1:4])


def test_a_broken_beginning_is_left_to_the_whole_file(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run05001.mid", frames(3))
    data = bytearray(path.read_bytes())
    data[0] ^= 0xFF  # no begin of run any more
    path.write_bytes(data)
    source = opened(path, tmp_path)
    assert source.beginning is None
    assert source.faults


def test_a_file_that_changes_before_it_was_read_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run05001.mid", frames(2))
    source = opened(path, tmp_path)
    write_run(path, frames(3))
    with pytest.raises(DataError, match="changed since it was opened"):
        source.table("CAM0")


def test_threads_read_side_by_side(tmp_path: Path) -> None:
    images = frames(12)
    source = opened(write_run(tmp_path / "run05001.mid.gz", images), tmp_path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: source.read("CAM0", place, place + 3), range(10)))
    for place, read in enumerate(found):
        np.testing.assert_array_equal(read, images[place : place + 3])


def test_a_seek_point_lies_shortly_before_every_large_event(tmp_path: Path) -> None:
    images = frames(6, shape=(2304, 2304))
    source = opened(write_run(tmp_path / "run05001.mid.gz", images), tmp_path, shapes={})
    begins = [int(event["offset"]) for event in source.index.events if event["size"] > 1 << 20]
    points = [point.inflated for point in source.index.points]
    for begin in begins[3:]:  # the first ones cannot be foreseen
        assert any(begin - (1 << 20) < point <= begin for point in points), (begin, points)
