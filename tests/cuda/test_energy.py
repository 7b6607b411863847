"""The energy stage on CUDA against that on the CPU: skeletons and lengths exactly, energies nearly."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from cygnoreco.cuda import energy as module
from cygnoreco.cuda.energy import ENERGY_TOLERANCE, energy_block
from cygnoreco.errors import InputError
from cygnoreco.measure.density import density_calibration
from tests.measure.test_density import cluster, disc, noisy

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(density_calibration).parameters.items()
    if parameter.default is not inspect.Parameter.empty
} | {"enabled": True}
WINTER23 = {"matrix": "short", "coverage": "discs", "path": "pixels"}


def together(*clusters):
    """Several clusters as one grouped list."""
    rows, cols, offsets, z = zip(*clusters, strict=True)
    sizes = np.concatenate([np.diff(each) for each in offsets])
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.concatenate(rows).astype(np.int32), np.concatenate(cols).astype(np.int32), ends, np.concatenate(z)


def check(program, arrays, **parameters):
    parameters = DEFAULTS | parameters
    there = [program.xp.asarray(array) for array in arrays]
    energy, pathlength = (program.to_host(each) for each in energy_block(program, *there, **parameters))
    expected, length = density_calibration(*arrays, **parameters)
    assert energy.dtype == pathlength.dtype == np.float64
    np.testing.assert_array_equal(pathlength, length)
    np.testing.assert_allclose(energy, expected, rtol=ENERGY_TOLERANCE, atol=1e-12)
    return energy, pathlength


@pytest.mark.parametrize("changes", [{}, WINTER23, {"matrix": "short"}, {"coverage": "discs", "path": "pixels"}])
@pytest.mark.parametrize("seed", range(3))
def test_random_clusters(program, changes, seed):
    arrays = together(*(noisy(100 * seed + k, size=24) for k in range(8)))
    check(program, arrays, **changes)
    check(program, arrays, **changes, slice_radius=7.3, prunings=3, pixel_threshold=-1.0)


def test_shapes(program):
    """A disc, a bar, diagonals, a ring, one macro-pixel and two that touch nowhere."""
    apart = np.zeros((9, 40))
    apart[0, 0] = apart[8, 39] = 1
    ring = disc(16.5, 40) & ~disc(13.5, 40)
    images = [disc(10, 25), np.ones((1, 60)), np.ones((60, 1)), np.eye(40), ring, np.ones((1, 1)), apart]
    energy, pathlength = check(program, together(*(cluster(np.array(image)) for image in images)))
    assert (energy > 0).all()
    assert pathlength[1] == pathlength[2] == 237 - 20
    check(program, together(*(cluster(np.array(image), -2.0) for image in images)), **WINTER23)


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0, 1e9])
@pytest.mark.parametrize("changes", [{}, WINTER23])
def test_any_radius(program, radius, changes):
    check(program, together(noisy(5, size=20), noisy(6, size=20)), slice_radius=radius, prunings=0, **changes)


@pytest.mark.parametrize("r", [1, 2, 5])
@pytest.mark.parametrize("changes", [{}, WINTER23, {"matrix": "short"}])
def test_any_macro_pixel(program, r, changes):
    """With one pixel a macro-pixel a short matrix can be empty: such a cluster has no energy."""
    single = cluster(np.ones((1, 1)), r=r)
    check(program, together(noisy(8, size=20, r=r), single, cluster(np.ones((1, 9)), r=r), single), **changes)


def test_many_tiny_clusters(program):
    random = np.random.default_rng(4)
    tiny = [noisy(seed, size=4) for seed in random.integers(0, 1 << 30, 200)]
    check(program, together(*tiny))


@pytest.mark.parametrize("limit", [1, 30_000])
def test_rounds_do_not_matter(program, monkeypatch, limit):
    arrays = together(*(noisy(seed, size=12) for seed in range(9)))
    in_one = check(program, arrays)
    monkeypatch.setattr(module, "SCRATCH_BYTES", limit)
    monkeypatch.setattr(module, "LARGE", 500)
    in_rounds = check(program, arrays)
    np.testing.assert_array_equal(in_one, in_rounds)


def test_same_bits_again(program):
    arrays = together(*(noisy(seed, size=16) for seed in range(5)))
    np.testing.assert_array_equal(check(program, arrays), check(program, arrays))


@pytest.mark.parametrize("enabled", [True, False])
def test_no_cluster(program, enabled):
    nothing = np.empty(0, np.int32)
    energy, length = check(program, (nothing, nothing, np.zeros(1, np.int64), np.empty((0, 4, 4))), enabled=enabled)
    assert energy.shape == length.shape == (0,)


def test_off(program):
    energy, length = check(program, cluster(np.ones((3, 2))), enabled=False)
    assert energy.tolist() == length.tolist() == [-1.0]


def test_faults(program, monkeypatch):
    rows, cols, offsets, z = (program.xp.asarray(each) for each in cluster(np.ones((3, 2))))
    with pytest.raises(InputError, match=r"expected \(m,\), \(m,\) and \(m, r, r\)"):
        energy_block(program, rows[:-1], cols, offsets, z, **DEFAULTS)
    monkeypatch.setattr(module, "MAX_PIXELS", 95)
    with pytest.raises(InputError, match="a cluster of 96 pixels: the kernels take at most 95"):
        energy_block(program, rows, cols, offsets, z, **DEFAULTS)


def on_the_sensor(kind):
    """A cluster as large as a sensor of 2304 x 2304 pixels."""
    rows, cols = np.mgrid[:576, :576]
    if kind == "filled":
        return np.ones((576, 576))
    if kind == "diagonal":
        return np.abs(rows - cols) <= 7
    return np.random.default_rng(2).random((576, 576)) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"), [("filled", {}), ("diagonal", {}), ("diagonal", WINTER23), ("noise", WINTER23)]
)
def test_clusters_as_large_as_the_sensor(program, kind, changes):
    check(program, together(cluster(np.ones((2, 3))), cluster(on_the_sensor(kind)), noisy(3)), **changes)
