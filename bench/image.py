"""CPU time a frame of the image section: plain stages, SciPy, and the fused form in its variants, beside a copy.

The frames are made here: dark noise of an sCMOS sensor with a few bright bands that stand for tracks. Everything is
measured in turns in one run; the ratio to the copy is what compares between machines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from bench._common import SHAPE, best_s, frame_copy, limits
from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.image.correct import accept, subtract, suppress, totals, upper_cut
from cygnoreco.image.filters import median, rebin
from cygnoreco.kernels.image import empty_section, image_section, prepare_cuts
from cygnoreco.kernels.pedestal import accumulate


def dark_frames(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((n, *SHAPE), dtype=np.float32)
    return np.rint(100.0 + 2.6 * noise).astype(np.uint16)


def measure(block: int, repeats: int) -> dict[str, float]:
    """CPU ms a frame."""
    frames = dark_frames(block)
    pedestal = Pedestal.from_frames([frames])
    mean, rms = pedestal.mean, pedestal.rms
    frames[:, 600:620, 200:1400] += 40
    frames[:, 1200:1900, 900:912] += 40
    mirrored = frames[..., ::-1]
    cuts, single = prepare_cuts(mean, rms), prepare_cuts(mean, rms, precision="float32")
    turned = prepare_cuts(np.ascontiguousarray(mean[:, ::-1]), np.ascontiguousarray(rms[:, ::-1]))
    out = empty_section(block, SHAPE)
    flat = frames.reshape(block, -1)
    sums, squares = np.zeros(flat.shape[1], np.uint32), np.zeros(flat.shape[1], np.uint64)

    def plain() -> None:
        zs = accept(suppress(subtract(upper_cut(frames[0]), mean), rms))
        rebin(zs), rebin(median(zs)), totals(zs), frames[0].sum(dtype=np.uint64)

    def scipy() -> None:
        """Do the same with the library's median and sums in NumPy's own order, as one would write it."""
        zs = frames[0] - mean
        zs[zs <= 0.6 * rms] = 0.0
        zs[:304] = zs[2054:] = 0.0
        blocks = (SHAPE[0] // 4, 4, SHAPE[1] // 4, 4)
        zs.reshape(blocks).mean(axis=(1, 3)), ndimage.median_filter(zs, size=2).reshape(blocks).mean(axis=(1, 3))
        zs.sum(), (zs * zs).sum(), frames[0].sum(dtype=np.uint64)

    works: dict[str, tuple[Callable[[], Any], int]] = {
        "copy of the frame": (frame_copy(), 1),
        "fused, one frame": (lambda: image_section(frames[:1], cuts, out=out), 1),
        f"fused, blocks of {block}": (lambda: image_section(frames, cuts, out=out), block),
        "fused, one frame, mirrored": (lambda: image_section(mirrored[:1], turned, out=out), 1),
        f"fused, blocks of {block}, mirrored": (lambda: image_section(mirrored, turned, out=out), block),
        "fused, one frame, float32": (lambda: image_section(frames[:1], single, out=out), 1),
        f"fused, blocks of {block}, float32": (lambda: image_section(frames, single, out=out), block),
        f"pedestal sums, blocks of {block}": (lambda: accumulate(flat, sums, squares), block),
    }
    fast = best_s([work for work, _ in works.values()], repeats)
    measured = {name: 1e3 * t / n for (name, (_, n)), t in zip(works.items(), fast, strict=True)}
    slow = best_s([plain, scipy], min(repeats, 3))
    return measured | {"plain stages": 1e3 * slow[0], "SciPy": 1e3 * slow[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", type=int, default=8, help="frames worked on together")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    measured = measure(arguments.block, arguments.repeats)
    bandwidth = limits().read_gb_s
    copy = measured["copy of the frame"]
    if arguments.json:
        ratios = {name: value / copy for name, value in measured.items()}
        print(json.dumps({"cpu_ms": measured, "copies": ratios, "read_gb_s": bandwidth}))
        return
    print(f"{'':36}{'CPU ms a frame':>16}{'copies of the frame':>22}")
    for name, value in measured.items():
        print(f"{name:36}{value:16.2f}{value / copy:22.2f}")
    print(f"one core reads {bandwidth:.1f} GB/s")


if __name__ == "__main__":
    main()
