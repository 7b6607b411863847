"""The pixels of a few macro-pixels against the same pixels of full corrected images."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.errors import InputError
from cygnoreco.image.correct import (
    accept,
    correct_saturation,
    saturation_polynomial,
    subtract,
    suppress,
    upper_cut,
)
from cygnoreco.image.patches import patch_memory, patches
from cygnoreco.kernels.image import prepare_cuts
from cygnoreco.kernels.patches import cut_patches
from tests.image.scenes import scene

WINDOW = {"xmin": 3, "xmax": 61, "ymin": 6, "ymax": None}


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("saturated", ["keep", "zero"])
@pytest.mark.parametrize("correct", [False, True])
def test_patches_are_cut_out_of_the_plain_images(factor, saturated, correct):
    frames, mean, rms = scene()
    response = np.random.default_rng(1).uniform(1.0, 4.0, mean.shape)
    response[-8:] = 0.0  # what winter23 does to the last rows
    frame = frames[1]
    sub = correct_saturation(subtract(upper_cut(frame, saturated=saturated), mean), enabled=correct)
    zs = accept(suppress(sub, rms), **WINDOW)

    rows, cols = (axis.ravel().astype(np.int32) for axis in np.indices(np.array(mean.shape) // factor))
    found = patches(
        frame, mean, rms, response, rows, cols, factor=factor, saturated=saturated, **WINDOW,
        saturation=saturation_polynomial() if correct else None,
    )  # fmt: skip

    def image_of(pixels):
        height, width = mean.shape
        blocks = pixels.reshape(height // factor, width // factor, factor, factor)
        return blocks.transpose(0, 2, 1, 3).reshape(height, width)

    assert np.array_equal(image_of(found.z), sub * response)
    assert np.array_equal(image_of(found.above), zs * response > 0)
    assert np.array_equal(image_of(found.saturated), frame >= 5000)
    assert found.saturated.any()
    assert 0 < found.above.sum() < found.above.size


def test_patches_come_in_the_order_asked_for():
    frames, mean, rms = scene()
    rows, cols = np.array([5, 0, 5], np.int32), np.array([2, 0, 2], np.int32)
    z = patches(frames[0], mean, rms, np.ones_like(mean), rows, cols).z
    assert np.array_equal(z[0], z[2])
    assert np.array_equal(z[0], frames[0, 20:24, 8:12] - mean[20:24, 8:12])


def test_no_macro_pixels_no_patches():
    frames, mean, rms = scene()
    none = np.empty(0, np.int32)
    assert patches(frames[0], mean, rms, np.ones_like(mean), none, none).z.shape == (0, 4, 4)


@pytest.mark.parametrize("saturated", ["keep", "zero"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_fused_form_gives_the_same_bits(saturated, mirrored):
    frames, mean, rms = scene()
    response = np.random.default_rng(1).uniform(1.0, 4.0, mean.shape)
    response[-8:] = 0.0
    frame = frames[1][:, ::-1] if mirrored else frames[1]
    rows, cols = (axis.ravel().astype(np.int32) for axis in np.indices(np.array(mean.shape) // 4))
    expected = patches(frame, mean, rms, response, rows, cols, saturated=saturated, **WINDOW)
    cuts = prepare_cuts(mean, rms, saturated=saturated, **WINDOW)
    found = patch_memory(len(rows), 4)
    cut_patches(frame, cuts, response, rows, cols, cimax=5000, out=found)
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == other.tobytes()
    assert expected.above.any()
    assert expected.saturated.any()


def test_the_fused_form_needs_planes_in_double_precision():
    frames, mean, rms = scene()
    none = np.empty(0, np.int32)
    for cuts in (prepare_cuts(mean, rms, planes=False), prepare_cuts(mean, rms, precision="float32")):
        with pytest.raises(InputError, match="planes of float64"):
            cut_patches(frames[0], cuts, mean, none, none, cimax=5000, out=patch_memory(0, 4))
