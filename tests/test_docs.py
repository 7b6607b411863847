"""The pages of ``docs`` and the notebooks of ``examples`` say what is so.

``python -m tests.test_docs`` writes the table of branches in ``docs/output.md`` anew.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clusters.site import load_site
from cygnoreco.recipe import Recipe
from cygnoreco.types import CLUSTER_COLUMNS, EVENT_COLUMNS, REDPIX_COLUMNS, TIMING_COLUMNS, Column

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "output.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

_BEGIN = "<!-- branches: begin (written by python -m tests.test_docs) -->\n"
_END = "<!-- branches: end -->"
_TYPES = {"<i4": "Int_t", "<u4": "UInt_t", "<f4": "Float_t"}


def branches_table() -> str:
    """Markdown table of all branches of the tree ``Events``."""
    lines = ["| branch | type | unit | | |", "|---|---|---|---|---|"]
    for columns, length in (
        (EVENT_COLUMNS + TIMING_COLUMNS, ""),
        (CLUSTER_COLUMNS, "[nSc]"),
        (REDPIX_COLUMNS, "[nRedpix]"),
    ):
        lines += [_line(column, length) for column in columns]
    return "\n".join(lines) + "\n"


def _line(column: Column, length: str) -> str:
    whose = "" if column.standard else "*ours*"
    return f"| `{column.name}` | {_TYPES[column.dtype]}{length} | {column.unit} | {column.description} | {whose} |"


def with_branches(page: str) -> str:
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + branches_table() + _END + after


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_table_of_branches_is_that_of_the_code() -> None:
    """If this fails, run ``python -m tests.test_docs``."""
    page = OUTPUT.read_text()
    assert page.count(_BEGIN) == page.count(_END) == 1
    assert page == with_branches(page)


def fault_kinds() -> set[str]:
    """Every word for a fault in the sources: first argument of what makes one, fifth of the reader's ``_broken``.

    A word that depends is chosen in the line before: ``kind = "this" if ... else "that"``.
    """
    place = {"Fault": 0, "StreamError": 0, "BrokenBanks": 0, "_broken": 4}
    found: set[str] = set()
    for path in (ROOT / "cygnoreco").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            words: list[ast.expr] = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in place:
                words = node.args[place[node.func.id] :][:1]
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.IfExp) and path.parent.name == "io":
                chosen = ast.unparse(node.targets[0]) == "kind"
                words = [node.value.body, node.value.orelse] if chosen else []
            found |= {word.value for word in words if isinstance(word, ast.Constant)}
    return found


def test_every_kind_of_fault_is_documented_and_no_other() -> None:
    """The table under *Faults* in ``docs/raw-data.md``."""
    section = (ROOT / "docs" / "raw-data.md").read_text().split("## Faults")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    found = fault_kinds()
    assert {"truncated", "foreign-bytes", "trailer", "bank-total", "unreadable"} <= found  # the search works at all
    assert sorted(documented) == sorted(found)


def test_every_difference_of_winter23_is_documented_with_its_effect() -> None:
    """The two tables of ``docs/recipes.md``: the values and reasons, and what ``bench/recipe_effects.py`` measured."""
    page = (ROOT / "docs" / "recipes.md").read_text()
    reasons, _, effects = page.partition("<!-- effects: begin -->")
    effects = effects.partition("<!-- effects: end -->")[0]
    differences = Recipe.load("lime").differences(Recipe.load("winter23"))
    assert differences
    for where, here, there in differences:
        assert f"| `{where}` | {_text(here)} | {_text(there)} |" in reasons
        assert f"| `{where}`" in effects
    assert len(re.findall(r"^\| `\w+\.\w+`", reasons, re.MULTILINE)) == len(differences)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_shipped_recipes_have_the_values_of_the_page() -> None:
    """Thresholds that ``docs/recipes.md`` names for MANGO and simulated runs."""
    page = (ROOT / "docs" / "recipes.md").read_text()
    for name in ("mango", "mc"):
        recipe = Recipe.load(name)
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert f"`suppress.nsigma = {recipe['suppress']['nsigma']}`" in line
        assert f"`noise.min_average = {recipe['noise']['min_average']}`" in line


def test_toml_of_the_recipes_page_is_a_recipe(tmp_path: Path) -> None:
    """The example of a recipe of one's own loads, and differs as the page says."""
    (block,) = code_blocks(ROOT / "docs" / "recipes.md", "toml")
    (tmp_path / "bright.toml").write_text(block)
    recipe = Recipe.load(tmp_path / "bright.toml")
    assert recipe.clustering == "dbscan"
    assert recipe["suppress"]["nsigma"] == 1.2
    assert recipe["accept"]["ymin"] is None


def test_toml_of_the_clusters_page_is_a_site(tmp_path: Path) -> None:
    (block,) = code_blocks(ROOT / "docs" / "clusters.md", "toml")
    (tmp_path / "centre.toml").write_text(block)
    site = load_site(tmp_path / "centre.toml")
    assert (site.kind, site.job.wall_time, site.workers.maximum) == ("htcondor", 86400.0, 500)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    """Every ``$ cygnoreco ...`` line: the command is there, and takes the options."""
    from typer.main import get_command

    from pipelines.cli.app import app

    for line in re.findall(r"^\$ cygnoreco (.*)$", "\n".join(code_blocks(page, "console")), re.MULTILINE):
        words = shlex.split(line.partition(" && ")[0].partition(" > ")[0], comments=True)
        command = get_command(app)
        while hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            assert not word.startswith("-") or word in options, f"{word} in '{line}'"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Links to files of the project."""
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.fixture(scope="module")
def demo_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the runs that the pages talk of, on a sensor just large enough for the acceptance of ``lime``."""
    from simulation.detector import Detector
    from simulation.plan import demo_plan
    from simulation.run import pedestal_run, write_run

    folder = tmp_path_factory.mktemp("docs")
    detector = Detector(height=512, width=512)
    pedestal_run(folder / "run05000.mid.gz", run=5000, frames=8, detector=detector)
    write_run(folder / "run05001.mid.gz", run=5001, events=demo_plan(10, detector=detector), detector=detector)
    return folder


def test_python_of_the_pages_runs(demo_runs: Path) -> None:
    """All blocks of a page in one namespace; the page on the output reads what the other one leaves."""
    pages = [code_blocks(ROOT / "docs" / name, "python") for name in ("how-to.md", "output.md")]
    assert all(len(blocks) > 4 for blocks in pages)
    run_code("\n".join(block for blocks in pages for block in blocks), demo_runs)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_holds_no_outputs(notebook: Path, tmp_path: Path) -> None:
    """Its code cells, one after the other, without Jupyter."""
    content = json.loads(notebook.read_text())
    assert content["nbformat"] == 4
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all("id" in cell for cell in content["cells"])
    run_code("\n".join("".join(cell["source"]) for cell in code), tmp_path)


def test_there_are_notebooks() -> None:
    """The two that the tests above are about."""
    assert [path.stem for path in NOTEBOOKS] == ["compare_recipes", "first_run"]


def run_code(code: str, folder: Path) -> None:
    """Run code in a process of its own, so that what it imports, draws and starts ends with it."""
    done = subprocess.run(
        [sys.executable, "-c", f"import matplotlib\nmatplotlib.use('agg')\n{code}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    OUTPUT.write_text(with_branches(OUTPUT.read_text()))
