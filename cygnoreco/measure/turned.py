"""The pixels of a cluster in the frame of its axes: its extent, its two profiles and the RMS of its map.

A turned pixel is two sums of a part that depends on its row and one that depends on its column, so its coordinates
are cheaper to compute again in every pass than to store. There are three passes. The first finds the extent, from one
corner of every macro-pixel; the second counts the pixels of every column, from which the bins of the profiles follow,
and notes who comes last in every bin of the map; the third adds up the light.

All sums run over the pixels in their order, so their last digits are those of the plain definition.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cygnoreco.measure.profile import Profile, bin_edges, moments


class Frame(NamedTuple):
    """How the pixels of a cluster are turned.

    Attributes
    ----------
    size : int
        Side of a macro-pixel, px.
    cos, sin : float
        Unit vector along the major axis; the minor one is (-sin, cos).
    pivot_x, pivot_y : float
        Point about which the pixels are turned, px.
    along, across : float
        Its coordinates in the frame of the axes, px.
    rows_first : bool
        x is the row: pixels follow row by row in a macro-pixel, so the outer one of the two loops is over x.
    """

    size: int
    cos: float
    sin: float
    pivot_x: float
    pivot_y: float
    along: float
    across: float
    rows_first: bool


class Extent(NamedTuple):
    """Smallest and largest coordinates of the pixels of a cluster along and across its major axis, px."""

    first_along: float
    last_along: float
    first_across: float
    last_across: float


class Turned(NamedTuple):
    """What is known of a cluster in the frame of its axes.

    Attributes
    ----------
    long, lat : Profile
        Light along and across the major axis.
    map_long, map_lat : float
        RMS along both axes of the map with bins of one pixel, from bin centres, px; 0 where negative counts make the
        variance negative, or the counts sum to 0.
    deviations : float
        Sum of the squared differences of the counts from a mean.
    """

    long: Profile
    lat: Profile
    map_long: float
    map_lat: float
    deviations: float


class _Bins(NamedTuple):
    """Bins of a profile: their edges, and the bin of every column; columns outside belong to one bin too many."""

    edges: NDArray[np.int64]
    of_column: NDArray[np.int64]


@njit(nogil=True, cache=True)
def extent(x: NDArray[np.int32], y: NDArray[np.int32], frame: Frame) -> Extent:
    """Extent of macro-pixels x, y, shape (n,).

    Both coordinates rise or fall with x, and with y, rounding included: the extremes are at corners of macro-pixels,
    and the signs of the axis tell at which.
    """
    far = frame.size - 1
    low_x, high_x = (0, far) if frame.cos >= 0.0 else (far, 0)
    low_y, high_y = (0, far) if frame.sin >= 0.0 else (far, 0)
    # Along, the corners are (low_x, low_y) and (high_x, high_y); across, x counts with minus the sine and y with the
    # cosine: (high by the sine, low by the cosine) and the opposite one.
    corner_x = (low_x, high_x, high_y, low_y)
    corner_y = (low_y, high_y, low_x, high_x)
    first_along = first_across = np.inf
    last_along = last_across = -np.inf
    for m in range(len(x)):
        left, top = x[m] * frame.size, y[m] * frame.size
        dx, dy = left + corner_x[0] - frame.pivot_x, top + corner_y[0] - frame.pivot_y
        first_along = min(first_along, frame.along + frame.cos * dx + frame.sin * dy)
        dx, dy = left + corner_x[1] - frame.pivot_x, top + corner_y[1] - frame.pivot_y
        last_along = max(last_along, frame.along + frame.cos * dx + frame.sin * dy)
        dx, dy = left + corner_x[2] - frame.pivot_x, top + corner_y[2] - frame.pivot_y
        first_across = min(first_across, frame.across - frame.sin * dx + frame.cos * dy)
        dx, dy = left + corner_x[3] - frame.pivot_x, top + corner_y[3] - frame.pivot_y
        last_across = max(last_across, frame.across - frame.sin * dx + frame.cos * dy)
    return Extent(first_along, last_along, first_across, last_across)


@njit(nogil=True, cache=True)
def profiles_and_map(
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    z: NDArray[np.float64],
    mean: float,
    frame: Frame,
    found: Extent,
    min_pixels_long: float,
    min_pixels_lat: float,
    whole: bool,
    writer: NDArray[np.int32],
) -> Turned:
    """Both profiles of a cluster, and the RMS of its map.

    Parameters
    ----------
    x, y : ndarray, shape (n,), int32
        Macro-pixels.
    z : ndarray, shape (n, r, r), float64
        Counts of their pixels, ADU.
    mean : float
        Value from which the deviations of the counts are taken, ADU.
    frame, found : Frame, Extent
        The frame and the extent in it.
    min_pixels_long, min_pixels_lat : float
        Fewest pixels in a bin of the profiles.
    whole : bool
        True: the columns of a profile are counted from the first pixel, and every one belongs to a bin. False: they
        are those of the coordinate truncated towards 0, out of step with the bins by a fraction of a pixel; see
        :func:`~cygnoreco.measure.profile.bin_edges` for those it does not count; the last column is outside. A profile
        whose only column is outside has no bins.
    writer : ndarray, int32
        Empty: pixels that share a bin of the map add up. Else of (length + 2) x (width + 2) bins at least: the last one
        overwrites the others. It then holds, for each bin, the pixel that wrote it last, and needs no clearing,
        because only bins that this cluster has written are read.
    """
    first_along, first_across = found.first_along, found.first_across
    stride = int(found.last_across - first_across) + 2
    overwrite = len(writer) > 0
    n_long, n_lat = _n_columns(first_along, found.last_along, whole), _n_columns(first_across, found.last_across, whole)
    # A column is a truncated distance, from the first pixel or between two that are truncated themselves.
    start_long, start_lat = (first_along, first_across) if whole else (0.0, 0.0)
    first_long, first_lat = (0, 0) if whole else (int(first_along), int(first_across))
    pixels_long, pixels_lat = np.zeros(n_long, np.int64), np.zeros(n_lat, np.int64)
    size, outer_is_x = frame.size, frame.rows_first
    # The pixels of one macro-pixel at a time: what can be done for many at once is done in a loop of its own.
    n = size * size
    along, across = np.empty(n), np.empty(n)
    right, down = np.empty(n), np.empty(n)
    for i in range(n):
        right[i], down[i] = (i // size, i % size) if outer_is_x else (i % size, i // size)
    column_long, column_lat, bin_of = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    for m in range(len(x)):
        _turn(x[m] * size, y[m] * size, right, down, frame, along, across)
        for i in range(n):
            column_long[i] = np.int32(along[i] - start_long)
            column_lat[i] = np.int32(across[i] - start_lat)
        for i in range(n):
            pixels_long[column_long[i] - first_long] += 1
            pixels_lat[column_lat[i] - first_lat] += 1
        if overwrite:
            _bins_of_map(along, across, found, stride, bin_of)
            for i in range(n):
                writer[bin_of[i]] = m * n + i

    length, width = found.last_along - first_along, found.last_across - first_across
    bins_long = _bins(pixels_long, length, min_pixels_long, whole)
    bins_lat = _bins(pixels_lat, width, min_pixels_lat, whole)
    outside_long, outside_lat = len(bins_long.edges) - 1, len(bins_lat.edges) - 1
    contents_long, contents_lat = np.zeros(outside_long + 1, np.float32), np.zeros(outside_lat + 1, np.float32)
    squares_long, squares_lat = np.zeros(outside_long + 1), np.zeros(outside_lat + 1)
    long = long_x = long_xx = lat = lat_x = lat_xx = 0.0
    total = sum_a = sum_aa = sum_b = sum_bb = 0.0
    deviations = 0.0
    counts = z.ravel()
    for m in range(len(x)):
        _turn(x[m] * size, y[m] * size, right, down, frame, along, across)
        if overwrite:
            _bins_of_map(along, across, found, stride, bin_of)
        for i in range(n):
            count = counts[m * n + i]
            deviations += (count - mean) ** 2

            # What does not belong to a sum adds a 0 to it, which changes nothing and needs no branch.
            u = along[i] - first_along
            member = bins_long.of_column[int(u)]
            inside = count if member < outside_long else 0.0
            contents_long[member] += np.float32(inside)
            squares_long[member] += inside * inside
            long += inside
            long_x += inside * u
            long_xx += inside * u * u

            v = across[i] - first_across
            member = bins_lat.of_column[int(v)]
            inside = count if member < outside_lat else 0.0
            contents_lat[member] += np.float32(inside)
            squares_lat[member] += inside * inside
            lat += inside
            lat_x += inside * v
            lat_xx += inside * v * v

            if overwrite and writer[bin_of[i]] != m * n + i:
                count = 0.0
            a, b = np.rint(u) + 0.5, np.rint(v) + 0.5
            total += count
            sum_a += count * a
            sum_aa += count * a * a
            sum_b += count * b
            sum_bb += count * b * b
    return Turned(
        _profile(bins_long, contents_long, squares_long, long, long_x, long_xx),
        _profile(bins_lat, contents_lat, squares_lat, lat, lat_x, lat_xx),
        moments(total, sum_a, sum_aa)[1],
        moments(total, sum_b, sum_bb)[1],
        deviations,
    )


@njit(nogil=True, cache=True)
def _turn(
    left: int,
    top: int,
    right: NDArray[np.float64],
    down: NDArray[np.float64],
    frame: Frame,
    along: NDArray[np.float64],
    across: NDArray[np.float64],
) -> None:
    """Coordinates of the pixels of the macro-pixel at (left, top), so far right and down in it."""
    for i in range(len(right)):
        dx, dy = left + right[i] - frame.pivot_x, top + down[i] - frame.pivot_y
        along[i] = frame.along + frame.cos * dx + frame.sin * dy
        across[i] = frame.across - frame.sin * dx + frame.cos * dy


@njit(nogil=True, cache=True)
def _bins_of_map(
    along: NDArray[np.float64], across: NDArray[np.float64], found: Extent, stride: int, bin_of: NDArray[np.int32]
) -> None:
    """Bins of the flat map: those of the rounded distances from the first pixel."""
    for i in range(len(along)):
        bin_of[i] = np.int32(np.rint(along[i] - found.first_along)) * np.int32(stride) + np.int32(
            np.rint(across[i] - found.first_across)
        )


@njit(nogil=True, cache=True)
def _n_columns(first: float, last: float, whole: bool) -> int:
    return int(last - first) + 1 if whole else int(last) - int(first) + 1


@njit(nogil=True, cache=True)
def _bins(pixels: NDArray[np.int64], length: float, min_pixels: float, whole: bool) -> _Bins:
    """Bins of a profile from the pixels in its columns; ``length`` is that of the cluster in its direction, px."""
    inside = len(pixels) if whole else len(pixels) - 1
    edges = bin_edges(pixels[:inside], min_pixels, whole) if inside > 0 else np.zeros(1, np.int64)
    of_column = np.full(max(inside, int(length) + 1), len(edges) - 1)
    for k in range(len(edges) - 1):
        of_column[edges[k] : edges[k + 1]] = k
    return _Bins(edges, of_column)


@njit(nogil=True, cache=True)
def _profile(
    bins: _Bins,
    contents: NDArray[np.float32],
    squares: NDArray[np.float64],
    total: float,
    first: float,
    second: float,
) -> Profile:
    """Profile of the sums, without the bin for what is outside."""
    mean, rms = moments(total, first, second)
    return Profile(bins.edges.astype(np.float64), contents[:-1].astype(np.float64), squares[:-1], mean, rms)
