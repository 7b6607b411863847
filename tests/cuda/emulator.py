"""The kernels compiled for the host by ``g++``, launched thread by thread: a :class:`Program` over NumPy."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from cygnoreco.cuda.program import dims, source

_SHIM = Path(__file__).with_name("emulator.hpp")
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-w")


def compiler() -> str | None:
    """Path of the compiler for the host, None without one."""
    return shutil.which("g++")


class EmulatedProgram:
    """A program whose kernels run on the host; ``seed`` shuffles the order of threads and blocks."""

    xp = np

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.seed = seed
        text = source()
        names = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\(.*?\)\s*)?(\w+)\s*\(", text)
        launchers = "".join(
            f'extern "C" int launch_{name}(void** a, const size_t* s, int n, const unsigned* g, unsigned r)'
            f"{{ return emulator::launch({name}, a, s, n, g, r); }}\n"
            for name in names
        )
        code = f'#include "{_SHIM}"\n{text}\n#line 1 "launchers"\n{launchers}'
        identity = hashlib.sha256((code + _SHIM.read_text() + str(_FLAGS)).encode()).hexdigest()[:16]
        library = folder / f"kernels-{identity}.so"
        if not library.exists():
            cpp = folder / f"kernels-{identity}.cpp"
            cpp.write_text(code)
            subprocess.run([compiler() or "g++", *_FLAGS, str(cpp), "-o", f"{library}.part"], check=True)
            Path(f"{library}.part").rename(library)
        self._library = ctypes.CDLL(str(library))

    def to_host(self, array: Any) -> Any:
        return array

    def active(self) -> Any:
        return nullcontext()

    def lane(self) -> Any:
        return _Lane()

    def launch(self, kernel: str, grid: int | Sequence[int], block: int | Sequence[int], *arguments: Any) -> None:
        if 0 in dims(grid):
            return
        values = [_value(each) for each in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(each) for each in values))
        sizes = (ctypes.c_size_t * len(values))(*map(_kind, arguments, values))
        shape = (ctypes.c_uint * 6)(*dims(grid), *dims(block))
        wrong = getattr(self._library, f"launch_{kernel}")(pointers, sizes, len(values), shape, self.seed)
        if wrong >= 1000:
            raise TypeError(f"{kernel} takes {wrong - 1000} arguments, not {len(values)}")
        if wrong:
            given = arguments[wrong - 1]
            raise TypeError(
                f"{kernel}: argument {wrong - 1} is not of the kernel's type: {getattr(given, 'dtype', given)}"
            )


class _Lane:
    def send(self, *arrays: Any) -> None:
        self._arrays = tuple(map(np.array, arrays))  # what is sent may be overwritten, as it may after a real copy

    def arrived(self) -> Any:
        return self._arrays


def _kind(argument: Any, value: Any) -> int:
    """As ``kind`` in the shim."""
    return 1000 + argument.itemsize if isinstance(argument, np.ndarray) else ctypes.sizeof(value)


def _value(each: Any) -> Any:
    if isinstance(each, np.ndarray):
        if not each.flags.c_contiguous:
            raise ValueError("a kernel was given an array that is not contiguous")
        return ctypes.c_void_p(each.ctypes.data)
    if isinstance(each, (bool, int)):
        return ctypes.c_int32(each)
    if isinstance(each, float):
        return ctypes.c_double(each)
    return np.ctypeslib.as_ctypes_type(each.dtype)(each.item())
