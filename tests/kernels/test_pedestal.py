"""Exact sums over dark frames."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.kernels.pedestal import MAX_FRAMES, SHIFT, TILE, accumulate, moments


def test_sums_are_exact_over_tiles_and_blocks():
    """Counts below and above the shift and at both ends of 16 bits; a last tile that is not full."""
    pixels = 2 * TILE + 37
    frames = np.random.default_rng(1).integers(0, 200, (11, pixels), dtype=np.uint16)
    frames[:, :3] = (0, SHIFT, 65535)
    sums, squares = np.zeros(pixels, np.uint32), np.zeros(pixels, np.uint64)
    for start in (0, 8):
        accumulate(frames[start : start + 8], sums, squares)
    exact = frames.astype(np.int64)
    assert np.array_equal(sums, exact.sum(axis=0))
    assert np.array_equal(squares, ((exact - SHIFT) ** 2).sum(axis=0))


@pytest.mark.parametrize("largest", [200, 32868, 65535])
def test_sums_are_exact_on_both_sides_of_32_bits(largest):
    """Four squares of 32768 are 2^32 to the last."""
    frames = np.full((4, TILE + 5), 90, np.uint16)
    frames[:, TILE] = largest
    frames[1, 3] = largest
    sums, squares = np.zeros(TILE + 5, np.uint32), np.zeros(TILE + 5, np.uint64)
    accumulate(frames, sums, squares)
    exact = frames.astype(np.int64)
    assert np.array_equal(sums, exact.sum(axis=0))
    assert np.array_equal(squares, ((exact - SHIFT) ** 2).sum(axis=0))


def test_moments_are_right_where_floating_point_would_not_be():
    """The largest sums there can be: half of the frames at 65,535 counts, half at 65,534."""
    half = MAX_FRAMES // 2
    sums = np.array([half * 65535 + half * 65534, MAX_FRAMES * 65535], np.uint32)
    squares = np.array([half * 65435**2 + half * 65434**2, MAX_FRAMES * 65435**2], np.uint64)
    mean, rms = np.empty(2), np.empty(2)
    moments(sums, squares, MAX_FRAMES, mean, rms)
    assert mean.tolist() == [65534.5, 65535.0]
    assert rms.tolist() == [0.5 * np.sqrt(MAX_FRAMES / (MAX_FRAMES - 1)), 0.0]
