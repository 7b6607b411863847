"""iDBSCAN: what each pass keeps, and the whole against a composition of scikit-learn's DBSCAN."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from cygnoreco.cluster.idbscan import idbscan
from cygnoreco.errors import InputError
from tests.cluster.scenes import Scene, points_of, tracks


def block(image: np.ndarray, top: int, left: int, height: int, width: int) -> None:
    image[top : top + height, left : left + width] = 1


def composed(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Labels and tags of every point by four calls of scikit-learn, coordinates counted by the array's size."""
    points = np.stack([scene.rows, scene.cols], 1)
    labels, tags, n = np.full(len(points), -1), np.zeros(len(points), int), 0
    left = np.flatnonzero(DBSCAN(eps=2.26, min_samples=2).fit(points).labels_ >= 0)
    for tag, (eps, min_samples, cut) in enumerate([(3.5, 30, 900), (2.8, 6, 150), (6.0, 2, -1)], start=1):
        if left.size == 0:
            break
        found = DBSCAN(eps=eps, min_samples=min_samples).fit(points[left]).labels_
        gone = np.zeros(left.size, bool)
        for number in range(found.max() + 1):
            members = found == number
            if points[left[members]].size > cut:
                labels[left[members]], tags[left[members]] = n, tag
                n += 1
                gone |= members
        left = left[~gone]
    return labels, tags


def test_each_pass_keeps_its_kind_and_single_points_are_noise():
    image = np.zeros((120, 120), int)
    block(image, 60, 0, 20, 40)  # 800 points: long
    block(image, 30, 60, 10, 12)  # 120 points: medium
    block(image, 0, 0, 3, 3)  # small
    block(image, 0, 100, 1, 1)  # alone
    scene = points_of(image)
    result = idbscan(*scene)
    assert result.tags.tolist() == [1, 2, 3]
    assert np.bincount(result.labels + 1).tolist() == [1, 800, 120, 9]
    assert result.labels[0] == 2


@pytest.mark.parametrize(("extra", "tag"), [(0, 2), (1, 1)])
def test_the_cut_counts_two_coordinates_a_point(extra, tag):
    image = np.zeros((60, 60), int)
    block(image, 5, 5, 18, 25)  # 450 points are 900 coordinates, and a cut is exceeded, not reached
    block(image, 23, 15, extra, extra)
    result = idbscan(*points_of(image))
    assert result.tags.tolist() == [tag]


def test_cuts_are_parameters():
    image = np.zeros((40, 40), int)
    block(image, 5, 5, 10, 10)
    assert idbscan(*points_of(image)).tags.tolist() == [2]
    assert idbscan(*points_of(image), cuts=(199, 150)).tags.tolist() == [1]
    assert idbscan(*points_of(image), cuts=(900, 200)).tags.tolist() == [3]


@pytest.mark.parametrize("seed", range(8))
def test_labels_are_those_of_four_calls_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    scene = tracks(rng, (300, 300), n_tracks=5, length=250 if seed % 2 else 40, noise=3000)
    labels, tags = composed(scene)
    result = idbscan(*scene)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.tags[labels[labels >= 0]], tags[labels >= 0])
    assert len(np.unique(result.tags)) >= 2


def test_weights_have_no_influence():
    scene = tracks(np.random.default_rng(3), (200, 200))
    np.testing.assert_array_equal(
        idbscan(*scene).labels, idbscan(scene.rows, scene.cols, np.zeros_like(scene.weights)).labels
    )


def test_no_points_no_clusters():
    result = idbscan([], [], [])
    assert (result.labels.size, result.tags.size, result.n_clusters) == (0, 0, 0)


def test_points_out_of_order_are_refused():
    with pytest.raises(InputError, match="raster order"):
        idbscan([1, 0], [0, 0], [1, 1])
