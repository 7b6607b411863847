"""``cygnoreco show``, ``recipes`` and ``demo``."""

from __future__ import annotations

from pathlib import Path

import pytest

from cygnoreco import Recipe, load_tables
from tests.conftest import SmallRuns
from tests.pipelines.conftest import Command, reco_options

PNG = b"\x89PNG\r\n\x1a\n"


def test_show_draws_pictures_and_pages(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    picture, page = tmp_path / "new" / "event.png", tmp_path / "event.html"
    outcome = call("show", f"{small_runs.data}:3", *reco_options(small_runs, picture))
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{picture}\n", "")
    assert picture.read_bytes().startswith(PNG)
    assert call("show", f"{small_runs.data}:3", *reco_options(small_runs, page)).code == 0
    assert "event 3" in page.read_text()


def test_show_overlays_stored_clusters(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    """The clusters shown are those of the file: another recipe's do not depend on the one given here."""
    strict = ("--set", "suppress.nsigma=1e6")  # finds nothing
    assert call("reco", small_runs.data, *reco_options(small_runs, tmp_path, "--workers", 0, "-q")).code == 0
    found, stored = tmp_path / "found.html", tmp_path / "stored.html"
    options = reco_options(small_runs, found, *strict)
    assert call("show", f"{small_runs.data}:0", *options).code == 0
    assert "No clusters." in found.read_text()
    result = tmp_path / "reco_run00011_3D.root"
    outcome = call("show", f"{small_runs.data}:0", *options, "-o", stored, "--reco", result)
    assert outcome.code == 0
    count = int(load_tables(result).events["nSc"][0])
    assert count > 0
    assert f"{count} cluster" in stored.read_text()


def test_show_says_which_events_there_are(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    outcome = call("show", f"{small_runs.data}:33", *reco_options(small_runs, tmp_path / "x.png"))
    assert outcome.code == 2
    assert "it holds 14 frames, events 0 to 13" in outcome.err
    missing = tmp_path / "none.root"
    outcome = call("show", f"{small_runs.data}:3", *reco_options(small_runs, tmp_path / "x.png", "--reco", missing))
    assert outcome.code == 2
    assert f"no result at '{missing}'" in outcome.err


def test_recipes_are_listed(call: Command) -> None:
    text = call("recipes", "list").out
    assert all(name in text for name in ("lime", "winter23", "mango", "mc"))
    assert {"lime", "winter23"} <= {each["name"] for each in call("recipes", "list", "--json").document()}


def test_a_printed_recipe_can_be_used(tmp_path: Path, call: Command) -> None:
    printed = call("recipes", "print", "winter23", "--set", "suppress.nsigma=1.5")
    path = tmp_path / "mine.toml"
    path.write_text(printed.out)
    assert Recipe.load(path).canonical() == Recipe.load("winter23").override(["suppress.nsigma=1.5"]).canonical()
    assert call("recipes", "print", path, "--json").document()["stages"]["suppress"]["nsigma"] == 1.5


def test_recipes_are_compared(call: Command) -> None:
    text = call("recipes", "diff", "lime", "winter23").out
    assert "image[a, b] = frame[a, W-1-b]" in text, "brackets are no markup"
    assert "``" not in text
    differing = {each["parameter"]: each for each in call("recipes", "diff", "lime", "winter23", "--json").document()}
    assert differing["orient.orientation"] == {
        "parameter": "orient.orientation",
        "first": "sensor",
        "second": "d03a058",
    }
    assert call("recipes", "diff", "lime", "lime").out == "lime and lime are the same\n"


@pytest.mark.slow
def test_demo_goes_the_whole_way(tmp_path: Path, call: Command) -> None:
    outcome = call("demo", "-o", tmp_path, "--frames", 4, "--pedestal-frames", 4, "--workers", 0, "--json")
    assert outcome.code == 0
    document = outcome.document()
    assert document["frames"] == 4
    assert document["clusters"] > 0
    assert Path(document["picture"]).read_bytes().startswith(PNG)
    assert Path(document["output"]).is_file()
    assert Path(document["truth"]).is_file()
