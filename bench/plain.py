"""The same work as one would write it with NumPy, SciPy, scikit-learn and zlib: what the library is compared with.

These are no straw men: every function is the short, vectorised form. Where one does less than the library (no skeleton
of a cluster, no peaks of its profile) that is said.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, curve_fit

from bench.scenes import Prepared
from cygnoreco.image.correct import accept, subtract, suppress, totals, upper_cut
from cygnoreco.image.filters import median, rebin
from cygnoreco.types import Frames

#: Compressed bytes inflated at a time: what comes out of them stays in the cache, and in memory that is used again.
_PIECE = 32 << 10


def section(frame: Frames, prepared: Prepared) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Do the image section of one frame by the plain stages: picture and edges."""
    recipe, calibration = prepared.recipe, prepared.calibration
    sub = subtract(upper_cut(frame, **recipe["upper_cut"]), calibration.maps[0])
    zs = accept(suppress(sub, calibration.maps[1], **recipe["suppress"]), **recipe["accept"])
    totals(zs)
    frame.sum(dtype=np.uint64)
    return rebin(zs, **recipe["rebin"]), rebin(median(zs), **recipe["rebin"])


def noise_and_points(edges: NDArray[np.float64], picture: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
    """Remove macro-pixels whose eight neighbours are dim or few, all at once and not in place; list what is left."""
    image = edges.astype(np.float32)
    ring, alive = np.zeros_like(image), np.zeros(image.shape, np.uint8)
    lit = image != 0
    height, width = image.shape
    for row in (0, 1, 2):
        for col in (0, 1, 2):
            window = np.s_[row : height - 2 + row, col : width - 2 + col]
            alive[1:-1, 1:-1] += lit[window]
            if (row, col) != (1, 1):
                ring[1:-1, 1:-1] += image[window]
    ring *= 0.125
    image[(ring < 1.2) | (alive < 3)] = 0
    rows, cols = np.nonzero(np.where(np.abs(image - ring) > 10, ring, image) > 0.5)
    return rows, cols, np.maximum(picture[rows, cols].astype(np.int32), 1)


def dbscan(rows: NDArray[Any], cols: NDArray[Any], weights: NDArray[Any], eps: float, min_samples: int) -> Any:
    """DBSCAN of scikit-learn with its fastest index for points in a plane; labels."""
    from sklearn.cluster import DBSCAN

    search = DBSCAN(eps=eps, min_samples=min_samples, metric="manhattan", algorithm="kd_tree")
    return search.fit(np.column_stack((rows, cols)), sample_weight=weights).labels_


def variables(image: NDArray[np.float64], rows: NDArray[Any], cols: NDArray[Any], labels: NDArray[Any]) -> list[Any]:
    """Measure every cluster with NumPy, and fit its profiles with SciPy.

    Sums, barycentre, axes, profile along and across, a Gaussian fit of each; no skeleton, peaks or saved pixels, and no
    exceptions for clusters that are small, faint or saturated.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Corrected image.
    rows, cols, labels : ndarray, shape (n,)
        Macro-pixels and their clusters, -1 for none.
    """
    found = []
    side = np.arange(4)
    for label in range(labels.max(initial=-1) + 1):
        own = labels == label
        y = np.broadcast_to(4 * rows[own, None, None] + side[:, None], (own.sum(), 4, 4)).ravel()
        x = np.broadcast_to(4 * cols[own, None, None] + side, (own.sum(), 4, 4)).ravel()
        z = image[y, x]
        weights = np.maximum(z, 0)
        centre = np.average((x, y), axis=1, weights=weights)
        dx, dy = x - centre[0], y - centre[1]
        _, axes = np.linalg.eigh(np.cov(dx, dy, aweights=weights))
        values = [z.sum(), z.std(), z.size, np.sqrt((z * z).mean()), *centre, x.min(), x.max(), y.min(), y.max()]
        for axis, width in ((axes[:, 1], 4.0), (axes[:, 0], 1.0)):
            values += _profile(axis[0] * dx + axis[1] * dy, z, width)
        found.append(values)
    return found


def _profile(along: NDArray[np.float64], z: NDArray[np.float64], width: float) -> list[float]:
    """Histogram of the light along an axis, its mean and width, and a Gaussian fit."""
    edges = np.arange(along.min(), along.max() + 2 * width, width)
    light, _ = np.histogram(along, edges, weights=z)
    middle = (edges[1:] + edges[:-1]) / 2
    weights = np.maximum(light, 0) + 1e-9
    mean = float(np.average(middle, weights=weights))
    spread = float(np.sqrt(np.average((middle - mean) ** 2, weights=weights)))
    try:
        fit, _ = curve_fit(_gauss, middle, light, p0=(light.max(), mean, spread + 1e-3), maxfev=200)
    except (RuntimeError, TypeError, OptimizeWarning):  # no fit: too few bins, or a shape that is no Gaussian
        fit = (0.0, mean, spread)
    return [mean, spread, float(along.max() - along.min()), *map(float, fit)]


def _gauss(x: NDArray[np.float64], height: float, mean: float, sigma: float) -> NDArray[np.float64]:
    return height * np.exp(-0.5 * ((x - mean) / sigma) ** 2)


def pedestal(frames: Frames) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of every pixel, frame by frame so that memory stays that of a few frames."""
    sums, squares = np.zeros(frames.shape[1:]), np.zeros(frames.shape[1:])
    for frame in frames:
        values = frame.astype(np.float64)
        sums += values
        values *= values
        squares += values
    mean = sums / len(frames)
    return mean, np.sqrt((squares - sums * mean) / (len(frames) - 1))


def inflate_zlib(path: Path) -> int:
    """Inflate a gzip file with zlib; bytes that come out."""
    return _drain(path, zlib.decompressobj(zlib.MAX_WBITS | 16))


def inflate_isal(path: Path) -> int:
    """Inflate a gzip file with ISA-L, bare: nothing is looked at, kept or checked. The floor of every reader."""
    from isal import isal_zlib

    return _drain(path, isal_zlib.decompressobj(isal_zlib.MAX_WBITS | 16))


def _drain(path: Path, decoder: Any) -> int:
    return sum(len(decoder.decompress(piece)) for piece in _pieces(path))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
