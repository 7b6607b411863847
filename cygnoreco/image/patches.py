"""The full-resolution pixels behind the points.

Only these pixels are measured, a few per cent of a frame, so they are corrected here one by one: no full image of
corrected counts is ever made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cygnoreco.kernels.scratch import scratch
from cygnoreco.types import Saturated


class Patches(NamedTuple):
    """Pixels of m macro-pixels of r x r pixels each: shape (m, r, r), axes as in the image.

    Attributes
    ----------
    z : ndarray, float64
        Counts above the pedestal, ADU, corrected for the response of the lens; neither suppressed nor cut by the
        acceptance.
    above : ndarray, bool
        The pixel survives the zero suppression inside the acceptance.
    saturated : ndarray, bool
        The pixel reached the upper cut.
    """

    z: NDArray[np.float64]
    above: NDArray[np.bool_]
    saturated: NDArray[np.bool_]


def patches(
    frame: NDArray[np.uint16],
    mean: NDArray[np.float64],
    rms: NDArray[np.float64],
    response: NDArray[np.float64],
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    *,
    factor: int = 4,
    cimax: int = 5000,
    saturated: Saturated = "keep",
    nsigma: float = 0.6,
    xmin: int | None = 0,
    xmax: int | None = None,
    ymin: int | None = 304,
    ymax: int | None = 2054,
    saturation: tuple[float, float, float, float] | None = None,
    out: Patches | None = None,
) -> Patches:
    """Cut the pixels of some macro-pixels out of a raw frame and correct them.

    The numbers are those of the stages ``upper_cut``, ``subtract``, ``saturation``, ``suppress`` and ``accept``, whose
    parameters the keywords are, multiplied by the response.

    Parameters
    ----------
    frame : ndarray, shape (H, W), uint16
        Raw counts, oriented.
    mean, rms, response : ndarray, shape (H, W), float64
        Pedestal, its noise (ADU) and the factor that undoes the fall-off of the lens, all oriented like the frame.
    rows, cols : ndarray, shape (m,), int32
        Macro-pixels, inside the frame.
    factor : int
        Side r of a macro-pixel in pixels (stage ``rebin``).
    cimax, saturated
        Of the stage ``upper_cut``.
    nsigma
        Of the stage ``suppress``.
    xmin, xmax, ymin, ymax
        Of the stage ``accept``.
    saturation : tuple of float, optional
        Coefficients of :func:`~cygnoreco.image.correct.saturation_polynomial`, where that stage is enabled.
    out : Patches, optional
        Filled and returned instead of new arrays, for instance :func:`patch_memory`.

    Returns
    -------
    Patches
        In the order of the macro-pixels.
    """
    height, width = frame.shape
    first_row, last_row, _ = slice(ymin, ymax).indices(height)
    first_col, last_col, _ = slice(xmin, xmax).indices(width)
    if out is None:
        shape = (len(rows), factor, factor)
        out = Patches(np.empty(shape), np.empty(shape, np.bool_), np.empty(shape, np.bool_))
    _cut_out(
        (frame, mean, rms, response),
        (rows, cols),
        (cimax, saturated == "zero", float(nsigma)),
        (first_row, last_row, first_col, last_col),
        saturation is not None,
        saturation or (0.0, 0.0, 0.0, 0.0),
        out,
    )
    return out


def patch_memory(n: int, factor: int) -> Patches:
    """Memory for the pixels of ``n`` macro-pixels, that the thread's next call gives out again."""
    shape = (n, factor, factor)
    return Patches(
        scratch("patch counts", shape, np.float64),
        scratch("patch flags above", shape, np.bool_),
        scratch("patch flags saturated", shape, np.bool_),
    )


@njit(nogil=True, cache=True)
def _cut_out(maps: Any, macro_pixels: Any, cuts: Any, window: Any, correct: bool, polynomial: Any, found: Any) -> None:
    frame, mean, rms, response = maps
    rows, cols = macro_pixels
    cimax, saturated_to_zero, nsigma = cuts
    first_row, last_row, first_col, last_col = window
    a, b, c, start = polynomial
    factor = found.z.shape[1]
    for m in range(len(rows)):
        left = cols[m] * factor
        for k in range(factor):
            y = rows[m] * factor + k
            row_accepted = first_row <= y < last_row
            for j in range(factor):
                x = left + j
                raw = frame[y, x]
                saturated = raw >= cimax
                if saturated and saturated_to_zero:
                    raw = np.uint16(0)
                sub = np.float64(raw) - mean[y, x]
                if correct and sub > start:
                    sub = a * sub * sub + b * sub + c
                z = sub * response[y, x]
                accepted = row_accepted & (first_col <= x) & (x < last_col)
                found.z[m, k, j] = z
                # Without a branch: half of these pixels are above their cut, and nobody can foretell which.
                found.above[m, k, j] = accepted & (sub > nsigma * rms[y, x]) & (z > 0.0)
                found.saturated[m, k, j] = saturated
