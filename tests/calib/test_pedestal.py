"""Pedestals: made, saved, loaded and refused."""

from __future__ import annotations

import numpy as np
import pytest
import uproot

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.errors import InputError


def dark_frames(n=30, shape=(16, 24), seed=0):
    frames = np.random.default_rng(seed).normal(100.0, 3.0, (n, *shape)).round().astype(np.uint16)
    frames[:, 0, 0] = 65535
    frames[:, 0, 1] = np.arange(n) * 2000
    return frames


@pytest.fixture
def pedestal():
    return Pedestal.from_frames([dark_frames()], run=5000, camera="CAM0")


@pytest.mark.parametrize("block", [1, 7, 30])
def test_one_pass_equals_two_passes(block):
    frames = dark_frames()
    pedestal = Pedestal.from_frames(frames[start : start + block] for start in range(0, len(frames), block))
    mean = frames.mean(axis=0, dtype=np.float64)
    rms = np.sqrt(((frames - mean) ** 2).sum(axis=0) / (len(frames) - 1))
    assert pedestal.n_frames == 30
    assert np.abs(pedestal.mean - mean).max() <= 1e-11  # of up to 65,535: the rounding of the two-pass mean
    assert np.abs(pedestal.rms - rms).max() <= 1e-12 * max(1.0, rms.max())


def test_sums_and_frames_make_the_same_pedestal(pedestal):
    frames = dark_frames().astype(np.int64)
    sums, squares = frames.sum(axis=0), ((frames - 100) ** 2).sum(axis=0)
    assert Pedestal.from_sums(sums, squares, 30, run=5000).digest == pedestal.digest


def test_digest_is_of_the_content(pedestal):
    assert len(pedestal.digest) == 64
    same = Pedestal(pedestal.mean.copy(), pedestal.rms.copy(), run=5000)
    assert same.digest == pedestal.digest
    moved = pedestal.mean.copy()
    moved[3, 4] = np.nextafter(moved[3, 4], 0)
    assert Pedestal(moved, pedestal.rms, run=5000).digest != pedestal.digest
    assert Pedestal(pedestal.mean, pedestal.rms, run=5001).digest != pedestal.digest


def test_maps_are_read_only(pedestal):
    with pytest.raises(ValueError, match="read-only"):
        pedestal.mean[0, 0] = 1.0


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_frames_are_refused(n):
    with pytest.raises(InputError, match="at least 2"):
        Pedestal.from_frames([dark_frames()[:n]], run=7)


def test_no_blocks_at_all_are_refused():
    with pytest.raises(InputError, match="no frames"):
        Pedestal.from_frames([], run=7)


def test_more_frames_than_the_sums_hold_are_refused():
    with pytest.raises(InputError, match="65536"):
        Pedestal.from_frames([np.zeros((32769, 1, 1), np.uint16)] * 2)


def test_frames_of_another_shape_or_type_are_refused():
    with pytest.raises(InputError, match=r"\(16, 20\) pixels after frames of \(16, 24\)"):
        Pedestal.from_frames([dark_frames(), dark_frames()[:, :, :20]])
    with pytest.raises(InputError, match="uint16"):
        Pedestal.from_frames([dark_frames().astype(np.float64)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_values_that_cannot_be_are_refused(bad):
    rms = np.ones((4, 4))
    rms[1, 2] = bad
    with pytest.raises(InputError, match="rms is negative or not finite"):
        Pedestal(np.ones((4, 4)), rms)
    with pytest.raises(InputError, match="shape"):
        Pedestal(np.ones((4, 4)), np.ones((4, 5)))


def test_own_format_round_trip_with_the_same_bytes(pedestal, tmp_path):
    first, second = tmp_path / "pedestal_run05000.npz", tmp_path / "again.npz"
    pedestal.save(first)
    loaded = Pedestal.load(first)
    assert (loaded.digest, loaded.n_frames, loaded.run, loaded.camera) == (pedestal.digest, 30, 5000, "CAM0")
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "pedestal_run05000.npz"]


@pytest.mark.parametrize("orientation", ["sensor", "d03a058"])
def test_experiment_format_round_trip(pedestal, tmp_path, orientation):
    path = tmp_path / "pedmap_run05000_rebin1.root"
    pedestal.save_root(path, orientation=orientation)
    loaded = Pedestal.load(path, camera="CAM0", orientation=orientation)
    assert (loaded.digest, loaded.run, loaded.camera, loaded.n_frames) == (pedestal.digest, 5000, "CAM0", 0)


def test_experiment_format_has_its_histograms(pedestal, tmp_path):
    path = tmp_path / "pedmap_run05000_rebin1.root"
    pedestal.save_root(path)
    with uproot.open(path) as file:
        pedmap = file["pedmap"]
        assert file.classnames(cycle=False) == {
            "pedmap": "TH2D", "pedmapsigma": "TH2D", "pedmean": "TH1D", "pedrms": "TH1D", "orientation": "TObjString",
            "camera": "TObjString",
        }  # fmt: skip
        assert np.array_equal(pedmap.values(), pedestal.mean.T), "x is the column"
        assert pedmap.errors() == pytest.approx(pedestal.rms.T, rel=1e-15)
        assert np.array_equal(file["pedmapsigma"].values(), pedestal.rms.T)
        assert pedmap.axis("x").edges()[[0, -1]].tolist() == [0, 24]
        assert (len(file["pedmean"].values()), file["pedmean"].axis().low, file["pedmean"].axis().high) == (
            500,
            97,
            103,
        )
        assert (len(file["pedrms"].values()), file["pedrms"].axis().low, file["pedrms"].axis().high) == (1000, 0, 10)
        assert file["pedmean"].values().sum() == np.count_nonzero((pedestal.mean >= 97) & (pedestal.mean <= 103))


def test_a_map_of_the_mirroring_program_is_turned_back(pedestal, tmp_path):
    ours, path = tmp_path / "ours.root", tmp_path / "pedmap_run05000_rebin1.root"
    pedestal.save_root(ours)
    with uproot.open(ours) as source, uproot.recreate(path) as file:  # theirs do not say how they are turned
        file["pedmap"], file["pedmapsigma"] = source["pedmap"], source["pedmapsigma"]
    turned = Pedestal.load(path, orientation="d03a058")
    assert np.array_equal(turned.mean, pedestal.mean[:, ::-1])
    assert np.array_equal(Pedestal.load(path).mean, pedestal.mean)


def test_a_map_of_ours_says_how_it_is_turned(pedestal, tmp_path):
    path = tmp_path / "pedmap_run05000_rebin1.root"
    for written in ("sensor", "d03a058"):
        pedestal.save_root(path, orientation=written)
        for asked in ("sensor", "d03a058"):
            assert Pedestal.load(path, orientation=asked, camera="CAM0").digest == pedestal.digest


def test_noise_is_read_from_the_errors_where_there_is_no_second_map(pedestal, tmp_path):
    full, path = tmp_path / "full.root", tmp_path / "pedmap_run00012_rebin1.root"
    pedestal.save_root(full)
    with uproot.open(full) as source, uproot.recreate(path) as file:
        file["pedmap"] = source["pedmap"]
    loaded = Pedestal.load(path)
    assert loaded.run == 12
    assert loaded.rms == pytest.approx(pedestal.rms, rel=1e-15)


def test_a_map_without_noise_is_refused(tmp_path):
    path = tmp_path / "pedmap_run00012_rebin1.root"
    with uproot.recreate(path) as file:
        file["pedmap"] = (np.full((4, 4), 100.0), np.arange(5.0), np.arange(5.0))
    with pytest.raises(InputError, match="no noise"):
        Pedestal.load(path)


def test_a_rebinned_map_is_refused_by_its_name(pedestal, tmp_path):
    path = tmp_path / "pedmap_run05000_rebin4.root"
    pedestal.save_root(path)
    with pytest.raises(InputError, match="rebinned by 4"):
        Pedestal.load(path)


@pytest.mark.parametrize("name", ["p.npz", "pedmap_run1_rebin1.root"])
def test_a_pedestal_of_another_sensor_is_refused(pedestal, tmp_path, name):
    path = tmp_path / name
    pedestal.save(path) if path.suffix == ".npz" else pedestal.save_root(path)
    assert Pedestal.load(path, shape=(16, 24)).mean.shape == (16, 24)
    with pytest.raises(InputError, match=r"\(16, 24\) pixels, expected \(2304, 2304\)"):
        Pedestal.load(path, shape=(2304, 2304))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        Pedestal.load(tmp_path / "nothing.npz")
    text = tmp_path / "text.npz"
    text.write_text("hello")
    with pytest.raises(InputError, match="not a NumPy archive"):
        Pedestal.load(text)
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(InputError, match="expected 'cygnoreco pedestal"):
        Pedestal.load(tmp_path / "other.npz")
    with uproot.recreate(tmp_path / "other.root") as file:
        file["normmap"] = (np.ones((4, 4)), np.arange(5.0), np.arange(5.0))
    with pytest.raises(InputError, match=r"no TH2 histogram 'pedmap' in .*; there: normmap"):
        Pedestal.load(tmp_path / "other.root")


@pytest.mark.parametrize("name", ["p.npz", "p.root"])
def test_files_cut_short_are_refused_or_whole(pedestal, tmp_path, name):
    """The last bytes of a ROOT file are a directory of unused space: without them the maps are still all there."""
    path = tmp_path / name
    pedestal.save(path) if path.suffix == ".npz" else pedestal.save_root(path)
    content = path.read_bytes()
    refused = 0
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        try:
            loaded = Pedestal.load(path)
        except InputError:
            refused += 1
        else:
            assert np.array_equal(loaded.mean, pedestal.mean)
            assert np.array_equal(loaded.rms, pedestal.rms)
    assert refused >= (15 if path.suffix == ".root" else 40)


def test_damaged_archives_are_refused(pedestal, tmp_path):
    path = tmp_path / "p.npz"
    pedestal.save(path)
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        Pedestal.load(path)
