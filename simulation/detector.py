"""The detector as numbers, LIME unless told otherwise, and the random numbers of its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from cygnoreco.errors import InputError

#: LIME: 346 mm of the readout plane on 2304 pixels.
LIME_PIXEL_MM = 346.0 / 2304.0


@dataclass(frozen=True)
class Noise:
    """Pixels without light: offset, noise and defects of one particular camera.

    Attributes
    ----------
    camera : int
        Which camera: two cameras differ in every pixel, one camera is the same in every run.
    offset, offset_spread : float
        Mean pedestal and its spread from pixel to pixel, in ADU.
    column_spread : float
        Spread of the offsets common to a column (they share an amplifier), in ADU.
    edge_rise : float
        How much the first and the last rows lie above the rest, in ADU.
    rms, rms_spread : float
        Median noise in ADU and the width of its log-normal distribution.
    noisy_fraction, very_noisy_fraction : float
        Pixels with 1.5 to 3.5 times their noise, and with 8 to 30 ADU: the tail of every sCMOS sensor.
    warm_fraction, warm_excess : float
        Pixels with dark current, and its mean in ADU.
    hot_fraction, hot_level : float
        Dead-bright pixels and their level in ADU, beyond the upper cut of the reconstruction.
    """

    camera: int = 771001
    offset: float = 99.6
    offset_spread: float = 0.30
    column_spread: float = 0.15
    edge_rise: float = 0.4
    rms: float = 2.6
    rms_spread: float = 0.11
    noisy_fraction: float = 0.010
    very_noisy_fraction: float = 0.0006
    warm_fraction: float = 2e-5
    warm_excess: float = 60.0
    hot_fraction: float = 2e-6
    hot_level: float = 5200.0


@dataclass(frozen=True)
class Detector:
    """A drift volume read by one camera; defaults are those of LIME (He/CF4 60/40, 1 atm, 440 V a GEM).

    Attributes
    ----------
    height, width : int
        Rows and columns of the sensor.
    pixel_mm : float
        Side of a pixel on the readout plane, in mm.
    gap_cm : float
        Drift length between GEM (z = 0) and cathode, in cm.
    pair_kev : float
        Mean energy for one ion pair, in keV.
    attenuation_cm : float
        Drift length after which 1/e of the electrons are left, in cm.
    avalanche_mm : float
        Transverse spread of the light of one electron at the GEMs, in mm.
    diffusion_mm2_per_cm : float
        Growth of the transverse variance with the drift, in mm2 / cm.
    yield_adu_per_kev : float
        Light in ADU a keV released in the middle of the gap, seen through the centre of the lens.
    adu_per_photon : float
        ADU of one detected photon.
    saturation_adu : float
        Light in one pixel at which the GEMs give half of what they should, in ADU.
    noise : Noise
        The camera in the dark.

    Notes
    -----
    The numbers are those of the public digitisation of the experiment (CYGNUS-RD/digitization); the light yield follows
    from 850 ADU for 0.5 keV in its reconstruction's settings.
    """

    height: int = 2304
    width: int = 2304
    pixel_mm: float = LIME_PIXEL_MM
    gap_cm: float = 50.0
    pair_kev: float = 0.0462
    attenuation_cm: float = 140.0
    avalanche_mm: float = 0.35
    diffusion_mm2_per_cm: float = 0.01232
    yield_adu_per_kev: float = 1700.0
    adu_per_photon: float = 2.0
    saturation_adu: float = 1500.0
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self) -> None:
        for name in ("height", "width", "pixel_mm", "gap_cm", "pair_kev", "attenuation_cm", "adu_per_photon"):
            if getattr(self, name) <= 0:
                raise InputError(f"detector: '{name}' = {getattr(self, name)}, expected more than 0")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a frame."""
        return self.height, self.width

    def survival(self, z_cm: float) -> float:
        """Fraction of the electrons that arrive at the GEMs from a height above them, in cm."""
        return float(np.exp(-z_cm / self.attenuation_cm))

    def spread_px(self, z_cm: float) -> float:
        """Transverse standard deviation of the light of a point at a height above the GEMs, in pixels."""
        return float(np.sqrt(self.avalanche_mm**2 + self.diffusion_mm2_per_cm * z_cm) / self.pixel_mm)


class Purpose(IntEnum):
    """What a stream of random numbers is for."""

    CAMERA = 1
    PLAN = 2
    TRACK = 3
    LIGHT = 4
    NOISE = 5


def stream(seed: int, run: int, event: int, purpose: Purpose, item: int = 0) -> np.random.Generator:
    """Random numbers that belong to one purpose in one event, whatever was drawn before.

    Philox is a counter-based generator: a key selects one of 2**128 sequences and the counter a place in it. Seed, run
    and event make the key, purpose and item the upper half of the counter, so streams never overlap and nothing has to
    be drawn in order.

    Parameters
    ----------
    seed : int
        Of the simulation, 0 to 2**64 - 1.
    run, event : int
        0 to 2**32 - 1.
    purpose : Purpose
        What for.
    item : int
        Which of several of the same purpose, as the particle's place in its event.

    Raises
    ------
    InputError
        A number out of range.
    """
    for name, value, bits in (("seed", seed, 64), ("run", run, 32), ("event", event, 32), ("item", item, 64)):
        if not 0 <= value < 2**bits:
            raise InputError(f"simulation: {name} = {value}, expected 0 to 2**{bits} - 1")
    return np.random.Generator(np.random.Philox(key=[seed, run << 32 | event], counter=[0, 0, item, int(purpose)]))
