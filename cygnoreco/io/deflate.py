"""Inflate gzip, and begin in the middle of it.

A decoder that stands at the start of a DEFLATE block needs nothing but the 32 kB of output before it. Such a start
lies at any bit, and nothing marks it. :func:`_find_point` looks for bits that make the header of a block with its own
Huffman codes, lets a second decoder begin there, and accepts the place only if both decoders go on with the same bytes.
A stream without such blocks (stored, or of fixed codes only) gets no seek points; it is inflated from its start.

Formats: RFC 1951 (DEFLATE), RFC 1952 (gzip).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

import numpy as np
from isal import isal_zlib  # inflates twice as fast as zlib

from cygnoreco.io.seekpoint import SPACING, CompressedFile, SeekPoint, SeekPoints, StreamError

#: Compressed bytes inflated at a time: so few that the output stays in the second-level cache, and below the 128 kB
#: from which on the system gives, and takes back, every piece of memory by itself, page by page.
STEP = 32 << 10
_WINDOW = 32 << 10
#: How far after its due place a seek point is looked for, in inflated bytes; then there is none until the next is due.
_SEARCH = 1 << 20
#: What isal raises; its stub calls the class an instance.
_Damage: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]
#: Compressed bytes behind a seek point whose equal output proves it.
_PROOF = 4 << 10

# Two blocks without content, as bits in the order of the stream: one of fixed codes, of even length (10), and one with
# codes of its own, of odd length (91). One of the second and some of the first end at any odd bit of a byte.
_EMPTY_FIXED = [0, 1, 0] + [0] * 7
_EMPTY_DYNAMIC = [
    *[0, 0, 1],  # not the last block; own codes
    *[0] * 5,  # 257 literal and length codes
    *[0] * 5,  # 1 distance code
    *[0, 1, 1, 1],  # 18 lengths of the code that the code lengths are written in:
    *[0] * 6, *[1, 0, 0], *[0] * 42, *[1, 0, 0],  # symbol 18 (a run of zeros) and symbol 1 have one bit
    *[0], *[1] * 8, *[1, 0, 1, 0, 1, 0, 1, 1], *[0],  # lengths: 1 for byte 0, 138 + 117 zeros, 1 for end of block
    *[0],  # length 1 for the distance code
    *[1],  # end of block
]  # fmt: skip


def inflate_gzip(source: CompressedFile, start: SeekPoint | None, points: SeekPoints | None) -> Iterator[bytes]:
    """Yield the inflated bytes of a gzip file, of any number of members.

    Parameters
    ----------
    source : CompressedFile
        The file, at its beginning or at `start`.
    start : SeekPoint or None
        Where it is; checksums of a member that is entered in its middle are not verified.
    points : SeekPoints or None
        Where to note seek points.

    Raises
    ------
    StreamError
        ``compression``: cut or damaged; everything before was yielded. ``trailer``: checksum or length disagree.
    """
    inflated = start.inflated if start is not None else 0
    while start is not None or _skip_header(source):
        resume = SeekPoint(inflated, source.tell()) if start is None else start
        whole, begin, crc = start is None, inflated, 0
        start = None
        if points is not None and whole and inflated >= points.due:
            points.add(resume)
        decoder = _decoder_at(resume)
        recent = _Recent()
        while not decoder.eof:
            if points is not None and inflated >= points.due + _SEARCH:
                points.due += SPACING
            piece = source.view(STEP)
            if not piece:
                raise StreamError("compression", "the compressed stream ends early")
            try:
                if points is not None and inflated >= points.due:
                    output, point = _find_point(decoder, piece, recent, inflated, source.tell() - len(piece))
                    if point is not None:
                        points.add(point)
                        resume = point
                else:
                    output = decoder.inflate(piece)
            except _Damage as error:
                yield _rescue(source, resume, inflated, piece)
                raise StreamError("compression", f"the compressed stream is damaged: {error}") from None
            inflated += len(output)
            recent.add(output)
            if whole:
                crc = isal_zlib.crc32(output, crc)
            yield output
        source.give_back(len(decoder.unused))
        trailer = source.take(8)
        if len(trailer) < 8:
            raise StreamError("trailer", "the trailer of the compressed stream is cut")
        if whole and struct.unpack("<II", trailer) != (crc, (inflated - begin) & 0xFFFFFFFF):
            raise StreamError("trailer", "checksum or length in the trailer of the compressed stream disagree")


def _skip_header(source: CompressedFile) -> bool:
    """Go past the header of a member; False at the end of the file, which zeros may pad."""
    fixed = source.take(10)
    if not fixed.strip(b"\0"):
        while fixed and not fixed.strip(b"\0"):
            fixed = source.take(STEP)
        if not fixed:
            return False
    if len(fixed) < 10 or fixed[:3] != b"\x1f\x8b\x08":
        raise StreamError("trailer", "what follows the end of the compressed stream is not compressed")
    flags = fixed[3]
    if flags & 0x04:  # extra field
        source.take(int.from_bytes(source.take(2), "little"))
    for text in (0x08, 0x10):  # file name, comment
        if flags & text:
            _skip_text(source)
    if flags & 0x02:  # checksum of the header
        source.take(2)
    return True


def _skip_text(source: CompressedFile) -> None:
    begin = source.take(STEP)
    length = begin.find(b"\0")
    if length < 0:
        raise StreamError("compression", "the header of the compressed stream is damaged")
    source.give_back(len(begin) - length - 1)


class _Decoder:
    """Raw DEFLATE from a seek point on."""

    def __init__(self, primer: bytes = b"", primed: int = 0) -> None:
        self._decoder = isal_zlib.decompressobj(-15)
        self._drop = primed
        if primer:
            self.inflate(primer)

    def inflate(self, piece: bytes | memoryview) -> bytes:
        output = self._decoder.decompress(piece)
        if self._drop:
            dropped = min(self._drop, len(output))
            self._drop -= dropped
            return output[dropped:]
        return output

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused(self) -> bytes:
        return self._decoder.unused_data


def _decoder_at(point: SeekPoint) -> _Decoder:
    return _Decoder(point.primer, point.primed)


class _Recent:
    """The last 32 kB of output or somewhat more, kept in pieces until somebody asks."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size - len(self._pieces[0]) >= _WINDOW:
            self._size -= len(self._pieces.popleft())

    def window(self) -> bytes:
        return b"".join(self._pieces)[-_WINDOW:]


def _find_point(
    decoder: _Decoder, piece: memoryview, recent: _Recent, inflated: int, place: int
) -> tuple[bytes, SeekPoint | None]:
    """Inflate a piece that begins at file offset `place`; return its output and a proven seek point in it, if any."""
    from cygnoreco.io.deflate_header import block_begin  # its kernel is loaded by those who need seek points

    bit = block_begin(np.frombuffer(piece, np.uint8))
    if bit < 0:
        return decoder.inflate(piece), None
    byte, shift = divmod(bit, 8)
    # The header's first bits share a byte with the end of the block before: they go into the primer.
    after = byte + 1 if shift else byte
    # Fed up to here, the decoder has given all that comes before the block, and can have given nothing of it.
    before = decoder.inflate(piece[:after])
    recent.add(before)
    primer, window = _primer(recent.window(), _align(shift, piece[byte]))
    output = decoder.inflate(piece[after:])
    point = SeekPoint(inflated + len(before), place + after, primer, window)
    return before + output, point if _proven(point, piece[after : after + _PROOF], output) else None


def _align(shift: int, byte: int) -> bytes:
    """Empty blocks that end at bit `shift` of their last byte, whose other bits are those of `byte`."""
    if not shift:
        return b""
    bits = list(_EMPTY_DYNAMIC) if shift % 2 else []
    while len(bits) % 8 != shift:
        bits += _EMPTY_FIXED
    bits += [(byte >> i) & 1 for i in range(shift, 8)]
    return np.packbits(np.array(bits, "u1"), bitorder="little").tobytes()


def _primer(window: bytes, bits: bytes) -> tuple[bytes, int]:
    """One stored block with the window, then the aligning bits; and the length of their output."""
    return b"\0" + struct.pack("<HH", len(window), len(window) ^ 0xFFFF) + window + bits, len(window)


def _proven(point: SeekPoint, piece: memoryview, output: bytes) -> bool:
    try:
        repeated = _decoder_at(point).inflate(piece)
    except _Damage:
        return False
    return bool(repeated) and output.startswith(repeated)


def _rescue(source: CompressedFile, resume: SeekPoint, inflated: int, piece: memoryview) -> bytes:
    """Inflate a damaged piece once more, byte by byte, for what it holds before the damage.

    A decoder that fails returns nothing of the whole piece, and cannot be copied beforehand: begin again at `resume`.
    """
    end = source.tell()
    source.seek(resume.compressed)
    decoder = _decoder_at(resume)
    done = resume.inflated
    output = b""
    try:
        while source.tell() < end - len(piece):
            done += len(decoder.inflate(source.take(min(STEP, end - len(piece) - source.tell()))))
        for i in range(len(piece)):
            output += decoder.inflate(piece[i : i + 1])
    except _Damage:
        pass  # as far as it goes
    source.seek(end)
    return output[inflated - done :] if inflated > done else output
