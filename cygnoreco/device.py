"""Where blocks are reconstructed: on the CPU, or on a GPU. Nothing else chooses, and results have the same key.

CuPy is imported only when a GPU is asked for.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from cygnoreco import chain
from cygnoreco.chain import Calibration
from cygnoreco.errors import InputError, TransientError, nearest
from cygnoreco.recipe import Recipe
from cygnoreco.tables import Tables
from cygnoreco.types import Camera, Frames, PackedFrames

#: Share of the free memory of a device that a block may take; the rest is for CuPy's pool and the driver.
USABLE = 0.9

#: CUDA versions, as the driver says them, from which CuPy for CUDA 12 and 13 run.
_CUDA12, _CUDA13 = 12000, 13000

#: What CUDA's runtime calls by numbers: too little memory, no GPU, one taken by others, memory of it that failed.
_NO_MEMORY, _NO_DEVICE, _UNAVAILABLE, _ECC = 2, 100, 46, 214


@dataclass(frozen=True)
class Device:
    """A device of this machine that can be used.

    Attributes
    ----------
    kind : {'cpu', 'cuda'}
    index : int
        Number of the GPU.
    description : str
        For people: what it is, and with ``auto`` why it was taken.
    """

    kind: Literal["cpu", "cuda"]
    index: int = 0
    description: str = "CPU"

    @property
    def name(self) -> str:
        """``cpu``, ``cuda:0`` and so on: what :func:`resolve_device` takes."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def unpacks(self) -> bool:
        """Whether it takes frames as they are packed."""
        return self.kind == "cuda"

    def __str__(self) -> str:
        return self.name


def resolve_device(name: str = "cpu") -> Device:
    """Find the device that a name stands for.

    Parameters
    ----------
    name : str
        ``cpu``; ``cuda``, the first GPU; ``cuda:1``, the second; ``auto``, the first GPU if there is one that can be
        used, else the CPU.

    Raises
    ------
    InputError
        There is no such device, or what it needs is missing; the message says what to install.
    """
    parsed = re.fullmatch(r"cpu|auto|cuda(?::(\d+))?", name)
    if parsed is None:
        raise InputError(
            f"unknown device '{name}'" + nearest(name.replace("gpu", "cuda"), ("auto", "cpu", "cuda", "cuda:0"))
        )
    if name == "cpu":
        return Device("cpu")
    count, missing = _gpus()
    if name == "auto":
        return _gpu(0) if count else Device("cpu", 0, f"CPU, since {missing}")
    if not count:
        raise InputError(f"device '{name}': {missing}")
    index = int(parsed[1] or 0)
    if index >= count:
        valid = ", ".join(f"cuda:{each}" for each in range(count))
        raise InputError(f"device '{name}': this machine has {count} GPU{'s' * (count > 1)}; valid: {valid}")
    return _gpu(index)


def reconstruct_block(
    frames: Frames | PackedFrames,
    rows: NDArray[Any],
    calibration: Calibration,
    recipe: Recipe,
    *,
    device: Device,
    origin: str,
    run: int,
    pedestal_run: int,
) -> tuple[Tables, dict[str, float]]:
    """Reconstruct a block of frames on a device; the rest is that of :func:`cygnoreco.chain.reconstruct_block`.

    Raises
    ------
    DataError
        An escape of packed frames lies outside of its tile.
    InputError
        The frames are packed, and the device does not unpack (:attr:`Device.unpacks`).
    TransientError
        The GPU has too little memory at this moment, because others took it after it was planned; or it is not to be
        had, or failed.
    """
    numbers: dict[str, Any] = {"origin": origin, "run": run, "pedestal_run": pedestal_run}
    if device.kind == "cpu":
        if isinstance(frames, PackedFrames):
            raise InputError("packed frames are for a GPU; the CPU takes them unpacked")
        return chain.reconstruct_block(frames, rows, calibration, recipe, **numbers)
    from cygnoreco.cuda.block import reconstruct_block as on_gpu
    from cygnoreco.cuda.program import cupy_program

    with _device_errors(device, frames.shape[0]):
        return on_gpu(frames, rows, calibration, recipe, program=cupy_program(device.index), **numbers)


def needs_maps(device: Device, recipe: Recipe) -> bool:
    """Whether a device needs the maps of the pedestal in a calibration (:func:`cygnoreco.chain.calibrate`)."""
    return device.kind != "cpu" or not chain.is_fused(recipe)


def planned_bytes(camera: Camera, block: int, recipe: Recipe) -> int:
    """Most memory of a GPU that blocks of so many frames can take.

    Parameters
    ----------
    camera : Camera
        Shape of the frames.
    block : int
        Frames a block.
    recipe : Recipe
        Its stages.

    Returns
    -------
    int
        Bytes: calibration, two blocks of frames (one on its way) and one unpacked, the images of one, and what the
        points need if every macro-pixel is one.
    """
    from cygnoreco.cuda.block import planned_bytes as planned

    return planned(camera.shape, block, recipe)


def plan_device(name: str, camera: Camera, block: int, recipe: Recipe, *, at_once: int = 1) -> Device:
    """Find the device that a name stands for, and make sure that it can do the work.

    Parameters
    ----------
    name : str
        As for :func:`resolve_device`. With ``auto`` a GPU that cannot do this work is as good as none: the CPU is
        taken, and its description says why.
    camera, block, recipe, at_once
        As for :func:`check_plan`.

    Raises
    ------
    InputError, TransientError
        As for the two of them.
    """
    device = resolve_device(name)
    try:
        check_plan(device, camera, block, recipe, at_once=at_once)
    except (InputError, TransientError) as error:
        if name != "auto":
            raise
        return Device("cpu", 0, f"CPU, since {error}")
    return device


def check_plan(
    device: Device, camera: Camera, block: int, recipe: Recipe, *, at_once: int = 1, free: int | None = None
) -> None:
    """Refuse, before anything is submitted, what the device cannot do or has not the memory for.

    Parameters
    ----------
    device : Device
        The CPU is not asked: its blocks are small, and the system has memory to lend.
    camera, block, recipe
        As for :func:`planned_bytes`.
    at_once : int
        Blocks on the device at the same time: one a thread.
    free : int, optional
        Free memory in bytes; by default what the device says, and what CuPy keeps for this process.

    Raises
    ------
    InputError
        The memory is too little, and the message says the largest block that fits; or the recipe asks for an
        arithmetic that the device does not have.
    TransientError
        The device does not say what it has free, since others have taken it.
    """
    if device.kind == "cpu":
        return
    if recipe.precision != "float64":
        raise InputError(f"precision = {recipe.precision} of recipe '{recipe.name}': a GPU has float64 only")
    if free is None:
        with _device_errors(device, block):
            free = _free_bytes(device)
    usable = int(USABLE * free) // at_once
    needed = planned_bytes(camera, block, recipe)
    if needed <= usable:
        return
    fits = max((n for n in range(1, block) if planned_bytes(camera, n, recipe) <= usable), default=0)
    advice = f"the largest block that fits has {fits}" if fits else "not even a block of one frame fits"
    if at_once > 1:
        advice += "; fewer --threads leave more to each"
    raise InputError(
        f"blocks of {block} frames of {camera.height} x {camera.width} pixels may need {needed / 2**30:.1f} GiB on "
        f"{device}, which has {usable / 2**30:.1f} GiB to spare for each of {at_once} at a time; {advice}"
    )


@contextmanager
def _device_errors(device: Device, block: int) -> Iterator[None]:
    """Say what the user can do about what goes wrong on a GPU; any other error of it is a bug, and stays as it is."""
    import cupy

    memory = (
        f"the memory of {device} does not hold a block of {block} frames now: give fewer with --block, or fewer "
        "--threads, or try again when others have left the device"
    )
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise TransientError(f"{memory} ({error})") from error
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status == _NO_MEMORY:  # of the driver itself, or pinned memory of the host
            raise TransientError(f"{memory} ({error})") from error
        if error.status in (_UNAVAILABLE, _ECC):
            raise TransientError(f"{device} cannot be used now ({error}); nvidia-smi says more") from error
        raise


def _free_bytes(device: Device) -> int:
    """Memory that arrays can have: what the device has free, and what CuPy holds of it from arrays that are gone."""
    import cupy

    with cupy.cuda.Device(device.index) as there:  # the pool answers for the current device
        return int(there.mem_info[0]) + int(cupy.get_default_memory_pool().free_bytes())


def _gpu(index: int) -> Device:
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(index)
    return Device("cuda", index, f"{properties['name'].decode()} (cuda:{index})")


def _gpus() -> tuple[int, str]:
    """Count the GPUs that can be used; if there are none, what is missing and what to do about it."""
    version = _driver_version()
    if version is None:
        return 0, "there is no NVIDIA driver on this machine (libcuda.so.1)"
    if version == 0:
        return (
            0,
            "the NVIDIA driver does not say which CUDA it is for: libcuda.so.1 is a stub, or its installation broken",
        )
    if version < _CUDA12:
        return 0, f"the NVIDIA driver is for CUDA {_spoken(version)}, expected 12.0 or later: update it to 525 or later"
    extra, major = ("cuda13", 13) if version >= _CUDA13 else ("cuda12", 12)
    install = f"pip install cygnoreco[{extra}]"
    nothing = "the NVIDIA driver finds no GPU: there is none on this machine, or CUDA_VISIBLE_DEVICES hides it"
    try:
        import cupy
    except ImportError as error:
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        return 0, f"CuPy {why}: {install} fits the driver of this machine"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status == _NO_DEVICE:
            return 0, nothing
        return 0, f"the driver, for CUDA {_spoken(version)}, does not answer CuPy ({error}); {install} fits it"
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # whatever a missing library raises
        return 0, f"NVRTC, which compiles the kernels, is missing ({error}): pip install nvidia-cuda-nvrtc-cu{major}"
    return count, nothing


def _spoken(version: int) -> str:
    """12.4 for 12040."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _driver_version() -> int | None:
    """CUDA version that the driver supports (12040 is 12.4), 0 if it does not say; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value
