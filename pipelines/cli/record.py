"""The folder of a campaign that runs inside a pool: the request, how far it is, and what became of the runs.

Everything that the driver outside and the one inside tell each other is a file here, and every file may be read at any
moment, whoever is killed. Below the output folder, ``campaigns/ID``:

==================  ====================================================================================
``request.json``    all that is asked for; written outside
``standing.json``   how far the campaign is, once a second; written inside
``outcomes.jsonl``  a line for every camera of a run when it ends; a later line about the same one counts
``stop``            is there if the campaign is to end; written outside
``lock``            locked by the driver inside
``driver.*``        logs of its job
``crashes.log``     tracebacks of drivers inside that met a bug or a fault of the pool
==================  ====================================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clusters.site import Site
from cygnoreco.campaign import Order
from cygnoreco.errors import InputError, nearest
from cygnoreco.io.atomic import atomic_write, flush
from cygnoreco.lineage import canonical_json
from cygnoreco.recipe import Recipe

#: States of a campaign that goes on no more. The others are ``starting``, ``running``, ``interrupted`` and ``again``.
OVER = ("ended", "stopped", "failed")


@dataclass(frozen=True)
class Request:
    """A campaign that is asked for.

    Attributes
    ----------
    runs : tuple of str
        Full names.
    order : Order
        What is asked for all of them; its paths are absolute.
    camera : str or None
        Only this camera.
    site : Site
        Where.
    workers : int
        How many; 0 for as many as the work is worth.
    version : str
        Of cygnoreco.
    files : mapping
        Size in bytes and time of change in ns of those runs and calibrations that are files.
    """

    runs: tuple[str, ...]
    order: Order
    camera: str | None
    site: Site
    workers: int
    version: str
    files: Mapping[str, Sequence[int]]

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of what is to be made and from what; not of where, nor by how many."""
        document = {
            "runs": sorted(self.runs),
            "camera": self.camera,
            "version": self.version,
            "files": {name: list(what) for name, what in self.files.items()},
            "order": {key: value for key, value in _of_order(self.order).items() if key not in ("device", "block")},
            "recipe": self.order.recipe.canonical(),
        }
        return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Folder of the campaign."""
        return self.order.out / "campaigns" / self.id

    @property
    def how(self) -> dict[str, Any]:
        """What may differ between two requests for the same."""
        return {"site": self.site, "workers": self.workers, "device": self.order.device, "block": self.order.block}


def request_of(runs: Sequence[str], order: Order, camera: str | None, site: Site, workers: int) -> Request:
    """Ask for a campaign."""
    files = {}
    for name in (*runs, str(order.pedestal), *([order.response] if order.response else [])):
        path = Path(name)
        with contextlib.suppress(OSError):
            if path.is_file():
                seen = path.stat()
                files[name] = (seen.st_size, seen.st_mtime_ns)
    return Request(tuple(runs), order, camera, site, workers, version("cygnoreco"), files)


def write_request(request: Request) -> None:
    """Make the folder of a campaign; what an earlier one of the same request left is taken away first."""
    folder = request.folder
    for name in ("stop", "outcomes.jsonl", "standing.json"):
        (folder / name).unlink(missing_ok=True)
    document = {
        "id": request.id,
        "runs": request.runs,
        "order": {**_of_order(request.order), "recipe": request.order.recipe.to_toml()},
        "camera": request.camera,
        "site": request.site.model_dump(mode="json", exclude_unset=True),
        "workers": request.workers,
        "version": request.version,
        "files": request.files,
        "time": time.time(),
    }
    _write(folder / "request.json", document)


def read_request(folder: Path) -> Request:
    """Read what is asked for.

    Raises
    ------
    InputError
        The folder is not that of a campaign.
    """
    path = folder / "request.json"
    try:
        found = json.loads(path.read_text())
        order = {**found["order"], "recipe": Recipe.from_dict(tomllib.loads(found["order"]["recipe"]))}
        order = {**order, "pedestal": Path(order["pedestal"]), "out": Path(order["out"])}
        return Request(
            runs=tuple(found["runs"]),
            order=Order(**order),
            camera=found["camera"],
            site=Site.model_validate(found["site"]),
            workers=found["workers"],
            version=found["version"],
            files=found["files"],
        )
    except FileNotFoundError:
        raise InputError(f"'{folder}' is not the folder of a campaign: expected 'request.json' in it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{path}' is not the request of a campaign of this version: {error}") from None


def write_standing(folder: Path, document: Mapping[str, Any]) -> None:
    """Say how far a campaign is."""
    _write(folder / "standing.json", {**document, "time": time.time()})


def read_standing(folder: Path) -> dict[str, Any]:
    """Read how far a campaign is; empty if it has not begun."""
    with contextlib.suppress(OSError, ValueError):  # the moment of a change, on some shared file systems
        found = json.loads((folder / "standing.json").read_text())
        return found if isinstance(found, dict) else {}
    return {}


def is_over(standing: Mapping[str, Any]) -> bool:
    """Whether a campaign goes on no more."""
    return standing.get("state") in OVER


def append_outcome(folder: Path, outcome: Mapping[str, Any]) -> None:
    """Note what became of a run, behind what is there; half a line of a killed writer stays one of its own."""
    path = folder / "outcomes.jsonl"
    with path.open("a+b") as file:
        torn = b""
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            torn = b"" if file.read(1) == b"\n" else b"\n"
        file.write(torn + json.dumps(outcome, default=_plain).encode() + b"\n")
    flush(path)


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    """Read what became of the runs that have ended: the latest about each camera of each."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / "outcomes.jsonl").read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                one = json.loads(line)
                found.pop((one["input"], None), None)  # an earlier start did not even know the camera
                found.pop((one["input"], one.get("camera")), None)
                found[one["input"], one.get("camera")] = one
    return list(found.values())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Try to lock a file for the length of a ``with`` block, and say whether that worked.

    The lock is the system's, and goes with its process, on shared file systems with its machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def campaigns(out: Path) -> list[Path]:
    """Folders of the campaigns of an output folder, the one that was asked for last comes last."""
    requests = (out / "campaigns").glob("*/request.json")
    return [path.parent for path in sorted(requests, key=lambda path: path.stat().st_mtime)]


def campaign_named(out: Path, name: str | None) -> Path:
    """Folder of a campaign, by the beginning of its name; the latest if none is given.

    Raises
    ------
    InputError
        No such campaign, or several.
    """
    known = {folder.name: folder for folder in campaigns(out)}
    if not known:
        raise InputError(f"no campaign in '{out}': expected the output folder of `cygnoreco reco ... --site SITE`")
    fitting = [folder for each, folder in known.items() if each.startswith(name or "")]
    if not fitting:
        raise InputError(f"no campaign '{name}' in '{out}'{nearest(str(name), known)}; see `cygnoreco campaign list`")
    if name is not None and len(fitting) > 1:
        raise InputError(f"'{name}' is the beginning of several campaigns: {', '.join(each.name for each in fitting)}")
    return fitting[-1].absolute()


def _of_order(order: Order) -> dict[str, Any]:
    fields = {key: value for key, value in vars(order).items() if key != "recipe"}
    return {key: str(value) if isinstance(value, Path) else value for key, value in fields.items()}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(document, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    """Value that JSON does not know: NumPy's arrays and scalars, mappings, paths."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.tolist() if hasattr(value, "tolist") else str(value)
