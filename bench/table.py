"""The table of stages and the picture of where the time goes, for ``docs/performance.md``.

Every stage is measured beside its plain form (NumPy, SciPy, scikit-learn, zlib) and beside the floor of this machine:
the time that the bytes which the stage cannot avoid need at the measured bandwidth, or its operations at the measured
arithmetic, whichever is longer. The operations are counted by hand from the definitions (:data:`COUNTS`), so the
picture is right to a factor of two, which is enough for what it says.

Example
-------
python -m bench.table --write     renews docs/performance.md, docs/performance-table.json, docs/images/roofline.svg
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import cases, plain, scenes
from bench._common import FRAME_BYTES, Limits, Work, best_s, limits, machine, markdown, print_table
from cygnoreco.io.convert import PRESETS, convert

DOCS = Path(__file__).parents[1] / "docs"

_PIXELS = FRAME_BYTES // 2
_MACRO = _PIXELS // 16

#: Bytes that a stage cannot avoid, and operations (additions, comparisons, minima count as one each), for a frame and
#: for each point in it. The section reads the frame, and mean (8 bytes) and threshold (2) once a block of 8, and writes
#: two pictures of float64; per pixel it subtracts, compares twice, takes 7 minima and maxima, and adds 4 times. The
#: noise filter reads a picture and writes one; 8 additions and 5 comparisons. A point of DBSCAN asks 25 rows for
#: sums of weights (4 operations each) and joins its neighbours (about as much again). A macro-pixel of a cluster has 16
#: pixels of count, mean, rms and lens (26 bytes), and each is corrected, summed and put in two profiles: 40.
COUNTS: dict[str, tuple[float, float, float, float]] = {
    "image section": (FRAME_BYTES + 10 * _PIXELS / 8 + 16 * _MACRO, 14 * _PIXELS, 0, 0),
    "noise filter and points": (16 * _MACRO, 13 * _MACRO, 12, 0),
    "DBSCAN": (0, 0, 12, 200),
    "directional clustering": (0, 0, 12, 600),
    "cluster variables": (0, 0, 16 * 26, 16 * 40),
    "pedestal": (FRAME_BYTES + (4 + 8) * _PIXELS * 2 / 16, 3 * _PIXELS, 0, 0),
    "reading the Zarr copy": (2 * FRAME_BYTES, 0, 0, 0),
    "reading .mid": (FRAME_BYTES, 0, 0, 0),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: milliseconds a frame.

    Attributes
    ----------
    stage : str
        Its name in :data:`COUNTS`, if it is there.
    what : str
        Occupancy or level, empty if it does not matter.
    points : int
        Points of the frame.
    ours, plain : float
        Measured; plain is None where there is no form to compare with.
    floor : float
        See the module; None where it cannot be told.
    bound : str
        What the floor is made of: ``bytes``, ``arithmetic`` or the name of the function that was measured.
    bytes, operations : float
        What the floor was computed of.
    """

    stage: str
    what: str
    points: int
    ours: float
    plain: float | None = None
    floor: float | None = None
    bound: str = ""
    bytes: float = 0.0
    operations: float = 0.0

    @property
    def cells(self) -> tuple[object, ...]:
        """What the table shows."""
        name = f"{self.stage}, {self.what}" if self.what else self.stage
        faster = self.plain / self.ours if self.plain else None
        above = self.ours / self.floor if self.floor else None
        return name, self.points or None, self.plain, self.ours, faster, self.floor, self.bound, above


COLUMNS = ("CPU ms a frame", "points", "plain", "ours", "plain / ours", "floor", "made of", "ours / floor")


def measured_rows(folder: Path, here: Limits) -> list[Row]:
    """Measure every stage; ``folder`` takes the runs that are read."""
    rows = [*_reading(folder, here), _pedestal(here)]
    ours, by_plain = _ms(cases.section_ours(), cases.section_plain(), of=cases.BLOCK)
    rows.append(_row("image section", "blocks of 8", 0, ours, by_plain, here))
    for name in scenes.CLASSES:
        n = cases.scene(name).n_points
        stages = {key: 1e3 * value for key, value in cases.stages_s(name).items()}
        winter23 = {key: 1e3 * value for key, value in cases.stages_s(name, "winter23").items()}
        density, library = _ms(cases.dbscan_ours(name), cases.dbscan_plain(name))
        (directed,) = _ms(cases.directional_ours(name))
        noise, at_once = _ms(cases.noise_ours(name), cases.noise_plain(name))
        (numpy,) = _ms(cases.variables_plain(name))
        rows += [
            _row("noise filter and points", name, n, noise, at_once, here),
            _row("DBSCAN", name, n, density, library, here),
            _row("directional clustering", name, n, directed, None, here),
            _row("cluster variables", name, n, stages["variables"], numpy, here),
            _sum(
                "everything after inflation, `lime`", name, n, stages["all"], by_plain + at_once + library + numpy, here
            ),
            _sum("everything after inflation, `winter23`", name, n, winter23["all"], None, here),
        ]
    return sorted(rows, key=lambda row: [each.stage for each in rows].index(row.stage))


def _reading(folder: Path, here: Limits) -> list[Row]:
    frames = cases.scene("few", n=cases.BLOCK).frames
    n = len(frames)
    rows = []
    for level in (1, 6):
        path = folder / str(level) / "run05001.mid.gz"
        path.parent.mkdir()
        scenes.write_run(path, frames, level=level)
        works = (cases.read_ours(path), lambda p=path: plain.inflate_zlib(p), lambda p=path: plain.inflate_isal(p))
        ours, by_zlib, bare = (each / n for each in _ms(*works))
        rows.append(Row("reading `.mid.gz`", f"level {level}", 0, ours, by_zlib, bare, "bare ISA-L"))
    loose = scenes.write_run(folder / "run05001.mid", frames)
    for preset in PRESETS:
        copy = folder / f"{preset}.zarr"
        convert(loose, copy, preset=preset, cache=folder / "index")
        rows.append(_row("reading the Zarr copy", preset, 0, _ms(cases.read_ours(copy))[0] / n, None, here))
    rows.append(_row("reading .mid", "", 0, _ms(cases.read_ours(loose))[0] / n, None, here))
    return rows


def _pedestal(here: Limits, n: int = 16) -> Row:
    ours, by_numpy = _ms(cases.pedestal_ours(n), cases.pedestal_plain(n))
    return _row("pedestal", "without inflation", 0, ours / n, by_numpy / n, here)


def _ms(*works: Work, of: int = 1) -> list[float]:
    """Milliseconds of each, measured in turns; the first is of so many frames."""
    first, *others = (1e3 * each for each in best_s(works, 5))
    return [first / of, *others]


def _row(stage: str, what: str, points: int, ours: float, by_plain: float | None, here: Limits) -> Row:
    a_frame, operations, a_point, operations_a_point = COUNTS[stage]
    size, count = a_frame + a_point * points, operations + operations_a_point * points
    by_bytes, by_operations = size / here.read_gb_s / 1e6, count / here.vector_gops / 1e6
    bound = "bytes" if by_bytes > by_operations else "arithmetic"
    return Row(stage, what, points, ours, by_plain, max(by_bytes, by_operations), bound, size, count)


def _sum(stage: str, what: str, points: int, ours: float, by_plain: float | None, here: Limits) -> Row:
    """Row of a whole: its floor is the sum of those of its stages."""
    parts = [
        _row(name, what, points, 0, None, here)
        for name in ("image section", "noise filter and points", "DBSCAN", "cluster variables")
    ]
    return Row(stage, what, points, ours, by_plain, sum(part.floor or 0 for part in parts), "sum of stages")


def in_words(rows: list[Row], here: Limits) -> str:
    """Say where the time goes, with the numbers just measured."""

    def of(stage: str, what: str = "") -> Row:
        return next(row for row in rows if row.stage == stage and row.what == what)

    section, few = of("image section", "blocks of 8"), of("everything after inflation, `lime`", "few")
    crowded, variables = of("everything after inflation, `lime`", "crowded"), of("cluster variables", "crowded")
    inflation = of("reading `.mid.gz`", "level 1")
    slope = 1e3 * (crowded.ours - few.ours) / (crowded.points - few.points)
    return (
        f"A frame with few points takes {few.ours:.1f} ms after inflation, by itself; in blocks of 8 the image section "
        f"takes {section.ours:.1f} ms of it. Inflating `.mid.gz` takes {inflation.ours:.1f} ms, "
        f"{inflation.ours / (inflation.floor or 1):.2f} times a bare inflation by ISA-L. Its bits must be decoded one "
        f"after the other, so there is no more to be had from such files: a converted copy is the way out.\n\n"
        f"Every further point costs {slope:.2f} µs; measuring clusters is "
        f"{100 * variables.ours / crowded.ours:.0f} % of a crowded frame. Of these {variables.ours:.0f} ms its bytes "
        f"alone would need {variables.bytes / here.read_gb_s / 1e6:.2f} ms, and its operations "
        f"{variables.operations / here.vector_gops / 1e6:.2f} ms in vectors, "
        f"{variables.operations / here.scalar_gops / 1e6:.0f} ms each after the other: it is not memory that it waits "
        f"for. Faster memory would bring nothing there; vectors over the pixels of a cluster would, or a device with "
        f"many more threads.\n"
    )


def roofline(rows: list[Row], here: Limits, path: Path) -> None:
    """Draw speed against operations a byte under the roofs of this machine, and time a frame beside its floor."""
    import matplotlib

    matplotlib.use("svg" if path.suffix == ".svg" else "agg")
    matplotlib.rcParams["svg.hashsalt"] = "cygnoreco"  # the same names in every picture
    import matplotlib.pyplot as plt
    import numpy as np

    shown = [row for row in rows if row.operations and row.what not in ("few", "medium")]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=(1.1, 1), layout="constrained")
    intensity = np.geomspace(0.1, 1000, 100)
    left.plot(intensity, np.minimum(here.vector_gops, intensity * here.read_gb_s), "k-", label="memory, vectors")
    left.axhline(here.scalar_gops, color="k", ls=":", label="one dependent operation after the other")
    for index, row in enumerate(shown):
        place = row.operations / row.bytes, row.operations / row.ours / 1e6
        left.plot(*place, "o", color="C0")
        side = ("bottom", "top")[index % 2]  # two stages that lie side by side keep their names apart
        left.annotate(f"  {row.stage}  ", place, va=side, fontsize=8)
    left.set(
        ylim=(0.3, 2 * here.vector_gops),
        xscale="log",
        yscale="log",
        xlabel="operations a byte that must move",
        ylabel="10⁹ operations a second",
    )
    left.legend(fontsize=8, loc="upper left")
    timed = [row for row in rows if row.floor and row.what not in ("few", "medium")]
    names = [f"{row.stage}, {row.what}".strip(", ").replace("`", "") for row in timed]
    lines = np.arange(len(timed))
    right.barh(lines, [row.ours for row in timed], color="C0", label="ours")
    right.plot([row.floor for row in timed], lines, "k|", ms=12, mew=2, label="floor")
    with_plain = [(row.plain, at) for row, at in zip(timed, lines, strict=True) if row.plain]
    right.plot(*zip(*with_plain, strict=True), "x", color="C3", label="plain")
    right.set(xscale="log", xlabel="CPU ms a frame", yticks=lines)
    right.set_yticklabels(names, fontsize=7)
    right.invert_yaxis()
    right.legend(fontsize=7)
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def fragment(rows: list[Row], here: Limits, where: dict[str, Any], words: str) -> str:
    """Make the Markdown that the page of the docs includes."""
    return (
        f"{where['cpu']}, {where['cores']} cores, {where['memory_gb']} GB, Python {where['python']}. One core: reading "
        f"memory {here.read_gb_s:.0f} GB/s, copying {here.copy_gb_s:.0f} GB/s (a frame in {here.copy_ms:.2f} ms), "
        f"vectors {here.vector_gops:.0f} and dependent arithmetic {here.scalar_gops:.1f} 10⁹ operations a second.\n\n"
        + markdown(COLUMNS, [row.cells for row in rows])
        + "\n"
        + words
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write fragment, JSON and picture")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the pages to write to")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    here, where = limits(), machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured_rows(Path(folder), here)
    words = in_words(rows, here)
    document = {"machine": where, "limits": asdict(here), "rows": [asdict(row) for row in rows]}
    if arguments.write:
        roofline(rows, here, arguments.docs / "images" / "roofline.svg")
        (arguments.docs / "performance-table.json").write_text(json.dumps(document, indent=1) + "\n")
        page = arguments.docs / "performance.md"
        page.write_text(with_fragment(page.read_text(), fragment(rows, here, where, words)))
    if arguments.json:
        print(json.dumps(document, indent=1))
    else:
        print_table("Stages", COLUMNS, [row.cells for row in rows])
        print("\n" + words)


BEGIN, END = "<!-- stages: begin (written by python -m bench.table --write) -->\n", "<!-- stages: end -->"


def with_fragment(page: str, text: str) -> str:
    """Put the fragment between the two marks of a page.

    Raises
    ------
    ValueError
        The page does not have the marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks the marks {BEGIN.strip()} and {END}")
    return before + BEGIN + text + END + after


if __name__ == "__main__":
    main()
