"""The response of the lens: expanded, loaded, generated and refused."""

from __future__ import annotations

import numpy as np
import pytest
import uproot

from cygnoreco.calib.response import Response, expand_response, flat_response, generated_response, load_response
from cygnoreco.errors import InputError


def write_map(path, relative, name="normmap_lime"):
    """A TH2 in the experiment's way: x = column, y = row of the image."""
    columns, rows = relative.T.shape
    with uproot.recreate(path) as file:
        file[name] = (relative.T, np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))


def test_cells_cover_whole_pixels_and_the_last_is_extended():
    relative = np.array([[1.0, 0.5, 0.25]])
    factor = expand_response(relative, (2, 8))  # 8 // 3 = 2 px a cell, 2 px left over
    assert factor.tolist() == [[1, 1, 2, 2, 4, 4, 4, 4]] * 2
    assert factor.dtype == np.float64


def test_winter23_leaves_the_rest_at_zero():
    relative = np.full((3, 3), 0.5)
    factor = expand_response(relative, (8, 8), edge="zero")
    assert (factor[:6, :6] == 2).all()
    assert not factor[6:].any()
    assert not factor[:, 6:].any()


def test_a_map_that_fits_is_the_same_with_both_edges():
    relative = np.random.default_rng(1).uniform(0.2, 1.0, (4, 4))
    assert np.array_equal(expand_response(relative, (8, 12)), expand_response(relative, (8, 12), edge="zero"))


@pytest.mark.parametrize("bad", [0.0, -0.1, np.nan, np.inf])
def test_cells_without_a_positive_response_are_refused(bad):
    relative = np.ones((3, 4))
    relative[1, 2] = bad
    with pytest.raises(InputError, match=r"1 cells .* row 1, column 2"):
        expand_response(relative, (6, 8))


@pytest.mark.parametrize("shape", [(2, 8), (8, 13)])
def test_a_map_that_does_not_fit_the_sensor_is_refused(shape):
    """Finer than the pixels, or with more than one cell missing at the end (13 // 5 = 2, 3 px left over)."""
    with pytest.raises(InputError, match="do not fit"):
        expand_response(np.ones((4, 5)), shape)


def test_flat():
    response = load_response("none", (4, 6))
    assert (response.factor == 1).all()
    assert response.digest == flat_response((4, 6)).digest


def test_generated_falls_from_the_centre_to_the_corners():
    relative = 1 / load_response("generated:lime", (2304, 2304)).factor
    assert relative.max() == pytest.approx(1.0, abs=1e-5)
    assert relative[0, 0] == pytest.approx(0.22, abs=2e-3)
    assert (np.diff(relative[1152, 1152:]) < 0).all()
    for other in (relative.T, relative[::-1], relative[:, ::-1]):
        assert np.allclose(other, relative, rtol=1e-12)


def test_generated_is_round_on_a_wide_sensor():
    relative = 1 / generated_response((100, 200), corner=0.3).factor
    assert relative[0, 0] == pytest.approx(0.3, abs=0.02)
    assert relative[50, 100 + 40] == pytest.approx(relative[50 + 40, 100])


def test_the_experiment_file_has_x_along_the_columns(tmp_path):
    relative = np.random.default_rng(2).uniform(0.2, 1.0, (5, 7))
    write_map(tmp_path / "vignette.root", relative)
    response = load_response(tmp_path / "vignette.root", (10, 14))
    assert np.array_equal(response.factor, np.kron(1 / relative, np.ones((2, 2))))
    assert response.name.endswith("vignette.root")


def test_histograms_by_preference(tmp_path):
    path = tmp_path / "vignette.root"
    write_map(path, np.full((2, 2), 0.5), name="normmap")
    assert load_response(path, (4, 4)).factor[0, 0] == 2
    with uproot.update(path) as file:
        file["normmap_lime"] = (np.full((2, 2), 0.25), np.arange(3.0), np.arange(3.0))
        file["normmap_lemon"] = (np.full((2, 2), 0.125), np.arange(3.0), np.arange(3.0))
    assert load_response(path, (4, 4)).factor[0, 0] == 4
    assert load_response(path, (4, 4), histogram="normmap_lemon").factor[0, 0] == 8


def test_unusable_files_are_named(tmp_path):
    path = tmp_path / "vignette.root"
    write_map(path, np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"vignette\.root.*not positive"):
        load_response(path, (4, 4))
    write_map(path, np.ones((2, 2)), name="other")
    with pytest.raises(InputError, match=r"'normmap_lime' or 'normmap'.*there: other"):
        load_response(path, (4, 4))
    with pytest.raises(InputError, match="valid: none, generated:lime"):
        load_response("generated:lyme", (4, 4))


def test_own_format_round_trip(tmp_path):
    response = generated_response((8, 12))
    response.save(tmp_path / "a.npz")
    response.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = load_response(tmp_path / "a.npz", (8, 12))
    assert (loaded.digest, loaded.name) == (response.digest, "generated:lime")
    with pytest.raises(InputError, match=r"\(8, 12\) pixels, expected \(8, 8\)"):
        load_response(tmp_path / "a.npz", (8, 8))


def test_digest_is_of_the_factors_not_of_the_name():
    factor = np.full((2, 3), 1.5)
    assert Response(factor, "a").digest == Response(factor.copy(), "b").digest
    assert Response(factor, "a").digest != Response(factor.reshape(3, 2), "a").digest


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
def test_factors_that_cannot_be_are_refused(bad):
    with pytest.raises(InputError, match="finite, non-negative"):
        Response(np.array([[1.0, bad]]), "bad")
