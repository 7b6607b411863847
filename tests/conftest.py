"""Fixtures that several test packages share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of golden results and real files, which are not ours to distribute: without it the test is skipped."""
    folder = Path(os.environ.get("CYGNORECO_GOLDEN", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}")
    return folder
