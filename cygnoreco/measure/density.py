"""Calibrated energy: a cluster is cut into slices along its skeleton, each corrected for its own density of light.

The gain of a GEM falls where the charge is dense, so a count of light is worth more energy in a bright slice than in
a faint one. The correction was measured with the LEMON prototype; its constants are parameters of the stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt
from numba import njit
from numpy.typing import ArrayLike, NDArray

from cygnoreco.errors import InputError
from cygnoreco.measure.skeleton import FOREGROUND, PROTECTED, prune_pixels, thin_pixels
from cygnoreco.stage import stage

#: Bit of a pixel of the matrix that has its value; beside those of the skeleton, and never seen by them.
WRITTEN = 128


@dataclass(frozen=True)
class Slices:
    """A cluster cut along its skeleton.

    Attributes
    ----------
    integral : ndarray of float64, shape (s,)
        Sum of the counts of each slice, in ADU; may be negative.
    bright : ndarray of int64, shape (s,)
        Pixels of each slice above the threshold.
    rows, cols : ndarray of int64, shape (s,)
        Centres of the discs, in pixels of the sensor; none if there is no skeleton.
    n_skeleton, n_diagonal : int
        Points of the pruned skeleton, and pairs of them that touch at a corner only.
    """

    integral: NDArray[np.float64]
    bright: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    n_skeleton: int
    n_diagonal: int


@stage(name="energy", version=1)
def density_calibration(
    rows: NDArray[np.integer[Any]],
    cols: NDArray[np.integer[Any]],
    offsets: NDArray[np.integer[Any]],
    z: NDArray[np.floating[Any]],
    *,
    enabled: bool = False,
    slice_radius: Annotated[float, Gt(0)] = 30.0,
    pixel_threshold: float = 2.25,
    prunings: Annotated[int, Ge(0)] = 10,
    matrix: Literal["full", "short"] = "full",
    coverage: Literal["all", "discs"] = "all",
    path: Literal["euclidean", "pixels"] = "euclidean",
    density_pitch: Annotated[float, Gt(0)] = 1.5,
    linear_constant: float = 0.132,
    linear_slope: float = 1.22,
    saturation_plateau: Annotated[float, Gt(0)] = 130283.0,
    saturation_scale: Annotated[float, Gt(0)] = 117038.0,
    saturation_power: Annotated[float, Gt(0)] = 0.56757,
    normalisation: Annotated[float, Gt(0)] = 1.2,
    empty_factor: float = 0.85,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Calibrate the energy of every cluster slice by slice, and measure its length along the skeleton.

    The binary image of a cluster is thinned and pruned (:mod:`cygnoreco.measure.skeleton`). The last point of the
    skeleton in raster order (largest row, then largest column) is the centre of a disc; the cluster's pixels in
    it make a slice, and the points of the skeleton in it are done with. The last point that remains is the next
    centre, until none remains; a pixel belongs to the first disc that holds it. With I the sum of a slice's counts,
    not below 0, and n its pixels above the threshold, its density is delta = I / n and its energy I f(delta), where ::

        x = delta / density_pitch
        light = saturation_plateau * (1 - exp(-x**saturation_power / saturation_scale))
        f(delta) = (linear_constant + linear_slope * x) / light / normalisation           in eV per count

    and f = empty_factor where delta is 0.

    Parameters
    ----------
    rows, cols : ndarray of int32, shape (m,)
        Macro-pixels, grouped by cluster; no macro-pixel twice in a cluster.
    offsets : ndarray of int64, shape (k + 1,)
        Cluster c has the macro-pixels offsets[c] to offsets[c + 1].
    z : ndarray of float64, shape (m, r, r)
        Counts of the pixels of each macro-pixel in ADU: pixel (r * row + i, r * col + j) has z[:, i, j].
    enabled : bool
        Whether to calibrate; the constants are those of LEMON and hold for no other detector.
    slice_radius : float
        Radius of the discs in pixels.
    pixel_threshold : float
        Counts above which a pixel enters the density, in ADU.
    prunings : int
        Rounds of the pruning: twigs of the skeleton up to this length in pixels vanish.
    matrix : {"full", "short"}
        The image that is thinned. ``full``: all pixels of the cluster, each at its place. ``short`` (winter23): one
        row and one column too small and shifted by one, so that the first row and column fall upon the last
        and the later macro-pixel wins; pixels with exactly 0 counts are holes, and the rim is not pruned.
    coverage : {"all", "discs"}
        What becomes of pixels in no disc. ``all``: they join the slice of the nearest centre, and a cluster without
        skeleton is one slice. ``discs`` (winter23): they are lost, and the energy with them.
    path : {"euclidean", "pixels"}
        Length of the pruned skeleton. ``pixels`` (winter23): the number of its points, 29 % too short along a
        diagonal. ``euclidean``: a diagonal step is the square root of 2; right within 8 % in all directions.
    density_pitch : float
        Density in ADU per pixel that makes x = 1.
    linear_constant : float
        Numerator of f at x = 0.
    linear_slope : float
        Slope of the numerator of f with x.
    saturation_plateau : float
        Light for x to infinity.
    saturation_scale : float
        Value of x ** saturation_power at which the light is 1 - 1/e of the plateau.
    saturation_power : float
        Exponent of x in the light.
    normalisation : float
        Divides f.
    empty_factor : float
        f for a slice with no density, in eV per count.

    Returns
    -------
    energy : ndarray of float64, shape (k,)
        Calibrated energy in keV; -1 if not enabled.
    pathlength : ndarray of float64, shape (k,)
        Length along the pruned skeleton in pixels; -1 if not enabled. A track is longer by its width and by twice
        the prunings, that the two ends have lost.

    Raises
    ------
    InputError
        The arrays do not fit together.

    References
    ----------
    The calibrator of the CYGNO reconstruction (branch winter23) for the method and the constants; its use in
    E. Baracchini et al., "Identification of low energy nuclear recoils in a gas TPC with optical readout" (LEMON).
    """
    n_clusters = len(offsets) - 1
    if not enabled or n_clusters == 0:
        return np.full(n_clusters, -1.0), np.full(n_clusters, -1.0)

    cut = slice_clusters(
        rows,
        cols,
        offsets,
        z,
        slice_radius=slice_radius,
        pixel_threshold=pixel_threshold,
        prunings=prunings,
        matrix=matrix,
        coverage=coverage,
    )
    integral = np.maximum(np.concatenate([slices.integral for slices in cut]), 0.0)
    bright = np.concatenate([slices.bright for slices in cut])
    factor = energy_per_count(
        np.divide(integral, bright, out=np.zeros_like(integral), where=bright > 0),
        density_pitch=density_pitch,
        linear_constant=linear_constant,
        linear_slope=linear_slope,
        saturation_plateau=saturation_plateau,
        saturation_scale=saturation_scale,
        saturation_power=saturation_power,
        normalisation=normalisation,
        empty_factor=empty_factor,
    )
    owner = np.repeat(np.arange(n_clusters), [slices.bright.size for slices in cut])
    energy = np.zeros(n_clusters)
    np.add.at(energy, owner, integral * factor / 1000.0)
    pathlength = np.array([slices.n_skeleton for slices in cut], np.float64)
    if path == "euclidean":
        pathlength += (np.sqrt(2.0) - 1.0) * np.array([slices.n_diagonal for slices in cut])
    return energy, pathlength


def energy_per_count(
    density: ArrayLike,
    *,
    density_pitch: float = 1.5,
    linear_constant: float = 0.132,
    linear_slope: float = 1.22,
    saturation_plateau: float = 130283.0,
    saturation_scale: float = 117038.0,
    saturation_power: float = 0.56757,
    normalisation: float = 1.2,
    empty_factor: float = 0.85,
) -> NDArray[np.float64]:
    """f(delta) of :func:`density_calibration`, in eV per count.

    Parameters
    ----------
    density : array_like of float64, shape (s,)
        Counts per bright pixel, in ADU.
    density_pitch, linear_constant, linear_slope, saturation_plateau, saturation_scale, saturation_power : float
        Constants of the formula.
    normalisation, empty_factor : float
        Divisor, and the value where the density is not positive.

    Returns
    -------
    ndarray of float64, shape (s,)
        Energy per count in eV.
    """
    density = np.asarray(density, np.float64)
    factor = np.full(density.shape, float(empty_factor))
    x = density[density > 0] / density_pitch
    light = -saturation_plateau * np.expm1(-(x**saturation_power) / saturation_scale)
    factor[density > 0] = (linear_constant + linear_slope * x) / light / normalisation
    return factor


def slice_clusters(
    rows: NDArray[np.integer[Any]],
    cols: NDArray[np.integer[Any]],
    offsets: NDArray[np.integer[Any]],
    z: NDArray[np.floating[Any]],
    *,
    slice_radius: float = 30.0,
    pixel_threshold: float = 2.25,
    prunings: int = 10,
    matrix: Literal["full", "short"] = "full",
    coverage: Literal["all", "discs"] = "all",
) -> list[Slices]:
    """Cut clusters into slices along their skeletons.

    Parameters
    ----------
    rows, cols, offsets, z
        As in :func:`density_calibration`.
    slice_radius, pixel_threshold, prunings, matrix, coverage
        As in :func:`density_calibration`.

    Returns
    -------
    list of Slices
        One a cluster, in the order given.

    Raises
    ------
    InputError
        The arrays do not fit together.
    """
    row, col = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(cols, np.int64)
    counts = np.ascontiguousarray(z, np.float64)
    if z.ndim != 3 or z.shape[1] != z.shape[2] or not row.shape == col.shape == z.shape[:1]:
        raise InputError(
            f"macro-pixels with rows {row.shape}, cols {col.shape} and z {z.shape}: expected (m,), (m,) and (m, r, r)"
        )
    if offsets[0] != 0 or offsets[-1] != len(row) or (np.diff(offsets) < 1).any():
        raise InputError(f"offsets must rise from 0 to {len(row)} with no cluster empty; they are {offsets}")
    radius, threshold = float(slice_radius), float(pixel_threshold)  # an integer would compile the kernel anew
    short, all_pixels = matrix == "short", coverage == "all"
    cut = []
    for start, stop in pairwise(offsets):
        one = slice(start, stop)
        fields = _slice_cluster(row[one], col[one], counts[one], radius, threshold, prunings, short, all_pixels)
        cut.append(Slices(*fields))
    return cut


@njit(nogil=True, cache=True)
def _slice_cluster(
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    z: NDArray[np.float64],
    radius: float,
    threshold: float,
    prunings: int,
    short: bool,
    all_pixels: bool,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int, int]:
    """Fields of :class:`Slices` for one cluster of at least one macro-pixel."""
    image, width, pixels, counts = _draw(rows, cols, z, short)
    skeleton = prune_pixels(image, width, thin_pixels(image, width, pixels), prunings)
    centre_rows, centre_cols, grid, cell = _centres(np.sort(skeleton), width, image.size // width, radius)

    n_slices = centre_rows.size
    if n_slices == 0 and all_pixels:
        n_slices = 1
    integral = np.zeros(n_slices)
    bright = np.zeros(n_slices, np.int64)
    # Pixels of one cell of the grid follow each other; discs and nearest centre come from short lists of its own.
    around, nearest = np.empty(centre_rows.size, np.int64), np.empty(centre_rows.size, np.int64)
    n_around = n_nearest = 0
    cell_row = cell_col = -1
    for pixel in range(pixels.size):
        row, col = pixels[pixel] // width, pixels[pixel] % width
        if row // cell != cell_row or col // cell != cell_col:
            cell_row, cell_col = row // cell, col // cell
            n_around = _around_cell(grid, cell_row, cell_col, cell, radius, around)
            n_nearest = -1
        member = -1
        for centre in around[:n_around]:
            if (centre_rows[centre] - row) ** 2 + (centre_cols[centre] - col) ** 2 <= radius * radius:
                member = centre
                break
        if member < 0 and all_pixels:
            if n_nearest < 0:
                n_nearest = _near_cell(centre_rows, centre_cols, cell_row, cell_col, cell, nearest)
            member = _nearest(centre_rows, centre_cols, nearest[:n_nearest], row, col)
        if member >= 0:
            integral[member] += counts[pixel]
            bright[member] += counts[pixel] > threshold

    # Address 1 is the matrix's first row: the cluster's own, or, in the short matrix, the one after it.
    frame = 0 if short else 1
    centre_rows += rows.min() * z.shape[1] - frame
    centre_cols += cols.min() * z.shape[1] - frame
    return integral, bright, centre_rows, centre_cols, skeleton.size, _diagonals(image, width, skeleton)


@njit(nogil=True, cache=True)
def _draw(
    rows: NDArray[np.int64], cols: NDArray[np.int64], z: NDArray[np.float64], short: bool
) -> tuple[NDArray[np.uint8], int, NDArray[np.int32], NDArray[np.float64]]:
    """Draw a cluster as a flat framed image; return it, its width, and address and counts of every pixel in it."""
    r = z.shape[1]
    shift = 1 if short else 0
    first_row, first_col = rows.min() * r + shift, cols.min() * r + shift
    n_rows, n_cols = (rows.max() + 1) * r - first_row, (cols.max() + 1) * r - first_col
    width = n_cols + 2
    image = np.zeros((n_rows + 2) * width, np.uint8)
    pixels = np.empty(z.size, np.int32)
    counts = np.empty(z.size)
    if n_rows == 0 or n_cols == 0:
        return image, width, pixels[:0], counts[:0]

    n = 0
    for member in range(rows.size - 1, -1, -1):  # backwards: the first to be written is the last one to win
        for i in range(r - 1, -1, -1):
            row = (rows[member] * r + i - first_row) % n_rows
            for j in range(r - 1, -1, -1):
                col = (cols[member] * r + j - first_col) % n_cols
                at = (row + 1) * width + col + 1
                if image[at] & WRITTEN:
                    continue
                image[at] |= WRITTEN
                if short and (row == 0 or row == n_rows - 1 or col == 0 or col == n_cols - 1):
                    image[at] |= PROTECTED
                if short and z[member, i, j] == 0:
                    continue
                image[at] |= FOREGROUND
                pixels[n] = at
                counts[n] = z[member, i, j]
                n += 1
    return image, width, pixels[:n], counts[:n]


@njit(nogil=True, cache=True)
def _centres(
    skeleton: NDArray[np.int32], width: int, height: int, radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], int]:
    """Rows and columns of the centres, in order, a grid of their numbers (-1: none), and the side of its cells.

    A point is a centre if no disc before holds it, so two centres are further apart than the radius; and a cell's
    side is the largest for which two pixels in it are not. A cell has one centre at most, and who wants to know the
    discs that hold a pixel looks into a few cells, however many discs there are.
    """
    cell = int(radius / np.sqrt(2.0)) + 1
    grid = np.full((height // cell + 1, width // cell + 1), -1, np.int32)
    rows = np.empty(skeleton.size, np.int64)
    cols = np.empty(skeleton.size, np.int64)
    n = 0
    for at in skeleton[::-1]:
        row, col = at // width, at % width
        if _first_disc(grid, cell, rows, cols, row, col, radius) < 0:
            rows[n], cols[n] = row, col
            grid[row // cell, col // cell] = n
            n += 1
    return rows[:n], cols[:n], grid, cell


@njit(nogil=True, cache=True)
def _first_disc(
    grid: NDArray[np.int32],
    cell: int,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    row: int,
    col: int,
    radius: float,
) -> int:
    """Lowest number of the centres within the radius of a pixel, -1 if there is none."""
    reach = int(radius)
    first = -1
    for grid_row in range(max(row - reach, 0) // cell, min((row + reach) // cell + 1, grid.shape[0])):
        for grid_col in range(max(col - reach, 0) // cell, min((col + reach) // cell + 1, grid.shape[1])):
            centre = grid[grid_row, grid_col]
            if centre < 0 or 0 <= first < centre:
                continue
            if (rows[centre] - row) ** 2 + (cols[centre] - col) ** 2 <= radius * radius:
                first = centre
    return first


@njit(nogil=True, cache=True)
def _around_cell(
    grid: NDArray[np.int32], cell_row: int, cell_col: int, cell: int, radius: float, around: NDArray[np.int64]
) -> int:
    """List, in order, all centres whose discs can hold a pixel of a cell; return how many there are."""
    reach = int(radius) // cell + 1
    n = 0
    for grid_row in range(max(cell_row - reach, 0), min(cell_row + reach + 1, grid.shape[0])):
        for grid_col in range(max(cell_col - reach, 0), min(cell_col + reach + 1, grid.shape[1])):
            centre = grid[grid_row, grid_col]
            if centre < 0:
                continue
            k = n
            while k > 0 and around[k - 1] > centre:
                around[k] = around[k - 1]
                k -= 1
            around[k] = centre
            n += 1
    return n


@njit(nogil=True, cache=True)
def _near_cell(
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    cell_row: int,
    cell_col: int,
    cell: int,
    candidates: NDArray[np.int64],
) -> int:
    """List the centres that can be the nearest one to a pixel of a cell, in order; return how many there are.

    A pixel is no further than half a diagonal from the middle of its cell. So a centre that is nearest to it is at most
    a diagonal further from the middle than the centre that is nearest to the middle.
    """
    middle_row, middle_col = (cell_row + 0.5) * cell, (cell_col + 0.5) * cell
    least = np.inf
    for centre in range(rows.size):
        least = min(least, (rows[centre] - middle_row) ** 2 + (cols[centre] - middle_col) ** 2)
    furthest = np.sqrt(least) + np.sqrt(2.0) * cell + 1.0  # 1 px more, against rounding
    n = 0
    for centre in range(rows.size):
        if (rows[centre] - middle_row) ** 2 + (cols[centre] - middle_col) ** 2 <= furthest * furthest:
            candidates[n] = centre
            n += 1
    return n


@njit(nogil=True, cache=True)
def _nearest(
    rows: NDArray[np.int64], cols: NDArray[np.int64], candidates: NDArray[np.int64], row: int, col: int
) -> int:
    """Find which of some centres is nearest to a pixel, the first of equals; 0 if there is none."""
    nearest, least = 0, np.inf
    for centre in candidates:
        distance2 = float((rows[centre] - row) ** 2 + (cols[centre] - col) ** 2)
        if distance2 < least:
            nearest, least = centre, distance2
    return nearest


@njit(nogil=True, cache=True)
def _diagonals(image: NDArray[np.uint8], width: int, skeleton: NDArray[np.int32]) -> int:
    """Pairs of points that touch at a corner, with no third one that leads around it."""
    pairs = 0
    for at in skeleton:
        if not image[at + width] & FOREGROUND:
            for side in (-1, 1):
                if image[at + width + side] & FOREGROUND and not image[at + side] & FOREGROUND:
                    pairs += 1
    return pairs
