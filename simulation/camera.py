"""The camera: pedestal, noise, defects, 16 bits."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cygnoreco.types import Frames
from simulation.detector import Detector, Purpose, stream
from simulation.light import Light

#: Rows worked on at a time: the block stays in the processor's cache through noise, sum, rounding and clipping.
BLOCK_ROWS = 32


class NoiseMaps(NamedTuple):
    """The camera in the dark, pixel by pixel, in ADU; float32, shape (height, width)."""

    pedestal: NDArray[np.float32]
    rms: NDArray[np.float32]


@lru_cache(maxsize=2)
def noise_maps(detector: Detector) -> NoiseMaps:
    """Draw the true pedestal and noise of every pixel of a detector's camera: the same in all its runs.

    Parameters
    ----------
    detector : Detector
        Its sensor's shape and the parameters of its noise.

    Returns
    -------
    NoiseMaps
        Read-only arrays.
    """
    noise, shape = detector.noise, detector.shape
    rng = stream(noise.camera, 0, 0, Purpose.CAMERA)
    from_centre = np.abs(np.linspace(-1, 1, detector.height, dtype=np.float32))
    pedestal = noise.offset_spread * rng.standard_normal(shape, dtype=np.float32)
    pedestal += noise.offset
    pedestal += noise.column_spread * rng.standard_normal(detector.width, dtype=np.float32)
    pedestal += (noise.edge_rise * from_centre**6)[:, None]
    rms = noise.rms * np.exp(noise.rms_spread * rng.standard_normal(shape, dtype=np.float32))

    def defects(fraction: float) -> tuple[NDArray[np.intp], ...]:
        """Pixels drawn at random: their number is right on average, one found twice counts once."""
        places = rng.integers(0, rms.size, rng.poisson(fraction * rms.size))
        return np.unravel_index(np.unique(places), shape)

    noisy, very_noisy = defects(noise.noisy_fraction), defects(noise.very_noisy_fraction)
    warm, hot = defects(noise.warm_fraction), defects(noise.hot_fraction)
    rms[noisy] *= rng.uniform(1.5, 3.5, noisy[0].size)
    rms[very_noisy] = rng.uniform(8.0, 30.0, very_noisy[0].size)
    pedestal[warm] += rng.exponential(noise.warm_excess, warm[0].size)
    pedestal[hot] = noise.hot_level
    pedestal.flags.writeable = rms.flags.writeable = False
    return NoiseMaps(pedestal, rms)


def expose(rng: np.random.Generator, light: Iterable[Light], maps: NoiseMaps) -> Frames:
    """Take one picture.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers of this frame's noise.
    light : iterable of Light
        Patches of light, in any order; they may overlap.
    maps : NoiseMaps
        The camera in the dark.

    Returns
    -------
    ndarray of uint16, shape (height, width)
        Raw frame in the orientation of the sensor; 65535 where light and pedestal exceed it.
    """
    height, width = maps.rms.shape
    patches = [patch for patch in light if patch.adu.size]
    frame = np.empty((height, width), np.uint16)
    for start in range(0, height, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, height)
        block = rng.standard_normal((stop - start, width), dtype=np.float32)
        block *= maps.rms[start:stop]
        block += maps.pedestal[start:stop]
        for row, col, adu in patches:
            first, last = max(start, row), min(stop, row + adu.shape[0])
            if first < last:
                block[first - start : last - start, col : col + adu.shape[1]] += adu[first - row : last - row]
        np.rint(block, out=block)
        np.clip(block, 0, np.iinfo(np.uint16).max, out=block)
        frame[start:stop] = block
    return frame
