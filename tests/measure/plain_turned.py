"""Profiles and map of a cluster as the words define them: all coordinates first, then one thing after the other."""

from __future__ import annotations

import numpy as np

from cygnoreco.measure.profile import Profile, bin_edges, moments


def rotate(x, y, frame):
    """Coordinates along and across of all pixels of macro-pixels, in the pixels' order."""
    side = np.arange(frame.size)
    outer, inner = (each.ravel() for each in np.meshgrid(side, side, indexing="ij"))
    right, down = (outer, inner) if frame.rows_first else (inner, outer)
    dx = (x[:, None] * frame.size + right - frame.pivot_x).ravel()
    dy = (y[:, None] * frame.size + down - frame.pivot_y).ravel()
    return frame.along + frame.cos * dx + frame.sin * dy, frame.across - frame.sin * dx + frame.cos * dy


def map_rms(along, across, counts, overwrite):
    """RMS along both axes of the map with bins of one pixel, in which the last one overwrites the others or all add."""
    bins = [np.rint(each - each.min()).astype(int) for each in (along, across)]
    writer = {place: k for k, place in enumerate(zip(*bins, strict=True))}
    total = sum_a = sum_aa = sum_b = sum_bb = 0.0
    for k, (i, j) in enumerate(zip(*bins, strict=True)):
        if overwrite and writer[i, j] != k:
            continue
        a, b, z = i + 0.5, j + 0.5, counts[k]
        total += z
        sum_a += z * a
        sum_aa += z * a * a
        sum_b += z * b
        sum_bb += z * b * b
    return moments(total, sum_a, sum_aa)[1], moments(total, sum_b, sum_bb)[1]


def fill_profile(positions, counts, min_pixels, whole):
    """Profile of pixels at some positions; see :func:`cygnoreco.measure.turned.profiles_and_map`."""
    first, last = positions.min(), positions.max()
    x = positions - first
    columns = x.astype(int) if whole else positions.astype(int) - int(first)
    n_columns = int(last - first) + 1 if whole else int(last) - int(first) + 1
    inside = n_columns if whole else n_columns - 1
    if inside == 0:
        return Profile(np.zeros(1), np.zeros(0), np.zeros(0), 0.0, 0.0)
    edges = bin_edges(np.bincount(columns, minlength=n_columns)[:inside], min_pixels, whole)
    contents, squares = np.zeros(len(edges) - 1, np.float32), np.zeros(len(edges) - 1)
    total = total_x = total_xx = 0.0
    for at, z in zip(x, counts, strict=True):
        if at >= inside:
            continue
        k = np.searchsorted(edges, int(at), side="right") - 1
        contents[k] += np.float32(z)
        squares[k] += z * z
        total += z
        total_x += z * at
        total_xx += z * at * at
    return Profile(edges.astype(float), contents.astype(float), squares, *moments(total, total_x, total_xx))
