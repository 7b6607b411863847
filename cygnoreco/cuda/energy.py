"""Calibrated energy and length of all clusters of a block of frames on a GPU: the stage ``energy`` as kernels.

What is decided in integers (the skeleton, its points, the discs, the pixels of every slice) is that of
:func:`cygnoreco.measure.density.density_calibration`, exactly, and so is the path length to its last bit. The energy
agrees within ``ENERGY_TOLERANCE``: counts are summed without rounding, and the functions of the formula have errors of
their own. Whatever the order in which the threads run, the result has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cygnoreco.cuda.program import Program
from cygnoreco.errors import InputError

#: Relative tolerance of the energy against the CPU's, before it is rounded to single precision.
ENERGY_TOLERANCE = 1e-9

#: Memory for the tiles of the clusters that are worked on at a time; more clusters wait for the next round. A single
#: cluster has what it needs: 0.1 GiB for one that covers a sensor of 2304 x 2304 pixels.
SCRATCH_BYTES = 1 << 30

#: Most pixels of a cluster, which its sums of fractions and the words of its tile have room for.
MAX_PIXELS = 1 << 24

#: Clusters of more pixels have the larger blocks of threads; they would hold up the others.
LARGE, THREADS, MORE_THREADS = 1 << 14, 128, 1024


def energy_block(
    program: Program,
    rows: Any,
    cols: Any,
    offsets: Any,
    z: Any,
    *,
    enabled: bool,
    slice_radius: float,
    pixel_threshold: float,
    prunings: int,
    matrix: Literal["full", "short"],
    coverage: Literal["all", "discs"],
    path: Literal["euclidean", "pixels"],
    density_pitch: float,
    linear_constant: float,
    linear_slope: float,
    saturation_plateau: float,
    saturation_scale: float,
    saturation_power: float,
    normalisation: float,
    empty_factor: float,
) -> tuple[Any, Any]:
    """Calibrate the energy of clusters slice by slice, and measure their lengths along their skeletons.

    The host waits for the device once, for the shapes of the clusters.

    Parameters
    ----------
    program : Program
        Kernels, and the arrays they work on.
    rows, cols : array of int32, shape (m,)
        Macro-pixels, grouped by cluster; no macro-pixel twice in a cluster.
    offsets : array of int64, shape (k + 1,)
        Cluster c has the macro-pixels offsets[c] to offsets[c + 1], at least one.
    z : array of float64, shape (m, r, r)
        Counts of the pixels of each macro-pixel in ADU.
    enabled, slice_radius, pixel_threshold, prunings, matrix, coverage, path : bool, float, int or str
        As in :func:`cygnoreco.measure.density.density_calibration`, and all that follow.
    density_pitch, linear_constant, linear_slope, saturation_plateau, saturation_scale, saturation_power : float
        Constants of the formula.
    normalisation, empty_factor : float
        Constants of the formula.

    Returns
    -------
    energy : array of float64, shape (k,)
        Calibrated energy in keV; -1 if not enabled.
    pathlength : array of float64, shape (k,)
        Length along the pruned skeleton in pixels; -1 if not enabled.

    Raises
    ------
    InputError
        The arrays do not fit together; a cluster has more than 2**24 pixels.
    """
    xp = program.xp
    n_clusters = len(offsets) - 1
    if not enabled or n_clusters == 0:
        return xp.full(n_clusters, -1.0), xp.full(n_clusters, -1.0)
    if z.ndim != 3 or z.shape[1] != z.shape[2] or not rows.shape == cols.shape == z.shape[:1]:
        raise InputError(
            f"macro-pixels with rows {rows.shape}, cols {cols.shape} and z {z.shape}: expected (m,), (m,) and (m, r, r)"
        )
    rows, cols = xp.ascontiguousarray(rows, np.int32), xp.ascontiguousarray(cols, np.int32)
    offsets, z = xp.ascontiguousarray(offsets, np.int64), xp.ascontiguousarray(z, np.float64)
    short, everything = int(matrix == "short"), int(coverage == "all")
    radius, threshold = float(slice_radius), float(pixel_threshold)

    r = z.shape[1]
    boxes = xp.empty((n_clusters, 4), np.int32)
    program.launch("energy_boxes", n_clusters, 64, rows, cols, offsets, boxes)
    shapes = program.to_host(xp.concatenate([boxes, offsets[:-1, None], offsets[1:, None]], axis=1))
    members = shapes[:, 4:]
    plans, sizes = _plan(shapes[:, :4], np.diff(members)[:, 0] * r * r, r, short, radius)

    constants = [density_pitch, linear_constant, linear_slope, saturation_plateau, saturation_scale, saturation_power]
    constants = xp.asarray(np.array([*constants, normalisation, empty_factor], np.float64))
    counts = xp.empty((n_clusters, 3), np.int32)
    energy = xp.empty(n_clusters)
    for first, stop in _rounds(sizes):
        here = slice(first, stop)
        begins = np.cumsum(sizes[here], axis=0) - sizes[here]
        words, pixels, cells, bands = (int(total) for total in sizes[here].sum(axis=0))
        plan = xp.asarray(np.ascontiguousarray(np.hstack([begins, plans[here]])))
        ends, count = offsets[first : stop + 1], counts[here]
        tiles = xp.zeros(words, np.uint32)
        lists = xp.empty(3 * pixels, np.int32)
        band_ends = xp.zeros(bands, np.int32)
        grids = xp.full(cells, -1, np.int32)
        centres = xp.empty(cells, np.int32)
        sums = xp.zeros((cells, 2), np.uint64)
        bright = xp.zeros(cells, np.int32)

        turns = np.argsort(-sizes[here, 1], kind="stable").astype(np.int32)  # the longest work begins first
        n_large = int((sizes[here, 1] > LARGE).sum())
        turns_there = xp.asarray(turns)
        for some, threads in ((turns_there[:n_large], MORE_THREADS), (turns_there[n_large:], THREADS)):
            program.launch(
                "energy_skeleton",
                *(len(some), threads, some, plan, rows, cols, ends, z, r, short, int(prunings), radius),
                *(tiles, lists, band_ends, grids, centres, count),
            )
        start, end = int(members[first, 0]), int(members[stop - 1, 1])
        program.launch(
            "energy_share",
            *(-(-(end - start) // 128), 128, np.int64(start), np.int64(end), plan, stop - first, rows, cols, ends, z),
            *(r, short, everything, radius, threshold, tiles, grids, centres, count, sums, bright),
        )
        program.launch(
            "energy_total",
            *(-(-(stop - first) // 64), 64, plan, stop - first, count, sums, bright, everything, constants),
            energy[here],
        )
    pathlength = counts[:, 0].astype(np.float64)
    if path == "euclidean":
        pathlength += (math.sqrt(2.0) - 1.0) * counts[:, 1]
    return energy, pathlength


def _plan(
    boxes: NDArray[np.int64], pixels: NDArray[np.int64], r: int, short: int, radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Plan of every cluster, the later columns of ``EnergyPlan``, and its numbers of words, pixels, cells and bands.

    The plan has the first row and column of its matrix on the sensor, and height and width of its tile. A cell has one
    centre at most, see :mod:`cygnoreco.measure.density`, so the cells bound the slices too.
    """
    if (pixels > MAX_PIXELS).any():
        raise InputError(f"a cluster of {pixels.max()} pixels: the kernels take at most {MAX_PIXELS}")
    first_row, first_col = boxes[:, 0] * r + short, boxes[:, 2] * r + short
    height, width = (boxes[:, 1] + 1) * r - first_row + 2, (boxes[:, 3] + 1) * r - first_col + 2
    words = height * width
    if (words > np.iinfo(np.int32).max).any():
        at = int(words.argmax())
        raise InputError(f"a cluster of {height[at]} x {width[at]} pixels: the kernels take boxes of less than 2**31")
    reach = min(radius, 1e6)
    side = int(reach / math.sqrt(2.0)) + 1
    cells = (height // side + 1) * (width // side + 1)
    bands = height // (int(reach) + 1) + 1
    return np.stack([first_row, first_col, height, width], axis=1), np.stack([words, pixels, cells, bands], axis=1)


def _rounds(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and last + 1 of consecutive clusters whose arrays fit into the scratch memory, or of one that does not."""
    needed = sizes @ np.array(
        [4, 12, 28, 4]
    )  # bytes of a word of a tile, of a pixel in the lists, of a cell, of a band
    ends = np.cumsum(needed)
    first = 0
    while first < len(needed):
        before = ends[first] - needed[first]
        stop = max(first + 1, int(np.searchsorted(ends, before + SCRATCH_BYTES, side="right")))
        yield first, stop
        first = stop
