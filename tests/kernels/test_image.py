"""The fused section gives the bits of the plain stages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cygnoreco.errors import InputError
from cygnoreco.image.correct import accept, subtract, suppress, totals, upper_cut
from cygnoreco.image.filters import median as median_stage
from cygnoreco.image.filters import rebin
from cygnoreco.kernels.image import empty_section, image_section, prepare_cuts
from tests.image.scenes import scene

EVERYTHING = {"xmin": None, "xmax": None, "ymin": None, "ymax": None}


def plain(frames, mean, rms, *, cimax=5000, saturated="keep", nsigma=0.6, median=True, **window):
    """The same results from the stages, one after the other."""
    sub = subtract(upper_cut(frames, cimax=cimax, saturated=saturated), mean)
    zs = accept(suppress(sub, rms, nsigma=nsigma), **window)
    raw = frames.sum(axis=(1, 2), dtype=np.uint64)
    return (rebin(zs), rebin(median_stage(zs, enabled=median)), *totals(zs), raw)


def assert_same_bits(frames, mean, rms, *, median=True, **cuts):
    fused = image_section(frames, mean, prepare_cuts(mean, rms, **cuts), median=median)
    for name, ours, theirs in zip(fused._fields, fused, plain(frames, mean, rms, median=median, **cuts), strict=True):
        assert np.array_equal(ours, theirs), name
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("saturated", ["keep", "zero"])
@pytest.mark.parametrize("median", [True, False])
@pytest.mark.parametrize(
    "window",
    [
        EVERYTHING,
        {"xmin": 0, "xmax": 2304, "ymin": 304, "ymax": 2054},
        {"xmin": 5, "xmax": 50, "ymin": 6, "ymax": 41},
        {"xmin": None, "xmax": 17, "ymin": 32, "ymax": 44},
        {"xmin": 0, "xmax": None, "ymin": 0, "ymax": 32},
        {"xmin": 40, "xmax": 20, "ymin": 30, "ymax": 10},
    ],
)
def test_fused_equals_plain(saturated, median, window):
    assert_same_bits(*scene(), saturated=saturated, median=median, **window)


@pytest.mark.parametrize("shape", [(32, 64), (36, 32), (68, 100), (128, 32)])
def test_any_shape_of_whole_macro_pixels(shape):
    assert_same_bits(*scene(shape, frames=2), **EVERYTHING)


def test_the_widest_sensor():
    """4096 x 2304, with the acceptance of its own height."""
    assert_same_bits(*scene((2304, 4096), frames=1), xmin=0, xmax=4096, ymin=304, ymax=2054)


@given(
    mean=st.floats(0.0, 70000.0) | st.integers(0, 65535).map(float),
    rms=st.floats(0.0, 1e5) | st.integers(0, 300).map(float),
    nsigma=st.sampled_from([0.0, 0.1, 0.6, 1.8, 3.0]),
)
def test_integer_threshold_splits_all_counts_as_the_stage_does(mean, rms, nsigma):
    """Every count there is, for one pixel: rounding of the subtraction and of the threshold included."""
    counts = np.arange(65536, dtype=np.uint16)
    threshold = prepare_cuts(np.full((4, 4), mean), np.full((4, 4), rms), nsigma=nsigma, **EVERYTHING).threshold[0, 0]
    survives = suppress(subtract(counts, np.float64(mean)), np.float64(rms), nsigma=nsigma) != 0
    assert np.array_equal(counts > threshold, survives)


@pytest.mark.parametrize("cimax", [1, 101, 65535, 65536, 100_000])
def test_any_upper_cut(cimax):
    assert_same_bits(*scene(), cimax=cimax, saturated="zero", **EVERYTHING)


def test_results_do_not_depend_on_the_block():
    frames, mean, rms = scene(frames=5)
    cuts = prepare_cuts(mean, rms, **EVERYTHING)
    together = image_section(frames, mean, cuts)
    for n, frame in enumerate(frames):
        for whole, one in zip(together, image_section(frame[None], mean, cuts), strict=True):
            assert np.array_equal(whole[n], one[0])


def test_memory_is_used_again_and_leaves_no_trace():
    frames, mean, rms = scene(frames=3)
    cuts = prepare_cuts(mean, rms, ymin=12, ymax=40)
    out = empty_section(3, mean.shape)
    for array in out:
        array.fill(77)
    section = image_section(frames[:2], mean, cuts, out=out)
    assert np.shares_memory(section.picture, out.picture)
    for ours, fresh in zip(section, image_section(frames[:2], mean, cuts), strict=True):
        assert np.array_equal(ours, fresh)
    assert (out.picture[2] == 77).all(), "only what was asked for is written"


def test_mirrored_views_are_taken():
    frames, mean, rms = scene()
    assert_same_bits(frames[..., ::-1], mean, rms, **EVERYTHING)


def test_sides_that_are_not_multiples_of_four_are_refused():
    frames, mean, rms = scene()
    with pytest.raises(InputError, match="46 x 64"):
        image_section(frames[:, :46], mean[:46], prepare_cuts(mean, rms))


def test_a_pedestal_of_another_sensor_is_refused():
    frames, mean, rms = scene()
    with pytest.raises(InputError, match="48 x 60 pixels and a pedestal of 48 x 64"):
        image_section(frames[:, :, :60], mean, prepare_cuts(mean, rms))


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_pedestal_that_integers_cannot_express_is_refused(bad):
    _, mean, rms = scene()
    mean[2, 2] = bad
    with pytest.raises(InputError, match="negative or not a number"):
        prepare_cuts(mean, rms)
