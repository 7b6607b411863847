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
    parameters = start.copy()
    chi_square = _chi_square(x, y, weights, parameters)
    # Begin with short steps: a full one can leap out of the valley of the start values, into a worse one.
    damping = 3.0
    for _ in range(max_steps):
        curvature, descent = _normal_equations(x, y, weights, parameters)
        held = ((parameters <= low) & (descent <= 0.0)) | ((parameters >= high) & (descent >= 0.0))
        newton, determined = _solve(curvature, descent, held, 0.0)
        if (newton * descent).sum() <= _NEGLIGIBLE * (1.0 + chi_square):
            return parameters, chi_square, CONVERGED if determined else UNDETERMINED
        while True:
            step, _ = _solve(curvature, descent, held, damping)
            trial = np.minimum(np.maximum(parameters + step, low), high)
            trial_chi_square = _chi_square(x, y, weights, trial)
            if trial_chi_square < chi_square:
                break
            damping *= 10.0
            if damping > 1e16:  # not even the smallest step gains anything: the descent is nothing but rounding
                return parameters, chi_square, CONVERGED if determined else UNDETERMINED
        parameters, chi_square = trial, trial_chi_square
        damping = max(0.1 * damping, 1e-12)
    return parameters, chi_square, UNFINISHED


@njit(nogil=True, cache=True)
def _chi_square(x: Any, y: Any, weights: Any, parameters: Any) -> float:
    amplitude, mean, sigma = parameters
    total = 0.0
    for i in range(len(x)):
        t = (x[i] - mean) / sigma
        residual = (y[i] - amplitude * np.exp(-0.5 * t * t)) * weights[i]
        total += residual * residual
    return total


@njit(nogil=True, cache=True)
def _normal_equations(x: Any, y: Any, weights: Any, parameters: Any) -> tuple[Any, Any]:
    """Return half the second derivatives of the chi square (residuals taken as linear), and minus half the first."""
    amplitude, mean, sigma = parameters
    curvature = np.zeros((3, 3))
    descent = np.zeros(3)
    for i in range(len(x)):
        t = (x[i] - mean) / sigma
        shape = np.exp(-0.5 * t * t) * weights[i]
        slope = amplitude * shape * t / sigma
        gradient = (shape, slope, slope * t)
        residual = y[i] * weights[i] - amplitude * shape
        for j in range(3):
            descent[j] += gradient[j] * residual
            for k in range(j + 1):
                curvature[j, k] += gradient[j] * gradient[k]
    return curvature, descent


@njit(nogil=True, cache=True)
def _solve(curvature: Any, descent: Any, held: Any, damping: float) -> tuple[Any, bool]:
    """Solve the damped normal equations by Cholesky decomposition.

    Parameters
    ----------
    curvature : ndarray, shape (3, 3)
        Lower triangle of a positive semi-definite matrix.
    descent : ndarray, shape (3,)
        Right-hand side.
    held : ndarray of bool, shape (3,)
        Parameters that do not move.
    damping : float
        The diagonal is multiplied by 1 + damping.

    Returns
    -------
    step : ndarray, shape (3,)
        0 for parameters that are held or that the data do not determine.
    determined : bool
        Every parameter that is not held has a finite step.
    """
    free = ~held
    root = np.zeros((3, 3))
    step = np.zeros(3)
    determined = True
    for j in range(3):
        if not free[j]:
            continue
        diagonal = curvature[j, j] * (1.0 + damping)
        pivot = diagonal - (root[j, :j] ** 2).sum()
        if not pivot > _PIVOT * diagonal:
            free[j] = determined = False
            root[j, :] = 0.0
            continue
        root[j, j] = np.sqrt(pivot)
        for i in range(j + 1, 3):
            if free[i]:
                root[i, j] = (curvature[i, j] - (root[i, :j] * root[j, :j]).sum()) / root[j, j]
        step[j] = (descent[j] - (root[j, :j] * step[:j]).sum()) / root[j, j]
    for j in (2, 1, 0):
        if free[j]:
            step[j] = (step[j] - (root[j + 1 :, j] * step[j + 1 :]).sum()) / root[j, j]
    return step, determined
