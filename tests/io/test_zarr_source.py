"""The lossless copy as a Zarr folder, and what guards its content."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from cygnoreco.errors import DataError, InputError
from cygnoreco.io.convert import PRESETS, convert, verify_copy
from cygnoreco.io.opening import open_source
from cygnoreco.io.packing import join_packed, pack
from cygnoreco.io.source import read_packed_frames
from cygnoreco.io.zarr_source import open_zarr
from cygnoreco.types import FRAME_DTYPE, Camera
from tests.conftest import SmallRuns
from tests.io.picture_files import random_frames, write_root_pictures

#: What Zarr says of pcodec whenever it opens such an array by itself.
NO_STANDARD = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr")
COUNT = 37  # two full shards and a part of one
FRAMES = random_frames(COUNT)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zarr")
    pictures = {f"pic_run00042_ev{number}": frame for number, frame in enumerate(FRAMES)}
    return convert(write_root_pictures(folder / "run.root", pictures), folder / "run.zarr").path


@pytest.fixture(scope="module", params=["archive", "fast", "before"])
def written_somehow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    pictures = {f"pic_run00042_ev{number}": frame for number, frame in enumerate(FRAMES)}
    origin = write_root_pictures(folder / "run.root", pictures)
    if request.param != "before":
        return convert(origin, folder / "run.zarr", preset=request.param).path
    # As frames were compressed before there were presets.
    codecs = {"compressors": [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cygnoreco.io.zarr_source._frame_codecs", lambda preset: codecs)
        return convert(origin, folder / "run.zarr").path


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(written, tmp_path / "run.zarr"))


def test_frames_and_numbers_come_back(written_somehow: Path) -> None:
    run = pickle.loads(pickle.dumps(open_zarr(written_somehow)))
    assert (run.container, run.run_number, run.cameras, run.faults) == ("zarr", 42, (Camera("CAM0", 32, 48),), ())
    assert run.header.origin_container == "root"
    assert run.header.origin_name == "run.root"
    table = run.table("CAM0")
    assert table.dtype == FRAME_DTYPE
    assert table["event"].tolist() == list(range(COUNT))
    for start, stop in ((0, COUNT), (15, 17), (36, 37), (5, 5)):
        np.testing.assert_array_equal(run.read("CAM0", start, stop), FRAMES[start:stop])
        memory = np.full((stop - start + 2, 32, 48), 999, np.uint16)
        run.read("CAM0", start, stop, memory)
        np.testing.assert_array_equal(memory[:-2], FRAMES[start:stop])
        assert (memory[-2:] == 999).all()
    assert verify_copy(written_somehow) == run.digest


def packed_together(start: int, stop: int) -> Any:
    packed = [pack(frame).copy() for frame in FRAMES[start:stop]]
    return join_packed(packed, (stop - start, 32, 48), np.empty(sum(map(len, packed)), np.uint8))


def test_fast_frames_are_there_packed(written_somehow: Path) -> None:
    run = open_zarr(written_somehow)
    for start, stop in ((0, COUNT), (15, 17), (36, 37), (5, 5)):
        found = run.read_packed("CAM0", start, stop)
        if "fast" not in str(written_somehow):
            assert found is read_packed_frames(run, "CAM0", start, stop) is None
            continue
        expected = packed_together(start, stop)
        assert (found.words.dtype, found.tiles.dtype) == (np.uint16, np.int64)
        np.testing.assert_array_equal(found.words, expected.words)
        np.testing.assert_array_equal(found.tiles, expected.tiles)
        assert found.shape == expected.shape
        _, rows = read_packed_frames(run, "CAM0", start, stop)
        np.testing.assert_array_equal(rows, run.table("CAM0")[start:stop])
    with pytest.raises(InputError, match="frames 36 to 38 of CAM0 asked for, it has 37"):
        run.read_packed("CAM0", 36, 38)


def test_other_containers_have_no_packed_frames(written: Path, small_runs: SmallRuns) -> None:
    for path in (written.parent / "run.root", small_runs.data):
        assert read_packed_frames(open_source(path), "CAM0", 0, 2) is None


def test_damaged_packed_frames_are_not_given(written: Path, tmp_path: Path) -> None:
    copy = convert(written, tmp_path / "fast.zarr", preset="fast").path
    shard = copy / "frames" / "CAM0" / "c" / "1" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    run = open_zarr(copy)
    with pytest.raises(DataError, match=r"frames 15 to 17 of CAM0 cannot be read \(.*CRC-32C"):
        run.read_packed("CAM0", 15, 17)
    assert read_packed_frames(run, "CAM0", 15, 17) is None
    assert read_packed_frames(run, "CAM0", 0, 16) is not None


@pytest.mark.parametrize(
    ("preset", "codec"), [(None, "numcodecs.pcodec"), ("archive", "numcodecs.pcodec"), ("fast", "cygnoreco.packing")]
)
def test_a_preset_is_a_codec_of_frames(written: Path, tmp_path: Path, preset: Any, codec: str) -> None:
    made = convert(written, tmp_path / "run.zarr", preset=preset)
    assert made.content_digest == verify_copy(made.path) == open_zarr(written).digest
    metadata = json.loads((made.path / "frames/CAM0/zarr.json").read_text())
    assert [each["name"] for each in metadata["codecs"][0]["configuration"]["codecs"]] == [codec, "crc32c"]
    with pytest.raises(InputError, match=r"unknown preset 'fst'; did you mean 'fast'\?"):
        convert(written, tmp_path / "other.zarr", preset="fst")
    with pytest.raises(InputError, match="only Zarr copies have presets, not h5"):
        convert(written, tmp_path / "other.h5", preset=preset or "fast")


def test_frames_of_zeros_are_kept(tmp_path: Path) -> None:
    pictures = {f"pic_run00042_ev{number}": np.zeros((32, 48), np.uint16) for number in range(3)}
    origin = write_root_pictures(tmp_path / "run.root", pictures)
    for preset in PRESETS:
        made = convert(origin, tmp_path / f"{preset}.zarr", preset=preset)
        assert not open_zarr(made.path).read("CAM0", 0, 3).any()


@NO_STANDARD
def test_a_frame_is_a_chunk_and_sixteen_are_a_file(written: Path) -> None:
    array = zarr.open_array(written / "frames" / "CAM0", mode="r")
    assert array.metadata.zarr_format == 3
    assert (array.chunks, array.shards, array.dtype) == ((1, 32, 48), (16, 32, 48), np.uint16)
    assert sorted(path.name for path in (written / "frames" / "CAM0" / "c").iterdir()) == ["0", "1", "2"]


def test_a_block_is_read_from_its_own_file_alone(copy: Path) -> None:
    run = open_zarr(copy)
    for shard in ("0", "2"):
        shutil.rmtree(copy / "frames" / "CAM0" / "c" / shard)
    np.testing.assert_array_equal(run.read("CAM0", 16, 32), FRAMES[16:32])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that a fork copies no threads
def test_it_can_be_read_in_a_forked_process(written: Path) -> None:
    run = open_zarr(written)
    run.read("CAM0", 0, 1)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply_async(run.read, ("CAM0", 0, 20)).get(timeout=30)
    np.testing.assert_array_equal(there, FRAMES[:20])


def test_the_digest_is_known_at_once_and_the_same_for_equal_content(written: Path, tmp_path: Path) -> None:
    run = open_zarr(written)
    assert run.digest == run.header.content_digest == verify_copy(written)
    assert convert(written, tmp_path / "again.zarr").content_digest == run.digest
    assert convert(written, tmp_path / "again.h5").content_digest == run.digest


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_lost_or_cut_file_is_found_when_opened(copy: Path, damage: str) -> None:
    shard = copy / "frames" / "CAM0" / "c" / "1" / "0" / "0"
    content = shard.read_bytes()
    shard.unlink()
    if damage == "cut":
        shard.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"1 of \d+ files damaged: frames/CAM0/c/1/0/0"):
        open_zarr(copy)


def test_files_of_others_are_passed_over(copy: Path) -> None:
    (copy / "frames" / "CAM0" / ".nfs0001").write_bytes(b"left by a file system")
    np.testing.assert_array_equal(open_zarr(copy).read("CAM0", 0, 3), FRAMES[:3])


@pytest.mark.parametrize("place", [100, -100, -4])
def test_a_flipped_bit_is_found_when_read(copy: Path, place: int) -> None:
    shard = copy / "frames" / "CAM0" / "c" / "1" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[place] ^= 1
    shard.write_bytes(content)
    run = open_zarr(copy)
    np.testing.assert_array_equal(run.read("CAM0", 0, 16), FRAMES[:16])
    with pytest.raises(DataError, match="frames 16 to 32 of CAM0 cannot be read"):
        run.read("CAM0", 16, 32)


@NO_STANDARD
def test_an_exchanged_chunk_is_found_by_verifying(copy: Path) -> None:
    array = zarr.open_array(copy / "frames" / "CAM0", mode="r+")
    first, second = array[0], array[1]
    array[0], array[1] = second, first  # of the same size, with checksums that fit
    open_zarr(copy).read("CAM0", 0, 2)
    with pytest.raises(DataError, match="not what was written"):
        verify_copy(copy)


def test_other_zarr_folders_are_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=3)
    with pytest.raises(DataError, match="not a run"):
        open_zarr(tmp_path / "other.zarr")
    (tmp_path / "other.zarr" / "zarr.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a Zarr group"):
        open_zarr(tmp_path / "other.zarr")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"version": 2}, InputError, "use a newer cygnoreco"),
        ({"layout": "something"}, DataError, "layout 'something'"),
        ({"cameras": [{"name": "CAM0"}]}, DataError, "header of the copy is damaged"),
        ({"frames": {"CAM0": 36}}, DataError, "37 rows instead of 36"),
    ],
)
def test_a_wrong_header_is_a_clear_error(copy: Path, change: dict, error: type[Exception], text: str) -> None:
    metadata = json.loads((copy / "zarr.json").read_text())
    metadata["attributes"]["cygnoreco"] |= change
    (copy / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(error, match=text):
        open_zarr(copy)
