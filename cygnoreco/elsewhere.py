"""A dataset in an object store: the steps of a run whose output folder is a URL.

Each step works on a folder of its own machine, as it would with a local output folder, and brings what it made to the
store. There, the layout is the same (:mod:`cygnoreco.dataset`), but the official name is a copy. A result counts when
its summary is there, which is sent last; parts are removed after that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cygnoreco.dataset import Dataset
from cygnoreco.graph import CalibrationRef
from cygnoreco.io import objects
from cygnoreco.io.parts import Receipt, frames_of, without_overlap


@dataclass(frozen=True)
class Place:
    """Where a dataset is in a store.

    Attributes
    ----------
    out : str
        URL of the output folder.
    dataset : Dataset
        The same dataset in a folder of this machine.
    """

    out: str
    dataset: Dataset

    @property
    def url(self) -> str:
        """URL of the dataset."""
        return f"{self.out}/datasets/{self.dataset.folder.name}"

    @property
    def parts(self) -> str:
        """URL of its parts."""
        return f"{self.url}/parts"


def finished(place: Place) -> dict[str, Any] | None:
    """Summary of a whole result, or None: every file that it names must be there with its size."""
    there = objects.names(place.url)
    if "result/summary.json" not in there:
        return None
    with objects.staging() as folder:
        objects.get(f"{place.url}/result/summary.json", folder / "summary.json")
        text = (folder / "summary.json").read_text()
    try:
        summary: dict[str, Any] = json.loads(text)
        files = {name: each["bytes"] for name, each in summary["files"].items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    whole = all(there.get(f"result/{name}") == size for name, size in files.items())
    if not whole or f"result/{place.dataset.name}.zarr/zarr.json" not in there:
        return None
    take_back(place, _parts(there, place))
    return summary


def begin(place: Place, lineage: Mapping[str, Any], *, force: bool) -> list[Receipt]:
    """Find the committed parts; with ``force`` remove them, and any result, first.

    Returns
    -------
    list of Receipt
        Frames alone; whether a part is sound shows when it is merged, and then it is made again.
    """
    there = objects.names(place.url)
    if force:
        objects.remove(sorted(there, key=lambda name: "summary" not in name), place.url)  # by it a result counts
        there = {}
    with objects.staging() as folder:
        path = folder / "lineage.json"
        path.write_text(json.dumps(lineage, indent=2, sort_keys=True) + "\n")
        objects.put_all({"lineage.json": path}, place.url)
    return without_overlap(_parts(there, place))


def _parts(there: Iterable[str], place: Place) -> list[Receipt]:
    """Name the parts among the files of a dataset in a store."""
    names = (name.removeprefix("parts/") for name in there if name.startswith("parts/"))
    return [Receipt(*frames, f"{place.parts}/{name}", {}, {}) for name in names if (frames := frames_of(name))]


def share(place: Place, reference: CalibrationRef) -> CalibrationRef:
    """Bring a pedestal to the store, from where every worker takes it."""
    path = Path(reference.pedestal)
    url = f"{place.out}/calibration/{path.name}"
    if path.name not in objects.names(f"{place.out}/calibration"):  # it is named by its content
        objects.put(path, url)
    return replace(reference, pedestal=url)


def send_part(place: Place, part: Receipt) -> None:
    """Bring a part of the local dataset to the store."""
    objects.put(Path(part.path), f"{place.parts}/{Path(part.path).name}")


def take_back(place: Place, parts: list[Receipt]) -> None:
    """Remove parts from the store."""
    objects.remove([Path(part.path).name for part in parts], place.parts)


def names(place: Place) -> dict[str, str]:
    """Where the result is, as its summary says it."""
    return {"output": f"{place.out}/{place.dataset.official.name}", "dataset": place.url}


def fetch_parts(place: Place) -> None:
    """Bring the parts in the store to the local dataset."""
    for part in _parts(objects.names(place.url), place):
        objects.get(part.path, place.dataset.parts / Path(part.path).name)


def publish(place: Place) -> None:
    """Bring the finished local result to the store: its summary last, and then the parts go."""
    result = place.dataset.result
    path = result / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **names(place)}, indent=2, sort_keys=True) + "\n")
    files = {path.relative_to(result).as_posix(): path for path in sorted(result.rglob("*")) if path.is_file()}
    summary = {"summary.json": files.pop("summary.json")}
    objects.put_all(files, f"{place.url}/result")
    objects.put_all({place.dataset.official.name: place.dataset.root_file}, place.out)
    objects.put_all(summary, f"{place.url}/result")
    finished(place)
