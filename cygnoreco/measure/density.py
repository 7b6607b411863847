"""Calibrated energy: a cluster is cut into slices along its skeleton, each corrected for its own density of light.

The gain of a GEM falls where the charge is dense, so a count of light is worth more energy in a bright slice than in
a faint one. The correction was measured with the LEMON prototype; its constants are parameters of the stage.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    n_skeleton : int
        Pixels of the pruned skeleton.
    path : float
        Its length in steps from pixel to pixel, a diagonal one counted as the square root of 2, in pixels.
    """

    integral: NDArray[np.float64]
    bright: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    n_skeleton: int
    path: float


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
    path: Literal["steps", "pixels"] = "steps",
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
    path : {"steps", "pixels"}
        The length of the pruned skeleton. ``steps``: sum of the distances between adjacent points, the same in all
        directions within 8 %. ``pixels`` (winter23): number of its points, 29 % too short along a diagonal.
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

    Notes
    -----
    Source: the calibrator of the CYGNO reconstruction (branch winter23), constants of the LEMON prototype.
    """
    n_clusters = len(offsets) - 1
    if not enabled:
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
    energy = np.empty(n_clusters)
    for cluster, slices in enumerate(cut):
        integral = np.maximum(slices.integral, 0.0)
        density = np.divide(integral, slices.bright, out=np.zeros_like(integral), where=slices.bright > 0)
        factor = energy_per_count(
            density,
            density_pitch=density_pitch,
            linear_constant=linear_constant,
            linear_slope=linear_slope,
            saturation_plateau=saturation_plateau,
            saturation_scale=saturation_scale,
            saturation_power=saturation_power,
            normalisation=normalisation,
            empty_factor=empty_factor,
        )
        energy[cluster] = (integral * factor).sum() / 1000.0
    length = [slices.path if path == "steps" else slices.n_skeleton for slices in cut]
    return energy, np.array(length, np.float64)


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
    z = np.ascontiguousarray(z, np.float64)
    rows = np.ascontiguousarray(rows, np.int64)
    cols = np.ascontiguousarray(cols, np.int64)
    offsets = np.asarray(offsets, np.int64)
    if z.shape[1:] != z.shape[:0:-1] or z.ndim != 3 or not len(rows) == len(cols) == len(z):
        raise InputError(
            f"clusters of {len(rows)} rows, {len(cols)} columns and counts of shape {z.shape}: expected (m,), (m,), (m, r, r)"
        )
    if offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
        raise InputError(f"offsets of clusters must rise from 0 to {len(rows)}; they are {offsets}")
    cut = []
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        members = slice(start, stop)
        slices = _slice_cluster(
            rows[members],
            cols[members],
            z[members],
            slice_radius,
            pixel_threshold,
            prunings,
            matrix == "short",
            coverage == "all",
        )
        cut.append(Slices(*slices))
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
    everything: bool,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int, float]:
    ...
