"""The Gaussian fit: against truth and another minimiser, inside its limits, and on profiles that are no profiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from cygnoreco.measure.gaussfit import (
    CONVERGED,
    NO_CHI_SQUARE,
    NOT_FITTED,
    UNDETERMINED,
    UNFINISHED,
    fit_profile,
)


def gauss(x, amplitude, mean, sigma):
    return amplitude * np.exp(-0.5 * ((x - mean) / sigma) ** 2)


def moments(x, y):
    if y.sum() == 0:
        return 0.0, 0.0
    mean = (x * y).sum() / y.sum()
    return mean, np.sqrt(max((x * x * y).sum() / y.sum() - mean**2, 0.0))


def fit(x, y, errors, *, mean_range=1.0, sigma_limit=10.0, max_steps=200):
    x, y, errors = (np.asarray(each, float) for each in (x, y, errors))
    return fit_profile(x, y, errors, *moments(x, y), mean_range, sigma_limit, max_steps)


def noisy_profile(rng):
    x = np.cumsum(rng.uniform(0.5, 3, rng.integers(8, 40)))
    truth = rng.uniform(50, 5000), rng.uniform(0.3, 0.7) * x[-1], rng.uniform(0.08, 0.25) * x[-1]
    errors = rng.uniform(5, 20, len(x))
    return x, gauss(x, *truth) + rng.normal(0, errors), errors, truth


def test_gaussian_without_noise_is_found_exactly():
    x = np.arange(40) + 0.5
    amplitude, mean, sigma, chi_square, status = fit(x, gauss(x, 1234.0, 17.3, 4.2), np.full(40, 10.0))
    assert (amplitude, mean, sigma) == pytest.approx((1234.0, 17.3, 4.2), rel=1e-6)
    assert chi_square < 1e-6
    assert status == CONVERGED


def test_chi_square_is_as_low_as_another_minimiser_finds():
    rng = np.random.default_rng(1)
    for _ in range(60):
        x, y, errors, truth = noisy_profile(rng)
        *found, chi_square, status = fit(x, y, errors)
        assert status == CONVERGED
        assert (((y - gauss(x, *found)) / errors) ** 2).sum() == pytest.approx(chi_square)
        mean, rms = moments(x, y)
        best = optimize.least_squares(
            lambda p, x, y, errors: (y - gauss(x, *p)) / errors,
            (truth[0], np.clip(truth[1], mean - 0.99 * rms, mean + 0.99 * rms), truth[2]),
            bounds=([-np.inf, mean - rms, 0], [np.inf, mean + rms, np.inf]),
            args=(x, y, errors),
        )
        assert chi_square <= 2 * best.cost * 1.0001


def test_pulls_of_many_fits_are_normal():
    """Mean 0 and width 1 of the distance from the truth, in units of the expected error of an amplitude."""
    rng = np.random.default_rng(2)
    x, truth, error = np.arange(40.0), (1000.0, 20.0, 4.0), 10.0
    errors = np.full(40, error)
    expected = error * np.sqrt(3 / (2 * np.sqrt(np.pi) * truth[2]))
    pulls = [(fit(x, gauss(x, *truth) + rng.normal(0, error, 40), errors)[0] - truth[0]) / expected for _ in range(400)]
    assert abs(np.mean(pulls)) < 0.15
    assert np.std(pulls) == pytest.approx(1.0, abs=0.12)


def test_mean_stays_within_its_limits():
    """A peak on a pedestal: the best mean lies beyond a tenth of the RMS from the profile's mean, and is held there."""
    x = np.arange(60) + 0.5
    y = gauss(x, 1000, 15, 3) + 40
    errors = np.full(60, 5.0)
    mean, rms = moments(x, y)
    free, held = fit(x, y, errors), fit(x, y, errors, mean_range=0.1)
    assert free[1] == pytest.approx(15, abs=0.5)
    assert held[1] == mean - 0.1 * rms
    assert held[3] > free[3]


def test_sigma_stays_below_its_limit():
    """A flat profile wants an infinitely wide Gaussian."""
    x = np.arange(20) + 0.5
    _, _, sigma, _, _ = fit(x, np.full(20, 100.0), np.full(20, 5.0), sigma_limit=3.0)
    assert sigma == pytest.approx(3 * np.sqrt((20**2 - 1) / 12))


def test_bins_without_error_do_not_count():
    x = np.arange(30) + 0.5
    y, errors = gauss(x, 500, 12, 3), np.full(30, 4.0)
    y[20], errors[20] = 1e6, 0.0
    mean, rms = 12.0, 3.0
    assert fit_profile(x, y, errors, mean, rms, 1.0, 10.0, 200)[:3] == pytest.approx((500, 12, 3), rel=1e-6)


def test_nothing_to_fit():
    nothing = (0.0, 0.0, 0.0, NO_CHI_SQUARE, NOT_FITTED)
    assert fit(np.arange(5), np.zeros(5), np.ones(5)) == nothing
    assert fit(np.arange(4), [1, -1, 2, -2], np.ones(4)) == nothing
    assert fit([], [], []) == nothing
    assert fit([1, 2], [3, 3], [0, 0]) == nothing


@pytest.mark.parametrize("contents", [[7.0], [4.0, 9.0]])
def test_fewer_bins_than_parameters(contents):
    """The curve goes through the points, some parameters stay open, and the status says so."""
    x = np.arange(len(contents)) + 0.5
    *found, chi_square, status = fit(x, contents, np.ones(len(contents)))
    assert np.isfinite(found).all()
    assert status == UNDETERMINED
    assert chi_square < 25


def test_negative_and_mixed_profiles_stay_finite():
    rng = np.random.default_rng(3)
    for _ in range(300):
        n = rng.integers(1, 30)
        y = rng.normal(rng.choice([-30, 0, 5]), 20, n) * rng.choice([1e-6, 1, 1e6])
        x = np.sort(rng.uniform(0, 100, n))
        result = fit(x, y, np.abs(y) + 1e-9)
        assert np.isfinite(result).all()
        assert result[2] > 0
        assert result[4] in (CONVERGED, UNDETERMINED, UNFINISHED)


def test_steps_are_limited_and_the_status_says_so():
    x = np.arange(40) + 0.5
    assert fit(x, gauss(x, 1000, 9, 2) + 30, np.full(40, 3.0), max_steps=1)[4] == UNFINISHED


def test_same_input_same_bits():
    x, y, errors, _ = noisy_profile(np.random.default_rng(4))
    assert fit(x, y, errors) == fit(x.copy(), y.copy(), errors.copy())
