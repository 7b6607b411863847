"""The pixels of clusters that are saved with them, so that a cluster can be looked at without its frame."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt
from numba import njit
from numpy.typing import NDArray

from cygnoreco.measure.variables import Axes
from cygnoreco.stage import stage
from cygnoreco.types import REDPIX_DTYPE


@stage(name="redpix", version=1)
def redpix(
    table: NDArray[Any],
    order: NDArray[np.int64],
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
        Clusters of a frame, as :func:`~cygnoreco.measure.variables.measure` returns them with the order.
    order : ndarray, shape (n,), int64
        Which cluster each row of the table is.
    rows, cols : ndarray, shape (m,), int32
        Macro-pixels along axis 0 and axis 1 of the oriented image, cluster by cluster.
    offsets : ndarray, shape (k + 1,), int64
        Cluster c has the macro-pixels ``offsets[c]`` to ``offsets[c + 1]``.
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
    saved = is_saved(table, min_integral=min_integral, max_length=max_length, max_pixels=max_pixels)
    sizes = np.diff(offsets)[order]
    side = z.shape[1]
    saved_sizes = np.where(saved, sizes, 0) * (side * side)
    ends = np.cumsum(saved_sizes)
    pixels = np.empty(saved_sizes.sum(), REDPIX_DTYPE)
    _save(
        rows,
        cols,
        offsets,
        z,
        order[saved],
        axes == "rowcol",
        10.0**decimals,
        pixels.view(np.int32).reshape(-1, 3),
        pixels.view(np.float32).reshape(-1, 3),
    )
    table = table.copy()
    table["sc_redpixIdx"] = np.where(saved, ends - saved_sizes, -1)
    return pixels, table


def is_saved(table: NDArray[Any], *, min_integral: float, max_length: float, max_pixels: int) -> NDArray[np.bool_]:
    """Decide of every cluster whether its pixels are saved; parameters of the stage ``redpix``."""
    return (
        (table["sc_integral"] > min_integral)
        & (table["sc_nhits"] > 0)
        & (table["sc_length"] < max_length)
        & (table["sc_size"] < max_pixels)
    )


@njit(nogil=True, cache=True)
def _save(
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    z: NDArray[np.float64],
    clusters: NDArray[np.int64],
    rows_first: bool,
    scale: float,
    places: NDArray[np.int32],
    counts: NDArray[np.float32],
) -> None:
    """Write the pixels of some clusters; ``places`` and ``counts``, shape (n, 3), are the table as either type."""
    side = z.shape[1]
    n = 0
    for cluster in clusters:
        for m in range(offsets[cluster], offsets[cluster + 1]):
            for i in range(side):
                for j in range(side):
                    row, col = rows[m] * side + i, cols[m] * side + j
                    places[n, 0], places[n, 1] = (row, col) if rows_first else (col, row)
                    counts[n, 2] = np.rint(z[m, i, j] * scale) / scale  # as numpy.round does it
                    n += 1
