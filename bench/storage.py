"""Codecs for frames side by side: bits a pixel, CPU time to read and to write a frame; and whole reads of Zarr copies.

All codecs see the same frames in one process, in turns, beside a copy in memory. Two bounds stand above the table, for
a codec that looks at one frame alone: the entropy of the counts (no code for single pixels is shorter on average), and
the entropy of the noise, given what the pedestal says of each pixel, which no code for single frames can reach without
knowing the pedestal.

Example
-------
python -m bench.storage                      frames simulated here
python -m bench.storage --frames FOLDER      every .npz file in it is a frame, under its only name
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from isal import isal_zlib
from numcodecs import Blosc, Zstd
from numcodecs.pcodec import PCodec

from bench._common import best_s
from cygnoreco.io.convert import PRESETS
from cygnoreco.io.packing import pack, unpack
from cygnoreco.io.stored import FRAMES_A_BLOCK, STORED_DTYPE, Header
from cygnoreco.io.zarr_source import open_zarr, write_zarr
from cygnoreco.types import Camera, Frames
from simulation.camera import expose, noise_maps
from simulation.detector import Detector


@dataclass(frozen=True)
class Codec:
    """A name with what writes a frame and what puts it back into an array."""

    name: str
    encode: Callable[[Frames], Any]
    decode: Callable[[Any, Frames], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table: CPU times of one frame, and of writing also as the speed, MB of pixels a second."""

    codec: str
    bits_a_pixel: float
    decode_ms: float
    decode_copies: float
    encode_ms: float
    encode_mb_s: float


def codecs() -> list[Codec]:
    """Every candidate, ours first."""
    zstd, lz4 = Blosc("zstd", 1, Blosc.SHUFFLE), Blosc("lz4", 5, Blosc.BITSHUFFLE)
    pcodec, plain = PCodec(level=8, mode_spec="classic"), Zstd(3)

    def inflated(inflate: Callable[[Any], bytes]) -> Callable[[Any, Frames], None]:
        return lambda data, out: np.copyto(out.reshape(-1), np.frombuffer(inflate(data), np.uint16))

    return [
        Codec("our packing", lambda frame: pack(frame).tobytes(), unpack),
        Codec("pcodec 8", pcodec.encode, lambda data, out: pcodec.decode(data, out.reshape(-1))),
        Codec("blosc zstd-1, byte shuffle", zstd.encode, zstd.decode),
        Codec("blosc lz4, bit shuffle", lz4.encode, lz4.decode),
        Codec("zstd-3", plain.encode, plain.decode),
        Codec(
            "gzip-6, zlib", lambda frame: zlib.compress(frame, 6, 31), inflated(lambda data: zlib.decompress(data, 31))
        ),
        Codec("gzip-1, ISA-L", lambda frame: isal_zlib.compress(frame, 1), inflated(isal_zlib.decompress)),
        Codec("none: a copy", lambda frame: frame.copy(), lambda data, out: np.copyto(out, data)),
    ]


def frames_of(folder: Path | None, count: int) -> tuple[Frames, float]:
    """Frames, and the entropy of the noise of their pixels in bits, nan where the pedestal is not known."""
    if folder is not None:
        files = sorted(folder.glob("*.npz"))[:count]
        frames = np.stack([np.load(file)[np.load(file).files[0]] for file in files])
        return frames.astype(np.uint16, casting="same_kind"), float("nan")
    maps = noise_maps(Detector())
    dark = [expose(np.random.default_rng(number), (), maps) for number in range(count + 32)]
    return np.stack(dark[:count]), noise_entropy(np.stack(dark[count:]))


def entropy(values: np.ndarray) -> float:
    """Bits a value of the distribution of some values."""
    counts = np.bincount(values.reshape(-1))
    share = counts[counts > 0] / values.size
    return float(-(share * np.log2(share)).sum())


def noise_entropy(frames: Frames) -> float:
    """Bits a pixel of dark frames when mean and spread of every pixel are known.

    By the rounded normal distribution whose entropy is close to log2(spread sqrt(2 pi e)) beyond half a count.
    """
    spread = np.maximum(frames.std(axis=0, ddof=1, dtype=np.float64), 0.5)
    return float(np.log2(spread * np.sqrt(2 * np.pi * np.e)).mean())


def codec_rows(frames: Frames, repeats: int) -> list[Row]:
    """Measure every codec on every frame; the smallest time of a frame counts, and the mean size."""
    out, table = np.empty_like(frames[0]), codecs()
    packed = [[codec.encode(frame) for frame in frames] for codec in table]
    for codec, data in zip(table, packed, strict=True):
        for each, frame in zip(data, frames, strict=True):
            codec.decode(each, out)
            assert (out == frame).all(), codec.name
    turn = iter(range(10**9))

    def any_frame() -> int:  # another one each time, so that it comes from memory
        return next(turn) % len(frames)

    decode = best_s(
        [lambda c=codec, p=data: c.decode(p[any_frame()], out) for codec, data in zip(table, packed, strict=True)],
        repeats,
    )
    encode = best_s([lambda c=codec: c.encode(frames[any_frame()]) for codec in table], max(2, repeats // 4))
    size = frames[0].size
    bits = [8 * sum(memoryview(each).nbytes for each in data) / len(frames) / size for data in packed]
    return [
        Row(codec.name, bit, 1e3 * read, read / decode[-1], 1e3 * write, 2e-6 * size / write)
        for codec, bit, read, write in zip(table, bits, decode, encode, strict=True)
    ]


def zarr_rows(frames: Frames, repeats: int, block: int) -> list[dict[str, Any]]:
    """Whole reads of blocks from copies of a run, ours and by Zarr itself, and writing them."""
    camera = Camera("CAM0", *frames.shape[1:])
    frames = np.resize(frames, (FRAMES_A_BLOCK, *camera.shape))
    header = Header(1, (camera,), {"CAM0": len(frames)}, (), "none", "none", "", None, "")
    out, rows = np.empty((block, *camera.shape), np.uint16), []
    with tempfile.TemporaryDirectory() as folder:
        for preset in PRESETS:
            path = Path(folder, f"{preset}.zarr")

            def write(path: Path = path, preset: Any = preset) -> None:
                with write_zarr(path, preset) as writer:
                    writer.frames(camera, frames, None)
                    writer.finish(header, {"CAM0": np.zeros(len(frames), STORED_DTYPE)}, b"{}")

            (written,) = best_s([write], 1)
            run, array = open_zarr(path), zarr.open_array(path / "frames/CAM0", mode="r")
            works = [
                lambda run=run: run.read("CAM0", 0, block, out),
                lambda array=array: array[:block],
                lambda: np.copyto(out, frames[:block]),
            ]
            ours, theirs, copy = (1e3 * each / block for each in best_s(works, repeats))
            rows.append(
                {
                    "preset": preset,
                    "read_ms": ours,
                    "by_zarr_ms": theirs,
                    "copy_ms": copy,
                    "read_copies": ours / copy,
                    "write_ms": 1e3 * written / len(frames),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="folder of .npz files with a frame each; simulated by default")
    parser.add_argument("--count", type=int, default=8, help="frames to measure with")
    parser.add_argument("--block", type=int, default=8, help="frames of a whole read, 16 at most")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr")

    frames, of_noise = frames_of(arguments.frames, arguments.count)
    bound = float(np.mean([entropy(frame) for frame in frames]))
    rows = codec_rows(frames, arguments.repeats)
    whole = zarr_rows(frames, arguments.repeats, min(arguments.block, FRAMES_A_BLOCK))
    if arguments.json:
        print(
            json.dumps(
                {
                    "frames": len(frames),
                    "entropy_bits": bound,
                    "noise_entropy_bits": of_noise,
                    "codecs": [asdict(row) for row in rows],
                    "zarr": whole,
                }
            )
        )
        return
    print(f"{len(frames)} frames; entropy of the counts {bound:.3f} bits a pixel, of the noise alone {of_noise:.3f}\n")
    print(f"{'codec':28} bit/pixel  of entropy  decode ms  of a copy  encode ms    MB/s")
    for row in rows:
        print(
            f"{row.codec:28} {row.bits_a_pixel:9.3f}  {row.bits_a_pixel / bound:10.3f}  {row.decode_ms:9.2f}  "
            f"{row.decode_copies:9.1f}  {row.encode_ms:9.1f}  {row.encode_mb_s:6.0f}"
        )
    print(f"\n{'Zarr copy':12} read ms  of a copy  by Zarr ms  write ms    (a frame, in blocks of {arguments.block})")
    for each in whole:
        print(
            f"{each['preset']:12} {each['read_ms']:7.2f}  {each['read_copies']:9.1f}  {each['by_zarr_ms']:10.2f}  "
            f"{each['write_ms']:8.1f}"
        )


if __name__ == "__main__":
    main()
