"""Plain stages take the functions of their array's library: the same bits from NumPy, CuPy and any other."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest

from cygnoreco._xp import namespace
from cygnoreco.image.correct import (
    accept,
    correct_saturation,
    spark_veto,
    subtract,
    suppress,
    totals,
    upper_cut,
)
from cygnoreco.image.filters import median, rebin
from cygnoreco.image.orient import orient
from cygnoreco.image.points import points
from tests.conftest import cupy_or_skip
from tests.image.scenes import scene


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def library(request):
    if request.param == "cupy":
        return cupy_or_skip()
    return {"numpy": np, "strict": array_api_strict}[request.param]


def to_host(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def stages(frames, mean, rms):
    """Every plain stage of the section on the arrays given."""
    images = orient(frames, "midas", orientation="d03a058")
    yield spark_veto(images, baseline=60.0, excess=1000.5)
    sub = subtract(upper_cut(images, saturated="zero"), mean)
    yield sub
    yield correct_saturation(sub, enabled=True)
    zs = accept(suppress(sub, rms), xmin=3, xmax=60, ymin=2, ymax=41)
    yield zs
    yield from totals(zs)
    edges = median(zs)
    yield edges
    picture = rebin(zs)
    yield picture
    for weights in ("charge", "unit"):
        yield from points(rebin(edges)[0, ...], picture[0, ...], weights=weights)


def test_every_library_gives_the_same_bits(library):
    arrays = scene()
    expected = list(stages(*arrays))
    found = list(stages(*map(library.asarray, arrays)))
    assert len(expected) == len(found)
    for ours, theirs in zip(found, expected, strict=True):
        assert namespace(ours) is namespace(found[0])
        ours = to_host(ours)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_namespace_is_that_of_the_array(library):
    assert namespace(library.asarray([1.0])).__name__.partition(".")[0] == library.__name__


def test_namespace_of_something_else():
    with pytest.raises(TypeError, match="a list is not an array"):
        namespace([1.0])
