"""Guard of speed: ratios of ours to something that does not change, against those kept in ``ratios.json``.

Never an absolute time. Ours and its reference run in turns, the smallest CPU time of each counts, and what looks worse
is measured again, its minima kept, before it counts: a noisy neighbour can make nothing fail that is not slower. On
another processor than those in ``ratios.json`` a ratio moves by itself, so that the limit is wider there. The history
of the same ratios is kept by asv (``bench.asv_ratios``).

Examples
--------
python -m bench.ratios             compare; fails when one is worse by more than 20 %
python -m bench.ratios --update    measure and write down
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from bench import cases, plain, scenes
from bench._common import Work, compute_yardstick, cpu_name, frame_copy, print_table
from cygnoreco.io.convert import convert

KEPT = Path(__file__).with_name("ratios.json")

#: How much worse a ratio may be on a processor that it was kept for, and on another.
TOLERANCE, ELSEWHERE = 0.2, 1.0

#: Frames of the run that is read, and of the one that shows what the driver costs: its beginning and its end, which
#: wait for the file system and differ from moment to moment, must not be most of what is seen.
RUN_FRAMES, DRIVEN_FRAMES = 16, 64


@dataclass(frozen=True)
class Ratio:
    """Something of ours and what it is measured against.

    Attributes
    ----------
    name : str
        ``ours / reference``.
    ours, reference : callable
        The work.
    per : float
        Units of work in a call of ours, for each one of the reference.
    turns : int
        Calls of each in one measurement.
    """

    name: str
    ours: Work
    reference: Work
    per: float = 1.0
    turns: int = 9


class Meter:
    """Smallest times of both sides so far; measuring again can only make them smaller."""

    def __init__(self, ratio: Ratio) -> None:
        self.ratio = ratio
        self.ours = self.reference = float("inf")
        ratio.ours(), ratio.reference()  # warm

    def measure(self) -> float:
        """Take turns once more and give the ratio."""
        for _ in range(self.ratio.turns):
            self.ours = min(self.ours, _cpu_s(self.ratio.ours))
            self.reference = min(self.reference, _cpu_s(self.ratio.reference))
        return self.value

    @property
    def value(self) -> float:
        """The ratio by the smallest times so far."""
        return self.ours / self.ratio.per / self.reference


def _cpu_s(work: Work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def guarded(folder: Path) -> list[Ratio]:
    """Make the ratios that are watched; ``folder`` takes the runs that they read."""
    block = cases.BLOCK
    frames = cases.scene("few", n=block).frames
    packed = scenes.write_run(folder / "run05001.mid.gz", islice(cycle(frames), RUN_FRAMES))
    bare = scenes.write_run(folder / "run05002.mid", islice(cycle(frames), DRIVEN_FRAMES), run=5002)
    copy = folder / "run05001.zarr"
    convert(packed, copy, preset="fast", cache=folder / "index")
    inflation = partial(plain.inflate_isal, packed)
    return [
        Ratio("image section / plain stages", cases.section_ours(), cases.section_plain(), block, turns=5),
        Ratio("noise filter and points / NumPy", cases.noise_ours(), cases.noise_plain(), turns=15),
        Ratio("DBSCAN of 5,000 points / scikit-learn", cases.dbscan_ours("medium"), cases.dbscan_plain("medium")),
        Ratio("directional clustering of 5,000 / arithmetic", cases.directional_ours("medium"), compute_yardstick()),
        Ratio(
            "variables of 5,000 points / NumPy, SciPy", cases.variables_ours("medium"), cases.variables_plain("medium")
        ),
        Ratio(
            "few points, after inflation / plain section",
            cases.block_of("few", n=block),
            cases.section_plain(),
            block,
            4,
        ),
        Ratio("crowded frame, after inflation / arithmetic", cases.block_of("crowded"), compute_yardstick()),
        Ratio("pedestal / NumPy", cases.pedestal_ours(), cases.pedestal_plain(), turns=4),
        Ratio("reading a fast Zarr copy / copy", cases.read_ours(copy), frame_copy(), RUN_FRAMES),
        Ratio("reading .mid.gz / bare ISA-L", cases.read_ours(packed), inflation, turns=4),
        Ratio("first pass / bare ISA-L", cases.driver(packed, unread=True), inflation, turns=3),
        Ratio("driver / plain loop", cases.driver(bare), cases.loop(bare), turns=3),
    ]


def worse(
    ratios: Iterable[Ratio], kept: Mapping[str, float], tolerance: float, *, again: int = 3
) -> tuple[dict[str, float], list[str]]:
    """Measure, and measure again what is worse than allowed.

    Parameters
    ----------
    ratios : iterable of Ratio
        What to measure.
    kept : mapping
        Ratios to compare with, by name; one that is not there is only measured.
    tolerance : float
        By how much a ratio may be larger.
    again : int
        How often a ratio that is too large is measured again.

    Returns
    -------
    measured : dict
        Ratios by name.
    worse : list of str
        Names of those that stayed too large.
    """
    meters = [Meter(ratio) for ratio in ratios]
    measured = {meter.ratio.name: meter.measure() for meter in meters}
    for _ in range(again):
        for meter in meters:
            if measured[meter.ratio.name] > (1 + tolerance) * kept.get(meter.ratio.name, float("inf")):
                measured[meter.ratio.name] = meter.measure()
    return measured, [
        name for name, value in measured.items() if value > (1 + tolerance) * kept.get(name, float("inf"))
    ]


def load(path: Path) -> dict[str, dict[str, float]]:
    """Kept ratios by processor and name; none if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else {}


def expected(kept: Mapping[str, Mapping[str, float]], cpu: str) -> tuple[Mapping[str, float], float]:
    """Ratios to compare with on a processor, and by how much they may be exceeded."""
    if cpu in kept:
        return kept[cpu], TOLERANCE
    # Nothing is known of this one: the largest that any has.
    names = {name for ratios in kept.values() for name in ratios}
    return {name: max(ratios[name] for ratios in kept.values() if name in ratios) for name in names}, ELSEWHERE


def main(make: Callable[[Path], list[Ratio]] = guarded, arguments: list[str] | None = None) -> int:
    """Exit status: 1 if a ratio is worse than allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the ratios of this processor down")
    parser.add_argument("--file", type=Path, default=KEPT)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kept = load(options.file)
    before, tolerance = expected(kept, cpu_name())
    with tempfile.TemporaryDirectory() as folder:
        if options.update:
            # Thrice, with minima kept: what is written down must not be the noise of a moment.
            meters = [Meter(ratio) for ratio in make(Path(folder))]
            for _ in range(3):
                measured = {meter.ratio.name: meter.measure() for meter in meters}
            failed: list[str] = []
        else:
            measured, failed = worse(make(Path(folder)), before, tolerance)
    if options.json:
        print(json.dumps({"cpu": cpu_name(), "tolerance": tolerance, "measured": measured, "worse": failed}, indent=1))
    else:
        rows = [
            (name, value, kept_value, kept_value and value / kept_value, "WORSE" if name in failed else "")
            for name, value in measured.items()
            for kept_value in (before.get(name),)
        ]
        print_table(f"CPU of ours / reference on {cpu_name()}", ("ratio", "now", "kept", "now / kept", ""), rows)
    if options.update:
        rounded = {name: float(f"{value:.3g}") for name, value in measured.items()}
        options.file.write_text(json.dumps({**kept, cpu_name(): rounded}, indent=1, sort_keys=True) + "\n")
    if failed:
        print(
            f"worse by more than {100 * tolerance:.0f} %: {'; '.join(failed)}. If it must be, "
            "python -m bench.ratios --update",
            file=sys.stderr,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
