"""The cluster variables against the experiment's program: every variable of every cluster it made of 30 images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import load_response
from cygnoreco.chain import calibrate
from cygnoreco.cluster.lattice import group
from cygnoreco.image.orient import orient
from cygnoreco.image.patches import patches
from cygnoreco.measure.redpix import redpix
from cygnoreco.measure.variables import measure
from cygnoreco.recipe import Recipe

FIT = ("gaussamp", "gaussmean", "gausssigma", "chi2", "status")


@pytest.fixture(scope="module")
def compared(shared_data):
    """Our table and the program's, row by row, for its own clusters: 30 images, 5 seeds; and numbers of pixels."""
    recipe = Recipe.load("winter23")
    with np.load(shared_data / "golden" / "pedestal_sums.npz") as archive:
        pedestal = Pedestal.from_sums(archive["sum"], archive["sumsq_minus100"], int(archive["n"]), run=5000)
    map_file = shared_data / "real" / "vignetting" / "vignette_runs03930to03932.root"
    response = load_response(map_file, pedestal.mean.shape, **recipe["response"])
    calibration = calibrate(pedestal, response, recipe, "midas")

    ours, theirs, n_pixels = [], [], []
    for number in range(30):
        with np.load(shared_data / "golden" / "open" / f"points_{number:03d}.npz") as archive:
            points = dict(archive)
        if "X" not in points:
            continue
        golden = json.loads((shared_data / "golden" / "open" / f"img_{number:03d}.json").read_text())
        with np.load(shared_data / "frames" / f"img_{number:03d}.npz") as archive:
            frame = orient(archive["image"], "midas", **recipe["orient"])
        for column, seed in enumerate(golden["seeds"]):
            order, offsets = group(points["ddbscan"][:, column].astype(np.int32))
            rows, cols = points["X"][order].T.astype(np.int32)
            pixels = patches(
                frame,
                *calibration.maps,
                rows,
                cols,
                cimax=5000,
                saturated="zero",
                **recipe["suppress"],
                **recipe["accept"],
            )
            tags = np.zeros(len(offsets) - 1, np.int32)
            table, kept = measure(rows, cols, offsets, *pixels, tags, **recipe["measure"])
            saved, table = redpix(table, kept, rows, cols, offsets, pixels.z, "rowcol")
            ours.extend(table)
            theirs.extend(golden["clusters"][str(seed)])
            if seed == golden["seeds"][0]:
                n_pixels.append((len(saved), golden["image_level"]["nRedpix"]))
    return ours, theirs, n_pixels


def _values(compared, column):
    ours, theirs, _ = compared
    return np.array([[row[column], cluster[column]] for row, cluster in zip(ours, theirs, strict=True)], float).T


def test_same_clusters_in_the_same_order(compared):
    ours, theirs, _ = compared
    assert len(ours) == len(theirs) == 1115


def test_every_variable_but_the_fits(compared):
    columns = [name for name in compared[1][0] if name.startswith("sc_") and not name.endswith(FIT)]
    assert len(columns) == 27
    for column in columns:
        ours, theirs = _values(compared, column)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=0, err_msg=column)


def test_fits(compared):
    """Measured: 98.2 % of the fits within 1e-3, 99.8 % that or with a chi square as low as the program's."""
    close, as_good = [], []
    for direction in "lt":
        columns = {name: _values(compared, f"sc_{direction}{name}") for name in FIT}
        differences = [np.abs(a / b - 1) for a, b in (columns[name] for name in FIT[:3])]
        close.append(np.max(differences, axis=0) < 1e-3)
        ours, theirs = columns["chi2"]
        as_good.append(ours <= 1.001 * theirs)
    close, as_good = np.concatenate(close), np.concatenate(as_good)
    assert close.mean() >= 0.98
    assert (close | as_good).mean() >= 0.99


def test_converged_where_the_program_converged(compared):
    for direction in "lt":
        ours, theirs = _values(compared, f"sc_{direction}status")
        assert (ours[theirs == 3] == 3).all()


def test_saved_pixels(compared):
    for ours, theirs in compared[2]:
        assert ours == theirs
