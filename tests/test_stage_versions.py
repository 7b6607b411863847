"""A stage whose code changed must have a new version: the version is part of every lineage key.

The fingerprint of a stage covers its own code and that of every function of the package that it reaches through names:
helpers, kernels, constants. Docstrings, comments and annotations do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cygnoreco
from cygnoreco import chain
from cygnoreco.recipe import STAGES

RECORD = Path(__file__).parent / "data" / "stage_versions.json"

#: What runs between the stages without being one; changes there change results of the stage named.
ATTACHED: dict[str, tuple[Callable[..., Any], ...]] = {
    "subtract": (chain.image_section, chain.patches, chain.cut_patches, chain.prepare_cuts),
    "tables": (chain.reconstruct_block,),
}


def fingerprint(functions: tuple[Callable[..., Any], ...], stop: frozenset[Callable[..., Any]]) -> str:
    """Hash of the code that some functions reach inside the package, not entering those of ``stop``."""
    visited: set[tuple[str, str]] = set()  # with the module: two may have a helper of one name
    seen: set[tuple[str, str]] = set()
    waiting = list(functions)
    while waiting:
        function = waiting.pop()
        name = function.__qualname__
        if (function.__module__, name) in visited:
            continue
        visited.add((function.__module__, name))
        seen.add((name, _normal_source(function)))
        for value in _reached(function):
            if isinstance(value, (types.FunctionType, type)) and value.__module__.startswith("cygnoreco."):
                if value not in stop and not (isinstance(value, type) and issubclass(value, Exception)):
                    waiting.append(value)
            elif isinstance(value, (int, float, str, tuple, frozenset)):
                seen.add((f"{name}:{value!r}", ""))
    return hashlib.sha256(json.dumps(sorted(seen)).encode()).hexdigest()[:16]


def _reached(function: Callable[..., Any]) -> Iterator[Any]:
    code = getattr(function, "__code__", None)
    if code is None:  # a class: only its source counts
        return
    for name in _names(code):
        value = function.__globals__.get(name)  # type: ignore[attr-defined]
        yield getattr(value, "py_func", value)  # numba keeps the Python function inside


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _normal_source(function: Callable[..., Any]) -> str:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            node.decorator_list = []
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.dump(tree)


def current() -> dict[str, dict[str, Any]]:
    """Versions and fingerprints of all stages as they are now."""
    others = frozenset(stage.function for stage in STAGES.values())
    return {
        name: {
            "version": stage.version,
            "fingerprint": fingerprint((stage.function, *ATTACHED.get(name, ())), others - {stage.function}),
        }
        for name, stage in STAGES.items()
    }


def test_changed_stages_have_new_versions() -> None:
    recorded = json.loads(RECORD.read_text())
    now = current()
    stale = [
        name
        for name, entry in now.items()
        if name in recorded
        and entry["fingerprint"] != recorded[name]["fingerprint"]
        and entry["version"] == recorded[name]["version"]
    ]
    assert not stale, f"code changed without a new version: {stale}; see CONTRIBUTING.md"
    assert {name: entry["version"] for name, entry in now.items()} == {
        name: entry["version"] for name, entry in recorded.items()
    }, "run: python -m tests.test_stage_versions"


TOY = """
LIMIT = {limit}


def kernel(x):
    return x {sign} LIMIT


def stage(x):
    '''{text}'''
    return kernel(x)
"""


def test_the_fingerprint_sees_through_kernels_and_constants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cygnoreco, "__path__", [*cygnoreco.__path__, str(tmp_path)])

    def of(number: int, **changes: object) -> str:
        (tmp_path / f"toy{number}.py").write_text(TOY.format(**{"limit": 5, "sign": "+", "text": "Words.", **changes}))
        return fingerprint((importlib.import_module(f"cygnoreco.toy{number}").stage,), frozenset())

    assert of(0) == of(1, text="Other words.")
    assert of(0) != of(2, sign="-")
    assert of(0) != of(3, limit=6)


if __name__ == "__main__":
    RECORD.write_text(json.dumps(current(), indent=1, sort_keys=True) + "\n")
    print(f"{len(STAGES)} stages recorded in {RECORD}")
