"""Which macro-pixels a cluster has, and the line around them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cygnoreco.types import IntArray


class Cells(NamedTuple):
    """Macro-pixels of one cluster: rows and columns of the rebinned image, each of shape (n,); n may be 0."""

    rows: IntArray
    cols: IntArray


def cells_of_redpix(
    redpix: NDArray[Any], first: NDArray[Any], *, rebin: int = 4, x_is_column: bool = True
) -> list[Cells]:
    """Find the macro-pixels of clusters by their saved pixels in a reconstructed file.

    Parameters
    ----------
    redpix : structured ndarray, shape (n,)
        Rows of ``REDPIX_DTYPE`` of one event.
    first : ndarray, shape (clusters,)
        ``sc_redpixIdx``: where a cluster's pixels begin, -1 if they were not saved.
    rebin : int
        Side of a macro-pixel, in pixels.
    x_is_column : bool
        False for files of the 2024 program, where x is the row.

    Returns
    -------
    list of Cells
        One a cluster; empty for those not saved.
    """
    starts = np.asarray(first, np.int64)
    bounds = np.append(np.sort(starts[starts >= 0]), len(redpix))
    found = []
    for start in starts:
        stop = bounds[np.searchsorted(bounds, start, side="right")] if 0 <= start < len(redpix) else start
        pixels = redpix[max(start, 0) : max(stop, 0)]
        x, y = pixels["redpix_ix"] // rebin, pixels["redpix_iy"] // rebin
        pairs = np.unique(np.stack([y, x] if x_is_column else [x, y]), axis=1)
        found.append(Cells(pairs[0], pairs[1]))
    return found


def outline(cells: Cells) -> NDArray[np.int64]:
    """Draw the line around a set of cells: every edge between a cell of the set and one outside, holes too.

    Parameters
    ----------
    cells : Cells
        Cell (r, c) covers r to r + 1 and c to c + 1.

    Returns
    -------
    ndarray of int64, shape (n, 2, 2)
        Straight pieces, as long as they can be: ``[piece, end, (column, row)]``.
    """
    if not cells.rows.size:
        return np.empty((0, 2, 2), np.int64)
    top, left = int(cells.rows.min()), int(cells.cols.min())
    mask = np.zeros((int(cells.rows.max()) - top + 3, int(cells.cols.max()) - left + 3), bool)  # a cell of margin
    mask[cells.rows - top + 1, cells.cols - left + 1] = True
    along_rows = _runs(mask[1:] != mask[:-1])  # line i of the edges lies below row i of the mask
    along_cols = _runs((mask[:, 1:] != mask[:, :-1]).T)
    horizontal = np.stack([along_rows[:, [1, 0]], along_rows[:, [2, 0]]], axis=1) - np.array([1, 0])
    vertical = np.stack([along_cols[:, [0, 1]], along_cols[:, [0, 2]]], axis=1) - np.array([0, 1])
    return np.concatenate([horizontal, vertical]) + np.array([left, top])


def row_runs(cells: Cells) -> NDArray[np.int64]:
    """Cover a set of cells with bars.

    Parameters
    ----------
    cells : Cells
        The set.

    Returns
    -------
    ndarray of int64, shape (n, 3)
        Row, first column, column after the last.
    """
    if not cells.rows.size:
        return np.empty((0, 3), np.int64)
    top, left = int(cells.rows.min()), int(cells.cols.min())
    mask = np.zeros((int(cells.rows.max()) - top + 1, int(cells.cols.max()) - left + 1), bool)
    mask[cells.rows - top, cells.cols - left] = True
    return _runs(mask) + np.array([top, left, left])


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Line, begin and end of every unbroken run of True along axis 1."""
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(np.int8)
    change = np.diff(padded, axis=1)
    lines, begins = np.nonzero(change == 1)
    _, ends = np.nonzero(change == -1)
    return np.stack([lines, begins, ends], axis=1)
