"""Frames to measure with, made here: dark ones, and ones of three degrees of occupancy.

What a frame costs depends on its points (macro-pixels that survive the filters) more than on anything else, so every
claim about time says for how many. ``few`` has spots and short tracks like most frames underground, ``medium`` two
muons besides, ``crowded`` many of everything: what a detector without shielding sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import generated_response
from cygnoreco.chain import Calibration, calibrate
from cygnoreco.io.midas_writer import MidasWriter
from cygnoreco.recipe import Recipe
from cygnoreco.types import FRAME_DTYPE, Frames
from simulation.detector import Detector
from simulation.plan import demo_plan
from simulation.run import simulate_event
from simulation.tracks import Kind, Particle

#: Muons, and electrons of 120 keV, by occupancy class, besides the spots and electrons that all frames have.
ADDED = {"few": (0, 0), "medium": (2, 0), "crowded": (10, 40)}
CLASSES = tuple(ADDED)

PEDESTAL_RUN, DATA_RUN = 5000, 5001
_SEED = 20
_START = 1_700_000_000


@dataclass(frozen=True)
class Prepared:
    """A recipe with its calibration, ready for blocks of frames.

    Attributes
    ----------
    recipe : Recipe
    calibration : Calibration
    """

    recipe: Recipe
    calibration: Calibration


def frames_of(occupancy: str, n: int) -> Frames:
    """Simulate frames of a class: (n, 2304, 2304) uint16, always the same ones."""
    detector = Detector()
    lens = _lens(detector)
    return np.stack(
        [
            simulate_event(event, detector=detector, seed=_SEED, run=DATA_RUN, event=number, response=lens)[0]
            for number, event in enumerate(plan(occupancy, n))
        ]
    )


def plan(occupancy: str, n: int) -> list[tuple[Particle, ...]]:
    """Particles of the events of a class."""
    detector = Detector()
    quiet = demo_plan(n + 2, seed=_SEED, detector=detector)[1:-1]  # the first has everything, the last nothing
    return [(*event, *_added(*ADDED[occupancy], number, detector)) for number, event in enumerate(quiet)]


def dark_frames(n: int) -> Iterator[Frames]:
    """Simulate a pedestal run frame by frame: (2304, 2304) uint16."""
    detector = Detector()
    for event in range(n):
        yield simulate_event((), detector=detector, seed=_SEED, run=PEDESTAL_RUN, event=event)[0]


@lru_cache(maxsize=1)
def pedestal(n: int = 25) -> Pedestal:
    """Make a pedestal of dark frames."""
    return Pedestal.from_frames((frame[np.newaxis] for frame in dark_frames(n)), run=PEDESTAL_RUN, camera="CAM0")


@lru_cache(maxsize=4)
def prepared(recipe: str = "lime") -> Prepared:
    """Recipe and calibration for the frames made here."""
    loaded = Recipe.load(recipe)
    return Prepared(loaded, calibrate(pedestal(), generated_response(Detector().shape), loaded, "midas"))


def rows_of(n: int) -> NDArray[np.void]:
    """Rows of the frame table for frames that come from no file."""
    rows = np.zeros(n, FRAME_DTYPE)
    rows["event"] = rows["serial"] = np.arange(n)
    return rows


def write_run(path: Path, frames: Iterable[Frames], *, run: int = DATA_RUN, level: int | None = None) -> Path:
    """Write frames as the DAQ does; the suffix of the name chooses the compression."""
    camera = {"Configurations": {"Pedestal": run == PEDESTAL_RUN}}
    with MidasWriter(path, run=run, odb=camera, timestamp=_START, level=level) as writer:
        for index, frame in enumerate(frames):
            writer.event(1, {"CAM0": frame}, timestamp=_START + index)
    return path


def _added(muons: int, electrons: int, event: int, detector: Detector) -> Iterator[Particle]:
    rng = np.random.default_rng([_SEED, event])
    for index in range(muons + electrons):
        row, col = rng.uniform(0.2, 0.85) * detector.height, rng.uniform(0.05, 0.95) * detector.width
        angle, z_cm = rng.uniform(0, np.pi), rng.uniform(0.1, 0.9) * detector.gap_cm
        kind: Kind = "muon" if index < muons else "electron"
        yield Particle(kind, row, col, z_cm, 120.0, (np.sin(angle), np.cos(angle), 0.1))


@lru_cache(maxsize=1)
def _lens(detector: Detector) -> NDArray[np.float32]:
    return (1 / generated_response(detector.shape).factor).astype(np.float32)
