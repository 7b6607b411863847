"""Particles and the ionisation they leave in the gas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from cygnoreco.errors import InputError, nearest
from simulation.detector import Detector

Kind = Literal["fe55", "electron", "alpha", "muon", "nuclear"]
Vector = tuple[float, float, float]

FE55_KEV = 5.9

GAS_DENSITY_G_CM3 = 1.5e-3
RADIATION_LENGTH_G_CM2 = 36.0
ELECTRON_MASS_KEV = 511.0
MUON_KEV_PER_CM = 2.3

#: Radius (one standard deviation) of what is shorter than the diffusion: the photo-electron of 55Fe, a nuclear recoil.
BLOB_MM = {"fe55": 0.25, "nuclear": 0.15}


@dataclass(frozen=True)
class Particle:
    """What happens in an event, and where.

    Attributes
    ----------
    kind : {'fe55', 'electron', 'alpha', 'muon', 'nuclear'}
        ``nuclear`` is a recoil, short against the diffusion.
    row, col : float
        Start in pixels (any point of its line for a muon); pixel centres are integers.
    z_cm : float
        Height above the GEMs, in cm.
    energy_kev : float
        Ionisation energy in keV (of a recoil: after quenching). A muon has none: it loses 2.3 keV/cm on average.
    direction : (float, float, float)
        Along rows, columns and drift; need not be of unit length. Without meaning for ``fe55`` and ``nuclear``.
    """

    kind: Kind
    row: float
    col: float
    z_cm: float
    energy_kev: float = FE55_KEV
    direction: Vector = (0.0, 1.0, 0.0)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"unknown particle '{self.kind}'" + nearest(self.kind, get_args(Kind)))
        if self.energy_kev <= 0 or not any(self.direction):
            raise InputError(
                f"{self.kind}: energy {self.energy_kev} keV and direction {self.direction}, expected not zero"
            )


class Ionisation(NamedTuple):
    """Energy left in the gas, point by point.

    Attributes
    ----------
    row, col : ndarray of float, shape (n,)
        Pixels; outside the sensor as well, since light spreads.
    z_cm : ndarray of float, shape (n,)
        Height above the GEMs, 0 to the length of the gap.
    energy_kev : ndarray of float, shape (n,)
        Energy deposited there, in keV.
    """

    row: NDArray[np.float64]
    col: NDArray[np.float64]
    z_cm: NDArray[np.float64]
    energy_kev: NDArray[np.float64]


def ionise(rng: np.random.Generator, particle: Particle, detector: Detector) -> Ionisation:
    """Follow a particle through the gas.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers of this track.
    particle : Particle
        What, where and how.
    detector : Detector
        Pixel size and drift gap; what is left beyond GEM or cathode is not seen.

    Returns
    -------
    Ionisation
        Points inside the drift gap; none for a track that never enters it.
    """
    if particle.kind == "electron":
        offsets, energy = _electron(rng, particle)
    elif particle.kind == "alpha":
        offsets, energy = _alpha(particle)
    elif particle.kind == "muon":
        offsets, energy = _muon(rng, particle, detector)
    else:
        count = max(3, int(4 * particle.energy_kev))
        offsets = BLOB_MM[particle.kind] * rng.standard_normal((count, 3))
        energy = np.full(count, particle.energy_kev / count)
    row, col = (start + offsets[:, axis] / detector.pixel_mm for axis, start in enumerate((particle.row, particle.col)))
    z_cm = particle.z_cm + offsets[:, 2] / 10
    inside = (z_cm >= 0) & (z_cm <= detector.gap_cm)
    return Ionisation(row[inside], col[inside], z_cm[inside], energy[inside])


def electron_range_mm(energy_kev: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of the path of an electron in He/CF4 at 1 atm, in mm: 95 mm (E / 100 keV)**1.7.

    The power law is the usual one for electrons below 200 keV, scaled to the density of the gas.
    """
    return 95.0 * np.power(np.asarray(energy_kev) / 100.0, 1.7)


def alpha_range_mm(energy_kev: float) -> float:
    """Range of an alpha in He/CF4 at 1 atm, in mm: Geiger's rule R ~ E**1.5, 45 mm at 5.5 MeV."""
    return 45.0 * (energy_kev / 5500.0) ** 1.5


def _unit(direction: Vector) -> NDArray[np.float64]:
    vector = np.asarray(direction, float)
    return vector / np.linalg.norm(vector)


def _electron(rng: np.random.Generator, particle: Particle) -> tuple[NDArray, NDArray]:
    """Random walk of equal steps; the angles grow as the electron slows down (Highland's formula, PDG review)."""
    length = float(electron_range_mm(particle.energy_kev))
    steps = int(np.clip(length / 0.25, 8, 20_000))
    step = length / steps
    left = 100.0 * (np.linspace(length, 0.0, steps + 1) / 95.0) ** (1 / 1.7)  # inverse of the range: energy still there
    energy = -np.diff(left) * np.maximum(rng.gamma(4.0, 0.25, steps), 0.2)  # straggling
    energy *= particle.energy_kev / energy.sum()

    kinetic = left[:-1]
    beta_cp_mev = kinetic * (kinetic + 2 * ELECTRON_MASS_KEV) / (kinetic + ELECTRON_MASS_KEV) / 1000
    depth = step / 10 * GAS_DENSITY_G_CM3 / RADIATION_LENGTH_G_CM2
    angles = np.minimum(13.6 / beta_cp_mev * np.sqrt(depth), 0.8)
    kicks = (rng.standard_normal((steps, 3)) * angles[:, None]).tolist()
    x, y, z = _unit(particle.direction).tolist()
    directions = []
    for a, b, c in kicks:  # plain floats: NumPy's overhead on three numbers is ten times the arithmetic
        directions.append((x, y, z))
        x, y, z = x + b * z - c * y, y + c * x - a * z, z + a * y - b * x
        norm = (x * x + y * y + z * z) ** 0.5
        x, y, z = x / norm, y / norm, z / norm
    moves = step * np.array(directions)
    return np.cumsum(moves, axis=0) - moves / 2, energy


def _alpha(particle: Particle) -> tuple[NDArray, NDArray]:
    """Straight line; Geiger's rule gives the energy left at a residual range, hence the rise towards the end."""
    length = alpha_range_mm(particle.energy_kev)
    steps = max(10, int(length / 0.1))
    residual = np.linspace(1.0, 0.0, steps + 1)
    energy = -particle.energy_kev * np.diff(residual ** (2 / 3))
    middle = length * (1.0 - (residual[1:] + residual[:-1]) / 2)
    return middle[:, None] * _unit(particle.direction), energy


def _muon(rng: np.random.Generator, particle: Particle, detector: Detector) -> tuple[NDArray, NDArray]:
    """Minimum-ionising straight line from wall to wall, with straggling and now and then a short delta ray."""
    direction = _unit(particle.direction)
    side = np.array([detector.height * detector.pixel_mm, detector.width * detector.pixel_mm, 10 * detector.gap_cm])
    start = np.array([particle.row * detector.pixel_mm, particle.col * detector.pixel_mm, 10 * particle.z_cm])
    margin = np.array([5.0, 5.0, 0.0])  # mm: light from just outside the picture reaches into it
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.sort(np.stack([(-margin - start) / direction, (side + margin - start) / direction]), axis=0)
    enters, leaves = np.nanmax(walls[0]), np.nanmin(walls[1])
    step = 0.3
    path = np.arange(enters, leaves, step) + step / 2 if leaves > enters else np.empty(0)
    energy = MUON_KEV_PER_CM * step / 10 * rng.gamma(0.9, 1 / 0.9, path.size)
    delta_rays = rng.random(path.size) < 0.002
    return path[:, None] * direction, energy + delta_rays * rng.exponential(3.0, path.size)
