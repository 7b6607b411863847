"""The identity of a result: same input, recipe, stage versions and calibration, same key, same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cygnoreco.recipe import Recipe

#: Raised when the layout of the outputs changes: a new layout is a new result.
OUTPUT_VERSION = 1


def canonical_json(document: Any) -> str:
    """One text for one content: sorted keys, no spaces, no NaN, shortest floats that read back the same."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def lineage(*, run: int, digest: str, camera: str, recipe: Recipe, pedestal: str, response: str) -> dict[str, Any]:
    """Everything that decides the bytes of a result.

    Block size, workers, device, host and time are absent on purpose: they must not matter.

    Parameters
    ----------
    run : int
        Run number.
    digest : str
        SHA-256 of the raw file.
    camera : str
        Name of the camera's bank.
    recipe : Recipe
        Its active stages, their versions and parameters enter; its name does not.
    pedestal, response : str
        Content hashes of the calibration.

    Returns
    -------
    dict
        Of plain JSON types.
    """
    document = {
        "output": OUTPUT_VERSION,
        "input": {"run": run, "sha256": digest, "camera": camera},
        "recipe": recipe.canonical(),
        "calibration": {"pedestal": pedestal, "response": response},
    }
    return json.loads(canonical_json(document))


def key_of(document: Mapping[str, Any]) -> str:
    """Lineage key: the first 16 hexadecimal digits of the SHA-256 of the canonical text."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """Say in words what differs between two lineages, a line a leaf (``recipe.stages.suppress.nsigma: 0.6 -> 0.8``)."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        here, there = old.get(key), new.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            lines += differences(here, there, f"{where}{key}.")
        elif here != there:
            lines.append(f"{where}{key}: {json.dumps(here)} -> {json.dumps(there)}")
    return lines
