"""A frame with its clusters as a matplotlib figure or a PNG file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from cygnoreco.display.outlines import outline
from cygnoreco.display.view import COLOUR_MAP, OUTLINE_COLOUR, EventView, colour_scale
from cygnoreco.io.atomic import atomic_write

WIDTH_IN = 12.0
PICTURE_IN = 7.9
LEFT_IN, ABOVE_IN, BELOW_IN = 0.75, 1.0, 0.6
DPI = 100
BAR_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
INK, FAINT = "#1c2330", "#66707f"


def frame_figure(view: EventView, *, numbered: int = 30, listed: int = 20) -> Figure:
    """Draw a frame, its clusters outlined and numbered, and a list of the largest ones.

    Parameters
    ----------
    view : EventView
        What to show.
    numbered, listed : int
        How many clusters get a number on the picture, and a line in the list; all are outlined.

    Returns
    -------
    matplotlib.figure.Figure
        With its own Agg canvas: nothing of pyplot's state is touched, and threads do not disturb each other.
    """
    image = view.macro_image()
    height, width = image.shape[0] * view.rebin, image.shape[1] * view.rebin
    tall = PICTURE_IN * height / width
    total = max(ABOVE_IN + tall + BELOW_IN, 5.0)
    figure = Figure(figsize=(WIDTH_IN, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def axes_at(left: float, wide: float) -> Axes:
        """Axes as tall as the picture; inches from the left."""
        return figure.add_axes((left / WIDTH_IN, 1 - (ABOVE_IN + tall) / total, wide / WIDTH_IN, tall / total))

    axes = axes_at(LEFT_IN, PICTURE_IN)
    shown = axes.imshow(
        image,
        norm=colour_scale(image),
        cmap=COLOUR_MAP,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),  # centres of pixels are whole numbers, row 0 on top
        interpolation="nearest",
    )
    _draw_clusters(axes, view, numbered)
    _draw_scales(axes, view)
    _draw_colours(figure, shown, axes_at(LEFT_IN + PICTURE_IN + 0.72, 0.14))
    _draw_list(figure, view, left=LEFT_IN + PICTURE_IN + 1.72, top=total - ABOVE_IN, total=total, listed=listed)
    figure.text(LEFT_IN / WIDTH_IN, 1 - 0.3 / total, view.title, fontsize=15, fontweight="bold", color=INK, va="center")
    return figure


def png(view: EventView, *, dpi: int = DPI) -> bytes:
    """Render :func:`frame_figure` as PNG; 1200 pixels wide at 100 dpi."""
    buffer = BytesIO()
    frame_figure(view).savefig(buffer, format="png", dpi=dpi, metadata={"Software": "cygnoreco"})
    return buffer.getvalue()


def show_png(view: EventView, path: str | Path, *, dpi: int = DPI) -> Path:
    """Write :func:`frame_figure` as a PNG file.

    Parameters
    ----------
    view : EventView
        What to show.
    path : str or Path
        File to make or replace.
    dpi : int
        Dots an inch; the figure is 12 inches wide.

    Returns
    -------
    Path
        The file.
    """
    with atomic_write(path) as partial:
        partial.write_bytes(png(view, dpi=dpi))
    return Path(path)


def _draw_clusters(axes: Axes, view: EventView, numbered: int) -> None:
    width = view.image.shape[1]
    shadow = [withStroke(linewidth=2.5, foreground="black")]
    for index in range(len(view.clusters)):
        cells = view.cells_or_box(index)
        known = bool(view.cells[index].rows.size)
        lines = outline(cells) * view.rebin - 0.5
        axes.add_collection(
            LineCollection(
                list(lines), colors=OUTLINE_COLOUR, linewidths=1.0, linestyles="solid" if known else "dashed"
            ),
            autolim=False,
        )
        if index < numbered:
            corner = int(
                np.argmax(cells.cols - cells.rows)
            )  # its upper right end, on the cluster and not just on its box
            x, y = (int(cells.cols[corner]) + 2) * view.rebin, (int(cells.rows[corner]) - 1) * view.rebin
            axes.text(
                min(x, width - 12),
                max(y, 50),
                str(index + 1),
                color="white",
                fontsize=10,
                fontweight="bold",
                ha="left" if x < width - 80 else "right",
                va="bottom",
                path_effects=shadow,
            )


def _draw_scales(axes: Axes, view: EventView) -> None:
    """Pixels below and on the left, millimetres above and on the right."""
    axes.set_xlabel("column / px", color=INK)
    axes.set_ylabel("row / px", color=INK)
    to_mm, to_px = (lambda px: px * view.pixel_mm), (lambda mm: mm / view.pixel_mm)
    above = axes.secondary_xaxis("top", functions=(to_mm, to_px))
    right = axes.secondary_yaxis("right", functions=(to_mm, to_px))
    above.set_xlabel("mm", color=FAINT)
    right.set_ylabel("mm", color=FAINT, labelpad=1)
    for scale, colour in ((axes, INK), (above, FAINT), (right, FAINT)):
        scale.tick_params(colors=colour, labelsize=9)


def _draw_colours(figure: Figure, shown: AxesImage, axes: Axes) -> None:
    bar = figure.colorbar(shown, cax=axes, extend="both", extendfrac=0.02)
    lowest, brightest = shown.get_clim()
    ticks = [tick for tick in BAR_TICKS if lowest <= tick <= brightest]  # the scale's own ticks crowd around zero
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks])
    bar.minorticks_off()
    bar.set_label("ADU a pixel (mean of macro-pixels)", color=INK)
    bar.outline.set_visible(False)


def _draw_list(figure: Figure, view: EventView, *, left: float, top: float, total: float, listed: int) -> None:
    """List the clusters right of the picture; positions in inches from the lower left corner."""
    count = len(view.clusters)
    heading = "no clusters" if not count else f"{count} cluster{'s' if count > 1 else ''}"
    columns = (0.12, 0.98, 1.5)

    def write(offset: float, line: float, text: str, **style: Any) -> None:
        figure.text((left + offset) / WIDTH_IN, (top - 0.12 - 0.235 * line) / total, text, va="center", **style)

    write(0, 0, heading, fontsize=11, fontweight="bold", color=INK)
    if not count:
        return
    for offset, name in zip(columns, ("#", "ADU", "mm"), strict=True):
        write(offset, 1.2, name, fontsize=9, color=FAINT, ha="right")
    for line, row in enumerate(view.clusters[:listed]):
        length = float(row["sc_length"]) * view.pixel_mm
        texts = (str(line + 1), f"{float(row['sc_integral']):,.0f}", f"{length:.1f}")
        for offset, text, weight in zip(columns, texts, ("bold", "normal", "normal"), strict=True):
            write(offset, line + 2.2, text, fontsize=9, color=INK, ha="right", fontweight=weight)
    if count > listed:
        write(0, listed + 2.4, f"and {count - listed} smaller", fontsize=9, color=FAINT)
    write(0, min(count, listed) + 3.5, "ADU: integral\nmm: length", fontsize=8, color=FAINT)
