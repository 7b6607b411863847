// Variables of clusters: a block of threads for each cluster, or for each of its two profiles.
//
// Sums whose terms are not integers keep the order of the pixels, so that they have the bits of a plain loop: all
// threads make the terms of a tile of pixels, one a pixel, and then one thread a sum adds them up, many sums side by
// side. What has no order (integers, extremes) is reduced in any.

#define MEASURE_THREADS 128
#define MEASURE_SUMS 16

// Rows of `values`, (columns, clusters): the columns of the table of clusters in their order.
enum MeasureColumn {
  sc_size, sc_nhits, sc_integral, sc_corrintegral, sc_rms, sc_energy, sc_pathlength, sc_redpixIdx, sc_theta, sc_length,
  sc_width, sc_longrms, sc_latrms, sc_lfullrms, sc_tfullrms, sc_lp0amplitude, sc_lp0prominence, sc_lp0fwhm, sc_lp0mean,
  sc_tp0fwhm, sc_xmean, sc_ymean, sc_xmax, sc_xmin, sc_ymax, sc_ymin, sc_pearson, sc_tgaussamp, sc_tgaussmean,
  sc_tgausssigma, sc_tchi2, sc_tstatus, sc_lgaussamp, sc_lgaussmean, sc_lgausssigma, sc_lchi2, sc_lstatus, sc_nsat,
  sc_tag
};

// Frame in which a cluster is measured, px; twelve doubles.
struct MeasureAxes {
  double cosine, sine;                                    // of the angle of the major axis
  double pivot_x, pivot_y;                                // where it is turned about
  double mean_x, mean_y;                                  // of the macro-pixels, in their units
  double origin_along, origin_across;                     // coordinates of the pivot
  double first_along, last_along, first_across, last_across;
};

typedef double MeasureTerms[MEASURE_SUMS][MEASURE_THREADS + 1];  // the odd stride keeps the rows in different banks

// Add a tile of terms, one thread a row; `sum` is that thread's.
__device__ __forceinline__ void measure_add_rows(const MeasureTerms& terms, int rows, int columns, double& sum) {
  const int t = threadIdx.x;
  if (t < rows)
    for (int j = 0; j < columns; ++j) sum += terms[t][j];
}

__device__ double measure_block_max(double value) {
  __shared__ double cells[MEASURE_THREADS];
  const int t = threadIdx.x;
  __syncthreads();
  cells[t] = value;
  for (int half = MEASURE_THREADS / 2; half; half /= 2) {
    __syncthreads();
    if (t < half) cells[t] = max(cells[t], cells[t + half]);
  }
  __syncthreads();
  return cells[0];
}

// Root of a sum of squares with the bits of the GNU C library (2.35 and later; no scaling, for sides of ordinary size):
// CUDA's own differs in the last bit, and an axis that differs in one bit can move pixels across the edge of a bin. The
// root is corrected for what rounding has done to its square; see C. F. Borges, ACM TOMS 47 (2020) 9.
__device__ double measure_hypot(double a, double b) {
  const double big = max(fabs(a), fabs(b)), small = min(fabs(a), fabs(b));
  if (small <= big * 5.551115123125783e-17) return big + small;
  const double h = sqrt(big * big + small * small), d = h <= 2.0 * small ? h - small : h - big;
  const double error = h <= 2.0 * small ? big * (2.0 * d - big) + (d - 2.0 * (big - small)) * d
                                        : 2.0 * d * (big - 2.0 * small) + ((4.0 * d - small) * small + d * d);
  return h - error / (2.0 * h);
}

// Eigenvectors of ((a, b), (b, d)) in the order and with the signs of LAPACK.
__device__ void measure_eigenvectors(double a, double b, double d, double& first, double& second, double& cosine,
                                     double& sine) {
  const double eps = 2.220446049250313e-16;
  const double big = max(fabs(d), fabs(a - d)), small = min(fabs(d), fabs(a - d));
  first = a, second = d, cosine = 1.0, sine = 0.0;
  if (b == 0.0 || (fabs(b) <= eps * (fabs(a) + fabs(d)) && b * b <= eps * small * big)) return;
  const double half = 0.5 * (a - d), scale = max(fabs(half), fabs(b));
  const double z = half + copysign(sqrt(scale) * sqrt(half / scale * half + fabs(b) / scale * fabs(b)), half);
  const double norm = measure_hypot(b, z);
  first = d + z, second = d - fabs(b) / z * fabs(b), cosine = z / norm, sine = b / norm;
}

__device__ __forceinline__ i64 measure_floor_divide(i64 a, i64 b) { return a / b - (a % b < 0); }

__device__ __forceinline__ void measure_turn(const MeasureAxes& axes, int x, int y, double& along, double& across) {
  const double dx = x - axes.pivot_x, dy = y - axes.pivot_y;
  along = axes.origin_along + axes.cosine * dx + axes.sine * dy;
  across = axes.origin_across - axes.sine * dx + axes.cosine * dy;
}

// Position of a pixel of a cluster, px: `i` counts through its macro-pixels and row by row in each of them.
__device__ __forceinline__ void measure_position(const int* rows, const int* cols, i64 first, int i, int size,
                                                 int rows_first, int& x, int& y) {
  const int m = i / (size * size), k = i % (size * size);
  const int row = rows[first + m] * size + k / size, col = cols[first + m] * size + k % size;
  x = rows_first ? row : col;
  y = rows_first ? col : row;
}

// Coordinate of a pixel of a cluster along (0) or across (1) its axis.
__device__ __forceinline__ double measure_coordinate(const MeasureAxes& axes, const int* rows, const int* cols,
                                                     i64 first, int i, int size, int rows_first, int which) {
  int x, y;
  double along, across;
  measure_position(rows, cols, first, i, size, rows_first, x, y);
  measure_turn(axes, x, y, along, across);
  return which ? across : along;
}

// Columns of a profile: those that are counted, and those inside it (as bins see them, from the first pixel).
struct MeasureSpan {
  double first;    // coordinate of the first pixel
  double start;    // whence columns are counted
  int inside;      // number of columns that belong to bins
};

__device__ MeasureSpan measure_span(const MeasureAxes& axes, int across, int whole) {
  const double first = across ? axes.first_across : axes.first_along;
  const double last = across ? axes.last_across : axes.last_along;
  if (whole) return {first, first, (int)(last - first) + 1};
  return {first, (double)(int)first, (int)last - (int)first};
}

// Centre of a bin, px.
__device__ __forceinline__ double measure_centre(const int* edges, int k) {
  return 0.5 * ((double)edges[k] + (double)edges[k + 1]);
}

// Second moments as `numpy.cov` takes them, from the rounded mean: the rounding decides the axes of symmetric clusters.
__device__ void measure_rounded_moments(const int* xs, const int* ys, i64 first, int n, double x0, double y0,
                                        double* sums) {
  __shared__ MeasureTerms terms;
  const int t = threadIdx.x;
  double sum = 0.0;
  for (int base = 0; base < n; base += MEASURE_THREADS) {
    if (base + t < n) {
      const double dx = xs[first + base + t] - x0, dy = ys[first + base + t] - y0;
      terms[0][t] = dx, terms[1][t] = dy, terms[2][t] = dx * dx, terms[3][t] = dx * dy, terms[4][t] = dy * dy;
    }
    __syncthreads();
    measure_add_rows(terms, 5, min(MEASURE_THREADS, n - base), sum);
    __syncthreads();
  }
  if (t < 5) sums[t] = sum;
  __syncthreads();
}

// Axes, extremes and extents. `n_cells`, (clusters, 2): room for each profile, a column more than it can have.
extern "C" __global__ void measure_axes(const int* rows, const int* cols, const i64* offsets, int n_clusters, int size,
                                        int min_macropixels, int rows_first, int as_lapack, int theta_of_first,
                                        int pivot_in_macropixels, int whole, double* axes_of, i64* n_cells,
                                        double* values) {
  __shared__ u64 integer_sums[5];
  __shared__ int lowest[2], highest[2];
  __shared__ double sums[5];
  __shared__ MeasureAxes axes;
  const int c = blockIdx.x, t = threadIdx.x;
  const i64 first = offsets[c];
  const int n = (int)(offsets[c + 1] - first);
  if (n < min_macropixels) return;
  const int *xs = rows_first ? rows : cols, *ys = rows_first ? cols : rows;

  if (t < 5) integer_sums[t] = 0;
  if (t < 2) lowest[t] = 0x7fffffff, highest[t] = -0x7fffffff;
  __syncthreads();
  i64 part[5] = {0, 0, 0, 0, 0};
  int low_x = 0x7fffffff, low_y = low_x, high_x = -low_x, high_y = -low_x;
  for (int i = t; i < n; i += MEASURE_THREADS) {
    const i64 x = xs[first + i], y = ys[first + i];
    part[0] += x, part[1] += y, part[2] += x * x, part[3] += x * y, part[4] += y * y;
    low_x = min(low_x, (int)x), high_x = max(high_x, (int)x);
    low_y = min(low_y, (int)y), high_y = max(high_y, (int)y);
  }
  for (int k = 0; k < 5; ++k) atomicAdd(&integer_sums[k], (u64)part[k]);
  atomicMin(&lowest[0], low_x), atomicMax(&highest[0], high_x);
  atomicMin(&lowest[1], low_y), atomicMax(&highest[1], high_y);
  __syncthreads();

  const i64 sum_x = (i64)integer_sums[0], sum_y = (i64)integer_sums[1];
  const double mean_x = (double)sum_x / n, mean_y = (double)sum_y / n;
  if (as_lapack) {
    measure_rounded_moments(xs, ys, first, n, mean_x, mean_y, sums);
  } else if (t == 0) {  // from the integer part of the mean: integers, exact in any order
    const i64 x0 = (i64)floor(mean_x), y0 = (i64)floor(mean_y);
    sums[0] = (double)(sum_x - n * x0);
    sums[1] = (double)(sum_y - n * y0);
    sums[2] = (double)((i64)integer_sums[2] - 2 * x0 * sum_x + n * x0 * x0);
    sums[3] = (double)((i64)integer_sums[3] - x0 * sum_y - y0 * sum_x + n * x0 * y0);
    sums[4] = (double)((i64)integer_sums[4] - 2 * y0 * sum_y + n * y0 * y0);
  }
  if (t == 0) {
    const double norm = 1.0 / (n - 1);
    double major, minor, cosine, sine;
    measure_eigenvectors((sums[2] - sums[0] * sums[0] / n) * norm, (sums[3] - sums[0] * sums[1] / n) * norm,
                         (sums[4] - sums[1] * sums[1] / n) * norm, major, minor, cosine, sine);
    axes.cosine = major >= minor ? cosine : -sine;
    axes.sine = major >= minor ? sine : cosine;
    if (!as_lapack && (axes.cosine < 0.0 || (axes.cosine == 0.0 && axes.sine < 0.0))) {
      axes.cosine = -axes.cosine;
      axes.sine = -axes.sine;
    }
    const double angle = theta_of_first ? atan2(sine, cosine) : atan2(axes.sine, axes.cosine);
    values[sc_theta * (i64)n_clusters + c] = angle * (180.0 / 3.141592653589793);
    axes.mean_x = mean_x, axes.mean_y = mean_y;
    axes.pivot_x = pivot_in_macropixels ? mean_x : (double)measure_floor_divide(sum_x * size, n);
    axes.pivot_y = pivot_in_macropixels ? mean_y : (double)measure_floor_divide(sum_y * size, n);
    // Whole profiles begin at their first pixel whatever the origin; at 0 their last digits do not depend on the place.
    axes.origin_along = whole ? 0.0 : axes.pivot_x;
    axes.origin_across = whole ? 0.0 : axes.pivot_y;
  }
  __syncthreads();

  // Rounding keeps the order, so the extremes of a macro-pixel are at its corners.
  double ends[4] = {-1e300, -1e300, -1e300, -1e300};  // of -along, along, -across, across
  for (int i = t; i < 4 * n; i += MEASURE_THREADS) {
    const int x = xs[first + i / 4] * size + (i & 1 ? size - 1 : 0);
    const int y = ys[first + i / 4] * size + (i & 2 ? size - 1 : 0);
    double along, across;
    measure_turn(axes, x, y, along, across);
    ends[0] = max(ends[0], -along), ends[1] = max(ends[1], along);
    ends[2] = max(ends[2], -across), ends[3] = max(ends[3], across);
  }
  for (int k = 0; k < 4; ++k) ends[k] = measure_block_max(ends[k]);
  if (t) return;
  axes.first_along = -ends[0], axes.last_along = ends[1];
  axes.first_across = -ends[2], axes.last_across = ends[3];
  ((MeasureAxes*)axes_of)[c] = axes;
  for (int k = 0; k < 2; ++k) n_cells[2 * c + k] = measure_span(axes, k, whole).inside + 1;
  double* row = values + c;
  const i64 next = n_clusters;
  row[sc_length * next] = axes.last_along - axes.first_along;
  row[sc_width * next] = axes.last_across - axes.first_across;
  row[sc_xmin * next] = (double)lowest[0] * size;
  row[sc_xmax * next] = (double)highest[0] * size + size - 1;
  row[sc_ymin * next] = (double)lowest[1] * size;
  row[sc_ymax * next] = (double)highest[1] * size + size - 1;
}

// The bins of the map that have been written, as a hash table: bin + 1 in the upper half of an entry, the last pixel in
// the lower. Twice as large as there are pixels, so that it never fills up.
struct MeasureMap {
  u64* entries;
  u32 capacity;
};

__device__ __forceinline__ u32 measure_slot(const MeasureMap& map, u32 key) {
  return (u32)((u64)(key * 2654435761u) * map.capacity >> 32);
}

__device__ void measure_write(const MeasureMap& map, u32 key, u32 pixel) {
  const u64 entry = (u64)key << 32 | pixel;
  for (u32 slot = measure_slot(map, key);; slot = slot + 1 < map.capacity ? slot + 1 : 0) {
    const u64 found = atomicCAS(&map.entries[slot], (u64)0, entry);
    if (found == 0) return;
    if (found >> 32 == key) {
      atomicMax(&map.entries[slot], entry);
      return;
    }
  }
}

__device__ u32 measure_writer(const MeasureMap& map, u32 key) {
  u32 slot = measure_slot(map, key);
  while (map.entries[slot] >> 32 != key) slot = slot + 1 < map.capacity ? slot + 1 : 0;
  return (u32)map.entries[slot];
}

// Mean and RMS from sums of w, w x and w x**2; 0 where they are undefined.
__device__ void measure_moments(const double* sums, double& mean, double& rms) {
  mean = rms = 0.0;
  if (sums[0] == 0.0) return;
  mean = sums[1] / sums[0];
  rms = sqrt(max(sums[2] / sums[0] - mean * mean, 0.0));
}

// Light, barycentre, and moments of the map and of both profiles. `moments`, (clusters, 2, 2): mean and RMS of the
// profiles. `entries`: room for the map of every cluster, zeros, where its pixels overwrite each other.
extern "C" __global__ void measure_sums(const int* rows, const int* cols, const i64* offsets, const double* z,
                                        const unsigned char* above, const unsigned char* saturated, int n_clusters,
                                        int size, int min_macropixels, int rows_first, int whole, int overwrite,
                                        double faint, double quadratic, double slope, double constant,
                                        const double* axes_of, u64* entries, double* moments, double* values) {
  __shared__ MeasureTerms terms;
  __shared__ MeasureAxes axes;
  __shared__ double sums[MEASURE_SUMS];
  __shared__ int n_above, n_saturated;
  const int c = blockIdx.x, t = threadIdx.x;
  const i64 first = offsets[c], first_pixel = first * size * size;
  const int n = (int)(offsets[c + 1] - first), n_pixels = n * size * size;
  if (n < min_macropixels) return;
  if (t == 0) axes = ((const MeasureAxes*)axes_of)[c], n_above = n_saturated = 0;
  __syncthreads();
  const MeasureSpan along_span = measure_span(axes, 0, whole), across_span = measure_span(axes, 1, whole);
  const u32 stride = (u32)(axes.last_across - axes.first_across) + 2;
  const MeasureMap map = {entries + 2 * first_pixel, 2u * n_pixels};

  if (overwrite) {
    for (int i = t; i < n_pixels; i += MEASURE_THREADS) {
      int x, y;
      double along, across;
      measure_position(rows, cols, first, i, size, rows_first, x, y);
      measure_turn(axes, x, y, along, across);
      const u32 bin = (u32)rint(along - axes.first_along) * stride + (u32)rint(across - axes.first_across);
      measure_write(map, bin + 1, i);
    }
    __syncthreads();
  }

  double sum = 0.0;
  int hits = 0, full = 0;
  for (int base = 0; base < n_pixels; base += MEASURE_THREADS) {
    const int i = base + t;
    if (i < n_pixels) {
      const double count = z[first_pixel + i];
      hits += above[first_pixel + i] != 0;
      full += saturated[first_pixel + i] != 0;
      int x, y;
      double along, across;
      measure_position(rows, cols, first, i, size, rows_first, x, y);
      measure_turn(axes, x, y, along, across);
      const double weight = max(count, 0.0);
      terms[0][t] = count, terms[1][t] = count * count;
      terms[2][t] = weight, terms[3][t] = weight * x, terms[4][t] = weight * y;
      // A term of 0 stands for a pixel that does not count: it changes no bit of a sum that began with 0.
      const double bin_along = rint(along - axes.first_along), bin_across = rint(across - axes.first_across);
      const bool last = !overwrite || measure_writer(map, (u32)bin_along * stride + (u32)bin_across + 1) == (u32)i;
      const double a = bin_along + 0.5, b = bin_across + 0.5, on_map = last ? count : 0.0;
      terms[5][t] = on_map, terms[6][t] = on_map * a, terms[7][t] = on_map * a * a;
      terms[8][t] = on_map * b, terms[9][t] = on_map * b * b;
      along -= along_span.first, across -= across_span.first;
      const double in_along = along < along_span.inside ? count : 0.0;
      terms[10][t] = in_along, terms[11][t] = in_along * along, terms[12][t] = in_along * along * along;
      const double in_across = across < across_span.inside ? count : 0.0;
      terms[13][t] = in_across, terms[14][t] = in_across * across, terms[15][t] = in_across * across * across;
    }
    __syncthreads();
    measure_add_rows(terms, MEASURE_SUMS, min(MEASURE_THREADS, n_pixels - base), sum);
    __syncthreads();
  }
  if (t < MEASURE_SUMS) sums[t] = sum;
  atomicAdd(&n_above, hits);
  atomicAdd(&n_saturated, full);
  __syncthreads();

  const double mean = sums[0] / n_pixels;
  double deviations = 0.0;
  for (int base = 0; base < n_pixels; base += MEASURE_THREADS) {
    if (base + t < n_pixels) {
      const double deviation = z[first_pixel + base + t] - mean;
      terms[0][t] = deviation * deviation;
    }
    __syncthreads();
    measure_add_rows(terms, 1, min(MEASURE_THREADS, n_pixels - base), deviations);
    __syncthreads();
  }
  if (t) return;

  double* row = values + c;
  const i64 next = n_clusters;
  row[sc_size * next] = n_pixels;
  row[sc_nhits * next] = n_above;
  row[sc_nsat * next] = n_saturated;
  row[sc_integral * next] = sums[0];
  row[sc_corrintegral * next] = quadratic * sums[1] + slope * sums[0] + constant * n_pixels;
  row[sc_rms * next] = sqrt(deviations / n_pixels);
  row[sc_xmean * next] = sums[2] > 0.0 ? sums[3] / sums[2] : (axes.mean_x + 0.5) * size - 0.5;
  row[sc_ymean * next] = sums[2] > 0.0 ? sums[4] / sums[2] : (axes.mean_y + 0.5) * size - 0.5;
  if (sums[0] < faint)
    row[sc_xmean * next] = row[sc_ymean * next] = row[sc_xmin * next] = row[sc_xmax * next] = row[sc_ymin * next] =
        row[sc_ymax * next] = 0.0;
  double ignored;
  const double across_map[3] = {sums[5], sums[8], sums[9]};
  measure_moments(sums + 5, ignored, row[sc_longrms * next]);
  measure_moments(across_map, ignored, row[sc_latrms * next]);
  measure_moments(sums + 10, moments[4 * c], moments[4 * c + 1]);
  measure_moments(sums + 13, moments[4 * c + 2], moments[4 * c + 3]);
  row[sc_lfullrms * next] = moments[4 * c + 1];
  row[sc_tfullrms * next] = moments[4 * c + 3];
}
