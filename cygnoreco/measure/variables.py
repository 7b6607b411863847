"""Every variable of every cluster, from the pixels of its macro-pixels."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le
from numba import njit
from numpy.typing import NDArray

from cygnoreco.errors import InputError
from cygnoreco.image.correct import LEMON_COUNTS_PER_DENSITY, saturation_polynomial
from cygnoreco.kernels.scratch import scratch
from cygnoreco.measure.axes import principal_axis
from cygnoreco.measure.gaussfit import fit_profile
from cygnoreco.measure.profile import Profile, main_peak
from cygnoreco.measure.turned import Frame, extent, profiles_and_map
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
    integrals = np.empty(len(kept))
    _measure_clusters(
        pixels, offsets, kept, options, _map_memory(x, y, z.shape[1], options.overwrite), table, integrals
    )
    order = np.argsort(-integrals, kind="stable")
    return table[order], kept[order]


def _map_memory(x: NDArray[np.int32], y: NDArray[np.int32], size: int, overwrite: bool) -> NDArray[np.int32]:
    """Memory for the map of any cluster of some macro-pixels, empty where no map is needed.

    A turned rectangle of w x h fits into (w |cos| + h |sin|) x (w |sin| + h |cos|), which is at most (w + h)**2 / 2.
    The system hands out memory when it is first written, so what is too much here costs nothing.
    """
    if not overwrite or len(x) == 0:
        return np.empty(0, np.int32)
    diagonal = int(np.ptp(x) + np.ptp(y) + 2) * size
    return scratch("cluster map", (diagonal * diagonal // 2 + 3 * diagonal + 4,), np.int32)


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
    pixels: _Pixels,
    offsets: NDArray[np.int64],
    kept: NDArray[np.int64],
    options: _Options,
    writer: NDArray[np.int32],
    table: NDArray[Any],
    integrals: NDArray[np.float64],
) -> None:
    """Fill a row of the table for each of the clusters kept, and their integrals in double precision."""
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
        _shape(cluster, options, integrals[k], writer, row)


@njit(nogil=True, cache=True)
def _light(cluster: _Pixels, options: _Options, row: Any) -> float:
    """Numbers of pixels, the light in them, its barycentre, and the extremes.

    The barycentre is that of the positive pixels; of all, each the same, if none is positive.
    """
    size = cluster.z.shape[1]
    integral = squares = total = sum_x = sum_y = 0.0
    hits = saturated = 0
    for m in range(len(cluster.x)):
        left, top = cluster.x[m] * size, cluster.y[m] * size
        for i in range(size):
            for j in range(size):
                z = cluster.z[m, i, j]
                integral += z
                squares += z * z
                hits += cluster.above[m, i, j]
                saturated += cluster.saturated[m, i, j]
                weight = max(z, 0.0)
                total += weight
                sum_x += weight * (left + (i if options.rows_first else j))
                sum_y += weight * (top + (j if options.rows_first else i))
    quadratic, slope, constant = options.density
    row.sc_size = cluster.z.size
    row.sc_nhits = hits
    row.sc_nsat = saturated
    row.sc_integral = integral
    row.sc_corrintegral = quadratic * squares + slope * integral + constant * cluster.z.size
    if integral < options.zero_positions_below:
        return integral
    if total > 0.0:
        row.sc_xmean, row.sc_ymean = sum_x / total, sum_y / total
    else:
        row.sc_xmean = (cluster.x.mean() + 0.5) * size - 0.5
        row.sc_ymean = (cluster.y.mean() + 0.5) * size - 0.5
    row.sc_xmin, row.sc_xmax = cluster.x.min() * size, cluster.x.max() * size + size - 1
    row.sc_ymin, row.sc_ymax = cluster.y.min() * size, cluster.y.max() * size + size - 1
    return integral


@njit(nogil=True, cache=True)
def _shape(cluster: _Pixels, options: _Options, integral: float, writer: NDArray[np.int32], row: Any) -> None:
    """Scatter of the light, axes, extents, map and profiles."""
    size = cluster.z.shape[1]
    n = len(cluster.x)
    cos, sin, row.sc_theta = principal_axis(cluster.x, cluster.y, options.sign_of_lapack, options.theta_of_first)
    if options.pivot_in_macropixels:
        pivot_x, pivot_y = cluster.x.mean(), cluster.y.mean()
    else:
        pivot_x, pivot_y = float(int(cluster.x.sum()) * size // n), float(int(cluster.y.sum()) * size // n)
    # Whole profiles begin at their first pixel whatever the origin; at 0 their last digits do not depend on the place.
    along, across = (0.0, 0.0) if options.whole_profiles else (pivot_x, pivot_y)
    frame = Frame(size, cos, sin, pivot_x, pivot_y, along, across, options.rows_first)
    found = extent(cluster.x, cluster.y, frame)
    row.sc_length = found.last_along - found.first_along
    row.sc_width = found.last_across - found.first_across

    turned = profiles_and_map(
        cluster.x,
        cluster.y,
        cluster.z,
        integral / cluster.z.size,
        frame,
        found,
        options.min_pixels_long,
        options.min_pixels_lat,
        options.whole_profiles,
        writer,
    )
    row.sc_rms = np.sqrt(turned.deviations / cluster.z.size)
    row.sc_longrms, row.sc_latrms = turned.map_long, turned.map_lat

    peak = _peak(turned.long, options)
    row.sc_lfullrms = turned.long.rms
    row.sc_lp0amplitude, row.sc_lp0prominence, row.sc_lp0fwhm, row.sc_lp0mean = (
        peak.amplitude,
        peak.prominence,
        peak.fwhm,
        peak.mean,
    )
    row.sc_lgaussamp, row.sc_lgaussmean, row.sc_lgausssigma, row.sc_lchi2, row.sc_lstatus = _fit(turned.long, options)

    row.sc_tfullrms = turned.lat.rms
    row.sc_tp0fwhm = _peak(turned.lat, options).fwhm
    row.sc_tgaussamp, row.sc_tgaussmean, row.sc_tgausssigma, row.sc_tchi2, row.sc_tstatus = _fit(turned.lat, options)


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
