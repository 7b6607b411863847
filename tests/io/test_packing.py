"""The packing of frames: every content comes back, nothing grows, and damage is told."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cygnoreco.errors import DataError, InputError
from cygnoreco.io.packing import join_packed, most_bytes, pack, tile_table, unpack

RNG = np.random.default_rng(1)
HEADER, TILE, ENTRY = 16, 16384, 8


def noise(shape: tuple[int, ...], sigma: float = 2.5) -> NDArray[np.uint16]:
    return np.rint(100 + sigma * RNG.standard_normal(shape)).astype(np.uint16)


def with_tracks() -> NDArray[np.uint16]:
    frame = noise((200, 301))
    frame[50:60, 20:200] += 700
    frame[0, :] = 65535
    frame[3, 3] = 0
    return frame


CONTENTS = {
    "empty": np.empty(0, np.uint16),
    "one value": np.array([7], np.uint16),
    "constant": np.full((3, TILE), 1234, np.uint16),
    "saturated": np.full(TILE + 1, 65535, np.uint16),
    "noise": noise((300, 300)),
    "noise around zero": np.maximum(np.rint(2.5 * RNG.standard_normal(2 * TILE)), 0).astype(np.uint16),
    "noise near the end": (65530 + RNG.integers(0, 6, TILE)).astype(np.uint16),
    "wide noise": noise((300, 300), 20.0),
    "tracks": with_tracks(),
    "two levels": np.where(RNG.random(TILE) < 0.5, 0, 65535).astype(np.uint16),
    "12 bits": RNG.integers(0, 4096, 3 * TILE, np.uint16),
    "16 bits": RNG.integers(0, 65536, 5 * TILE + 13, np.uint16),
    "a tile and 15": noise((TILE + 15,)),
    "a column": np.asfortranarray(noise((70, 50))),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_everything_comes_back_and_nothing_grows(name: str) -> None:
    values = CONTENTS[name]
    packed = pack(values).copy()
    out = np.full(values.shape, 999, np.uint16)
    assert unpack(packed, out) is out
    np.testing.assert_array_equal(out, values)
    np.testing.assert_array_equal(unpack(packed.tobytes()), values.ravel())
    tiles = -(-values.size // TILE)
    assert len(packed) <= HEADER + ENTRY * tiles + 2 * values.size + 30
    assert len(packed) + tile_table(packed).nbytes <= most_bytes(values.size)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.uint16,
        st.integers(0, 3000),
        elements=st.one_of(st.integers(95, 105), st.integers(0, 65535)),
        fill=st.integers(90, 110),
    )
)
def test_whatever_comes(values: NDArray[np.uint16]) -> None:
    np.testing.assert_array_equal(unpack(pack(values)), values)


def test_noise_takes_four_bits_and_wider_noise_five() -> None:
    assert 8 * len(pack(noise((2304, 64)))) / (2304 * 64) < 4.2
    assert 4.2 < 8 * len(pack(noise((2304, 64), 4.5))) / (2304 * 64) < 5.2
    assert 8 * len(pack(CONTENTS["12 bits"])) / CONTENTS["12 bits"].size < 12.01
    assert len(pack(CONTENTS["constant"])) == HEADER + 3 * ENTRY


def test_the_format_is_the_one_described() -> None:
    """Unpacked by the letter of the module's docstring, value by value."""
    values = with_tracks().ravel()[: TILE + 100]
    packed = pack(values).tobytes()
    assert packed[:6] == b"CYPK\x01\x0e"
    assert int.from_bytes(packed[8:16], "little") == values.size
    at, found = HEADER + 2 * ENTRY, []
    for tile, count in enumerate((TILE, 100)):
        base, width = np.frombuffer(packed, "<u2", 2, HEADER + tile * ENTRY)
        escapes = int(np.frombuffer(packed, "<u4", 1, HEADER + tile * ENTRY + 4)[0])
        filled = -(-count // 16) * 16
        bits, shift = np.zeros(filled, int), 0
        for plane in (16, 8, 4, 2, 1):
            if width & plane:
                m = filled * plane // 16
                words = np.frombuffer(packed, "<u2", m, at).astype(int)
                for value in range(filled):
                    bits[value] |= (words[value % m] >> (value // m * plane) & (1 << plane) - 1) << shift
                at += 2 * m
                shift += plane
        part = (bits[:count] + int(base)) % 65536
        part[np.frombuffer(packed, "<u2", escapes, at)] = np.frombuffer(packed, "<u2", escapes, at + 2 * escapes)
        at += 4 * escapes
        found.append(part)
    assert at == len(packed)
    np.testing.assert_array_equal(np.concatenate(found), values)


def test_the_table_of_tiles_says_where_they_are() -> None:
    values = CONTENTS["tracks"].ravel()
    packed = pack(values)
    table = tile_table(packed, first_word=1000, first_value=5)
    assert table[:, 4].tolist() == [5 + tile * TILE for tile in range(4)]
    assert table[:, 5].tolist() == [TILE, TILE, TILE, values.size - 3 * TILE]
    assert table[0, 0] == 1000 + (HEADER + 4 * ENTRY) // 2
    ends = table[:, 0] + (table[:, 5] + 15) // 16 * table[:, 2] + 2 * table[:, 3]
    assert ends.tolist() == [*table[1:, 0], 1000 + len(packed) // 2]


def test_packed_arrays_one_after_the_other() -> None:
    frames = np.stack([noise((70, 300)), with_tracks()[:70, :300], np.full((70, 300), 9, np.uint16)])
    packed = [pack(frame).copy() for frame in frames]
    memory = np.zeros(sum(map(len, packed)) + 10, np.uint8)
    joined = join_packed(map(pack, frames), frames.shape, memory)
    assert joined.words.tobytes() == b"".join(each.tobytes() for each in packed)
    assert np.shares_memory(joined.words, memory)
    begins = np.cumsum([0, *map(len, packed)]) // 2
    tables = [tile_table(each, begins[k], k * frames[k].size) for k, each in enumerate(packed)]
    np.testing.assert_array_equal(joined.tiles, np.concatenate(tables))
    assert joined.shape == frames.shape
    assert join_packed([], (0, 70, 300), memory).tiles.shape == (0, 6)
    with pytest.raises(DataError, match="21000 values instead of 20700"):
        join_packed(packed, (3, 69, 300), memory)


def damaged(place: int, value: int) -> bytes:
    packed = bytearray(pack(CONTENTS["tracks"]))
    packed[place] = value
    return bytes(packed)


SOUND = pack(CONTENTS["tracks"]).tobytes()
ENTRIES = -(-CONTENTS["tracks"].size // TILE)


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (b"", "0 bytes, its header alone has 16"),
        (SOUND[:20], "for the table of its"),
        (SOUND[:-2], "bytes of tiles instead of"),
        (SOUND + b"\0\0", "bytes of tiles instead of"),
        (SOUND + b"\0", "bytes of tiles instead of"),
        (damaged(0, 0), "begins with"),
        (damaged(4, 2), "version 2, this program reads 1"),
        (damaged(5, 40), r"tiles of 2\*\*40 values"),
        (pack(np.zeros(5, np.uint16)).tobytes(), "5 values instead of 60200"),
        (damaged(15, 255), "for the table of its"),
        (damaged(HEADER + 2, 17), "a width of 17 bits"),
        (damaged(HEADER + 7, 1), "more escapes than values"),
    ],
)
def test_damage_is_told(packed: bytes, text: str) -> None:
    with pytest.raises(DataError, match=text):
        unpack(packed, np.empty(60200, np.uint16))


def test_an_escape_outside_of_its_tile_is_told() -> None:
    values = np.full(1000, 100, np.uint16)
    values[3] = 5000
    packed = bytearray(pack(values))
    packed[-4:-2] = (1000).to_bytes(2, "little")
    with pytest.raises(DataError, match="an escape of tile 0 lies outside"):
        unpack(packed)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, HEADER + ENTRY * ENTRIES + 50), st.integers(0, 255)), min_size=1, max_size=5))
def test_no_damage_is_followed_out_of_the_arrays(changes: list[tuple[int, int]]) -> None:
    """Values may be wrong, which a checksum outside finds; memory behind the array stays as it was."""
    packed = bytearray(SOUND)
    for place, value in changes:
        packed[place] = value
    memory = np.full(CONTENTS["tracks"].size + 2 * TILE, 12345, np.uint16)
    out = memory[TILE:-TILE]
    with contextlib.suppress(DataError):
        unpack(packed, out)
    assert (memory[:TILE] == 12345).all()
    assert (memory[-TILE:] == 12345).all()


def test_other_types_are_refused() -> None:
    with pytest.raises(InputError, match="takes native uint16, not int32"):
        pack(np.zeros(4, np.int32))
    with pytest.raises(InputError, match="C-contiguous"):
        unpack(pack(np.zeros(8, np.uint16)), np.zeros((8, 2), np.uint16)[:, 0])


def test_bytes_at_an_odd_address_are_read_too() -> None:
    shifted = memoryview(b"x" + SOUND)[1:]
    np.testing.assert_array_equal(unpack(shifted), CONTENTS["tracks"].ravel())


def test_threads_do_not_disturb_each_other() -> None:
    contents = [noise((200, 200)) for _ in range(4)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not (unpack(pack(contents[number])) == contents[number].ravel()).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_threads_run_while_one_unpacks() -> None:
    values = noise((4000, 4000))
    packed, out = pack(values).copy(), np.empty_like(values)
    times: list[float] = []

    def work() -> None:
        times.append(time.perf_counter())
        unpack(packed, out)
        times.append(time.perf_counter())

    unpack(packed, out)  # compiled
    thread, ticks = threading.Thread(target=work), []
    thread.start()
    while thread.is_alive():
        ticks.append(time.perf_counter())
    begin, end = times[0] + 1e-3, times[1] - 1e-3
    assert sum(begin < tick < end for tick in ticks) > 100


def test_numcodecs_knows_it() -> None:
    codec = numcodecs.get_codec({"id": "cygnoreco.packing"})
    frame = CONTENTS["tracks"]
    out = np.empty_like(frame)
    assert codec.decode(codec.encode(frame), out) is out
    np.testing.assert_array_equal(out, frame)
    np.testing.assert_array_equal(codec.decode(codec.encode(frame)), frame.ravel())
    assert codec.get_config() == {"id": "cygnoreco.packing"}


def test_numcodecs_takes_arrays_in_the_order_of_their_memory() -> None:
    codec = numcodecs.get_codec({"id": "cygnoreco.packing"})
    frame = np.asfortranarray(noise((200, 301)))
    packed = codec.encode(frame)
    np.testing.assert_array_equal(codec.decode(packed), frame.ravel(order="F"))
    out = np.zeros_like(frame)
    assert out.flags.f_contiguous
    assert codec.decode(packed, out) is out
    np.testing.assert_array_equal(out, frame)
    gaps = np.zeros((200, 400), np.uint16)
    with pytest.raises(ValueError, match="contiguous"):
        codec.decode(packed, gaps[:, :301])
    assert not gaps.any()
    with pytest.raises(ValueError, match="contiguous"):
        codec.encode(gaps[:, :301])
    with pytest.raises(InputError, match="takes native uint16, not uint8"):
        codec.encode(b"bytes")


@pytest.mark.parametrize("order", ["C", "F"])
def test_zarr_format_2_gives_arrays_of_any_order_back(tmp_path: Path, order: Literal["C", "F"]) -> None:
    codec = numcodecs.get_codec({"id": "cygnoreco.packing"})
    values = noise((150, 200))  # the second chunk is filled up
    options = {"shape": values.shape, "chunks": (100, 200), "dtype": values.dtype, "compressors": codec}
    array = zarr.create_array(tmp_path / "a.zarr", zarr_format=2, order=order, **options)
    array[:] = values
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr", mode="r")[:], values)
    fortran = zarr.open_array(tmp_path / "a.zarr", mode="r", config={"order": "F"})
    np.testing.assert_array_equal(fortran[20:130], values[20:130])


def test_zarr_opens_it_in_a_process_that_has_imported_nothing_of_ours(tmp_path: Path) -> None:
    from cygnoreco.io.packing_codecs import ZarrPacking

    frames = noise((5, 20, 30))
    options = {"shape": frames.shape, "dtype": frames.dtype, "chunks": (1, 20, 30), "compressors": None}
    array = zarr.create_array(tmp_path / "a.zarr", shards=(4, 20, 30), serializer=ZarrPacking(), **options)
    array[:] = frames
    code = "import sys, zarr; print(int(zarr.open(sys.argv[1], mode='r')[:].astype('u8').sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.zarr")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == int(frames.astype("u8").sum())
    with pytest.raises(InputError, match="packs uint16, not int32"):
        zarr.create_array(tmp_path / "b.zarr", serializer=ZarrPacking(), **options | {"dtype": "int32"})
