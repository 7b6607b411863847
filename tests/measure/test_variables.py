"""Cluster variables: spots and tracks with known answers, symmetries, and a plain definition of every number."""

from __future__ import annotations

import numpy as np
import pytest

from cygnoreco.errors import InputError
from cygnoreco.measure.variables import measure
from cygnoreco.types import CLUSTER_DTYPE

SIDE = 4
WINTER23 = {
    "axes": "rowcol",
    "theta": "first",
    "axis_sign": "lapack",
    "pivot": "macropixel",
    "profile_bins": "dropping",
    "map_collisions": "overwrite",
    "main_peak_is": "last",
    "peak_width_in": "bin",
    "faint_positions": "zero",
}
POSITIONS = ["sc_xmean", "sc_ymean", "sc_xmin", "sc_xmax", "sc_ymin", "sc_ymax"]


def pixel_rows_cols(rows, cols):
    """Coordinates (m, 4, 4) of the pixels of macro-pixels."""
    shape = (len(rows), SIDE, SIDE)
    row = np.broadcast_to(rows[:, None, None] * SIDE + np.arange(SIDE)[:, None], shape)
    col = np.broadcast_to(cols[:, None, None] * SIDE + np.arange(SIDE), shape)
    return row, col


def cluster(light, region, noise=0.0, seed=0):
    """Macro-pixels where ``region(row, col)`` of their centres holds, lit by ``light(row, col)``: rows, cols, z."""
    rows, cols = (each.ravel().astype(np.int32) for each in np.mgrid[0:200, 0:200])
    inside = region(SIDE * rows + 1.5, SIDE * cols + 1.5)
    rows, cols = rows[inside], cols[inside]
    z = light(*pixel_rows_cols(rows, cols)).astype(float)
    return rows, cols, z + np.random.default_rng(seed).normal(0, noise, z.shape)


def spot(row0=400.0, col0=300.0, sigma=6.0, height=100.0, noise=2.0, seed=0):
    return cluster(
        lambda r, c: height * np.exp(-((r - row0) ** 2 + (c - col0) ** 2) / (2 * sigma**2)),
        lambda r, c: (r - row0) ** 2 + (c - col0) ** 2 < (4 * sigma) ** 2,
        noise,
        seed,
    )


def track(angle, length=200.0, sigma=5.0, row0=400.0, col0=380.0, noise=2.0, slope=0.0):
    """A straight track of even brightness (or rising by `slope` along it); angle from the columns to the rows."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))

    def light(r, c):
        along, across = cos * (c - col0) + sin * (r - row0), -sin * (c - col0) + cos * (r - row0)
        return (50 + slope * along) * np.exp(-(across**2) / (2 * sigma**2)) * (np.abs(along) < length / 2)

    def region(r, c):
        along, across = cos * (c - col0) + sin * (r - row0), -sin * (c - col0) + cos * (r - row0)
        return (np.abs(across) < 4 * sigma) & (np.abs(along) < length / 2 + 10)

    return cluster(light, region, noise)


def random_cluster(rng, n=60, offset=20.0):
    """Lumpy cluster of distinct macro-pixels in raster order, some of its pixels negative."""
    cells = np.unique(rng.normal(0, [6, 3], (n, 2)).round().astype(np.int32) + 100, axis=0)
    return cells[:, 0], cells[:, 1], rng.normal(offset, 15, (len(cells), SIDE, SIDE))


def measure_clusters(*clusters, above=5.0, saturated=90.0, tags=None, **parameters):
    rows, cols, z = (np.concatenate(each) for each in zip(*clusters, strict=True))
    offsets = np.cumsum([0] + [len(each[0]) for each in clusters])
    tags = np.zeros(len(clusters), np.int32) if tags is None else np.asarray(tags, np.int32)
    return measure(rows, cols, offsets, z, z > above, z > saturated, tags, **parameters)


def measure_one(*clusters, **parameters):
    table, _ = measure_clusters(*clusters, **parameters)
    return table[0]


def plain_definition(rows, cols, z, *, winter23):
    """The variables that need no fit and no peak, written down in NumPy without a thought of speed."""
    row, col = (each.ravel() for each in pixel_rows_cols(rows, cols))
    z = z.ravel()
    x, y, mx, my = (row, col, rows, cols) if winter23 else (col, row, cols, rows)
    values, vectors = np.linalg.eig(np.cov(mx, my))
    axis = vectors[:, values.argmax()]
    if not winter23 and (axis[0] < 0 or (axis[0] == 0 and axis[1] < 0)):
        axis = -axis
    reference = vectors[:, 0] if winter23 else axis
    u = axis[0] * x + axis[1] * y
    v = -axis[1] * x + axis[0] * y
    result = {
        "sc_size": len(z),
        "sc_nhits": (z > 5).sum(),
        "sc_nsat": (z > 90).sum(),
        "sc_integral": z.sum(),
        "sc_rms": z.std(),
        "sc_theta": np.degrees(np.arctan2(reference[1], reference[0])),
        "sc_length": np.ptp(u),
        "sc_width": np.ptp(v),
        "sc_xmean": np.average(x, weights=np.maximum(z, 0)),
        "sc_ymean": np.average(y, weights=np.maximum(z, 0)),
        "sc_xmin": x.min(),
        "sc_xmax": x.max(),
        "sc_ymin": y.min(),
        "sc_ymax": y.max(),
        "sc_pearson": 999,
        "sc_energy": -1,
        "sc_pathlength": -1,
        "sc_redpixIdx": -1,
    }
    bins = np.rint(u - u.min()).astype(int), np.rint(v - v.min()).astype(int)
    image = np.zeros((bins[0].max() + 1, bins[1].max() + 1))
    if winter23:
        image[bins] = z  # of repeated indices the last one counts
    else:
        np.add.at(image, bins, z)
        result["sc_lfullrms"] = weighted_rms(u, z)
        result["sc_tfullrms"] = weighted_rms(v, z)
    result["sc_longrms"] = weighted_rms(np.arange(image.shape[0]), image.sum(axis=1))
    result["sc_latrms"] = weighted_rms(np.arange(image.shape[1]), image.sum(axis=0))
    return result


def weighted_rms(x, weights):
    mean = np.average(x, weights=weights)
    return np.sqrt(np.average((x - mean) ** 2, weights=weights))


@pytest.mark.parametrize("winter23", [False, True])
def test_numbers_follow_their_plain_definition(winter23):
    rng = np.random.default_rng(1)
    for _ in range(40):
        rows, cols, z = random_cluster(rng)
        found = measure_one((rows, cols, z), **(WINTER23 if winter23 else {}))
        for column, value in plain_definition(rows, cols, z, winter23=winter23).items():
            assert found[column] == pytest.approx(value, rel=2e-6, abs=1e-4), column


def test_density_correction_is_a_polynomial_of_every_pixel():
    rows, cols, z = random_cluster(np.random.default_rng(2))
    found = measure_one((rows, cols, z), density_quadratic=0.1, density_onset=2.0, counts_per_density=4.0)
    expected = (0.1 / 4 * z**2 + (1 - 2 * 0.1 * 2) * z + 0.1 * 2**2 * 4).sum()
    assert found["sc_corrintegral"] == pytest.approx(expected, rel=1e-6)


def test_round_spot():
    found = measure_one(spot(row0=401.3, col0=299.6, sigma=6.0))
    assert found["sc_xmean"] == pytest.approx(299.6, abs=0.3)
    assert found["sc_ymean"] == pytest.approx(401.3, abs=0.3)
    assert found["sc_integral"] == pytest.approx(2 * np.pi * 100 * 36, rel=0.02)
    for column in ("lgausssigma", "tgausssigma", "lfullrms", "tfullrms", "longrms", "latrms"):
        assert found[f"sc_{column}"] == pytest.approx(6.0, rel=0.06), column
    assert found["sc_lp0fwhm"] == pytest.approx(2.355 * 6, rel=0.1)
    assert found["sc_tp0fwhm"] == pytest.approx(2.355 * 6, rel=0.1)
    assert found["sc_lp0mean"] == pytest.approx(found["sc_lgaussmean"], abs=1.5)
    assert found["sc_lstatus"] == found["sc_tstatus"] == 3


@pytest.mark.parametrize("angle", [-80.0, -30.0, 0.0, 20.0, 45.0, 65.0, 90.0])
def test_straight_track(angle):
    found = measure_one(track(angle))
    assert found["sc_theta"] == pytest.approx(angle, abs=1.0)
    assert found["sc_length"] == pytest.approx(220, abs=10)
    assert found["sc_tgausssigma"] == pytest.approx(5.0, rel=0.05)
    assert found["sc_lfullrms"] == pytest.approx(200 / np.sqrt(12), rel=0.03)


def test_the_profile_runs_along_the_axis():
    """The bright end of a track that brightens with x is the far end, whatever side of the x axis it is on."""
    for angle in (-40.0, 0.0, 40.0):
        rising, falling = measure_one(track(angle, slope=0.3)), measure_one(track(angle, slope=-0.3))
        assert rising["sc_lp0mean"] > 0.5 * rising["sc_length"] > falling["sc_lp0mean"]


def test_nothing_but_the_positions_depends_on_the_place():
    rng = np.random.default_rng(3)
    for _ in range(10):
        rows, cols, z = random_cluster(rng)
        here = measure_one((rows, cols, z))
        there = measure_one((rows + np.int32(317), cols - np.int32(61), z))
        for column in CLUSTER_DTYPE.names:
            shift = {"x": -61 * SIDE, "y": 317 * SIDE}.get(column[3], 0) if column in POSITIONS else 0
            if shift:
                assert there[column] == pytest.approx(here[column] + shift, rel=1e-6)
            else:
                assert there[column] == here[column], column


def test_turning_by_90_degrees_turns_theta_alone():
    """And runs a profile backwards where the axis, which always points to growing x, is reversed."""
    rng = np.random.default_rng(4)
    for _ in range(10):
        rows, cols, z = random_cluster(rng)
        order = np.lexsort((rows, -cols))
        turned = (500 - cols[order], rows[order], z[order].transpose(0, 2, 1)[:, ::-1, :])  # (row, col) -> (-col, row)
        before, after = measure_one((rows, cols, z)), measure_one(turned)
        assert (before["sc_theta"] - after["sc_theta"]) % 180 == pytest.approx(90, abs=1e-3)
        for column in ("size", "nhits", "integral", "rms", "length", "width", "lfullrms", "tfullrms"):
            assert after[f"sc_{column}"] == pytest.approx(before[f"sc_{column}"], rel=1e-5), column
        for column in ("longrms", "latrms"):  # the map's bins begin at the other end
            assert after[f"sc_{column}"] == pytest.approx(before[f"sc_{column}"], rel=2e-2), column


def test_axes_name_rows_and_columns():
    """The same cluster with rows and columns exchanged, read with the axes exchanged, gives the same table."""
    rows, cols, z = random_cluster(np.random.default_rng(5))
    order = np.lexsort((rows, cols))
    exchanged = cols[order], rows[order], z[order].transpose(0, 2, 1)
    xy, rowcol = measure_one((rows, cols, z)), measure_one(exchanged, axes="rowcol")
    for column in CLUSTER_DTYPE.names:
        assert rowcol[column] == pytest.approx(xy[column], rel=1e-5), column
    assert measure_one((rows, cols, z), axes="rowcol")["sc_xmean"] == xy["sc_ymean"]


def test_theta_of_the_first_eigenvector_is_at_times_the_minor_axis():
    differences = []
    for angle in (20.0, 70.0):
        rows, cols, z = track(angle)
        major, first = measure_one((rows, cols, z)), measure_one((rows, cols, z), theta="first")
        differences.append(abs(first["sc_theta"] - major["sc_theta"]) % 180)
    assert sorted(differences) == pytest.approx([0, 90], abs=1e-3)


def test_whole_profiles_do_not_depend_on_the_pivot_and_dropping_ones_do():
    clusters = random_cluster(np.random.default_rng(6), n=300)
    tables = [
        [measure_one(clusters, profile_bins=bins, pivot=pivot)["sc_lchi2"] for pivot in ("pixel", "macropixel")]
        for bins in ("whole", "dropping")
    ]
    assert tables[0][0] == pytest.approx(tables[0][1])
    assert tables[1][0] != pytest.approx(tables[1][1])


def test_main_peak_and_unit_of_its_width():
    """A track with a bright head at low x and a fainter one at its end."""

    def light(r, c):
        return (90 * np.exp(-((c - 320) ** 2) / 200) + 40 * np.exp(-((c - 500) ** 2) / 200)) * (np.abs(r - 400) < 8)

    clusters = cluster(light, lambda r, c: (np.abs(r - 400) < 12) & (np.abs(c - 400) < 140))
    highest, last = measure_one(clusters), measure_one(clusters, main_peak_is="last")
    assert highest["sc_lp0mean"] == pytest.approx(320 - 260, abs=3)
    assert last["sc_lp0mean"] == pytest.approx(500 - 260, abs=3)
    assert last["sc_lp0amplitude"] < highest["sc_lp0amplitude"]
    in_bins = measure_one(clusters, peak_width_in="bin")
    assert highest["sc_lp0fwhm"] == pytest.approx(2.355 * 10, rel=0.1)
    assert in_bins["sc_lp0fwhm"] < 0.8 * highest["sc_lp0fwhm"]


def test_no_peak():
    found = measure_one(random_cluster(np.random.default_rng(7), offset=-50))
    for column in ("lp0amplitude", "lp0prominence", "lp0fwhm", "lp0mean", "tp0fwhm"):
        assert found[f"sc_{column}"] == -999


def test_faint_clusters_keep_or_lose_their_positions():
    rows, cols, z = spot(height=0.0, noise=0.0)
    z += 5 / z.size
    kept, zeroed = measure_one((rows, cols, z)), measure_one((rows, cols, z), faint_positions="zero")
    assert kept["sc_xmean"] == pytest.approx(300, abs=1)
    assert kept["sc_ymin"] == rows.min() * SIDE
    assert all(zeroed[column] == 0 for column in POSITIONS)
    assert measure_one((rows, cols, z), faint_positions="zero", faint_integral=4.0)["sc_xmean"] == kept["sc_xmean"]


def test_barycentre_without_light_is_the_middle_of_the_pixels():
    found = measure_one((np.array([10, 10], np.int32), np.array([20, 21], np.int32), np.full((2, SIDE, SIDE), -1.0)))
    assert (found["sc_xmean"], found["sc_ymean"]) == (83.5, 41.5)


def test_rows_fall_with_the_integral_and_equals_keep_their_order():
    faint, bright, other = spot(height=50), spot(height=200), spot(row0=200.0, col0=500.0)
    table, order = measure_clusters(faint, bright, other, other, faint, tags=[1, 2, 3, 4, 5])
    assert order.tolist() == [1, 2, 3, 0, 4]
    assert table["sc_tag"].tolist() == [2, 3, 4, 1, 5]
    assert (np.diff(table["sc_integral"]) <= 0).all()
    assert table[2].tolist()[:-1] == table[1].tolist()[:-1]


def test_small_clusters_are_dropped():
    single = (np.array([5], np.int32), np.array([7], np.int32), np.full((1, SIDE, SIDE), 50.0))
    table, order = measure_clusters(single, spot(), single)
    assert order.tolist() == [1]
    assert len(measure_clusters(single, spot(), min_macropixels=1000)[0]) == 0
    assert table["sc_size"].tolist() == [16 * len(spot()[0])]


def test_clusters_do_not_disturb_each_other():
    rng = np.random.default_rng(8)
    clusters = [random_cluster(rng, n) for n in (400, 10, 80, 200)]
    for parameters in ({}, WINTER23):
        together, order = measure_clusters(*clusters, **parameters)
        for row, index in zip(together, order, strict=True):
            assert row == measure_one(clusters[index], **parameters)


def test_no_clusters():
    empty = np.empty(0, np.int32)
    patch = np.empty((0, SIDE, SIDE))
    table, order = measure(empty, empty, np.zeros(1, np.int64), patch, patch > 0, patch > 0, empty)
    assert table.dtype == CLUSTER_DTYPE
    assert len(table) == len(order) == 0


@pytest.mark.parametrize("parameters", [{}, WINTER23])
def test_noise_and_empty_clusters_have_finite_variables(parameters):
    rng = np.random.default_rng(9)
    clusters = [random_cluster(rng, n, offset) for n in (3, 8, 40, 200) for offset in (-40.0, 0.0, 3.0)]
    clusters += [(rows, cols, np.zeros_like(z)) for rows, cols, z in clusters[:6]]
    table, _ = measure_clusters(*[each for each in clusters if len(each[0]) > 1], **parameters)
    for column in table.dtype.names:
        assert np.isfinite(table[column]).all(), column


@pytest.mark.parametrize("side", [1, 2, 3])
def test_other_sizes_of_macro_pixels(side):
    """A spot whose macro-pixels are of another size is the same spot."""
    rows, cols = (each.ravel().astype(np.int32) for each in np.mgrid[30:54, 40:64])
    row = rows[:, None, None] * side + np.arange(side)[:, None]
    col = cols[:, None, None] * side + np.arange(side)
    z = 100 * np.exp(-((row / side - 42) ** 2 + (col / side - 52) ** 2) / 32) + 0.0
    table, _ = measure(rows, cols, np.array([0, len(rows)]), z, z > 5, z > 90, np.zeros(1, np.int32))
    assert table["sc_size"][0] == len(rows) * side**2
    assert table["sc_lgausssigma"][0] == pytest.approx(4 * side, rel=0.05)
    assert table["sc_xmax"][0] == 63 * side + side - 1
    for column in table.dtype.names:
        assert np.isfinite(table[column]).all(), column


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": np.zeros(3, np.int32)}, "3 rows"),
        ({"offsets": np.array([0, 5])}, "offsets from 0 to 5"),
        ({"offsets": np.array([0, 4, 2, 4])}, "rising offsets"),
        ({"above": np.zeros((4, 4, 3), bool)}, r"expected \(4, r, r\)"),
        ({"tags": np.zeros(3, np.int32)}, "3 tags for 2 clusters"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, words):
    arrays = {
        "rows": np.zeros(4, np.int32),
        "cols": np.arange(4, dtype=np.int32),
        "offsets": np.array([0, 2, 4]),
        "z": np.ones((4, 4, 4)),
        "above": np.ones((4, 4, 4), bool),
        "saturated": np.zeros((4, 4, 4), bool),
        "tags": np.zeros(2, np.int32),
    }
    assert len(measure(**arrays)[0]) == 2
    with pytest.raises(InputError, match=words):
        measure(**(arrays | change))
