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


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Array of this thread under a name, of the shape and type asked for; what it holds is left from before.

    Valid until the same thread asks for the same name again, so it must not leave the function that asked for it,
    unless that function says so. A name's memory grows to the largest that was asked for and is kept.

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
        kept = memory[name] = np.empty(size, np.uint8)
    return kept[:size].view(dtype).reshape(shape)
