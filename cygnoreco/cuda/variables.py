"""Every variable of every cluster of a block of frames, on CUDA: :func:`cygnoreco.measure.variables.measure`.

Each cluster has a block of threads, and each of its two profiles another. What has an order on the CPU keeps it: sums
over pixels, the single-precision contents of profiles, the pixel that writes a bin of the map last. So every column has
the bits of the CPU's form, before that rounds it to single precision, except for two functions whose last bit depends
on the processor:

* ``sc_theta`` ends with an arc tangent: equal within ``THETA_TOLERANCE``;
* the Gaussian fits (``sc_lgauss*``, ``sc_tgauss*``, ``sc_lchi2``, ``sc_tchi2``) evaluate exponentials: equal within
  ``FIT_TOLERANCE``, with the same status. With exponentials that are wrong by one bit at random, the largest
  difference of ten thousand fits was 1e-12, but for one: at a profile that is nothing like a Gaussian, a rounding can
  decide which of two valleys a step leads to.

The order of the clusters is decided by integrals of the same bits, so it is the CPU's, ties included.

Memory on the device, besides the arguments: 8 bytes a pixel of the clusters (24 where pixels overwrite each other in
the map), and 36 bytes a column of the profiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cygnoreco.cuda.program import Program
from cygnoreco.image.correct import saturation_polynomial
from cygnoreco.measure.variables import NO_PEARSON, NOT_YET
from cygnoreco.types import CLUSTER_DTYPE

#: Columns of the table in their order; the kernels number them in the same way.
COLUMNS: tuple[str, ...] = CLUSTER_DTYPE.names or ()

#: Tolerance of the angle against the CPU's, degrees, before it is rounded to single precision.
THETA_TOLERANCE = 1e-13
#: Tolerance of what the fits find against the CPU's, where both end in the same valley: relative, and absolute below 1;
#: of the mean relative to mean and sigma.
FIT_TOLERANCE = 1e-6

# Threads of a block, and doubles of a cluster's frame: MEASURE_THREADS and MeasureAxes in the source.
_THREADS = 128
_AXES = 12


class Measured(NamedTuple):
    """Clusters of a block, frame after frame, in a frame by falling integral; arrays of the program.

    Attributes
    ----------
    table : ndarray, shape (len(COLUMNS), k), float64
        One row a column of ``CLUSTER_DTYPE``, for a single copy to the host.
    order : ndarray, shape (k,), int64
        Which of the clusters given each one is.
    """

    table: Any
    order: Any

    @property
    def columns(self) -> dict[str, Any]:
        """Views of the rows of the table by name, each of shape (k,)."""
        return dict(zip(COLUMNS, self.table, strict=True))


def measure_block(
    program: Program,
    rows: Any,
    cols: Any,
    offsets: Any,
    frame_of_cluster: Any,
    z: Any,
    above: Any,
    saturated: Any,
    tags: Any,
    *,
    axes: str,
    min_macropixels: int,
    theta: str,
    axis_sign: str,
    pivot: str,
    profile_bins: str,
    bin_error_long: float,
    bin_error_lat: float,
    map_collisions: str,
    main_peak_is: str,
    peak_width_in: str,
    peak_height: float,
    peak_prominence: float,
    peak_width: float,
    peak_distance: float,
    fit_mean_range: float,
    fit_sigma_limit: float,
    fit_max_steps: int,
    faint_positions: str,
    faint_integral: float,
    density_quadratic: float,
    density_onset: float,
    counts_per_density: float,
) -> Measured:
    """Measure every cluster of a block of frames; waits for the device once.

    Parameters
    ----------
    program : Program
        Kernels, and the namespace of the arrays.
    rows, cols : ndarray, shape (m,), int32
        Macro-pixels, frame by frame, cluster by cluster, in raster order in a cluster.
    offsets : ndarray, shape (k + 1,), int64
        Where the clusters begin, and the end of the last one.
    frame_of_cluster : ndarray, shape (k,), int32
        Rising.
    z : ndarray, shape (m, r, r), float64
        Counts of the pixels, ADU.
    above, saturated : ndarray, shape (m, r, r), bool or uint8
        Pixels above the zero suppression, and saturated ones.
    tags : ndarray, shape (k,), int32
        From the clustering.
    axes, min_macropixels, ...
        Parameters of the stage ``measure``, all of them.

    Returns
    -------
    Measured
        Clusters with at least `min_macropixels`. Columns of other stages (energy, path length, saved pixels) are -1.
    """
    xp = program.xp
    n_clusters = len(offsets) - 1
    if n_clusters == 0:
        return Measured(xp.zeros((len(COLUMNS), 0)), xp.zeros(0, xp.int64))
    size = int(z.shape[1])
    rows_first, whole = axes == "rowcol", profile_bins == "whole"
    overwrite = map_collisions == "overwrite"
    z, above, saturated = (xp.ascontiguousarray(each) for each in (z, above, saturated))

    values = xp.zeros((len(COLUMNS), n_clusters))
    axes_of = xp.zeros((n_clusters, _AXES))
    n_cells = xp.zeros(2 * n_clusters, xp.int64)
    program.launch(
        "measure_axes",
        n_clusters,
        _THREADS,
        rows,
        cols,
        offsets,
        n_clusters,
        size,
        min_macropixels,
        rows_first,
        axis_sign == "lapack",
        theta == "first",
        pivot == "macropixel",
        whole,
        axes_of,
        n_cells,
        values,
    )

    density = saturation_polynomial(density_quadratic, density_onset, counts_per_density)
    faint = float(faint_integral) if faint_positions == "zero" else float("-inf")
    moments = xp.zeros((2 * n_clusters, 2))
    entries = xp.zeros(2 * z.size if overwrite else 0, xp.uint64)
    program.launch(
        "measure_sums",
        n_clusters,
        _THREADS,
        rows,
        cols,
        offsets,
        z,
        above,
        saturated,
        n_clusters,
        size,
        min_macropixels,
        rows_first,
        whole,
        overwrite,
        faint,
        *map(float, density[:3]),
        axes_of,
        entries,
        moments,
        values,
    )

    cells = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(n_cells)])
    dropped = xp.diff(offsets) < min_macropixels
    n_dropped, room = (int(each) for each in xp.stack([dropped.sum(), cells[-1]]).tolist())  # the one wait
    columns, ends = xp.zeros(room, xp.int32), xp.zeros(room, xp.int32)
    edges, sorted_pixels = xp.empty(room, xp.int32), xp.empty(2 * z.size, xp.int32)
    n_bins = xp.zeros(2 * n_clusters, xp.int32)
    contents, squares, centres = xp.empty(room), xp.empty(room), xp.empty(room)
    program.launch(
        "measure_profiles",
        (n_clusters, 2),
        _THREADS,
        rows,
        cols,
        offsets,
        z,
        n_clusters,
        size,
        min_macropixels,
        rows_first,
        whole,
        max(1.0, 1 / bin_error_long / bin_error_long),
        max(1.0, 1 / bin_error_lat / bin_error_lat),
        axes_of,
        cells,
        columns,
        edges,
        ends,
        sorted_pixels,
        n_bins,
        contents,
        squares,
    )
    program.launch(
        "measure_peaks",
        (n_clusters, 2),
        _THREADS,
        offsets,
        n_clusters,
        min_macropixels,
        float(peak_height),
        float(peak_prominence),
        float(peak_width),
        float(peak_distance),
        main_peak_is == "highest",
        peak_width_in == "pixel",
        cells,
        n_bins,
        edges,
        contents,
        columns,
        values,
    )
    program.launch(
        "measure_fits",
        (n_clusters, 2),
        _THREADS,
        offsets,
        n_clusters,
        min_macropixels,
        float(fit_mean_range),
        float(fit_sigma_limit),
        int(fit_max_steps),
        cells,
        n_bins,
        edges,
        contents,
        moments,
        centres,
        squares,
        values,
    )

    for column in ("sc_energy", "sc_pathlength", "sc_redpixIdx"):
        values[COLUMNS.index(column)] = NOT_YET
    values[COLUMNS.index("sc_pearson")] = NO_PEARSON
    values[COLUMNS.index("sc_tag")] = tags
    integral = values[COLUMNS.index("sc_integral")]
    # Stable, like the CPU's sort of each frame; clusters that were dropped come last and are cut off.
    keys = xp.stack([-integral, frame_of_cluster.astype(xp.float64), dropped.astype(xp.float64)])
    order = xp.lexsort(keys)[: n_clusters - n_dropped]
    return Measured(xp.ascontiguousarray(values[:, order]), order.astype(xp.int64))
