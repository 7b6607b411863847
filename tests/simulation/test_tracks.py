"""Ionisation: energy is kept, shapes are those of the particles."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.errors import InputError
from simulation.detector import Detector, Purpose, stream
from simulation.tracks import MUON_KEV_PER_CM, Particle, alpha_range_mm, electron_range_mm, ionise

DETECTOR = Detector()


def track(particle, item=0):
    return ionise(stream(1, 1, 0, Purpose.TRACK, item), particle, DETECTOR)


@pytest.mark.parametrize(
    ("kind", "energy"), [("fe55", 5.9), ("electron", 8.0), ("electron", 100.0), ("alpha", 5500.0), ("nuclear", 30.0)]
)
def test_all_the_energy_is_deposited(kind, energy):
    deposited = track(Particle(kind, 1000, 1000, 25.0, energy)).energy_kev
    assert (deposited > 0).all()
    assert deposited.sum() == pytest.approx(energy)


def test_spots_are_small():
    points = track(Particle("fe55", 1000, 1200, 25.0, 100.0))
    assert points.row.mean() == pytest.approx(1000, abs=1)
    assert points.col.mean() == pytest.approx(1200, abs=1)
    assert points.row.std() * DETECTOR.pixel_mm == pytest.approx(0.25, rel=0.15)


def test_electrons_scatter_but_go_no_farther_than_their_range():
    """A path of 100 keV is 95 mm long; scattering leaves much less between its ends."""
    path = float(electron_range_mm(100.0))
    distances = []
    for item in range(20):
        points = track(Particle("electron", 1000, 1000, 25.0, 100.0, (1, 0, 0)), item)
        place = np.stack([points.row, points.col, points.z_cm * 10 / DETECTOR.pixel_mm]) * DETECTOR.pixel_mm
        assert np.linalg.norm(np.diff(place, axis=1), axis=0).sum() < path
        distances.append(np.linalg.norm(place[:, -1] - place[:, 0]))
    assert 0.1 * path < np.mean(distances) < 0.8 * path


def test_electrons_lose_more_at_their_end():
    energy = np.mean([track(Particle("electron", 1000, 1000, 25, 60.0), item).energy_kev for item in range(20)], axis=0)
    assert energy[-10:].mean() > 2 * energy[:10].mean()


def test_an_alpha_is_straight_and_has_its_peak_at_the_end():
    points = track(Particle("alpha", 1000, 1000, 25.0, 5500.0, (3, 4, 0)))
    length = np.hypot(np.ptp(points.row), np.ptp(points.col)) * DETECTOR.pixel_mm
    assert length == pytest.approx(alpha_range_mm(5500.0), rel=0.01)
    np.testing.assert_allclose((points.col - 1000) * 3, (points.row - 1000) * 4, atol=1e-9)
    assert points.energy_kev[-20:].sum() > 1.8 * points.energy_kev[:20].sum()


def test_a_muon_crosses_the_whole_picture():
    points = track(Particle("muon", 1000, 1000, 25.0, direction=(0, 1, 0)))
    assert points.col.min() < 0
    assert points.col.max() > DETECTOR.width
    np.testing.assert_allclose(points.row, 1000)
    path_cm = np.ptp(points.col) * DETECTOR.pixel_mm / 10
    assert points.energy_kev.sum() == pytest.approx(MUON_KEV_PER_CM * path_cm, rel=0.3)


def test_a_muon_beside_the_detector_leaves_nothing():
    assert track(Particle("muon", -500, 1000, 25.0, direction=(0, 1, 0))).row.size == 0


def test_what_leaves_the_drift_gap_is_not_seen():
    points = track(Particle("alpha", 1000, 1000, DETECTOR.gap_cm - 1, 5500.0, (0, 0, 1)))
    assert points.z_cm.max() <= DETECTOR.gap_cm
    assert 0 < points.energy_kev.sum() < 2000


def test_a_wrong_particle_is_named():
    with pytest.raises(InputError, match="did you mean 'electron'"):
        Particle("elektron", 0, 0, 0.0)
    with pytest.raises(InputError, match="not zero"):
        Particle("electron", 0, 0, 0.0, direction=(0, 0, 0))
