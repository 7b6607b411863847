// Profiles of clusters and their peaks: a block of threads a profile (see variables.cu).

// Bin of a pixel in a profile, -1 outside.
__device__ __forceinline__ int measure_bin(const MeasureSpan& span, const int* bin_of, double position) {
  const double x = position - span.first;
  return x < span.inside ? bin_of[(int)x] : -1;
}

// Bins and contents of a profile, blockIdx.y 0 along, 1 across. Profile p has the cells cells[p] to cells[p + 1] of
// `columns` (zeros), `edges`, `ends` (zeros), `contents` and `squares`. `sorted`, (2, pixels): pixels by bin.
extern "C" __global__ void measure_profiles(const int* rows, const int* cols, const i64* offsets, const double* z,
                                            int n_clusters, int size, int min_macropixels, int rows_first, int whole,
                                            double min_pixels_long, double min_pixels_lat, const double* axes_of,
                                            const i64* cells, int* columns, int* edges, int* ends, int* sorted,
                                            int* n_bins_of, double* contents, double* squares) {
  __shared__ MeasureAxes axes;
  __shared__ int n_bins, bins[MEASURE_THREADS];
  const int c = blockIdx.x, which = blockIdx.y, t = threadIdx.x;
  const i64 first = offsets[c], first_pixel = first * size * size;
  const int n = (int)(offsets[c + 1] - first), n_pixels = n * size * size;
  if (n < min_macropixels) return;
  if (t == 0) axes = ((const MeasureAxes*)axes_of)[c];
  __syncthreads();
  const MeasureSpan span = measure_span(axes, which, whole);
  const i64 cell = cells[2 * c + which];
  columns += cell, edges += cell, ends += cell, contents += cell, squares += cell;
  sorted += which * offsets[n_clusters] * size * size + first_pixel;

  for (int i = t; i < n_pixels; i += MEASURE_THREADS) {
    const double position = measure_coordinate(axes, rows, cols, first, i, size, rows_first, which);
    const int column = whole ? (int)(position - span.start) : (int)position - (int)span.start;
    if (column < span.inside) atomicAdd(&columns[column], 1);
  }
  __syncthreads();
  if (t == 0) {
    const double wanted = which ? min_pixels_lat : min_pixels_long;
    int n_edges = 1;
    i64 count = 0;
    edges[0] = 0;
    for (int column = 0; column < span.inside; ++column) {
      if (count < wanted) {
        count += columns[column];
        continue;
      }
      edges[n_edges++] = column;
      count = whole ? columns[column] : 0;
    }
    if (whole && count < wanted && n_edges > 1) --n_edges;
    edges[n_edges] = span.inside;
    n_bins = n_bins_of[2 * c + which] = span.inside ? n_edges : 0;
  }
  __syncthreads();
  if (n_bins == 0) return;
  int* bin_of = columns;
  for (int k = t; k < n_bins; k += MEASURE_THREADS)
    for (int column = edges[k]; column < edges[k + 1]; ++column) bin_of[column] = k;
  __syncthreads();

  // Sort the pixels by bin, those of a bin in their order: where each bin begins, then tile after tile.
  for (int i = t; i < n_pixels; i += MEASURE_THREADS) {
    const double position = measure_coordinate(axes, rows, cols, first, i, size, rows_first, which);
    const int bin = measure_bin(span, bin_of, position);
    if (bin >= 0) atomicAdd(&ends[bin], 1);
  }
  __syncthreads();
  if (t == 0)
    for (int k = 0, begin = 0; k < n_bins; ++k) {
      const int count = ends[k];
      ends[k] = begin;
      begin += count;
    }
  for (int base = 0; base < n_pixels; base += MEASURE_THREADS) {
    int bin = -1;
    if (base + t < n_pixels)
      bin = measure_bin(span, bin_of,
                        measure_coordinate(axes, rows, cols, first, base + t, size, rows_first, which));
    bins[t] = bin;
    __syncthreads();
    int before = 0, after = 0;
    for (int j = 0; j < MEASURE_THREADS; ++j) {
      const int same = bins[j] == bin;
      before += same & (j < t);
      after += same & (j > t);
    }
    if (bin >= 0) sorted[ends[bin] + before] = base + t;
    __syncthreads();
    if (bin >= 0 && after == 0) ends[bin] += before + 1;  // the last pixel of the bin in this tile moves its end
  }
  __syncthreads();
  for (int k = t; k < n_bins; k += MEASURE_THREADS) {
    float content = 0.0f;  // rounded at every step, as a ROOT TH1F is
    double square = 0.0;
    for (int i = k ? ends[k - 1] : 0; i < ends[k]; ++i) {
      const double count = z[first_pixel + sorted[i]];
      content += (float)count;
      square += count * count;
    }
    contents[k] = content;
    squares[k] = square;
  }
}

// A peak of a profile; sample -1 for none.
struct MeasurePeak {
  int sample;
  double prominence, left, right;
};

// Prominence of a peak, and where the curve crosses half of it.
__device__ MeasurePeak measure_prominence(const double* y, int n, int peak) {
  int first = peak, last = peak;  // lowest samples before higher ground on either side, the nearest of equals
  for (int i = peak; i >= 0 && y[i] <= y[peak]; --i)
    if (y[i] < y[first]) first = i;
  for (int i = peak; i < n && y[i] <= y[peak]; ++i)
    if (y[i] < y[last]) last = i;
  const double prominence = y[peak] - max(y[first], y[last]), level = y[peak] - 0.5 * prominence;
  int i = peak, j = peak;
  while (i > first && y[i] > level) --i;
  while (j < last && y[j] > level) ++j;
  return {peak, prominence, y[i] < level ? i + (level - y[i]) / (y[i + 1] - y[i]) : i,
          y[j] < level ? j - (level - y[j]) / (y[j - 1] - y[j]) : j};
}

// The peak that stands for a profile: `marks` is memory for its bins. The result is the first thread's.
//
// Of two near peaks the lower goes, judged from the highest down. Here every peak waits until all higher ones near it
// are decided: the same choice, and a decision seen early or late changes nothing but the number of rounds.
__device__ MeasurePeak measure_main_peak(const double* y, int n, double height, double prominence, double width,
                                         double distance, int highest, int* marks) {
  enum { NONE, OPEN, KEPT, GONE };
  __shared__ MeasurePeak found[MEASURE_THREADS];
  const int t = threadIdx.x;
  for (int k = t; k < n; k += MEASURE_THREADS) marks[k] = NONE;
  __syncthreads();
  for (int i = 1 + t; i < n; i += MEASURE_THREADS) {
    if (!(y[i] > y[i - 1])) continue;
    int last = i;
    while (last + 1 < n && y[last + 1] == y[i]) ++last;
    if (last + 1 < n && y[last + 1] < y[i] && y[i] >= height) marks[(i + last) / 2] = OPEN;
  }
  bool waiting;
  do {
    __syncthreads();
    waiting = false;
    for (int k = t; k < n; k += MEASURE_THREADS) {
      if (marks[k] != OPEN) continue;
      bool near_kept = false, near_open = false;
      for (int side = -1; side <= 1; side += 2)
        for (int j = k + side; j >= 0 && j < n && (j - k) * side < distance; j += side) {
          const bool higher = y[j] > y[k] || (y[j] == y[k] && j > k);
          near_kept |= marks[j] == KEPT;
          near_open |= marks[j] == OPEN && higher;
        }
      if (near_kept) marks[k] = GONE;
      else if (near_open) waiting = true;
      else marks[k] = KEPT;
    }
  } while (__syncthreads_or(waiting));

  MeasurePeak best = {-1, 0.0, 0.0, 0.0};
  for (int k = t; k < n; k += MEASURE_THREADS) {  // rising: of equals the first one stays
    if (marks[k] != KEPT) continue;
    const MeasurePeak peak = measure_prominence(y, n, k);
    if (!(peak.prominence >= prominence && peak.right - peak.left >= width)) continue;
    if (best.sample < 0 || !highest || y[k] > y[best.sample]) best = peak;
  }
  found[t] = best;
  __syncthreads();
  if (t == 0)
    for (int j = 1; j < MEASURE_THREADS; ++j) {
      const int k = found[j].sample, b = best.sample;
      if (k < 0) continue;
      if (b < 0 || (highest ? y[k] > y[b] || (y[k] == y[b] && k < b) : k > b)) best = found[j];
    }
  __syncthreads();
  return best;
}

// Position of a fractional sample: linear between the centres of the two bins around it.
__device__ double measure_between(const int* edges, int n, double sample) {
  const int k = min((int)sample, n - 2);
  const double centre = measure_centre(edges, k);
  return centre + (sample - k) * (measure_centre(edges, k + 1) - centre);
}

// Main peaks of the profiles, blockIdx.y 0 along, 1 across; for the names see measure_profiles.
extern "C" __global__ void measure_peaks(const i64* offsets, int n_clusters, int min_macropixels, double height,
                                         double prominence, double width, double distance, int highest, int in_pixels,
                                         const i64* cells, const int* n_bins_of, const int* edges,
                                         const double* contents, int* marks, double* values) {
  const int c = blockIdx.x, which = blockIdx.y;
  if (offsets[c + 1] - offsets[c] < min_macropixels) return;
  const i64 cell = cells[2 * c + which], next = n_clusters;
  const int n = n_bins_of[2 * c + which];
  edges += cell, contents += cell;
  const MeasurePeak peak = measure_main_peak(contents, n, height, prominence, width, distance, highest, marks + cell);
  if (threadIdx.x) return;
  double* row = values + c;
  double fwhm = -999.0;
  if (peak.sample >= 0)
    fwhm = in_pixels ? measure_between(edges, n, peak.right) - measure_between(edges, n, peak.left)
                     : peak.right - peak.left;
  row[(which ? sc_tp0fwhm : sc_lp0fwhm) * next] = fwhm;
  if (which) return;
  row[sc_lp0amplitude * next] = peak.sample >= 0 ? contents[peak.sample] : -999.0;
  row[sc_lp0prominence * next] = peak.sample >= 0 ? peak.prominence : -999.0;
  row[sc_lp0mean * next] = peak.sample >= 0 ? measure_centre(edges, peak.sample) : -999.0;
}
