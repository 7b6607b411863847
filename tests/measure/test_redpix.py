"""Saved pixels: which clusters, in which order, with which coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.measure.redpix import redpix
from cygnoreco.types import CLUSTER_DTYPE, REDPIX_DTYPE


@pytest.fixture
def clusters():
    """Three clusters of 2, 3 and 1 macro-pixels of 2 x 2 pixels, in the order of their table; the second is faint."""
    table = np.zeros(3, CLUSTER_DTYPE)
    table["sc_integral"] = 5000, 100, 900
    table["sc_nhits"] = 5
    table["sc_size"] = 8, 12, 4
    table["sc_length"] = 10, 12, 4
    table["sc_redpixIdx"] = -1
    rows = np.array([1, 2, 5, 5, 6, 9], np.int32)
    cols = np.array([30, 31, 40, 41, 40, 50], np.int32)
    z = np.arange(24).reshape(6, 2, 2) + 0.123
    return table, np.arange(3), rows, cols, np.array([0, 2, 5, 6]), z


def test_pixels_of_bright_clusters_in_the_order_of_the_table(clusters):
    pixels, table = redpix(*clusters, "xy")
    assert pixels.dtype == REDPIX_DTYPE
    assert table["sc_redpixIdx"].tolist() == [0, -1, 8]
    assert pixels["redpix_iy"].tolist() == [2, 2, 3, 3, 4, 4, 5, 5, 18, 18, 19, 19]
    assert pixels["redpix_ix"].tolist() == [60, 61, 60, 61, 62, 63, 62, 63, 100, 101, 100, 101]
    assert pixels["redpix_iz"].tolist() == [np.float32(v + 0.1) for v in [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22, 23]]
    assert (clusters[0]["sc_redpixIdx"] == -1).all()


def test_the_rows_of_the_table_may_stand_for_the_clusters_in_another_order(clusters):
    table, _, rows, cols, offsets, z = clusters
    order = np.array([2, 0])
    pixels, found = redpix(table[order], order, rows, cols, offsets, z, "xy")
    assert found["sc_redpixIdx"].tolist() == [0, 4]
    assert pixels["redpix_iz"].tolist() == [np.float32(v + 0.1) for v in [20, 21, 22, 23, 0, 1, 2, 3, 4, 5, 6, 7]]


def test_axes_exchange_the_coordinates(clusters):
    xy, _ = redpix(*clusters, "xy")
    rowcol, _ = redpix(*clusters, "rowcol")
    assert rowcol["redpix_ix"].tolist() == xy["redpix_iy"].tolist()
    assert rowcol["redpix_iy"].tolist() == xy["redpix_ix"].tolist()
    assert rowcol["redpix_iz"].tolist() == xy["redpix_iz"].tolist()


@pytest.mark.parametrize(
    ("parameters", "saved"),
    [
        ({"min_integral": 0.0}, [0, 8, 20]),
        ({"min_integral": 900.0}, [0, -1, -1]),
        ({"min_integral": 1e9}, [-1, -1, -1]),
        ({"max_length": 5.0}, [-1, -1, 0]),
        ({"max_pixels": 8}, [-1, -1, 0]),
    ],
)
def test_selection(clusters, parameters, saved):
    pixels, table = redpix(*clusters, "xy", **parameters)
    assert table["sc_redpixIdx"].tolist() == saved
    assert len(pixels) == table["sc_size"][table["sc_redpixIdx"] >= 0].sum()


def test_a_cluster_without_a_pixel_above_the_suppression_is_not_saved(clusters):
    clusters[0]["sc_nhits"][0] = 0
    assert redpix(*clusters, "xy")[1]["sc_redpixIdx"].tolist() == [-1, -1, 0]


def test_decimals(clusters):
    assert redpix(*clusters, "xy", decimals=0)[0]["redpix_iz"][:3].tolist() == [0, 1, 2]


def test_no_clusters():
    empty = np.empty(0, np.int32)
    table, z = np.empty(0, CLUSTER_DTYPE), np.empty((0, 4, 4))
    pixels, table = redpix(table, np.empty(0, np.int64), empty, empty, np.zeros(1, np.int64), z, "xy")
    assert len(pixels) == len(table) == 0
