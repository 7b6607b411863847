"""From ionisation to the light that falls on the sensor."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cygnoreco.types import FloatArray
from simulation.detector import Detector
from simulation.tracks import Ionisation

STRIP_ROWS = 128


class Light(NamedTuple):
    """Light of one particle on a patch of the sensor.

    Attributes
    ----------
    row, col : int
        Pixel of the sensor at the patch's first corner.
    adu : ndarray of float32, shape (rows, cols)
        Detected light in ADU, whole photons.
    """

    row: int
    col: int
    adu: NDArray[np.float32]


def detect_light(
    rng: np.random.Generator, ionisation: Ionisation, detector: Detector, response: FloatArray | None = None
) -> Light:
    """Drift, multiply, and photograph the electrons of one particle.

    The electrons are made (Poisson), attached on their way, spread by diffusion and multiplied each by a gain of its
    own (exponential, as in the first GEM). The expected light of all of them is then smeared by the avalanche,
    saturated pixel by pixel, dimmed by the lens, and drawn as photons (Poisson). Drawing pixels and not photons is
    what makes an alpha of a million photons cheap.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers of this particle's light.
    ionisation : Ionisation
        Points in the gas.
    detector : Detector
        Gas, gain and optics.
    response : ndarray of float, shape (height, width), optional
        Relative response of the lens, 1 at the centre; flat if not given.

    Returns
    -------
    Light
        Clipped to the sensor; an empty patch when nothing is seen.

    Raises
    ------
    ValueError
        The response is not of the sensor's shape.
    """
    if response is not None and response.shape != detector.shape:
        raise ValueError(f"response of shape {response.shape}, sensor of {detector.shape}")
    rows, cols, adu = _electrons_at_the_gems(rng, ionisation, detector)
    spread = detector.avalanche_mm / detector.pixel_mm
    margin = int(4 * spread + 0.5)  # where gaussian_filter stops
    height, width = detector.shape
    near = (rows >= -margin) & (rows < height + margin) & (cols >= -margin) & (cols < width + margin)
    if not near.any():
        return Light(0, 0, np.zeros((0, 0), np.float32))
    rows, cols, adu = rows[near], cols[near], adu[near]

    top, left = int(rows.min()) - margin, int(cols.min()) - margin
    expected = _smear(rows - top, cols - left, adu, spread, margin)
    inside = slice(max(-top, 0), height - top), slice(max(-left, 0), width - left)
    expected = expected[inside]
    top, left = max(top, 0), max(left, 0)
    lit = np.nonzero(expected)
    level = expected[lit]
    level /= 1 + level / np.float32(detector.saturation_adu)
    if response is not None:
        level *= response[lit[0] + top, lit[1] + left]
    light = np.zeros(expected.shape, np.float32)
    light[lit] = detector.adu_per_photon * rng.poisson(level / detector.adu_per_photon)
    return Light(top, left, light)


def _electrons_at_the_gems(
    rng: np.random.Generator, ionisation: Ionisation, detector: Detector
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.floating[Any]]]:
    """Pixel and light (ADU, before saturation and lens) of every electron that arrives."""
    made = rng.poisson(ionisation.energy_kev / detector.pair_kev)
    arriving = rng.binomial(made, np.exp(-ionisation.z_cm / detector.attenuation_cm))
    row, col, z_cm = (np.repeat(values, arriving) for values in ionisation[:3])
    diffusion = np.sqrt(detector.diffusion_mm2_per_cm * z_cm) / detector.pixel_mm
    row += diffusion * rng.standard_normal(row.size)
    col += diffusion * rng.standard_normal(row.size)
    # The yield is stated for the middle of the gap, after the losses on the way from there.
    mean_gain = detector.yield_adu_per_kev * detector.pair_kev / detector.survival(detector.gap_cm / 2)
    light = rng.exponential(mean_gain, row.size)
    # To the pixel below or above, at random by nearness: the mean place is kept, and the avalanche is far wider.
    row_px, col_px = (np.floor(place + rng.random(place.size)).astype(np.intp) for place in (row, col))
    return row_px, col_px, light


def _smear(
    rows: NDArray[np.intp], cols: NDArray[np.intp], adu: NDArray[np.floating[Any]], spread: float, margin: int
) -> NDArray[np.float32]:
    """Image of the electrons, each a Gaussian, with a margin around; strip by strip.

    A muon from corner to corner would have the whole frame smeared for its sake; a strip reaches only from its first to
    its last electron.
    """
    expected = np.zeros((int(rows.max()) + margin + 1, int(cols.max()) + margin + 1), np.float32)
    for start in np.unique(rows // STRIP_ROWS) * STRIP_ROWS:
        here = (rows >= start) & (rows < start + STRIP_ROWS)
        row, col, weight = rows[here], cols[here], adu[here]
        first_row, first_col = int(row.min()) - margin, int(col.min()) - margin
        shape = int(row.max()) - first_row + margin + 1, int(col.max()) - first_col + margin + 1
        flat = (row - first_row) * shape[1] + (col - first_col)
        strip = np.bincount(flat, weight, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)
        strip = gaussian_filter(strip, spread, mode="constant", truncate=4.0)
        expected[first_row : first_row + shape[0], first_col : first_col + shape[1]] += strip
    return expected
