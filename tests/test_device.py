"""Names of devices, what is said when there is none, and memory that is planned before anything is submitted."""

from __future__ import annotations

import builtins
import re
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from cygnoreco import chain, device
from cygnoreco.device import Device, check_plan, plan_device, planned_bytes, reconstruct_block, resolve_device
from cygnoreco.errors import InputError, TransientError
from cygnoreco.recipe import Recipe
from cygnoreco.types import Camera, PackedFrames

LIME = Camera("CAM0", 2304, 2304)


class DriverError(Exception):
    """What CUDA's runtime raises, with its number."""

    def __init__(self, text, status=999):
        super().__init__(text)
        self.status = status


class OutOfMemoryError(MemoryError):
    pass


def with_gpus(monkeypatch, count, *, driver=12080, error=None, free=40 * 2**30, pool=0):
    """A machine with so many GPUs, as far as this module can see."""

    def answer():
        if error:
            raise error
        return count

    runtime = SimpleNamespace(
        getDeviceCount=answer,
        CUDARuntimeError=DriverError,
        getDeviceProperties=lambda index: {"name": b"NVIDIA H200"},
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        nvrtc=SimpleNamespace(getVersion=lambda: (12, 8)),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        Device=lambda index: nullcontext(SimpleNamespace(mem_info=(free, 80 * 2**30))),
    )
    kept = SimpleNamespace(free_bytes=lambda: pool)
    monkeypatch.setattr(device, "_driver_version", lambda: driver)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: kept))
    return cuda


def without_cupy(monkeypatch, driver, fault=ModuleNotFoundError):
    real = builtins.__import__

    def no_cupy(name, *arguments, **keywords):
        if name == "cupy":
            raise fault("no cupy here")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(device, "_driver_version", lambda: driver)
    monkeypatch.setattr(builtins, "__import__", no_cupy)


def test_the_cpu_is_always_there():
    assert resolve_device() == resolve_device("cpu") == Device("cpu")
    assert str(resolve_device("cpu")) == "cpu"


@pytest.mark.parametrize(("name", "close"), [("gpu", "'cuda'"), ("CUDA", "valid: auto, cpu"), ("cuda:x", "'cuda:0'")])
def test_unknown_devices_are_refused_with_the_nearest(name, close):
    with pytest.raises(InputError, match=f"unknown device '{name}'.*{close}"):
        resolve_device(name)


def test_gpus_by_number(monkeypatch):
    with_gpus(monkeypatch, 2)
    assert resolve_device("cuda").name == "cuda:0"
    assert resolve_device("cuda:1").name == "cuda:1"
    assert resolve_device("auto").description == "NVIDIA H200 (cuda:0)"
    with pytest.raises(InputError, match="has 2 GPUs; valid: cuda:0, cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("driver", "message"), [(12080, r"pip install cygnoreco\[cuda12\]"), (13010, r"pip install cygnoreco\[cuda13\]")]
)
def test_without_cupy_the_right_extra_is_named(monkeypatch, driver, message):
    without_cupy(monkeypatch, driver)
    with pytest.raises(InputError, match=f"CuPy is not installed: {message}"):
        resolve_device("cuda")
    assert resolve_device("auto").name == "cpu"
    assert "CuPy is not installed" in resolve_device("auto").description


def test_a_cupy_that_does_not_import(monkeypatch):
    without_cupy(monkeypatch, 12080, ImportError)
    with pytest.raises(InputError, match=r"CuPy cannot be imported \(no cupy here\)"):
        resolve_device("cuda:0")


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"count": 0}, "the NVIDIA driver finds no GPU"),
        ({"count": 0, "error": DriverError("no CUDA-capable device", 100)}, "finds no GPU.* CUDA_VISIBLE_DEVICES"),
        ({"count": 0, "driver": None}, "no NVIDIA driver"),
        ({"count": 0, "driver": 0}, "does not say which CUDA it is for"),
        ({"count": 0, "driver": 11040}, "is for CUDA 11.4, expected 12.0 or later: update it"),
        (
            {"count": 0, "error": DriverError("driver too old", 35)},
            "for CUDA 12.8, does not answer CuPy .driver too old",
        ),
    ],
)
def test_without_a_gpu_it_is_said_what_is_missing(monkeypatch, machine, message):
    with_gpus(monkeypatch, **machine)
    with pytest.raises(InputError, match=message):
        resolve_device("cuda")
    assert re.search(message, resolve_device("auto").description)


def test_without_the_compiler_of_kernels(monkeypatch):
    cuda = with_gpus(monkeypatch, 1)

    def missing():
        raise RuntimeError("libnvrtc.so.12 not found")

    cuda.nvrtc.getVersion = missing
    with pytest.raises(InputError, match=r"NVRTC.*libnvrtc.so.12 not found.*pip install nvidia-cuda-nvrtc-cu12"):
        resolve_device("cuda")


def test_blocks_that_do_not_fit_are_refused_with_the_largest_that_does():
    recipe, gpu = Recipe.load("lime"), Device("cuda", 0)
    needed = planned_bytes(LIME, 16, recipe)
    check_plan(gpu, LIME, 16, recipe, free=int(needed / device.USABLE) + 1)
    with pytest.raises(InputError, match=r"blocks of 17 frames of 2304 x 2304 .* largest block that fits has 16"):
        check_plan(gpu, LIME, 17, recipe, free=int(needed / device.USABLE) + 1)
    with pytest.raises(InputError, match="not even a block of one frame"):
        check_plan(gpu, LIME, 17, recipe, free=2**20)
    check_plan(gpu, LIME, 16, recipe, at_once=2, free=int(2 * needed / device.USABLE) + 2)
    with pytest.raises(InputError, match=r"each of 2 at a time; .*; fewer --threads"):
        check_plan(gpu, LIME, 16, recipe, at_once=2, free=int(needed / device.USABLE) + 1)
    with pytest.raises(InputError, match="float64 only"):
        check_plan(gpu, LIME, 16, recipe.override(["precision=float32"]))
    check_plan(Device("cpu"), LIME, 10**6, recipe, free=0)


def test_free_memory_is_that_of_the_device(monkeypatch):
    with_gpus(monkeypatch, 1)
    with pytest.raises(InputError, match=r"36\.0 GiB to spare"):
        check_plan(Device("cuda", 0), LIME, 4000, Recipe.load("lime"))


def test_memory_that_cupy_keeps_is_free_too(monkeypatch):
    with_gpus(monkeypatch, 1, free=30 * 2**30, pool=30 * 2**30)
    with pytest.raises(InputError, match=r"54\.0 GiB to spare"):
        check_plan(Device("cuda", 0), LIME, 4000, Recipe.load("lime"))


def test_a_device_is_planned_and_auto_falls_back(monkeypatch):
    recipe = Recipe.load("lime")
    with_gpus(monkeypatch, 1)
    assert plan_device("cuda", LIME, 64, recipe).name == plan_device("auto", LIME, 64, recipe).name == "cuda:0"
    with pytest.raises(InputError, match=r"blocks of 64 frames .* largest block that fits"):
        plan_device("cuda", LIME, 64, recipe, at_once=4)
    chosen = plan_device("auto", LIME, 64, recipe, at_once=4)
    assert chosen.name == "cpu"
    assert re.match("CPU, since blocks of 64 frames .* may need .* largest block that fits", chosen.description)
    chosen = plan_device("auto", LIME, 64, recipe.override(["precision=float32"]))
    assert "float64 only" in chosen.description
    with pytest.raises(InputError, match="unknown device"):
        plan_device("atuo", LIME, 64, recipe)

    def taken(index):
        raise DriverError("cudaErrorDevicesUnavailable", 46)

    sys.modules["cupy"].cuda.Device = taken
    with pytest.raises(TransientError, match="cuda:0 cannot be used now"):
        plan_device("cuda", LIME, 64, recipe)
    assert "cannot be used now" in plan_device("auto", LIME, 64, recipe).description
    assert plan_device("cpu", LIME, 64, recipe) == Device("cpu")


@pytest.mark.parametrize(
    ("fault", "told", "message"),
    [
        (
            OutOfMemoryError("Out of memory allocating 5 bytes"),
            TransientError,
            "a block of 3 frames now: .*--block.* 5 b",
        ),
        (DriverError("cudaErrorMemoryAllocation", 2), TransientError, "--block.*cudaErrorMemoryAllocation"),
        (DriverError("cudaErrorDevicesUnavailable", 46), TransientError, "cuda:1 cannot be used now"),
        (DriverError("cudaErrorIllegalAddress", 700), DriverError, "cudaErrorIllegalAddress"),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
def test_what_goes_wrong_on_the_device(monkeypatch, fault, told, message):
    from cygnoreco.cuda import block, program

    def fail(*arguments, **keywords):
        raise fault

    with_gpus(monkeypatch, 2)
    monkeypatch.setattr(block, "reconstruct_block", fail)
    monkeypatch.setattr(program, "cupy_program", lambda index: index)
    frames = np.empty((3, 4, 4), np.uint16)
    with pytest.raises(told, match=message):
        reconstruct_block(frames, None, None, None, device=Device("cuda", 1), origin="midas", run=1, pedestal_run=2)


def test_plan_grows_with_block_sensor_and_what_is_enabled():
    recipe = Recipe.load("lime")
    plans = [planned_bytes(LIME, n, recipe) for n in (1, 2, 4)]
    assert plans[2] - plans[1] == pytest.approx(2 * (plans[1] - plans[0]))
    assert planned_bytes(Camera("CAM0", 2304, 4096), 1, recipe) > plans[0]
    assert planned_bytes(LIME, 1, recipe.override(("energy.enabled=true",))) > plans[0]


def test_the_cpu_runs_the_chain(monkeypatch):
    seen = {}

    def remember(*arguments, **keywords):
        seen.update(keywords)
        return "tables", {}

    monkeypatch.setattr(chain, "reconstruct_block", remember)
    nothing = np.empty((0, 4, 4), np.uint16)
    keywords = {"origin": "midas", "run": 1, "pedestal_run": 2}
    found = reconstruct_block(nothing, nothing, None, None, device=Device("cpu"), **keywords)
    assert found == ("tables", {})
    assert seen == keywords
    packed = PackedFrames(np.empty(0, np.uint16), np.empty((0, 6), np.int64), (0, 4, 4))
    assert (Device("cpu").unpacks, Device("cuda").unpacks) == (False, True)
    with pytest.raises(InputError, match="packed frames are for a GPU"):
        reconstruct_block(packed, nothing, None, None, device=Device("cpu"), **keywords)
