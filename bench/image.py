"""CPU time a frame of the image stages: plain and fused form, filters, pixels of the points, and the pedestal.

The frames are made here: dark noise of an sCMOS sensor with a few bright bands that stand for tracks.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.image.correct import accept, subtract, suppress, totals, upper_cut
from cygnoreco.image.filters import median, noise_filter, rebin
from cygnoreco.image.patches import patches
from cygnoreco.image.points import points
from cygnoreco.kernels.image import empty_section, image_section, prepare_cuts

SHAPE = (2304, 2304)


def dark_frames(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((n, *SHAPE), dtype=np.float32)
    return np.rint(100.0 + 2.6 * noise).astype(np.uint16)


def cpu_ms(work: Callable[[], Any], frames: int, repeats: int) -> float:
    """Smallest of several CPU times after a warm-up, per frame."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) / frames * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", type=int, default=8, help="frames worked on together")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    frames = dark_frames(arguments.block)
    pedestal = Pedestal.from_frames([frames])
    mean, rms = pedestal.mean, pedestal.rms
    frames[:, 600:620, 200:1400] += 40
    frames[:, 1200:1900, 900:912] += 40
    cuts = prepare_cuts(mean, rms)
    out = empty_section(len(frames), SHAPE)
    section = image_section(frames, cuts, out=out)
    response = np.ones(SHAPE)
    rows, cols, _ = points(noise_filter(section.edges[0]), section.picture[0])

    def plain() -> None:
        zs = accept(suppress(subtract(upper_cut(frames[0]), mean), rms))
        rebin(zs), rebin(median(zs)), totals(zs), frames[0].sum(dtype=np.uint64)

    measured = {
        "plain section": cpu_ms(plain, 1, 3),
        "fused section, one frame": cpu_ms(
            lambda: image_section(frames[:1], cuts, out=out), 1, arguments.repeats
        ),
        f"fused section, blocks of {len(frames)}": cpu_ms(
            lambda: image_section(frames, cuts, out=out), len(frames), arguments.repeats
        ),
        "noise filter": cpu_ms(lambda: noise_filter(section.edges[0]), 1, 20),
        "points": cpu_ms(lambda: points(noise_filter(section.edges[0]), section.picture[0]), 1, 20)
        - cpu_ms(lambda: noise_filter(section.edges[0]), 1, 20),
        f"pixels of {len(rows)} points": cpu_ms(
            lambda: patches(frames[0], mean, rms, response, rows, cols), 1, arguments.repeats
        ),
        "pedestal": cpu_ms(lambda: Pedestal.from_frames([frames] * 12), 12 * len(frames), 2),
    }
    if arguments.json:
        print(json.dumps(measured))
        return
    print(f"{'stage':32} CPU ms a frame")
    for name, value in measured.items():
        print(f"{name:32} {value:8.2f}")


if __name__ == "__main__":
    main()
