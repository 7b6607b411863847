// Calibrated energy and length of clusters: measure/density.py and measure/skeleton.py, one thread block a cluster.
//
// A cluster is drawn into a tile of its own, its bounding box with a frame of background. One word of the tile holds
// the bits of a pixel and, above them, one more than the number of the pixel of the cluster that is drawn there (0:
// none). Pixel k = (member * r + i) * r + j is z[member, i, j], its members counted from the cluster's first.
//
// Thinning, pruning and the search for centres work on lists of addresses, so their cost is that of the pixels and not
// of the box. The order in a list is that in which threads arrive; no result depends on it, for a step judges all
// pixels before it changes any.

#define ENERGY_FOREGROUND 1u
#define ENERGY_PROTECTED 2u
#define ENERGY_QUEUED 4u  // waits for the first sub-iteration of the thinning; the second one's is the next bit
#define ENERGY_SHIFT 4    // of the number of the pixel
#define ENERGY_FRACTION 1099511627776.0  // 2**40, the unit of the fractions of counts in their sums

// Where a cluster's part of the common arrays begins, and the shape of its tile: the columns of `plan`.
struct EnergyPlan {
  i64 tile, pixel, cell, band;              // first word, pixel, cell and band
  i64 first_row, first_col, height, width;  // of the matrix on the sensor; of the tile, frame included
};

__device__ __forceinline__ EnergyPlan energy_plan(const i64* plans, i64 cluster) {
  return ((const EnergyPlan*)plans)[cluster];
}

// Lowest and highest row and column of the macro-pixels of every cluster: (K, 4).
extern "C" __global__ void energy_boxes(const int* rows, const int* cols, const i64* offsets, int* boxes) {
  __shared__ int box[4];
  const int cluster = blockIdx.x;
  const i64 start = offsets[cluster], stop = offsets[cluster + 1];
  if (threadIdx.x == 0) {
    box[0] = box[1] = rows[start];
    box[2] = box[3] = cols[start];
  }
  __syncthreads();
  int top = box[0], bottom = box[1], left = box[2], right = box[3];
  __syncthreads();
  for (i64 k = start + threadIdx.x; k < stop; k += blockDim.x) {
    top = min(top, rows[k]);
    bottom = max(bottom, rows[k]);
    left = min(left, cols[k]);
    right = max(right, cols[k]);
  }
  atomicMin(&box[0], top);
  atomicMax(&box[1], bottom);
  atomicMin(&box[2], left);
  atomicMax(&box[3], right);
  __syncthreads();
  if (threadIdx.x < 4) boxes[4 * (i64)cluster + threadIdx.x] = box[threadIdx.x];
}

// Verdict on a pixel with the neighbours x1...x8 as bits 0...7: bits 0 and 1, deletable in the first and in the second
// sub-iteration of the thinning; bit 2, end of a line.
__device__ int energy_verdict(int neighbours) {
  int x[10];  // x[k] of the literature; x9 is x1 again
  for (int k = 1; k <= 8; ++k) x[k] = neighbours >> (k - 1) & 1;
  x[9] = x[1];
  int branches = 0, before = 0, after = 0, end = 0;
  for (int side = 1; side <= 7; side += 2) {
    branches += !x[side] && (x[side + 1] || x[side + 2]);
    before += x[side] || x[side + 1];
    after += x[side + 1] || x[side + 2];
  }
  const int pairs = min(before, after), simple = branches == 1 && (pairs == 2 || pairs == 3);
  const int first = simple && !((x[2] || x[3] || !x[8]) && x[1]);
  const int second = simple && !((x[6] || x[7] || !x[4]) && x[5]);
  for (int k = 0; k < 8; ++k) {
    const int beside = 1 << k | 1 << (k + 1) % 8 | 1 << (k + 7) % 8;
    end |= neighbours >> k & 1 && !(neighbours & ~beside);
  }
  return first | second << 1 | end << 2;
}

__device__ __forceinline__ int energy_neighbours(const u32* image, int width, int at) {
  const u32 *north = image + at - width, *south = image + at + width, *here = image + at;
  return (here[1] & 1) | (north[1] & 1) << 1 | (north[0] & 1) << 2 | (north[-1] & 1) << 3 | (here[-1] & 1) << 4 |
         (south[-1] & 1) << 5 | (south[0] & 1) << 6 | (south[1] & 1) << 7;
}

// Address in the tile of the pixel (i, j) of a macro-pixel. The short matrix lets the first row and column of the box,
// one before its own, fall upon its last ones.
__device__ __forceinline__ int energy_address(EnergyPlan plan, int row, int col, int r, int i, int j) {
  const int height = (int)plan.height - 2, width = (int)plan.width - 2;
  i64 y = (i64)row * r + i - plan.first_row, x = (i64)col * r + j - plan.first_col;
  if (y < 0) y += height;
  if (x < 0) x += width;
  return (int)((y + 1) * plan.width + x + 1);
}

// Lowest number of the centres within the radius of a pixel, -1 if there is none.
__device__ int energy_first_disc(const int* grid, const int* centres, EnergyPlan plan, int cell, int row, int col,
                                 double radius) {
  const int reach = (int)min(radius, 1e6);
  const int last_row = min((row + reach) / cell, (int)plan.height / cell);
  const int last_col = min((col + reach) / cell, (int)plan.width / cell);
  const int grid_width = (int)plan.width / cell + 1;
  int first = -1;
  for (int y = max(row - reach, 0) / cell; y <= last_row; ++y)
    for (int x = max(col - reach, 0) / cell; x <= last_col; ++x) {
      const int centre = grid[y * grid_width + x];
      if (centre < 0 || (first >= 0 && first < centre)) continue;
      const i64 down = centres[centre] / (int)plan.width - row, right = centres[centre] % (int)plan.width - col;
      if ((double)(down * down + right * right) <= radius * radius) first = centre;
    }
  return first;
}

// Number of the centre nearest to a pixel, the first of equals; 0 if there is none.
__device__ int energy_nearest(const int* centres, int n_centres, int width, int row, int col) {
  int nearest = 0;
  i64 least = -1;
  for (int centre = 0; centre < n_centres; ++centre) {
    const i64 down = centres[centre] / width - row, right = centres[centre] % width - col;
    const i64 distance2 = down * down + right * right;
    if (least < 0 || distance2 < least) {
      nearest = centre;
      least = distance2;
    }
  }
  return nearest;
}

// Draws a cluster, thins and prunes it, and finds the centres of its discs. `turns` names the clusters in the order in
// which they are to begin; `lists` has room for three times the pixels. Counts: (K, 3) points of the skeleton, its
// pairs that touch at a corner only, centres.
extern "C" __global__ void __launch_bounds__(1024)
    energy_skeleton(const int* turns, const i64* plans, const int* rows, const int* cols, const i64* offsets,
                    const double* z, int r, int is_short, int prunings, double radius, u32* tiles, int* lists,
                    int* bands, int* grids, int* all_centres, int* counts) {
  __shared__ unsigned char verdicts[256];
  __shared__ int waiting[2], found, best, n_thin, n_skeleton, n_pairs;
  const int cluster = turns[blockIdx.x], thread = threadIdx.x, threads = blockDim.x;
  const EnergyPlan plan = energy_plan(plans, cluster);
  const i64 start = offsets[cluster];
  const int n_pixels = (int)(offsets[cluster + 1] - start) * r * r;
  const int width = (int)plan.width, height = (int)plan.height;
  const bool drawn = height > 2 && width > 2;  // a short matrix can have no row or no column
  u32* image = tiles + plan.tile;
  int *queues = lists + 3 * plan.pixel, *marked = queues + 2 * n_pixels;  // two queues, one after the other

  for (int k = thread; k < 256; k += threads) verdicts[k] = energy_verdict(k);
  if (thread == 0) waiting[0] = waiting[1] = found = n_thin = n_skeleton = n_pairs = 0;

  // Draw: where two pixels fall upon one place the later one has it.
  for (int k = thread; drawn && k < n_pixels; k += threads) {
    const i64 member = start + k / (r * r);
    const int at = energy_address(plan, rows[member], cols[member], r, k / r % r, k % r);
    atomicMax(&image[at], (u32)(k + 1) << ENERGY_SHIFT);
  }
  __syncthreads();
  for (int k = thread; drawn && k < n_pixels; k += threads) {
    const i64 member = start + k / (r * r);
    const int at = energy_address(plan, rows[member], cols[member], r, k / r % r, k % r);
    if (image[at] >> ENERGY_SHIFT != k + 1 || (is_short && z[start * r * r + k] == 0)) continue;
    const int y = at / width, x = at % width;
    u32 bits = ENERGY_FOREGROUND | ENERGY_QUEUED | ENERGY_QUEUED << 1;
    if (is_short && (y == 1 || y == height - 2 || x == 1 || x == width - 2)) bits |= ENERGY_PROTECTED;
    image[at] |= bits;
    const int place = atomicAdd(&waiting[0], 1);
    queues[place] = queues[n_pixels + place] = at;
  }
  __syncthreads();
  if (thread == 0) waiting[1] = waiting[0];
  __syncthreads();

  // Thin: each sub-iteration judges its queue, at first all pixels and then the neighbours of deleted ones. Between two
  // barriers a word is changed by one thread alone or by atomicOr, and never the bit that the others read.
  for (int turn = 0;; turn = 1 - turn) {
    const int n_waiting = waiting[turn];
    if (n_waiting == 0 && waiting[1 - turn] == 0) break;
    for (int k = thread; k < n_waiting; k += threads) {
      const int at = queues[turn * n_pixels + k];
      const u32 word = image[at] ^ ENERGY_QUEUED << turn;
      image[at] = word;
      if (word & ENERGY_FOREGROUND && verdicts[energy_neighbours(image, width, at)] >> turn & 1)
        marked[atomicAdd(&found, 1)] = at;
    }
    __syncthreads();
    const int n_marked = found;
    if (thread == 0) waiting[turn] = 0;
    for (int k = thread; k < n_marked; k += threads) image[marked[k]] ^= ENERGY_FOREGROUND;
    __syncthreads();
    if (thread == 0) found = 0;
    for (int k = thread; k < 9 * n_marked; k += threads) {
      const int at = marked[k / 9] + (k % 9 / 3 - 1) * width + k % 3 - 1;
      if (!(image[at] & ENERGY_FOREGROUND)) continue;
      const u32 before = atomicOr(&image[at], ENERGY_QUEUED | ENERGY_QUEUED << 1);
      for (int queue = 0; queue < 2; ++queue)
        if (!(before & ENERGY_QUEUED << queue)) queues[queue * n_pixels + atomicAdd(&waiting[queue], 1)] = at;
    }
    __syncthreads();
  }

  // Prune: the points of the skeleton are those of the foreground that are left. They are gathered from the pixels.
  int *points = queues, *sorted = queues + n_pixels;
  for (int k = thread; drawn && k < n_pixels; k += threads) {
    const i64 member = start + k / (r * r);
    const int at = energy_address(plan, rows[member], cols[member], r, k / r % r, k % r);
    if (image[at] >> ENERGY_SHIFT == k + 1 && image[at] & ENERGY_FOREGROUND) points[atomicAdd(&n_thin, 1)] = at;
  }
  __syncthreads();
  for (int round = 0; round < prunings; ++round) {
    for (int k = thread; k < n_thin; k += threads) {
      const int at = points[k];
      if ((image[at] & (ENERGY_FOREGROUND | ENERGY_PROTECTED)) != ENERGY_FOREGROUND) continue;
      if (verdicts[energy_neighbours(image, width, at)] & 4) marked[atomicAdd(&found, 1)] = at;
    }
    __syncthreads();
    const int n_marked = found;
    for (int k = thread; k < n_marked; k += threads) image[marked[k]] ^= ENERGY_FOREGROUND;
    __syncthreads();
    if (thread == 0) found = 0;
    if (n_marked == 0) break;
    __syncthreads();
  }

  // Sort the points by bands of as many rows as a disc reaches up from its centre: no point above the band next to the
  // centre's is in the disc.
  const int reach = (int)min(radius, 1e6) + 1, n_bands = height / reach + 1;
  int* band_ends = bands + plan.band;
  for (int k = thread; k < n_thin; k += threads) {
    const int at = points[k];
    if (!(image[at] & ENERGY_FOREGROUND)) continue;
    atomicAdd(&band_ends[at / width / reach], 1);
    atomicAdd(&n_skeleton, 1);
    if (image[at + width] & ENERGY_FOREGROUND) continue;
    for (int side = -1; side <= 1; side += 2)
      if (image[at + width + side] & ENERGY_FOREGROUND && !(image[at + side] & ENERGY_FOREGROUND))
        atomicAdd(&n_pairs, 1);
  }
  __syncthreads();
  if (thread == 0)
    for (int band = 0, sum = 0; band < n_bands; ++band) {  // to the first place of every band ...
      const int size = band_ends[band];
      band_ends[band] = sum;
      sum += size;
    }
  __syncthreads();
  for (int k = thread; k < n_thin; k += threads) {  // ... which moves to its end as it fills
    const int at = points[k];
    if (image[at] & ENERGY_FOREGROUND) sorted[atomicAdd(&band_ends[at / width / reach], 1)] = at;
  }

  // Centres: the last point in raster order of those that no disc holds is the next one. Below it none is left, so one
  // look at two bands takes the points of its disc and finds the next.
  const int side = (int)(min(radius, 1e6) / sqrt(2.0)) + 1, grid_width = width / side + 1;
  int *grid = grids + plan.cell, *centres = all_centres + plan.cell;
  int band = n_bands - 1, n_centres = 0, centre = -1;
  while (band >= 0) {
    __syncthreads();
    if (thread == 0) best = -1;
    __syncthreads();
    int mine = -1;
    for (int k = (band > 1 ? band_ends[band - 2] : 0) + thread; k < band_ends[band]; k += threads) {
      const int at = sorted[k];
      if (at < 0) continue;
      const i64 down = centre / width - at / width, right = centre % width - at % width;
      if (centre >= 0 && (double)(down * down + right * right) <= radius * radius)
        sorted[k] = -1;
      else
        mine = max(mine, at);
    }
    if (mine >= 0) atomicMax(&best, mine);
    __syncthreads();
    centre = best;
    if (centre < 0) {
      band -= 2;
      continue;
    }
    band = centre / width / reach;
    if (thread == 0) {
      centres[n_centres] = centre;
      grid[centre / width / side * grid_width + centre % width / side] = n_centres;
    }
    ++n_centres;
  }
  if (thread == 0) {
    counts[3 * cluster] = n_skeleton;
    counts[3 * cluster + 1] = n_pairs;
    counts[3 * cluster + 2] = n_centres;
  }
}

// Sums the counts of every slice: a thread a macro-pixel. Counts are summed in integers, whole ones and fractions of
// 2**-40 apart: the sum is the same in any order, and closer to the true one than a sum of doubles.
extern "C" __global__ void energy_share(i64 first, i64 stop, const i64* plans, int n_clusters, const int* rows,
                                        const int* cols, const i64* offsets, const double* z, int r, int is_short,
                                        int all_pixels, double radius, double threshold, const u32* tiles,
                                        const int* grids, const int* all_centres, const int* counts, u64* sums,
                                        int* bright) {
  const i64 member = first + global_thread();
  if (member >= stop) return;
  int cluster = 0;
  for (int high = n_clusters; high - cluster > 1;) {
    const int middle = (cluster + high) / 2;
    if (offsets[middle] <= member) cluster = middle;
    else high = middle;
  }
  const EnergyPlan plan = energy_plan(plans, cluster);
  if (plan.height <= 2 || plan.width <= 2) return;
  const int *centres = all_centres + plan.cell, *grid = grids + plan.cell, n_centres = counts[3 * cluster + 2];
  const int cell = (int)(min(radius, 1e6) / sqrt(2.0)) + 1;
  const u32 number = (u32)((member - offsets[cluster]) * r * r) + 1;

  int current = -1, n_bright = 0;  // neighbouring pixels mostly share a slice: they are added up before they go there
  u64 whole = 0, fraction = 0;
  for (int k = 0; k <= r * r; ++k) {
    int slice = -1;
    double value = 0;
    if (k < r * r) {
      const int at = energy_address(plan, rows[member], cols[member], r, k / r, k % r);
      value = z[member * r * r + k];
      if (tiles[plan.tile + at] >> ENERGY_SHIFT == number + k && !(is_short && value == 0)) {
        const int y = at / (int)plan.width, x = at % (int)plan.width;
        slice = energy_first_disc(grid, centres, plan, cell, y, x, radius);
        if (slice < 0 && all_pixels) slice = energy_nearest(centres, n_centres, (int)plan.width, y, x);
      }
    }
    if (slice != current) {
      if (current >= 0) {
        atomicAdd(&sums[2 * (plan.cell + current)], whole);
        atomicAdd(&sums[2 * (plan.cell + current) + 1], fraction);
        atomicAdd(&bright[plan.cell + current], n_bright);
      }
      current = slice;
      whole = fraction = n_bright = 0;
    }
    if (slice < 0) continue;
    whole += (u64)(i64)floor(value);
    fraction += (u64)rint((value - floor(value)) * ENERGY_FRACTION);
    n_bright += value > threshold;
  }
}

// Energy of every cluster from its slices; a thread a cluster. Constants: those of energy_per_count in order.
extern "C" __global__ void energy_total(const i64* plans, int n_clusters, const int* counts, const u64* sums,
                                        const int* bright, int all_pixels, const double* constants, double* energy) {
  const i64 cluster = global_thread();
  if (cluster >= n_clusters) return;
  const double pitch = constants[0], constant = constants[1], slope = constants[2], plateau = constants[3];
  const double scale = constants[4], power = constants[5], normalisation = constants[6], empty = constants[7];
  const int n_slices = max(counts[3 * cluster + 2], all_pixels);  // without skeleton the cluster is one slice
  double total = 0;
  for (int k = 0; k < n_slices; ++k) {
    const i64 slice = energy_plan(plans, cluster).cell + k;
    const double integral = max((double)(i64)sums[2 * slice] + (double)sums[2 * slice + 1] / ENERGY_FRACTION, 0.0);
    const double density = bright[slice] > 0 ? integral / bright[slice] : 0.0;
    double factor = empty;
    if (density > 0) {
      const double x = density / pitch;
      factor = (constant + slope * x) / (-plateau * expm1(-pow(x, power) / scale)) / normalisation;
    }
    total += integral * factor / 1000.0;
  }
  energy[cluster] = total;
}
