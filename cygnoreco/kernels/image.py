"""The image stages from the raw frame to the two rebinned images in one pass over memory.

``upper_cut``, ``subtract``, ``suppress``, ``accept``, ``median``, ``rebin``, the totals of the suppressed image and the
sum of the raw counts: bit for bit what the plain stages give one after the other, without any image of the
sensor's size in between. What makes it fast:

* The suppression is an integer comparison. Counts minus pedestal grows with the counts, so for every pixel there is
  one largest count that does not survive; it is looked up once per pedestal, rounding included. A pixel outside
  the acceptance gets a threshold that no count exceeds, and a saturated pixel that is to be dropped is above a ceiling.
* Pixels are worked on in *planes*: the first, second, third and fourth column of the macro-pixels. The sum of four
  neighbours from left to right, which vectors are bad at, becomes the sum of four planes, which they are good at, and
  the left neighbour of a plane is the plane before. Four counts are one 64-bit word, so that a plane comes out of
  the frame with a shift and a mask; the pedestal is put into planes once and for all (``Cuts.planes``).
* A strip of ``STRIP`` macro-columns at a time goes through all of it in the first-level cache. Everything about a strip
  lies in one array at distances known to the compiler, or else it could not tell that the parts do not overlap.
* Frames come in blocks: a band of rows is worked through for every frame of the block while the band's pedestal,
  four times the size of the frame's band, is still in the second-level cache.
* A mirrored view is read mirrored, row by row, with no mirrored copy of the frame.

``precision="float32"`` does the arithmetic in single precision, with twice as many numbers to a vector. Which pixels
survive is decided by the same integers, so that picture and edges differ by roundings only: at most 1e-5 of
their value plus 1e-4 ADU for a pedestal below 1000 ADU, and integral and squares by 1e-5 of theirs. In 30,000 points of
simulated frames 3 came or went by that, and 31 weights changed by one count; ``docs/recipes.md`` has the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cygnoreco.errors import InputError
from cygnoreco.kernels.scratch import aligned_empty, scratch
from cygnoreco.kernels.strips import (
    EDGES,
    PICTURE,
    PLANE_0,
    PLANE_3,
    ROW,
    STATE,
    STRIP,
    blocks_and_totals,
    expand,
    expand_narrow,
    flush,
    keep,
    medians,
    mirror_above,
    sum_row,
    turn,
)
from cygnoreco.types import Saturated

#: Side of a macro-pixel; the loops over a block are written out for it.
FACTOR = 4

#: Macro-pixel rows worked on for one frame before the next frame of the block takes its turn: pedestal, thresholds and
#: frame of 32 sensor rows are 0.9 MB (1.6 MB for the widest sensor), which fits a second-level cache.
BAND = 8

Precision = Literal["float64", "float32"]

_LARGEST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Cuts:
    """A pedestal made ready for the section, and which raw counts survive: threshold < counts <= ceiling.

    Attributes
    ----------
    threshold : ndarray, shape (H, W), uint16
        Largest counts of the pixel that do not survive.
    ceiling : int
        Largest counts that do.
    rows : tuple of int
        First row in which a pixel can survive, and the first after the last one.
    planes : ndarray, shape (H / 4, strips, 4, 4 STRIP), float64 or float32, or None
        Pedestal, ADU: the rows of a strip of a macro-pixel row, each as four planes; filled up with zeros on the right.
        Its type is the precision of the section. None where only the thresholds are wanted.
    """

    threshold: NDArray[np.uint16]
    ceiling: int
    rows: tuple[int, int]
    planes: NDArray[Any] | None


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
    precision: Precision = "float64",
    planes: bool = True,
    cimax: int = 5000,
    saturated: Saturated = "keep",
    nsigma: float = 0.6,
    xmin: int | None = 0,
    xmax: int | None = None,
    ymin: int | None = 304,
    ymax: int | None = 2054,
) -> Cuts:
    """Turn a pedestal and the parameters of three stages into integer cuts and planes; done once for all frames.

    Parameters
    ----------
    mean, rms : ndarray, shape (H, W), float64
        Oriented pedestal, ADU.
    precision : {'float64', 'float32'}
        In what the section computes.
    planes : bool
        Make ready for the section; else for the thresholds alone, on a sensor of any size.
    cimax, saturated
        Of the stage ``upper_cut``.
    nsigma
        Of the stage ``suppress``.
    xmin, xmax, ymin, ymax
        Of the stage ``accept``.

    Raises
    ------
    InputError
        With `planes`, sides that are not multiples of 4; a negative or undefined mean or rms: then a pixel of 0
        counts could survive, which integers cannot say.
    """
    if not (np.all(mean >= 0) and np.all(rms >= 0)):
        raise InputError("the pedestal has pixels whose mean or rms is negative or not a number")
    height, width = mean.shape
    if planes:
        _check_sides("a pedestal", height, width)
    first_row, last_row, _ = slice(ymin, ymax).indices(height)
    first_col, last_col, _ = slice(xmin, xmax).indices(width)
    threshold = np.full(mean.shape, _LARGEST, np.uint16)
    inside = (slice(first_row, last_row), slice(first_col, last_col))
    _largest_suppressed(mean[inside], rms[inside], float(nsigma), threshold[inside])
    ceiling = min(cimax - 1, _LARGEST) if saturated == "zero" else _LARGEST
    ready = _in_planes(mean, precision) if planes else None
    return Cuts(threshold, int(ceiling), (first_row, max(first_row, last_row)), ready)


def empty_section(frames: int, shape: tuple[int, int]) -> Section:
    """Memory for the results of so many frames of a shape (H, W), to be used again and again."""
    height, width = shape
    macro = (frames, height // FACTOR, width // FACTOR)
    picture, edges = aligned_empty(macro, np.float64), aligned_empty(macro, np.float64)
    return Section(picture, edges, np.empty(frames), np.empty(frames), np.empty(frames, np.uint64))


def image_section(
    frames: NDArray[np.uint16], cuts: Cuts, *, median: bool = True, out: Section | None = None
) -> Section:
    """Run the fused section over a block of frames.

    Parameters
    ----------
    frames : ndarray, shape (n, H, W), uint16
        Raw counts, oriented. Contiguous rows, or a mirrored view of such (``[..., ::-1]``), are read where they lie;
        anything else is copied first.
    cuts : Cuts
        From :func:`prepare_cuts`.
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
        Frames and pedestal differ in shape.
    """
    count, height, width = frames.shape
    if cuts.planes is None:
        raise InputError("cuts without planes: the fused section needs prepare_cuts(..., planes=True)")
    if cuts.threshold.shape != (height, width):
        pedestal = cuts.threshold.shape
        raise InputError(f"frames of {height} x {width} pixels and a pedestal of {pedestal[0]} x {pedestal[1]}")
    mirrored = frames.strides[-1] < 0
    frames = np.ascontiguousarray(frames[..., ::-1] if mirrored else frames)
    if out is None:
        out = empty_section(count, (height, width))
    out = Section(out.picture[:count], out.edges[:count], out.integral[:count], out.squares[:count], out.raw[:count])
    out.raw[:] = 0
    strips, precision = cuts.planes.shape[1], cuts.planes.dtype
    columns = scratch("image.columns", (count, strips, 2 * STRIP), np.float64)
    state = scratch("image.state", (count, strips, STATE), precision)
    columns.fill(0.0)
    state.fill(0.0)
    kept = scratch("image.kept", (FACTOR, strips * STRIP * FACTOR), np.uint16)
    kept.fill(0)
    memory = (
        kept,
        kept.view(np.uint64),
        kept.view(np.uint32),
        scratch("image.row", (width,), np.uint16),
        scratch("image.z", (FACTOR * ROW,), precision),
        state,
        columns,
    )
    pedestal = (cuts.planes, cuts.threshold, np.uint16(cuts.ceiling), precision == np.float32)
    _section(frames, mirrored, pedestal, cuts.rows, median, (out.picture, out.edges, out.raw), memory)
    # From left to right, as the plain form does; the columns that fill up the last strip are zeros.
    sums, squares = columns[:, :, :STRIP], columns[:, :, STRIP:]
    for total, each in ((out.integral, sums), (out.squares, squares)):
        total[:] = np.cumsum(each.reshape(count, math.prod(each.shape[1:])), axis=-1)[:, -1]
    return out


def _check_sides(what: str, height: int, width: int) -> None:
    if height % FACTOR or width % FACTOR:
        raise InputError(f"{what} of {height} x {width} pixels: the sides must be multiples of {FACTOR}")


def _in_planes(mean: NDArray[np.float64], precision: Precision) -> NDArray[Any]:
    """Put a pedestal into planes (see ``Cuts.planes``)."""
    height, width = mean.shape
    macro_width = width // FACTOR
    strips = -(-macro_width // STRIP)
    planes = aligned_empty((height // FACTOR, strips, FACTOR, FACTOR * STRIP), precision)
    planes.fill(0.0)
    for strip in range(strips):
        columns = slice(FACTOR * strip * STRIP, min(FACTOR * (strip + 1) * STRIP, width))
        for plane in range(FACTOR):
            part = mean[:, columns][:, plane::FACTOR].reshape(height // FACTOR, FACTOR, -1)
            planes[:, strip, :, plane * STRIP : plane * STRIP + part.shape[-1]] = part
    return planes


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
    frames: Any, mirrored: bool, pedestal: Any, live_rows: Any, with_median: bool, results: Any, memory: Any
) -> None:
    count, height, _ = frames.shape
    narrow = pedestal[3]
    picture, edges, raw = results
    state, columns = memory[5], memory[6]
    bands = range(0, height // FACTOR, BAND)
    for band in bands:
        last = min(band + BAND, height // FACTOR)
        for n in range(count):
            for row in range(band, last):
                # The median of the row just below the acceptance still sees its last row, hence > and not >=.
                if 4 * row + 3 < live_rows[0] or 4 * row > live_rows[1]:
                    for y in range(4 * row, 4 * row + 4):
                        raw[n] += sum_row(frames[n, y])
                    picture[n, row, :] = 0.0
                    edges[n, row, :] = 0.0
                else:
                    outputs = (picture[n, row], edges[n, row], raw[n : n + 1])
                    _macro_row(frames[n], mirrored, row, pedestal, with_median, outputs, memory, state[n])
            # In double precision the sums go down the whole column one by one, as in the plain form; in single
            # precision they would lose digits.
            if narrow or last == height // FACTOR:
                flush(state[n], columns[n])


@njit(nogil=True, cache=True)
def _macro_row(
    frame: Any, mirrored: bool, row: int, pedestal: Any, with_median: bool, results: Any, memory: Any, state: Any
) -> None:
    """Four rows of a frame, and with them one row of macro-pixels."""
    planes, threshold, ceiling, narrow = pedestal
    picture, edges, raw = results
    kept, words, halves, turned, z = memory[0], memory[1], memory[2], memory[3], memory[4]
    for k in range(4):
        counts = frame[4 * row + k]
        if mirrored:
            turn(counts, turned)
            counts = turned
        raw[0] += keep(counts, threshold[4 * row + k], ceiling, kept[k])
    for strip in range(planes.shape[1]):
        start = strip * STRIP
        stop = min(start + STRIP, len(picture))
        for k in range(4):
            line = z[k * ROW : (k + 1) * ROW]
            before = line[PLANE_3 + STRIP - 1]
            if narrow:
                expand_narrow(halves[k, 2 * start : 2 * (start + STRIP)], planes[row, strip, k], line)
            else:
                expand(words[k, start : start + STRIP], planes[row, strip, k], line)
            # Left of the image lies its mirror image.
            line[PLANE_3 - 1] = line[PLANE_0] if strip == 0 else before
        if row == 0:
            mirror_above(z, state[strip])
        blocks_and_totals(z, state[strip])
        picture[start:stop] = state[strip, PICTURE : PICTURE + stop - start]
        if with_median:
            medians(z, state[strip])
            edges[start:stop] = state[strip, EDGES : EDGES + stop - start]
        else:
            edges[start:stop] = picture[start:stop]
