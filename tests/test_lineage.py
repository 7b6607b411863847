"""The lineage key: what decides it and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from cygnoreco.lineage import canonical_json, differences, key_of, lineage
from cygnoreco.recipe import Recipe

BASE: dict[str, Any] = {
    "run": 5001,
    "digest": "d" * 64,
    "camera": "CAM0",
    "recipe": Recipe.load("lime"),
    "pedestal": "p" * 64,
    "response": "r" * 64,
}


def key(**changes: Any) -> str:
    return key_of(lineage(**{**BASE, **changes}))


def test_the_key_is_stable_and_short() -> None:
    assert key() == key()
    assert len(key()) == 16
    assert int(key(), 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"run": 5002},
        {"digest": "e" * 64},
        {"camera": "CAM1"},
        {"pedestal": "q" * 64},
        {"response": "s" * 64},
        {"recipe": Recipe.load("lime").override(["suppress.nsigma=0.7"])},
        {"recipe": Recipe.load("lime").override(["clustering=dbscan"])},
    ],
)
def test_whatever_decides_the_result_changes_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_names_and_idle_stages_do_not_change_the_key() -> None:
    renamed = Recipe.from_dict({"name": "mine", "description": "other words"})
    idle = Recipe.load("lime").override(["idbscan.cuts=[1,2]"])
    assert key(recipe=renamed) == key(recipe=idle) == key()


def test_differences_are_readable() -> None:
    old = lineage(**BASE)
    new = lineage(**{**BASE, "recipe": BASE["recipe"].override(["suppress.nsigma=0.7"]), "run": 7})
    assert differences(old, new) == ["input.run: 5001 -> 7", "recipe.stages.suppress.nsigma: 0.6 -> 0.7"]


def test_one_content_has_one_text() -> None:
    assert canonical_json({"b": (1, 2.5), "a": None}) == '{"a":null,"b":[1,2.5]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
