"""What each difference between ``lime`` and ``winter23`` does, one at a time, on simulated frames of LIME.

Starts from ``lime``, changes one parameter to its value in ``winter23``, reconstructs the same frames again, and
compares: points, clusters, clusters that both have, and the columns that change most. A cluster is the same one if more
than half of the macro-pixels of the two together are in both, in the coordinates of the sensor.

The frames have something for every parameter: events of the demo run, alphas whose light passes the upper cut, crossing
and neighbouring tracks, spots in the last columns of the sensor, a frame of spots, and a discharge. Parameters that do
nothing alone are shown with the one that they need in both recipes.

Example: python -m bench.recipe_effects
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import Response, expand_response, generated_response
from cygnoreco.chain import calibrate, reconstruct_block
from cygnoreco.recipe import Recipe
from cygnoreco.tables import Tables
from cygnoreco.types import FRAME_DTYPE, Frames
from simulation.detector import Detector
from simulation.plan import demo_plan, grid_plan
from simulation.run import simulate_event
from simulation.tracks import Particle

#: Settings without which a parameter has nothing to act on; they hold in both of the recipes compared.
NEEDS = {
    "measure.pivot": ("measure.profile_bins=dropping",),
    "energy.matrix": ("energy.enabled=true",),
    "energy.coverage": ("energy.enabled=true",),
    "energy.path": ("energy.enabled=true",),
}
ALL = "all of them (winter23)"

#: Cells of the experiment's map of the LIME lens: eight pixels each, so that the last eight rows and columns have none.
MAP_CELLS = 287

EVENT_COLUMNS = ("cmos_integral", "cmos_mean", "cmos_rms")
#: Saved for every cluster, whatever its light, because pixels tell which clusters are the same.
EVERY_PIXEL = ("redpix.min_integral=0", "redpix.max_length=1e12")


@dataclass(frozen=True)
class Change:
    """How a column changes over the clusters (or events) that both recipes have.

    Attributes
    ----------
    column : str
        Its name.
    changed : float
        Fraction of the rows in which it changes by more than a millionth.
    median, largest : float
        Among those: difference over the larger of the two values; for ``sc_theta`` in degrees.
    """

    column: str
    changed: float
    median: float
    largest: float

    def __str__(self) -> str:
        unit, scale = (" deg", 1) if self.column == "sc_theta" else (" %", 100)
        return (
            f"`{self.column}` {_short(self.median * scale)}{unit} (max {_short(self.largest * scale)}{unit}) "
            f"in {100 * self.changed:.0f} %"
        )


@dataclass(frozen=True)
class Effect:
    """What one parameter does.

    Attributes
    ----------
    parameter : str
        ``stage.parameter``.
    lime, winter23 : object
        Its values.
    needs : tuple of str
        What else was set in both.
    entries, points, clusters : (int, int)
        Events, points and clusters with ``lime`` and with the parameter changed.
    matched, identical : int
        Clusters in both, and those of them with the very same macro-pixels.
    changes : tuple of Change
        Columns, those that change most first.
    """

    parameter: str
    lime: Any
    winter23: Any
    needs: tuple[str, ...]
    entries: tuple[int, int]
    points: tuple[int, int]
    clusters: tuple[int, int]
    matched: int
    identical: int
    changes: tuple[Change, ...]


def events_of(detector: Detector) -> list[tuple[tuple[Particle, ...], Detector]]:
    """Particles of each event, and the detector that sees them."""
    # Without the saturation of the GEMs, which the simulation puts far below the upper cut of the camera's counts.
    bright = replace(detector, saturation_adu=1e9)
    demo = demo_plan(6, detector=detector)[:5]
    alphas = [_alpha(600, 500, (0.6, 0.8, 0)), _alpha(1400, 1500, (0.2, -1, 0.3))]
    crossing = (
        Particle("muon", 1100, 1100, 20, direction=(1, 1, 0.1)),
        Particle("muon", 1100, 1100, 20, direction=(1, -1, 0.1)),
        Particle("muon", 900, 900, 20, direction=(0.05, 1, 0)),
    )
    # Pairs of straight tracks, one of which points at the other and ends before it: further away than the density
    # reaches, nearer than a track is followed.
    pointing = tuple(
        alpha
        for row, col, gap in ((450, 300, 90), (450, 900, 105), (450, 1500, 120), (1250, 300, 135), (1250, 900, 150))
        for alpha in (_alpha(row, col, (0, 1, 0), 30), _alpha(row + gap, col + 150, (1, 0, 0), 30))
    )
    edge = tuple(Particle("fe55", 400 + 150 * i, 2290 + i, 20) for i in range(10))
    faint = tuple(
        Particle("fe55", 400 + 110 * i, 200 + 170 * j, 25, energy_kev=0.12 + 0.04 * i)
        for i in range(14)
        for j in range(11)
    )
    return [
        *((event, detector) for event in demo),
        *(((alpha,), bright) for alpha in alphas),
        (tuple(alphas), bright),
        (crossing, detector),
        (pointing, detector),
        (edge, detector),
        (faint, detector),
        (grid_plan(1, detector=detector)[0], detector),
    ]


def _alpha(row: float, col: float, direction: tuple[float, float, float], z_cm: float = 2.0) -> Particle:
    return Particle("alpha", row, col, z_cm, 5300.0, direction)


def frames_of(detector: Detector, lens: NDArray[np.floating[Any]], seed: int) -> Frames:
    """Simulate the events, and a discharge: a frame with light everywhere."""
    frames = [
        simulate_event(particles, detector=seen_by, seed=seed, run=1, event=number, response=lens)[0]
        for number, (particles, seen_by) in enumerate(events_of(detector))
    ]
    return np.stack([*frames, frames[0] + np.uint16(150)])


def compare(
    parameter: str, values: tuple[Any, Any], tables: tuple[Tables, Tables], recipes: tuple[Recipe, Recipe], shown: int
) -> Effect:
    """Compare two reconstructions of the same frames."""
    here, there = (clusters_by_pixels(*each) for each in zip(tables, recipes, strict=True))
    pairs = list(match(here, there))
    one, other = (
        np.array([each[index] for each in pairs], int) for index in (0, 1)
    )  # rows of the two tables of clusters
    changes = [
        change
        for name in tables[0].clusters.dtype.names
        if name != "sc_redpixIdx"
        and (change := change_of(name, tables[0].clusters[name][one], tables[1].clusters[name][other]))
    ]
    _, first, second = np.intersect1d(tables[0].events["event"], tables[1].events["event"], return_indices=True)
    changes += [
        change
        for name in EVENT_COLUMNS
        if (change := change_of(name, tables[0].events[name][first], tables[1].events[name][second]))
    ]
    # The energy of a cluster is what people ask for first; the rest by how much it changes in how many clusters.
    changes.sort(key=lambda change: (change.column != "sc_integral", -change.changed * min(change.median, 1.0)))
    return Effect(
        parameter,
        *values,
        NEEDS.get(parameter, ()),
        *(
            (int(of[0]), int(of[1]))
            for of in (
                [len(each) for each in tables],
                [each.events["lp_len"].sum() for each in tables],
                [len(each.clusters) for each in tables],
            )
        ),
        matched=len(pairs),
        identical=sum(here[first] == there[second] for first, second in pairs),
        changes=tuple(changes[:shown]),
    )


def clusters_by_pixels(tables: Tables, recipe: Recipe) -> dict[int, frozenset[tuple[int, int, int]]]:
    """Macro-pixels (event, row, column of the sensor) of each cluster that has any, by its row in the table."""
    found = {}
    clusters, pixels = tables.cluster_offsets, tables.redpix_offsets
    rebin = recipe["rebin"]["factor"]
    for index, event in enumerate(tables.events["event"].tolist()):
        for row in range(clusters[index], clusters[index + 1]):
            if tables.clusters["sc_redpixIdx"][row] < 0:
                continue
            start = pixels[index] + int(tables.clusters["sc_redpixIdx"][row])
            own = tables.redpix[start : start + int(tables.clusters["sc_size"][row])]
            x, y = own["redpix_ix"] // rebin, own["redpix_iy"] // rebin
            rows, cols = (x, y) if recipe["measure"]["axes"] == "rowcol" else (y, x)
            if recipe["orient"]["orientation"] == "d03a058":
                cols = Detector().width // rebin - 1 - cols
            found[row] = frozenset((event, r, c) for r, c in zip(rows.tolist(), cols.tolist(), strict=True))
    return found


def match(
    here: dict[int, frozenset[tuple[int, int, int]]], there: dict[int, frozenset[tuple[int, int, int]]]
) -> Iterator[tuple[int, int]]:
    """Pairs of rows whose macro-pixels overlap by more than half: then there is at most one partner."""
    owner = {pixel: row for row, pixels in there.items() for pixel in pixels}
    for row, pixels in here.items():
        for other in {owner[pixel] for pixel in pixels if pixel in owner}:
            if len(pixels & there[other]) > 0.5 * len(pixels | there[other]):
                yield row, other


def change_of(column: str, here: NDArray[Any], there: NDArray[Any]) -> Change | None:
    """How a column changes; None if it does not."""
    here, there = here.astype(float), there.astype(float)
    if column == "sc_theta":  # an axis has no direction: 180 degrees are 0
        size = np.abs((there - here + 90) % 180 - 90)
    else:
        size = np.abs(there - here) / np.maximum(np.maximum(np.abs(here), np.abs(there)), 1e-12)
    changed = size > 1e-6
    if not changed.any():
        return None
    return Change(column, float(changed.mean()), float(np.median(size[changed])), float(size.max()))


def effects(frames: Frames, pedestal: Pedestal, relative: NDArray[np.float64], shown: int) -> Iterator[Effect]:
    """Effects of all parameters, one after the other, and of all together."""
    rows = np.zeros(len(frames), FRAME_DTYPE)
    rows["event"] = np.arange(len(frames))
    known: dict[tuple[str, ...], tuple[Tables, Recipe]] = {}

    def reconstructed(recipe: Recipe) -> tuple[Tables, Recipe]:
        response = Response(expand_response(relative, frames.shape[1:], **recipe["response"]), "simulated")
        calibration = calibrate(pedestal, response, recipe, "midas")
        tables, _ = reconstruct_block(frames, rows, calibration, recipe, origin="midas", run=1, pedestal_run=0)
        return tables, recipe

    lime, winter23 = Recipe.load("lime").override(EVERY_PIXEL), Recipe.load("winter23").override(EVERY_PIXEL)
    for where, here, there in lime.differences(winter23):
        needs = NEEDS.get(where, ())
        base = lime.override(needs)
        if needs not in known:
            known[needs] = reconstructed(base)
        value = json.dumps(there) if not isinstance(there, str) else there
        changed = reconstructed(base.override([f"{where}={value}"]))
        yield compare(where, (here, there), *zip(known[needs], changed, strict=True), shown=shown)
    yield compare(ALL, ("", ""), *zip(known[()], reconstructed(winter23), strict=True), shown=2 * shown)


def _short(value: float) -> str:
    """Two digits without an exponent."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def markdown(found: list[Effect]) -> str:
    """Format the effects as a table of a Markdown page."""
    lines = [
        "| parameter | points | clusters | in both (same pixels) | what changes most |",
        "|---|---|---|---|---|",
    ]
    for effect in found:
        name = effect.parameter if effect.parameter == ALL else f"`{effect.parameter}`"
        name += "".join(f", with `{setting}`" for setting in effect.needs)
        counts = (f"{a} → {b}" if a != b else str(a) for a, b in (effect.points, effect.clusters))
        what = "; ".join(map(str, effect.changes)) or "nothing"
        if effect.entries[0] != effect.entries[1]:
            what = f"entries {effect.entries[0]} → {effect.entries[1]}" + (f"; {what}" if effect.changes else "")
        lines.append(f"| {name} | {' | '.join(counts)} | {effect.matched} ({effect.identical}) | {what} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pedestal-frames", type=int, default=25)
    parser.add_argument("--columns", type=int, default=3, help="columns shown of each parameter")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    detector = Detector()
    lens = (1 / generated_response(detector.shape).factor).astype(np.float32)
    side = detector.height // MAP_CELLS
    relative = lens[side // 2 :: side, side // 2 :: side][:MAP_CELLS, :MAP_CELLS].astype(float)
    dark = (
        simulate_event((), detector=detector, seed=arguments.seed, run=0, event=event)[0][np.newaxis]
        for event in range(arguments.pedestal_frames)
    )
    pedestal = Pedestal.from_frames(dark)
    found = list(effects(frames_of(detector, lens, arguments.seed), pedestal, relative, arguments.columns))
    print(json.dumps([asdict(effect) for effect in found], indent=1) if arguments.json else markdown(found))


if __name__ == "__main__":
    main()
