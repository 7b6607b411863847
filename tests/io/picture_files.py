"""Small runs for the tests of the containers: random frames, and files of pictures as the experiment writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import uproot
from numpy.typing import NDArray


def random_frames(count: int, height: int = 32, width: int = 48, seed: int = 1) -> NDArray[np.uint16]:
    """Frames that use all 16 bits."""
    return np.random.default_rng(seed).integers(0, 65536, (count, height, width), np.uint16)


def write_root_pictures(path: Path, pictures: Mapping[str, NDArray[Any]]) -> Path:
    """TH2D with content at (x = column, y = row), by uproot's own conversion from NumPy."""
    with uproot.recreate(path) as file:
        for name, frame in pictures.items():
            height, width = frame.shape
            file[name] = frame.T.astype(float), np.arange(width + 1.0), np.arange(height + 1.0)
    return path


def write_hdf5_pictures(path: Path, pictures: Mapping[str, NDArray[Any]], **options: Any) -> Path:
    """Datasets [x][y]."""
    with h5py.File(path, "w") as file:
        for name, frame in pictures.items():
            file.create_dataset(name, data=frame.T, **options)
    return path
