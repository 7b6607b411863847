"""Memory that a thread uses again and again, so that the steady state allocates nothing a frame.

Fresh pages cost more than they look: the system clears each of them the first time it is written, which for the arrays
of one frame takes as long as a pass over them.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_memory = threading.local()

#: Bytes of a cache line. A vector that straddles two of them takes two accesses, and every one does if memory begins
#: off a line.
_LINE = 64


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Make a new array, with whatever its memory holds, that begins at a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Array of this thread under a name, of the shape and type asked for; what it holds is left from before.

    It begins at a cache line, and is valid until the same thread asks for the same name again, so it must not leave the
    function that asked for it, unless that function says so. A name's memory grows to the largest that was asked for
    and is kept.

    Parameters
    ----------
    name : str
        One for every use; two arrays in use at once need two names.
    shape : tuple of int
        Shape of the array.
    dtype : dtype
        Its type.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory: dict[str, NDArray[np.uint8]] = _memory.__dict__
    kept = memory.get(name)
    if kept is None or kept.nbytes < size:
        kept = memory[name] = aligned_empty((size,), np.uint8)
    return kept[:size].view(dtype).reshape(shape)
