"""Frames of a fast copy go to the device packed: the same tables, and damage costs its frames alone."""

from __future__ import annotations

import shutil
import tracemalloc
from contextlib import nullcontext

import google_crc32c
import numpy as np
import pytest

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import generated_response
from cygnoreco.chain import calibrate
from cygnoreco.cuda.block import planned_bytes, reconstruct_block, reconstruct_blocks
from cygnoreco.device import Device
from cygnoreco.errors import DataError
from cygnoreco.graph import Work, choose_calibration, commit_block, cut
from cygnoreco.io.convert import convert
from cygnoreco.io.opening import open_source
from cygnoreco.io.packing import join_packed, pack, tile_table
from cygnoreco.io.parts import read_part
from cygnoreco.io.source import read_packed_frames
from cygnoreco.raw import open_run
from cygnoreco.recipe import Recipe
from cygnoreco.types import FRAME_DTYPE
from tests.tables import concatenate, same

SHARD = 4  # frames: the 14 of the run are three whole shards and a part of one
#: The first ends in the middle of a shard, the second begins there, the last has the shard that is not full.
BLOCKS = cut(14, 5)
NUMBERS = {"origin": "midas", "run": 11, "pedestal_run": 10}


@pytest.fixture(scope="module")
def written(small_runs, tmp_path_factory):
    """A fast copy of the data run, of small shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cygnoreco.io.zarr_source.FRAMES_A_BLOCK", SHARD)
        return convert(small_runs.data, tmp_path_factory.mktemp("packed") / "run.zarr", preset="fast").path


@pytest.fixture(scope="module")
def pedestal(small_runs):
    source = open_source(small_runs.pedestal)
    return Pedestal.from_frames([source.read("CAM0", 0, 12)], run=10)


@pytest.fixture
def unpacked(program, monkeypatch):
    """A machine whose GPU is the program; the list holds the shape of every block that was unpacked there."""
    from cygnoreco.cuda import block

    shapes = []
    unpack = block.unpack_tiles
    monkeypatch.setattr(block, "unpack_tiles", lambda *each: shapes.append(each[-1].shape) or unpack(*each))
    if program.xp is np:
        monkeypatch.setattr("cygnoreco.graph.resolve_device", lambda name: Device("cuda"))
        monkeypatch.setattr("cygnoreco.device._device_errors", lambda device, block: nullcontext())
        monkeypatch.setattr("cygnoreco.cuda.program.cupy_program", lambda index: program)
    return shapes


def committed(runs, copy, folder):
    """Have the blocks of a copy reconstructed on the GPU; their receipts and tables."""
    run = open_run(copy)
    recipe = Recipe.load("lime").override(runs.settings)
    choice = choose_calibration(11, run.camera(), recipe, runs.pedestal, "none", folder=folder)
    work = Work(run.ref(), choice.reference, 11, 10, str(folder), "cuda:0")
    receipts = [commit_block(work, start, stop) for start, stop in BLOCKS]
    return receipts, [concatenate([read_part(each)]) for each in receipts]


def change_chunk(copy, frame, change):
    """Change the packed bytes of a frame, a ``bytearray``, without its CRC-32C; give the new CRC-32C back."""
    shard = copy / f"frames/CAM0/c/{frame // SHARD}/0/0"
    content = bytearray(shard.read_bytes())
    index = np.frombuffer(content[-16 * SHARD - 4 : -4], "<u8").reshape(SHARD, 2)
    start, size = map(int, index[frame % SHARD])
    packed = content[start : start + size - 4]
    change(packed)
    content[start : start + size - 4] = packed
    shard.write_bytes(content)
    crc = google_crc32c.value(bytes(packed)).to_bytes(4, "little")
    return shard, start + size - 4, crc


def flip_a_bit(copy, frame):
    def change(packed):
        packed[-1] ^= 1

    change_chunk(copy, frame, change)


def send_an_escape_away(copy, frame):
    """Outside of its tile, in bytes whose CRC-32C fits."""

    def change(packed):
        tiles = tile_table(packed)
        first, _, width, escapes, _, values = tiles[tiles[:, 3] > 0][0].tolist()
        assert escapes > 0
        place = 2 * (first + width * -(-values // 16))
        packed[place : place + 2] = b"\xff\xff"

    shard, place, crc = change_chunk(copy, frame, change)
    with shard.open("r+b") as file:
        file.seek(place)
        file.write(crc)


@pytest.mark.parametrize("name", ["lime", "winter23"])
def test_packed_blocks_give_the_same_bits(program, small_runs, written, pedestal, name):
    recipe = Recipe.load(name).override(small_runs.settings)
    calibration = calibrate(pedestal, generated_response((256, 320)), recipe, "midas")
    source = open_source(written)
    packed = [read_packed_frames(source, "CAM0", *bounds) for bounds in BLOCKS]
    assert all((frames.tiles[:, 3] > 0).any() for frames, _ in packed), "there are escapes"
    assert all(frames.words.nbytes < 0.4 * 2 * np.prod(frames.shape) for frames, _ in packed)
    counts = [(source.read("CAM0", *bounds), source.table("CAM0")[slice(*bounds)]) for bounds in BLOCKS]
    several = (read_packed_frames(source, "CAM0", *bounds) for bounds in BLOCKS)  # all in the same memory
    found = list(reconstruct_blocks(several, calibration, recipe, program=program, **NUMBERS))
    for ours, block in zip(found, counts, strict=True):
        theirs, _ = reconstruct_block(*block, calibration, recipe, program=program, **NUMBERS)
        assert same(ours, theirs)
        assert len(ours.clusters) > 0


def test_damaged_escapes_are_told(program, small_runs, written, pedestal, tmp_path):
    recipe = Recipe.load("lime").override(small_runs.settings)
    calibration = calibrate(pedestal, generated_response((256, 320)), recipe, "midas")
    copy = shutil.copytree(written, tmp_path / "run.zarr")
    send_an_escape_away(copy, 6)
    block = read_packed_frames(open_source(copy), "CAM0", 5, 8)
    with pytest.raises(DataError, match="1 escapes outside of their tiles"):
        reconstruct_block(*block, calibration, recipe, program=program, **NUMBERS)
    sound = read_packed_frames(open_source(copy), "CAM0", 7, 8)
    reconstruct_block(*sound, calibration, recipe, program=program, **NUMBERS)


def test_a_run_goes_to_the_device_packed(small_runs, written, unpacked, tmp_path, monkeypatch):
    receipts, found = committed(small_runs, written, tmp_path)
    assert unpacked == [(stop - start, 256, 320) for start, stop in BLOCKS]
    monkeypatch.setattr(Device, "unpacks", False)
    others, expected = committed(small_runs, written, tmp_path)
    assert len(unpacked) == len(BLOCKS)
    assert all(map(same, found, expected))
    assert [each.counts for each in receipts] == [each.counts for each in others]
    assert [(each.start, each.stop, each.faults) for each in receipts] == [(*bounds, ()) for bounds in BLOCKS]


@pytest.mark.parametrize(
    ("damage", "sent", "told"), [(flip_a_bit, 2, "CRC-32C"), (send_an_escape_away, 3, "an escape of tile")]
)
def test_damage_costs_its_frame(small_runs, written, unpacked, tmp_path, monkeypatch, damage, sent, told):
    copy = shutil.copytree(written, tmp_path / "run.zarr")
    damage(copy, 6)
    receipts, found = committed(small_runs, copy, tmp_path)
    assert len(unpacked) == sent
    assert [len(each.faults) for each in receipts] == [0, 1, 0]
    assert receipts[1].faults[0].frame == 6
    assert told in receipts[1].faults[0].message
    assert found[1].events["event"].tolist() == [5, 7, 8, 9]
    monkeypatch.setattr(Device, "unpacks", False)
    assert all(map(same, found, committed(small_runs, copy, tmp_path)[1]))


def test_other_runs_go_to_the_device_as_counts(small_runs, unpacked, tmp_path):
    _, found = committed(small_runs, small_runs.data, tmp_path)
    assert [len(each.events) for each in found] == [5, 5, 4]
    assert unpacked == []


def test_planned_memory_is_enough_for_frames_that_do_not_pack(program, small_runs, pedestal):
    if program.xp is not np:
        pytest.skip("counts the arrays of NumPy")
    recipe = Recipe.load("lime").override([*small_runs.settings, "spark.excess=1e12"])
    calibration = calibrate(pedestal, generated_response((256, 320)), recipe, "midas")
    frames = np.random.default_rng(1).integers(400, 65536, (3, 256, 320), np.uint16)
    packed = [pack(frame).copy() for frame in frames]
    joined = join_packed(packed, frames.shape, np.empty(sum(map(len, packed)), np.uint8))
    assert joined.words.nbytes >= frames.nbytes
    tracemalloc.start()
    try:
        tables, _ = reconstruct_block(joined, np.zeros(3, FRAME_DTYPE), calibration, recipe, program=program, **NUMBERS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tables.events["lp_len"] > 4000).all()
    assert 0.4 * planned_bytes((256, 320), 3, recipe) < peak < planned_bytes((256, 320), 3, recipe)
