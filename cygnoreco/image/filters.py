"""Filters that look at a pixel's neighbours: median, rebinning and the noise filter."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from cygnoreco._xp import namespace
from cygnoreco.errors import InputError
from cygnoreco.kernels.points import survivors
from cygnoreco.stage import stage


@stage(name="median", version=1)
def median(zs: NDArray[np.float64], *, enabled: bool = True) -> NDArray[np.float64]:
    """Replace a pixel by the upper median of the 2 x 2 pixels that end at it.

    The window of pixel (i, j) is {i-1, i} x {j-1, j}, the image is mirrored at its edge (row -1 is row 0), and the
    upper median is the third smallest of the four: ``scipy.ndimage.median_filter(zs, size=2)``.

    Parameters
    ----------
    zs : ndarray, shape (..., H, W), float64
        Zero-suppressed image.
    enabled : bool
        Filter at all.

    Returns
    -------
    ndarray, shape (..., H, W), float64
    """
    if not enabled:
        return zs
    xp = namespace(zs)
    left = xp.concat((zs[..., :1], zs[..., :-1]), axis=-1)
    low, high = xp.minimum(left, zs), xp.maximum(left, zs)
    low_above = xp.concat((low[..., :1, :], low[..., :-1, :]), axis=-2)
    high_above = xp.concat((high[..., :1, :], high[..., :-1, :]), axis=-2)
    # Of two ordered pairs the largest of the four is the larger high; what remains of the four without it has its
    # largest among the smaller high and the two lows.
    return xp.maximum(xp.maximum(low_above, low), xp.minimum(high_above, high))


@stage(name="rebin", version=1)
def rebin(image: NDArray[np.float64], *, factor: Annotated[int, Ge(1)] = 4) -> NDArray[np.float64]:
    """Average square blocks of pixels into macro-pixels.

    The average is that of each row of a block, added from left to right, and then of these from top to bottom: the
    order of the experiment's program. A weight is this number cut to a whole one, so even its last bit matters.

    Parameters
    ----------
    image : ndarray, shape (..., H, W), float64
        Image whose sides are multiples of ``factor``.
    factor : int
        Pixels of a macro-pixel on a side.

    Returns
    -------
    ndarray, shape (..., H / factor, W / factor), float64

    Raises
    ------
    InputError
        The sides of the image are not multiples of the factor.
    """
    height, width = image.shape[-2:]
    if height % factor or width % factor:
        raise InputError(f"rebin.factor = {factor} does not divide the image of {height} x {width} pixels")
    rows = image[..., 0::factor]
    for k in range(1, factor):
        rows = rows + image[..., k::factor]
    rows = rows / factor
    blocks = rows[..., 0::factor, :]
    for k in range(1, factor):
        blocks = blocks + rows[..., k::factor, :]
    return blocks / factor


@stage(name="noise", version=1)
def noise_filter(
    edges: NDArray[np.float64],
    *,
    difference: Annotated[float, Ge(0)] = 10.0,
    min_average: Annotated[float, Ge(0)] = 1.2,
    min_neighbours: Annotated[int, Ge(0)] = 3,
) -> NDArray[np.float64]:
    """Remove macro-pixels that stand alone.

    The filter of the experiment walks over the image in raster order *in place*: the neighbours above and to the left
    of a macro-pixel are already filtered when it is judged. This makes it far more selective than the same rules
    applied at once, and is therefore kept. The two outermost rows and columns are cleared first; row and
    column 1 are then judged like the others, the last two are not. Neighbours and their average are float32, added
    column by column from the upper left. The walk is that of the kernel which the chain runs; the independent form of
    these rules, with which both are compared, is in the tests.

    Parameters
    ----------
    edges : ndarray, shape (..., h, w), float64
        Rebinned image; not changed.
    difference : float
        A macro-pixel this much away, ADU, from the average of its eight neighbours takes that average.
    min_average : float
        With neighbours of a lower average, ADU, it is set to zero. 1.3 at LNF, 1.1 for MANGO and simulation.
    min_neighbours : int
        So is it with fewer macro-pixels than this different from zero among the nine.

    Returns
    -------
    ndarray, shape (..., h, w), float64
    """
    filtered = np.zeros(edges.shape)
    height, width = edges.shape[-2:]
    for image, result in zip(edges.reshape(-1, height, width), filtered.reshape(-1, height, width), strict=True):
        rows, cols, values = survivors(image, difference, min_average, min_neighbours, -np.inf)
        result[rows, cols] = values
    return filtered
