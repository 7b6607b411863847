"""Which pedestal is taken for a run."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path

import pytest

from cygnoreco.calib.find import find_pedestal, latest_before, load_or_make, pedestal_of
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.errors import InputError
from cygnoreco.io.opening import open_source, settings_of
from cygnoreco.types import Camera
from tests.conftest import SmallRuns

CAMERA = Camera("CAM0", 256, 320)


@pytest.fixture(scope="module")
def pedestal(small_runs: SmallRuns) -> Pedestal:
    return pedestal_of(open_source(small_runs.pedestal), "CAM0")


def test_a_pedestal_is_taken_as_it_is(pedestal: Pedestal) -> None:
    assert find_pedestal(pedestal, 11, CAMERA) is pedestal


def test_raw_run_saved_files_and_cache_give_one_content(
    small_runs: SmallRuns, pedestal: Pedestal, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "pedestal_run00010.npz", tmp_path / "pedmap_run10_rebin1.root"
    pedestal.save(ours)
    pedestal.save_root(theirs)
    cache = tmp_path / "cache"
    for path in (small_runs.pedestal, small_runs.pedestal, ours, theirs):
        assert load_or_make(path, CAMERA, cache=cache).digest == pedestal.digest
    assert len(list(cache.iterdir())) == 1


def test_the_latest_pedestal_not_after_the_run_is_taken(
    small_runs: SmallRuns, pedestal: Pedestal, tmp_path: Path
) -> None:
    shutil.copy(small_runs.pedestal, tmp_path / "run00010.mid.gz")
    shutil.copy(small_runs.data, tmp_path / "run00011.mid.gz")  # no pedestal run: its settings say so
    pedestal.save(tmp_path / "pedestal_run00008.npz")
    pedestal.save_root(tmp_path / "pedmap_run20_rebin1.root")
    (tmp_path / "notes.txt").write_text("run00015.mid.gz")
    assert latest_before(tmp_path, 15, "CAM0").name == "run00010.mid.gz"
    assert latest_before(tmp_path, 9, "CAM0").name == "pedestal_run00008.npz"
    assert latest_before(tmp_path, 20, "CAM0").name == "pedmap_run20_rebin1.root"
    with pytest.raises(InputError, match=r"no pedestal in .* at or before run 7; runs and maps there: 8, 10, 11, 20"):
        latest_before(tmp_path, 7, "CAM0")


def test_a_map_is_preferred_to_the_raw_run_of_its_number(
    small_runs: SmallRuns, pedestal: Pedestal, tmp_path: Path
) -> None:
    shutil.copy(small_runs.pedestal, tmp_path / "run00010.mid.gz")
    pedestal.save(tmp_path / "pedestal_run00010.npz")
    assert latest_before(tmp_path, 11, "CAM0").suffix == ".npz"


def test_a_broken_candidate_is_passed_over_aloud(
    small_runs: SmallRuns, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(small_runs.pedestal, tmp_path / "run00010.mid.gz")
    (tmp_path / "run00011.root").write_bytes(b"not ROOT")
    with caplog.at_level(logging.WARNING):
        assert latest_before(tmp_path, 12, "CAM0").name == "run00010.mid.gz"
    assert "run00011.root' is passed over" in caplog.text


def test_maps_of_another_camera_do_not_count(pedestal: Pedestal, tmp_path: Path) -> None:
    pedestal.save(tmp_path / "pedestal_run00010_CAM0.npz")
    pedestal.save_root(tmp_path / "pedmap_run12_CAM1_rebin1.root")
    pedestal.save_root(tmp_path / "pedmap_run12_rebin4.root")  # not of single pixels: no candidate either
    assert latest_before(tmp_path, 20, "CAM0").name == "pedestal_run00010_CAM0.npz"
    assert latest_before(tmp_path, 20, "CAM1").name == "pedmap_run12_CAM1_rebin1.root"
    with pytest.raises(InputError, match="the pedestal of run 10 is of CAM0, that of CAM1 is needed"):
        find_pedestal(pedestal, 11, Camera("CAM1", 256, 320))


def test_what_does_not_fit_is_refused(small_runs: SmallRuns, pedestal: Pedestal, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="256 x 320 pixels, CAM0 of run 11 has 512 x 512"):
        find_pedestal(pedestal, 11, Camera("CAM0", 512, 512))
    with pytest.raises(InputError, match=r"no camera 'CAM3' in the pedestal run .* there: CAM0"):
        find_pedestal(small_runs.pedestal, 11, Camera("CAM3", 256, 320), cache=tmp_path)
    with pytest.raises(InputError, match="no pedestal at"):
        find_pedestal(tmp_path / "absent.npz", 11, CAMERA)


def test_only_the_first_frames_on_request(small_runs: SmallRuns) -> None:
    seen: list[tuple[int, int]] = []
    made = pedestal_of(open_source(small_runs.pedestal), "CAM0", max_frames=9, progress=lambda *done: seen.append(done))
    assert made.n_frames == 9
    assert seen == [(4, 9), (8, 9), (9, 9)]


def test_settings_are_read_without_the_rest_of_the_run(small_runs: SmallRuns, tmp_path: Path) -> None:
    cut = tmp_path / "run00011.mid.gz"
    cut.write_bytes(small_runs.data.read_bytes()[:60_000])
    assert settings_of(cut) == settings_of(small_runs.data) == open_source(small_runs.data).odb()


def test_a_failing_consumer_leaves_no_reader_behind(small_runs: SmallRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(frames: object, sums: object, squares: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("cygnoreco.calib.pedestal.accumulate", fail)
    for source in (open_source(small_runs.pedestal), open_source(small_runs.pedestal)):
        with pytest.raises(ZeroDivisionError):
            pedestal_of(source, "CAM0")
    assert "read-ahead" not in [thread.name for thread in threading.enumerate()]
