"""The chaos of ``bench.chaos``, for a few seconds, on the pool of the tests."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bench import chaos
from clusters.pool import Pool


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_is_left(
    condor_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs = chaos.make_runs(tmp_path, 4, 12)
    found = chaos.measure(tmp_path, runs, condor_pool, argparse.Namespace(seed=3, minutes=0.3, runs=4))
    assert sum(count for name, count in found.items() if name.startswith("kills: ")) >= 3
    assert found["campaigns that ended"] >= 1
    assert found["identical"]
    assert (found["done twice"], found["jobs left"], found["temporary files left"]) == (0, 0, 0)
