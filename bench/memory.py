"""Peak memory of processes that reconstruct blocks, beside the peak that ``cygnoreco.plan`` projects.

Every peak is that of a fresh process with compiled kernels, by block size, occupancy and precision: of one that commits
blocks as a worker does, of one that does a whole run, of a worker of a campaign. The projection is an upper bound, so
no ratio is below 1.

Examples
--------
python -m bench.memory
python -m bench.memory --blocks 1 8 --json
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from bench import scenes
from bench._common import in_fresh_process, machine, peak_mb, print_table, served
from cygnoreco.graph import Work, choose_calibration
from cygnoreco.plan import CROWDED, MIB, Memory, Occupancy, Role, projected_memory
from cygnoreco.raw import open_run
from cygnoreco.recipe import Recipe

#: As Dask's workers have it: memory that is freed goes back to the system where it was taken in large pieces.
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(512 * MIB),
    **dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
}

#: Most points and clusters of the frames of a class.
OCCUPANCIES = {"few": Occupancy(1_500, 30), "medium": Occupancy(8_000, 50), "crowded": CROWDED}

BLOCKS = (1, 4, 8, 16)
PRECISIONS = ("float64", "float32")

#: Different frames of a run, which are repeated: simulating crowded ones is slow.
_DIFFERENT = 2


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes
    ----------
    role : {'worker', 'driver', 'campaign'}
        As for :func:`cygnoreco.plan.projected_memory`.
    occupancy : str
        Class of the frames.
    precision : str
        Of the image section.
    block, threads : int
        Frames a block, and blocks at once.
    unread : bool
        The file has not been read before; of a driver. A worker of a campaign has one of either kind.
    settings : tuple of str
        Changes to the recipe ``lime``.
    """

    role: Role
    occupancy: str
    precision: str
    block: int
    threads: int = 1
    unread: bool = False
    settings: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[str, ...]:
        """All that is changed in ``lime``."""
        return f"precision={self.precision}", *self.settings


@dataclass(frozen=True)
class Found:
    """Peaks of a case, MiB, and what the projected one is made of, bytes."""

    case: Case
    projected: float
    measured: float
    parts: Memory

    @property
    def ratio(self) -> float:
        """Projected over measured peak."""
        return self.projected / self.measured


def make_runs(folder: Path, occupancies: Sequence[str] = tuple(OCCUPANCIES), frames: int = 32) -> None:
    """Write a pedestal and a run of each class."""
    scenes.pedestal(10).save(folder / "pedestal.npz")
    for occupancy in occupancies:
        (folder / occupancy).mkdir()
        made = islice(cycle(scenes.frames_of(occupancy, _DIFFERENT)), frames)
        scenes.write_run(folder / occupancy / "run05001.mid.gz", made, level=1)


@cache
def work_of(folder: Path, occupancy: str, changes: tuple[str, ...]) -> Work:
    """Make what a worker is told; the run is read for its index, if that was not done before."""
    run = open_run(folder / occupancy / "run05001.mid.gz", cache=folder / "index")
    run.table("CAM0")
    recipe = Recipe.load("lime").override(changes)
    choice = choose_calibration(run.number, run.camera(), recipe, folder / "pedestal.npz", folder=folder)
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    return Work(run.ref(), choice.reference, run.number, choice.pedestal_run, str(parts))


def task_worker(work: str, block: int, threads: int) -> float:
    """Commit two blocks a thread: the second one finds memory that the first one keeps."""
    import distributed  # noqa: F401  # as a worker has it

    from cygnoreco.spread import by_number

    bounds = [(0, block)] * 2 * threads
    for _ in by_number(pickle.loads(Path(work).read_bytes()), bounds, len(bounds) * block, None, threads):
        pass
    return peak_mb()


def task_driver(folder: str, occupancy: str, recipe: str, block: int, threads: int, unread: bool) -> float:
    """Reconstruct a run."""
    from cygnoreco import reconstruct

    with tempfile.TemporaryDirectory(dir=folder) as out:
        index = Path(out if unread else folder) / "index"
        run = open_run(Path(folder) / occupancy / "run05001.mid.gz", cache=index)
        pedestal = Path(folder) / "pedestal.npz"
        reconstruct(run, pedestal=pedestal, recipe=recipe, threads=threads, block=block, out=Path(out) / "out")
    return peak_mb()


def task_campaign(folder: str, occupancy: str, recipe: str, block: int) -> float:
    """Find the peak of the only worker of a campaign of two runs, one of which nobody has read before."""
    from clusters.local import local_client
    from cygnoreco.campaign import Order, reconstruct_many

    with tempfile.TemporaryDirectory(dir=folder) as out:
        os.environ["XDG_CACHE_HOME"] = str(Path(out) / "cache")
        runs = [Path(out) / name / "run05001.mid.gz" for name in ("read", "unread")]
        for path in runs:
            path.parent.mkdir()
            os.link(Path(folder) / occupancy / path.name, path)
        open_run(runs[0]).table("CAM0")
        order = Order(Path(folder) / "pedestal.npz", Path(out) / "out", Recipe.load(recipe), block=block)
        with local_client(1) as client:
            assert client is not None
            for outcome in reconstruct_many(runs, order, client):
                if outcome.error is not None:
                    raise outcome.error
            (peak,) = client.run(peak_mb).values()
    return float(peak)


def measure(folder: Path, case: Case) -> Found:
    """Measure a case in a fresh process; the environment is this one's."""
    work = work_of(folder, case.occupancy, case.changes)  # and with it the index
    used = work.calibration.recipe
    arguments: dict[str, Any] = {"block": case.block}
    if case.role == "worker":
        told = folder / "work.pickle"
        told.write_bytes(pickle.dumps(work))
        arguments |= {"work": str(told), "threads": case.threads}
    else:
        recipe = folder / "recipe.toml"
        recipe.write_text(used.to_toml())
        arguments |= {"folder": str(folder), "occupancy": case.occupancy, "recipe": str(recipe)}
    if case.role == "driver":
        arguments |= {"threads": case.threads, "unread": case.unread}
    parts = projected_memory(
        work.ref.camera,
        case.block,
        used,
        threads=case.threads,
        role=case.role,
        occupancy=OCCUPANCIES[case.occupancy],
    )
    return Found(case, parts.total / MIB, in_fresh_process("bench.memory", case.role, **arguments), parts)


def cases(blocks: Sequence[int], occupancies: Sequence[str]) -> Iterator[Case]:
    """List what the tables show."""
    for occupancy, precision, block in product(occupancies, PRECISIONS, blocks):
        yield Case("worker", occupancy, precision, block)
    largest = max(blocks)
    for occupancy, block in product(occupancies, sorted({min(8, largest), min(1, largest)})):
        yield Case("driver", occupancy, "float64", block)
        yield Case("driver", occupancy, "float64", block, unread=True)
        yield Case("driver", occupancy, "float64", block, threads=2)
        yield Case("driver", occupancy, "float64", block, threads=2, unread=True)
        yield Case("campaign", occupancy, "float64", block)
    for setting in ("saturation.enabled=true", "energy.enabled=true"):
        yield Case("worker", occupancies[-1], "float64", min(8, largest), settings=(setting,))


def report(found: Sequence[Found]) -> None:
    """Print the tables."""
    rows = [
        (f"{each.case.occupancy}, {each.case.precision}", each.case.block, each.projected, each.measured, each.ratio)
        for each in found
        if each.case.role == "worker" and not each.case.settings
    ]
    columns: tuple[str, ...] = ("a worker, one thread", "block", "projected, MiB", "measured, MiB", "ratio")
    print_table("Peak memory by block size, occupancy and precision", columns, rows)
    others = [
        (_described(each.case), each.case.threads, each.case.block, each.projected, each.measured, each.ratio)
        for each in found
        if each.case.role != "worker" or each.case.settings
    ]
    columns = ("other processes", "threads", "block", "projected, MiB", "measured, MiB", "ratio")
    print_table("Of processes that do more", columns, others)
    largest = max(found, key=lambda each: each.projected)
    parts = [(name, size / MIB) for name, size in asdict(largest.parts).items() if size]
    case = largest.case
    title = f"What the largest is made of: {_described(case)}, {case.threads} threads, blocks of {case.block}"
    print_table(title, ("", "MiB"), parts)


def _described(case: Case) -> str:
    what = {"worker": "worker", "driver": f"driver, {'un' * case.unread}read", "campaign": "campaign's worker"}
    return ", ".join((what[case.role], case.occupancy, *case.settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", nargs="+", type=int, default=BLOCKS, help="frames a block")
    parser.add_argument("--occupancies", nargs="+", default=("few", "crowded"), choices=tuple(OCCUPANCIES))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_runs(folder, arguments.occupancies)
        wanted = list(cases(arguments.blocks, arguments.occupancies))
        for each in {(case.role, case.settings): case for case in wanted}.values():  # compile what is not yet
            measure(folder, each)
        found = [measure(folder, each) for each in wanted]
    if arguments.json:
        results = [{**asdict(each), "ratio": each.ratio} for each in found]
        print(json.dumps({"machine": machine(), "peaks": results}, indent=1))
    else:
        report(found)


if __name__ == "__main__" and not served(globals()):
    main()
