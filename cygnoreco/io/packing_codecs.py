"""The packing of :mod:`cygnoreco.io.packing` as others know a codec: for numcodecs and for Zarr format 3.

Both are found by their entry points: wherever cygnoreco is installed, ``zarr.open`` reads a packed array as any other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer

from cygnoreco.errors import InputError
from cygnoreco.io.packing import pack, unpack

#: How metadata name the codec.
PACKING = "cygnoreco.packing"


class NumcodecsPacking(Codec):
    """Packing for numcodecs: any contiguous uint16 array in, bytes out.

    Both ways go through an array in the order of its memory, be that C or Fortran, as numcodecs' own codecs do: Zarr
    remembers which it was, and may have values unpacked into memory of the same order.
    """

    codec_id = PACKING

    def encode(self, buf: Any) -> bytes:
        """Pack a contiguous array of uint16; `ValueError` or, for another type, `InputError`."""
        return pack(ensure_contiguous_ndarray(buf)).tobytes()

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Unpack into `out`, or into a new array of shape (n,).

        Raises
        ------
        DataError
            The bytes are damaged.
        ValueError
            `out` has gaps: a copy without them would take the values, and `out` none.
        """
        if out is None:
            return unpack(buf)
        unpack(buf, ensure_contiguous_ndarray(out).view(np.uint16))
        return out


@dataclass(frozen=True)
class ZarrPacking(ArrayBytesCodec):
    """Packing for Zarr format 3: the step from an array to bytes."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ZarrPacking:
        """Read the codec from the metadata of an array; it has no parameters."""
        if data.get("configuration"):
            raise InputError(f"codec {PACKING}: takes no configuration, {data['configuration']} given")
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return what the metadata of an array say."""
        return {"name": PACKING}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays that are not of uint16."""
        native = dtype.to_native_dtype()
        if native.kind != "u" or native.itemsize != 2:
            raise InputError(f"codec {PACKING}: packs uint16, not {native}")

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Unknown before it is packed."""
        raise NotImplementedError

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        values = unpack(chunk_bytes.as_numpy_array())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(values.reshape(chunk_spec.shape))

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        values = chunk_array.as_numpy_array().astype(np.uint16, copy=False)
        return chunk_spec.prototype.buffer.from_bytes(pack(values).tobytes())

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_array, chunk_spec)
