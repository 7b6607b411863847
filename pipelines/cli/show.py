"""``cygnoreco show``: a frame with its clusters as a picture or a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.calib.find import find_pedestal
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import load_response
from cygnoreco.chain import Calibration, calibrate, check_camera, correct, reconstruct_block
from cygnoreco.dataset import load_tables
from cygnoreco.display.figure import show_png
from cygnoreco.display.outlines import cells_of_redpix
from cygnoreco.display.page import show_html
from cygnoreco.display.view import EventView
from cygnoreco.errors import InputError
from cygnoreco.raw import Run, open_run
from cygnoreco.recipe import Recipe
from cygnoreco.tables import Tables
from pipelines.cli import GOOD
from pipelines.cli.console import print_line


def show(
    what: str,
    pedestal: Path | None,
    vignetting: str | None,
    recipe: str,
    settings: list[str],
    reco: Path | None,
    out: Path | None,
    camera: str | None,
) -> int:
    """Draw one event; the parameters are the options of the command."""
    path, separator, number = what.rpartition(":")
    if not separator or not number.isdigit():
        raise InputError(f"'{what}' is not of the form RUN:EVENT, such as run05001.mid.gz:7")
    if pedestal is None:
        raise InputError("no pedestal: name a pedestal run, a saved pedestal or a folder of them with --pedestal")
    target = out or Path(f"{Path(path).name.partition('.')[0]}-event{int(number):04d}.png")
    if target.suffix not in (".png", ".html"):
        raise InputError(f"'{target}' must end in .png or .html")
    stored = load_tables(reco) if reco else None
    view = event_view(
        open_run(path),
        int(number),
        recipe=Recipe.load(recipe).override(settings),
        pedestal=pedestal,
        response=vignetting,
        camera=camera,
        stored=stored,
    )
    (show_html if target.suffix == ".html" else show_png)(view, target)
    print_line(target)
    return GOOD


def event_view(
    run: Run,
    event: int,
    *,
    recipe: Recipe,
    pedestal: Pedestal | str | Path,
    response: str | None = None,
    camera: str | None = None,
    stored: Tables | None = None,
) -> EventView:
    """Correct one frame and put its clusters with it.

    Parameters
    ----------
    run : Run
        The opened run.
    event : int
        Event number.
    recipe, pedestal, response, camera
        As for :func:`cygnoreco.reconstruct`.
    stored : Tables, optional
        A reconstructed run: its clusters are shown instead of those found now.

    Raises
    ------
    InputError
        No such event in the run or in the tables.
    """
    sensor = run.camera(camera)
    check_camera(recipe, sensor)
    frame = run.frame(event, camera)[np.newaxis]
    calibration = calibrate(
        find_pedestal(pedestal, run.number, sensor, orientation=recipe["orient"]["orientation"]),
        load_response(response or recipe.vignetting, sensor.shape, **recipe["response"]),
        recipe,
        run.source.origin,
    )
    tables = _event_of(stored, event) if stored else _found_now(run, frame, event, calibration, recipe, camera)
    factor, x_is_column = recipe["rebin"]["factor"], recipe["measure"]["axes"] == "xy"
    return EventView(
        image=correct(frame, calibration, recipe, run.source.origin)[0],
        clusters=tables.clusters,
        cells=cells_of_redpix(tables.redpix, tables.clusters["sc_redpixIdx"], rebin=factor, x_is_column=x_is_column),
        title=f"run {run.number} · event {event} · recipe {recipe.name}",
        rebin=factor,
        x_is_column=x_is_column,
    )


def _found_now(
    run: Run, frame: NDArray[Any], event: int, calibration: Calibration, recipe: Recipe, camera: str | None
) -> Tables:
    # The pixels of all clusters are kept, whatever the recipe saves: they give the outlines.
    every_pixel = recipe.override(["redpix.min_integral=0", "redpix.max_length=1e12", "redpix.max_pixels=1000000000"])
    table = run.table(camera)
    tables, _ = reconstruct_block(
        frame,
        table[table["event"] == event],
        calibration,
        every_pixel,
        origin=run.source.origin,
        run=run.number,
        pedestal_run=-1,
    )
    return tables


def _event_of(tables: Tables, event: int) -> Tables:
    found = np.flatnonzero(tables.events["event"] == event)
    if not len(found):
        raise InputError(f"no event {event} in the reconstructed file")
    return tables.rows(int(found[0]), int(found[0]) + 1)
