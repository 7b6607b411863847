"""Plans: what they promise, the same every time."""

from __future__ import annotations

import numpy as np

from simulation.detector import Detector
from simulation.plan import demo_plan, grid_plan


def test_the_demonstration_has_something_of_everything():
    plan = demo_plan(20)
    assert len(plan) == 20
    kinds = [particle.kind for event in plan for particle in event]
    assert kinds.count("alpha") == kinds.count("muon") == kinds.count("nuclear") == 1
    assert kinds.count("fe55") >= 19
    assert kinds.count("electron") >= 10
    assert plan[-1] == ()
    assert plan == demo_plan(20)
    assert plan != demo_plan(20, seed=2)
    assert plan[:5] == demo_plan(6)[:5]


def test_planned_particles_start_inside_the_detector():
    detector = Detector(height=256, width=512, gap_cm=20.0)
    for plan in (demo_plan(30, detector=detector), grid_plan(3, detector=detector)):
        for particle in (particle for event in plan for particle in event):
            assert 0 < particle.row < 256
            assert 0 < particle.col < 512
            assert 0 <= particle.z_cm <= 20


def test_spots_of_the_grid_keep_apart():
    for event in grid_plan(2, energy_kev=(0.15, 4.0)):
        places = np.array([(particle.row, particle.col) for particle in event])
        assert len(places) == 48
        distances = np.linalg.norm(places[:, None] - places, axis=2)
        assert distances[distances > 0].min() > 150
        energies = [particle.energy_kev for particle in event]
        assert 0.15 <= min(energies) < 0.4
        assert 2 < max(energies) <= 4.0
