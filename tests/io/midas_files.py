"""Small MIDAS runs and the damage that is done to them, for several test modules."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np

from cygnoreco.io.midas_writer import MidasWriter
from cygnoreco.types import Frames

SUFFIXES = (".mid", ".mid.gz", ".mid.lz4", ".mid.bz2")
HEIGHT, WIDTH = 24, 32
SHAPES = {"CAM0": (HEIGHT, WIDTH)}
ODB: dict[str, Any] = {
    "Runinfo": {"Run number": 5001},
    "Configurations": {"Exposure": 0.3, "FreeRunning": False},
    "Experiment": {"Security": {"Password": "mangiafuoco"}},
}
START = 1_700_000_000


def frames(count: int, seed: int = 1, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Frames:
    """Dark frames: noise about 100 counts."""
    return np.rint(np.random.default_rng(seed).normal(100, 2.6, (count, *shape))).astype(np.uint16)


def write_run(path: Path, images: Frames, **options: Any) -> Path:
    """Write trigger events with waveforms and image, a slow event after every second one, and a message."""
    with MidasWriter(path, run=5001, odb=ODB, timestamp=START, **options) as writer:
        for number, image in enumerate(images):
            waveform = np.full(37, number, np.uint16)
            header = np.arange(5, dtype=np.uint32)
            writer.event(1, {"DIG0": waveform, "DGH0": header, "CAM0": image}, timestamp=START + 1 + number)
            if number % 2:
                writer.event(7, {"TCAM": np.array([-20.0])})
        writer.message("all is well")
    return path


def event_offsets(path: Path) -> list[int]:
    """Where the events of a sound run begin in the inflated file."""
    from cygnoreco.io.midas import Event
    from cygnoreco.io.midas_events import iter_events

    return [event.offset for event in iter_events(path) if isinstance(event, Event)]


def compress(data: bytes, suffix: str) -> bytes:
    """Compress as the suffix says."""
    if suffix == ".mid.gz":
        return gzip.compress(data, 1, mtime=0)
    if suffix == ".mid.lz4":
        return bytes(lz4.frame.compress(data, content_checksum=True, store_size=False))
    return bz2.compress(data) if suffix == ".mid.bz2" else data


def inflate(path: Path) -> bytes:
    """Inflate with the ordinary libraries."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".lz4":
        return bytes(lz4.frame.decompress(data))
    return bz2.decompress(data) if path.suffix == ".bz2" else data
