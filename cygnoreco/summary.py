"""What a result says of itself: its summary, and the parameters in the ROOT file."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np

from cygnoreco.dataset import Dataset
from cygnoreco.graph import CalibrationChoice
from cygnoreco.io.parts import Receipt
from cygnoreco.lineage import key_of
from cygnoreco.raw import Run
from cygnoreco.recipe import Recipe
from cygnoreco.types import Camera, Fault

#: Libraries whose versions are recorded.
_LIBRARIES = ("cygnoreco", "numpy", "scipy", "numba", "dask", "distributed", "uproot", "zarr")


def summarise(
    run: Run,
    recipe: Recipe,
    choice: CalibrationChoice,
    dataset: Dataset,
    document: Mapping[str, Any],
    receipts: list[Receipt],
    fresh: list[Receipt],
    started: float,
) -> dict[str, Any]:
    """Collect what ``summary.json`` says of a result.

    Parameters
    ----------
    run, recipe, choice, dataset
        What was reconstructed, and with what.
    document : mapping
        The lineage.
    receipts, fresh : list of Receipt
        All parts, and those that this start has made.
    started : float
        UNIX seconds at which this start began.
    """
    seconds: Counter[str] = Counter()
    for receipt in receipts:
        seconds.update(receipt.seconds)
    finished_at = time.time()
    late = late_faults(receipts)
    faults = (*run.faults, *late)
    return {
        "status": "bad events" if faults or choice.pedestal_faults else "good",
        "run": run.number,
        "camera": document["input"]["camera"],
        "key": key_of(document),
        "lineage": document,
        **of_this_call(run, recipe, choice, dataset),
        "pedestal_run": choice.pedestal_run,
        "frames": sum(receipt.stop - receipt.start for receipt in receipts) - len(late),
        "frames_lost": sum(fault.frame is not None for fault in faults),
        "clusters": sum(receipt.counts["clusters"] for receipt in receipts),
        "vetoed": sorted(frame for receipt in receipts for frame in receipt.vetoed),
        "faults": [asdict(fault) for fault in faults],
        "seconds_by_stage": dict(sorted(seconds.items())),
        "started": started,
        "finished": finished_at,
        "wall_s": finished_at - started,
        "frames_this_start": sum(receipt.stop - receipt.start for receipt in fresh),
        "host": {
            "name": socket.gethostname(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "python": sys.version.split()[0],
            "versions": {name: metadata.version(name) for name in _LIBRARIES},
        },
    }


#: Names that the experiment's ``Reco_params`` has for parameters of ours.
_OFFICIAL = {
    "rebin": "rebin.factor",
    "nsigma": "suppress.nsigma",
    "min_neighbors_average": "noise.min_average",
    "cimax": "upper_cut.cimax",
    "xmin": "accept.xmin",
    "xmax": "accept.xmax",
    "ymin": "accept.ymin",
    "ymax": "accept.ymax",
    "dbscan_eps": "directional.eps",
    "dbscan_minsamples": "directional.min_samples",
    "dir_radius": "directional.radius",
    "dir_min_accuracy": "directional.min_accuracy",
    "dir_minsamples": "directional.min_points",
    "dir_thickness": "directional.thickness",
    "max_attempts": "directional.max_attempts",
    "isolation_radius": "directional.isolation_radius",
}


def reco_params(recipe: Recipe, camera: Camera) -> dict[str, Any]:
    """Collect the scalars of the recipe: by the experiment's name where it has one, else ``stage_parameter``.

    Texts and lists stand in the provenance.
    """
    official = {where: name for name, where in _OFFICIAL.items()}
    found: dict[str, Any] = {"npixx": np.int32(camera.width)}
    edges = {"xmin": 0, "xmax": camera.width, "ymin": 0, "ymax": camera.height}
    for stage in recipe.active():
        for key, value in recipe[stage.name].items():
            if value is None:
                value = edges.get(key)
            if isinstance(value, (bool, int, float)):
                name = official.get(f"{stage.name}.{key}", f"{stage.name}_{key}")
                found[name] = np.float32(value) if isinstance(value, float) else np.int32(value)
    return found


def late_faults(receipts: list[Receipt]) -> tuple[Fault, ...]:
    """Faults that showed only when pixels were read."""
    return tuple(fault for receipt in receipts for fault in receipt.faults)


def of_this_call(run: Run, recipe: Recipe, choice: CalibrationChoice, dataset: Dataset) -> dict[str, Any]:
    """Collect what a summary says that is no part of the result's identity."""
    return {
        "input": str(run.path),
        "output": str(dataset.official),
        "dataset": str(dataset.folder),
        "recipe": recipe.name,
        "pedestal_faults": [asdict(fault) for fault in choice.pedestal_faults],
    }
