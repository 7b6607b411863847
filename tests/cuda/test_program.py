"""How kernels are launched and frames sent, with a stand-in for CuPy that writes down what it is asked."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from cygnoreco.cuda.program import OPTIONS, cupy_program, source


class Array(np.ndarray):
    """An array of the stand-in: filled by ``set`` alone, on a stream."""

    said: list

    def set(self, values, stream=None):
        self.said.append(("copy", stream.name))
        self[...] = values


@pytest.fixture
def said(monkeypatch):
    """What the stand-in was asked, in order."""
    said: list = []
    Array.said = said

    class Stream:
        def __init__(self, name="own", non_blocking=False):
            self.name = name

        def record(self):
            said.append(("record", self.name))
            return f"event of {self.name}"

        def synchronize(self):
            said.append(("synchronize", self.name))

        def wait_event(self, event):
            said.append(("wait", self.name, event))

    class RawModule:
        def __init__(self, code, options):
            said.append(("compile", code == source(), options == OPTIONS))

        def get_function(self, name):
            said.append(("find", name))
            return lambda grid, block, arguments: said.append(("launch", grid, block, arguments))

    def empty(size, dtype):
        return np.zeros(size, dtype).view(Array)

    cuda = SimpleNamespace(
        Stream=Stream,
        Device=lambda index: nullcontext(index),
        get_current_stream=lambda: Stream("current"),
        alloc_pinned_memory=lambda size: said.append(("pin", size)) or bytearray(size),
    )
    cupy = SimpleNamespace(cuda=cuda, empty=empty, ndarray=np.ndarray, asnumpy=np.asarray, RawModule=RawModule)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    cupy_program.cache_clear()
    yield said
    cupy_program.cache_clear()


def test_kernels_are_compiled_once_and_launched_with_their_types(said):
    program = cupy_program(0)
    assert cupy_program(0) is program
    array = np.zeros(3)
    program.launch("one", (2, 3), 64, array, 7, True, 1.5, np.float32(2))
    program.launch("one", 0, 64)
    assert said[:2] == [("compile", True, True), ("find", "one")]
    _, grid, block, arguments = said[2]
    assert (grid, block) == ((2, 3, 1), (64, 1, 1))
    assert arguments[0] is array
    assert [type(each) for each in arguments[1:]] == [np.int32, np.int32, np.float64, np.float32]
    assert len(said) == 3, "a grid without blocks launches nothing"


def test_an_array_with_gaps_is_refused(said):
    with pytest.raises(ValueError, match="not contiguous"):
        cupy_program(0).launch("one", 1, 64, np.zeros((4, 4))[:, 1])


def test_frames_travel_on_a_stream_of_their_own(said):
    program = cupy_program(0)
    lane = program.lane()
    frames = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    said.clear()
    lane.send(frames)
    assert said == [
        ("synchronize", "own"),
        ("pin", 256),
        ("record", "current"),
        ("wait", "own", "event of current"),
        ("copy", "own"),
        ("record", "own"),
    ]
    said.clear()
    (arrived,) = lane.arrived()
    assert np.array_equal(arrived, frames)
    assert said == [("wait", "current", "event of own")]
    said.clear()
    lane.send(frames[:1] + np.uint16(1))
    assert said == [("copy", "own"), ("record", "own")], "memory is used again"
    assert np.array_equal(lane.arrived()[0], frames[:1] + 1)
    lane.send(frames[:0])
    assert lane.arrived()[0].shape == (0, 3, 4)
    said.clear()
    lane.send(np.repeat(frames, 6, axis=0))
    assert said[:2] == [("synchronize", "own"), ("pin", 512)], "no copy goes on in memory given back"


def test_arrays_of_any_type_travel_side_by_side(said):
    lane = cupy_program(0).lane()
    words, tiles = np.arange(7, dtype=np.uint16), np.arange(12, dtype=np.int64).reshape(2, 6)
    said.clear()
    lane.send(words, tiles)
    assert [each for each in said if each[0] in ("pin", "copy")] == [("pin", 512), ("copy", "own"), ("copy", "own")]
    assert said[-1] == ("record", "own")
    there = lane.arrived()
    for array, sent in zip(there, (words, tiles), strict=True):
        assert array.dtype == sent.dtype
        np.testing.assert_array_equal(array, sent)
    assert there[1].ctypes.data - there[0].ctypes.data == 256, "each begins where any type may"
    words[:] = 0
    assert there[0].any(), "what is sent may be overwritten"


def test_a_lane_without_memory_can_be_used_again(said, monkeypatch):
    lane = cupy_program(0).lane()
    frames = np.arange(240, dtype=np.uint16).reshape(20, 3, 4)
    lane.send(frames[:1])
    pin = sys.modules["cupy"].cuda.alloc_pinned_memory

    def fail(size):
        raise MemoryError(size)

    monkeypatch.setattr(sys.modules["cupy"].cuda, "alloc_pinned_memory", fail)
    with pytest.raises(MemoryError):
        lane.send(frames)
    monkeypatch.setattr(sys.modules["cupy"].cuda, "alloc_pinned_memory", pin)
    lane.send(frames)
    assert np.array_equal(lane.arrived()[0], frames)
