"""Inflate bzip2, and begin in the middle of it, at any block.

Blocks are independent of each other; they begin at any bit, with a mark of 48 bits.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator

import numpy as np

from cygnoreco.io.seekpoint import CompressedFile, SeekPoint, SeekPoints, StreamError

_STEP = 64 << 10
_BLOCK_MARK = 0x314159265359
_END_MARK = 0x177245385090
#: End mark and the checksum of the whole stream.
_FOOTER_BITS = 80
#: Output asked for at a time: 40 bytes of a run of zeros give 46 MB.
_MOST = 1 << 20


def inflate_bzip2(source: CompressedFile, start: SeekPoint | None, points: SeekPoints | None) -> Iterator[bytes]:
    """Yield the inflated bytes of a bzip2 file, of any number of streams.

    Parameters
    ----------
    source : CompressedFile
        The file, at its beginning or at `start`.
    start : SeekPoint or None
        Where it is; blocks have their own checksums, that of a stream which is entered in its middle is not verified.
    points : SeekPoints or None
        Where to note seek points.

    Raises
    ------
    StreamError
        ``compression``: cut or damaged; every block before was yielded.
    """
    inflated = 0
    if start is not None:
        inflated = start.inflated
        yield from _finish_stream(source, start)
    while header := source.take(4):
        if header[:3] != b"BZh":
            if not header.strip(b"\0"):
                continue
            raise StreamError("trailer", "what follows the end of the compressed stream is not compressed")
        decoder = bz2.BZ2Decompressor()
        yield from _feed(decoder, header)
        while not decoder.eof:
            begin = source.tell()
            piece = source.take(_STEP)
            if not piece:
                raise StreamError("compression", "the compressed stream ends early")
            if points is not None and inflated >= points.due:
                # Looked for in the overlap with the next piece as well; all output of the blocks before a mark is
                # there once its first byte is fed, for nothing can be decoded of a mark that is cut.
                bit = _find_mark(piece + source.peek(6), _BLOCK_MARK)
                cut = (bit + 7) // 8
                if bit >= 0 and cut <= len(piece):
                    for output in _feed(decoder, piece[:cut]):
                        inflated += len(output)
                        yield output
                    points.add(SeekPoint(inflated, begin + bit // 8, header, bits=bit % 8))
                    piece = piece[cut:]
            for output in _feed(decoder, piece):
                inflated += len(output)
                yield output
        source.give_back(len(decoder.unused_data))


def _finish_stream(source: CompressedFile, start: SeekPoint) -> Iterator[bytes]:
    """Yield the output from a block on to the end of its stream, whose checksum is not fed to the decoder."""
    decoder = bz2.BZ2Decompressor()
    yield from _feed(decoder, start.primer)
    carry = b""
    while True:
        begin = source.tell()
        piece = source.take(_STEP)
        if not piece:
            raise StreamError("compression", "the compressed stream ends early")
        end = _find_mark(piece + source.peek(6), _END_MARK)
        if end >= 0:
            piece = (piece + source.peek(6))[: end // 8 + 2]
        whole = carry + piece
        yield from _feed(decoder, _shift(whole, start.bits))
        carry = whole[-1:] if start.bits else b""
        if end >= 0:
            source.seek(begin + (end + _FOOTER_BITS + 7) // 8)
            return


def _feed(decoder: bz2.BZ2Decompressor, piece: bytes) -> Iterator[bytes]:
    """Yield what the decoder makes of a piece, not too much at a time."""
    try:
        output = decoder.decompress(piece, _MOST)
        while output or not (decoder.needs_input or decoder.eof):
            yield output
            if decoder.eof:
                return
            output = decoder.decompress(b"", _MOST)
    except OSError as error:
        raise StreamError("compression", f"the compressed stream is damaged: {error}") from None


def _shift(piece: bytes, bits: int) -> bytes:
    """Drop the first bits; with them goes what is left of the last byte."""
    if bits == 0:
        return piece
    values = np.frombuffer(piece, "u1").astype(np.uint16)
    return ((values[:-1] << bits | values[1:] >> (8 - bits)) & 0xFF).astype("u1").tobytes()


def _find_mark(piece: bytes, mark: int) -> int:
    """First bit of a piece, counted from the most significant, at which the mark begins; -1 if it is not there."""
    found = []
    for shift in range(8):
        # Of the mark's 48 bits, 8 - shift end one byte, 40 fill five, and the last ones begin another.
        core = (mark >> shift & 0xFF_FFFF_FFFF).to_bytes(5, "big")
        at = piece.find(core, 1)
        while at >= 0:
            lead = piece[at - 1] & 0xFF >> shift
            tail = int.from_bytes(piece[at + 5 : at + 6], "big") >> (8 - shift)
            if (
                lead == mark >> (40 + shift)
                and tail == mark & ((1 << shift) - 1)
                and (at + 5 < len(piece) or not shift)
            ):
                found.append(8 * (at - 1) + shift)
                break
            at = piece.find(core, at + 1)
    return min(found, default=-1)
