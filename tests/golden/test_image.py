"""The image stages against the experiment's program: 30 images, every number it left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import generated_response, load_response
from cygnoreco.errors import InputError
from cygnoreco.image.correct import mean_and_rms
from cygnoreco.image.filters import noise_filter
from cygnoreco.image.orient import orient
from cygnoreco.image.points import points
from cygnoreco.kernels.image import image_section, prepare_cuts

WINTER23 = {"cimax": 5000, "saturated": "zero", "nsigma": 0.6, "xmin": 0, "xmax": 2304, "ymin": 304, "ymax": 2054}


@pytest.fixture(scope="module")
def sums(shared_data):
    with np.load(shared_data / "golden" / "pedestal_sums.npz") as archive:
        return archive["sum"], archive["sumsq_minus100"], int(archive["n"])


@pytest.fixture(scope="module")
def pedestal(sums):
    return Pedestal.from_sums(*sums, run=5000)


@pytest.fixture(scope="module")
def cuts(pedestal):
    mean, rms = (orient(each, "midas", orientation="d03a058") for each in (pedestal.mean, pedestal.rms))
    return prepare_cuts(mean, rms, **WINTER23)


def test_pedestal_follows_from_the_exact_sums(pedestal, sums):
    total, squares, n = sums
    mean = total / n
    rms = np.sqrt((squares - (total - 100.0 * n) ** 2 / n) / (n - 1))
    assert np.abs(pedestal.mean - mean).max() < 1e-8
    assert np.abs(pedestal.rms - rms).max() < 1e-8


@pytest.mark.parametrize("number", range(30))
def test_points_and_images(shared_data, cuts, number):
    with np.load(shared_data / "frames" / f"img_{number:03d}.npz") as archive:
        frames = orient(archive["image"][None], "midas", orientation="d03a058")
    with np.load(shared_data / "golden" / "open" / f"points_{number:03d}.npz") as archive:
        golden = dict(archive)
    level = json.loads((shared_data / "golden" / "open" / f"img_{number:03d}.json").read_text())["image_level"]

    section = image_section(frames, cuts)
    edges = noise_filter(section.edges[0])
    rows, cols, weights = points(edges, section.picture[0])

    if "X" in golden:
        assert np.array_equal(np.column_stack((rows, cols)), golden["X"])
        assert np.array_equal(weights, golden["weight"])
    else:
        assert len(rows) == level["lp_len"] == 0
    for name, image in (("picture", section.picture[0]), ("edges_in", section.edges[0]), ("edges_out", edges)):
        for axis, which in ((1, "rowsum"), (0, "colsum")):
            assert image.sum(axis=axis) == pytest.approx(golden[f"{name}_{which}"], rel=1e-12, abs=1e-9), name
    survivors = np.nonzero(edges)
    assert np.array_equal(survivors, (golden["edges_row"], golden["edges_col"]))
    assert np.array_equal(edges[survivors], golden["edges_val"])
    mean_value, rms_value = mean_and_rms(section.integral, section.squares, frames[0].size)
    assert section.integral[0] == pytest.approx(level["cmos_integral"], rel=1e-6)
    assert mean_value[0] == pytest.approx(level["cmos_mean"], rel=1e-6)
    assert rms_value[0] == pytest.approx(level["cmos_rms"], rel=1e-6)


def test_real_response_map(shared_data):
    path = shared_data / "real" / "vignetting" / "vignette_runs03930to03932.root"
    extended, cut = (load_response(path, (2304, 2304), edge=edge).factor for edge in ("extend", "zero"))
    assert extended.min() == pytest.approx(1.0, abs=5e-3)
    assert extended[0, 0] == pytest.approx(1 / 0.224, rel=1e-3)
    assert np.array_equal(extended[:2296, :2296], cut[:2296, :2296])
    assert not cut[2296:].any()
    assert not cut[:, 2296:].any()
    # How close the formula that stands in for a measured map comes.
    ratio = extended / generated_response((2304, 2304)).factor
    assert ratio.std() < 0.01
    assert np.abs(ratio - 1).max() < 0.06


def test_real_rebinned_pedestal_is_refused(shared_data):
    with pytest.raises(InputError, match="rebinned by 4"):
        Pedestal.load(shared_data / "real" / "pedestal_maps" / "pedmap_ex100_rebin4.root")
