"""A damaged run gives the same results, faults and errors on the first pass as when its frames are found by number."""

from __future__ import annotations

import json
import random
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cygnoreco import Recipe, open_run, reconstruct
from cygnoreco.calib.find import find_pedestal
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.errors import DataError, InputError
from cygnoreco.io import midas_index
from cygnoreco.io.source import beginning_of
from cygnoreco.tables import Tables
from simulation.detector import Detector
from simulation.plan import demo_plan
from simulation.run import pedestal_run, write_run
from tests.io.midas_files import compress, inflate
from tests.tables import concatenate

SMALL = Detector(height=64, width=96)
NAME = "run00011.mid.gz"


@dataclass(frozen=True)
class Sound:
    """A run without damage: its file, what is in it, and the pedestal for it."""

    packed: bytes
    bare: bytes
    pedestal: Pedestal
    recipe: Recipe


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    dark, data = folder / "run00010.mid.gz", folder / NAME
    pedestal_run(dark, run=10, frames=6, detector=SMALL)
    write_run(data, run=11, events=demo_plan(7, detector=SMALL), detector=SMALL)
    recipe = Recipe.load("lime").override(["accept.xmax=none", "accept.ymin=none", "accept.ymax=none"])
    pedestal = find_pedestal(dark, 11, open_run(dark).camera(), orientation=recipe["orient"]["orientation"])
    return Sound(data.read_bytes(), inflate(data), pedestal, recipe)


def flipped(data: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


def bits_of_the_container(run: Sound, rng: random.Random) -> bytes:
    data = run.packed
    for _ in range(rng.choice([1, 1, 3])):
        data = flipped(data, rng.randrange(10, len(data)), rng.randrange(8))
    return data


def cut(run: Sound, rng: random.Random) -> bytes:
    return run.packed[: rng.randrange(200, len(run.packed))]


def broken_trailer(run: Sound, rng: random.Random) -> bytes:
    return flipped(run.packed, len(run.packed) - rng.randrange(1, 9), 2)


def inserted(run: Sound, rng: random.Random) -> bytes:
    at = rng.randrange(100, len(run.packed))
    return run.packed[:at] + rng.randbytes(rng.randrange(1, 50)) + run.packed[at:]


def bits_of_a_header(run: Sound, rng: random.Random) -> bytes:
    """Damage near the name of an image's bank, where the headers of event and bank are, in a sound container."""
    banks = [at for at in range(len(run.bare)) if run.bare.startswith(b"CAM", at)]
    at = max(0, rng.choice(banks) + rng.randrange(-60, 20))
    return compress(flipped(run.bare, at, rng.randrange(8)), ".mid.gz")


def deleted(run: Sound, rng: random.Random) -> bytes:
    at = rng.randrange(len(run.bare))
    return compress(run.bare[:at] + run.bare[at + rng.randrange(1, 3000) :], ".mid.gz")


def outcome(open_, run: Sound, **how: Any) -> tuple[Any, ...]:
    """Everything that a reconstruction says, or the error that it ends with."""
    try:
        result = reconstruct(open_(), pedestal=run.pedestal, response="none", recipe=run.recipe, **how)
    except (DataError, InputError) as error:
        return type(error).__name__, str(error)
    tables, summary = result.tables, result.summary
    said = json.dumps([summary[name] for name in ("faults", "frames", "frames_lost", "vetoed", "key", "status")])
    rows = tuple(table.tobytes() for table in (tables.events, tables.clusters, tables.redpix))
    return said, tuple(tables.events["quality"].tolist()), *rows


def by_number(path: Path, cache: Path):
    """Open a run that has been read to its end."""
    open_run(path, cache=cache).table()
    run = open_run(path, cache=cache)
    assert beginning_of(run.source) is None
    return run


def unread(path: Path, cache: Path, passes: list[bool]):
    """Open a run as if nobody had read it; notes whether that leaves the rest to a first pass."""
    midas_index._recent.clear()  # this process would remember it
    run = open_run(path, cache=cache)
    passes.append(beginning_of(run.source) is not None)
    return run


class Plainly:
    """Keeps the tables of a run without what makes their files slow to write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: list[Tables] = []

    def append(self, tables: Tables) -> None:
        self._pieces.append(concatenate([tables]))  # a copy: the memory of parts is used again

    def finish(self, *_: Any) -> None:
        self._path.mkdir()
        (self._path / "zarr.json").touch()  # what says that the tables are there
        tables = concatenate(self._pieces)
        for name in ("events", "clusters", "redpix"):
            np.save(self._path / name, getattr(tables, name))


class Nothing:
    """Takes the place of the ROOT file."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"")

    def append(self, tables: Tables) -> None:
        pass

    def finish(self, *_: Any) -> None:
        pass


def read_plainly(path: Path) -> Tables:
    return Tables(*(np.load(path / f"{name}.npy") for name in ("events", "clusters", "redpix")))


@pytest.fixture
def quick_files(monkeypatch):
    """The files of a result take most of the time of so short a run, and are the same code in either way."""
    monkeypatch.setattr("cygnoreco.io.root_tables.write_root", lambda path, **_: nullcontext(Nothing(path)))
    monkeypatch.setattr("cygnoreco.io.zarr_tables.write_zarr", Plainly)
    monkeypatch.setattr("cygnoreco.io.zarr_tables.read_zarr", read_plainly)


@pytest.mark.usefixtures("quick_files")
@pytest.mark.parametrize(
    ("damage", "cases"),
    [(bits_of_the_container, 10), (cut, 5), (broken_trailer, 3), (inserted, 6), (bits_of_a_header, 12), (deleted, 6)],
)
def test_first_pass_and_index_agree(damage, cases, sound, tmp_path):
    path, passes, outcomes = tmp_path / NAME, [], set()
    for case in range(cases):
        path.write_bytes(damage(sound, random.Random(case)))
        indexed = outcome(partial(by_number, path, tmp_path / f"index-{case}"), sound, block=4)
        for block, threads in ((3, 1), (2, 3)):
            cache = tmp_path / f"first-{case}-{threads}"
            first = outcome(partial(unread, path, cache, passes), sound, block=block, threads=threads)
            assert first == indexed, f"case {case}, blocks of {block}, {threads} threads"
        outcomes.add(indexed)
    assert any(passes), "nothing was reconstructed on a first pass"
    assert len(outcomes) > 1, "all damages came to the same"


def test_a_sound_run(sound, tmp_path):
    path, passes = tmp_path / NAME, []
    path.write_bytes(sound.packed)
    indexed = outcome(partial(by_number, path, tmp_path / "index"), sound)
    assert indexed == outcome(partial(unread, path, tmp_path / "first", passes), sound, block=3, threads=3)
    assert passes == [True]
    assert len(indexed[1]) == 7
    assert json.loads(indexed[0])[0] == []
