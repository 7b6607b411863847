"""Clustering on CUDA: labels, numbers and tags of the stages of the CPU, whatever the block of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cygnoreco.cluster._fit import CONCENTRATION_STEPS, FLAT_TOLERANCE, straightness
from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.idbscan import idbscan
from cygnoreco.cluster.lattice import Clustering, dbscan, group
from cygnoreco.cuda.clusters import Clusters, cluster_block, group_block
from cygnoreco.errors import InputError
from cygnoreco.recipe import Recipe
from cygnoreco.stage import stage_of
from tests.cluster.scenes import Scene, points_of, speckle, strip, tracks

STAGES = {"dbscan": dbscan, "idbscan": idbscan, "directional": directional}
NOTHING = Scene(*np.zeros((3, 0), np.int32))


def parameters(clustering: str, **changed: Any) -> dict[str, Any]:
    return stage_of(STAGES[clustering]).validate(changed)


def run(program: Any, scenes: list[Scene], clustering: str, values: dict[str, Any]) -> tuple[Clusters, Any]:
    """Clusters of the scenes as one block of frames, and its frame offsets."""
    xp = program.xp
    rows, cols, weights = (xp.asarray(np.concatenate(each or [np.zeros(0, np.int32)])) for each in _columns(scenes))
    frame_offsets = xp.asarray(np.cumsum([0, *(each.rows.size for each in scenes)]).astype(np.int64))
    return cluster_block(program, rows, cols, weights, frame_offsets, clustering, values), frame_offsets


def _columns(scenes: list[Scene]) -> list[list[np.ndarray]]:
    return [[each[axis] for each in scenes] for axis in range(3)]


def check(program: Any, scenes: list[Scene], clustering: str, **changed: Any) -> list[Clustering]:
    """Compare a block with its frames one by one; return the latter."""
    values = parameters(clustering, **changed)
    clusters, frame_offsets = run(program, scenes, clustering, values)
    groups = group_block(program, clusters, frame_offsets)
    labels, tags, cluster_offsets, cut_short, order, offsets, frame_of_cluster = (
        program.to_host(each)
        for each in (clusters.labels, clusters.tags, clusters.cluster_offsets, clusters.cut_short, *groups)
    )
    types = [each.dtype for each in (labels, tags, cluster_offsets, cut_short, order, offsets, frame_of_cluster)]
    assert types == [np.int32, np.int32, np.int64, bool, np.int64, np.int64, np.int32]
    expected = [STAGES[clustering](*scene, **values) for scene in scenes]
    np.testing.assert_array_equal(cluster_offsets, np.cumsum([0, *(each.n_clusters for each in expected)]))
    assert clusters.n_clusters == cluster_offsets[-1] == len(tags)
    first, grouped, sizes = 0, [np.zeros(0, np.int64)], [0]
    for frame, (scene, want) in enumerate(zip(scenes, expected, strict=True)):
        got = labels[first : first + scene.rows.size]
        np.testing.assert_array_equal(got, want.labels, err_msg=f"frame {frame}")
        np.testing.assert_array_equal(tags[slice(*cluster_offsets[frame : frame + 2])], want.tags)
        assert cut_short[frame] == want.cut_short
        members, limits = group(want.labels)
        grouped.append(members + first)
        sizes.extend(np.diff(limits))
        first += scene.rows.size
    np.testing.assert_array_equal(order, np.concatenate(grouped))
    np.testing.assert_array_equal(offsets, np.cumsum(sizes))
    np.testing.assert_array_equal(
        frame_of_cluster, np.repeat(np.arange(len(scenes)), [each.n_clusters for each in expected])
    )
    return expected


def crossing(rng: np.random.Generator, shape: tuple[int, int] = (140, 160), noise: int = 60) -> Scene:
    """Straight strips of any direction over each other, on noise."""
    image = np.zeros(shape, int)
    for _ in range(4):
        ends = rng.integers(4, np.array(shape) - 8, (2, 2))
        if np.abs(ends[0] - ends[1]).max() > 10:
            strip(image, tuple(ends[0]), tuple(ends[1]), int(rng.integers(1, 4)))
    image[tuple(rng.integers(0, shape, (noise, 2)).T)] += 3
    return points_of(image)


def bent(rng: np.random.Generator, shape: tuple[int, int] = (160, 160)) -> Scene:
    """Straight pieces that go over to parabolas and curls, with gaps."""
    image = np.zeros(shape, int)
    for _ in range(3):
        t = np.arange(0, 200, 0.5)
        turn = np.maximum(t - 50, 0) * rng.choice([0.0, 0.01, 0.05]) / 2
        angle = rng.uniform(0, 2 * np.pi) + turn
        way = rng.uniform(20, 140, (2, 1)) + np.cumsum(0.5 * np.stack([np.sin(angle), np.cos(angle)]), axis=1)
        way = np.rint(way[:, np.sin(t / rng.uniform(4, 12)) > -0.8]).astype(int)
        way = way[:, ((way >= 0) & (way < np.array(shape)[:, None])).all(axis=0)]
        image[tuple(way)] += 8
    return points_of(image)


@pytest.mark.parametrize("metric", ["l1", "l2"])
@pytest.mark.parametrize("eps", [0.5, 1.0, 2.26, 5.0, 12.0])
def test_dbscan_of_random_points(program, eps, metric):
    rng = np.random.default_rng(int(10 * eps))
    for min_samples in (1, 6, 40):
        scenes = [
            speckle(rng, tuple(rng.integers(1, 40, 2)), occupancy, 9) for occupancy in (0.02, 0.1, 0, 0.3, 0.7, 1.0, 0)
        ]
        check(program, scenes, "dbscan", eps=eps, min_samples=min_samples, metric=metric)


def test_dbscan_of_points_anywhere(program):
    scene = crossing(np.random.default_rng(1))
    moved = Scene(scene.rows + 300, scene.cols - 1000, scene.weights)
    for want in check(program, [scene, moved], "dbscan"):
        assert want.n_clusters > 0


def test_a_border_point_between_two_clusters_goes_to_the_lower_number(program):
    cols = np.array([0, 1, 2, 4, 6, 7, 8], np.int32)
    scene = Scene(np.zeros(7, np.int32), cols, np.array([5, 5, 5, 1, 5, 5, 5], np.int32))
    turned = Scene(scene.cols, scene.rows, scene.weights)
    first, _ = check(program, [scene, turned], "dbscan", eps=2.0, min_samples=15)
    assert first.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_idbscan(program):
    rng = np.random.default_rng(2)
    image = np.zeros((150, 150), int)
    image[tuple(rng.integers(0, 150, (2, 900)))] = 2
    image[40:70, 20:45] = image[100:110, 90:102] = 1
    scenes = [points_of(image), NOTHING, tracks(rng, (150, 150), 4, 80, noise=900), speckle(rng, (60, 60), 0.2, 3)]
    assert set(check(program, scenes, "idbscan")[0].tags) == {1, 2, 3}
    check(program, scenes, "idbscan", min_samples=(2, 9, 5, 2), cuts=(120, 60))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steal", [True, False])
@pytest.mark.parametrize("expand_noncore", [True, False])
def test_directional(program, expand_noncore, steal, seed):
    rng = np.random.default_rng(seed)
    scenes = [crossing(rng), NOTHING, bent(rng), speckle(rng, (40, 40), 0.3, 5), tracks(rng, (150, 200), 3, 50)]
    expected = check(program, scenes, "directional", steal=steal, expand_noncore=expand_noncore)
    assert sum(each.tags.sum() for each in expected) >= 2


@pytest.mark.parametrize("shape", [(90, 2), (3, 80), (40, 40), (150, 7)])
def test_straightness_has_the_very_bits(program, shape):
    """Points dealt to clusters at random, most of them upright, flat or slanting bands."""
    xp, rng = program.xp, np.random.default_rng(shape[1])
    for slant in (0, 1, -1):
        rows, cols, _ = points_of(rng.random(shape) < np.linspace(1.0, 0.1, shape[1]))
        cols = (cols + slant * rows).astype(np.int32)
        dealt = rng.choice(14, rows.size, p=np.arange(14) / 91)
        _, first, which = np.unique(dealt, return_index=True, return_inverse=True)
        owner = first[which]
        order, offsets = group(owner)
        seeds = np.flatnonzero(np.bincount(owner))
        begin = np.append(0, np.cumsum(np.bincount(owner, minlength=rows.size)))
        for enough in (0.0, 0.6, 1.0):
            expected = straightness(rows, cols - cols.min(), order, offsets, 0, enough)
            got = xp.empty(seeds.size)
            program.launch(
                "track_straightness",
                seeds.size,
                256,
                *(xp.asarray(each.astype(np.int32)) for each in (rows, cols - cols.min(), order, begin, seeds)),
                *(enough, FLAT_TOLERANCE, FLAT_TOLERANCE * 2**0.5, CONCENTRATION_STEPS),
                *(xp.empty(rows.size, xp.bool_), got),
            )
            np.testing.assert_array_equal(program.to_host(got), expected)


@pytest.mark.parametrize(
    "changed",
    [
        {"max_attempts": 0},
        {"max_attempts": 1, "radius": 6.0},
        {"min_points": 2, "min_accuracy": 0.5, "eps": 3.0, "min_samples": 6},
        {"thickness": 1.2, "min_inside": 0.95, "min_accuracy": 0.6},
        {"isolation_radius": 0.0, "metric": "l2"},
        {"isolation_radius": 30.0, "min_accuracy": 0.0},
        {"min_accuracy": 1.0},
    ],
)
def test_directional_with_other_parameters(program, changed):
    rng = np.random.default_rng(11)
    check(program, [bent(rng), crossing(rng, noise=200), bent(rng)], "directional", **changed)


def test_ties_between_straight_seeds(program):
    """Perfect seeds of one size, each in reach of a gap that only one can bridge; flat ones, and diagonals."""
    image = np.zeros((120, 120), int)
    for top in (10, 40, 70):
        image[top, 5:45] = image[top, 62:102] = 5
    image[np.arange(90, 115), np.arange(90, 115)] = 5
    image[np.arange(90, 115), np.arange(60, 35, -1)] = 5
    check(program, [points_of(image), points_of(image.T), points_of(image[::-1])], "directional")
    check(program, [points_of(image)], "directional", radius=60.0, thickness=40.0, steal=True)


def test_a_track_cut_short_is_told_from_others(program):
    image = np.zeros((20, 400), int)
    image[10, np.r_[0:40, 60:100, 120:160, 180:220, 240:280]] = 5
    rows, cols = np.mgrid[0:200, 0:200]
    curl = points_of(np.where(abs(np.hypot(rows - 100, cols - 100) - 80) < 1, 5, 0) * (abs(cols - 100) > 8))
    for attempts in (0, 1, 3):
        check(program, [points_of(image), curl, NOTHING], "directional", max_attempts=attempts, min_accuracy=0.3)
    assert directional(*points_of(image), max_attempts=0).cut_short


@pytest.mark.parametrize("recipe", ["lime", "winter23", "mango", "mc"])
def test_parameters_of_the_recipes(program, recipe):
    values = Recipe.load(recipe)["directional"]
    rng = np.random.default_rng(5)
    check(program, [crossing(rng), bent(rng)], "directional", **values)


@pytest.mark.parametrize("clustering", list(STAGES))
def test_full_size(program, clustering):
    """Some long tracks beside noise, and a frame so crowded that most of it is one cluster."""
    rng = np.random.default_rng(4)
    quiet = tracks(rng, n_tracks=12, length=150, width=2.5, noise=1500)
    crowded = np.where(rng.random((576, 576)) < 0.1, rng.integers(1, 4, (576, 576)), 0)
    crowded[quiet.rows, quiet.cols] += quiet.weights
    followed, _ = check(program, [quiet, points_of(crowded)], clustering)
    assert clustering != "directional" or followed.tags.sum() > 3


@pytest.mark.parametrize("clustering", list(STAGES))
def test_few_points_and_none(program, clustering):
    one = Scene(*np.array([[7], [3], [30]], np.int32))
    line = points_of(np.full((1, 60), 4))
    check(program, [], clustering)
    check(program, [NOTHING], clustering)
    check(program, [NOTHING, NOTHING], clustering)
    check(program, [one], clustering)
    check(program, [NOTHING, one, NOTHING, line, one, NOTHING], clustering)
    check(program, [points_of(np.full((48, 48), 2))], clustering)


def test_faults(program):
    with pytest.raises(InputError, match="unknown clustering 'dbscam'; did you mean 'dbscan'"):
        run(program, [NOTHING], "dbscam", {})
    far = Scene(*np.array([[0, 1 << 20], [0, 0], [1, 1]], np.int32))
    with pytest.raises(InputError, match="points spread over 1048577 rows; at most 1048576"):
        run(program, [far], "dbscan", parameters("dbscan"))
    many = [far._replace(rows=far.rows // 2)] * 5000
    with pytest.raises(InputError, match="make the block of frames smaller"):
        run(program, many, "dbscan", parameters("dbscan"))
