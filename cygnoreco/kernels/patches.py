"""The pixels of the points, out of what the image section has ready: the bits of :mod:`cygnoreco.image.patches`.

The pedestal is read from its planes, and the integer cuts say which pixels are above, so that of the calibration's maps
only the response is needed besides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cygnoreco.errors import InputError
from cygnoreco.kernels.image import FACTOR, Cuts
from cygnoreco.kernels.strips import STRIP


def cut_patches(
    frame: NDArray[np.uint16],
    cuts: Cuts,
    response: NDArray[np.float64],
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    *,
    cimax: int,
    out: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]],
) -> None:
    """Cut the pixels of some macro-pixels out of a raw frame and correct them.

    Parameters
    ----------
    frame : ndarray, shape (H, W), uint16
        Raw counts, oriented.
    cuts : Cuts
        From :func:`cygnoreco.kernels.image.prepare_cuts`, with planes in double precision.
    response : ndarray, shape (H, W), float64
        The factor that undoes the fall-off of the lens.
    rows, cols : ndarray, shape (m,), int32
        Macro-pixels, inside the frame.
    cimax
        Of the stage ``upper_cut``.
    out : tuple of ndarray, shape (m, 4, 4), float64, bool, bool
        The fields of :class:`cygnoreco.image.patches.Patches`, filled.

    Raises
    ------
    InputError
        The cuts have no planes in double precision.
    """
    if cuts.planes is None or cuts.planes.dtype != np.float64:
        raise InputError("patches are cut out in double precision: the cuts need planes of float64")
    # Saturated pixels that are dropped count as 0; the ceiling tells whether they are.
    dropped = cuts.ceiling < np.iinfo(np.uint16).max
    _cut_out(frame, cuts.planes, cuts.threshold, response, rows, cols, cimax, dropped, *out)


@njit(nogil=True, cache=True)
def _cut_out(
    frame: Any,
    planes: Any,
    threshold: Any,
    response: Any,
    rows: Any,
    cols: Any,
    cimax: int,
    dropped: bool,
    z: Any,
    above: Any,
    saturated: Any,
) -> None:
    for m in range(len(rows)):
        row, strip, place = rows[m], cols[m] // STRIP, cols[m] % STRIP
        for k in range(FACTOR):
            y = row * FACTOR + k
            means = planes[row, strip, k]
            for j in range(FACTOR):
                x = cols[m] * FACTOR + j
                raw = frame[y, x]
                full = raw >= cimax
                counts = np.uint16(0) if full & dropped else raw
                value = (np.float64(counts) - means[j * STRIP + place]) * response[y, x]
                z[m, k, j] = value
                above[m, k, j] = (counts > threshold[y, x]) & (value > 0.0)
                saturated[m, k, j] = full
