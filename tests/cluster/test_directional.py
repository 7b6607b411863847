"""Directional clustering: against a plain form of the method, and what each of its rules does."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.lattice import dbscan, merge_points
from cygnoreco.errors import InputError
from cygnoreco.stage import stage_of
from tests.cluster.plain_directional import plain_directional
from tests.cluster.scenes import Scene, partition, points_of, speckle, strip, tracks


def image(shape: tuple[int, int] = (400, 400)) -> np.ndarray:
    return np.zeros(shape, int)


def at(scene: Scene, labels: np.ndarray, row: int, col: int) -> int:
    return int(labels[(scene.rows == row) & (scene.cols == col)][0])


@pytest.mark.parametrize("expand_noncore", [True, False])
@pytest.mark.parametrize("steal", [True, False])
def test_result_is_that_of_the_plain_form(steal, expand_noncore):
    n_followed = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        scene = tracks(rng, (300, 400), n_tracks=2 + seed % 6, length=60, bend=0.003 * (seed % 4), noise=20 * seed)
        result = directional(*scene, steal=steal, expand_noncore=expand_noncore)
        labels, on_track = plain_directional(*scene, steal=steal, expand_noncore=expand_noncore)
        assert partition(result.labels) == partition(labels), f"scene {seed}"
        np.testing.assert_array_equal(np.append(result.tags, 0)[result.labels] == 1, on_track)
        n_followed += result.tags.sum()
    assert n_followed >= 8


def test_a_broken_track_is_one_cluster():
    picture = image()
    strip(picture, (50, 50), (50, 150))
    strip(picture, (50, 175), (50, 230))  # 24 macro-pixels of nothing
    scene = points_of(picture)
    assert dbscan(*scene).n_clusters == 2
    result = directional(*scene)
    assert (result.n_clusters, result.tags.tolist()) == (1, [1])
    assert (result.labels == 0).all()
    assert directional(*scene, radius=20.0).n_clusters == 2


@pytest.mark.parametrize(
    ("start", "stop"), [((20, 20), (300, 20)), ((20, 20), (300, 300)), ((300, 20), (20, 300)), ((20, 20), (150, 300))]
)
def test_tracks_of_any_direction_are_found(start, stop):
    picture = image()
    strip(picture, start, stop)
    result = directional(*points_of(picture))
    assert result.tags.tolist() == [1]


def test_an_arc_that_fits_no_band_around_a_line_is_fitted_and_continued_by_a_parabola():
    picture = image((500, 500))
    along = np.arange(40, 400)
    across = np.rint(60 + 0.001 * (along - 40) ** 2).astype(int)
    lit = (along < 320) | (along > 332)  # a gap wider than eps
    for offset in range(3):
        picture[along[lit], across[lit] + offset] = 5
    scene = points_of(picture)
    assert dbscan(*scene).n_clusters == 2
    result = directional(*scene)
    assert result.tags.tolist() == [1]
    assert (result.labels == 0).all()


def test_round_clusters_are_left_to_dbscan():
    picture = image()
    down, right = np.mgrid[-9:10, -9:10]
    for row, col in ((60, 60), (200, 300), (310, 90)):
        picture[row - 9 : row + 10, col - 9 : col + 10] += down**2 + right**2 <= 81
    scene = points_of(picture)
    result = directional(*scene)
    np.testing.assert_array_equal(result.labels, dbscan(*scene).labels)
    assert result.tags.tolist() == [0, 0, 0]


def crossing() -> Scene:
    picture = image()
    strip(picture, (200, 20), (200, 380))
    strip(picture, (240, 200), (330, 200))
    strip(picture, (215, 200), (228, 200))
    return points_of(picture)


def test_points_of_an_earlier_track_stay_with_it_unless_they_may_be_stolen():
    scene = crossing()
    kept, stolen = directional(*scene), directional(*scene, steal=True)
    assert at(scene, kept.labels, 200, 40) == at(scene, kept.labels, 200, 201) == 0
    assert at(scene, kept.labels, 300, 201) == at(scene, stolen.labels, 300, 201) == 1
    assert at(scene, stolen.labels, 200, 40) == 0
    assert at(scene, stolen.labels, 200, 201) == 1


def test_points_beside_a_track_are_dropped_within_the_isolation_radius():
    picture = image()
    strip(picture, (200, 20), (200, 380))  # rows 200 to 202
    picture[207:211, 100:104] = 5  # its first row is 5 away: not strictly nearer
    picture[212:216, 300:304] = 5
    scene = points_of(picture)
    options = {"eps": 4.0, "radius": 4.0, "thickness": 3.0}
    labels = directional(*scene, **options).labels
    assert [at(scene, labels, row, col) for row, col in ((201, 100), (207, 100), (212, 300))] == [0, 1, 2]
    wider = directional(*scene, isolation_radius=5.1, **options).labels
    assert [at(scene, wider, row, col) for row, col in ((201, 100), (207, 100), (212, 300))] == [0, -1, 1]


def test_what_is_left_must_be_as_large_as_the_smallest_seed():
    picture = image()
    strip(picture, (200, 20), (200, 380))
    picture[207:211, 100:104] = 5  # 16 points: the smallest seed
    scene = points_of(picture)
    options = {"eps": 4.0, "radius": 4.0, "thickness": 3.0}
    assert at(scene, directional(*scene, **options).labels, 210, 100) == 1
    # Without the row that is too near the track 12 points are left, less than the smallest seed had.
    wider = directional(*scene, isolation_radius=5.1, **options)
    assert at(scene, wider.labels, 210, 100) == -1
    assert wider.n_clusters == 1
    picture[300:303, 300:304] = 5  # now it has 12
    scene = points_of(picture)
    wider = directional(*scene, isolation_radius=5.1, **options)
    assert at(scene, wider.labels, 210, 100) == 1


@pytest.mark.parametrize("seed_first", [True, False])
@pytest.mark.parametrize("upright", [True, False])
def test_a_chain_of_pieces_is_followed_to_its_end_in_one_go(upright, seed_first):
    picture = image((600, 600))
    # The longest piece is the start; every further one is a step of 20 away, much farther in all than one step.
    starts = [(20, 220), *((first, first + 20) for first in range(240, 560, 40))]
    for first, last in starts:
        first, last = (first, last) if seed_first else (590 - last, 590 - first)
        strip(picture, *(((first, 50), (last, 50)) if upright else ((50, first), (50, last))))
    scene = points_of(picture)
    assert dbscan(*scene).n_clusters == 9
    result = directional(*scene, max_attempts=0)
    assert result.n_clusters == 1
    assert (result.labels == 0).all()


def test_a_piece_cut_by_another_track_is_only_what_is_still_connected():
    picture = image()
    strip(picture, (200, 20), (200, 185))
    strip(picture, (200, 217), (200, 380))  # on the same line: the first track, rows 200 to 202
    strip(picture, (60, 200), (203, 200))  # ends on that line and loses its end to it
    picture[209:212, 208:212] = 5  # was connected to that end only, and is beside both bands
    scene = points_of(picture)
    assert dbscan(*scene).n_clusters == 3
    labels = directional(*scene).labels
    assert at(scene, labels, 200, 30) == at(scene, labels, 200, 201) == at(scene, labels, 200, 370) == 0
    assert at(scene, labels, 100, 201) == 1
    assert at(scene, labels, 210, 210) == -1


def test_tracks_come_first_and_are_tagged():
    picture = image()
    picture[20:35, 20:35] = 5
    strip(picture, (200, 20), (200, 200))
    strip(picture, (300, 20), (300, 380))
    scene = points_of(picture)
    result = directional(*scene)
    assert result.tags.tolist() == [1, 1, 0]
    # Both tracks are perfectly straight: the larger one is followed first.
    assert [at(scene, result.labels, row, 30) for row in (301, 201, 30)] == [0, 1, 2]


def test_a_track_still_growing_at_the_last_attempt_is_cut_short():
    picture = image()
    strip(picture, (50, 50), (50, 150))
    strip(picture, (50, 175), (50, 230))
    scene = points_of(picture)
    assert directional(*scene, max_attempts=0).cut_short
    assert not directional(*scene).cut_short


def test_empty_one_point_and_all_noise():
    nothing = directional([], [], [])
    assert (nothing.labels.size, nothing.tags.size, nothing.n_clusters, nothing.cut_short) == (0, 0, 0, False)
    assert directional([4], [7], [20]).labels.tolist() == [0]
    assert directional([4], [7], [19]).labels.tolist() == [-1]
    picture = image()
    picture[::20, ::20] = 1
    assert (directional(*points_of(picture)).labels == -1).all()


@pytest.mark.parametrize("occupancy", [0.005, 0.02, 0.075])
def test_a_frame_full_of_noise_takes_no_more_than_a_moment(occupancy):
    scene = speckle(np.random.default_rng(1), (576, 576), occupancy, 8)
    directional(*scene)
    start = time.process_time()
    directional(*scene)
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(("down", "right"), [(500, 900), (-70, -3)])
def test_moving_all_points_changes_nothing(down, right):
    for seed in range(4):
        scene = tracks(np.random.default_rng(seed), (300, 300), noise=100)
        moved = directional(scene.rows + down, scene.cols + right, scene.weights)
        np.testing.assert_array_equal(moved.labels, directional(*scene).labels)


def test_the_mirror_image_of_separate_tracks_has_the_mirrored_clusters():
    picture = image()
    strip(picture, (50, 40), (60, 300))
    strip(picture, (61, 320), (63, 380))
    strip(picture, (150, 40), (300, 150))
    picture[300:312, 300:312] = 3
    scene = points_of(picture)
    labels = directional(*scene).labels
    assert labels.max() == 2
    for flip_rows, flip_cols in ((1, -1), (-1, 1), (-1, -1)):
        rows, cols, weights, inverse = merge_points(flip_rows * scene.rows, flip_cols * scene.cols, scene.weights)
        assert partition(directional(rows, cols, weights).labels[inverse]) == partition(labels)


def test_threads_agree():
    scenes = [tracks(np.random.default_rng(seed), (400, 400)) for seed in range(4)] * 3
    alone = [directional(*scene).labels for scene in scenes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda scene: directional(*scene).labels, scenes))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_labels_are_numbered_without_gaps():
    for seed in range(6):
        scene = tracks(np.random.default_rng(seed), n_tracks=15, length=60)
        for steal in (False, True):
            result = directional(*scene, steal=steal)
            assert np.unique(result.labels[result.labels >= 0]).tolist() == list(range(result.n_clusters))
            assert result.tags.shape == (result.n_clusters,)


def test_points_out_of_order_are_refused():
    with pytest.raises(InputError, match="raster order"):
        directional([1, 0], [0, 0], [1, 1])


@pytest.mark.parametrize("wrong", [{"min_accuracy": 1.5}, {"radius": 0.0}, {"metric": "max"}, {"time_threshold": 300}])
def test_parameters_out_of_bounds_are_refused(wrong):
    with pytest.raises(InputError, match=r"directional\.\w+"):
        stage_of(directional).validate(wrong)
