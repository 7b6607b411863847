"""NumPy archives (``.npz``) that several threads may read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# NumPy parses the heads of arrays as Python, which threads must not do at once before Python 3.11.8 and 3.12.2: one of
# them may fail with "AST constructor recursion depth mismatch" (https://github.com/python/cpython/issues/106905).
_one_at_a_time = threading.Lock()


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an archive by their names; with the errors of :func:`numpy.load`, objects are refused."""
    with _one_at_a_time, path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return dict(archive)
