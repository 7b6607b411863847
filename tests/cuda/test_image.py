"""Image kernels against the plain stages: the same bits, for whole blocks of frames."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.cuda.image import (
    noise_block,
    patches_block,
    pixel_rules,
    points_block,
    redpix_block,
    section_block,
    upload_maps,
)
from cygnoreco.errors import InputError
from cygnoreco.image.correct import accept, correct_saturation, saturation_polynomial, subtract, suppress, totals
from cygnoreco.image.correct import upper_cut as upper_cut_stage
from cygnoreco.image.filters import median as median_stage
from cygnoreco.image.filters import noise_filter, rebin
from cygnoreco.image.patches import patches
from cygnoreco.image.points import points
from cygnoreco.kernels.image import prepare_cuts
from tests.image.scenes import scene

WINDOWS = [
    {"xmin": None, "xmax": None, "ymin": None, "ymax": None},
    {"xmin": 5, "xmax": 50, "ymin": 6, "ymax": 41},
    {"xmin": 0, "xmax": None, "ymin": 0, "ymax": 32},
    {"xmin": 40, "xmax": 20, "ymin": 30, "ymax": 10},
]
EVERYTHING = WINDOWS[0]


def plain(images, mean, rms, *, cimax=5000, saturated="keep", nsigma=0.6, median=True, factor=4, polynomial, **window):
    sub = subtract(upper_cut_stage(images, cimax=cimax, saturated=saturated), mean)
    sub = correct_saturation(sub, enabled=polynomial is not None)
    zs = accept(suppress(sub, rms, nsigma=nsigma), **window)
    raw = images.sum(axis=(1, 2), dtype=np.uint64)
    pair = rebin(zs, factor=factor), rebin(median_stage(zs, enabled=median), factor=factor)
    return (*pair, *totals(zs), raw)


def maps_of(program, mean, rms, response=None, **cuts):
    response = np.ones_like(mean) if response is None else response
    return upload_maps(program, mean, rms, response, prepare_cuts(mean, rms, **cuts))


def assert_section(program, frames, mean, rms, *, mirrored=False, median=True, factor=4, polynomial=None, **cuts):
    maps = maps_of(program, mean, rms, **cuts)
    rules = pixel_rules(mean.shape, mirrored=mirrored, factor=factor, saturation=polynomial, **cuts)
    found = section_block(program, program.xp.asarray(frames), maps, rules, median=median)
    images = np.ascontiguousarray(frames[..., ::-1]) if mirrored else frames
    expected = plain(images, mean, rms, median=median, factor=factor, polynomial=polynomial, **cuts)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        ours = program.to_host(ours)
        assert np.array_equal(ours, theirs), name
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("saturated", ["keep", "zero"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_section_equals_the_stages(program, window, mirrored, saturated):
    assert_section(program, *scene(), mirrored=mirrored, saturated=saturated, **window)


@pytest.mark.parametrize("shape", [(32, 64), (36, 32), (68, 140), (128, 32), (4, 4)])
def test_section_of_any_shape_of_whole_macro_pixels(program, shape):
    if min(shape) < 32:
        frames = np.random.default_rng(1).integers(90, 120, (2, *shape)).astype(np.uint16)
        assert_section(program, frames, np.full(shape, 100.25), np.ones(shape), **EVERYTHING)
    else:
        assert_section(program, *scene(shape, frames=2), **EVERYTHING)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_section_with_the_saturation_correction(program, factor, window):
    polynomial = saturation_polynomial()
    assert_section(program, *scene(), factor=factor, polynomial=polynomial, mirrored=True, saturated="zero", **window)


@pytest.mark.parametrize("median", [True, False])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_section_without_the_median_and_with_other_factors(program, factor, median):
    assert_section(program, *scene(), factor=factor, median=median, **EVERYTHING)


def test_section_of_no_frames(program):
    frames, mean, rms = scene()
    assert_section(program, frames[:0], mean, rms, **EVERYTHING)


def test_section_refuses_what_does_not_fit(program):
    frames, mean, rms = scene()
    maps, rules = maps_of(program, mean, rms), pixel_rules(mean.shape)
    with pytest.raises(InputError, match="46 x 64"):
        section_block(program, program.xp.asarray(frames[:, :46]), maps, rules)
    with pytest.raises(InputError, match="44 x 64 pixels and a pedestal"):
        section_block(program, program.xp.asarray(frames[:, :44].copy()), maps, rules)


@pytest.mark.parametrize(
    ("shape", "scale"),
    [((40, 40), 1.7), ((24, 50), 2.0), ((50, 24), 8.0), ((30, 30), 40.0), ((5, 5), 9.0), ((3, 8), 9)],
)
def test_noise_filter_equals_the_stage(program, shape, scale):
    edges = np.maximum(np.random.default_rng(5).normal(0.0, scale, (3, *shape)), 0.0)
    filtered = program.to_host(noise_block(program, program.xp.asarray(edges)))
    assert np.array_equal(filtered, noise_filter(edges))


@pytest.mark.parametrize("change", [{"difference": 1.0}, {"min_average": 2.5}, {"min_neighbours": 6}])
def test_noise_filter_parameters_act(program, change):
    edges = np.maximum(np.random.default_rng(6).normal(0.0, 4.0, (1, 40, 40)), 0.0)
    filtered = program.to_host(noise_block(program, program.xp.asarray(edges), **change))
    assert np.array_equal(filtered, noise_filter(edges, **change))


def test_noise_filter_of_more_rows_than_the_shared_memory_holds(program):
    edges = np.maximum(np.random.default_rng(7).normal(0.0, 3.0, (2, 1100, 9)), 0.0)
    filtered = program.to_host(noise_block(program, program.xp.asarray(edges)))
    assert np.array_equal(filtered, noise_filter(edges))
    assert filtered.any()


@pytest.mark.parametrize("weights", ["charge", "unit"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(12, 33), (9, 300), (1, 1)])
def test_points_equal_the_stage(program, shape, share, weights):
    """Several frames, the second of them vetoed, and the third empty."""
    rng = np.random.default_rng(8)
    filtered = np.where(rng.random((4, *shape)) < share, rng.exponential(3.0, (4, *shape)), 0.0)
    if share == 1.0:
        filtered += 1.0
    filtered[2] = 0.0
    picture = rng.exponential(4.0, (4, *shape))
    vetoed = np.array([False, True, False, False])
    xp = program.xp
    found = points_block(program, xp.asarray(filtered), xp.asarray(picture), xp.asarray(vetoed), weights=weights)
    rows, cols, values, frames, offsets = map(program.to_host, found[:5])
    assert np.array_equal(offsets, found.host_offsets)
    for n in range(4):
        mine = slice(offsets[n], offsets[n + 1])
        expected = points(filtered[n] * (not vetoed[n]), picture[n], weights=weights)
        for ours, theirs in zip((rows[mine], cols[mine], values[mine]), expected, strict=True):
            assert np.array_equal(ours, theirs)
            assert ours.dtype == np.int32
        assert (frames[mine] == n).all()


def test_points_of_no_frames(program):
    nothing = program.xp.empty((0, 8, 8))
    found = points_block(program, nothing, nothing, program.xp.empty(0, np.bool_))
    assert len(found.rows) == 0
    assert found.host_offsets.tolist() == [0]


@pytest.mark.slow
def test_a_frame_of_the_real_size(program):
    """From raw counts to points, with the acceptance of the default recipe."""
    frames, mean, rms = scene((2304, 2304), frames=2)
    maps, rules = maps_of(program, mean, rms), pixel_rules(mean.shape)
    section = section_block(program, program.xp.asarray(frames), maps, rules)
    window = {"xmin": 0, "xmax": None, "ymin": 304, "ymax": 2054}
    expected = plain(frames, mean, rms, polynomial=None, **window)
    for ours, theirs in zip(section, expected, strict=True):
        assert np.array_equal(program.to_host(ours), theirs)
    filtered = noise_block(program, section.edges)
    assert np.array_equal(program.to_host(filtered), noise_filter(expected[1]))
    found = points_block(program, filtered, section.picture, program.xp.zeros(2, np.bool_))
    listed = [points(one, picture) for one, picture in zip(noise_filter(expected[1]), expected[0], strict=True)]
    for ours, theirs in zip(found[:3], zip(*listed, strict=True), strict=True):
        assert np.array_equal(program.to_host(ours), np.concatenate(theirs))
    assert len(found.rows) > 1000


@pytest.mark.parametrize("polynomial", [None, saturation_polynomial()])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("saturated", ["keep", "zero"])
@pytest.mark.parametrize("factor", [4, 2])
def test_patches_equal_the_cpu_form(program, factor, saturated, mirrored, polynomial):
    frames, mean, rms = scene()
    response = np.random.default_rng(9).uniform(0.5, 4.0, mean.shape)
    cuts = {"saturated": saturated, "xmin": 5, "xmax": 50, "ymin": 6, "ymax": 41}
    maps = maps_of(program, mean, rms, response, **cuts)
    rules = pixel_rules(mean.shape, mirrored=mirrored, factor=factor, saturation=polynomial, **cuts)
    shape = (len(frames), mean.shape[0] // factor, mean.shape[1] // factor)
    lit = np.random.default_rng(10).random(shape) < 0.3
    lit[1] = False
    xp = program.xp
    image = xp.asarray(lit.astype(np.float64))
    listed = points_block(program, image, image, xp.zeros(len(frames), np.bool_))
    order = np.random.default_rng(11).permutation(len(listed.rows))[:-3]
    found = patches_block(program, xp.asarray(frames), maps, rules, listed, xp.asarray(order))
    rows, cols, z, above, full, marks = map(program.to_host, found)
    where = program.to_host(listed.frames)[order]
    assert np.array_equal(rows, program.to_host(listed.rows)[order])
    for n, frame in enumerate(frames):
        image = np.ascontiguousarray(frame[:, ::-1]) if mirrored else frame
        mine = where == n
        expected = patches(
            image, mean, rms, response, rows[mine], cols[mine], factor=factor, saturation=polynomial, **cuts
        )
        for ours, theirs in zip((z[mine], above[mine], full[mine]), expected, strict=True):
            assert np.array_equal(ours, theirs)
        assert marks[n] == expected.saturated.any()


@pytest.mark.parametrize("rows_first", [False, True])
def test_saved_pixels(program, rows_first):
    xp = program.xp
    rng = np.random.default_rng(12)
    rows, cols = rng.integers(0, 50, (2, 9)).astype(np.int32)
    z = rng.normal(0.0, 30.0, (9, 4, 4))
    z[0, 0] = (0.25, 0.35, -0.25, 0.05)
    offsets, clusters = np.array([0, 2, 5, 9]), np.array([0, 2])
    begins = np.array([0, 32])
    arguments = map(xp.asarray, (clusters, begins))
    members = map(xp.asarray, (offsets, rows, cols, z))
    found = redpix_block(program, *arguments, 96, *members, rows_first=rows_first, decimals=1)
    ix, iy, iz = map(program.to_host, found)
    chosen = [0, 1, 5, 6, 7, 8]
    row = np.broadcast_to(rows[chosen, None, None] * 4 + np.arange(4)[:, None], (6, 4, 4)).ravel()
    col = np.broadcast_to(cols[chosen, None, None] * 4 + np.arange(4), (6, 4, 4)).ravel()
    assert np.array_equal(ix, row if rows_first else col)
    assert np.array_equal(iy, col if rows_first else row)
    assert np.array_equal(iz, np.round(z[chosen], 1).astype(np.float32).ravel())
