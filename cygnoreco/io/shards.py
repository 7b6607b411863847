"""Frames out of the shards of a Zarr array, straight to where they are wanted.

Zarr's own path gives the same frames, at a price: for every frame an array of its own, two copies and a walk through an
event loop; and from a remote store one request a frame. Here a block is two requests a shard, one for the index at its
end and one for the bytes of the block, and each frame is unpacked in its place. Only the two codecs that we write are
known here; an array of any other make is left to Zarr. For a GPU, which unpacks by itself, the frames of a block can
be had as they are, packed one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import DataError
from cygnoreco.io.remote import read_range, read_ranges
from cygnoreco.kernels.scratch import scratch
from cygnoreco.types import Frames, PackedFrames

#: Offset and size of a chunk that is not there.
_MISSING = 2**64 - 1
_CRC = 4
_PACKING = "cygnoreco.packing"


@dataclass(frozen=True)
class Shards:
    """Layout of an array of frames: one frame a chunk, some chunks a shard.

    Attributes
    ----------
    frames : int
        Frames a shard.
    shape : tuple of int
        Rows and columns of a frame.
    codec : str
        Name of the codec, ahead of a CRC-32C.
    """

    frames: int
    shape: tuple[int, int]
    codec: str


def shards_of(metadata: Mapping[str, Any]) -> Shards | None:
    """Layout of an array by its metadata, the content of its ``zarr.json``; None if it is not one that we write."""
    try:
        (sharding,) = metadata["codecs"]
        inner = sharding["configuration"]
        codec, *rest = [each["name"] for each in inner["codecs"]]
        frames, *shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        known = (
            sharding["name"] == "sharding_indexed"
            and codec in _DECODERS
            and rest == ["crc32c"]
            and tuple(inner["chunk_shape"]) == (1, *shape)
            and [each["name"] for each in inner["index_codecs"]] == ["bytes", "crc32c"]
            and inner["index_codecs"][0]["configuration"]["endian"] == "little"
            and inner["index_location"] == "end"
            and metadata["chunk_key_encoding"]["name"] == "default"
            and metadata["chunk_key_encoding"].get("configuration", {}).get("separator", "/") == "/"
        )
    except (KeyError, TypeError, ValueError):
        return None
    return Shards(int(frames), (int(shape[0]), int(shape[1])), codec) if known and len(shape) == 2 else None


def read_shards(folder: Path, name: str, shards: Shards, start: int, out: Frames) -> None:
    """Read consecutive frames.

    Parameters
    ----------
    folder : Path
        The Zarr folder, local or by URL.
    name : str
        The array in it.
    shards : Shards
        Its layout.
    start : int
        The first frame.
    out : ndarray
        (n, rows, columns) uint16, C-contiguous: where the frames go.

    Raises
    ------
    DataError
        Something is missing or damaged.
    InputError, TransientError
        As for :func:`cygnoreco.io.remote.read_range`.
    """
    frames = iter(out)
    for key, places in _places(folder, name, shards, start, start + len(out)):
        for chunk in read_ranges(folder, key, places):
            _decode(chunk, shards.codec, next(frames))


def read_packed(folder: Path, name: str, shards: Shards, start: int, stop: int) -> PackedFrames | None:
    """Read consecutive frames as they are packed.

    Parameters
    ----------
    folder, name, shards, start
        As for :func:`read_shards`.
    stop : int
        The frame after the last one.

    Returns
    -------
    PackedFrames or None
        In memory that this thread uses again the next time; None if the codec is another one. Their CRC-32C and all
        sizes are checked. What is not: whether an escape lies outside of its tile; who unpacks finds that.

    Raises
    ------
    DataError, InputError, TransientError
        As for :func:`read_shards`.
    """
    if shards.codec != _PACKING:
        return None
    from cygnoreco.io.packing import join_packed

    parts = list(_places(folder, name, shards, start, stop))
    memory = scratch("packed", (sum(size for _, places in parts for _, size in places),), np.uint8)
    packed = (_checked(chunk) for key, places in parts for chunk in read_ranges(folder, key, places))
    return join_packed(packed, (stop - start, *shards.shape), memory)


def _places(
    folder: Path, name: str, shards: Shards, start: int, stop: int
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Files of the shards that hold some frames, and offset and size of each of these in them."""
    for shard in range(start // shards.frames, -(-stop // shards.frames)) if start < stop else ():
        first, last = max(start, shard * shards.frames), min(stop, (shard + 1) * shards.frames)
        key = f"{name}/c/{shard}/0/0"
        places = _index(folder, key, shards.frames)[first - shard * shards.frames :][: last - first]
        if any(place == (_MISSING, _MISSING) for place in places):
            raise DataError(f"{folder}: shard {shard} of {name} lacks one of the frames {first} to {last}")
        if any(before[0] + before[1] != after[0] for before, after in pairwise(places)):
            raise DataError(f"{folder}: the frames in shard {shard} of {name} do not follow each other")
        yield key, places


def _index(folder: Path, key: str, frames: int) -> list[tuple[int, int]]:
    """Offset and size of each chunk of a shard."""
    size = 16 * frames + _CRC
    data = read_range(folder, key, -size, size)
    return [(int(at), int(length)) for at, length in _checked(data).view("<u8").reshape(frames, 2)]


def _decode(chunk: NDArray[np.uint8], codec: str, frame: Frames) -> None:
    try:
        _DECODERS[codec](_checked(chunk), frame)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"a frame cannot be unpacked ({error})") from None


def _checked(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes without the CRC-32C at their end."""
    content, stored = data[:-_CRC], data[-_CRC:].tobytes()
    if google_crc32c.value(content).to_bytes(_CRC, "little") != stored:
        raise DataError("the bytes read do not fit their CRC-32C")
    return content


def _unpack(data: NDArray[np.uint8], frame: Frames) -> None:
    from cygnoreco.io.packing import unpack

    unpack(data, frame)


def _pcodec(data: NDArray[np.uint8], frame: Frames) -> None:
    from pcodec import standalone

    progress = standalone.simple_decompress_into(data.tobytes(), frame.reshape(-1))
    if progress.n_processed != frame.size:
        raise DataError(f"{progress.n_processed} pixels instead of {frame.size}")


_DECODERS: dict[str, Callable[[NDArray[np.uint8], Frames], None]] = {
    _PACKING: _unpack,
    "numcodecs.pcodec": _pcodec,
}
