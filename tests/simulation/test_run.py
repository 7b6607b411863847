"""Simulated runs: the same whatever the order, readable as runs, true beside."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from cygnoreco.io.opening import open_source
from simulation.camera import noise_maps
from simulation.detector import Detector
from simulation.plan import demo_plan
from simulation.run import pedestal_run, read_truth, simulate_event, truth_file, write_run
from simulation.tracks import Particle

SMALL = Detector(height=256, width=320)


def simulate(particles, event, detector=SMALL, seed=7):
    return simulate_event(particles, detector=detector, seed=seed, run=5001, event=event)


def test_an_event_is_the_same_whatever_came_before():
    plan = demo_plan(4, detector=SMALL)
    forward = [simulate(particles, event) for event, particles in enumerate(plan)]
    backward = [simulate(plan[event], event) for event in reversed(range(4))][::-1]
    for (frame, truth), (again, truth_again) in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(frame, again)
        assert truth == truth_again
    other_seed, _ = simulate(plan[0], 0, seed=8)
    assert (other_seed != forward[0][0]).mean() > 0.5


def test_truth_says_what_is_in_the_frame():
    spot = Particle("fe55", 100.0, 200.0, 20.0)
    frame, (truth,) = simulate([spot], 0)
    without, _ = simulate([], 0)
    light = frame.astype(int) - without.astype(int)
    # Rounding light and noise together may move a pixel by one count, and light is in whole counts.
    assert light.sum() == pytest.approx(truth.light_adu, abs=1)
    rows, cols = np.nonzero(light)
    assert truth.bbox == (rows.min(), rows.max(), cols.min(), cols.max())
    assert truth.deposited_kev == pytest.approx(5.9)
    assert truth.light_adu == pytest.approx(5.9 * SMALL.yield_adu_per_kev, rel=0.4)
    assert truth.row == pytest.approx(100, abs=3)
    assert truth.col == pytest.approx(200, abs=3)
    assert truth.z_cm == pytest.approx(20, abs=0.1)


def test_truth_of_a_particle_that_is_not_seen():
    _, (truth,) = simulate([Particle("electron", 9000.0, 9000.0, 20.0, 10.0)], 0)
    assert (truth.light_adu, truth.bbox, truth.row) == (0.0, None, None)


def test_the_light_of_55fe_spots_averages_to_their_energy():
    lights = []
    for event in range(12):
        spots = [Particle("fe55", row, col, 25.0) for row in (60.0, 130.0, 200.0) for col in (60.0, 160.0, 260.0)]
        lights += [truth.light_adu for truth in simulate(spots, event)[1]]
    expected = 5.9 * SMALL.yield_adu_per_kev
    assert 0.88 * expected < np.mean(lights) < 1.02 * expected  # saturation takes a few per cent
    assert 0.10 < np.std(lights) / np.mean(lights) < 0.17


def test_a_run_reads_back_bit_for_bit(tmp_path):
    plan = demo_plan(3, detector=SMALL)
    path = tmp_path / "run05001.mid.gz"
    flat = np.ones(SMALL.shape)
    truth_path = write_run(path, run=5001, events=plan, detector=SMALL, seed=7, response=flat)
    run = open_source(path)
    assert not run.faults
    assert run.run_number == 5001
    assert [camera.shape for camera in run.cameras] == [SMALL.shape]
    frames = run.read("CAM0", 0, 3)
    for event, particles in enumerate(plan):
        np.testing.assert_array_equal(frames[event], simulate(particles, event)[0])

    assert truth_path == truth_file(path) == tmp_path / "run05001.truth.json"
    truth = read_truth(path)
    assert (truth["run"], truth["seed"], truth["detector"]["width"]) == (5001, 7, 320)
    assert [len(event) for event in truth["events"]] == [len(particles) for particles in plan]
    assert {particle["particle"]["kind"] for particle in truth["events"][0]} >= {"fe55", "alpha", "muon", "nuclear"}


def test_the_same_run_is_the_same_file(tmp_path):
    paths = [tmp_path / name / "run05002.mid.gz" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        write_run(path, run=5002, events=demo_plan(2, detector=SMALL), detector=SMALL)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_settings_of_the_run_say_what_it_is(tmp_path):
    path = tmp_path / "run05000.mid"
    pedestal_run(path, run=5000, frames=2, detector=SMALL)
    odb = open_source(path).odb()
    assert odb["Runinfo"]["Run number"] == 5000
    assert odb["Configurations"]["Pedestal"] is True
    assert odb["Configurations"]["Cameras"]["CAM0"] == {"Width": 320, "Height": 256}
    assert len(odb["Equipment"]["Environment"]["Settings"]["Names Input"]) == 24


def test_a_pedestal_run_has_the_maps_of_the_data_run(tmp_path):
    path = tmp_path / "run05000.mid"
    pedestal_run(path, run=5000, frames=30, detector=SMALL)
    mean = open_source(path).read("CAM0", 0, 30).mean(axis=0)
    maps = noise_maps(SMALL)
    assert np.std((mean - maps.pedestal) / maps.rms) == pytest.approx(30**-0.5, rel=0.05)
    assert read_truth(path)["events"] == [[]] * 30


def test_slow_control_comes_now_and_then(tmp_path):
    """Camera and trigger module every 10 s, high voltage and environment every minute, between begin and end."""
    path = tmp_path / "run05003.mid"
    tiny = Detector(height=64, width=64)
    write_run(path, run=5003, events=[()] * 61, detector=tiny)
    data, found, offset = path.read_bytes(), [], 0
    while offset < len(data):
        event_id, _, _, _, size = struct.unpack_from("<HHIII", data, offset)
        found.append(event_id)
        offset += 16 + size
    assert (found[0], found[-1]) == (0x8000, 0x8001)
    assert {event_id: found.count(event_id) for event_id in (1, 3, 5, 7, 8)} == {1: 61, 3: 2, 5: 2, 7: 7, 8: 7}
