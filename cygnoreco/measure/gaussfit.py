"""Least-squares fit of a Gaussian to a profile, the way ROOT fits its predefined Gaussian.

The chi square of ``amplitude * exp(-(x - mean)**2 / (2 sigma**2))`` is taken at the bin centres, over the bins with a
non-zero error. Start values and limits are ROOT's (``InitGaus``): it sets its own limits on sigma, whatever the caller
asked for, while the caller's limits on the mean hold.

The minimum is found by Levenberg-Marquardt steps inside the box of the limits. The result is the same number on every
call, and never NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: The fit converged and the data determine every parameter.
CONVERGED = 3
#: It converged, but some combination of the parameters is left open (fewer points than parameters, or a flat valley).
UNDETERMINED = 2
#: The limit on the number of steps came first.
UNFINISHED = 1
#: The profile sums to zero: nothing was fitted.
NOT_FITTED = -1

#: chi square of a profile that was not fitted.
NO_CHI_SQUARE = 999.0

#: sqrt(2 pi) as ROOT writes it: an amplitude times this times sigma is the area of a Gaussian.
_AREA = 2.506628
#: A parameter counts as determined while its pivot is above this fraction of the diagonal element.
_PIVOT = 1e-12
#: Expected decrease of the chi square, relative to 1 + chi square, below which there is nothing left to gain.
_NEGLIGIBLE = 1e-9
#: Sigma stays above this fraction of its start value: the function is not defined at 0.
_SMALLEST_SIGMA = 1e-4


@njit(nogil=True, cache=True)
def fit_profile(
    centres: NDArray[np.float64],
    contents: NDArray[np.float64],
    errors: NDArray[np.float64],
    mean: float,
    rms: float,
    mean_range: float,
    sigma_limit: float,
    max_steps: int,
) -> tuple[float, float, float, float, int]:
    """Fit a Gaussian to a binned profile.

    Parameters
    ----------
    centres, contents, errors : ndarray, shape (n,), float64
        Bin centres (px), contents and their errors (ADU). Bins whose error is 0 are left out.
    mean, rms : float
        Mean and RMS of the profile, px.
    mean_range : float
        The fitted mean is kept within ``mean`` plus or minus this many ``rms``.
    sigma_limit : float
        The fitted sigma is kept below this many times its start value.
    max_steps : int
        Largest number of steps.

    Returns
    -------
    amplitude, mean, sigma, chi_square : float
        0, 0, 0, 999 for a profile that sums to 0.
    status : int
        ``CONVERGED``, ``UNDETERMINED``, ``UNFINISHED`` or ``NOT_FITTED``.
    """
    used = errors > 0.0
    if contents.sum() == 0.0 or not used.any():
        return 0.0, 0.0, 0.0, NO_CHI_SQUARE, NOT_FITTED
    x, y, weights = centres[used], contents[used], 1.0 / errors[used]

    low = np.array([-np.inf, mean - mean_range * rms, 0.0])
    high = np.array([np.inf, mean + mean_range * rms, np.inf])
    start = _start_values(x, y)
    if y.sum() > 0.0:
        high[2] = sigma_limit * start[2]
    else:  # a negative sum has no moments: ROOT then starts from a flat line and keeps limits of its caller
        start[:] = 0.0, mean, max(rms, 1.0)
        low[2], high[2] = 0.5 * start[2], 1.5 * start[2]
    if low[1] >= high[1]:  # an empty range: the mean is fixed where it starts
        low[1] = high[1] = start[1]
    elif not low[1] <= start[1] <= high[1]:
        start[1] = 0.5 * (low[1] + high[1])
    low[2] = max(low[2], _SMALLEST_SIGMA * start[2])

    found, chi_square, status = minimise(x, y, weights, start, low, high, max_steps)
    return found[0], found[1], found[2], chi_square, status


@njit(nogil=True, cache=True)
def _start_values(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Amplitude, mean and sigma from the moments of the points, as in ROOT's ``InitGaus``."""
    total = y.sum()
    if total <= 0.0:
        return np.zeros(3)
    mean = (y * x).sum() / total
    variance = (y * x * x).sum() / total - mean * mean
    spacing = np.diff(x).min() if len(x) > 1 else 1.0
    sigma = np.sqrt(variance) if variance > 0.0 else spacing * len(x) / 4
    # Half way between the highest point (right with tails) and the height by area (right without).
    amplitude = 0.5 * (max(y.max(), 0.0) + spacing * total / (_AREA * sigma))
    return np.array([amplitude, mean, sigma])


@njit(nogil=True, cache=True)
def minimise(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64],
    start: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    max_steps: int,
) -> tuple[NDArray[np.float64], float, int]:
    """Minimise the chi square of a Gaussian inside a box by Levenberg-Marquardt steps.

    A parameter at its limit whose descent leads outside is held for that step, so that the others are solved for as if
    it were a constant; a step that would cross a limit ends on it.

    Parameters
    ----------
    x, y, weights : ndarray, shape (n,), float64
        Points and inverse errors.
    start, low, high : ndarray, shape (3,), float64
        Start values (inside the limits) and limits of amplitude, mean and sigma.
    max_steps : int
        Largest number of steps.

    Returns
    -------
    parameters : ndarray, shape (3,)
        At the minimum.
    chi_square : float
        Its value.
    status : int
        ``CONVERGED``, ``UNDETERMINED`` or ``UNFINISHED``.

    References
    ----------
    D. W. Marquardt, J. SIAM 11 (1963) 431.
    """
    parameters = (start[0], start[1], start[2])
    # Distances in sigmas and the bell at every point, from the last chi square: the next step needs them again.
    t, bell = np.empty(len(x)), np.empty(len(x))
    chi_square = _chi_square(x, y, weights, parameters, t, bell)
    # Begin with short steps: a full one can leap out of the valley of the start values, into a worse one.
    damping = 3.0
    status = UNFINISHED
    for _ in range(max_steps):
        curvature, descent = _normal_equations(y, weights, parameters, t, bell)
        held = (
            _held(parameters[0], descent[0], low[0], high[0]),
            _held(parameters[1], descent[1], low[1], high[1]),
            _held(parameters[2], descent[2], low[2], high[2]),
        )
        newton, determined = _solve(curvature, descent, held, 0.0)
        gain = newton[0] * descent[0] + newton[1] * descent[1] + newton[2] * descent[2]
        if gain <= _NEGLIGIBLE * (1.0 + chi_square):
            status = CONVERGED if determined else UNDETERMINED
            break
        while True:
            step, _ = _solve(curvature, descent, held, damping)
            trial = (
                np.minimum(np.maximum(parameters[0] + step[0], low[0]), high[0]),
                np.minimum(np.maximum(parameters[1] + step[1], low[1]), high[1]),
                np.minimum(np.maximum(parameters[2] + step[2], low[2]), high[2]),
            )
            trial_chi_square = _chi_square(x, y, weights, trial, t, bell)
            if trial_chi_square < chi_square:
                break
            damping *= 10.0
            if damping > 1e16:  # not even the smallest step gains anything: the descent is nothing but rounding
                return np.array(parameters), chi_square, CONVERGED if determined else UNDETERMINED
        parameters, chi_square = trial, trial_chi_square
        damping = max(0.1 * damping, 1e-12)
    return np.array(parameters), chi_square, status


@njit(nogil=True, cache=True)
def _chi_square(x: Any, y: Any, weights: Any, parameters: Any, t: Any, bell: Any) -> float:
    """Chi square; fills the distances ``t`` from the mean, in sigmas, and the ``bell`` of height 1 there."""
    amplitude, mean, sigma = parameters
    total = 0.0
    for i in range(len(x)):
        t[i] = (x[i] - mean) / sigma
        bell[i] = np.exp(-0.5 * t[i] * t[i])
        residual = (y[i] - amplitude * bell[i]) * weights[i]
        total += residual * residual
    return total


@njit(nogil=True, cache=True)
def _normal_equations(y: Any, weights: Any, parameters: Any, t: Any, bell: Any) -> tuple[Any, Any]:
    """Half the second derivatives of the chi square (residuals taken as linear), and minus half the first.

    The second derivatives are the lower triangle, row by row.
    """
    amplitude, _, sigma = parameters
    c00 = c10 = c11 = c20 = c21 = c22 = d0 = d1 = d2 = 0.0
    for i in range(len(y)):
        shape = bell[i] * weights[i]
        slope = amplitude * shape * t[i] / sigma
        spread = slope * t[i]
        residual = y[i] * weights[i] - amplitude * shape
        d0 += shape * residual
        d1 += slope * residual
        d2 += spread * residual
        c00 += shape * shape
        c10 += slope * shape
        c11 += slope * slope
        c20 += spread * shape
        c21 += spread * slope
        c22 += spread * spread
    return (c00, c10, c11, c20, c21, c22), (d0, d1, d2)


@njit(nogil=True, cache=True)
def _held(parameter: float, descent: float, low: float, high: float) -> bool:
    """Whether a parameter is at a limit that its descent would cross."""
    return (parameter <= low and descent <= 0.0) or (parameter >= high and descent >= 0.0)


@njit(nogil=True, cache=True)
def _solve(curvature: Any, descent: Any, held: Any, damping: float) -> tuple[Any, bool]:
    """Solve the damped normal equations by Cholesky decomposition, written out for three parameters.

    Parameters
    ----------
    curvature : tuple of 6 float
        Lower triangle of a positive semi-definite matrix, row by row.
    descent : tuple of 3 float
        Right-hand side.
    held : tuple of 3 bool
        Parameters that do not move.
    damping : float
        The diagonal is multiplied by 1 + damping.

    Returns
    -------
    step : tuple of 3 float
        0 for parameters that are held or that the data do not determine.
    determined : bool
        Every parameter that is not held has a finite step.
    """
    c00, c10, c11, c20, c21, c22 = curvature
    free0, free1, free2 = not held[0], not held[1], not held[2]
    determined = True
    # A parameter that does not move has a row of zeros, and so adds nothing to those after it.
    r00 = r10 = r11 = r20 = r21 = r22 = step0 = step1 = step2 = 0.0
    if free0:
        free0, r00 = _root(c00 * (1.0 + damping), 0.0)
        determined &= free0
        if free0:
            r10 = c10 / r00 if free1 else 0.0
            r20 = c20 / r00 if free2 else 0.0
            step0 = descent[0] / r00
    if free1:
        free1, r11 = _root(c11 * (1.0 + damping), r10 * r10)
        determined &= free1
        if free1:
            r21 = (c21 - r20 * r10) / r11 if free2 else 0.0
            step1 = (descent[1] - r10 * step0) / r11
        else:
            r10 = 0.0
    if free2:
        free2, r22 = _root(c22 * (1.0 + damping), r20 * r20 + r21 * r21)
        determined &= free2
        if free2:
            step2 = (descent[2] - (r20 * step0 + r21 * step1)) / r22
        else:
            r20 = r21 = 0.0
    if free2:
        step2 = step2 / r22
    if free1:
        step1 = (step1 - r21 * step2) / r11
    if free0:
        step0 = (step0 - (r10 * step1 + r20 * step2)) / r00
    return (step0, step1, step2), determined


@njit(nogil=True, cache=True)
def _root(diagonal: float, known: float) -> tuple[bool, float]:
    """Pivot of the decomposition, and whether the data determine its parameter."""
    pivot = diagonal - known
    return (True, np.sqrt(pivot)) if pivot > _PIVOT * diagonal else (False, 0.0)
