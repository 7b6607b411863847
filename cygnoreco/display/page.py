"""A frame with its clusters as one HTML file that needs nothing else: no server, no network, no fonts."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template

import matplotlib
import numpy as np
from matplotlib.image import imsave

from cygnoreco.display.outlines import Cells, outline, row_runs
from cygnoreco.display.view import COLOUR_MAP, OUTLINE_COLOUR, EventView, colour_scale
from cygnoreco.io.atomic import atomic_write
from cygnoreco.types import CLUSTER_COLUMNS, FloatArray

#: Columns of the table: heading, unit, branch, decimals. Those in mm are in pixels in the branch.
TABLE = (
    ("integral", "ADU", "sc_integral", 0),
    ("energy", "keV", "sc_energy", 2),
    ("size", "px", "sc_size", 0),
    ("hits", "px", "sc_nhits", 0),
    ("length", "mm", "sc_length", 1),
    ("width", "mm", "sc_width", 1),
    ("\N{GREEK SMALL LETTER THETA}", "deg", "sc_theta", 1),
    ("x", "px", "sc_xmean", 1),
    ("y", "px", "sc_ymean", 1),
    ("rms", "ADU", "sc_rms", 1),
)


def html(view: EventView) -> str:
    """Make the page: the picture, the outlines as shapes to point at, the table of clusters.

    Parameters
    ----------
    view : EventView
        What to show.

    Returns
    -------
    str
        A complete HTML document with everything inside.
    """
    macro_image = view.macro_image()
    norm = colour_scale(macro_image)
    has_energy = bool((view.clusters["sc_energy"] > 0).any())
    table = [column for column in TABLE if column[2] != "sc_energy" or has_energy]
    meaning = {column.name: escape(column.description) for column in CLUSTER_COLUMNS}
    count = len(view.clusters)
    total = float(view.clusters["sc_integral"].sum()) if count else 0.0
    return Template(files("cygnoreco.display").joinpath("page.html").read_text()).substitute(
        title=escape(view.title or "event display"),
        summary="No clusters." if not count else f"{count} cluster{'s'[: count > 1]}, {total:,.0f} ADU together.",
        height=macro_image.shape[0] * view.rebin,
        width=macro_image.shape[1] * view.rebin,
        pixel_mm=view.pixel_mm,
        outline=OUTLINE_COLOUR,
        image=_png(np.asarray(norm(macro_image))),
        scale=_png(np.linspace(0, 1, 190)[None, :]),
        lowest=f"{norm.vmin:.0f}".replace("-0", "0"),
        highest=f"{norm.vmax:,.0f}",
        head="<th>#</th>"
        + "".join(f'<th title="{meaning[name]}">{label}<small>{unit}</small></th>' for label, unit, name, _ in table),
        rows="\n".join(
            f'<tr data-cluster="{index}"><td>{index}</td>'
            + "".join(
                f"<td>{float(row[name]) * (view.pixel_mm if unit == 'mm' else 1):,.{decimals}f}</td>"
                for _, unit, name, decimals in table
            )
            + "</tr>"
            for index, row in enumerate(view.clusters, 1)
        ),
        shapes="\n".join(_shape(view, index) for index in range(count)),
    )


def show_html(view: EventView, path: str | Path) -> Path:
    """Write :func:`html` to a file.

    Parameters
    ----------
    view : EventView
        What to show.
    path : str or Path
        File to make or replace.

    Returns
    -------
    Path
        The file.
    """
    with atomic_write(path) as partial:
        partial.write_text(html(view), encoding="utf-8")
    return Path(path)


def _shape(view: EventView, index: int) -> str:
    """Draw one cluster: its line, its area (to be pointed at) and its number."""
    cells = view.cells_or_box(index)
    kind = "" if view.cells[index].rows.size else ' class="box"'
    corner = int(np.argmax(cells.cols - cells.rows))
    x, y = int(cells.cols[corner] + 2) * view.rebin, int(cells.rows[corner] - 1) * view.rebin
    return (
        f'<g data-cluster="{index + 1}"{kind}><path class="area" d="{_area(cells, view.rebin)}"/>'
        f'<path class="edge" d="{_edge(cells, view.rebin)}"/>'
        f'<text class="number" x="{x}" y="{max(y, 50)}">{index + 1}</text></g>'
    )


def _edge(cells: Cells, rebin: int) -> str:
    # Whole pixels count from their centres, so a border lies half a pixel before its first pixel.
    points = outline(cells) * rebin - 0.5
    return "".join(f"M{x0:g} {y0:g}L{x1:g} {y1:g}" for (x0, y0), (x1, y1) in points)


def _area(cells: Cells, rebin: int) -> str:
    bars = row_runs(cells) * rebin - 0.5
    return "".join(f"M{left:g} {top:g}H{right:g}v{rebin}H{left:g}z" for top, left, right in bars)


def _png(fractions: FloatArray) -> str:
    """Colours of numbers from 0 to 1 as a PNG in base64."""
    buffer = BytesIO()
    imsave(buffer, matplotlib.colormaps[COLOUR_MAP](np.clip(fractions, 0, 1)), format="png")
    return b64encode(buffer.getvalue()).decode("ascii")
