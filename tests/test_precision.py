"""What single precision changes in the results of simulated frames, within the bounds that the documentation states."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import generated_response
from cygnoreco.chain import calibrate, reconstruct_block
from cygnoreco.image.filters import noise_filter
from cygnoreco.image.orient import orient
from cygnoreco.image.points import points
from cygnoreco.kernels.image import image_section
from cygnoreco.recipe import Recipe
from cygnoreco.types import CLUSTER_DTYPE, EVENT_DTYPE, FRAME_DTYPE
from simulation.detector import Detector
from simulation.plan import demo_plan
from simulation.run import simulate_event

SMALL = Detector(height=1024, width=1024)


@pytest.fixture(scope="module")
def many_frames():
    events = demo_plan(30, detector=SMALL)
    return np.stack(
        [simulate_event(event, detector=SMALL, seed=3, run=2, event=k)[0] for k, event in enumerate(events)]
    )


@pytest.fixture(scope="module")
def frames(many_frames):
    return many_frames[[0, 1, 2, -1]]


@pytest.fixture(scope="module")
def dark():
    images = (simulate_event((), detector=SMALL, seed=3, run=1, event=k)[0][None] for k in range(7))
    return Pedestal.from_frames(images, run=1), generated_response(SMALL.shape)


@pytest.fixture(scope="module")
def calibrations(dark):
    pedestal, response = dark
    recipes = [Recipe.load("winter23").override([f"precision={each}"]) for each in ("float64", "float32")]
    return [(recipe, calibrate(pedestal, response, recipe, "midas")) for recipe in recipes]


def test_points_and_weights(frames, calibrations):
    found = []
    for recipe, calibration in calibrations:
        section = image_section(frames[..., ::-1], calibration.cuts)
        weights = np.zeros(section.picture.shape)
        for picture, edges, target in zip(section.picture, section.edges, weights, strict=True):
            rows, cols, values = points(noise_filter(edges, **recipe["noise"]), picture, **recipe["points"])
            target[rows, cols] = values
        found.append(weights)
    exact, single = found
    assert (exact > 0).sum() > 500
    assert ((exact > 0) != (single > 0)).sum() <= 1e-3 * (exact > 0).sum()
    both = (exact > 0) & (single > 0)
    assert (exact[both] != single[both]).mean() <= 0.01
    assert np.abs(exact[both] - single[both]).max() <= 1


#: What a point that comes or goes may change of its cluster at most: relative, or absolute in the column's unit. The
#: columns that are missing (direction, peaks and fits of the profiles) have no bound: one bin decides which of two
#: peaks is the main one.
BOUNDS = {
    "sc_integral": (0.01, 0.0),
    "sc_corrintegral": (0.01, 0.0),
    "sc_rms": (0.05, 0.0),
    "sc_nhits": (0.05, 0.0),
    "sc_xmean": (0.0, 0.5),
    "sc_ymean": (0.0, 0.5),
    "sc_xmin": (0.0, 8.0),
    "sc_xmax": (0.0, 8.0),
    "sc_ymin": (0.0, 8.0),
    "sc_ymax": (0.0, 8.0),
    "sc_length": (0.1, 0.0),
    "sc_width": (0.1, 0.0),
    "sc_longrms": (0.1, 0.0),
    "sc_latrms": (0.1, 0.0),
    "sc_lfullrms": (0.1, 0.0),
    "sc_tfullrms": (0.1, 0.0),
    "sc_nsat": (0.0, 0.0),
    "sc_tag": (0.0, 0.0),
}

#: The only column of a cluster that depends on the others of its frame: a pixel more before it moves its first one.
COUNTED_ON = "sc_redpixIdx"


def points_of(frames, recipe, calibration):
    """Which macro-pixels of each frame are points."""
    section = image_section(frames, calibration.cuts)
    found = np.zeros(section.picture.shape, bool)
    for picture, edges, target in zip(section.picture, section.edges, found, strict=True):
        rows, cols, _ = points(noise_filter(edges, **recipe["noise"]), picture, **recipe["points"])
        target[rows, cols] = True
    return found


def moved_inside(moved, one, other, axes):
    """Points that came or went in the box around a cluster in both tables, by its cluster."""
    counts = []
    for frame, a, b in zip(moved, one, other, strict=True):
        low = {axis: int(min(a[f"sc_{axis}min"], b[f"sc_{axis}min"])) // 4 for axis in "xy"}
        high = {axis: int(max(a[f"sc_{axis}max"], b[f"sc_{axis}max"])) // 4 + 1 for axis in "xy"}
        row, col = ("y", "x") if axes == "xy" else ("x", "y")
        counts.append(int(frame[low[row] : high[row], low[col] : high[col]].sum()))
    return np.array(counts)


@pytest.mark.parametrize("name", ["winter23", "lime"])
def test_every_column(name, many_frames, dark):
    recipes = [Recipe.load(name).override([f"precision={each}"]) for each in ("float64", "float32")]
    calibrations = [calibrate(*dark, recipe, "midas") for recipe in recipes]
    rows = np.zeros(len(many_frames), FRAME_DTYPE)
    exact, single = (
        reconstruct_block(many_frames, rows, calibration, recipe, origin="midas", run=2, pedestal_run=1)[0]
        for recipe, calibration in zip(recipes, calibrations, strict=True)
    )
    oriented = orient(many_frames, "midas", **recipes[0]["orient"])
    before, after = (points_of(oriented, *each) for each in zip(recipes, calibrations, strict=True))
    moved = before != after

    for column in EVENT_DTYPE.names:
        one, other = exact.events[column], single.events[column]
        if column.startswith("cmos_"):
            np.testing.assert_allclose(other, one, rtol=1e-5, err_msg=column)
        elif column == "lp_len":
            np.testing.assert_array_equal(other.astype(int) - one, after.sum((1, 2)) - before.sum((1, 2)))
        elif column == "nRedpix":
            assert (np.abs(other.astype(int) - one) <= 16 * moved.sum((1, 2))).all()
        else:
            np.testing.assert_array_equal(other, one, err_msg=column)

    a, b = exact.clusters, single.clusters
    frame_of = np.repeat(np.arange(len(many_frames)), exact.events["nSc"])
    n_moved = moved_inside(moved[frame_of], a, b, recipes[0]["measure"]["axes"])
    touched = n_moved > 0
    assert 0 < touched.sum() < len(a) / 2, "both kinds of clusters are wanted"
    for column in CLUSTER_DTYPE.names:
        if column != COUNTED_ON:
            np.testing.assert_array_equal(b[column][~touched], a[column][~touched], err_msg=column)
    for column, (relative, absolute) in BOUNDS.items():
        one, other = a[column][touched], b[column][touched]
        np.testing.assert_allclose(other, one, rtol=relative, atol=absolute, err_msg=column)
    assert (np.abs(a["sc_size"] - b["sc_size"]) <= 16 * n_moved).all()

    first = [np.r_[0, np.cumsum(each.events["nRedpix"])][frame_of] for each in (exact, single)]
    for k in np.flatnonzero(~touched & (a[COUNTED_ON] >= 0)):
        own = [
            table.redpix[start + int(table.clusters[COUNTED_ON][k]) :][: int(table.clusters["sc_size"][k])]
            for table, start in ((exact, first[0][k]), (single, first[1][k]))
        ]
        assert own[0].tobytes() == own[1].tobytes()
