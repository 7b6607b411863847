"""Time grows no faster than the macro-pixels and the clusters, with the worst inputs too.

Ratios of CPU times in one run with wide margins: each is the time a macro-pixel of the larger input over that of the
smaller one. Quadratic growth would make it 4 or more.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from cygnoreco.measure.density import density_calibration
from cygnoreco.measure.profile import find_peaks
from cygnoreco.measure.variables import measure

MOST = 2.5


def seconds(work):
    """Smallest of several CPU times after a warm-up."""
    work()
    best = float("inf")
    for _ in range(4):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def block(height, width):
    """One cluster: a full rectangle of macro-pixels."""
    rows, cols = (each.ravel().astype(np.int32) for each in np.mgrid[0:height, 0:width])
    return rows, cols, np.array([0, len(rows)])


def spots(n):
    """Clusters of 5 x 5 macro-pixels."""
    rows, cols, _ = block(5, 5)
    k = np.repeat(np.arange(n, dtype=np.int32), 25)
    return np.tile(rows, n) + k // 40 * 10, np.tile(cols, n) + k % 40 * 10, np.arange(n + 1) * 25


def growth(work, small, large):
    """Time a macro-pixel of the larger input, in units of that of the smaller one."""

    def one(place):
        rows, cols, offsets = place
        z = np.random.default_rng(1).normal(3.0, 5.0, (len(rows), 4, 4))
        return seconds(lambda: work(rows, cols, offsets, z)) / len(rows)

    return one(large) / one(small)


def variables(rows, cols, offsets, z):
    measure(rows, cols, offsets, z, z > 3, z > 90, np.zeros(len(offsets) - 1, np.int32), map_collisions="overwrite")


def energy(rows, cols, offsets, z):
    density_calibration(rows, cols, offsets, z, enabled=True)


@pytest.mark.parametrize(
    ("small", "large"),
    [(block(60, 60), block(120, 120)), (block(1500, 3), block(6000, 3)), (spots(60), spots(240))],
    ids=["blob", "track", "spots"],
)
@pytest.mark.parametrize("work", [variables, energy])
def test_time_is_linear(work, small, large):
    assert growth(work, small, large) < MOST


def test_pixels_far_from_any_skeleton_ask_few_centres():
    """The skeleton of a square is its diagonals: most of its pixels are in no disc, and there are ever more discs."""
    assert growth(energy, block(120, 120), block(240, 240)) < MOST


@pytest.mark.parametrize("shape", ["rising", "falling", "comb"])
def test_peaks_of_the_longest_profile_take_no_time(shape):
    """Every peak of a staircase looks back over all that are lower: the square of a profile's length is the worst."""
    x = np.arange(3258)
    step = {"rising": x, "falling": x[::-1], "comb": 0 * x}[shape]
    y = 10.0 * (x % 2) + step
    rough = np.random.default_rng(1).normal(0, 10, len(x))
    longest, usual = (seconds(lambda each=each: find_peaks(each, 3.0, 2.0, 0.0, 1.0)) for each in (y, rough))
    assert longest < 100 * usual
