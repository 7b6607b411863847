"""The guard of speed fails when a kernel gets slower, and only then."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from bench import asv_ratios, ratios
from bench._common import best_s, compute_yardstick, cpu_name, limits, markdown, shown
from bench.table import BEGIN, END, with_fragment
from cygnoreco.cluster import lattice
from cygnoreco.cluster.lattice import dbscan


def points():
    rng = np.random.default_rng(1)
    raster = np.unique(rng.integers(0, 300 * 300, 3000))
    rows, cols = np.divmod(raster.astype(np.int32), np.int32(300))
    return rows, cols, np.full(len(rows), 5, np.int32)


def watched(_folder: Path) -> list[ratios.Ratio]:
    found = points()
    return [ratios.Ratio("dbscan / arithmetic", lambda: dbscan(*found), compute_yardstick(), turns=15)]


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "ratios.json"
    assert ratios.main(watched, ["--update", "--file", str(path)]) == 0
    assert list(json.loads(path.read_text())) == [cpu_name()]
    return path


def slowed(kernel):
    """The kernel, with as much arithmetic besides as makes it take half as long again."""
    (own,) = best_s((lambda: dbscan(*points()),), 5)

    def call(*arguments):
        end = time.process_time() + own / 2
        while time.process_time() < end:
            pass
        return kernel(*arguments)

    return call


def test_same_speed_passes(kept, capsys):
    assert ratios.main(watched, ["--file", str(kept)]) == 0
    assert "dbscan / arithmetic" in capsys.readouterr().out


def test_a_slowed_kernel_fails(kept, monkeypatch, capsys):
    monkeypatch.setattr(lattice, "connect", slowed(lattice.connect))
    assert ratios.main(watched, ["--file", str(kept)]) == 1
    assert "worse by more than 20 %: dbscan / arithmetic" in capsys.readouterr().err


def test_what_looks_worse_is_measured_again():
    """A disturbance of the first turns goes away; what is slower stays slower."""
    calls = []

    def disturbed() -> None:
        calls.append(1)
        compute_yardstick()()
        if len(calls) < 8:
            time.sleep(0)  # no CPU
            [compute_yardstick()() for _ in range(3)]

    ratio = ratios.Ratio("disturbed", disturbed, compute_yardstick(), turns=5)
    measured, failed = ratios.worse([ratio], {"disturbed": 1.0}, 0.2, again=20)
    assert failed == []
    assert measured["disturbed"] < 1.2
    assert len(calls) > 1 + ratio.turns


def test_another_processor_has_a_wider_limit():
    kept = {"one": {"a": 1.0, "b": 2.0}, "other": {"a": 1.5}}
    assert ratios.expected(kept, "one") == ({"a": 1.0, "b": 2.0}, ratios.TOLERANCE)
    assert ratios.expected(kept, "third") == ({"a": 1.5, "b": 2.0}, ratios.ELSEWHERE)
    assert ratios.expected({}, "third") == ({}, ratios.ELSEWHERE)


def test_kept_ratios_are_those_that_are_watched(tmp_path, monkeypatch):
    """A renamed ratio would silently be compared with nothing."""
    # Without making a scene: only the names are wanted.
    monkeypatch.setattr(ratios, "cases", _Nothing())
    monkeypatch.setattr(ratios.scenes, "write_run", lambda path, *_, **__: path)
    monkeypatch.setattr(ratios, "convert", lambda *_, **__: None)
    names = {ratio.name for ratio in ratios.guarded(tmp_path)}
    for kept in ratios.load(ratios.KEPT).values():
        assert set(kept) == names


def test_history_tells_every_ratio_that_is_kept(monkeypatch):
    monkeypatch.setattr(ratios, "guarded", watched)
    history = asv_ratios.Ratios()
    measured = history.setup_cache()
    assert history.track_ratio(measured, "dbscan / arithmetic") == measured["dbscan / arithmetic"] > 0
    assert np.isnan(history.track_ratio(measured, "gone / arithmetic"))
    assert set(history.params) == {name for kept in ratios.load(ratios.KEPT).values() for name in kept}


class _Nothing:
    """Stands for the cases: any of them, empty."""

    BLOCK = 8
    frames = ()

    def __getattr__(self, name):
        return lambda *_, **__: self


def test_limits_are_in_order():
    found = limits(2)
    assert found.vector_gops > found.scalar_gops > 0
    assert found.read_gb_s > 0
    assert found.copy_ms > 0


def test_tables():
    assert [shown(each) for each in (0.01234, 123.4, 12, None, "a")] == ["0.0123", "123", "12", "", "a"]
    assert markdown(("a", "b"), [("x", 1.0)]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"
    page = f"before\n{BEGIN}old\n{END}\nafter\n"
    assert with_fragment(page, "new\n") == f"before\n{BEGIN}new\n{END}\nafter\n"
    with pytest.raises(ValueError, match="lacks the marks"):
        with_fragment("nothing", "new")
