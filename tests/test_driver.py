"""A run from its raw file to its published result."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import uproot

from cygnoreco import InputError, Recipe, load_tables, open_run, reconstruct
from cygnoreco.calib.find import pedestal_of
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import Response
from cygnoreco.chain import calibrate, check_camera, reconstruct_block
from cygnoreco.driver import Progress, Result
from cygnoreco.errors import DataError, TransientError
from cygnoreco.graph import Work, choose_calibration, cut, parts_array
from cygnoreco.io.convert import convert
from cygnoreco.io.opening import open_source
from cygnoreco.io.parts import Receipt, part_path, write_part
from cygnoreco.spread import missing
from cygnoreco.types import FRAME_DTYPE, Camera
from tests.conftest import SmallRuns
from tests.tables import same


def recipe_of(runs: SmallRuns, *more: str) -> Recipe:
    return Recipe.load("lime").override([*runs.settings, *more])


def reco(runs: SmallRuns, out: Path | None, **options: Any) -> Result:
    options = {"pedestal": runs.pedestal, "response": runs.response, "recipe": recipe_of(runs), **options}
    return reconstruct(runs.data, out=out, **options)


@pytest.fixture(scope="module")
def reference(small_runs: SmallRuns, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run done at one go, frame by frame."""
    return reco(small_runs, tmp_path_factory.mktemp("reference"), block=1)


@pytest.fixture(scope="module")
def cluster_client() -> Iterator[Any]:
    """Two worker processes."""
    from clusters.local import local_client

    with local_client(2) as client:
        yield client


def test_a_run_becomes_a_published_result(small_runs: SmallRuns, reference: Result) -> None:
    assert reference.path is not None
    assert reference.path.name == "reco_run00011_3D.root"
    assert same(load_tables(reference.path), reference.tables)
    events = reference.tables.events
    assert events["event"].tolist() == list(range(small_runs.frames))
    assert set(events["run"]) == {11}
    assert set(events["pedestal_run"]) == {10}
    assert (events["timestamp"] > 0).all()
    assert reference.tables.events["nSc"].sum() == len(reference.tables.clusters) > 10
    assert reference.summary["frames"] == small_runs.frames
    assert reference.summary["status"] == "good"


def test_clusters_stand_in_falling_order_of_light(reference: Result) -> None:
    offsets = reference.tables.cluster_offsets
    for first, last in pairwise(offsets):
        assert (np.diff(reference.tables.clusters["sc_integral"][first:last]) <= 0).all()


def test_saved_pixels_belong_to_their_clusters(reference: Result) -> None:
    tables = reference.tables
    saved = 0
    for index in range(len(tables)):
        event = tables.rows(index, index + 1)
        for cluster in event.clusters[event.clusters["sc_redpixIdx"] >= 0]:
            first = int(cluster["sc_redpixIdx"])
            pixels = event.redpix[first : first + int(cluster["sc_size"])]
            assert pixels["redpix_ix"].min() == cluster["sc_xmin"]
            assert pixels["redpix_iy"].max() == cluster["sc_ymax"]
            assert pixels["redpix_iz"].sum() == pytest.approx(cluster["sc_integral"], rel=0.01)
            saved += len(pixels)
    assert saved == len(tables.redpix) > 0


@pytest.mark.parametrize("block", [3, 8, 100])
def test_block_size_does_not_matter(small_runs: SmallRuns, reference: Result, tmp_path: Path, block: int) -> None:
    result = reco(small_runs, tmp_path, block=block)
    assert result.path is not None and reference.path is not None  # noqa: PT018
    assert result.path.read_bytes() == reference.path.read_bytes()


def test_workers_do_not_matter(small_runs: SmallRuns, reference: Result, tmp_path: Path, cluster_client: Any) -> None:
    result = reco(small_runs, tmp_path, block=2, client=cluster_client)
    assert result.path is not None and reference.path is not None  # noqa: PT018
    assert result.path.read_bytes() == reference.path.read_bytes()


def test_nothing_is_kept_without_an_output_folder(small_runs: SmallRuns, reference: Result) -> None:
    result = reco(small_runs, None)
    assert result.path is None
    assert same(result.tables, reference.tables)


def test_a_finished_run_is_not_done_again(small_runs: SmallRuns, tmp_path: Path) -> None:
    seen: list[Progress] = []
    first = reco(small_runs, tmp_path, watch=seen.append)
    assert first.resumed == 0
    assert [each.frames for each in seen] == [0, 8, 14]
    seen.clear()
    second = reco(small_runs, tmp_path, watch=seen.append)
    assert second.resumed == small_runs.frames
    assert not seen
    assert same(second.tables, first.tables)
    assert first.path is not None
    modified = first.path.stat().st_mtime_ns
    forced = reco(small_runs, tmp_path, force=True)
    assert forced.resumed == 0
    assert first.path.stat().st_mtime_ns != modified


def test_parts_of_an_earlier_start_are_used(
    small_runs: SmallRuns, reference: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: Progress) -> None:
        if progress.frames >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reco(small_runs, tmp_path, block=4, watch=stop)
    assert not list(tmp_path.glob("*.root"))
    result = reco(small_runs, tmp_path, block=5)  # another block size: what is there still counts
    assert result.resumed == 8
    assert result.summary["frames_this_start"] == 6
    assert result.path is not None and reference.path is not None  # noqa: PT018
    assert result.path.read_bytes() == reference.path.read_bytes()


def test_a_truncated_result_is_noticed_and_made_again(small_runs: SmallRuns, reference: Result, tmp_path: Path) -> None:
    first = reco(small_runs, tmp_path)
    published = Path(first.summary["dataset"]) / "result" / "reco_run00011_3D.root"
    published.write_bytes(published.read_bytes()[:-100])
    again = reco(small_runs, tmp_path)
    assert again.path is not None and reference.path is not None  # noqa: PT018
    assert again.path.read_bytes() == reference.path.read_bytes()


def test_results_of_two_recipes_live_side_by_side(small_runs: SmallRuns, tmp_path: Path) -> None:
    one = reco(small_runs, tmp_path)
    other = reco(small_runs, tmp_path, recipe=recipe_of(small_runs, "suppress.nsigma=1.5"))
    assert one.summary["key"] != other.summary["key"]
    assert len(list((tmp_path / "datasets").iterdir())) == 2
    assert same(load_tables(tmp_path / "reco_run00011_3D.root"), other.tables)
    reco(small_runs, tmp_path)  # the official name follows the latest request
    assert same(load_tables(tmp_path / "reco_run00011_3D.root"), one.tables)


@pytest.mark.parametrize("clustering", ["dbscan", "idbscan"])
def test_every_clustering_goes_through(small_runs: SmallRuns, clustering: str) -> None:
    result = reco(small_runs, None, recipe=recipe_of(small_runs, f"clustering={clustering}"))
    assert len(result.tables.clusters) > 0
    tags = set(result.tables.clusters["sc_tag"])
    assert tags <= {1, 2, 3} if clustering == "idbscan" else tags == {0}


def test_winter23_and_the_density_calibration_go_through(small_runs: SmallRuns) -> None:
    recipe = Recipe.load("winter23").override([*small_runs.settings, "energy.enabled=true"])
    result = reco(small_runs, None, recipe=recipe)
    assert (result.tables.clusters["sc_energy"] > 0).any()


def test_the_saturation_correction_takes_the_plain_path(small_runs: SmallRuns, reference: Result) -> None:
    result = reco(small_runs, None, recipe=recipe_of(small_runs, "saturation.enabled=true"))
    assert result.tables.clusters["sc_integral"].sum() > reference.tables.clusters["sc_integral"].sum()
    idle = reco(small_runs, None, recipe=recipe_of(small_runs, "saturation.enabled=true", "saturation.onset=1e9"))
    assert same(idle.tables, reference.tables)  # the plain stages give the bits of the fused ones


def test_sparks_are_flagged_or_left_out_and_counted(small_runs: SmallRuns, reference: Result) -> None:
    brightest = int(reference.tables.events["cmos_integral"].argmax())
    frames = open_run(small_runs.data).frames(block=4).compute()
    sums = np.sort(frames.sum(axis=(1, 2), dtype=float))
    setting = f"spark.excess={0.5 * (sums[-1] + sums[-2]) - 2 * 100.0 * frames[0].size}"
    kept = reco(small_runs, None, recipe=recipe_of(small_runs, setting))
    assert kept.tables.events["quality"][brightest] & 1
    assert kept.tables.events["nSc"][brightest] == 0
    assert kept.summary["vetoed"] == [brightest]
    dropped = reco(small_runs, None, recipe=recipe_of(small_runs, setting, "spark.keep_entry=false"))
    assert brightest not in dropped.tables.events["event"]
    assert dropped.summary["vetoed"] == [brightest]


def test_timings_are_recorded_on_request_only(small_runs: SmallRuns, reference: Result) -> None:
    assert set(reference.tables.events["t_DBSCAN"]) == {-1}
    timed = reco(small_runs, None, recipe=recipe_of(small_runs, "tables.timings=true"))
    assert (timed.tables.events["t_pedsub"] > 0).all()
    assert reference.summary["seconds_by_stage"]["pedsub"] > 0


def test_a_graph_has_one_task_a_block(small_runs: SmallRuns, tmp_path: Path) -> None:
    run = open_run(small_runs.data)
    choice = choose_calibration(11, run.camera(), recipe_of(small_runs), small_runs.pedestal, "none", folder=tmp_path)
    parts = parts_array(Work(run.ref(), choice.reference, 11, 10, str(tmp_path)), cut(14, 4))
    (optimized,) = dask.optimize(parts)
    graph = dict(optimized.__dask_graph__())
    assert len(graph) == 4
    assert sum(len(str(task)) for task in graph.values()) < 40_000  # names, not pixels or maps


def test_lazy_arrays_are_the_frames(small_runs: SmallRuns) -> None:
    run = open_run(small_runs.data)
    frames = run.frames(block=5)
    assert frames.shape == (14, 256, 320)
    assert frames.chunks == ((5, 5, 4), (256,), (320,))
    assert frames.dtype == np.uint16
    assert (frames[6].compute() == run.frame(6)).all()


def test_lazy_corrected_images(small_runs: SmallRuns) -> None:
    run = open_run(small_runs.data)
    options: dict[str, Any] = {"pedestal": small_runs.pedestal, "response": "none", "block": 5}
    corrected = run.corrected(recipe_of(small_runs), **options)
    suppressed = run.corrected(recipe_of(small_runs), what="suppressed", **options)
    rebinned = run.corrected(recipe_of(small_runs), what="rebinned", **options)
    assert corrected.shape == suppressed.shape == (14, 256, 320)
    assert rebinned.shape == (14, 64, 80)
    assert abs(np.median(corrected[-1].compute())) < 1  # the last frame is dark
    assert ((suppressed[0].compute() == 0) | (suppressed[0].compute() == corrected[0].compute())).all()
    expected = suppressed[0].compute().reshape(64, 4, 80, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(rebinned[0].compute(), expected, rtol=1e-12)
    with pytest.raises(InputError, match=r"unknown step 'corected'; did you mean 'corrected'\?"):
        run.corrected(recipe_of(small_runs), what="corected", **options)
    with pytest.raises(InputError, match="at least 1 frame"):
        run.frames(block=0)


def test_wrong_input_is_refused_clearly(small_runs: SmallRuns, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pedestal at"):
        reco(small_runs, None, pedestal=tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"no pedestal in .* at or before run 11; runs and maps there: none"):
        reco(small_runs, None, pedestal=tmp_path)
    with pytest.raises(InputError, match="at least 1 frame"):
        reco(small_runs, None, block=0)
    with pytest.raises(InputError, match=r"no camera 'CAM7' .* did you mean 'CAM0'"):
        reco(small_runs, None, camera="CAM7")
    with pytest.raises(InputError, match="leave none of the 256 rows"):
        reco(small_runs, None, recipe="lime")
    with pytest.raises(InputError, match=r"rebin.factor = 3 does not divide"):
        reco(small_runs, None, recipe=recipe_of(small_runs, "rebin.factor=3"))


def test_a_folder_of_runs_gives_the_latest_pedestal(small_runs: SmallRuns, reference: Result, tmp_path: Path) -> None:
    for name, number in (("run00010.mid.gz", 10), ("run00011.mid.gz", 11)):
        shutil.copy(small_runs.pedestal.with_name(f"run{number:05d}.mid.gz"), tmp_path / name)
    result = reco(small_runs, None, pedestal=tmp_path)
    assert set(result.tables.events["pedestal_run"]) == {10}
    assert same(result.tables, reference.tables)


def test_a_broken_run_goes_on_and_says_so(small_runs: SmallRuns, reference: Result, tmp_path: Path) -> None:
    broken = tmp_path / "run00011.mid.gz"
    content = small_runs.data.read_bytes()
    broken.write_bytes(content[: len(content) * 2 // 3])
    run = open_run(broken)
    assert run.faults
    result = reconstruct(
        run, pedestal=small_runs.pedestal, response="none", recipe=recipe_of(small_runs), out=tmp_path / "out"
    )
    n = len(result.tables)
    assert 0 < n < small_runs.frames
    assert result.summary["status"] == "bad events"
    assert result.summary["faults"][0]["message"]
    assert same(result.tables, reference.tables.rows(0, n))
    with pytest.raises(DataError, match="run00011"):
        reconstruct(run, pedestal=small_runs.pedestal, recipe=recipe_of(small_runs), strict=True)


def test_a_frame_that_cannot_be_read_is_left_out_and_listed(
    small_runs: SmallRuns, reference: Result, tmp_path: Path
) -> None:
    """A flipped bit in a picture of a ROOT file shows only when the picture is inflated."""
    copy = tmp_path / "histograms_Run00011.root"
    convert(small_runs.data, copy, "root")
    with uproot.open(copy) as file:
        place = file.key("pic_run00011_ev5").fSeekKey + 200
    content = bytearray(copy.read_bytes())
    content[place : place + 100] = bytes(100)
    copy.write_bytes(content)
    options: dict[str, Any] = {"pedestal": small_runs.pedestal, "response": "none", "recipe": recipe_of(small_runs)}
    result = reconstruct(copy, out=tmp_path / "out", **options)
    assert result.tables.events["event"].tolist() == [n for n in range(small_runs.frames) if n != 5]
    assert result.summary["status"] == "bad events"
    assert [fault["frame"] for fault in result.summary["faults"]] == [5]
    assert same(result.tables.rows(0, 5), reference.tables.rows(0, 5))
    with pytest.raises(DataError, match="pic_run00011_ev5"):
        reconstruct(copy, strict=True, **options)


def test_a_wrong_checksum_of_the_file_marks_every_event(
    small_runs: SmallRuns, reference: Result, tmp_path: Path
) -> None:
    """gzip checks the file as a whole: which frame is wrong cannot be known."""
    damaged = tmp_path / "run00011.mid.gz"
    content = bytearray(small_runs.data.read_bytes())
    content[-6] ^= 1
    damaged.write_bytes(content)
    result = reconstruct(damaged, pedestal=small_runs.pedestal, response="none", recipe=recipe_of(small_runs))
    assert [fault["kind"] for fault in result.summary["faults"]] == ["trailer"]
    assert (result.tables.events["quality"] & 8 == 8).all()
    assert not (reference.tables.events["quality"] & 8).any()


def test_a_damaged_pedestal_run_is_not_taken_in_silence(small_runs: SmallRuns, tmp_path: Path) -> None:
    damaged = tmp_path / "run00010.mid.gz"
    content = small_runs.pedestal.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    result = reco(small_runs, tmp_path / "out", pedestal=damaged)
    assert result.summary["status"] == "bad events"
    assert not result.summary["faults"]
    assert {"compression", "no-end-of-run"} <= {fault["kind"] for fault in result.summary["pedestal_faults"]}
    again = reco(small_runs, tmp_path / "out", pedestal=damaged)  # from the cache: it remembers
    assert again.summary["pedestal_faults"] == result.summary["pedestal_faults"]
    with pytest.raises(DataError):
        reco(small_runs, tmp_path / "out", pedestal=damaged, strict=True)


def test_two_at_once_on_one_dataset_do_not_meet(small_runs: SmallRuns, reference: Result, tmp_path: Path) -> None:
    refused: list[str] = []

    def meanwhile(progress: Progress) -> None:
        with pytest.raises(TransientError, match="another process is at work on"):
            reco(small_runs, tmp_path)
        refused.append("yes")

    result = reco(small_runs, tmp_path, watch=meanwhile)
    assert len(refused) == 3
    assert same(result.tables, reference.tables)


def test_names_do_not_enter_the_bytes(small_runs: SmallRuns, reference: Result, tmp_path: Path) -> None:
    renamed = dataclasses.replace(recipe_of(small_runs), name="mine")
    result = reco(small_runs, tmp_path, recipe=renamed)
    assert result.path is not None and reference.path is not None  # noqa: PT018
    assert result.path.read_bytes() == reference.path.read_bytes()
    assert result.summary["recipe"] == "mine"
    assert reco(small_runs, tmp_path).summary["recipe"] == "lime"


def test_force_keeps_the_old_result_until_the_new_one_is_there(small_runs: SmallRuns, tmp_path: Path) -> None:
    first = reco(small_runs, tmp_path)

    def stop(progress: Progress) -> None:
        if progress.frames:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reco(small_runs, tmp_path, force=True, watch=stop)
    assert first.path is not None
    assert same(load_tables(first.path), first.tables)
    assert reco(small_runs, tmp_path).resumed == small_runs.frames


@pytest.mark.parametrize("harm", ["flip", "no zarr", "empty summary", "listed summary"])
def test_a_harmed_result_is_noticed_and_made_again(
    small_runs: SmallRuns, reference: Result, tmp_path: Path, harm: str
) -> None:
    folder = Path(reco(small_runs, tmp_path).summary["dataset"]) / "result"
    root_file = folder / "reco_run00011_3D.root"
    if harm == "flip":
        content = bytearray(root_file.read_bytes())
        content[len(content) // 2] ^= 1
        root_file.write_bytes(content)
    elif harm == "no zarr":
        shutil.rmtree(folder / "reco_run00011_3D.zarr")
    else:
        (folder / "summary.json").write_text("{}" if harm == "empty summary" else "[]")
    assert reco(small_runs, tmp_path).resumed == 0
    assert reference.path is not None
    assert root_file.read_bytes() == reference.path.read_bytes()


def test_a_damaged_stored_pedestal_is_written_again(small_runs: SmallRuns, tmp_path: Path) -> None:
    first = reco(small_runs, tmp_path, client=lambda: None)  # workers would load it
    (stored,) = (tmp_path / "calibration").iterdir()
    whole = stored.read_bytes()
    stored.write_bytes(whole[:1000])
    assert same(reco(small_runs, tmp_path, force=True, client=lambda: None).tables, first.tables)
    assert stored.read_bytes() == whole


def test_tasks_of_this_process_need_no_stored_pedestal(small_runs: SmallRuns, tmp_path: Path) -> None:
    reco(small_runs, tmp_path)
    assert not (tmp_path / "calibration").exists()


def test_foreign_parts_are_not_used(small_runs: SmallRuns, reference: Result, tmp_path: Path) -> None:
    first = reco(small_runs, tmp_path)
    parts = Path(first.summary["dataset"]) / "parts"
    parts.mkdir()
    write_part(parts, 0, 999, first.tables.rows(0, 2), seconds={}, size=0)
    shutil.rmtree(parts.parent / "result")
    assert same(reco(small_runs, tmp_path).tables, reference.tables)


def test_a_file_that_changed_is_noticed(small_runs: SmallRuns, tmp_path: Path) -> None:
    path = tmp_path / "run00011.mid.gz"
    shutil.copy(small_runs.data, path)
    frames = open_run(path).frames(block=14)
    shutil.copy(small_runs.pedestal, path)
    with pytest.raises(DataError, match="is not the file it was"):
        frames.compute(scheduler="synchronous")


def test_the_provenance_says_where_a_result_comes_from(reference: Result) -> None:
    dataset = Path(reference.summary["dataset"])
    assert json.loads((dataset / "lineage.json").read_text()) == reference.summary["lineage"]
    assert reference.summary["key"] in dataset.name
    assert reference.summary["host"]["versions"]["numpy"] == np.__version__
    assert not (dataset / "parts").exists()


def test_missing_blocks_fill_the_gaps() -> None:
    done = [Receipt(4, 8, "", {}, {}), Receipt(9, 12, "", {}, {})]
    assert missing(0, 20, done, 3) == [(0, 3), (3, 4), (8, 9), (12, 15), (15, 18), (18, 20)]
    assert missing(0, 0, [], 8) == []
    assert part_path(Path(), 8, 16).name == "frames-000008-000016.part.npz"


def test_a_block_that_kills_its_workers_is_named(
    small_runs: SmallRuns, tmp_path: Path, cluster_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cygnoreco.graph._commit", _die)
    with pytest.raises(TransientError, match="workers died again and again on the same block"):
        reco(small_runs, tmp_path, block=14, client=cluster_client)


def test_with_a_client_the_device_is_a_matter_of_the_workers(
    small_runs: SmallRuns, tmp_path: Path, cluster_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's machine need not have it."""

    def refuse(name: str) -> None:
        raise InputError(f"device '{name}' is not here")

    monkeypatch.setattr("cygnoreco.graph.resolve_device", refuse)
    monkeypatch.setattr("cygnoreco.device.resolve_device", refuse)
    assert len(reco(small_runs, tmp_path, block=7, client=cluster_client).tables.events) == small_runs.frames


def _die(*args: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _copy_of(small_runs: SmallRuns, folder: Path) -> Path:
    path = folder / "run00011.mid.gz"
    shutil.copy(small_runs.data, path)
    return path


@pytest.mark.parametrize("change", ["grown", "cut", "gone"])
def test_a_file_that_changes_during_its_first_pass_publishes_nothing(
    small_runs: SmallRuns, tmp_path: Path, change: str
) -> None:
    path = _copy_of(small_runs, tmp_path)

    def disturb(progress: Progress) -> None:
        if change == "gone":
            path.unlink(missing_ok=True)
        elif change == "grown":
            with path.open("ab") as file:
                file.write(bytes(1000))
        else:
            os.truncate(path, path.stat().st_size - 100)

    out = tmp_path / "out"
    with pytest.raises(DataError, match="changed since it was opened"):
        reconstruct(
            path, pedestal=small_runs.pedestal, response="none", recipe=recipe_of(small_runs), out=out, block=2,
            watch=disturb,
        )  # fmt: skip
    assert not list(out.rglob("*.npz"))
    assert not list(out.rglob("*.root"))


@pytest.mark.parametrize("known", [False, True])
def test_nothing_works_on_after_an_error(small_runs: SmallRuns, tmp_path: Path, known: bool) -> None:
    path = _copy_of(small_runs, tmp_path)
    if known:
        open_run(path).table()

    def fail(progress: Progress) -> None:
        if progress.frames:
            raise ZeroDivisionError("of the caller")

    out = tmp_path / "out"
    for where in (out, None):
        with pytest.raises(ZeroDivisionError):
            reconstruct(
                path, pedestal=small_runs.pedestal, response="none", recipe=recipe_of(small_runs), out=where, block=1,
                threads=3, watch=fail,
            )  # fmt: skip
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
    there = len(list(out.rglob("*.part.npz")))
    time.sleep(0.3)
    assert 0 < len(list(out.rglob("*.part.npz"))) == there < small_runs.frames


def test_runs_side_by_side_keep_their_calibration(small_runs: SmallRuns, reference: Result, tmp_path: Path) -> None:
    made = pedestal_of(open_source(small_runs.pedestal), "CAM0")
    pedestals = [dataclasses.replace(made, run=run) for run in range(6)]

    def one(place: int) -> Result:
        out = tmp_path / str(place)
        return reconstruct(
            small_runs.data, pedestal=pedestals[place], response="none", recipe=recipe_of(small_runs), out=out
        )

    with ThreadPoolExecutor(6) as pool:
        for result in pool.map(one, range(6)):
            assert (result.tables.events["lp_len"] == reference.tables.events["lp_len"]).all()


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_sensors_of_any_sides_can_be_rebinned_otherwise(factor: int) -> None:
    """The fused section wants multiples of 4 on both sides; the plain stages want it of the columns alone."""
    recipe = Recipe.load("lime").override([f"rebin.factor={factor}", "accept.ymin=none", "accept.ymax=none"])
    shape = (258, 324)
    rng = np.random.default_rng(1)
    dark = Pedestal(np.full(shape, 99.5), np.full(shape, 2.0))
    ready = calibrate(dark, Response(np.ones(shape), "none"), recipe, "zarr")
    frames = rng.normal(99.5, 2, (2, *shape)).round().astype(np.uint16)
    rows = np.zeros(2, FRAME_DTYPE)
    tables, _ = reconstruct_block(frames, rows, ready, recipe, origin="zarr", run=1, pedestal_run=0)
    assert len(tables.events) == 2
    with pytest.raises(InputError, match="without, use float64"):
        check_camera(recipe.override(["precision=float32"]), Camera("CAM0", *shape))
