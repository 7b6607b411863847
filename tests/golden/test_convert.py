"""Real MIDAS files survive the way through every container."""

from __future__ import annotations

from pathlib import Path

import lz4.frame
import pytest

from cygnoreco.io.convert import convert


@pytest.mark.parametrize("name", ["run.zarr", "run.h5", "run.root"])
def test_a_real_stream_comes_back_bit_for_bit(shared_data: Path, tmp_path: Path, name: str) -> None:
    (real,) = (shared_data / "real" / "midas").glob("*.mid.lz4")
    made = convert(real, tmp_path / name, cache=tmp_path)
    assert made.faults == ()
    convert(tmp_path / name, tmp_path / "back.mid")
    assert (tmp_path / "back.mid").read_bytes() == lz4.frame.decompress(real.read_bytes())
