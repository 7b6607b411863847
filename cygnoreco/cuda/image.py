"""From raw frames to points, and the pixels behind them, for all frames of a block at once.

The definitions are those of :mod:`cygnoreco.image`; every result has the bits of the plain stages. All arrays are of
the program's ``xp``, on its device, unless a name says ``host``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cygnoreco.cuda.program import Program
from cygnoreco.errors import InputError
from cygnoreco.kernels.image import FACTOR, Cuts, Section

#: Macro-pixels in a tile of the section's kernel, along rows and columns; frames that are judged row by row have at
#: most so many columns.
_TILE, _MAX_COLUMNS = (8, 32), 8192
#: Rows of macro-pixels whose ring fits the shared memory, and steps that the ring holds.
_RING_ROWS, _RING = 704, 16


@dataclass(frozen=True)
class Maps:
    """Calibration of a camera on the device, in the orientation of the recipe's images.

    Attributes
    ----------
    mean, rms, response : ndarray, shape (H, W), float64
        Pedestal, its noise (ADU) and the factor that undoes the fall-off of the lens.
    threshold : ndarray, shape (H, W), uint16
        Largest counts of the pixel that do not survive (:class:`~cygnoreco.kernels.image.Cuts`).
    """

    mean: Any
    rms: Any
    response: Any
    threshold: Any


@dataclass(frozen=True)
class PixelRules:
    """Parameters of the stages before the filters, as the kernels take them.

    Attributes
    ----------
    factor : int
        Side of a macro-pixel, px.
    cimax : int
        Counts from which a pixel is saturated, ADU.
    saturated_to_zero : bool
        Whether it then counts nothing.
    nsigma : float
        Noise cut.
    window : tuple of int
        First row inside the acceptance, first row outside, and the same for the columns.
    polynomial : tuple of float or None
        Of the saturation correction, where it is on.
    mirrored : bool
        Whether columns of the image run against those of the frames.
    """

    factor: int
    cimax: int
    saturated_to_zero: bool
    nsigma: float
    window: tuple[int, int, int, int]
    polynomial: tuple[float, float, float, float] | None
    mirrored: bool

    @property
    def correction(self) -> tuple[float, float, float, float]:
        """Polynomial, or zeros where the correction is off."""
        return self.polynomial or (0.0, 0.0, 0.0, 0.0)


class PointsBlock(NamedTuple):
    """Points of n frames, in raster order frame after frame.

    Attributes
    ----------
    rows, cols, weights : ndarray, shape (m,), int32
        As :func:`cygnoreco.image.points.points` lists them.
    frames : ndarray, shape (m,), int32
        Frame of every point.
    offsets : ndarray, shape (n + 1,), int64
        Where the frames begin.
    host_offsets : ndarray, shape (n + 1,), int64
        The same on the host.
    """

    rows: Any
    cols: Any
    weights: Any
    frames: Any
    offsets: Any
    host_offsets: NDArray[np.int64]


class PatchesBlock(NamedTuple):
    """Pixels of g grouped points, r x r each.

    Attributes
    ----------
    rows, cols : ndarray, shape (g,), int32
        Macro-pixels in the order asked for.
    z, above, saturated : ndarray, shape (g, r, r), float64, bool, bool
        As :class:`cygnoreco.image.patches.Patches`.
    frame_saturated : ndarray, shape (n,), uint32
        1 for frames with a saturated pixel among them.
    """

    rows: Any
    cols: Any
    z: Any
    above: Any
    saturated: Any
    frame_saturated: Any


def pixel_rules(
    shape: tuple[int, int],
    *,
    mirrored: bool = False,
    factor: int = 4,
    cimax: int = 5000,
    saturated: Literal["keep", "zero"] = "keep",
    nsigma: float = 0.6,
    xmin: int | None = 0,
    xmax: int | None = None,
    ymin: int | None = 304,
    ymax: int | None = 2054,
    saturation: tuple[float, float, float, float] | None = None,
) -> PixelRules:
    """Collect the parameters of the stages for a sensor of a shape (H, W); names as in ``image.patches.patches``."""
    first_row, last_row, _ = slice(ymin, ymax).indices(shape[0])
    first_col, last_col, _ = slice(xmin, xmax).indices(shape[1])
    window = (first_row, last_row, first_col, last_col)
    return PixelRules(factor, cimax, saturated == "zero", float(nsigma), window, saturation, mirrored)


def upload_maps(
    program: Program,
    mean: NDArray[np.float64],
    rms: NDArray[np.float64],
    response: NDArray[np.float64],
    cuts: Cuts,
) -> Maps:
    """Put a calibration on the device; all maps (H, W) in the orientation of the recipe's images."""
    there = [program.xp.asarray(np.ascontiguousarray(each)) for each in (mean, rms, response, cuts.threshold)]
    return Maps(*there)


def section_block(program: Program, frames: Any, maps: Maps, rules: PixelRules, *, median: bool = True) -> Section:
    """From raw frames to the two rebinned images and the totals, as :func:`cygnoreco.kernels.image.image_section`.

    Parameters
    ----------
    program : Program
    frames : ndarray, shape (n, H, W), uint16
        In the orientation of the sensor: the kernels turn them.
    maps : Maps
    rules : PixelRules
        Any of them, the saturation correction and other sides than 4 included.
    median : bool
        Whether the stage ``median`` is enabled.

    Returns
    -------
    Section
        Of arrays on the device.

    Raises
    ------
    InputError
        Sides that are not multiples of the factor or, the width, of 4; or maps of another shape.
    """
    xp = program.xp
    n, height, width = frames.shape
    factor = rules.factor
    if height % factor or width % factor or width % FACTOR:
        raise InputError(
            f"frames of {height} x {width} pixels: the sides must be multiples of {factor}, the width of 4"
        )
    if maps.mean.shape != (height, width):
        raise InputError(f"frames of {height} x {width} pixels and a pedestal of {maps.mean.shape}")
    macro = (n, height // factor, width // factor)
    picture, edges = xp.empty(macro), xp.empty(macro)
    raw = xp.zeros(n, np.uint64)
    size = (height, width, rules.mirrored)
    ceiling = min(rules.cimax - 1, 65535) if rules.saturated_to_zero else 65535
    arguments: tuple[Any, ...]
    if rules.polynomial is None and factor == FACTOR:
        arguments = (frames, maps.mean, maps.threshold, ceiling, *size, median, picture, edges, raw)
        tiles = (-(-macro[2] // _TILE[1]), -(-macro[1] // _TILE[0]), n)
        program.launch("image_section", tiles, 256, *arguments)
    else:
        correction = rules.polynomial or (0.0, 1.0, 0.0, np.inf)  # one that begins nowhere
        arguments = (frames, maps.mean, maps.rms, rules.nsigma, ceiling, *rules.window, *correction, factor, *size)
        rows = (-(-macro[2] // 256), macro[1], n)
        program.launch("image_section_plain", rows, 256, *arguments, median, picture, edges, raw)

    columns = xp.empty((2, n, width // 4))
    arguments = (frames, maps.mean, maps.rms, maps.threshold, rules.nsigma, ceiling, *rules.window)
    arguments += (rules.polynomial is not None, *rules.correction, *size, columns[0], columns[1])
    program.launch("image_totals", (-(-(width // 4) // 64), n), 64, *arguments)
    integral, squares = xp.empty(n), xp.empty(n)
    program.launch("image_totals_across", n, 128, columns[0], columns[1], width // 4, integral, squares)
    return Section(picture, edges, integral, squares, raw)


def noise_block(
    program: Program, edges: Any, *, difference: float = 10.0, min_average: float = 1.2, min_neighbours: int = 3
) -> Any:
    """Filter images (n, h, w) as the stage ``noise`` does (:func:`cygnoreco.image.filters.noise_filter`)."""
    xp = program.xp
    n, height, width = edges.shape
    filtered = xp.zeros(edges.shape)
    memory = xp.empty(n * height * _RING if height > _RING_ROWS else 0, np.float32)
    threads = min(1024, -(-height // 32) * 32)
    cuts = (np.float32(difference), np.float32(min_average), min_neighbours)
    program.launch("image_noise_filter", n, threads, edges, height, width, *cuts, memory, filtered)
    return filtered


def points_block(
    program: Program, filtered: Any, picture: Any, vetoed: Any, *, weights: Literal["charge", "unit"] = "charge"
) -> PointsBlock:
    """List the points of n frames (stage ``points``); waits for the device once, to learn how many there are.

    Parameters
    ----------
    program : Program
    filtered, picture : ndarray, shape (n, h, w), float64
        Images after and before the filters.
    vetoed : ndarray, shape (n,), bool
        Frames without points, whatever they show.
    weights : {'charge', 'unit'}
        As of the stage.
    """
    xp = program.xp
    n, height, width = filtered.shape
    if width > _MAX_COLUMNS:
        raise InputError(f"an image of {width} columns of macro-pixels; the device takes at most {_MAX_COLUMNS}")
    counts = xp.empty(n * height, np.int32)
    program.launch("image_count", n * height, 128, filtered, vetoed, height, width, counts)
    ends = xp.cumsum(counts, dtype=np.int64)
    offsets = xp.concatenate((xp.zeros(1, np.int64), ends[height - 1 :: height]))
    host_offsets = program.to_host(offsets)
    m = int(host_offsets[-1])
    rows, cols, values, frames = (xp.empty(m, np.int32) for _ in range(4))
    arguments = (ends, height, width, weights == "charge", rows, cols, values, frames)
    program.launch("image_points", n * height if m else 0, 128, filtered, picture, vetoed, *arguments)
    return PointsBlock(rows, cols, values, frames, offsets, host_offsets)


def patches_block(
    program: Program, frames: Any, maps: Maps, rules: PixelRules, points: PointsBlock, order: Any
) -> PatchesBlock:
    """Cut the pixels of some points, ``order`` (g,) int64, out of the raw frames (n, H, W) and correct them.

    See :func:`cygnoreco.image.patches.patches`.
    """
    xp = program.xp
    n, height, width = frames.shape
    members, side = len(order), rules.factor
    rows, cols = xp.empty(members, np.int32), xp.empty(members, np.int32)
    shape = (members, side, side)
    z, above, saturated = xp.empty(shape), xp.empty(shape, np.bool_), xp.empty(shape, np.bool_)
    frame_saturated = xp.zeros(n, np.uint32)
    arguments: tuple[Any, ...] = (frames, maps.mean, maps.rms, maps.response)
    arguments += (rules.nsigma, rules.cimax, rules.saturated_to_zero, *rules.window)
    arguments += (rules.polynomial is not None, *rules.correction, side, height, width, rules.mirrored)
    arguments += (order, np.int64(members), points.rows, points.cols, points.frames)
    found = (rows, cols, z, above, saturated, frame_saturated)
    program.launch("image_patches", -(-members * side * side // 256), 256, *arguments, *found)
    return PatchesBlock(*found)


def redpix_block(
    program: Program,
    clusters: Any,
    begins: Any,
    pixels: int,
    offsets: Any,
    rows: Any,
    cols: Any,
    z: Any,
    *,
    rows_first: bool,
    decimals: int = 1,
) -> tuple[Any, Any, Any]:
    """Pixels of some clusters as the stage ``redpix`` saves them.

    Parameters
    ----------
    program : Program
    clusters, begins : ndarray, shape (s,), int64
        Clusters saved, and where their pixels begin among all that are.
    pixels : int
        Number of all pixels saved.
    offsets, rows, cols, z
        Where clusters begin, and their members.
    rows_first : bool
        Whether x is the row.
    decimals : int
        To which counts are rounded.

    Returns
    -------
    ix, iy, iz : ndarray, shape (pixels,), int32, int32, float32
    """
    xp = program.xp
    found = (xp.empty(pixels, np.int32), xp.empty(pixels, np.int32), xp.empty(pixels, np.float32))
    arguments = (z.shape[1], rows_first, 10.0**decimals, rows, cols, z)
    program.launch("image_redpix", len(clusters), 128, clusters, begins, offsets, *arguments, *found)
    return found
