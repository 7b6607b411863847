"""The fused section gives the bits of the plain stages."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

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
    fused = image_section(frames, prepare_cuts(mean, rms, **cuts), median=median)
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


# Strips of 96 macro-columns are 384 pixels: one strip, one full, one and a bit, two; one macro-pixel.
SHAPES = [(4, 4), (32, 64), (36, 384), (68, 388), (128, 100), (40, 768), (32, 764)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frames", [1, 8])
@pytest.mark.parametrize("mirrored", [False, True])
def test_any_shape_of_whole_macro_pixels(shape, frames, mirrored):
    raw, mean, rms = any_scene(shape, frames)
    raw = np.ascontiguousarray(raw[..., ::-1])[..., ::-1] if mirrored else raw
    assert_same_bits(raw, mean, rms, **EVERYTHING)


def any_scene(shape, frames):
    """Noise with bright rows, for shapes that are too small for a scene."""
    rng = np.random.default_rng(2)
    mean, rms = rng.normal(100.0, 1.0, shape), rng.gamma(9.0, 0.3, shape)
    raw = np.rint(mean + rms * rng.normal(size=(frames, *shape)))
    raw[:, ::7] += 40
    return raw.astype(np.uint16), mean, rms


def test_a_square_sensor():
    """2048 x 2048 mirrored: a last strip that is not full."""
    raw, mean, rms = any_scene((2048, 2048), 1)
    assert_same_bits(raw[..., ::-1], mean, rms, ymin=300, ymax=1801)


@pytest.mark.parametrize("view", [np.s_[:, ::2], np.s_[:, :, ::2], np.s_[:, ::-1]])
def test_any_other_view_is_copied(view):
    frames, mean, rms = scene((64, 128))
    assert_same_bits(frames[view], mean[view[1:]], rms[view[1:]], **EVERYTHING)


def test_threads_do_not_disturb_each_other():
    frames, mean, rms = scene(frames=4)
    cuts = prepare_cuts(mean, rms, **EVERYTHING)
    alone = [image_section(frame[None], cuts) for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda n: image_section(frames[n % 4][None], cuts), range(64))
    for n, section in enumerate(together):
        for ours, expected in zip(section, alone[n % 4], strict=True):
            assert np.array_equal(ours, expected)


def test_the_steady_state_allocates_nothing_of_the_size_of_an_image():
    frames, mean, rms = scene((480, 640), frames=4)
    cuts = prepare_cuts(mean, rms)
    out = empty_section(4, mean.shape)
    image_section(frames[..., ::-1], cuts, out=out)
    tracemalloc.start()
    image_section(frames[..., ::-1], cuts, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames[0].nbytes // 8


@pytest.mark.parametrize("shape", [(48, 64), (484, 900)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_single_precision_is_as_near_as_promised(shape, mirrored):
    frames, mean, rms = scene(shape, frames=3, seed=5)
    frames = frames[..., ::-1] if mirrored else frames
    exact = image_section(frames, prepare_cuts(mean, rms, **EVERYTHING))
    single = image_section(frames, prepare_cuts(mean, rms, precision="float32", **EVERYTHING))
    for name in ("picture", "edges"):
        ours, theirs = getattr(single, name), getattr(exact, name)
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4, err_msg=name)
        assert not np.array_equal(ours, theirs)
    np.testing.assert_allclose(single.integral, exact.integral, rtol=1e-5)
    np.testing.assert_allclose(single.squares, exact.squares, rtol=1e-5)
    assert np.array_equal(single.raw, exact.raw)


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
    together = image_section(frames, cuts)
    for n, frame in enumerate(frames):
        for whole, one in zip(together, image_section(frame[None], cuts), strict=True):
            assert np.array_equal(whole[n], one[0])


def test_memory_is_used_again_and_leaves_no_trace():
    frames, mean, rms = scene(frames=3)
    cuts = prepare_cuts(mean, rms, ymin=12, ymax=40)
    out = empty_section(3, mean.shape)
    for array in out:
        array.fill(77)
    section = image_section(frames[:2], cuts, out=out)
    assert np.shares_memory(section.picture, out.picture)
    for ours, fresh in zip(section, image_section(frames[:2], cuts), strict=True):
        assert np.array_equal(ours, fresh)
    assert (out.picture[2] == 77).all(), "only what was asked for is written"


def test_mirrored_views_are_taken():
    frames, mean, rms = scene()
    assert_same_bits(frames[..., ::-1], mean, rms, **EVERYTHING)


def test_sides_that_are_not_multiples_of_four_are_refused():
    _, mean, rms = scene()
    with pytest.raises(InputError, match="46 x 64"):
        prepare_cuts(mean[:46], rms[:46])


def test_a_pedestal_of_another_sensor_is_refused():
    frames, mean, rms = scene()
    with pytest.raises(InputError, match="48 x 60 pixels and a pedestal of 48 x 64"):
        image_section(frames[:, :, :60], prepare_cuts(mean, rms))


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_pedestal_that_integers_cannot_express_is_refused(bad):
    _, mean, rms = scene()
    mean[2, 2] = bad
    with pytest.raises(InputError, match="negative or not a number"):
        prepare_cuts(mean, rms)
