"""The image stages from the raw frame to the two rebinned images in one pass over memory.

``upper_cut``, ``subtract``, ``suppress``, ``accept``, ``median``, ``rebin``, the totals of the suppressed image and the
sum of the raw counts: bit for bit what the plain stages give one after the other, without any image of the
sensor's size in between. What makes it fast:

* The suppression is an integer comparison. Counts minus pedestal grows with the counts, so for every pixel there is
  one largest count that does not survive; it is looked up once per pedestal, rounding included. A pixel outside
  the acceptance gets a threshold that no count exceeds, and a saturated pixel that is to be dropped is above a ceiling.
* Two suppressed rows are all that the median needs, one all that the block mean does: they stay in the L1 cache.
* Frames come in blocks: a band of rows is worked through for every frame of the block while the band's pedestal,
  four times the size of the frame's band, is still in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cygnoreco.errors import InputError
from cygnoreco.image.correct import Saturated

#: Side of a macro-pixel; the loops over a block are written out for it.
FACTOR = 4

#: Macro-pixel rows worked on for one frame before the next frame of the block takes its turn: pedestal, thresholds and
#: frame of 32 sensor rows are 0.9 MB (1.6 MB for the widest sensor), which fits a second-level cache.
BAND = 8

_LARGEST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Cuts:
    """Which raw counts survive upper cut, suppression and acceptance: threshold < counts <= ceiling.

    Attributes
    ----------
    threshold : ndarray, shape (H, W), uint16
        Largest counts of the pixel that do not survive.
    ceiling : int
        Largest counts that do.
    rows : tuple of int
        First row in which a pixel can survive, and the first after the last one.
    """

    threshold: NDArray[np.uint16]
    ceiling: int
    rows: tuple[int, int]


class Section(NamedTuple):
    """What the fused section makes of n frames of h x w macro-pixels.

    Attributes
    ----------
    picture : ndarray, shape (n, h, w), float64
        Rebinned suppressed image, ADU.
    edges : ndarray, shape (n, h, w), float64
        Rebinned median of it, ADU.
    integral, squares : ndarray, shape (n,), float64
        Totals of the suppressed image, ADU and ADU^2 (:func:`cygnoreco.image.correct.totals`).
    raw : ndarray, shape (n,), uint64
        Sum of the raw counts, ADU, what the spark veto asks for.
    """

    picture: NDArray[np.float64]
    edges: NDArray[np.float64]
    integral: NDArray[np.float64]
    squares: NDArray[np.float64]
    raw: NDArray[np.uint64]


def prepare_cuts(
    mean: NDArray[np.float64],
    rms: NDArray[np.float64],
    *,
    cimax: int = 5000,
    saturated: Saturated = "keep",
    nsigma: float = 0.6,
    xmin: int | None = 0,
    xmax: int | None = None,
    ymin: int | None = 304,
    ymax: int | None = 2054,
) -> Cuts:
    """Turn a pedestal and the parameters of three stages into integer cuts; done once for all frames.

    Parameters
    ----------
    mean, rms : ndarray, shape (H, W), float64
        Oriented pedestal, ADU.
    cimax, saturated
        Of the stage ``upper_cut``.
    nsigma
        Of the stage ``suppress``.
    xmin, xmax, ymin, ymax
        Of the stage ``accept``.

    Raises
    ------
    InputError
        A negative or undefined mean or rms: then a pixel of 0 counts could survive, which integers cannot say.
    """
    if not (np.all(mean >= 0) and np.all(rms >= 0)):
        raise InputError("the pedestal has pixels whose mean or rms is negative or not a number")
    height, width = mean.shape
    first_row, last_row, _ = slice(ymin, ymax).indices(height)
    first_col, last_col, _ = slice(xmin, xmax).indices(width)
    threshold = np.full(mean.shape, _LARGEST, np.uint16)
    inside = (slice(first_row, last_row), slice(first_col, last_col))
    _largest_suppressed(mean[inside], rms[inside], float(nsigma), threshold[inside])
    ceiling = min(cimax - 1, _LARGEST) if saturated == "zero" else _LARGEST
    return Cuts(threshold, int(ceiling), (first_row, max(first_row, last_row)))


def empty_section(frames: int, shape: tuple[int, int]) -> Section:
    """Memory for the results of so many frames of a shape (H, W), to be used again and again."""
    height, width = shape
    macro = (frames, height // FACTOR, width // FACTOR)
    return Section(np.empty(macro), np.empty(macro), np.empty(frames), np.empty(frames), np.empty(frames, np.uint64))


def image_section(
    frames: NDArray[np.uint16],
    mean: NDArray[np.float64],
    cuts: Cuts,
    *,
    median: bool = True,
    out: Section | None = None,
) -> Section:
    """Run the fused section over a block of frames.

    Parameters
    ----------
    frames : ndarray, shape (n, H, W), uint16
        Raw counts, oriented; H and W multiples of 4.
    mean : ndarray, shape (H, W), float64
        Oriented pedestal, ADU.
    cuts : Cuts
        From :func:`prepare_cuts` with the same pedestal.
    median : bool
        Whether the stage ``median`` is enabled; without it ``edges`` equals ``picture``.
    out : Section, optional
        Memory of at least n frames from :func:`empty_section`, overwritten.

    Returns
    -------
    Section
        Of n frames; views of ``out`` where given.

    Raises
    ------
    InputError
        Frames and pedestal differ in shape, or the sides are not multiples of 4.
    """
    count, height, width = frames.shape
    if height % FACTOR or width % FACTOR:
        raise InputError(f"frames of {height} x {width} pixels: the sides must be multiples of {FACTOR}")
    if mean.shape != (height, width) or cuts.threshold.shape != (height, width):
        raise InputError(f"frames of {height} x {width} pixels and a pedestal of {mean.shape[0]} x {mean.shape[1]}")
    if out is None:
        out = empty_section(count, (height, width))
    out = Section(out.picture[:count], out.edges[:count], out.integral[:count], out.squares[:count], out.raw[:count])
    out.raw[:] = 0
    block_columns = np.zeros((2, count, width // FACTOR))
    _section(
        np.ascontiguousarray(frames),
        np.ascontiguousarray(mean),
        np.ascontiguousarray(cuts.threshold),
        np.uint16(cuts.ceiling),
        cuts.rows,
        median,
        out,
        block_columns,
    )
    # From left to right, as the plain form does.
    out.integral[:] = np.cumsum(block_columns[0], axis=-1)[:, -1]
    out.squares[:] = np.cumsum(block_columns[1], axis=-1)[:, -1]
    return out


@njit(nogil=True, cache=True)
def _largest_suppressed(mean: Any, rms: Any, nsigma: float, threshold: Any) -> None:
    height, width = mean.shape
    for y in range(height):
        for x in range(width):
            limit = nsigma * rms[y, x]
            # The sum may be off by a rounding; the two loops ask the very question that the stage asks.
            counts = int(min(mean[y, x] + limit, 65535.0))
            while counts > 0 and np.float64(counts) - mean[y, x] > limit:
                counts -= 1
            while counts < 65535 and not np.float64(counts + 1) - mean[y, x] > limit:
                counts += 1
            threshold[y, x] = counts


@njit(nogil=True, cache=True)
def _section(
    frames: Any,
    mean: Any,
    threshold: Any,
    ceiling: Any,
    live_rows: Any,
    with_median: bool,
    out: Any,
    block_columns: Any,
) -> None:
    count, height, width = frames.shape
    pedestal = (mean, threshold, ceiling)
    # Column 0 repeats column 1: the mirrored edge that the median wants.
    above, here, medians = np.empty(width + 1), np.empty(width + 1), np.empty(width)
    for band in range(0, height // FACTOR, BAND):
        rows = (band, min(band + BAND, height // FACTOR))
        for n in range(count):
            results = (out.picture[n], out.edges[n], out.raw[n : n + 1], block_columns[0, n], block_columns[1, n])
            _band(frames[n], pedestal, live_rows, with_median, rows, above, here, medians, results)


@njit(nogil=True, cache=True)
def _band(
    frame: Any,
    pedestal: Any,
    live_rows: Any,
    with_median: bool,
    rows: Any,
    above: Any,
    here: Any,
    medians: Any,
    results: Any,
) -> None:
    """Work through some macro-pixel rows of one frame."""
    mean, threshold, ceiling = pedestal
    picture, edges, raw, sums, squares = results
    first_live, last_live = live_rows
    first, last = rows
    before = 4 * first - 1
    if first > 0 and first_live <= before < last_live:
        _suppress_row(frame[before], mean[before], threshold[before], ceiling, above)
    else:
        above[:] = 0.0
    for row in range(first, last):
        picture[row, :] = 0.0
        edges[row, :] = 0.0
        for y in range(4 * row, 4 * row + 4):
            # The median of the row just below the acceptance still sees its last row, hence > and not >=.
            if y < first_live or y > last_live:
                raw[0] += _sum_row(frame[y])
                above[:] = 0.0
                continue
            raw[0] += _suppress_row(frame[y], mean[y], threshold[y], ceiling, here)
            if y == 0:
                above[:] = here
            _add_blocks_and_totals(here, picture[row], sums, squares)
            if with_median:
                _median_row(above, here, medians)
                _add_blocks(medians, edges[row])
            above, here = here, above
        # A sixteenth is a power of two: multiplying by it is dividing by 4 twice, to the last bit.
        picture[row, :] *= 0.0625
        edges[row, :] *= 0.0625
        if not with_median:
            edges[row, :] = picture[row, :]


@njit(nogil=True, cache=True)
def _suppress_row(counts: Any, mean: Any, threshold: Any, ceiling: Any, zs: Any) -> Any:
    total = np.uint32(0)  # holds 65537 saturated pixels, and 32-bit lanes are twice as many as 64-bit ones
    for x in range(len(counts)):
        value = counts[x]
        total += np.uint32(value)
        zs[x + 1] = np.float64(value) - mean[x] if (value > threshold[x]) & (value <= ceiling) else 0.0
    zs[0] = zs[1]
    return np.uint64(total)


@njit(nogil=True, cache=True)
def _sum_row(counts: Any) -> Any:
    total = np.uint32(0)
    for x in range(len(counts)):
        total += np.uint32(counts[x])
    return np.uint64(total)


@njit(nogil=True, cache=True)
def _median_row(above: Any, here: Any, medians: Any) -> None:
    for x in range(len(medians)):
        low_above, high_above = min(above[x], above[x + 1]), max(above[x], above[x + 1])
        low_here, high_here = min(here[x], here[x + 1]), max(here[x], here[x + 1])
        medians[x] = max(max(low_above, low_here), min(high_above, high_here))


@njit(nogil=True, cache=True)
def _add_blocks(values: Any, blocks: Any) -> None:
    for block in range(len(blocks)):
        x = 4 * block
        blocks[block] += values[x] + values[x + 1] + values[x + 2] + values[x + 3]


@njit(nogil=True, cache=True)
def _add_blocks_and_totals(zs: Any, blocks: Any, sums: Any, squares: Any) -> None:
    for block in range(len(blocks)):
        x = 4 * block + 1
        a, b, c, d = zs[x], zs[x + 1], zs[x + 2], zs[x + 3]
        total = a + b + c + d
        blocks[block] += total
        sums[block] += total
        squares[block] += a * a + b * b + c * c + d * d
