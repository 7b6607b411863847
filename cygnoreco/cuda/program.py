"""How kernels are compiled and launched, and nothing else that knows what runs them.

The ``.cu`` files beside this module hold the kernels. Everything around a launch is array code over a namespace
``xp``, NumPy or CuPy; a :class:`Program` brings the two together. :func:`cupy_program` gives the real one. The tests
have another that compiles the same sources for the host and runs their threads one after the other, so that every
kernel can be tried where there is no GPU.

What the sources keep to, so that both can run them: ``extern "C" __global__ void`` kernels without templates; static
``__shared__`` arrays; ``__syncthreads`` and atomics, no warp intrinsics; ``int``, ``long long``, ``float`` and
``double``, no headers. Products and sums are not contracted to fused multiply-adds: a sum written in the order of the
CPU's form has the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Options of the compiler; ``fmad`` would round a product and a sum once instead of twice.
OPTIONS = ("--std=c++17", "--fmad=false")

#: Bytes of which the places of arrays in a lane are multiples.
_ALIGNED = 256

#: Sources in the order in which they are put together to one module.
SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cu")))


class Program(Protocol):
    """Compiled kernels and the arrays they work on.

    Attributes
    ----------
    xp : module
        ``numpy`` or ``cupy``.
    """

    @property
    def xp(self) -> Any: ...  # noqa: D102

    def launch(self, kernel: str, grid: int | Sequence[int], block: int | Sequence[int], *arguments: Any) -> None:
        """Start a kernel; on a GPU it runs on the current stream, and this returns at once.

        Parameters
        ----------
        kernel : str
            Its name.
        grid, block : int or up to three int
            Blocks of the grid and threads of a block; a grid without blocks launches nothing.
        *arguments
            Arrays of ``xp``, contiguous, of the very type the kernel takes; and scalars as NumPy scalars of that type
            (a Python ``int`` stands for ``int``, a ``float`` for ``double``).
        """
        ...

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy an array of ``xp`` to one of NumPy; waits for the kernels started before."""
        ...

    def active(self) -> AbstractContextManager[Any]:
        """Context in which arrays are made, and kernels launched, on the program's device."""
        ...

    def lane(self) -> Lane:
        """Make a way for blocks of frames to the device."""
        ...


class Lane(Protocol):
    """Takes the arrays of one block at a time to the device, while kernels of another block run there."""

    def send(self, *arrays: NDArray[Any]) -> None:
        """Begin to copy arrays; those sent before must be done with. These may be overwritten at once."""
        ...

    def arrived(self) -> tuple[Any, ...]:
        """Return the arrays on the device; kernels started from now on wait for the copy, the host does not."""
        ...


def source() -> str:
    """Text of all kernels as one module."""
    return "\n".join(f'#line 1 "{path.name}"\n{path.read_text()}' for path in SOURCES)


def dims(size: int | Sequence[int]) -> tuple[int, int, int]:
    """Three sides of a grid or block, the missing ones 1."""
    sides = (size,) if isinstance(size, int) else tuple(size)
    x, y, z = (*sides, 1, 1)[:3]
    return int(x), int(y), int(z)


@lru_cache(maxsize=8)
def cupy_program(device: int = 0) -> Program:
    """Kernels compiled for a device of this machine; CuPy keeps the result on disk for the next process."""
    return _CupyProgram(device)


class _CupyProgram:
    def __init__(self, device: int) -> None:
        import cupy

        self.xp = cupy
        self._device = device
        with cupy.cuda.Device(device):
            self._module = cupy.RawModule(code=source(), options=OPTIONS)
        self._kernels: dict[str, Any] = {}

    def launch(self, kernel: str, grid: int | Sequence[int], block: int | Sequence[int], *arguments: Any) -> None:
        sides = dims(grid)
        if 0 in sides:
            return
        if kernel not in self._kernels:
            self._kernels[kernel] = self._module.get_function(kernel)
        self._kernels[kernel](sides, dims(block), tuple(_argument(each, self.xp) for each in arguments))

    def to_host(self, array: Any) -> NDArray[Any]:
        return self.xp.asnumpy(array)

    def active(self) -> AbstractContextManager[Any]:
        return self.xp.cuda.Device(self._device)

    def lane(self) -> Lane:
        return _CupyLane(self.xp)


class _CupyLane:
    """Pinned memory, from which the device copies by itself, memory there, and a stream of their own."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pinned = np.empty(0, np.uint8)
        self._memory = cupy.empty(0, np.uint8)
        self._arrays: tuple[Any, ...] = ()
        self._copied: Any = None

    def send(self, *arrays: NDArray[Any]) -> None:
        size = sum(_room(each) for each in arrays)
        if self._pinned.size < size:
            # Of a block that was given up, a copy may still read the one memory and write the other: both go to others.
            self._stream.synchronize()
            # Given back before the new is asked for: less is needed at once, and after a failure the lane is empty.
            self._pinned, self._arrays = np.empty(0, np.uint8), ()
            self._memory = self._cupy.empty(0, np.uint8)
            self._memory = self._cupy.empty(size, np.uint8)
            pinned = self._cupy.cuda.alloc_pinned_memory(size)
            self._pinned = np.frombuffer(pinned, np.uint8, size)
            # Memory of the pool may still be in use by kernels started before it was given back.
            self._stream.wait_event(self._cupy.cuda.get_current_stream().record())
        start, there = 0, []
        for array in arrays:
            place = slice(start, start + array.nbytes)
            staged = self._pinned[place].view(array.dtype).reshape(array.shape)
            np.copyto(staged, array)
            there.append(self._memory[place].view(array.dtype).reshape(array.shape))
            there[-1].set(staged, stream=self._stream)
            start += _room(array)
        self._arrays = tuple(there)
        self._copied = self._stream.record()

    def arrived(self) -> tuple[Any, ...]:
        self._cupy.cuda.get_current_stream().wait_event(self._copied)
        return self._arrays


def _room(array: NDArray[Any]) -> int:
    """Bytes of a lane that an array takes, so that the next one is aligned for any type."""
    return -(-array.nbytes // _ALIGNED) * _ALIGNED


def _argument(value: Any, xp: Any) -> Any:
    """Python integers are ``int`` in our kernels; CuPy would make ``long long`` of them."""
    if isinstance(value, bool):
        return np.int32(value)
    if isinstance(value, int):
        return np.int32(value)
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, xp.ndarray) and not value.flags.c_contiguous:
        raise ValueError("a kernel was given an array that is not contiguous")
    return value
