"""Compressed streams: begin in the middle, and keep everything in front of damage."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import lz4.frame
import numpy as np
import pytest

from cygnoreco.errors import InputError
from cygnoreco.io import deflate, seekpoint
from cygnoreco.io.seekpoint import CompressedFile, SeekPoint, SeekPoints
from cygnoreco.io.streams import InflatedStream, open_stream
from tests.io.midas_files import SUFFIXES, compress, frames

SPACING = 200_000


@pytest.fixture(autouse=True)
def _near_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seek points near each other, for small files to have several."""
    for module in (seekpoint, deflate):
        monkeypatch.setattr(module, "SPACING", SPACING)


@pytest.fixture(scope="module")
def content() -> bytes:
    """Noise as of a camera: 1.3 MB, which gzip cuts into blocks of 33 000 symbols."""
    return frames(10, shape=(256, 256)).tobytes()


def lz4_compress(data: bytes, **options) -> bytes:
    options = {"block_size": lz4.frame.BLOCKSIZE_MAX64KB, "content_checksum": True, **options}
    return bytes(lz4.frame.compress(data, **options))


VARIANTS = {
    "gzip 1": lambda data: gzip.compress(data, 1),
    "gzip 9": lambda data: gzip.compress(data, 9),
    "gzip members": lambda data: b"".join(gzip.compress(data[i : i + 90_000]) for i in range(0, len(data), 90_000)),
    "gzip padded": lambda data: gzip.compress(data) + bytes(1000),
    "lz4 linked": lambda data: lz4_compress(data, block_linked=True),
    "lz4 independent": lambda data: lz4_compress(data, block_linked=False),
    "lz4 checked": lambda data: lz4_compress(data, block_linked=True, block_checksum=True),
    "lz4 stored": lambda data: lz4_compress(np.random.default_rng(0).bytes(len(data))),
    "lz4 frames": lambda data: b"\x52\x2a\x4d\x18\3\0\0\0abc".join(
        lz4_compress(data[i : i + 400_000]) for i in range(0, len(data), 400_000)
    ),
    "bzip2": lambda data: bz2.compress(data, 1),
    "bzip2 streams": lambda data: bz2.compress(data[:450_000], 2) + bz2.compress(data[450_000:], 1),
}
#: Without them a decoder would have to start from the beginning, and that is what it then does.
WITHOUT_POINTS = {"lz4 checked"}


def inflated(path: Path, point: SeekPoint | None = None) -> bytes:
    with open_stream(path, point) as stream:
        data = bytes(stream.take(1 << 24))
        assert stream.fault is None
    return data


@pytest.mark.parametrize("variant", VARIANTS)
def test_inflating_can_begin_at_every_seek_point(tmp_path: Path, content: bytes, variant: str) -> None:
    path = tmp_path / "stream"
    path.write_bytes(VARIANTS[variant](content))
    points = SeekPoints()
    seen = []
    with open_stream(path, points=points, on_read=seen.append) as stream:
        whole = bytes(stream.take(1 << 24))
        stream.drain()
    assert stream.fault is None
    assert b"".join(seen) == path.read_bytes()
    if variant != "lz4 stored":
        assert whole == content
    assert len(points.found) >= (1 if variant in WITHOUT_POINTS else 3)
    for point in points:
        assert inflated(path, point) == whole[point.inflated :]


def test_seek_points_fall_on_all_bits_of_a_byte() -> None:
    """Empty blocks make up for the bits by which a block misses a byte boundary."""
    for shift in range(8):
        blocks = deflate._align(shift, 0xFF)
        tail = np.unpackbits(np.frombuffer(blocks, "u1"), bitorder="little")
        assert len(tail) == 0 if shift == 0 else tail[-(8 - shift) :].all()
        # What follows is a last block of fixed codes that holds nothing: bits 1, 1 0, 0000000.
        last = [1, 1, 0, *[0] * 7]
        bits = [*tail[: len(tail) - (8 - shift) % 8 if shift else 0].tolist(), *last]
        stream = np.packbits(np.array(bits, "u1"), bitorder="little").tobytes()
        for decoder in (zlib.decompressobj(-15), deflate._Decoder()):
            (decoder.decompress if isinstance(decoder, type(zlib.decompressobj())) else decoder.inflate)(stream)
            assert decoder.eof


def test_a_stream_of_fixed_codes_has_no_points_and_is_read_all_the_same(tmp_path: Path, content: bytes) -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31, 8, zlib.Z_FIXED)
    path = tmp_path / "fixed.gz"
    path.write_bytes(packer.compress(content) + packer.flush())
    points = SeekPoints()
    with open_stream(path, points=points) as stream:
        assert bytes(stream.take(1 << 24)) == content
    assert [point.inflated for point in points] == [0]


def test_header_fields_of_gzip_are_skipped(tmp_path: Path) -> None:
    body = zlib.compressobj(1, zlib.DEFLATED, -15)
    raw = body.compress(b"content") + body.flush()
    header = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\3\0xyz" + b"name\0" + b"comment\0" + b"\xab\xcd"
    path = tmp_path / "a.gz"
    path.write_bytes(header + raw + struct.pack("<II", zlib.crc32(b"content"), 7))
    assert inflated(path) == b"content"


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
@pytest.mark.parametrize("where", [0.0001, 0.3, 0.77, 0.9999])
def test_a_cut_is_found_and_what_is_before_it_is_kept(
    tmp_path: Path, content: bytes, suffix: str, where: float
) -> None:
    packed = compress(content, suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(packed[: max(12, int(where * len(packed)))])
    with open_stream(path) as stream:
        found = bytes(stream.take(1 << 24))
        assert stream.fault is not None
        assert stream.fault.kind in ("compression", "trailer")
        assert stream.fault.offset == len(found)
    assert content.startswith(found)
    # A block of bzip2 or lz4 comes whole or not at all; deflate comes byte by byte.
    assert len(found) >= where * len(content) - (60_000 if suffix == ".mid.gz" else 1_000_000)


def test_deflate_keeps_every_byte_before_the_damage(tmp_path: Path, content: bytes) -> None:
    """A decoder that fails gives nothing of the piece at hand: it is inflated once more, byte by byte."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    sound = packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)
    path = tmp_path / "bad.gz"
    path.write_bytes(sound + b"\x07" + bytes(100))  # a block of type 3, which does not exist
    seen = []
    with open_stream(path, points=SeekPoints(), on_read=seen.append) as stream:
        assert bytes(stream.take(1 << 24)) == content
        stream.drain()
    assert stream.fault is not None
    assert stream.fault.kind == "compression"
    assert b"".join(seen) == path.read_bytes()  # nothing shown twice to who makes the checksum


@pytest.mark.parametrize("suffix", [".mid.gz", ".mid.lz4"])
@pytest.mark.parametrize("position", [-1, -5])
def test_a_wrong_trailer_is_found(tmp_path: Path, content: bytes, suffix: str, position: int) -> None:
    packed = bytearray(compress(content, suffix))
    packed[position if suffix == ".mid.gz" else -1] ^= 1
    path = tmp_path / f"trailer{suffix}"
    path.write_bytes(packed)
    with open_stream(path) as stream:
        assert bytes(stream.take(1 << 24)) == content
        assert not len(stream.take(1))
    assert stream.fault is not None
    assert stream.fault.kind == "trailer"


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_what_follows_the_end_is_reported(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"more{suffix}"
    path.write_bytes(compress(content, suffix) + b"something else")
    with open_stream(path) as stream:
        assert bytes(stream.take(1 << 24)) == content
        assert not len(stream.take(1))
    assert stream.fault is not None
    assert stream.fault.kind == "trailer"


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_what_a_little_file_inflates_to_is_not_held_in_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"zeros{suffix}"
    path.write_bytes(compress(bytes(1 << 25), suffix) * 4)
    tracemalloc.start()
    try:
        with open_stream(path) as stream:
            assert stream.skip(1 << 40) == 4 << 25
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_taking_and_giving_back(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(range(256))))
    with open_stream(path) as stream:
        assert bytes(stream.peek(3)) == bytes(range(3))
        assert stream.offset == 0
        first = stream.take(10)
        stream.push_back(first[4:])
        assert (stream.offset, bytes(stream.take(2))) == (4, bytes([4, 5]))
        assert stream.skip(100) == 100
        buffer = bytearray(1000)
        assert stream.readinto(memoryview(buffer)) == 150
        assert buffer[:150] == bytes(range(106, 256))
        assert (len(stream.take(5)), stream.skip(5), stream.offset) == (0, 0, 256)


def test_a_plain_file_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(bytes(100_000))
    with open_stream(path) as stream:
        first, second = stream.take(60_000), stream.take(30_000)
        assert len(stream.take(60_000)) == 10_000
    assert first.readonly
    assert first.obj is second.obj


def test_a_compressed_file_shows_nothing_twice() -> None:
    data = np.random.default_rng(0).bytes(3_000_000)
    seen = []
    source = CompressedFile(io.BytesIO(data), seen.append)
    assert source.take(2_000_000) == data[:2_000_000]
    assert source.peek(5) == data[2_000_000:2_000_005]
    source.seek(10)
    assert source.take(20) == data[10:30]
    source.give_back(20)
    assert (source.tell(), source.take(2)) == (10, data[10:12])
    source.drain()
    assert b"".join(seen) == data


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        open_stream(tmp_path / "none.mid")


def test_memory_of_what_was_taken_is_used_again_once_nobody_holds_it() -> None:
    stream = InflatedStream(iter([bytes([number]) * 1000 for number in range(20)]))

    def address(view: memoryview) -> int:
        return int(np.frombuffer(view, np.uint8).ctypes.data)

    first = stream.take(1500)
    place = address(first)
    second = stream.take(1500)
    assert address(second) != place
    assert set(first) == {0, 1}
    del first
    third = stream.take(1500)
    assert address(third) == place
    assert (set(second), set(third)) == ({1, 2}, {3, 4})
