"""Recipes: what they hold, how they are changed, printed and compared."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cygnoreco.errors import InputError
from cygnoreco.recipe import CLUSTERINGS, STAGES, Recipe, shipped


def test_the_promised_recipes_are_shipped() -> None:
    assert {"lime", "winter23", "mango", "mc"} <= set(shipped())


@pytest.mark.parametrize("name", shipped())
def test_a_recipe_survives_toml(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    path = tmp_path / "copy.toml"
    path.write_text(recipe.to_toml(comments=True))
    again = Recipe.load(path)
    assert again == recipe
    assert tomllib.loads(recipe.to_toml()) == tomllib.loads(recipe.to_toml(comments=True))


def test_lime_is_the_signatures() -> None:
    recipe = Recipe.load("lime")
    for name, stage in STAGES.items():
        assert recipe[name] == stage.validate({})


def test_every_parameter_is_described_in_print() -> None:
    text = Recipe.load("lime").to_toml(comments=True)
    for stage in STAGES.values():
        for parameter in stage.parameters.values():
            assert parameter.description in text


def test_winter23_differs_in_the_documented_ways() -> None:
    found = {where for where, _, _ in Recipe.load("lime").differences(Recipe.load("winter23"))}
    assert found == {
        "orient.orientation",
        "spark.keep_entry",
        "upper_cut.saturated",
        "response.edge",
        "directional.steal",
        "measure.axes",
        "measure.theta",
        "measure.axis_sign",
        "measure.pivot",
        "measure.profile_bins",
        "measure.map_collisions",
        "measure.main_peak_is",
        "measure.peak_width_in",
        "measure.faint_positions",
        "energy.matrix",
        "energy.coverage",
        "energy.path",
    }


def test_override_changes_single_parameters() -> None:
    recipe = Recipe.load("lime").override(["suppress.nsigma=1.1", "clustering=dbscan", "accept.xmax=none"])
    assert recipe["suppress"]["nsigma"] == 1.1
    assert recipe.clustering == "dbscan"
    assert recipe["accept"]["xmax"] is None
    assert Recipe.load("lime")["suppress"]["nsigma"] == 0.6


def test_override_keeps_what_the_recipe_had() -> None:
    recipe = Recipe.load("mango").override(["noise.min_average=1.0"])
    assert recipe["suppress"]["nsigma"] == 1.8
    assert recipe.vignetting == "none"
    assert recipe.name == "mango"


def test_precision_is_part_of_the_content() -> None:
    recipe = Recipe.load("lime")
    single = recipe.override(["precision=float32"])
    assert (recipe.precision, single.precision) == ("float64", "float32")
    assert single.canonical() != recipe.canonical()
    assert ("precision", "float32", "float64") in single.differences(recipe)
    assert 'precision = "float32"' in single.to_toml()


def test_only_the_chosen_clustering_is_active() -> None:
    recipe = Recipe.load("lime").override(["clustering=idbscan"])
    active = {stage.name for stage in recipe.active()}
    assert active & set(CLUSTERINGS) == {"idbscan"}
    assert recipe.override(["dbscan.eps=3"]).canonical() == recipe.canonical()
    assert recipe.override(["idbscan.cuts=[1,2]"]).canonical() != recipe.canonical()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"supress": {"nsigma": 1.0}}, r"unknown key 'supress'; did you mean 'suppress'\?"),
        ({"suppress": {"nsigm": 1.0}}, r"unknown parameter 'suppress.nsigm'; did you mean 'nsigma'\?"),
        ({"suppress": 1.0}, r"'suppress' must be a table"),
        ({"name": 5}, r"'name' must be a text"),
        ({"clustering": "dbscn"}, r"unknown clustering 'dbscn'; did you mean 'dbscan'\?"),
        ({"precision": "float23"}, r"unknown precision 'float23'; did you mean 'float32'\?"),
        ({"extends": "lyme"}, r"unknown recipe 'lyme' in 'extends'; did you mean 'lime'\?"),
    ],
)
def test_mistakes_name_the_nearest_right_thing(document: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.from_dict(document)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("suppress.nsigma", "not of the form"),
        ("nsigma=2", "not of the form"),
        ("supress.nsigma=2", r"unknown stage 'supress' in .* did you mean 'suppress'\?"),
        ("name=other", "not of the form"),
        ("spark.excess=inf", r"'spark.excess' = inf: a finite number is needed"),
        ("suppress.nsigma=nan", "a finite number is needed"),
        ("suppress.nsigma=two", "'suppress.nsigma' = 'two'"),
        ("suppress.nsigma=__import__('os')", "'suppress.nsigma'"),
    ],
)
def test_wrong_settings(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.load("lime").override([setting])


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown recipe 'lim'; did you mean 'lime'\?"):
        Recipe.load("lim")
    with pytest.raises(InputError, match="no recipe file"):
        Recipe.load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = [")
    with pytest.raises(InputError, match=r"broken.toml' is not valid TOML"):
        Recipe.load(broken)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'description = "\xe9"')
    with pytest.raises(InputError, match=r"latin.toml' is not UTF-8"):
        Recipe.load(latin)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[noise]\nmin_averag = 1.0\n")
    with pytest.raises(InputError, match=r"wrong.toml': unknown parameter 'noise.min_averag'"):
        Recipe.load(wrong)
