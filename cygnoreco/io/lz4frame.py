"""Inflate LZ4 frames, and begin in the middle of them, at any block.

Format: "LZ4 Frame Format Description" 1.6.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lz4.frame import LZ4FrameDecompressor

from cygnoreco.io.seekpoint import CompressedFile, SeekPoint, SeekPoints, StreamError

MAGIC = b"\x04\x22\x4d\x18"
_WINDOW = 64 << 10
_STORED = 0x80000000


@dataclass(frozen=True)
class _FrameHeader:
    raw: bytes

    @property
    def linked(self) -> bool:
        return not self.raw[4] & 0x20

    @property
    def block_checksum(self) -> int:
        """Bytes after each block."""
        return 4 if self.raw[4] & 0x10 else 0

    @property
    def content_checksum(self) -> int:
        """Bytes after the last block."""
        return 4 if self.raw[4] & 0x04 else 0

    @property
    def largest_block(self) -> int:
        return 1 << (8 + 2 * (self.raw[5] >> 4 & 7))


def inflate_lz4(source: CompressedFile, start: SeekPoint | None, points: SeekPoints | None) -> Iterator[bytes]:
    """Yield the inflated bytes of a file of LZ4 frames.

    Parameters
    ----------
    source : CompressedFile
        The file, at its beginning or at `start`.
    start : SeekPoint or None
        Where it is; the checksum of a frame that is entered in its middle is not verified.
    points : SeekPoints or None
        Where to note seek points; none inside frames that have linked blocks with checksums.

    Raises
    ------
    StreamError
        ``compression``: cut or damaged; every block before was yielded. ``trailer``: the checksum disagrees.
    """
    inflated = start.inflated if start is not None else 0
    header = _read_header(source) if start is None else _FrameHeader(_raw_header(start.primer))
    while header is not None:
        decoder = LZ4FrameDecompressor()
        try:
            decoder.decompress(header.raw)
            if start is not None:
                decoder.decompress(start.primer[len(header.raw) :], header.largest_block)
        except RuntimeError as error:
            raise StreamError("compression", f"the header of the compressed stream is damaged: {error}") from None
        recent = b""
        while word := source.take(4):
            if len(word) < 4:
                raise StreamError("compression", "the compressed stream ends early")
            (size,) = struct.unpack("<I", word)
            if size == 0:
                break
            if size & ~_STORED > header.largest_block:
                raise StreamError("compression", "a block of the compressed stream is larger than its header allows")
            if points is not None and inflated >= points.due:
                point = _point(header, inflated, source.tell() - 4, recent)
                if point is not None:
                    points.add(point)
            block = source.take((size & ~_STORED) + header.block_checksum)
            if len(block) < (size & ~_STORED) + header.block_checksum:
                raise StreamError("compression", "the compressed stream ends early")
            try:
                # Without a limit as large as a block, python-lz4 4.4 keeps back what exceeds twice the input.
                output = decoder.decompress(word + block, header.largest_block)
            except RuntimeError as error:
                raise StreamError("compression", f"the compressed stream is damaged: {error}") from None
            inflated += len(output)
            if points is not None and header.linked:
                recent = (recent[-_WINDOW:] + output)[-_WINDOW:] if len(output) < _WINDOW else output[-_WINDOW:]
            yield output
        else:
            raise StreamError("compression", "the compressed stream ends early")
        checksum = source.take(header.content_checksum)
        if len(checksum) < header.content_checksum:
            raise StreamError("trailer", "the trailer of the compressed stream is cut")
        if start is None:
            try:
                decoder.decompress(word + checksum)
            except RuntimeError as error:
                raise StreamError("trailer", f"the trailer of the compressed stream is wrong: {error}") from None
        start = None
        header = _read_header(source)


def _read_header(source: CompressedFile) -> _FrameHeader | None:
    """Header of the next frame, None at the end of the file; goes past skippable frames."""
    begin = source.take(7)
    while len(begin) == 7 and begin[1:4] == b"\x2a\x4d\x18" and begin[0] & 0xF0 == 0x50:
        (size,) = struct.unpack("<I", begin[4:] + source.take(1))
        while size > 0 and (skipped := source.take(min(size, 1 << 20))):
            size -= len(skipped)
        begin = source.take(7)
    if not begin.strip(b"\0"):
        while begin and not begin.strip(b"\0"):
            begin = source.take(1 << 20)
        if not begin:
            return None
    if len(begin) < 7 or begin[:4] != MAGIC:
        raise StreamError("trailer", "what follows the end of the compressed stream is not compressed")
    header = begin + source.take(_header_size(begin) - 7)
    if len(header) < _header_size(begin):
        raise StreamError("compression", "the header of the compressed stream is cut")
    return _FrameHeader(header)


def _header_size(begin: bytes) -> int:
    return 7 + (8 if begin[4] & 0x08 else 0) + (4 if begin[4] & 0x01 else 0)


def _raw_header(primer: bytes) -> bytes:
    return primer[: _header_size(primer)]


def _point(header: _FrameHeader, inflated: int, place: int, recent: bytes) -> SeekPoint | None:
    """Seek point before a block: the frame's header, then the output before it as a stored block."""
    if not header.linked or not recent:
        return SeekPoint(inflated, place, header.raw)
    if header.block_checksum:
        return None
    return SeekPoint(inflated, place, header.raw + struct.pack("<I", len(recent) | _STORED) + recent, len(recent))
