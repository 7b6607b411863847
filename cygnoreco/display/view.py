"""What an event display shows, and the colours it shows it in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.colors import AsinhNorm
from numpy.typing import NDArray

from cygnoreco.display.outlines import Cells
from cygnoreco.types import CLUSTER_DTYPE, FloatArray

#: Perceptually uniform, and as clear to colour-blind eyes.
COLOUR_MAP = "inferno"
#: So many macro-pixels may be brighter than the brightest colour.
BURNT_OUT = 20
OUTLINE_COLOUR = "#5fe8e0"


@dataclass(frozen=True)
class EventView:
    """One frame with its clusters.

    Attributes
    ----------
    image : ndarray of float, shape (height, width)
        Corrected frame in ADU at full resolution, axis 0 = row.
    clusters : structured ndarray, shape (n,)
        Rows of ``CLUSTER_DTYPE``, in the order in which they are numbered (from 1).
    cells : sequence of Cells
        Macro-pixels of each cluster; a cluster without any (not saved) is shown by the box of its extremes.
    title : str
        Such as ``run 5001 · event 12 · recipe lime``.
    rebin : int
        Side of a macro-pixel in pixels; the image is shown in macro-pixels, too.
    pixel_mm : float
        Side of a pixel on the readout plane, in mm; LIME's if not given.
    x_is_column : bool
        False if x in the table is the row.
    """

    image: FloatArray
    clusters: NDArray[Any] = field(default_factory=lambda: np.empty(0, CLUSTER_DTYPE))
    cells: Sequence[Cells] = ()
    title: str = ""
    rebin: int = 4
    pixel_mm: float = 346.0 / 2304.0
    x_is_column: bool = True

    def __post_init__(self) -> None:
        if len(self.cells) != len(self.clusters):
            raise ValueError(f"{len(self.clusters)} clusters, but macro-pixels of {len(self.cells)}")
        if min(self.image.shape) < self.rebin:
            raise ValueError(f"an image of {self.image.shape} is less than one macro-pixel of {self.rebin}")

    def macro_image(self) -> FloatArray:
        """Means of rebin x rebin pixels; rows and columns that do not fill a macro-pixel are left out."""
        rows, cols = (side // self.rebin for side in self.image.shape)
        whole = self.image[: rows * self.rebin, : cols * self.rebin]
        return whole.reshape(rows, self.rebin, cols, self.rebin).mean(axis=(1, 3))

    def cells_or_box(self, index: int) -> Cells:
        """Macro-pixels of a cluster, or all of its box where they are not known."""
        if self.cells[index].rows.size:
            return self.cells[index]
        row = self.clusters[index]
        limits = [int(row[name]) // self.rebin for name in ("sc_ymin", "sc_ymax", "sc_xmin", "sc_xmax")]
        if not self.x_is_column:
            limits = limits[2:] + limits[:2]
        rows, cols = np.mgrid[limits[0] : limits[1] + 1, limits[2] : limits[3] + 1]
        return Cells(rows.ravel(), cols.ravel())


def colour_scale(macro_image: FloatArray) -> AsinhNorm:
    """Choose colours that show noise as dark and neither hide a faint track nor burn out a bright one.

    Linear around zero for a few standard deviations of the noise (from the median deviation, that tracks do not
    move), logarithmic above, up to all but the brightest few macro-pixels.

    Parameters
    ----------
    macro_image : ndarray of float
        Rebinned image, in ADU.

    Returns
    -------
    matplotlib.colors.AsinhNorm
        From below the noise to the brightest pixels.
    """
    values = macro_image[np.isfinite(macro_image)]
    if not values.size:
        return AsinhNorm(linear_width=1.0, vmin=0.0, vmax=1.0)
    centre = float(np.median(values))
    noise = 1.4826 * float(np.median(np.abs(values - centre)))
    noise = noise or float(values.std()) or 1.0  # zero suppression leaves more than half of them at zero
    burnt_out = min(BURNT_OUT, values.size)
    brightest = float(np.partition(values, -burnt_out)[-burnt_out])
    return AsinhNorm(linear_width=2.5 * noise, vmin=centre - noise / 2, vmax=max(brightest, centre + 30 * noise))
