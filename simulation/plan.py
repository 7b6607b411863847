"""What happens in the events of a simulated run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulation.detector import Detector, Purpose, stream
from simulation.tracks import FE55_KEV, Kind, Particle

Event = Sequence[Particle]

#: Where particles are put, as fractions of the sensor: inside the acceptance of the reconstruction.
ROWS, COLS = (0.17, 0.86), (0.05, 0.95)


def demo_plan(n: int = 20, *, seed: int = 1, detector: Detector | None = None) -> list[tuple[Particle, ...]]:
    """Plan a small run with something of everything.

    Every event has one to four 55Fe spots and up to three electrons of 3 to 120 keV. The first has an alpha, a muon
    and a nuclear recoil besides; the last one is dark.

    Parameters
    ----------
    n : int
        Events.
    seed : int
        Of the random numbers; run numbers play no part.
    detector : Detector, optional
        Whose sensor and gap to fill; LIME if not given.

    Returns
    -------
    list of tuples of Particle
        One tuple an event.
    """
    detector = detector or Detector()
    plan = []
    for event in range(n):
        rng = stream(seed, 0, event, Purpose.PLAN)
        particles = [_anywhere(rng, "fe55", FE55_KEV, detector) for _ in range(rng.integers(1, 5))]
        energies = 3.0 * 40.0 ** rng.random(rng.integers(0, 4))
        particles += [_anywhere(rng, "electron", energy, detector) for energy in energies]
        if event == 0:
            particles.append(_anywhere(rng, "alpha", rng.uniform(4500, 6000), detector))
            particles.append(_anywhere(rng, "muon", 1.0, detector))
            particles.append(_anywhere(rng, "nuclear", rng.uniform(10, 40), detector))
        plan.append(() if event == n - 1 > 0 else tuple(particles))
    return plan


def grid_plan(
    n: int, *, energy_kev: tuple[float, float] = (FE55_KEV, FE55_KEV), seed: int = 1, detector: Detector | None = None
) -> list[tuple[Particle, ...]]:
    """Plan a run of well-separated spots, for efficiency, resolution and linearity.

    Every event has 6 rows of 8 spots, each a little off its place and at a height of its own.

    Parameters
    ----------
    n : int
        Events.
    energy_kev : (float, float)
        Range of energies in keV; all logarithms in it are as likely.
    seed, detector
        As in :func:`demo_plan`.

    Returns
    -------
    list of tuples of Particle
        48 particles an event, of the kind ``fe55``.
    """
    detector = detector or Detector()
    low, high = energy_kev
    shift = detector.height / 58  # 40 pixels in LIME, a fifth of the distance to the next
    plan = []
    for event in range(n):
        rng = stream(seed, 0, event, Purpose.PLAN)
        places = [(row, col) for row in np.linspace(0.2, 0.83, 6) for col in np.linspace(0.07, 0.93, 8)]
        plan.append(
            tuple(
                Particle(
                    "fe55",
                    row=float(row * detector.height + rng.uniform(-shift, shift)),
                    col=float(col * detector.width + rng.uniform(-shift, shift)),
                    z_cm=float(rng.uniform(0, detector.gap_cm)),
                    energy_kev=float(low * (high / low) ** rng.random()),
                )
                for row, col in places
            )
        )
    return plan


def _anywhere(rng: np.random.Generator, kind: Kind, energy_kev: float, detector: Detector) -> Particle:
    """Place a particle at random, away from the borders that the acceptance of the reconstruction cuts."""
    x, y, z = rng.standard_normal(3).tolist()
    return Particle(
        kind,
        row=float(rng.uniform(*ROWS) * detector.height),
        col=float(rng.uniform(*COLS) * detector.width),
        z_cm=float(rng.uniform(0.02, 0.98) * detector.gap_cm),
        energy_kev=float(energy_kev),
        direction=(x, y, z),
    )
