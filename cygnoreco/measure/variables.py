"""Every variable of every cluster, from the pixels of its macro-pixels."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le
from numba import njit
from numpy.typing import NDArray

from cygnoreco.errors import InputError
from cygnoreco.image.correct import LEMON_COUNTS_PER_DENSITY, saturation_polynomial
from cygnoreco.measure.axes import map_rms, principal_axis, rotate
from cygnoreco.measure.gaussfit import fit_profile
from cygnoreco.measure.profile import Profile, fill_profile, main_peak
from cygnoreco.stage import stage
from cygnoreco.types import CLUSTER_DTYPE

Axes = Literal["xy", "rowcol"]

#: Value of ``sc_pearson``, which was never implemented.
NO_PEARSON = 999.0
#: Value of the columns that other stages fill.
NOT_YET = -1.0


@stage(name="measure", version=1)
def measure(
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    z: NDArray[np.float64],
    above: NDArray[np.bool_],
    saturated: NDArray[np.bool_],
    tags: NDArray[np.int32],
    *,
    axes: Axes = "xy",
    min_macropixels: Annotated[int, Ge(2)] = 2,
    theta: Literal["major", "first"] = "major",
    axis_sign: Literal["canonical", "lapack"] = "canonical",
    pivot: Literal["pixel", "macropixel"] = "pixel",
    profile_bins: Literal["whole", "dropping"] = "whole",
    bin_error_long: Annotated[float, Gt(0), Le(1)] = 0.2,
    bin_error_lat: Annotated[float, Gt(0), Le(1)] = 0.3,
    map_collisions: Literal["add", "overwrite"] = "add",
    main_peak_is: Literal["highest", "last"] = "highest",
    peak_width_in: Literal["pixel", "bin"] = "pixel",
    peak_height: float = 3.0,
    peak_prominence: Annotated[float, Ge(0)] = 2.0,
    peak_width: Annotated[float, Ge(0)] = 2.0,
    peak_distance: Annotated[float, Ge(1)] = 6.0,
    fit_mean_range: Annotated[float, Gt(0)] = 1.0,
    fit_sigma_limit: Annotated[float, Gt(0)] = 10.0,
    fit_max_steps: Annotated[int, Ge(1)] = 200,
    faint_positions: Literal["keep", "zero"] = "keep",
    faint_integral: float = 10.0,
    density_quadratic: Annotated[float, Ge(0)] = 0.1855,
    density_onset: Annotated[float, Ge(0)] = 2.5,
    counts_per_density: Annotated[float, Gt(0)] = LEMON_COUNTS_PER_DENSITY,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Measure every cluster of a frame: size, light, axes, profiles and their peaks and fits.

    The macro-pixels of cluster c are those from ``offsets[c]`` to ``offsets[c + 1]``. All their pixels count, with
    the zero suppression and without, unless a column says otherwise.

    Parameters
    ----------
    rows, cols : ndarray, shape (m,), int32
        Macro-pixels along axis 0 and axis 1 of the oriented image, cluster by cluster, in raster order in a cluster.
    offsets : ndarray, shape (k + 1,), int64
        Where the clusters begin, and the end of the last one.
    z : ndarray, shape (m, r, r), float64
        Counts of the pixels of the macro-pixels, ADU: pedestal subtracted, response corrected, not suppressed.
    above : ndarray, shape (m, r, r), bool
        Pixels above the zero suppression.
    saturated : ndarray, shape (m, r, r), bool
        Saturated pixels.
    tags : ndarray, shape (k,), int32
        From the clustering, for ``sc_tag``.
    axes : {'xy', 'rowcol'}
        ``xy``: in the table, x is the column and y the row. ``rowcol`` (winter23): x is the row and y the column.
    min_macropixels : int
        Clusters with fewer macro-pixels are dropped.
    theta : {'major', 'first'}
        ``sc_theta`` is the angle of the ``major`` axis, or (winter23) of the ``first`` eigenvector that LAPACK
        returns, which is the minor axis for half of the clusters.
    axis_sign : {'canonical', 'lapack'}
        Direction of the major axis, in which the longitudinal profile runs. ``canonical``: to growing x, or to
        growing y when parallel to y, so that theta is in (-90, 90] degrees. ``lapack`` (winter23): the sign of LAPACK's
        eigenvector.
    pivot : {'pixel', 'macropixel'}
        Point about which the pixels are turned into the frame of the axes. ``pixel``: the pixel in the middle of the
        cluster. ``macropixel`` (winter23): the barycentre in units of macro-pixels, a point elsewhere; this moves the
        bins of ``dropping`` profiles by a fraction of a pixel.
    profile_bins : {'whole', 'dropping'}
        ``whole``: the bins of the profiles join columns counted from the first pixel, all of them. ``dropping``
        (winter23): columns are truncated coordinates, the first column of a bin does not count towards its pixels, and
        the last column is left out of the profile.
    bin_error_long : float
        Relative error e wanted in a bin of the longitudinal profile: a bin takes at least 1/e**2 pixels.
    bin_error_lat : float
        The same for the transverse profile.
    map_collisions : {'add', 'overwrite'}
        What becomes of turned pixels that share a bin of the map behind ``sc_longrms`` and ``sc_latrms``: they add up,
        or (winter23) the last one overwrites the others.
    main_peak_is : {'highest', 'last'}
        Peak of a profile that ``sc_lp0*`` and ``sc_tp0*`` describe: the highest, or (winter23) the last one along the
        axis.
    peak_width_in : {'pixel', 'bin'}
        Unit of ``sc_lp0fwhm`` and ``sc_tp0fwhm``; bins (winter23) have no constant width.
    peak_height : float
        Least content of a peak's bin, ADU.
    peak_prominence : float
        Least prominence of a peak, ADU.
    peak_width : float
        Least full width at half prominence of a peak, bins.
    peak_distance : float
        Least distance of two peaks, bins; the lower one goes.
    fit_mean_range : float
        The mean of the Gaussian stays within the profile's mean plus or minus this many times its RMS.
    fit_sigma_limit : float
        Its sigma stays below this many times the RMS of the bins.
    fit_max_steps : int
        Largest number of steps of the fit.
    faint_positions : {'keep', 'zero'}
        ``zero`` (winter23) sets the six positions (mean, min, max) of faint clusters to 0.
    faint_integral : float
        A cluster with a smaller ``sc_integral`` than this is faint, ADU.
    density_quadratic : float
        Strength of the quadratic term in the density correction of ``sc_corrintegral``, per unit of charge density.
    density_onset : float
        Charge density where the loss of gain begins, there.
    counts_per_density : float
        ADU per unit of charge density, there.

    Returns
    -------
    table : ndarray, shape (n,), CLUSTER_DTYPE
        One row a cluster, by falling integral; equal ones in their order. Columns of other stages (energy, path length,
        saved pixels) are -1.
    order : ndarray, shape (n,), int64
        Which cluster each row is.

    Raises
    ------
    InputError
        Arrays whose lengths do not fit together.

    Notes
    -----
    The definitions are those of the experiment's program (CYGNUS-RD/reconstruction, branch winter23, commit d03a058)
    where no parameter says otherwise.
    """
    _check_lengths(rows, cols, offsets, z, above, saturated, tags)
    rows_first = axes == "rowcol"
    density = saturation_polynomial(density_quadratic, density_onset, counts_per_density)
    options = _Options(
        rows_first=rows_first,
        theta_of_first=theta == "first",
        sign_of_lapack=axis_sign == "lapack",
        pivot_in_macropixels=pivot == "macropixel",
        whole_profiles=profile_bins == "whole",
        min_pixels_long=max(1.0, 1 / bin_error_long / bin_error_long),
        min_pixels_lat=max(1.0, 1 / bin_error_lat / bin_error_lat),
        overwrite=map_collisions == "overwrite",
        highest_peak=main_peak_is == "highest",
        width_in_pixels=peak_width_in == "pixel",
        peak_height=float(peak_height),
        peak_prominence=float(peak_prominence),
        peak_width=float(peak_width),
        peak_distance=float(peak_distance),
        fit_mean_range=float(fit_mean_range),
        fit_sigma_limit=float(fit_sigma_limit),
        fit_max_steps=fit_max_steps,
        zero_positions_below=float(faint_integral) if faint_positions == "zero" else -np.inf,
        density=density[:3],
    )
    kept = np.flatnonzero(np.diff(offsets) >= min_macropixels)
    table = np.zeros(len(kept), CLUSTER_DTYPE)
    for column in ("sc_energy", "sc_pathlength", "sc_redpixIdx"):
        table[column] = NOT_YET
    table["sc_pearson"] = NO_PEARSON
    table["sc_tag"] = tags[kept]
    x, y = (rows, cols) if rows_first else (cols, rows)
    pixels = _Pixels(x, y, np.ascontiguousarray(z), np.ascontiguousarray(above), np.ascontiguousarray(saturated))
    integrals = _measure_clusters(pixels, offsets, kept, options, table)
    order = np.argsort(-integrals, kind="stable")
    return table[order], kept[order]


def _check_lengths(
    rows: NDArray[Any],
    cols: NDArray[Any],
    offsets: NDArray[Any],
    z: NDArray[Any],
    above: NDArray[Any],
    saturated: NDArray[Any],
    tags: NDArray[Any],
) -> None:
    """Raise InputError unless the arrays belong together; a kernel would read beyond their ends."""
    n = len(rows)
    if len(cols) != n or len(z) != n or offsets[0] != 0 or offsets[-1] != n or (np.diff(offsets) < 0).any():
        raise InputError(
            f"{n} rows, {len(cols)} columns and {len(z)} patches of counts do not fit offsets from {offsets[0]} to "
            f"{offsets[-1]}; expected as many of each, and rising offsets from 0 to their number"
        )
    if z.ndim != 3 or z.shape[1] != z.shape[2] or above.shape != z.shape or saturated.shape != z.shape:
        raise InputError(
            f"counts of shape {z.shape}, suppression {above.shape} and saturation {saturated.shape}; "
            f"expected ({n}, r, r) for all three"
        )
    if len(tags) != len(offsets) - 1:
        raise InputError(f"{len(tags)} tags for {len(offsets) - 1} clusters")


class _Pixels(NamedTuple):
    """Macro-pixels of one or more clusters in the axes of the table, and the counts and flags of their pixels."""

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    z: NDArray[np.float64]
    above: NDArray[np.bool_]
    saturated: NDArray[np.bool_]


class _Options(NamedTuple):
    """Parameters of :func:`measure` as the kernels take them."""

    rows_first: bool
    theta_of_first: bool
    sign_of_lapack: bool
    pivot_in_macropixels: bool
    whole_profiles: bool
    min_pixels_long: float
    min_pixels_lat: float
    overwrite: bool
    highest_peak: bool
    width_in_pixels: bool
    peak_height: float
    peak_prominence: float
    peak_width: float
    peak_distance: float
    fit_mean_range: float
    fit_sigma_limit: float
    fit_max_steps: int
    zero_positions_below: float
    density: tuple[float, float, float]


@njit(nogil=True, cache=True)
def _measure_clusters(
    pixels: _Pixels, offsets: NDArray[np.int64], kept: NDArray[np.int64], options: _Options, table: NDArray[Any]
) -> NDArray[np.float64]:
    """Fill a row of the table for each of the clusters kept; return their integrals in double precision."""
    integrals = np.empty(len(kept))
    writer = np.empty(0, np.int32)
    for k in range(len(kept)):
        first, last = offsets[kept[k]], offsets[kept[k] + 1]
        cluster = _Pixels(
            pixels.x[first:last],
            pixels.y[first:last],
            pixels.z[first:last],
            pixels.above[first:last],
            pixels.saturated[first:last],
        )
        row = table[k]
        integrals[k] = _light(cluster, options, row)
        _positions(cluster, options, integrals[k], row)
        writer = _shape(cluster, options, writer, row)
    return integrals


@njit(nogil=True, cache=True)
def _light(cluster: _Pixels, options: _Options, row: Any) -> float:
    """Numbers of pixels, and the light in them."""
    counts = cluster.z.ravel()
    integral = counts.sum()
    mean = integral / len(counts)
    squares = deviations = 0.0
    for z in counts:
        squares += z * z
        deviations += (z - mean) ** 2
    quadratic, slope, constant = options.density
    row.sc_size = len(counts)
    row.sc_nhits = np.count_nonzero(cluster.above)
    row.sc_nsat = np.count_nonzero(cluster.saturated)
    row.sc_integral = integral
    row.sc_corrintegral = quadratic * squares + slope * integral + constant * len(counts)
    row.sc_rms = np.sqrt(deviations / len(counts))
    return integral


@njit(nogil=True, cache=True)
def _positions(cluster: _Pixels, options: _Options, integral: float, row: Any) -> None:
    """Barycentre of the positive pixels (of all, each the same, if none is positive) and extremes."""
    if integral < options.zero_positions_below:
        return
    size = cluster.z.shape[1]
    total = sum_x = sum_y = 0.0
    for m in range(len(cluster.x)):
        for i in range(size):
            for j in range(size):
                weight = max(cluster.z[m, i, j], 0.0)
                total += weight
                sum_x += weight * (cluster.x[m] * size + (i if options.rows_first else j))
                sum_y += weight * (cluster.y[m] * size + (j if options.rows_first else i))
    if total > 0.0:
        row.sc_xmean, row.sc_ymean = sum_x / total, sum_y / total
    else:
        row.sc_xmean = (cluster.x.mean() + 0.5) * size - 0.5
        row.sc_ymean = (cluster.y.mean() + 0.5) * size - 0.5
    row.sc_xmin, row.sc_xmax = cluster.x.min() * size, cluster.x.max() * size + size - 1
    row.sc_ymin, row.sc_ymax = cluster.y.min() * size, cluster.y.max() * size + size - 1


@njit(nogil=True, cache=True)
def _shape(cluster: _Pixels, options: _Options, writer: NDArray[np.int32], row: Any) -> NDArray[np.int32]:
    """Axes, extents, map and profiles; returns the map's memory for the next cluster."""
    size = cluster.z.shape[1]
    cos, sin, row.sc_theta = principal_axis(cluster.x, cluster.y, options.sign_of_lapack, options.theta_of_first)
    if options.pivot_in_macropixels:
        pivot = (cluster.x.mean(), cluster.y.mean())
    else:
        n = len(cluster.x)
        pivot = (float(int(cluster.x.sum()) * size // n), float(int(cluster.y.sum()) * size // n))
    # Whole profiles begin at their first pixel whatever the origin; at 0 their last digits do not depend on the place.
    origin = (0.0, 0.0) if options.whole_profiles else pivot
    along, across = rotate(cluster.x, cluster.y, size, cos, sin, pivot, origin, options.rows_first)
    counts = cluster.z.ravel()

    length, width = along.max() - along.min(), across.max() - across.min()
    row.sc_length, row.sc_width = length, width
    n_bins = (int(length) + 2) * (int(width) + 2) if options.overwrite else 0
    if len(writer) < n_bins:
        writer = np.empty(n_bins, np.int32)
    row.sc_longrms, row.sc_latrms = map_rms(along, across, counts, writer)

    profile = fill_profile(along, counts, options.min_pixels_long, options.whole_profiles)
    peak = _peak(profile, options)
    row.sc_lfullrms = profile.rms
    row.sc_lp0amplitude, row.sc_lp0prominence, row.sc_lp0fwhm, row.sc_lp0mean = (
        peak.amplitude,
        peak.prominence,
        peak.fwhm,
        peak.mean,
    )
    row.sc_lgaussamp, row.sc_lgaussmean, row.sc_lgausssigma, row.sc_lchi2, row.sc_lstatus = _fit(profile, options)

    profile = fill_profile(across, counts, options.min_pixels_lat, options.whole_profiles)
    row.sc_tfullrms = profile.rms
    row.sc_tp0fwhm = _peak(profile, options).fwhm
    row.sc_tgaussamp, row.sc_tgaussmean, row.sc_tgausssigma, row.sc_tchi2, row.sc_tstatus = _fit(profile, options)
    return writer


@njit(nogil=True, cache=True)
def _peak(profile: Profile, options: _Options) -> Any:
    return main_peak(
        profile,
        options.peak_height,
        options.peak_prominence,
        options.peak_width,
        options.peak_distance,
        options.highest_peak,
        options.width_in_pixels,
    )


@njit(nogil=True, cache=True)
def _fit(profile: Profile, options: _Options) -> Any:
    return fit_profile(
        0.5 * (profile.edges[:-1] + profile.edges[1:]),
        profile.contents,
        np.sqrt(profile.squares),
        profile.mean,
        profile.rms,
        options.fit_mean_range,
        options.fit_sigma_limit,
        options.fit_max_steps,
    )
