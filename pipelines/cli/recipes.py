"""``cygnoreco recipes``: list, print, diff."""

from __future__ import annotations

from cygnoreco.recipe import STAGES, Recipe, shipped
from pipelines.cli import GOOD
from pipelines.cli.console import OUT, print_json, print_line, print_table


def list_recipes(as_json: bool) -> int:
    """List the shipped recipes."""
    recipes = [Recipe.load(name) for name in shipped()]
    if as_json:
        print_json([{"name": each.name, "description": each.description} for each in recipes])
    else:
        print_table("recipes", ("name", "description"), [(each.name, each.description) for each in recipes])
    return GOOD


def print_recipe(which: str, settings: list[str], as_json: bool) -> int:
    """Print a recipe, complete and commented."""
    recipe = Recipe.load(which).override(settings)
    if as_json:
        print_json({"name": recipe.name, "response": recipe.vignetting, **recipe.canonical()})
    else:
        OUT.print(recipe.to_toml(comments=True), markup=False, soft_wrap=True, end="")
    return GOOD


def diff_recipes(first: str, second: str, as_json: bool) -> int:
    """Print what differs between two recipes, and what each of the differing parameters means."""
    one, other = Recipe.load(first), Recipe.load(second)
    found = one.differences(other)
    if as_json:
        print_json([{"parameter": where, "first": here, "second": there} for where, here, there in found])
        return GOOD
    if not found:
        print_line(f"{one.name} and {other.name} are the same")
        return GOOD
    rows = [(where, here, there, _description(where)) for where, here, there in found]
    print_table(f"{one.name} and {other.name}", ("parameter", one.name, other.name, "meaning"), rows)
    return GOOD


def _description(where: str) -> str:
    stage, _, key = where.partition(".")
    return STAGES[stage].parameters[key].description.replace("``", "'") if key else ""
