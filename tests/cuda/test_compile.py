"""The kernels compile for every generation of GPU that is in use, registers and shared memory counted.

NVRTC needs no GPU for that.
"""

from __future__ import annotations

import ctypes
from importlib import metadata
from pathlib import Path

import pytest

from cygnoreco.cuda.program import OPTIONS, source


def _nvrtc() -> ctypes.CDLL:
    for package in ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"):
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if Path(str(file)).name.startswith("libnvrtc.so"):
                return ctypes.CDLL(str(file.locate()))
    pytest.skip("needs the package nvidia-cuda-nvrtc-cu12")


@pytest.mark.parametrize("architecture", ["sm_70", "sm_80", "sm_90"])
def test_the_kernels_compile(architecture: str) -> None:
    nvrtc = _nvrtc()
    handle = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(handle), source().encode(), b"cygnoreco.cu", 0, None, None) == 0
    options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}")]
    failed = nvrtc.nvrtcCompileProgram(handle, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(handle, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(handle, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))
    assert not failed, log.value.decode()
