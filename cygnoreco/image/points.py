"""From the filtered image to the points that are clustered."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cygnoreco._xp import namespace
from cygnoreco.stage import stage

Points = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


@stage(name="points", version=1)
def points(
    edges: NDArray[np.float64], picture: NDArray[np.float64], *, weights: Literal["charge", "unit"] = "charge"
) -> Points:
    """List the macro-pixels that survived the filters.

    Parameters
    ----------
    edges : ndarray, shape (h, w), float64
        Filtered image, nowhere negative: a macro-pixel above one half, which does not round to zero, is a point.
    picture : ndarray, shape (h, w), float64
        Rebinned image before the median and the noise filter.
    weights : {'charge', 'unit'}
        Weight of a point: ``charge`` is the picture there in whole ADU (truncated), at least 1; ``unit`` is 1.

    Returns
    -------
    rows, cols, weights : ndarray, shape (m,), int32
        Macro-pixel coordinates along axis 0 and axis 1, in raster order, and the weights.
    """
    xp = namespace(edges)
    rows, cols = xp.nonzero(edges > 0.5)
    charge = xp.asarray(picture[rows, cols], dtype=xp.int32)
    rows, cols = xp.asarray(rows, dtype=xp.int32), xp.asarray(cols, dtype=xp.int32)
    return rows, cols, xp.ones_like(rows) if weights == "unit" else xp.maximum(charge, xp.ones_like(rows))
