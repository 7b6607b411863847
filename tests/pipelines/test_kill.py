"""Killed at any moment and started again, a reconstruction ends with the bytes of an undisturbed one."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from tests.conftest import SmallRuns
from tests.pipelines.conftest import Command, Start, content, parts, reco_options


def test_killed_at_random_moments(small_runs: SmallRuns, tmp_path: Path, call: Command, start: Start) -> None:
    """SIGKILL to driver and workers: by the clock, which often hits the start, and by blocks, which hits the work."""
    rng = random.Random(7)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert call("reco", small_runs.data, *reco_options(small_runs, undisturbed, "--workers", 0)).code == 0
    arguments = ["reco", small_runs.data, *reco_options(small_runs, killed, "--block", 1, "-q", "--workers")]
    most = 0
    for workers, blocks in ((0, 2), (2, 5), (0, 8)):
        running = start(*arguments, workers)
        running.wait_until(lambda blocks=blocks: len(parts(killed)) >= blocks)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.03))
        running.signal_group(signal.SIGKILL)
        assert running.outcome().code == -signal.SIGKILL
        assert len(parts(killed)) >= most, "what was committed stays"
        most = len(parts(killed))
    for _ in range(3):
        running = start(*arguments, 0)
        if not running.is_over(rng.uniform(0.2, 3.0)):
            running.signal_group(signal.SIGKILL)
        running.outcome()
    final = call(*arguments, 0)
    assert final.code == 0, final.err
    assert content(killed) == content(undisturbed)
    assert not list(killed.rglob("*.partial-*"))
