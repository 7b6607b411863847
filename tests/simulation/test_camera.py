"""The camera in the dark has the noise it is asked for, and 16 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cygnoreco.errors import InputError
from simulation.camera import BLOCK_ROWS, expose, noise_maps
from simulation.detector import Detector, Noise, Purpose, stream
from simulation.light import Light

DETECTOR = Detector(height=512, width=640, noise=Noise(warm_fraction=1e-3, hot_fraction=1e-4))


def dark(event, detector=DETECTOR, light=()):
    return expose(stream(1, 5000, event, Purpose.NOISE), light, noise_maps(detector))


def test_maps_have_the_parameters_of_the_noise():
    maps, noise = noise_maps(DETECTOR), DETECTOR.noise
    assert maps.pedestal.shape == maps.rms.shape == DETECTOR.shape
    assert maps.pedestal.dtype == maps.rms.dtype == np.float32
    centre = slice(200, 300)
    assert np.median(maps.pedestal[centre]) == pytest.approx(noise.offset, abs=0.05)
    edge = np.median(maps.pedestal[:3]) - np.median(maps.pedestal[centre])
    assert edge == pytest.approx(noise.edge_rise, abs=0.1)
    assert np.median(maps.rms) == pytest.approx(noise.rms, rel=0.01)
    assert np.mean(maps.rms > 1.45 * noise.rms) == pytest.approx(noise.noisy_fraction, rel=0.2)
    assert np.mean(maps.rms >= 12) == pytest.approx(noise.very_noisy_fraction * 18 / 22, rel=0.3)  # 8 to 30, uniform
    assert np.mean(maps.pedestal == noise.hot_level) == pytest.approx(noise.hot_fraction, rel=0.7)
    warm = (maps.pedestal > noise.offset + 10) & (maps.pedestal != noise.hot_level)
    assert np.mean(warm) == pytest.approx(noise.warm_fraction * np.exp(-10 / noise.warm_excess), rel=0.3)


def test_the_camera_is_the_same_in_every_run_and_cannot_be_changed():
    first = noise_maps(DETECTOR)
    noise_maps.cache_clear()
    np.testing.assert_array_equal(noise_maps(DETECTOR).pedestal, first.pedestal)
    other = noise_maps(replace(DETECTOR, noise=replace(DETECTOR.noise, camera=2)))
    assert np.mean(other.pedestal == first.pedestal) < 0.01
    with pytest.raises(ValueError, match="read-only"):
        first.pedestal[0, 0] = 1


def test_frames_fluctuate_as_the_maps_say():
    frames = np.stack([dark(event) for event in range(60)]).astype(float)
    maps = noise_maps(DETECTOR)
    pulls = (frames.mean(axis=0) - maps.pedestal) / (maps.rms / 60**0.5)
    assert abs(pulls.mean()) < 0.05
    assert pulls.std() == pytest.approx(1, abs=0.05)
    variance = frames.var(axis=0, ddof=1) - 1 / 12  # of the rounding
    assert np.mean(variance / maps.rms**2) == pytest.approx(1, abs=0.01)


def test_light_is_added_where_it_falls():
    adu = np.full((2 * BLOCK_ROWS, 3), 500, np.float32)  # over the border of two blocks
    lit = dark(0, light=[Light(BLOCK_ROWS // 2, 10, adu), Light(0, 0, np.zeros((0, 0), np.float32))])
    difference = lit.astype(int) - dark(0)
    expected = np.zeros(DETECTOR.shape, int)
    expected[BLOCK_ROWS // 2 : BLOCK_ROWS // 2 + 2 * BLOCK_ROWS, 10:13] = 500
    np.testing.assert_array_equal(difference, expected)


def test_counts_stay_within_16_bits():
    bright = dark(0, light=[Light(0, 0, np.full((5, 5), 1e6, np.float32))])
    assert bright.dtype == np.uint16
    assert (bright[:5, :5] == 65535).all()
    assert bright[5:].max() < 10_000


def test_streams_of_different_purposes_differ_and_ranges_are_checked():
    draws = {
        tuple(stream(*key).integers(0, 2**63, 4))
        for key in [
            (1, 1, 1, Purpose.TRACK),
            (1, 1, 1, Purpose.LIGHT),
            (1, 1, 2, Purpose.TRACK),
            (1, 2, 1, Purpose.TRACK),
            (2, 1, 1, Purpose.TRACK),
            (1, 1, 1, Purpose.TRACK, 1),
        ]
    }
    assert len(draws) == 6
    with pytest.raises(InputError, match="seed = -1"):
        stream(-1, 1, 1, Purpose.TRACK)
    with pytest.raises(InputError, match="width"):
        Detector(width=0)
