"""From raw counts to the suppressed image: each stage on images small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.errors import InputError
from cygnoreco.image.correct import (
    accept,
    correct_saturation,
    mean_and_rms,
    saturation_polynomial,
    spark_limit,
    spark_veto,
    subtract,
    suppress,
    totals,
    upper_cut,
)
from cygnoreco.image.orient import orient
from cygnoreco.stage import stage_of


@pytest.mark.parametrize("origin", ["midas", "zarr", "root", "hdf5"])
def test_default_orientation_is_that_of_the_sensor(origin):
    frames = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    assert np.array_equal(orient(frames, origin), frames)


@pytest.mark.parametrize(("origin", "mirrored"), [("midas", True), ("zarr", False), ("root", False), ("hdf5", False)])
def test_d03a058_mirrors_the_columns_of_raw_frames_only(origin, mirrored):
    frames = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    image = orient(frames, origin, orientation="d03a058")
    assert image[1, 2, 0] == (frames[1, 2, 3] if mirrored else frames[1, 2, 0])
    assert np.shares_memory(image, frames), "nothing is copied"
    # The experiment's own words for it: a turn by 90 degrees, then a transposition.
    assert not mirrored or np.array_equal(image[0], np.rot90(frames[0]).T)


def test_spark_is_a_sum_strictly_above_the_limit():
    """Limit for 8 x 4 pixels, baseline 100, excess 50: 2 * 100 * 32 + 50 = 6450."""
    assert spark_limit((8, 4), baseline=100.0, excess=50.0) == 6450
    frames = np.full((2, 8, 4), 201, np.uint16)
    frames[:, 0, 0] += np.array([6450 - 201 * 32, 6451 - 201 * 32], np.uint16)
    assert spark_veto(frames, excess=50.0).tolist() == [False, True]


def test_default_spark_limit_of_lime():
    """The number of the experiment's program for 2304 x 2304 pixels."""
    defaults = {name: parameter.default for name, parameter in stage_of(spark_veto).parameters.items()}
    assert spark_limit((2304, 2304), baseline=defaults["baseline"], excess=defaults["excess"]) == 1_070_683_200


def test_spark_sum_does_not_overflow_16_bits():
    assert not spark_veto(np.full((40, 40), 65535, np.uint16), baseline=0.0, excess=65535.0 * 1600)


def test_upper_cut_keeps_or_zeroes_from_cimax_on():
    frames = np.array([[4999, 5000, 65535]], np.uint16)
    assert upper_cut(frames).tolist() == [[4999, 5000, 65535]]
    zeroed = upper_cut(frames, saturated="zero")
    assert zeroed.tolist() == [[4999, 0, 0]]
    assert zeroed.dtype == np.uint16
    assert upper_cut(frames, cimax=4999, saturated="zero").tolist() == [[0, 0, 0]]


def test_subtraction_goes_below_zero():
    sub = subtract(np.array([[[90, 110]]], np.uint16), np.array([[100.5, 100.25]]))
    assert sub.dtype == np.float64
    assert sub.tolist() == [[[-10.5, 9.75]]]


def test_suppression_is_strict():
    rms = np.array([[2.0, 2.0, 2.0]])
    assert suppress(np.array([[1.0, 1.0000001, -5.0]]), rms, nsigma=0.5).tolist() == [[0.0, 1.0000001, 0.0]]


def test_saturation_correction_is_off_by_default():
    sub = np.array([[1.0, 500.0]])
    assert correct_saturation(sub) is sub


def test_saturation_correction_joins_smoothly_and_has_the_published_constants():
    a, b, c, start = saturation_polynomial()
    assert (a, b, c, start) == pytest.approx((0.1321, 0.0725, 1.628, 3.511), abs=5e-4)
    assert a * start**2 + b * start + c == pytest.approx(start)
    assert 2 * a * start + b == pytest.approx(1.0)
    corrected = correct_saturation(np.array([-3.0, 3.5, 100.0]), enabled=True)
    assert corrected[:2].tolist() == [-3.0, 3.5]
    assert corrected[2] == pytest.approx(a * 1e4 + b * 100 + c)


def test_acceptance_is_half_open_and_x_is_the_column():
    image = np.ones((2, 6, 5))
    inside = accept(image, xmin=1, xmax=4, ymin=2, ymax=3)
    assert np.argwhere(inside[0]).tolist() == [[2, 1], [2, 2], [2, 3]]
    assert image.all(), "the input is not changed"


def test_acceptance_without_limits_or_with_limits_beyond_the_image_changes_nothing():
    image = np.ones((6, 5))
    assert accept(image, xmin=None, xmax=None, ymin=None, ymax=None).all()
    assert accept(image, xmin=0, xmax=99, ymin=0, ymax=99).all()
    assert not accept(image, ymin=99).any()


def test_totals_mean_and_rms():
    image = np.random.default_rng(1).exponential(5.0, (2, 7, 12))
    integral, squares = totals(image)
    assert integral == pytest.approx(image.sum(axis=(1, 2)))
    mean, rms = mean_and_rms(integral, squares, 12 * 7)
    assert mean == pytest.approx(image.mean(axis=(1, 2)))
    assert rms == pytest.approx(image.std(axis=(1, 2)))


def test_rms_of_a_constant_image_is_zero_not_undefined():
    image = np.full((4, 4), 0.1)
    assert mean_and_rms(*totals(image), 16)[1] == pytest.approx(0.0, abs=1e-8)


def test_totals_refuse_a_width_that_is_not_a_multiple_of_four():
    with pytest.raises(InputError, match="6 columns"):
        totals(np.zeros((4, 6)))
