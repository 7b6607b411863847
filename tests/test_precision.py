"""What single precision changes in the results of simulated frames, within the bounds that the documentation states."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import generated_response
from cygnoreco.chain import calibrate, reconstruct_block
from cygnoreco.image.filters import noise_filter
from cygnoreco.image.points import points
from cygnoreco.kernels.image import image_section
from cygnoreco.recipe import Recipe
from cygnoreco.types import FRAME_DTYPE
from simulation.detector import Detector
from simulation.plan import demo_plan
from simulation.run import simulate_event

SMALL = Detector(height=1024, width=1024)


@pytest.fixture(scope="module")
def frames():
    events = demo_plan(4, detector=SMALL)
    return np.stack(
        [simulate_event(event, detector=SMALL, seed=3, run=2, event=k)[0] for k, event in enumerate(events)]
    )


@pytest.fixture(scope="module")
def calibrations():
    dark = (simulate_event((), detector=SMALL, seed=3, run=1, event=k)[0][None] for k in range(7))
    pedestal, response = Pedestal.from_frames(dark, run=1), generated_response(SMALL.shape)
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


def test_clusters(frames, calibrations):
    rows = np.zeros(len(frames), FRAME_DTYPE)
    exact, single = (
        reconstruct_block(frames, rows, calibration, recipe, origin="midas", run=2, pedestal_run=1)[0]
        for recipe, calibration in calibrations
    )
    assert len(exact.clusters) == len(single.clusters) > 0
    np.testing.assert_allclose(single.events["cmos_integral"], exact.events["cmos_integral"], rtol=1e-5)
    np.testing.assert_allclose(single.clusters["sc_integral"], exact.clusters["sc_integral"], rtol=0.01)
    np.testing.assert_allclose(single.clusters["sc_size"], exact.clusters["sc_size"], rtol=0.01)
    for name in ("sc_xmean", "sc_ymean"):
        np.testing.assert_allclose(single.clusters[name], exact.clusters[name], atol=0.5)
