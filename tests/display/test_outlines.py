"""Outlines are exactly the border between inside and outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cygnoreco.display.outlines import Cells, cells_of_redpix, outline, row_runs
from cygnoreco.types import REDPIX_DTYPE


def edges(lines):
    """Unit edges of a set of straight pieces, as (column, row, column, row)."""
    found = []
    for (x0, y0), (x1, y1) in lines.tolist():
        assert (x0 == x1) != (y0 == y1)
        steps = abs(x1 - x0) + abs(y1 - y0)
        dx, dy = np.sign(x1 - x0), np.sign(y1 - y0)
        found += [(x0 + k * dx, y0 + k * dy, x0 + (k + 1) * dx, y0 + (k + 1) * dy) for k in range(steps)]
    return found


def edges_of(mask):
    """The same from the definition: between each cell and each of its neighbours."""
    padded = np.pad(mask, 1)
    found = set()
    for row, col in np.argwhere(padded):
        r, c = int(row) - 1, int(col) - 1
        if not padded[row - 1, col]:
            found.add((c, r, c + 1, r))
        if not padded[row + 1, col]:
            found.add((c, r + 1, c + 1, r + 1))
        if not padded[row, col - 1]:
            found.add((c, r, c, r + 1))
        if not padded[row, col + 1]:
            found.add((c + 1, r, c + 1, r + 1))
    return found


def test_one_cell_has_four_edges():
    lines = outline(Cells(np.array([5]), np.array([7])))
    assert set(edges(lines)) == {(7, 5, 8, 5), (7, 6, 8, 6), (7, 5, 7, 6), (8, 5, 8, 6)}


def test_a_rectangle_has_four_pieces_and_a_ring_eight():
    rows, cols = (axis.ravel() for axis in np.mgrid[10:13, 20:25])
    assert len(outline(Cells(rows, cols))) == 4
    middle = (rows == 11) & (cols == 22)
    assert len(outline(Cells(rows[~middle], cols[~middle]))) == 8


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_outline_is_the_border(mask):
    cells = Cells(*np.nonzero(mask))
    found = edges(outline(cells))
    assert len(found) == len(set(found))
    assert set(found) == edges_of(mask)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_bars_cover_exactly_the_cells(mask):
    covered = np.zeros_like(mask, int)
    for row, first, after in row_runs(Cells(*np.nonzero(mask))):
        covered[row, first:after] += 1
    np.testing.assert_array_equal(covered, mask)


@pytest.mark.parametrize("x_is_column", [True, False])
def test_saved_pixels_give_their_macro_pixels(x_is_column):
    """Three clusters of which the second was not saved, in the order of the table, not of the pixels."""
    redpix = np.zeros(12, REDPIX_DTYPE)
    redpix["redpix_ix"] = [8, 9, 10, 11, 12, 13, 14, 15, 100, 101, 102, 103]
    redpix["redpix_iy"] = 41
    third, unsaved, first = cells_of_redpix(redpix, np.array([8, -1, 0], "f4"), x_is_column=x_is_column)
    along, across = ("cols", "rows") if x_is_column else ("rows", "cols")
    assert getattr(first, along).tolist() == [2, 3]
    assert getattr(first, across).tolist() == [10, 10]
    assert getattr(third, along).tolist() == [25]
    assert unsaved.rows.size == unsaved.cols.size == 0


def test_no_saved_pixels_at_all():
    (cells,) = cells_of_redpix(np.empty(0, REDPIX_DTYPE), np.array([-1.0]))
    assert cells.rows.size == 0
