"""``cygnoreco info``, ``verify``, ``convert`` and ``pedestal``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from cygnoreco import Pedestal, open_run
from tests.conftest import SmallRuns
from tests.pipelines.conftest import Command, TwoCameras


def test_info_says_what_is_in_a_run(small_runs: SmallRuns, call: Command) -> None:
    outcome = call("info", small_runs.data)
    assert outcome.code == 0
    assert "run 11" in outcome.out
    assert str(small_runs.data) in outcome.out
    assert "trigger module" in outcome.out
    assert "(32 values)" in outcome.out, "long settings are cut"
    document = call("info", small_runs.data, "--json").document()
    assert document["run_number"] == 11
    assert document["cameras"][0]["frames"] == small_runs.frames
    assert len(document["odb"]["/Configurations/DigitizerOffset"]) == 32


def test_info_lists_events_as_csv_or_json(small_runs: SmallRuns, damaged_run: Path, call: Command) -> None:
    lines = call("info", small_runs.data, "--events").out.splitlines()
    assert lines[0].startswith("serial,event_id,trigger_mask,timestamp,event_data_size,flags,banks")
    assert lines[1].endswith(",internal")
    assert sum(",CAM0:4:163840:" in line for line in lines) == small_runs.frames
    events = call("info", damaged_run, "--events", "--json").document()
    assert events[-1]["banks"] == ["broken"]
    assert events[-1]["flags"] is None
    assert events[0]["event_id"] == 0x8000
    no_events = call("info", damaged_run.with_name("none.mid"), "--events")
    assert no_events.code == 2


def test_info_names_every_camera(two_cameras: TwoCameras, call: Command) -> None:
    cameras = call("info", two_cameras.data, "--json").document()["cameras"]
    assert [each["camera"] for each in cameras] == [
        {"name": "CAM0", "height": 128, "width": 160},
        {"name": "CAM1", "height": 96, "width": 256},
    ]


def test_verify_tells_sound_from_damaged(small_runs: SmallRuns, damaged_run: Path, call: Command) -> None:
    sound = call("verify", small_runs.data)
    assert (sound.code, sound.out) == (0, f"{small_runs.data}: 14 frames, sound\n")
    damaged = call("verify", damaged_run)
    assert damaged.code == 3
    assert "NOT SOUND" in damaged.out
    assert "no-end-of-run" in damaged.out
    document = call("verify", damaged_run, "--json").document()
    assert document["sound"] is False
    assert document["faults"][0]["kind"] == "truncated"


@pytest.mark.parametrize("to", ["zarr", "root", "h5"])
def test_convert_there_and_back(to: str, small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    copy, back = tmp_path / f"copy.{to}", tmp_path / "back.mid"
    made = call("convert", small_runs.data, "--to", to, "-o", copy)
    assert made.code == 0
    assert made.out.startswith(f"{copy}: 14 frames, ")
    assert call("convert", copy, "--to", "midas", "-o", back, "-q").out == ""
    assert back.read_bytes() == gzip.decompress(small_runs.data.read_bytes())


def test_convert_replaces_only_if_forced(
    small_runs: SmallRuns, damaged_run: Path, tmp_path: Path, call: Command
) -> None:
    copy = tmp_path / "copy.zarr"
    assert call("convert", damaged_run, "--to", "zarr", "-o", copy).code == 3
    refused = call("convert", small_runs.data, "--to", "zarr", "-o", copy)
    assert refused.code == 2
    assert "exists already; --force replaces it" in refused.err
    assert len(open_run(copy).table()) < small_runs.frames
    forced = call("convert", small_runs.data, "--to", "zarr", "-o", copy, "--force", "--json")
    assert forced.code == 0
    assert forced.document()["frames"] == {"CAM0": small_runs.frames}
    assert len(open_run(copy).table()) == small_runs.frames


def test_convert_strict_refuses_a_damaged_run(damaged_run: Path, tmp_path: Path, call: Command) -> None:
    outcome = call("convert", damaged_run, "--to", "h5", "-o", tmp_path / "copy.h5", "--strict")
    assert outcome.code == 3
    assert "refused for 3 faults" in outcome.err
    assert not list(tmp_path.iterdir())


def test_convert_takes_a_preset(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    sizes = {}
    for preset in ("archive", "fast"):
        made = call(
            "convert", small_runs.data, "--to", "zarr", "--preset", preset, "-o", tmp_path / f"{preset}.zarr", "--json"
        )
        assert made.code == 0
        sizes[preset] = json.loads(made.out)["bytes"]
    assert sizes["archive"] < sizes["fast"]
    assert call("verify", tmp_path / "fast.zarr").code == 0
    unknown = call("convert", small_runs.data, "--to", "zarr", "--preset", "archiv", "-o", tmp_path / "x.zarr")
    assert unknown.code == 2
    assert "unknown preset 'archiv'; did you mean 'archive'?" in unknown.err
    by_url = call("convert", "s3://bucket/run.zarr", "--to", "midas")
    assert by_url.code == 2
    assert "--out must say" in by_url.err


def test_convert_beside_the_run_by_default(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    run = tmp_path / "run00011.mid.gz"
    run.write_bytes(small_runs.data.read_bytes())
    assert call("convert", run, "--to", "h5").code == 0
    assert (tmp_path / "run00011.h5").is_file()
    onto_itself = call("convert", run, "--to", "midas", "--force")
    assert onto_itself.code == 2
    assert "onto itself" in onto_itself.err
    assert run.read_bytes() == small_runs.data.read_bytes()


def test_pedestal_writes_both_formats(small_runs: SmallRuns, tmp_path: Path, call: Command) -> None:
    outcome = call("pedestal", small_runs.pedestal, "-o", tmp_path)
    assert outcome.code == 0
    assert "frames                     12" in outcome.out
    ours = Pedestal.load(tmp_path / "pedestal_run00010.npz")
    theirs = Pedestal.load(tmp_path / "pedmap_run10_rebin1.root")
    np.testing.assert_array_equal(ours.mean, theirs.mean)
    document = call("pedestal", small_runs.pedestal, "-o", tmp_path, "--max-frames", 5, "--json").document()
    assert document["frames"] == 5
    assert document["noise"] == pytest.approx(2.5, abs=0.5)
    assert json.dumps(document["npz"]) == json.dumps(str(tmp_path / "pedestal_run00010.npz"))


def test_pedestal_of_one_of_several_cameras(two_cameras: TwoCameras, tmp_path: Path, call: Command) -> None:
    unnamed = call("pedestal", two_cameras.pedestal, "-o", tmp_path)
    assert unnamed.code == 2
    assert "name one of CAM0, CAM1" in unnamed.err
    assert call("pedestal", two_cameras.pedestal, "-o", tmp_path, "--camera", "CAM1", "-q").code == 0
    assert Pedestal.load(tmp_path / "pedestal_run00010_CAM1.npz").mean.shape == (96, 256)
