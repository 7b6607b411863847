"""Clustering time grows no faster than the points, with the worst inputs too: ratios of CPU times with wide margins."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.idbscan import idbscan
from cygnoreco.cluster.lattice import dbscan

SIDE = 576
METHODS = [dbscan, idbscan, directional]


def listed(image):
    rows, cols = (each.astype(np.int32) for each in np.nonzero(image))
    return rows, cols, np.full(len(rows), 7, np.int32)


def speckle(fraction):
    return listed(np.random.default_rng(1).random((SIDE, SIDE)) < fraction)


def lines(step, *, standing):
    """Parallel lines, two macro-pixels wide, that no method joins."""
    image = np.zeros((SIDE, SIDE), bool)
    image[::step] = image[1::step] = True
    return listed(image.T if standing else image)


def short_lines(n):
    image = np.zeros((SIDE, SIDE), bool)
    for k in range(n):
        row, col = k // 20 * 28, k % 20 * 28
        image[row : row + 14, col : col + 2] = True
    return listed(image)


def checkerboard():
    return listed(np.indices((SIDE, SIDE)).sum(axis=0) % 2 == 0)


def seconds(method, points):
    """Smallest of several CPU times after a warm-up."""
    method(*points)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        method(*points)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("method", METHODS)
def test_time_is_linear_in_clusters(method):
    few, many = short_lines(60), short_lines(400)
    growth = seconds(method, many) / len(many[0]) / (seconds(method, few) / len(few[0]))
    assert growth < 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "worst",
    [speckle(0.075), speckle(0.5), checkerboard(), lines(18, standing=False), lines(18, standing=True)],
    ids=["noise", "dense noise", "checkerboard", "lying lines", "standing lines"],
)
def test_no_shape_takes_long(method, worst):
    """In units of the time that a usual frame of short tracks takes a point."""
    usual = short_lines(400)
    assert seconds(method, worst) / len(worst[0]) < 10 * seconds(method, usual) / len(usual[0])
