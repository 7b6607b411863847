"""Agreement with the experiment's program and with truth, as one table of claims.

``winter23`` is compared with golden results of the experiment's program on 30 images, ``lime`` with the truth of
simulated spots, both by the functions that the command line uses. The golden data are not ours to distribute; without
them the program says so and stops.

Example: python -m bench.physics --golden ../shared/data --generator ../shared/tools/make_frames.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cygnoreco.calib.pedestal import Pedestal
from cygnoreco.calib.response import load_response
from cygnoreco.chain import Calibration, calibrate, reconstruct_block
from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.idbscan import idbscan
from cygnoreco.cluster.lattice import dbscan, merge_points
from cygnoreco.image.filters import noise_filter
from cygnoreco.image.points import points
from cygnoreco.recipe import Recipe
from cygnoreco.types import FRAME_DTYPE

FITS = {f"sc_{side}{name}" for side in "tl" for name in ("gaussamp", "gaussmean", "gausssigma", "chi2", "status")}
MAP = "real/vignetting/vignette_runs03930to03932.root"


@dataclass(frozen=True)
class Claim:
    """One line of the table."""

    claim: str
    measured: str
    target: str
    met: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "met", bool(self.met))  # NumPy's bool is no JSON


def golden_pedestal(golden: Path) -> Pedestal:
    sums = np.load(golden / "golden" / "pedestal_sums.npz")
    return Pedestal.from_sums(sums["sum"], sums["sumsq_minus100"], int(sums["n"]), run=5000)


def pedestal_claim(golden: Path, dark: Path) -> Claim:
    """Pedestal of the 100 dark frames by our one pass against the exact sums in float128."""
    files = sorted(dark.glob("dark_*.npy"))
    made = Pedestal.from_frames((np.load(path)[np.newaxis] for path in files), run=5000)
    sums = np.load(golden / "golden" / "pedestal_sums.npz")
    n = np.longdouble(int(sums["n"]))
    total, squares = sums["sum"].astype(np.longdouble), sums["sumsq_minus100"].astype(np.longdouble)
    mean = total / n
    rms = np.sqrt(np.maximum(squares - (total - 100 * n) ** 2 / n, 0) / (n - 1))
    worst = max(float(abs(made.mean - mean).max()), float(abs(made.rms - rms).max()))
    return Claim(f"pedestal of {len(files)} frames: largest difference", f"{worst:.1e}", "1e-8", worst <= 1e-8)


def partition(labels: NDArray[Any]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels[labels >= 0])}


def golden_claims(golden: Path) -> Iterator[Claim]:
    recipe = Recipe.load("winter23").override(["redpix.min_integral=850"])
    response = load_response(str(golden / MAP), (2304, 2304), **recipe["response"])
    calibration = calibrate(golden_pedestal(golden), response, recipe, "midas")
    count: Counter[str] = Counter()
    worst: Counter[str] = Counter()
    for index in range(30):
        reference = np.load(golden / "golden" / "open" / f"points_{index:03d}.npz")
        image = json.loads((golden / "golden" / "open" / f"img_{index:03d}.json").read_text())
        frame = np.load(golden / "frames" / f"img_{index:03d}.npz")["image"]
        compare_points(frame, reference, calibration, recipe, index, count)
        compare_tables(frame, image, reference, calibration, recipe, index, count, worst)
    n = count["images"]
    with_points = count["images with points"]
    for name, text in (
        ("points", "points exactly equal"),
        ("weights", "weights exactly equal"),
        ("dbscan", "DBSCAN labels exactly equal"),
        ("idbscan", "iDBSCAN labels and tags exactly equal"),
    ):
        yield Claim(f"{text}, images", f"{count[name]}/{n}", f"{n}/{n}", count[name] == n)
    found = count["directional"]
    yield Claim("directional partition is a golden seed's", f"{found}/{with_points}", "28/29", found >= 28)
    iou = count["image 24 matched"] / max(count["image 24 clusters"], 1)
    yield Claim("image 24: clusters with IoU > 0.9", f"{iou:.1%}", "90 %", iou >= 0.9)
    cmos = max(worst[name] for name in ("cmos_integral", "cmos_mean", "cmos_rms"))
    yield Claim("cmos_*: largest relative difference", f"{cmos:.1e}", "1e-6", cmos <= 1e-6)
    variables = max((value for name, value in worst.items() if name.startswith("sc_")), default=0.0)
    text = f"{count['clusters']} identical clusters: largest relative difference of a variable"
    yield Claim(text, f"{variables:.1e}", "1e-5", variables <= 1e-5)
    for side, name in (("t", "transverse"), ("l", "longitudinal")):
        good, fits = count[f"{side} good"], count[f"{side} fits"]
        detail = f"{good}/{fits} = {good / fits:.2%} ({count[f'{side} same']} the same, the rest by chi square)"
        yield Claim(f"{name} fits within 1e-3, or chi square <= 1.001 x", detail, "98 %", good >= 0.98 * fits)


def compare_points(
    frame: NDArray[Any], reference: Any, calibration: Calibration, recipe: Recipe, index: int, count: Counter[str]
) -> None:
    from cygnoreco.chain import _section
    from cygnoreco.image.orient import orient

    section = _section(orient(frame[np.newaxis], "midas", **recipe["orient"]), calibration, recipe)
    rows, cols, weights = points(
        noise_filter(section.edges[0], **recipe["noise"]), section.picture[0], **recipe["points"]
    )
    count["images"] += 1
    if "X" not in reference:  # a dark image: no points
        for name in ("points", "weights", "dbscan", "idbscan"):
            count[name] += not len(rows)
        return
    x = reference["X"].reshape(-1, 2)
    count["points"] += bool(np.array_equal(rows, x[:, 0]) and np.array_equal(cols, x[:, 1]))
    count["weights"] += bool(np.array_equal(weights, reference["weight"]))
    count["images with points"] += 1
    count["dbscan"] += bool(np.array_equal(dbscan(rows, cols, weights, **recipe["dbscan"]).labels, reference["dbscan"]))
    successive = idbscan(rows, cols, weights, **recipe["idbscan"])
    clustered = successive.labels >= 0
    count["idbscan"] += bool(
        np.array_equal(successive.labels, reference["idbscan"])
        and np.array_equal(successive.tags[successive.labels[clustered]], reference["idbscan_tag"][clustered])
    )
    ours = partition(directional(rows, cols, weights, **recipe["directional"]).labels)
    seeds = [partition(reference["ddbscan"][:, seed]) for seed in range(reference["ddbscan"].shape[1])]
    count["directional"] += ours in seeds
    if index == 24:
        best = max(seeds, key=lambda seed: len(seed & ours))
        count["image 24 clusters"] = len(best)
        count["image 24 matched"] = sum(
            any(len(one & other) > 0.9 * len(one | other) for other in ours) for one in best
        )


def compare_tables(
    frame: NDArray[Any],
    image: dict[str, Any],
    reference: Any,
    calibration: Calibration,
    recipe: Recipe,
    index: int,
    count: Counter[str],
    worst: Counter[str],
) -> None:
    """Every variable of every cluster that has the same pixels as one of a seed of the reference."""
    row = np.zeros(1, FRAME_DTYPE)
    row["event"] = index
    tables, _ = reconstruct_block(
        frame[np.newaxis], row, calibration, recipe, origin="midas", run=5001, pedestal_run=5000
    )
    for name in ("cmos_integral", "cmos_mean", "cmos_rms"):
        worst[name] = max(worst[name], relative(tables.events[name][0], image["image_level"][name]))
    theirs: dict[tuple[float, ...], dict[str, float]] = {}
    for clusters in image["clusters"].values():
        for cluster in clusters:
            theirs.setdefault(identity(cluster), cluster)
    for cluster in tables.clusters:
        other = theirs.get(identity({name: float(cluster[name]) for name in cluster.dtype.names}))
        if other is None:
            continue
        count["clusters"] += 1
        for name, value in other.items():
            if name not in FITS and name in cluster.dtype.names and name not in ("sc_redpixIdx", "sc_energy"):
                worst[name] = max(worst[name], relative(float(cluster[name]), value))
        for side in "tl":
            count[f"{side} fits"] += 1
            names = [f"sc_{side}gauss{what}" for what in ("amp", "mean", "sigma")]
            same = all(relative(float(cluster[name]), other[name]) <= 1e-3 for name in names)
            chi2 = float(cluster[f"sc_{side}chi2"]) <= 1.001 * other[f"sc_{side}chi2"]
            count[f"{side} same"] += same
            count[f"{side} good"] += same or chi2


def identity(cluster: dict[str, float]) -> tuple[float, ...]:
    """Clusters with the same macro-pixels: size and box alone may coincide, the light does not."""
    names = ("sc_size", "sc_nhits", "sc_xmin", "sc_xmax", "sc_ymin", "sc_ymax")
    return (*(cluster[name] for name in names), round(cluster["sc_integral"], -1))


def relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(theirs), 1e-30) if ours != theirs else 0.0


def lime_claims(golden: Path, frames: Path) -> Iterator[Claim]:
    """Efficiency, resolution and fakes of ``lime`` on spots of known energy."""
    recipe = Recipe.load("lime")
    response = load_response(str(golden / MAP), (2304, 2304), **recipe["response"])
    calibration = calibrate(golden_pedestal(golden), response, recipe, "midas")
    low: list[tuple[float, bool]] = []
    spots: list[float] = []
    n_spots = fakes = dark = 0
    for path in sorted(frames.glob("img_*.npz")):
        truth = json.loads((frames / path.name.replace("img", "truth").replace("npz", "json")).read_text())
        frame = np.load(path)["image"]
        tables, _ = reconstruct_block(
            frame[np.newaxis], np.zeros(1, FRAME_DTYPE), calibration, recipe, origin="midas", run=1, pedestal_run=0
        )
        clusters = tables.clusters
        if truth["cls"] == "dark":
            dark += 1
            fakes += len(clusters)
            continue
        for track in truth["tracks"]:
            place = (track.get("col", np.nan), track.get("row", np.nan))  # none: not a photon reached the sensor
            near = np.hypot(clusters["sc_xmean"] - place[0], clusters["sc_ymean"] - place[1]) < 30
            if truth["cls"] == "grid_fe":
                n_spots += 1
                if near.any():
                    spots.append(float(clusters["sc_integral"][near].max()))
            else:
                low.append((track["E_keV"], bool(near.any())))
    above = [found for energy, found in low if energy >= 0.8]
    middle = [found for energy, found in low if 0.5 <= energy < 0.8]
    yield Claim("lime: efficiency at 0.8 keV and above", f"{np.mean(above):.2%} of {len(above)}", "100 %", all(above))
    yield Claim(
        "lime: efficiency at 0.5-0.8 keV", f"{np.mean(middle):.2%} of {len(middle)}", "94 %", np.mean(middle) >= 0.94
    )
    width = float(np.std(spots) / np.mean(spots))
    yield Claim("lime: 55Fe spots found", f"{len(spots)}/{n_spots}", "480/480", len(spots) == n_spots == 480)
    yield Claim("lime: 55Fe sigma / mean", f"{width:.4f}", "0.166", width <= 0.166)
    yield Claim(f"lime: fake clusters in {dark} dark frames", str(fakes), "0", fakes == 0 and dark >= 20)


def real_claims(golden: Path) -> Iterator[Claim]:
    """Count clusters in real frames whose numbers are published."""
    for name, eps, min_samples, expected in (("data240", 5.8, 30, 11), ("data005", 5.8, 30, 31)):
        points_of = np.load(golden / "real" / "ddbscan" / f"{name}.npy")
        rows, cols, weights, _ = merge_points(points_of[:, 0], points_of[:, 1])
        found = dbscan(rows, cols, weights, eps=eps, min_samples=min_samples, metric="l2").n_clusters
        yield Claim(f"real {name}: clusters", str(found), str(expected), found == expected)


def run_generator(generator: Path, what: str, folder: Path) -> Path:
    subprocess.run([sys.executable, str(generator), what, "--out", str(folder)], check=True, capture_output=True)
    return folder / ("ped" if what == "peds" else what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=Path("../shared/data"), help="folder of golden results")
    parser.add_argument("--generator", type=Path, default=Path("../shared/tools/make_frames.py"))
    parser.add_argument("--bench", type=Path, help="frames that the generator made before (set 'bench')")
    parser.add_argument("--dark", type=Path, help="dark frames that it made before (set 'peds')")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.golden.is_dir():
        sys.exit(f"no golden data at '{arguments.golden}'")
    with tempfile.TemporaryDirectory() as folder:
        bench = arguments.bench or run_generator(arguments.generator, "bench", Path(folder))
        dark = arguments.dark or run_generator(arguments.generator, "peds", Path(folder))
        claims = [
            pedestal_claim(arguments.golden, dark),
            *golden_claims(arguments.golden),
            *lime_claims(arguments.golden, bench),
            *real_claims(arguments.golden),
        ]
    if arguments.json:
        print(json.dumps([asdict(claim) for claim in claims], indent=1))
    else:
        from pipelines.cli.console import print_table

        rows = [(claim.claim, claim.measured, claim.target, "yes" if claim.met else "NO") for claim in claims]
        print_table("physics", ("claim", "measured", "target", "met"), rows)
    sys.exit(0 if all(claim.met for claim in claims) else 1)


if __name__ == "__main__":
    main()
