"""The pixels of clusters that are saved with them, so that a cluster can be looked at without its frame."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from cygnoreco.measure.variables import Axes
from cygnoreco.stage import stage
from cygnoreco.types import REDPIX_DTYPE


@stage(name="redpix", version=1)
def redpix(
    table: NDArray[Any],
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    z: NDArray[np.float64],
    axes: Axes,
    *,
    min_integral: Annotated[float, Ge(0)] = 850.0,
    max_length: Annotated[float, Gt(0)] = 1e5,
    max_pixels: Annotated[int, Ge(0)] = 10**6,
    decimals: Annotated[int, Ge(0)] = 1,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Save all pixels of the clusters that are bright enough to be worth it.

    Parameters
    ----------
    table : ndarray, shape (n,), CLUSTER_DTYPE
        Clusters of a frame, as :func:`~cygnoreco.measure.variables.measure` returns them.
    rows, cols : ndarray, shape (m,), int32
        Macro-pixels along axis 0 and axis 1 of the oriented image, cluster by cluster in the order of the table.
    offsets : ndarray, shape (n + 1,), int64
        Where the clusters begin among them.
    z : ndarray, shape (m, r, r), float64
        Counts of their pixels, ADU.
    axes : {'xy', 'rowcol'}
        Those of the table: the parameter of the stage ``measure``.
    min_integral : float
        A cluster is saved if its integral is above this, ADU, about 0.5 keV in LIME; and if any of its pixels is above
        the zero suppression.
    max_length : float
        It is saved if its length is below this, px.
    max_pixels : int
        It is saved if it has fewer pixels than this.
    decimals : int
        Counts are rounded to this many decimals, which makes them pack well.

    Returns
    -------
    pixels : ndarray, REDPIX_DTYPE
        All pixels of the clusters saved, in the order of the table; in a cluster one macro-pixel after another, row by
        row.
    table : ndarray, shape (n,), CLUSTER_DTYPE
        The table with ``sc_redpixIdx``: where the pixels of a cluster begin, -1 if they are not saved.
    """
    saved = (
        (table["sc_integral"] > min_integral)
        & (table["sc_nhits"] > 0)
        & (table["sc_length"] < max_length)
        & (table["sc_size"] < max_pixels)
    )
    sizes = np.diff(offsets)
    members = np.repeat(saved, sizes)
    counts = z[members]
    side = counts.shape[1]
    row = rows[members, None, None] * side + np.arange(side)[:, None]
    col = cols[members, None, None] * side + np.arange(side)
    x, y = (row, col) if axes == "rowcol" else (col, row)
    pixels = np.empty(counts.shape, REDPIX_DTYPE)
    pixels["redpix_ix"] = x
    pixels["redpix_iy"] = y
    pixels["redpix_iz"] = np.round(counts, decimals)

    table = table.copy()
    saved_sizes = np.where(saved, sizes, 0)
    begins = (np.cumsum(saved_sizes) - saved_sizes) * side * side
    table["sc_redpixIdx"] = np.where(saved, begins, -1)
    return pixels.reshape(-1), table
