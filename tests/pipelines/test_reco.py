"""``cygnoreco reco`` as its users meet it, without workers: those have tests of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cygnoreco import load_tables
from cygnoreco.errors import TransientError
from pipelines.cli import reco
from tests.conftest import SmallRuns
from tests.pipelines.conftest import Command, TwoCameras, content, reco_options, write_frames


def test_a_run(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    options = reco_options(small_runs, tmp_path, "--workers", 0)
    first = call("reco", small_runs.data, *options)
    assert first.code == 0
    assert first.err == ""
    assert "run 11 CAM0" in first.out
    assert str(tmp_path / "reco_run00011_3D.root") in first.out
    assert "time by stage" in first.out
    assert len(load_tables(tmp_path / "reco_run00011_3D.root").events) == small_runs.frames

    again = call("reco", small_runs.data, *options)
    assert again.code == 0
    assert "14 (14 of them done before)" in again.out
    assert "nothing was left to do" in again.out
    written = (tmp_path / "reco_run00011_3D.root").stat().st_mtime_ns
    before = content(tmp_path)
    forced = call("reco", small_runs.data, *options, "--force", "-q")
    assert (forced.code, forced.out, forced.err) == (0, "", "")
    assert (tmp_path / "reco_run00011_3D.root").stat().st_mtime_ns > written
    assert content(tmp_path) == before


def test_a_bad_run_does_not_stop_the_others(
    small_runs: SmallRuns, damaged_run: Path, tmp_path: Path, call: Command
) -> None:
    options = reco_options(small_runs, tmp_path, "--workers", 0)
    outcome = call("reco", damaged_run, tmp_path / "run7.mid", small_runs.data, *options)
    assert outcome.code == 3
    assert outcome.err == f"{tmp_path / 'run7.mid'}: no such file\n"
    assert "the file ends" in outcome.out
    rows = [[cell.strip() for cell in line.split("│")[:4]] for line in outcome.out.splitlines()]
    assert ["run00012.mid.gz", "CAM0", "bad events"] in [row[:3] for row in rows]
    assert ["run7.mid", "", "failed", ""] in rows
    assert ["run00011.mid.gz", "CAM0", "good", "14"] in rows


def test_strict_stops_at_the_first_bad_run(
    small_runs: SmallRuns, damaged_run: Path, tmp_path: Path, call: Command
) -> None:
    options = reco_options(small_runs, tmp_path, "--workers", 0, "--strict", "--json")
    outcome = call("reco", damaged_run, small_runs.data, *options)
    assert outcome.code == 3
    (failure,) = outcome.document()
    assert failure["kind"] == "DataError"
    assert "the file ends" in outcome.err
    assert not list(tmp_path.glob("*.root"))


def test_json_is_one_document(small_runs: SmallRuns, damaged_run: Path, tmp_path: Path, call: Command) -> None:
    options = reco_options(small_runs, tmp_path, "--workers", 0, "--json")
    outcome = call("reco", damaged_run, tmp_path / "none.mid", *options)
    damaged, missing = outcome.document()
    assert damaged["status"] == "bad events"
    assert damaged["faults"][0]["kind"] == "truncated"
    assert damaged["lineage"]["input"]["run"] == 11
    assert missing["status"] == "failed"
    assert missing["error"] in outcome.err


def test_a_folder_of_pedestals(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    folder = tmp_path / "pedestals"
    assert call("pedestal", small_runs.pedestal, "-o", folder, "-q").code == 0
    options = reco_options(small_runs, tmp_path / "out", "--workers", 0, "--json", "--pedestal", folder)
    assert call("reco", small_runs.data, *options).document()[0]["pedestal_run"] == 10
    empty = tmp_path / "empty"
    empty.mkdir()
    outcome = call("reco", small_runs.data, *options, "--pedestal", empty)
    assert outcome.code == 2
    assert "at or before run 11; runs and maps there: none" in outcome.err


def test_an_acceptance_that_fits_no_pixel_names_the_run(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    arguments = ["--pedestal", small_runs.pedestal, "-o", tmp_path, "--workers", 0]
    outcome = call("reco", small_runs.data, *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith(f"{small_runs.data} CAM0: accept.ymin = 304")


def test_every_camera_has_its_file(two_cameras: TwoCameras, tmp_path: Path, call: Command) -> None:
    options = ["--vignetting", "none", "--set", "accept.xmax=none", "--set", "accept.ymin=none"]
    options += ["--set", "accept.ymax=none", "--pedestal", two_cameras.pedestal, "--workers", 0]  # type: ignore[list-item]
    both = call("reco", two_cameras.data, *options, "-o", tmp_path / "both", "--json")
    assert both.code == 0
    assert [(each["camera"], each["frames"]) for each in both.document()] == [("CAM0", 6), ("CAM1", 6)]
    files = sorted(path.name for path in (tmp_path / "both").glob("*.root"))
    assert files == ["reco_run00011_CAM0_3D.root", "reco_run00011_CAM1_3D.root"]
    wide = load_tables(tmp_path / "both" / "reco_run00011_CAM1_3D.root")
    assert len(wide.clusters) > 0
    assert wide.clusters["sc_xmax"].max() > 160, "clusters beyond the columns of CAM0"

    one = call("reco", two_cameras.data, *options, "-o", tmp_path / "one", "--camera", "CAM1", "--json")
    assert [each["camera"] for each in one.document()] == ["CAM1"]
    name = "reco_run00011_CAM1_3D.root"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "both" / name).read_bytes()

    wrong = call("reco", two_cameras.data, *options, "-o", tmp_path / "one", "--camera", "CAM3")
    assert wrong.code == 2
    assert "no camera 'CAM3'" in wrong.err


def test_a_camera_that_cannot_be_done_does_not_stop_the_other(
    two_cameras: TwoCameras, tmp_path: Path, call: Command
) -> None:
    options = ["--vignetting", "none", "--set", "accept.xmin=200", "--set", "accept.xmax=none"]
    options += ["--set", "accept.ymin=none", "--set", "accept.ymax=none", "--workers", "0", "--json"]
    outcome = call("reco", two_cameras.data, "--pedestal", two_cameras.pedestal, *options, "-o", tmp_path)
    assert outcome.code == 3
    narrow, wide = outcome.document()
    assert (narrow["camera"], narrow["status"]) == ("CAM0", "failed")
    assert (wide["camera"], wide["status"]) == ("CAM1", "good")


def test_a_run_without_frames(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    empty = write_frames(tmp_path / "run00011.mid.gz", 11, [])
    outcome = call("reco", empty, *reco_options(small_runs, tmp_path, "--workers", 0))
    assert outcome.code == 2
    assert outcome.err == f"'{empty}' holds no camera frames\n"


def test_a_run_of_bad_frames_only(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    """The camera is known by its settings; every bank has the wrong size."""
    bad = write_frames(tmp_path / "run00011.mid.gz", 11, [np.zeros(100, np.uint16)] * 3)
    outcome = call("reco", bad, *reco_options(small_runs, tmp_path, "--workers", 0, "--json"))
    assert outcome.code == 3
    (document,) = outcome.document()
    assert (document["status"], document["frames"], document["clusters"]) == ("bad events", 0, 0)
    assert [fault["kind"] for fault in document["faults"]] == ["camera-size"] * 3
    tables = load_tables(tmp_path / "reco_run00011_3D.root")
    assert (len(tables.events), len(tables.clusters)) == (0, 0)


def test_a_passing_fault_asks_to_try_again(
    small_runs: SmallRuns, tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TransientError("workers died")

    monkeypatch.setattr(reco, "reconstruct", fail)
    outcome = call("reco", small_runs.data, *reco_options(small_runs, tmp_path, "--workers", 0))
    assert outcome.code == 4
    assert "workers died" in outcome.err


def test_a_full_or_forbidden_disk_is_no_bug(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = call("reco", small_runs.data, *reco_options(small_runs, tmp_path / "file" / "out", "--workers", 0))
    assert outcome.code == 2
    assert "Not a directory" in outcome.err


def test_names_with_brackets_and_blanks(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    """Nothing in a name is taken for markup."""
    folder = tmp_path / "a b [red]"
    folder.mkdir()
    shutil.copy(small_runs.data, folder / "run00011.mid.gz")
    outcome = call("reco", folder / "run00011.mid.gz", *reco_options(small_runs, folder, "--workers", 0))
    assert outcome.code == 0
    assert str(folder / "reco_run00011_3D.root") in outcome.out
