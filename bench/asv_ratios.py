"""History of the ratios of :mod:`bench.ratios` by asv: commit by commit, on one machine.

Only ratios: times of shared machines say little, and asv would compare those of different days. All are measured once,
in turns with their references, and then told one by one.

Example
-------
asv run --python=same --set-commit-hash=$(git rev-parse HEAD) && asv publish && asv preview
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import ratios

#: Those that are kept; asv wants to know them before anything is measured.
NAMES = sorted({name for kept in ratios.load(ratios.KEPT).values() for name in kept})


class Ratios:
    """CPU of ours / CPU of what does not change."""

    params = NAMES
    param_names = ("ratio",)
    unit = "ours / reference"
    timeout = 600

    def setup_cache(self) -> dict[str, float]:
        """Measure everything."""
        with tempfile.TemporaryDirectory() as folder:
            return {meter.ratio.name: meter.measure() for meter in map(ratios.Meter, ratios.guarded(Path(folder)))}

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    def track_ratio(self, measured: dict[str, float], name: str) -> float:
        """Give one; not a number where it has gone."""
        return measured.get(name, float("nan"))
