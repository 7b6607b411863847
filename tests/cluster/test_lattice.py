"""DBSCAN on the lattice against scikit-learn, and the helpers around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from cygnoreco.cluster.lattice import dbscan, group, merge_points
from cygnoreco.errors import InputError
from cygnoreco.kernels.lattice import ball_sums, half_widths, row_starts
from cygnoreco.stage import stage_of
from tests.cluster.scenes import Scene, partition, points_of, speckle, tracks

SKLEARN_METRIC = {"l1": "manhattan", "l2": "euclidean"}


def oracle(scene: Scene, eps: float, min_samples: int, metric: str) -> Any:
    model = DBSCAN(eps=eps, min_samples=min_samples, metric=SKLEARN_METRIC[metric])
    return model.fit(np.stack([scene.rows, scene.cols], 1), sample_weight=scene.weights)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    occupancy=st.sampled_from([0.02, 0.1, 0.3, 0.7, 1.0]),
    max_weight=st.sampled_from([1, 5, 40]),
    eps=st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.26, 2.8, 3.0, 3.5, 5.0, 5.8, 6.0, 12.0]),
    min_samples=st.integers(1, 60),
    metric=st.sampled_from(["l1", "l2"]),
)
def test_labels_are_those_of_scikit_learn(seed, shape, occupancy, max_weight, eps, min_samples, metric):
    scene = speckle(np.random.default_rng(seed), shape, occupancy, max_weight)
    result = dbscan(*scene, eps=eps, min_samples=min_samples, metric=metric)
    if scene.rows.size == 0:
        assert result.labels.size == 0
        assert result.n_clusters == 0
        return
    expected = oracle(scene, eps, min_samples, metric)
    np.testing.assert_array_equal(result.labels, expected.labels_)
    assert result.n_clusters == expected.labels_.max() + 1


@pytest.mark.parametrize("shape", [(576, 576), (1024, 576)])
@pytest.mark.parametrize(("eps", "min_samples", "metric"), [(12.0, 20, "l1"), (5.8, 30, "l2"), (2.26, 4, "l2")])
def test_track_images_are_labelled_as_by_scikit_learn(shape, eps, min_samples, metric):
    for seed in range(3):
        scene = tracks(np.random.default_rng(seed), shape, noise=800)
        expected = oracle(scene, eps, min_samples, metric).labels_
        assert expected.max() > 2
        np.testing.assert_array_equal(dbscan(*scene, eps=eps, min_samples=min_samples, metric=metric).labels, expected)


@given(eps=st.floats(0, 40), metric=st.sampled_from(["l1", "l2"]))
@settings(max_examples=60, deadline=None)
def test_half_widths_bound_the_closed_ball(eps, metric):
    half = half_widths(eps, metric)
    down, right = np.mgrid[0:42, 0:42]
    inside = down + right <= eps if metric == "l1" else down * down + right * right <= eps * eps
    np.testing.assert_array_equal(half, inside.sum(axis=1)[: half.size] - 1)
    assert not inside[half.size :].any()


def test_points_on_the_sphere_are_inside_and_a_negative_radius_is_empty():
    assert half_widths(5.0, "l2").tolist() == [5, 4, 4, 4, 3, 0]
    assert half_widths(np.nextafter(5.0, 0.0), "l2").tolist() == [4, 4, 4, 3, 2]
    for metric in ("l1", "l2"):
        assert half_widths(-1e-300, metric).size == 0


def test_ball_sums_add_what_is_within_reach_and_the_empty_ball_is_empty():
    scene = speckle(np.random.default_rng(3), (30, 50), 0.2, 9)
    starts = row_starts(scene.rows, 30)
    distance = abs(scene.rows[:, None] - scene.rows) + abs(scene.cols[:, None] - scene.cols)
    expected = (scene.weights * (distance <= 4)).sum(axis=1)
    np.testing.assert_array_equal(ball_sums(scene.cols, scene.weights, starts, half_widths(4, "l1")), expected)
    assert not ball_sums(scene.cols, scene.weights, starts, half_widths(-1, "l1")).any()


def test_a_border_point_between_two_clusters_goes_to_the_lower_number():
    cols = np.array([0, 1, 2, 4, 6, 7, 8])
    result = dbscan(np.zeros(7, int), cols, np.array([5, 5, 5, 1, 5, 5, 5]), eps=2.0, min_samples=15)
    # Cores are the centres 1 and 7 and their neighbours' balls hold 15 too: only column 4 stays below, with 11.
    assert result.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_cores_in_the_same_row_farther_apart_than_the_radius_join_through_another_row():
    image = np.zeros((3, 9), int)
    image[0, [0, 8]] = 9
    image[2, [2, 6]] = 9
    assert dbscan(*points_of(image), eps=4.0, min_samples=9).labels.tolist() == [0, 0, 0, 0]
    assert dbscan(*points_of(image), eps=3.0, min_samples=9).n_clusters == 4


def test_empty_single_and_noise():
    nothing = dbscan([], [], [])
    assert (nothing.labels.size, nothing.tags.size, nothing.n_clusters) == (0, 0, 0)
    assert dbscan([4], [7], [20]).labels.tolist() == [0]
    assert dbscan([4], [7], [19]).labels.tolist() == [-1]
    alone = np.zeros((200, 200), int)
    alone[::4, ::4] = 1
    noise = dbscan(*points_of(alone), eps=3.0, min_samples=2)
    assert noise.n_clusters == 0
    assert noise.labels.tolist() == [-1] * 2500


@pytest.mark.parametrize(("down", "right"), [(1000, 2000), (-300, -7), (0, -10_000)])
def test_moving_all_points_changes_nothing(down, right):
    scene = tracks(np.random.default_rng(5), (200, 300))
    moved = dbscan(scene.rows + down, scene.cols + right, scene.weights)
    np.testing.assert_array_equal(moved.labels, dbscan(*scene).labels)


def test_mirror_images_have_the_same_core_clusters_and_noise():
    scene = tracks(np.random.default_rng(6), (300, 300), noise=300)
    mirrored = merge_points(scene.rows, -scene.cols, scene.weights)
    labels = dbscan(*scene).labels
    back = dbscan(*mirrored[:3]).labels[mirrored[3]]
    cores = oracle(scene, 12, 20, "l1").core_sample_indices_
    assert partition(back[cores]) == partition(labels[cores])
    np.testing.assert_array_equal(back < 0, labels < 0)


def test_the_order_of_a_point_list_does_not_matter_once_merged():
    rng = np.random.default_rng(7)
    scene = tracks(rng, (200, 200))
    shuffle = rng.permutation(scene.rows.size)
    rows, cols, weights, inverse = merge_points(*(values[shuffle] for values in scene))
    np.testing.assert_array_equal(dbscan(rows, cols, weights).labels[inverse], dbscan(*scene).labels[shuffle])


def test_merging_adds_the_weights_of_repeated_points():
    rows, cols, weights, inverse = merge_points([3, 1, 3, 1, 3], [0, 9, 0, 2, 0])
    assert (rows.tolist(), cols.tolist(), weights.tolist()) == ([1, 1, 3], [2, 9, 0], [1, 1, 3])
    assert inverse.tolist() == [2, 1, 2, 0, 2]
    assert merge_points([3, 3], [0, 0], [10, 5])[2].tolist() == [15]
    assert all(array.size == 0 for array in merge_points([], []))


@pytest.mark.parametrize(
    ("rows", "cols", "weights", "message"),
    [
        ([1, 0], [0, 0], [1, 1], r"point 1 at \(0, 0\) is after \(1, 0\); merge_points\(\)"),
        ([0, 0], [5, 4], [1, 1], r"point 1 at \(0, 4\) is after \(0, 5\)"),
        ([0, 2, 2], [5, 4, 4], [1, 1, 1], r"point 2 at \(2, 4\) repeats"),
        ([0, 1], [0, 1], [1], "differ in length: 2, 2, 1"),
        ([0.0, 1.0], [0, 1], [1, 1], "rows must be integers, not float64"),
        ([0, 1], [0, 1], [0.5, 1], "weights must be integers"),
        ([[0, 1]], [0, 1], [1, 1], r"rows must be one-dimensional, not of shape \(1, 2\)"),
        ([0, 1 << 40], [0, 1], [1, 1], "points spread over"),
        ([0, 1], [0, 1 << 40], [1, 1], "points spread over"),
    ],
)
def test_points_that_cannot_be_clustered_are_refused(rows, cols, weights, message):
    with pytest.raises(InputError, match=message):
        dbscan(rows, cols, weights)


def test_merging_refuses_lists_that_do_not_match():
    with pytest.raises(InputError, match="differ in length: 2, 1, 2"):
        merge_points([0, 1], [0])


@pytest.mark.parametrize("wrong", [{"eps": 0.0}, {"min_samples": -1}, {"metric": "l3"}, {"epss": 3}])
def test_parameters_out_of_bounds_are_refused(wrong):
    with pytest.raises(InputError, match=r"dbscan\.\w+"):
        stage_of(dbscan).validate(wrong)


def test_grouping_lists_clusters_in_order_without_noise_and_gaps():
    order, offsets = group(np.array([2, -1, 0, 2, 5, 0, -1]))
    assert order.tolist() == [2, 5, 0, 3, 4]
    assert offsets.tolist() == [0, 2, 4, 5]
    for noise in ([], [-1, -1]):
        order, offsets = group(np.array(noise, int))
        assert (order.tolist(), offsets.tolist()) == ([], [0])
