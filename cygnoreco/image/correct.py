"""From raw counts to the zero-suppressed image, one pixel at a time.

These plain forms are the definition of the stages. The fused form in :mod:`cygnoreco.kernels.image` gives the same
bits, so an order of floating-point additions, where there is one, is part of the definition.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from cygnoreco._xp import namespace
from cygnoreco.errors import InputError
from cygnoreco.stage import stage
from cygnoreco.types import Saturated

Edge = Annotated[int, Ge(0)] | None

#: Counts per unit of charge density of the LEMON prototype: area seen by a pixel (0.015625 mm2) x photons per
#: electron reaching the sensor (0.08 x 1.8e-4) / elementary charge in the units of the density (1.60217662e-7).
LEMON_COUNTS_PER_DENSITY = 0.015625 * 0.08 * 1.8e-4 / 1.60217662e-7


@stage(name="spark", version=1)
def spark_veto(
    frames: NDArray[Any],
    *,
    baseline: Annotated[float, Ge(0)] = 100.0,
    excess: float = 9e6,
    keep_entry: bool = True,
) -> NDArray[np.bool_]:
    """Find frames so bright as a whole that they show a discharge, not tracks.

    Parameters
    ----------
    frames : ndarray, shape (..., H, W), uint16
        Raw counts.
    baseline : float
        Typical pedestal of a pixel, ADU; twice this is allowed for on every pixel.
    excess : float
        Light allowed on top of it, ADU summed over the frame.
    keep_entry : bool
        What becomes of a vetoed frame in the output: an entry without clusters whose ``quality`` has bit 1 set, or
        no entry at all (winter23: false). The chain acts on it.

    Returns
    -------
    ndarray, shape (...), bool
        True for a spark: the sum of the raw counts is above 2 baseline H W + excess.
    """
    xp = namespace(frames)
    raw = xp.sum(frames, axis=(-2, -1), dtype=xp.uint64)
    # A whole number is above the limit if it is above the whole part of it, and integers compare exactly.
    return raw > math.floor(spark_limit(frames.shape[-2:], baseline=baseline, excess=excess))


def spark_limit(shape: tuple[int, ...], *, baseline: float, excess: float) -> float:
    """Largest sum of raw counts, ADU, of a frame of that shape that is not a spark (see :func:`spark_veto`)."""
    height, width = shape
    return 2 * baseline * height * width + excess


@stage(name="upper_cut", version=1)
def upper_cut(
    frames: NDArray[Any], *, cimax: Annotated[int, Ge(1)] = 5000, saturated: Saturated = "keep"
) -> NDArray[Any]:
    """Decide what a saturated pixel counts.

    Parameters
    ----------
    frames : ndarray, shape (..., H, W), uint16
        Raw counts.
    cimax : int
        A pixel with at least this many raw counts, ADU, is saturated.
    saturated : {'keep', 'zero'}
        ``keep`` takes it as it is. ``zero`` (winter23) sets it to 0 counts before the pedestal is subtracted, which
        turns the brightest pixels of a track into negative ones.

    Returns
    -------
    ndarray, shape (..., H, W), uint16
    """
    if saturated == "keep":
        return frames
    xp = namespace(frames)
    return xp.where(frames >= cimax, xp.zeros_like(frames), frames)


@stage(name="subtract", version=1)
def subtract(frames: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract the pedestal: counts above the dark level, ADU, float64 (..., H, W)."""
    return namespace(frames).asarray(frames, dtype=mean.dtype) - mean


@stage(name="saturation", version=1)
def correct_saturation(
    sub: NDArray[np.float64],
    *,
    enabled: bool = False,
    quadratic: Annotated[float, Ge(0)] = 0.1855,
    onset: Annotated[float, Ge(0)] = 2.5,
    counts_per_density: Annotated[float, Gt(0)] = LEMON_COUNTS_PER_DENSITY,
) -> NDArray[np.float64]:
    """Undo the loss of gain where the charge is dense, pixel by pixel.

    The response measured with the LEMON prototype: up to the density ``onset`` the light is proportional to the
    charge, above it the charge grows with the square of the light. The two pieces and their slopes join.

    Parameters
    ----------
    sub : ndarray, shape (..., H, W), float64
        Counts above the pedestal, ADU.
    enabled : bool
        Correct at all; the constants are those of another detector, so no recipe does by default.
    quadratic : float
        Strength of the quadratic term, per unit of charge density.
    onset : float
        Charge density where the loss begins.
    counts_per_density : float
        ADU per unit of charge density.

    Returns
    -------
    ndarray, shape (..., H, W), float64
        Corrected counts; the input itself when not enabled.
    """
    if not enabled:
        return sub
    a, b, c, start = saturation_polynomial(quadratic, onset, counts_per_density)
    return namespace(sub).where(sub > start, a * sub * sub + b * sub + c, sub)


def saturation_polynomial(
    quadratic: float = 0.1855, onset: float = 2.5, counts_per_density: float = LEMON_COUNTS_PER_DENSITY
) -> tuple[float, float, float, float]:
    """Coefficients of a v^2 + b v + c, the corrected counts of a pixel of v counts, and the v where it begins."""
    return (
        quadratic / counts_per_density,
        1 - 2 * quadratic * onset,
        quadratic * onset * onset * counts_per_density,
        onset * counts_per_density,
    )


@stage(name="suppress", version=1)
def suppress(
    sub: NDArray[np.float64], rms: NDArray[np.float64], *, nsigma: Annotated[float, Ge(0)] = 0.6
) -> NDArray[np.float64]:
    """Set to zero what does not stand out of the pixel's own noise.

    Parameters
    ----------
    sub : ndarray, shape (..., H, W), float64
        Counts above the pedestal, ADU.
    rms : ndarray, shape (H, W), float64
        Noise of each pixel in the dark, ADU.
    nsigma : float
        A pixel survives if it is above (not at) this many times its noise. The MANGO and simulation recipes raise
        it to 1.8 and 0.9.

    Returns
    -------
    ndarray, shape (..., H, W), float64
    """
    xp = namespace(sub)
    return xp.where(sub > nsigma * rms, sub, xp.zeros_like(sub))


@stage(name="accept", version=1)
def accept(
    zs: NDArray[np.float64], *, xmin: Edge = 0, xmax: Edge = None, ymin: Edge = 304, ymax: Edge = 2054
) -> NDArray[np.float64]:
    """Set to zero what lies outside the part of the image that is looked at.

    Here x is the column and y the row of the oriented image (axes 1 and 0), also in the recipe whose tables have
    them the other way round. Limits beyond the image do nothing.

    Parameters
    ----------
    zs : ndarray, shape (..., H, W), float64
        Zero-suppressed image.
    xmin : int, optional
        First column inside, px.
    xmax : int, optional
        First column outside, px; ``None`` means the edge of the image, here and for the others.
    ymin : int, optional
        First row inside, px. The rows at the top and the bottom of the LIME sensor are noisy.
    ymax : int, optional
        First row outside, px.

    Returns
    -------
    ndarray, shape (..., H, W), float64
    """
    inside = namespace(zs).zeros_like(zs)
    window = (..., slice(ymin, ymax), slice(xmin, xmax))
    inside[window] = zs[window]
    return inside


def totals(zs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum every image, and the squares of its pixels.

    The additions run along the rows by four pixels, then down the columns of fours, then along what is left.

    Parameters
    ----------
    zs : ndarray, shape (..., H, W), float64
        Zero-suppressed image inside the acceptance; W is a multiple of 4.

    Returns
    -------
    integral, squares : ndarray, shape (...), float64
        ADU and ADU^2.

    Raises
    ------
    InputError
        W is not a multiple of 4.
    """
    return _ordered_sum(zs), _ordered_sum(zs * zs)


def mean_and_rms(
    integral: NDArray[np.float64], squares: NDArray[np.float64], pixels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation, ADU, of an image of so many pixels from its :func:`totals`."""
    mean = integral / pixels
    return mean, np.sqrt(np.maximum(squares / pixels - mean * mean, 0.0))


def _ordered_sum(image: NDArray[np.float64]) -> NDArray[np.float64]:
    width = image.shape[-1]
    if width % 4:
        raise InputError(f"an image of {width} columns cannot be summed by fours: its width must be a multiple of 4")
    fours = image[..., 0::4] + image[..., 1::4] + image[..., 2::4] + image[..., 3::4]
    # One after the other, since no library promises the order of its sums.
    columns = fours[..., 0, :]
    for y in range(1, fours.shape[-2]):
        columns = columns + fours[..., y, :]
    total = columns[..., 0]
    for x in range(1, columns.shape[-1]):
        total = total + columns[..., x]
    return total
