"""A dataset on disk: where parts wait, how a finished result is published, and how one is recognised.

Layout below the user's output folder::

    reco_run05001_3D.root               the official name, a hard link to the latest published file
    calibration/pedestal-<hash>.npz     payloads by content
    datasets/run05001-CAM0-<key>/       one result, named by its lineage key
        lineage.json                    what the key is made of
        parts/frames-000000-000008.part.npz
        result/                         appears whole, in one step
            reco_run05001_3D.root  reco_run05001_3D.zarr/  summary.json
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cygnoreco.errors import InputError, TransientError
from cygnoreco.io.atomic import atomic_folder, atomic_write, remove_leftovers
from cygnoreco.io.parts import Receipt, committed_parts
from cygnoreco.merge import Merge
from cygnoreco.tables import Tables


@dataclass(frozen=True)
class Dataset:
    """Folder of one result.

    Attributes
    ----------
    out : Path
        The user's output folder.
    name : str
        Stem of the output files, ``reco_run05001_3D``.
    folder : Path
        ``out/datasets/run05001-CAM0-<key>``.
    """

    out: Path
    name: str
    folder: Path

    @property
    def parts(self) -> Path:
        """Folder of the committed parts."""
        return self.folder / "parts"

    @property
    def result(self) -> Path:
        """Folder of the finished result."""
        return self.folder / "result"

    @property
    def root_file(self) -> Path:
        """The published ROOT file."""
        return self.result / f"{self.name}.root"

    @property
    def official(self) -> Path:
        """The experiment's name for it, in the user's folder."""
        return self.out / f"{self.name}.root"


def dataset_of(out: Path, *, run: int, camera: str, key: str, several: bool) -> Dataset:
    """Name the dataset of a run's camera; with ``several`` cameras the file's name says which."""
    suffix = f"_{camera}" if several else ""
    return Dataset(out, f"reco_run{run:05d}{suffix}_3D", out / "datasets" / f"run{run:05d}-{camera}-{key}")


@contextmanager
def locked(dataset: Dataset) -> Iterator[None]:
    """Keep other processes from working on the same dataset for the length of a ``with`` block.

    The lock is the system's, on a file in the dataset's folder, and goes with its process however that ends.

    Raises
    ------
    TransientError
        Another process is at work on it.
    """
    dataset.folder.mkdir(parents=True, exist_ok=True)
    with (dataset.folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TransientError(f"another process is at work on '{dataset.folder}'") from None
        yield


def begin(dataset: Dataset, lineage: Mapping[str, Any], *, force: bool) -> list[Receipt]:
    """Make the dataset's folder, or find what an earlier start left in it.

    Parameters
    ----------
    dataset : Dataset
        Where.
    lineage : mapping
        What the key is made of, kept for people and for :func:`cygnoreco.lineage.differences`.
    force : bool
        Throw away the parts that are there. A finished result stays until the new one takes its place.

    Returns
    -------
    list of Receipt
        Parts that need not be done again.
    """
    if force:
        shutil.rmtree(dataset.parts, ignore_errors=True)
    dataset.parts.mkdir(parents=True, exist_ok=True)
    remove_leftovers(dataset.parts)
    for merged in dataset.folder.glob(f"{dataset.result.name}.partial-*"):  # of dead starts: we hold the lock
        shutil.rmtree(merged, ignore_errors=True)
    with atomic_write(dataset.folder / "lineage.json") as temporary:
        temporary.write_text(json.dumps(lineage, indent=2, sort_keys=True) + "\n")
    return committed_parts(dataset.parts)


def finished(dataset: Dataset) -> dict[str, Any] | None:
    """Summary of a whole result, or None.

    A result counts when its summary is there, the ROOT file has the content that it says and the Zarr tables are
    there. What a start that was killed just before its end left undone, official name and tidying, is done here.
    """
    try:
        summary: dict[str, Any] = json.loads((dataset.result / "summary.json").read_text())
        whole = summary["files"][dataset.root_file.name]["sha256"] == _sha256(dataset.root_file)
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return None
    if not whole or not (dataset.result / f"{dataset.name}.zarr" / "zarr.json").is_file():
        return None
    if not dataset.official.exists() or not dataset.official.samefile(dataset.root_file):
        _link(dataset.root_file, dataset.official)
    shutil.rmtree(dataset.parts, ignore_errors=True)
    return summary


@contextmanager
def publishing(dataset: Dataset, *, key: str, time: int, quality: int, thread: bool) -> Iterator[Merge]:
    """Merge parts to the files of a result, and make it official when the ``with`` block ends.

    The folder of the result takes its name in one step: killed at any line, a second start finds either a whole
    result or all parts. If the block raises, what was merged is removed, and the parts stay.

    Parameters
    ----------
    dataset : Dataset
        Where.
    key, time, quality, thread
        As for :class:`cygnoreco.merge.Merge`.

    Yields
    ------
    Merge
        Takes the parts; when it is finished, :func:`complete` names its files.
    """
    with (
        atomic_folder(dataset.result) as folder,
        Merge(folder, key=key, time=time, quality=quality, thread=thread) as merge,
    ):
        yield merge


def complete(dataset: Dataset, merge: Merge, receipts: list[Receipt], summary: Mapping[str, Any]) -> None:
    """Give the files of a finished merge their names, and write the summary beside them.

    Parameters
    ----------
    dataset : Dataset
        By its final name.
    merge : Merge
        Finished.
    receipts : list of Receipt
        The parts merged.
    summary : mapping
        What the summary holds besides the numbers of rows and the files.
    """
    root_file = merge.root.rename(merge.folder / dataset.root_file.name)
    merge.zarr.rename(merge.folder / f"{dataset.name}.zarr")
    rows = {table: sum(each.counts[table] for each in receipts) for table in ("events", "clusters", "redpix")}
    files = {root_file.name: {"bytes": root_file.stat().st_size, "sha256": merge.sha256}}
    whole = {**summary, "rows": rows, "files": files}
    (merge.folder / "summary.json").write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")


def load_tables(path: str | Path) -> Tables:
    """Tables of a result: from its ROOT file, its Zarr folder, or the dataset's folder.

    Parameters
    ----------
    path : str or Path
        ``reco_run05001_3D.root`` (ours or the experiment's), ``....zarr``, or ``datasets/run05001-...``.

    Raises
    ------
    InputError
        Nothing there, or no such tables in it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no result at '{path}'")
    if path.is_file():
        from cygnoreco.io.root_tables import read_root

        return read_root(path)
    from cygnoreco.io.zarr_tables import read_zarr

    if path.suffix == ".zarr":
        return read_zarr(path)
    inside = sorted(path.glob("**/reco_*.zarr"))
    if not inside:
        raise InputError(f"no finished result in '{path}'")
    return read_zarr(inside[0])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, name: Path) -> None:
    """Give a file a second name in one step, replacing what had it; a copy where links are not possible."""
    with atomic_write(name) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
