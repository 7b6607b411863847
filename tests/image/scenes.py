"""Small frames with everything that decides a pixel's fate: noise, tracks, saturated, hot and edge pixels."""

from __future__ import annotations

import numpy as np


def scene(shape=(48, 64), frames=3, seed=0):
    """Return frames (n, H, W) uint16, mean and rms (H, W) float64."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(100.0, 1.0, shape)
    rms = rng.gamma(9.0, 0.3, shape)
    raw = mean + rms * rng.normal(size=(frames, *shape))
    raw[:, shape[0] // 3, shape[1] // 4 :] += 60.0
    raw[:, :, 0] += 8.0
    raw[0, rng.integers(0, shape[0], 5), rng.integers(0, shape[1], 5)] = 65535.0
    raw[1:, 5, 7:11] = (4999.0, 5000.0, 5001.0, 9000.0)
    mean[11, 13] = 5200.0
    rms[3, 3] = 0.0
    # Whole numbers and halves make counts fall exactly on the threshold, where > and >= differ.
    mean[20:30, 20:30] = 100.0
    rms[20:30, 20:30] = 5.0
    return np.clip(np.rint(raw), 0, 65535).astype(np.uint16), mean, rms
