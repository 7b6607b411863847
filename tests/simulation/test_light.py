"""Light: as much as there should be, as wide as diffusion makes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.detector import Detector, Purpose, stream
from simulation.light import STRIP_ROWS, detect_light
from simulation.tracks import Ionisation, Particle, ionise

DETECTOR = Detector(height=256, width=256)
LINEAR = replace(DETECTOR, saturation_adu=1e12)


def point(energy_kev, z_cm, row=128.0, col=128.0):
    return Ionisation(*(np.array([value]) for value in (row, col, z_cm, energy_kev)))


def light_of(ionisation, detector, response=None, event=0):
    return detect_light(stream(1, 1, event, Purpose.LIGHT), ionisation, detector, response)


def moments(light):
    total = light.adu.sum(dtype=float)
    rows = np.arange(light.adu.shape[0]) + light.row
    profile = light.adu.sum(axis=1, dtype=float)
    mean = rows @ profile / total
    return mean, ((rows - mean) ** 2 @ profile / total) ** 0.5


@pytest.mark.parametrize("energy", [5.9, 30.0, 200.0])
def test_light_is_proportional_to_energy(energy):
    adu = np.mean([light_of(point(energy, 25.0), LINEAR, event=event).adu.sum() for event in range(40)])
    assert adu == pytest.approx(energy * DETECTOR.yield_adu_per_kev, rel=0.06)


def test_light_fades_with_the_drift():
    near, far = (light_of(point(2000.0, z_cm), LINEAR).adu.sum() for z_cm in (0.0, 50.0))
    assert far / near == pytest.approx(DETECTOR.survival(50.0), rel=0.03)


@pytest.mark.parametrize("z_cm", [0.0, 10.0, 25.0, 50.0])
def test_a_point_is_as_wide_as_diffusion_makes_it(z_cm):
    mean, sigma = moments(light_of(point(1000.0, z_cm, row=100.3), LINEAR))
    assert mean == pytest.approx(100.3, abs=0.2)
    assert sigma == pytest.approx(LINEAR.spread_px(z_cm), rel=0.03)


def test_the_resolution_at_55fe_is_that_of_gain_and_photons():
    """128 electrons with exponential gains: sqrt(2 / 113 arriving) of the mean, a little more with the losses."""
    totals = np.array([light_of(point(5.9, 25.0), LINEAR, event=event).adu.sum() for event in range(300)])
    arriving = 5.9 / DETECTOR.pair_kev * DETECTOR.survival(25.0)
    assert totals.std() / totals.mean() == pytest.approx((2 / arriving) ** 0.5, rel=0.15)


def test_dense_light_saturates():
    ratios = []
    for energy in (10.0, 1000.0):
        linear, saturated = (light_of(point(energy, 5.0), detector).adu.sum() for detector in (LINEAR, DETECTOR))
        ratios.append(saturated / linear)
    assert ratios[0] > 0.85
    assert ratios[1] < 0.25


def test_the_lens_dims_pixel_by_pixel():
    response = np.ones(DETECTOR.shape, np.float32)
    response[:, 128:] = 0.25
    light = light_of(point(4000.0, 25.0, col=127.5), LINEAR, response)
    left, right = light.adu[:, : 128 - light.col].sum(), light.adu[:, 128 - light.col :].sum()
    assert right / left == pytest.approx(0.25, rel=0.1)
    with pytest.raises(ValueError, match="shape"):
        light_of(point(1.0, 25.0), LINEAR, response[:-1])


def test_light_comes_in_whole_photons_of_the_camera():
    adu = light_of(point(50.0, 25.0), DETECTOR).adu
    assert (adu % DETECTOR.adu_per_photon == 0).all()
    assert adu.max() > 0


@pytest.mark.parametrize("row", [0.0, 255.0])
def test_light_at_the_border_is_cut_there(row):
    light = light_of(point(1000.0, 25.0, row=row), LINEAR)
    assert light.row >= 0
    assert light.row + light.adu.shape[0] <= DETECTOR.height
    assert light.adu.sum() == pytest.approx(0.5 * 1000 * DETECTOR.yield_adu_per_kev, rel=0.15)


def test_nothing_is_seen_of_a_far_away_particle():
    assert light_of(point(100.0, 25.0, row=5000.0), DETECTOR).adu.size == 0
    assert light_of(point(0.0, 25.0), DETECTOR).adu.size == 0


def test_strips_leave_no_seam():
    """A uniform line across several strips has the same light everywhere."""
    detector = Detector(height=4 * STRIP_ROWS, width=64, saturation_adu=1e12)
    rows = np.arange(-60.0, 4 * STRIP_ROWS + 60, 0.05)
    line = Ionisation(rows, np.full_like(rows, 32.0), np.full_like(rows, 10.0), np.full_like(rows, 1.0))
    profile = light_of(line, detector).adu.sum(axis=1)
    assert profile.size == 4 * STRIP_ROWS
    assert profile.std() / profile.mean() < 0.05
    at_seams = [profile[seam - 6 : seam + 6].mean() for seam in range(STRIP_ROWS, 4 * STRIP_ROWS, STRIP_ROWS)]
    np.testing.assert_allclose(at_seams, profile.mean(), rtol=0.06)


def test_the_same_stream_gives_the_same_light():
    track = ionise(stream(1, 1, 0, Purpose.TRACK), Particle("electron", 128, 128, 25.0, 20.0), DETECTOR)
    first, again, other = (light_of(track, DETECTOR, event=event) for event in (0, 0, 1))
    assert first[:2] == again[:2]
    np.testing.assert_array_equal(first.adu, again.adu)
    assert first.adu.sum() != other.adu.sum()
