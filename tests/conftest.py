"""Fixtures that several test packages share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cygnoreco.errors import InputError
from tests.services.condor import condor as condor  # fixtures
from tests.services.condor import condor_pool as condor_pool
from tests.services.s3 import bucket as bucket
from tests.services.s3 import rgw as rgw


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep indices and pedestals of test runs out of the user's cache folder."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of golden results and real files, which are not ours to distribute: without it the test is skipped."""
    folder = Path(os.environ.get("CYGNORECO_GOLDEN", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}")
    return folder


@dataclass(frozen=True)
class SmallRuns:
    """A simulated pedestal run and a data run on a small sensor, and settings that fit it."""

    pedestal: Path
    data: Path
    frames: int
    settings: tuple[str, ...] = ("accept.xmax=none", "accept.ymin=none", "accept.ymax=none")
    response: str = "none"


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> SmallRuns:
    """Runs 10 (pedestal, 12 frames) and 11 (14 frames), 256 x 320 pixels."""
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import pedestal_run, write_run

    folder = tmp_path_factory.mktemp("runs")
    detector = Detector(height=256, width=320)
    dark, data = folder / "run00010.mid.gz", folder / "run00011.mid.gz"
    pedestal_run(dark, run=10, frames=12, detector=detector)
    write_run(data, run=11, events=demo_plan(14, detector=detector), detector=detector)
    return SmallRuns(dark, data, 14)


def cupy_or_skip() -> Any:
    """CuPy on a machine whose GPU can be used; else the test is skipped, with what is missing."""
    from cygnoreco.device import resolve_device

    try:
        resolve_device("cuda")
    except InputError as error:
        pytest.skip(str(error))
    import cupy

    return cupy
