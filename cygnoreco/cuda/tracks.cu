// The directional search: one block of threads tests a seed for straightness, or follows all tracks of a frame.
//
// All threads of a block take the same way. What decides it is the same for all: sums of whole numbers, exact in any
// order, and sums of fractions that single threads add in the order of the points, so that fits have the CPU's bits.

#define TRACK_THREADS 256

// Some points of a frame in raster order, as coordinates x along and y across.
struct track_Piece {
  const int* row;
  const int* column;
  const int* members;
  int size;
  int axes;  // x, y are 0: row, column; 1: column, row; 2: row - column, row + column
};

// y = constant + (slope + curvature * u) * u, u = x - origin.
struct track_Curve {
  double origin, constant, slope, curvature;
};

struct track_Totals {
  i64 of[4];
};

__device__ void track_point(const track_Piece piece, int k, int* x, int* y) {
  int i = piece.members[k], row = piece.row[i], column = piece.column[i];
  *x = piece.axes == 0 ? row : piece.axes == 1 ? column : row - column;
  *y = piece.axes == 0 ? column : piece.axes == 1 ? row : row + column;
}

// Four sums over the threads of the block.
__device__ track_Totals track_add(i64 a, i64 b, i64 c, i64 d) {
  __shared__ i64 terms[4][TRACK_THREADS + 1], sums[4];  // the odd length keeps the adders off each other's banks
  terms[0][threadIdx.x] = a;
  terms[1][threadIdx.x] = b;
  terms[2][threadIdx.x] = c;
  terms[3][threadIdx.x] = d;
  __syncthreads();
  if (threadIdx.x < 4) {
    i64 sum = 0;
    for (int t = 0; t < TRACK_THREADS; ++t) sum += terms[threadIdx.x][t];
    sums[threadIdx.x] = sum;
  }
  __syncthreads();
  track_Totals totals = {{sums[0], sums[1], sums[2], sums[3]}};
  return totals;
}

// List the points begin .. end - 1 that are picked; rank[i], also that of `end`, becomes the number of those before i.
__device__ int track_list(const bool* picked, int begin, int end, int* rank, int* list) {
  __shared__ int counts[2][TRACK_THREADS];
  int share = (end - begin + TRACK_THREADS - 1) / TRACK_THREADS;
  int from = min(end, begin + (int)threadIdx.x * share), to = min(end, from + share), count = 0;
  for (int i = from; i < to; ++i) count += picked[i];
  int now = 0;
  counts[now][threadIdx.x] = count;
  __syncthreads();
  for (int step = 1; step < TRACK_THREADS; step *= 2, now = 1 - now) {
    int before = (int)threadIdx.x >= step ? counts[now][threadIdx.x - step] : 0;
    counts[1 - now][threadIdx.x] = counts[now][threadIdx.x] + before;
    __syncthreads();
  }
  int total = counts[now][TRACK_THREADS - 1], place = counts[now][threadIdx.x] - count;
  for (int i = from; i < to; ++i) {
    rank[i] = place;
    if (picked[i]) list[place++] = i;
  }
  if (threadIdx.x == 0) rank[end] = total;
  __syncthreads();
  return total;
}

__device__ double track_across(const track_Curve curve, double x) {
  double u = x - curve.origin;
  return curve.constant + (curve.slope + curve.curvature * u) * u;
}

__device__ bool track_in_band(const track_Curve curve, double x, double y, double thickness) {
  double slope = curve.slope + 2 * curve.curvature * (x - curve.origin), off = track_across(curve, x) - y;
  return off * off < thickness * thickness * (1 + slope * slope);
}

// Polynomial of degree 1 or 2 through the chosen points, or all without a choice; false if they do not determine it.
__device__ bool track_least_squares(const track_Piece piece, const bool* chosen, int degree, track_Curve* curve) {
  __shared__ double terms[5][TRACK_THREADS + 1], sums[5];
  i64 n = 0, x_sum = 0, y_sum = 0;
  for (int k = threadIdx.x; k < piece.size; k += TRACK_THREADS) {
    if (chosen && !chosen[k]) continue;
    int x, y;
    track_point(piece, k, &x, &y);
    n += 1;
    x_sum += x;
    y_sum += y;
  }
  track_Totals whole = track_add(n, x_sum, y_sum, 0);
  n = whole.of[0];
  if (n <= degree) return false;
  double x0 = (double)whole.of[1] / (double)n, y0 = (double)whole.of[2] / (double)n, sum = 0;
  // The terms are made by all threads, and each of the five sums by one: in the order of the points. A point that is
  // not chosen adds 0, which changes no bit.
  for (int start = 0; start < piece.size; start += TRACK_THREADS) {
    int k = start + threadIdx.x;
    double u = 0, v = 0;
    if (k < piece.size && (!chosen || chosen[k])) {
      int x, y;
      track_point(piece, k, &x, &y);
      u = x - x0;
      v = y - y0;
    }
    terms[0][threadIdx.x] = u * u;
    terms[1][threadIdx.x] = u * u * u;
    terms[2][threadIdx.x] = u * u * u * u;
    terms[3][threadIdx.x] = u * v;
    terms[4][threadIdx.x] = u * u * v;
    __syncthreads();
    if (threadIdx.x < 5) {
      int here = min(TRACK_THREADS, piece.size - start);
      for (int t = 0; t < here; ++t) sum += terms[threadIdx.x][t];
    }
    __syncthreads();
  }
  if (threadIdx.x < 5) sums[threadIdx.x] = sum;
  __syncthreads();
  double u2 = sums[0], u3 = sums[1], u4 = sums[2], uy = sums[3], u2y = sums[4];
  if (u2 <= 0) return false;
  curve->origin = x0;
  curve->constant = y0;
  curve->slope = uy / u2;
  curve->curvature = 0;
  if (degree == 2) {
    double skew = u3 / u2, mean = u2 / (double)n, norm = u4 - skew * u3 - mean * u2;
    if (norm <= 1e-9 * u4) return false;
    curve->curvature = (u2y - skew * uy) / norm;
    curve->slope -= skew * curve->curvature;
    curve->constant -= mean * curve->curvature;
  }
  return true;
}

// ---- straightness

__device__ int track_magnitude(const track_Piece piece, int k, int scale, int shift) {
  int x, y;
  track_point(piece, k, &x, &y);
  return abs(scale * y - shift);
}

// Sum of the two middle values of |scale * y - shift|, the lower of which is found by halving the range of values.
__device__ int track_twice_median(const track_Piece piece, int scale, int shift) {
  __shared__ int lowest, highest, above;
  __syncthreads();  // the last call may still be reading
  if (threadIdx.x == 0) lowest = above = 0x7fffffff, highest = 0;
  int least = 0x7fffffff, most = 0;
  for (int k = threadIdx.x; k < piece.size; k += TRACK_THREADS) {
    int value = track_magnitude(piece, k, scale, shift);
    least = min(least, value);
    most = max(most, value);
  }
  __syncthreads();
  atomicMin(&lowest, least);
  atomicMax(&highest, most);
  __syncthreads();
  int low = lowest, high = highest, wanted = (piece.size + 1) / 2;  // so many values are at most the lower middle one
  i64 up_to = piece.size;
  while (low < high) {
    int middle = low + (high - low) / 2;
    i64 count = 0;
    for (int k = threadIdx.x; k < piece.size; k += TRACK_THREADS)
      count += track_magnitude(piece, k, scale, shift) <= middle;
    count = track_add(count, 0, 0, 0).of[0];
    if (count >= wanted) high = middle, up_to = count;
    else low = middle + 1;
  }
  if (piece.size % 2 == 1 || up_to > wanted) return 2 * low;
  for (int k = threadIdx.x; k < piece.size; k += TRACK_THREADS) {
    int value = track_magnitude(piece, k, scale, shift);
    if (value > low) atomicMin(&above, value);
  }
  __syncthreads();
  return low + above;
}

// Largest fraction of a piece on one line: the fit is repeated with the points on the line before it.
__device__ double track_fraction_on_line(const track_Piece piece, double flat_tolerance, int n_steps, bool* on_line) {
  int median = track_twice_median(piece, 1, 0);
  double tolerance = track_twice_median(piece, 2, median) / 4.0;  // twice the median of twice the deviations
  if (tolerance == 0) tolerance = flat_tolerance;
  for (int k = threadIdx.x; k < piece.size; k += TRACK_THREADS) on_line[k] = true;
  i64 most = 0;
  for (int step = 0; step <= n_steps; ++step) {
    track_Curve line;
    if (!track_least_squares(piece, on_line, 1, &line)) break;
    i64 changed = 0, count = 0;
    for (int k = threadIdx.x; k < piece.size; k += TRACK_THREADS) {
      int x, y;
      track_point(piece, k, &x, &y);
      bool near = fabs(track_across(line, x) - y) <= tolerance;
      changed += near != on_line[k];
      count += near;
      on_line[k] = near;
    }
    track_Totals totals = track_add(changed, count, 0, 0);
    most = max(most, totals.of[1]);
    if (totals.of[0] == 0) break;
  }
  return (double)most / (double)piece.size;
}

// One block a seed: fraction of its points on a straight line; if it is not enough, that of the seed turned by 45
// degrees. The points of cluster c are order[begin[c]] .. order[begin[c + 1] - 1].
extern "C" __global__ void track_straightness(
    const int* row, const int* column, const int* order, const int* begin, const int* seeds, double enough,
    double flat_tolerance, double flat_tolerance_turned, int n_steps, bool* on_line, double* straight) {
  int seed = seeds[blockIdx.x], first = begin[seed];
  track_Piece piece = {row, column, order + first, begin[seed + 1] - first, 0};
  double fraction = track_fraction_on_line(piece, flat_tolerance, n_steps, on_line + first);
  if (fraction < enough) {
    piece.axes = 2;
    fraction = track_fraction_on_line(piece, flat_tolerance_turned, n_steps, on_line + first);
  }
  if (threadIdx.x == 0) straight[blockIdx.x] = fraction;
}

// ---- following

#define TRACK_FREE -1

// A frame, the parameters of the search, and scratch memory; points are indexed as in the whole block of frames.
struct track_Frame {
  const int* row;
  const int* column;
  const int* starts;
  const bool* spreads;
  int line, n_rows;  // first line, occupied rows
  lattice_Ball near, far;
  int min_points, max_attempts, steal;
  double thickness, min_inside;
  int* labels;
  // Scratch. By point: number of cores before it, root of its part. By core: its index, column, parent, whether its
  // part was reached. The track's points, of which `chosen` are in the band.
  int *rank, *part, *cores, *columns, *parent, *members;
  bool *wanted, *picked, *reached, *chosen;
};

// Connect the wanted points of the rows top .. bottom: part[i] becomes the first core of the part of wanted point i.
// Returns the number of cores.
__device__ int track_connect(const track_Frame f, int top, int bottom, const lattice_Ball ball) {
  top += f.line;
  bottom += f.line;
  int begin = f.starts[top], end = f.starts[bottom + 1];
  for (int i = begin + threadIdx.x; i < end; i += TRACK_THREADS) f.picked[i] = f.wanted[i] && f.spreads[i];
  __syncthreads();
  int n_cores = track_list(f.picked, begin, end, f.rank, f.cores);
  for (int core = threadIdx.x; core < n_cores; core += TRACK_THREADS) {
    f.columns[core] = f.column[f.cores[core]];
    f.parent[core] = core;
  }
  __syncthreads();
  lattice_Cores cores = {f.starts, f.rank, f.columns, f.parent};
  for (int core = threadIdx.x; core < n_cores; core += TRACK_THREADS)
    lattice_join_ball(cores, ball, core, f.line + f.row[f.cores[core]], bottom);
  __syncthreads();
  for (int i = begin + threadIdx.x; i < end; i += TRACK_THREADS) {
    if (f.picked[i]) f.part[i] = lattice_root(f.parent, f.rank[i]);
    else if (f.wanted[i]) f.part[i] = lattice_lowest(cores, ball, f.line + f.row[i], f.column[i], top, bottom);
  }
  __syncthreads();
  return n_cores;
}

// Points of a piece that are free and still connected to the seed become the members; returns their number.
__device__ int track_still_free(const track_Frame f, const int* piece, int size, int seed) {
  i64 free = 0;
  for (int k = threadIdx.x; k < size; k += TRACK_THREADS) {
    f.members[k] = piece[k];
    free += f.labels[piece[k]] == TRACK_FREE;
  }
  if (track_add(free, 0, 0, 0).of[0] == size) return size;
  int top = f.row[piece[0]], bottom = f.row[piece[size - 1]];
  int begin = f.starts[f.line + top], end = f.starts[f.line + bottom + 1];
  for (int i = begin + threadIdx.x; i < end; i += TRACK_THREADS) f.wanted[i] = false;
  __syncthreads();
  for (int k = threadIdx.x; k < size; k += TRACK_THREADS)
    if (f.labels[piece[k]] == TRACK_FREE) f.wanted[piece[k]] = true;
  __syncthreads();
  track_connect(f, top, bottom, f.near);
  for (int i = begin + threadIdx.x; i < end; i += TRACK_THREADS)
    f.picked[i] = f.wanted[i] && f.part[i] == f.part[seed];
  __syncthreads();
  return track_list(f.picked, begin, end, f.rank, f.members);
}

// The members with the axis of larger spread along the track. Compared are whole numbers, n^2 times the variances.
__device__ track_Piece track_piece(const track_Frame f, int size) {
  i64 rows = 0, row_squares = 0, columns = 0, column_squares = 0, n = size;
  for (int k = threadIdx.x; k < size; k += TRACK_THREADS) {
    i64 row = f.row[f.members[k]], column = f.column[f.members[k]];
    rows += row;
    row_squares += row * row;
    columns += column;
    column_squares += column * column;
  }
  track_Totals sums = track_add(rows, row_squares, columns, column_squares);
  bool turned = n * sums.of[3] - sums.of[2] * sums.of[2] > n * sums.of[1] - sums.of[0] * sums.of[0];
  track_Piece piece = {f.row, f.column, f.members, size, turned ? 1 : 0};
  return piece;
}

// Least squares of all points, then of those in its band, which more than min_inside of them have to be.
__device__ bool track_fit(const track_Frame f, const track_Piece piece, int degree, track_Curve* curve) {
  if (!track_least_squares(piece, nullptr, degree, curve)) return false;
  i64 inside = 0;
  for (int k = threadIdx.x; k < piece.size; k += TRACK_THREADS) {
    int x, y;
    track_point(piece, k, &x, &y);
    f.chosen[k] = track_in_band(*curve, x, y, f.thickness);
    inside += f.chosen[k];
  }
  inside = track_add(inside, 0, 0, 0).of[0];
  return inside > f.min_inside * piece.size && track_least_squares(piece, f.chosen, degree, curve);
}

// Label all points of the band that are connected to the track; the track's points become the members. Only the rows
// around the track are searched; the window is widened until what was found leaves a margin.
__device__ int track_absorb(const track_Frame f, int track, int size, const track_Curve curve, bool turned) {
  int reach = f.far.reach, margin = reach, top = f.row[f.members[0]], bottom = f.row[f.members[size - 1]];
  for (;; margin *= 2) {
    int window_top = max(0, top - margin), window_bottom = min(f.n_rows - 1, bottom + margin);
    int begin = f.starts[f.line + window_top], end = f.starts[f.line + window_bottom + 1];
    for (int i = begin + threadIdx.x; i < end; i += TRACK_THREADS) {
      bool wanted = f.labels[i] == track;
      if (!wanted && (f.steal || f.labels[i] == TRACK_FREE)) {
        int x = turned ? f.column[i] : f.row[i], y = turned ? f.row[i] : f.column[i];
        wanted = track_in_band(curve, x, y, f.thickness);
      }
      f.wanted[i] = wanted;
    }
    __syncthreads();
    int n_cores = track_connect(f, window_top, window_bottom, f.far);
    for (int core = threadIdx.x; core < n_cores; core += TRACK_THREADS) f.reached[core] = false;
    __syncthreads();
    for (int i = begin + threadIdx.x; i < end; i += TRACK_THREADS)
      if (f.picked[i] && f.labels[i] == track) f.reached[f.part[i]] = true;
    __syncthreads();
    for (int i = begin + threadIdx.x; i < end; i += TRACK_THREADS) {
      if (f.wanted[i] && f.part[i] >= 0 && f.reached[f.part[i]]) f.labels[i] = track;
      f.picked[i] = f.labels[i] == track;
    }
    __syncthreads();
    size = track_list(f.picked, begin, end, f.rank, f.members);
    top = f.row[f.members[0]];
    bottom = f.row[f.members[size - 1]];
    if ((window_top == 0 || top - reach >= window_top) &&
        (window_bottom == f.n_rows - 1 || bottom + reach <= window_bottom))
      return size;
  }
}

// Absorb points and fit again, in turn; true if the attempts ended it. When a line gains nothing more, or no longer
// fits, a parabola takes over.
__device__ bool track_grow(const track_Frame f, int track, track_Piece piece, track_Curve curve, int degree) {
  int size = 0;
  for (int attempt = 0; attempt <= f.max_attempts; ++attempt) {
    int last_size = size, size_before = piece.size;
    size = track_absorb(f, track, piece.size, curve, piece.axes == 1);
    piece = track_piece(f, size);
    bool fitted = track_fit(f, piece, degree, &curve);
    if (attempt == f.max_attempts) return size > size_before;
    if (size == last_size || !fitted) {
      if (degree == 2) return false;
      degree = 2;
      if (!track_fit(f, piece, degree, &curve)) return false;
    }
  }
  return false;
}

// One block a frame: a track from every seed in turn. Seeds of frame j are seed_offsets[j] .. seed_offsets[j + 1] - 1.
// The points of piece p are order[begin[p]] .. order[begin[p + 1] - 1], neighbourhood is the piece of every point.
// labels: track of every point, counted in its frame. Scratch: numbers, 7 times `stride` (at least points and frames),
// and flags, 4 times.
extern "C" __global__ void track_follow(
    const int* row, const int* column, const int* starts, const i64* frame_offsets, int height, const bool* spreads,
    const int* seeds, const i64* seed_offsets, const int* neighbourhood, const int* order, const int* begin,
    const int* near, int near_reach, const int* far, int far_reach, int min_points, double thickness,
    double min_inside, int max_attempts, int steal, i64 stride, int* numbers, bool* flags, int* labels,
    bool* cut_short) {
  int frame = blockIdx.x, first = (int)frame_offsets[frame], end = (int)frame_offsets[frame + 1], n_tracks = 0;
  bool cut = false;
  for (int i = first + threadIdx.x; i < end; i += TRACK_THREADS) labels[i] = TRACK_FREE;
  // The last scratch column holds, by point, the number of tracks at the time when a fit of its piece failed.
  int* failed_at = numbers + 6 * stride;
  for (int i = first + threadIdx.x; i < end; i += TRACK_THREADS) failed_at[i] = -1;
  __syncthreads();
  track_Frame f = {
      row, column, starts, spreads, frame * height, first < end ? row[end - 1] + 1 : 0,
      {near, near_reach}, {far, far_reach}, min_points, max_attempts, steal, thickness, min_inside, labels,
      numbers + frame,  // ranks: one more than points in each frame, hence the shift
      numbers + stride, numbers + 2 * stride + first, numbers + 3 * stride + first, numbers + 4 * stride + first,
      numbers + 5 * stride + first, flags, flags + stride, flags + 2 * stride + first, flags + 3 * stride + first};
  for (i64 s = seed_offsets[frame]; s < seed_offsets[frame + 1]; ++s) {
    int seed = seeds[s];
    // A piece that no curve fits will fail again for another of its seeds, unless a track has been found since.
    if (labels[seed] != TRACK_FREE || failed_at[seed] == n_tracks) continue;
    int start = begin[neighbourhood[seed]], size = begin[neighbourhood[seed] + 1] - start;
    size = track_still_free(f, order + start, size, seed);
    bool long_enough = size > min_points, fitted = false;
    int degree = 0;
    track_Curve curve;
    track_Piece piece;
    if (long_enough) {
      piece = track_piece(f, size);
      while (!fitted && degree < 2) fitted = track_fit(f, piece, ++degree, &curve);
    }
    for (int k = threadIdx.x; k < size; k += TRACK_THREADS) {
      if (long_enough && !fitted) failed_at[f.members[k]] = n_tracks;
      else labels[f.members[k]] = n_tracks;
    }
    __syncthreads();
    if (fitted) cut |= track_grow(f, n_tracks, piece, curve, degree);
    if (fitted || !long_enough) ++n_tracks;
  }
  if (threadIdx.x == 0) cut_short[frame] = cut;
}
