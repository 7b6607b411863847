"""The response of the lens (vignetting): how much less light the corners of the sensor get than its centre."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cygnoreco.calib._files import contents, histograms, read_archive, two_dimensional, write_archive
from cygnoreco.errors import InputError
from cygnoreco.stage import stage

_KIND = "cygnoreco response 1"


@dataclass(frozen=True, eq=False)
class Response:
    """Factor that makes up for the fall-off of the light, in the orientation of the recipe's images.

    Attributes
    ----------
    factor : ndarray, shape (H, W), float64
        Inverse of the relative response of each pixel; 0 where a recipe leaves a pixel out. Read-only.
    name : str
        Where it comes from, for people: a path, ``none`` or ``generated:...``.

    Raises
    ------
    InputError
        A factor that is negative or not finite.
    """

    factor: NDArray[np.float64]
    name: str

    def __post_init__(self) -> None:
        factor = np.ascontiguousarray(self.factor, np.float64).view()
        if factor.ndim != 2 or not (factor.min() >= 0 and factor.max() < np.inf):
            raise InputError(f"lens response '{self.name}': not an image of finite, non-negative factors")
        factor.flags.writeable = False
        object.__setattr__(self, "factor", factor)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what results depend on, hexadecimal: the factors and their shape."""
        digest = hashlib.sha256(f"response {self.factor.shape}".encode())
        digest.update(self.factor.data)
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write it to a file of our format (``.npz``): same response, same bytes."""
        write_archive(path, _KIND, factor=self.factor, name=self.name)


@stage(name="response", version=1)
def expand_response(
    relative: NDArray[np.float64],
    shape: tuple[int, int],
    *,
    edge: Literal["extend", "zero"] = "extend",
    histogram: str = "normmap_lime",
) -> NDArray[np.float64]:
    """Expand a coarse map of the relative response to a correction factor for every pixel.

    A cell of the map covers a whole number of pixels, as in the experiment's program: 2304 // 287 = 8 for the LIME
    map, although its bins are 8.03 px wide.

    Parameters
    ----------
    relative : ndarray, shape (h, w), float64
        Relative response, about 1 at the centre; axis 0 along the rows of the image.
    shape : tuple of int
        (H, W) of the sensor.
    edge : {'extend', 'zero'}
        What becomes of the last rows and columns where the cells do not reach the end of the sensor: ``extend``
        repeats the last cell, ``zero`` (winter23) makes their factor 0, which erases the charge there.
    histogram : str
        Name of the TH2 in the experiment's file; ``normmap`` is taken where it is absent.

    Returns
    -------
    ndarray, shape (H, W), float64
        1 / relative response.

    Raises
    ------
    InputError
        A cell without a positive response, or a map that does not fit the sensor: finer than its pixels, or with more
        than one cell missing at the end.
    """
    unusable = ~((relative > 0) & (relative < np.inf))
    if unusable.any():
        row, column = np.argwhere(unusable)[0]
        raise InputError(
            f"lens response: {np.count_nonzero(unusable)} cells are not positive numbers, "
            f"the first is {relative[row, column]} at row {row}, column {column}"
        )
    rows, columns = (_cells(cells, pixels) for cells, pixels in zip(relative.shape, shape, strict=True))
    factor = (1.0 / np.asarray(relative, np.float64))[
        np.ix_(np.minimum(rows, relative.shape[0] - 1), np.minimum(columns, relative.shape[1] - 1))
    ]
    if edge == "zero":
        factor[rows == relative.shape[0], :] = 0.0
        factor[:, columns == relative.shape[1]] = 0.0
    return factor


def _cells(cells: int, pixels: int) -> NDArray[np.intp]:
    """Cell of every pixel along one axis; one too large where the cells have ended."""
    side = pixels // cells
    if side == 0 or pixels - side * cells > side:
        raise InputError(f"lens response: {cells} cells do not fit {pixels} pixels of the sensor")
    return np.arange(pixels) // side


def flat_response(shape: tuple[int, int]) -> Response:
    """Response of a lens without vignetting: every factor is 1."""
    return Response(np.ones(shape), "none")


@lru_cache(maxsize=2)  # it is read-only, and a third of a second that the driver and its own blocks both need
def generated_response(shape: tuple[int, int], *, corner: float = 0.22) -> Response:
    """Response of a simple model of a wide-open lens. It is a formula of ours, not a measurement.

    The relative response falls with the square of the distance from the centre of the sensor, from 1 to ``corner`` at
    its corners. With 0.22 it resembles the LIME lens, whose published map falls from 1 to 0.22; for physics take
    the map measured for the detector.

    Parameters
    ----------
    shape : tuple of int
        (H, W) of the sensor.
    corner : float
        Relative response in the corners, above 0.
    """
    height, width = shape
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    # In units of pixels the distance would be the same for both axes; the diagonal sets the scale.
    factor = ((y * height) ** 2)[:, None] + ((x * width) ** 2)[None, :]
    # In one array: memory for three of them would take longer to get than the formula to work out.
    factor *= 1 - corner
    factor /= height**2 + width**2
    np.subtract(1, factor, out=factor)
    np.divide(1, factor, out=factor)
    return Response(factor, "generated:lime")


def load_response(
    source: str | Path,
    shape: tuple[int, int],
    *,
    edge: Literal["extend", "zero"] = "extend",
    histogram: str = "normmap_lime",
) -> Response:
    """Find the lens response that a name or a path stands for.

    Parameters
    ----------
    source : path-like
        ``none`` (flat), ``generated:lime`` (:func:`generated_response`), a file of :meth:`Response.save`, or a
        ROOT file of the experiment with a TH2, x = column and y = row of the image.
    shape : tuple of int
        (H, W) of the sensor.
    edge, histogram
        Of the stage ``response``.

    Raises
    ------
    InputError
        No such name or file, or a map that is unusable or not for this sensor.
    """
    if str(source) == "none":
        return flat_response(shape)
    if str(source) == "generated:lime":
        return generated_response(shape)
    path = Path(source)
    if not path.is_file():
        raise InputError(f"no lens response '{source}'; valid: none, generated:lime, or the path of a file")
    with path.open("rb") as stream:
        is_root = stream.read(4) == b"root"
    if not is_root:
        arrays = read_archive(path, _KIND)
        if arrays["factor"].shape != tuple(shape):
            raise InputError(f"'{path}' is for a sensor of {arrays['factor'].shape} pixels, expected {tuple(shape)}")
        return Response(arrays["factor"], str(arrays["name"]))
    with histograms(path) as file:
        relative = contents(two_dimensional(file, path, histogram, "normmap"))
    try:
        factor = expand_response(relative, shape, edge=edge)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error
    return Response(factor, str(path))
