"""Simulated runs: events from particles, written as the DAQ would, with the truth beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cygnoreco.calib.response import generated_response
from cygnoreco.io.atomic import atomic_write
from cygnoreco.io.midas_writer import MidasWriter
from cygnoreco.types import FloatArray, Frames
from simulation.camera import expose, noise_maps
from simulation.detector import Detector, Purpose, stream
from simulation.light import Light, detect_light
from simulation.plan import Event
from simulation.tracks import Ionisation, Particle, ionise

#: Beginning of a simulated run, UNIX seconds: fixed, so that the same call writes the same bytes.
START_TIME = 1_700_000_000

SECONDS_BETWEEN_EVENTS = 1
EXPOSURE_S = 0.3

TRIGGER_ID, HV_ID, ENVIRONMENT_ID, CAMERA_STATUS_ID, TRIGGER_MODULE_ID = 1, 3, 5, 7, 8


@dataclass(frozen=True)
class Truth:
    """What one particle really left in a frame.

    Attributes
    ----------
    particle : Particle
        As it was asked for.
    deposited_kev : float
        Energy left inside the drift gap, in keV.
    z_cm : float or None
        Mean height of that energy above the GEMs, in cm.
    light_adu : float
        Light on the sensor, in ADU, as dimmed by the lens.
    row, col : float or None
        Barycentre of the light, in pixels.
    bbox : (int, int, int, int) or None
        First and last row, first and last column with light; None if there is none.
    """

    particle: Particle
    deposited_kev: float
    z_cm: float | None
    light_adu: float
    row: float | None
    col: float | None
    bbox: tuple[int, int, int, int] | None


def simulate_event(
    particles: Event, *, detector: Detector, seed: int, run: int, event: int, response: FloatArray | None = None
) -> tuple[Frames, tuple[Truth, ...]]:
    """Simulate one frame.

    Parameters
    ----------
    particles : sequence of Particle
        What happens; empty for a frame in the dark.
    detector : Detector
        What sees it.
    seed, run, event : int
        Name the random numbers: an event is the same whichever others are simulated.
    response : ndarray of float, shape (height, width), optional
        Relative response of the lens; flat if not given.

    Returns
    -------
    frame : ndarray of uint16, shape (height, width)
        Raw image in the orientation of the sensor.
    truth : tuple of Truth
        One a particle, in their order.
    """
    patches, truths = [], []
    for item, particle in enumerate(particles):
        ionisation = ionise(stream(seed, run, event, Purpose.TRACK, item), particle, detector)
        light = detect_light(stream(seed, run, event, Purpose.LIGHT, item), ionisation, detector, response)
        patches.append(light)
        truths.append(_truth(particle, ionisation, light))
    frame = expose(stream(seed, run, event, Purpose.NOISE), patches, noise_maps(detector))
    return frame, tuple(truths)


def write_run(
    path: str | Path,
    *,
    run: int,
    events: Iterable[Event],
    detector: Detector | None = None,
    seed: int = 1,
    response: FloatArray | None = None,
    pedestal: bool = False,
) -> Path:
    """Write a raw run as the DAQ does, and what is true about it as JSON beside it.

    Parameters
    ----------
    path : str or Path
        ``run05001.mid.gz`` or any other suffix that the MIDAS writer knows.
    run : int
        Run number.
    events : iterable of sequences of Particle
        One a trigger, as from :func:`simulation.plan.demo_plan`.
    detector : Detector, optional
        LIME if not given.
    seed : int
        Of the random numbers; run and event number are mixed in.
    response : ndarray of float, shape (height, width), optional
        Relative response of the lens; if not given that of ``--vignetting generated:lime``.
    pedestal : bool
        Mark it as a pedestal run in the ODB.

    Returns
    -------
    Path
        ``<name of the run>.truth.json``, see :func:`read_truth`.

    Raises
    ------
    InputError
        A suffix that is no MIDAS file's, a number out of range.
    """
    path, detector = Path(path), detector or Detector()
    if response is None:
        response = (1 / generated_response(detector.shape).factor).astype(np.float32)
    truths = []
    with MidasWriter(path, run=run, odb=_odb(run, detector, pedestal), timestamp=START_TIME, flags=0x31) as writer:
        for event, particles in enumerate(events):
            frame, truth = simulate_event(
                particles, detector=detector, seed=seed, run=run, event=event, response=response
            )
            seconds = event * SECONDS_BETWEEN_EVENTS
            for event_id, banks in _slow_control(seconds, pedestal):
                writer.event(event_id, banks, timestamp=START_TIME + seconds)
            writer.event(TRIGGER_ID, {"CAM0": frame}, timestamp=START_TIME + seconds)
            truths.append([asdict(particle) for particle in truth])
    content = {"run": run, "seed": seed, "detector": asdict(detector), "events": truths}
    truth_path = truth_file(path)
    with atomic_write(truth_path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return truth_path


def pedestal_run(
    path: str | Path, *, run: int, frames: int = 100, detector: Detector | None = None, seed: int = 1
) -> Path:
    """Write a run in the dark; parameters as in :func:`write_run`, ``frames`` is the number of its events."""
    return write_run(path, run=run, events=[()] * frames, detector=detector, seed=seed, pedestal=True)


def truth_file(path: str | Path) -> Path:
    """Name of the truth beside a run: ``run05001.mid.gz`` has ``run05001.truth.json``."""
    path = Path(path)
    return path.with_name(path.name.partition(".")[0] + ".truth.json")


def read_truth(path: str | Path) -> dict[str, Any]:
    """Read the truth of a simulated run.

    Parameters
    ----------
    path : str or Path
        The run, or its truth file.

    Returns
    -------
    dict
        ``run``, ``seed``, ``detector`` (as :class:`Detector`), and ``events``: a list of particles (as :class:`Truth`)
        an event.
    """
    content: dict[str, Any] = json.loads(truth_file(path).read_text())
    return content


def _truth(particle: Particle, ionisation: Ionisation, light: Light) -> Truth:
    deposited = float(ionisation.energy_kev.sum())
    z_cm = float(np.average(ionisation.z_cm, weights=ionisation.energy_kev)) if deposited else None
    total = float(light.adu.sum(dtype=np.float64))
    if not total:
        return Truth(particle, deposited, z_cm, 0.0, None, None, None)
    by_row, by_col = light.adu.sum(axis=1, dtype=np.float64), light.adu.sum(axis=0, dtype=np.float64)
    rows, cols = np.flatnonzero(by_row), np.flatnonzero(by_col)
    return Truth(
        particle,
        deposited,
        z_cm,
        total,
        row=light.row + float(np.arange(by_row.size) @ by_row) / total,
        col=light.col + float(np.arange(by_col.size) @ by_col) / total,
        bbox=(
            light.row + int(rows[0]),
            light.row + int(rows[-1]),
            light.col + int(cols[0]),
            light.col + int(cols[-1]),
        ),
    )


def _odb(run: int, detector: Detector, pedestal: bool) -> dict[str, Any]:
    """Make the settings of the DAQ at the begin of the run: the keys that a reconstruction reads."""
    voltage = 0.0 if pedestal else 440.0
    return {
        "Runinfo": {
            "Run number": run,
            "Start time": datetime.fromtimestamp(START_TIME, UTC).strftime("%a %b %d %H:%M:%S %Y"),
            "Start time binary": START_TIME,
        },
        "Configurations": {
            "Exposure": EXPOSURE_S,
            "Pedestal": pedestal,
            "FreeRunning": True,
            "DRS4Correction": True,
            "DigitizerOffset": [0.0] * 32,
            "Cameras": {"CAM0": {"Width": detector.width, "Height": detector.height}},
        },
        "Equipment": {
            "Environment": {"Settings": {"Names Input": [f"Input {channel}" for channel in range(24)]}},
            "HV": {"Variables": {"Demand": [voltage] * 3, "Measured": [voltage] * 3}},
        },
    }


def _slow_control(seconds: int, pedestal: bool) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
    """Slow events due at a time: camera and trigger module every 10 s, high voltage and environment every minute."""
    if seconds % 10 == 0:
        yield CAMERA_STATUS_ID, {"TCAM": np.array([-5.0])}
        yield TRIGGER_MODULE_ID, {"TMOD": np.zeros(5, np.float32)}
    if seconds % 60 == 0:
        volts = np.full(26, 0.0 if pedestal else 440.0, np.float32)
        status = np.zeros(26, np.uint32)
        yield (
            HV_ID,
            {"DMND": volts, "MSRD": volts, "CRNT": np.zeros(26, np.float32), "STAT": status, "TPTR": status},
        )
        yield ENVIRONMENT_ID, {"INPT": np.full(24, 12.0, np.float32)}
