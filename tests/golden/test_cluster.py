"""Clusterings of known images and published counts, against the experiment's program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.idbscan import idbscan
from cygnoreco.cluster.lattice import Clustering, dbscan, merge_points
from tests.cluster.scenes import partition

#: The reference differs from one seed of its random numbers to the next only here.
UNSTABLE = 24


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[int, dict[str, NDArray]]:
    images = {}
    for path in sorted((shared_data / "golden" / "open").glob("points_*.npz")):
        with np.load(path) as archive:
            if "X" in archive:  # an image without points has none
                images[int(path.stem[-3:])] = dict(archive)
    assert len(images) == 29
    return images


def points(image: dict[str, NDArray]) -> tuple[NDArray, NDArray, NDArray]:
    return image["X"][:, 0], image["X"][:, 1], image["weight"]


def overlap(a: NDArray, b: NDArray) -> float:
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


def test_dbscan_labels_are_equal_on_all_images(golden):
    for number, image in golden.items():
        np.testing.assert_array_equal(dbscan(*points(image)).labels, image["dbscan"], f"image {number}")


def test_idbscan_labels_and_tags_are_equal_on_all_images(golden):
    for number, image in golden.items():
        result = idbscan(*points(image))
        np.testing.assert_array_equal(result.labels, image["idbscan"], f"image {number}")
        clustered = result.labels >= 0
        np.testing.assert_array_equal(result.tags[result.labels[clustered]], image["idbscan_tag"][clustered])


@pytest.mark.parametrize("steal", [True, False])
def test_directional_partition_is_that_of_a_golden_seed(golden, steal):
    equal = {
        number
        for number, image in golden.items()
        if any(
            partition(directional(*points(image), steal=steal).labels) == partition(labels)
            for labels in image["ddbscan"].T
        )
    }
    assert len(equal) >= 28, f"differ: {sorted(set(golden) - equal)}"


def test_directional_tags_are_those_of_the_reference_on_stable_images(golden):
    for number, image in golden.items():
        if number != UNSTABLE:
            result = directional(*points(image), steal=True)
            tags = np.append(result.tags, 0)[result.labels]
            np.testing.assert_array_equal(tags, image["poly"][:, 0], f"image {number}")


@pytest.mark.parametrize("steal", [True, False])
def test_directional_clusters_nearly_agree_on_the_unstable_image(golden, steal):
    image = golden[UNSTABLE]
    result: Clustering = directional(*points(image), steal=steal)
    for labels in image["ddbscan"].T:
        best = [
            max(overlap(labels == theirs, result.labels == ours) for ours in range(result.n_clusters))
            for theirs in np.unique(labels[labels >= 0])
        ]
        assert np.mean(np.array(best) > 0.9) >= 0.9


@pytest.mark.parametrize(("name", "n_clusters"), [("data240", 11), ("data005", 31)])
def test_published_cluster_counts_come_out(shared_data, name, n_clusters):
    """Lists of real pixels with repetitions, each of which counts: ifpains/Directional-DBSCAN, 512 x 512 images."""
    pixels = np.load(shared_data / "real" / "ddbscan" / f"{name}.npy")
    rows, cols, multiplicity, _ = merge_points(pixels[:, 0], pixels[:, 1])
    assert dbscan(rows, cols, multiplicity, eps=5.8, min_samples=30, metric="l2").n_clusters == n_clusters
