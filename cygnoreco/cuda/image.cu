// From raw frames to points: the image section, the totals, the noise filter, the points and the pixels behind them.
// Sums are written in the order of the plain stages (cygnoreco/image), so that every bit is theirs.

// What decides whether a pixel survives, and what it then counts.
struct ImageCuts {
  const double* mean;
  const double* rms;
  const u16* threshold;
  double nsigma;
  int ceiling, first_row, last_row, first_col, last_col;
  int corrected;  // the saturation correction is on: a v^2 + b v + c above start
  double a, b, c, start;
};

__device__ __forceinline__ int image_column(int x, int width, int mirrored) { return mirrored ? width - 1 - x : x; }

__device__ __forceinline__ double image_correct(double sub, const ImageCuts& cuts) {
  return cuts.corrected && sub > cuts.start ? cuts.a * sub * sub + cuts.b * sub + cuts.c : sub;
}

__device__ __forceinline__ bool image_accepted(int y, int x, const ImageCuts& cuts) {
  return y >= cuts.first_row && y < cuts.last_row && x >= cuts.first_col && x < cuts.last_col;
}

// Suppressed counts of a pixel. Without the saturation correction it is the threshold that says what survives, the
// acceptance included.
__device__ __forceinline__ double image_suppress(int raw, i64 at, int y, int x, const ImageCuts& cuts) {
  if (raw > cuts.ceiling) return 0.0;
  double sub = (double)raw - cuts.mean[at];
  if (!cuts.corrected) return raw > cuts.threshold[at] ? sub : 0.0;
  sub = image_correct(sub, cuts);
  return image_accepted(y, x, cuts) && sub > cuts.nsigma * cuts.rms[at] ? sub : 0.0;
}

__device__ __forceinline__ double image_median(double above_left, double above, double left, double here) {
  double low_above = min(above_left, above), high_above = max(above_left, above);
  double low = min(left, here), high = max(left, here);
  return max(max(low_above, low), min(high_above, high));
}

// Section for macro-pixels of 4 x 4: a tile of 32 macro-pixels by 8, and the row and the column before it, are
// suppressed once into shared memory. Columns are dealt out by their remainder to four planes, so that neighbouring
// threads, which read every fourth column, meet different banks.
#define IMAGE_TILE_W 32
#define IMAGE_TILE_H 8
#define IMAGE_PLANE 40

extern "C" __global__ void __launch_bounds__(256) image_section(
    const u16* frames, const double* mean, const u16* threshold, int ceiling, int height, int width, int mirrored,
    int with_median, double* picture, double* edges, u64* raw_sums) {
  __shared__ double tile[(4 * IMAGE_TILE_H + 1) * 4 * IMAGE_PLANE];
  __shared__ u32 tile_sum;
  ImageCuts cuts = {mean, mean, threshold, 0.0, ceiling, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0};
  int thread = threadIdx.x;
  int first_y = blockIdx.y * 4 * IMAGE_TILE_H, first_x = blockIdx.x * 4 * IMAGE_TILE_W;
  int n_rows = min(4 * IMAGE_TILE_H, height - first_y), n_cols = min(4 * IMAGE_TILE_W, width - first_x);
  const u16* frame = frames + (i64)blockIdx.z * height * width;
  if (thread == 0) tile_sum = 0;
  __syncthreads();
  u32 sum = 0;  // of a tile of 4096 pixels: never above 2^28
  // Line 0 and column 0 of the tile are those before it; at the edge of the image they repeat the first ones.
  int across = n_cols + 1;
  for (int i = thread; i < (n_rows + 1) * across; i += blockDim.x) {
    int line = i / across, column = i - line * across;
    int y = max(first_y + line - 1, 0), x = max(first_x + column - 1, 0);
    i64 at = (i64)y * width + x;
    int raw = frame[(i64)y * width + image_column(x, width, mirrored)];
    if (line > 0 && column > 0) sum += raw;
    tile[(line * 4 + column % 4) * IMAGE_PLANE + column / 4] = image_suppress(raw, at, y, x, cuts);
  }
  atomicAdd(&tile_sum, sum);
  __syncthreads();
  if (thread == 0) atomicAdd(&raw_sums[blockIdx.z], (u64)tile_sum);
  int macro_y = thread / IMAGE_TILE_W, macro_x = thread % IMAGE_TILE_W;
  if (macro_y * 4 >= n_rows || macro_x * 4 >= n_cols) return;
  double before[5], mean_of_block = 0.0, median_of_block = 0.0;
#pragma unroll
  for (int line = 0; line < 5; ++line) {
    const double* row = tile + (macro_y * 4 + line) * 4 * IMAGE_PLANE + macro_x;
    double here[5] = {row[0], row[IMAGE_PLANE], row[2 * IMAGE_PLANE], row[3 * IMAGE_PLANE], row[1]};
    if (line > 0) {
      mean_of_block += here[1] + here[2] + here[3] + here[4];
      double medians = image_median(before[0], before[1], here[0], here[1]);
#pragma unroll
      for (int k = 1; k < 4; ++k) medians += image_median(before[k], before[k + 1], here[k], here[k + 1]);
      median_of_block += medians;
    }
#pragma unroll
    for (int k = 0; k < 5; ++k) before[k] = here[k];
  }
  i64 to = ((i64)blockIdx.z * (height / 4) + first_y / 4 + macro_y) * (width / 4) + first_x / 4 + macro_x;
  // A sixteenth is a power of two: multiplying by it is dividing by 4 twice, to the last bit.
  picture[to] = mean_of_block * 0.0625;
  edges[to] = (with_median ? median_of_block : mean_of_block) * 0.0625;
}

// The same for any side of a macro-pixel and with the saturation correction: one thread a macro-pixel, no tile.
extern "C" __global__ void __launch_bounds__(256) image_section_plain(
    const u16* frames, const double* mean, const double* rms, double nsigma, int ceiling, int first_row, int last_row,
    int first_col, int last_col, double a, double b, double c, double start, int factor, int height, int width,
    int mirrored, int with_median, double* picture, double* edges, u64* raw_sums) {
  ImageCuts cuts = {mean, rms, 0, nsigma, ceiling, first_row, last_row, first_col, last_col, 1, a, b, c, start};
  int macro_x = blockIdx.x * blockDim.x + threadIdx.x;
  if (macro_x >= width / factor) return;
  const u16* frame = frames + (i64)blockIdx.z * height * width;
  double picture_sum = 0.0, edges_sum = 0.0;
  u64 raw_sum = 0;
  for (int y = blockIdx.y * factor; y < (blockIdx.y + 1) * factor; ++y) {
    double row_sum = 0.0, row_medians = 0.0, left[2] = {0.0, 0.0};
    for (int x = macro_x * factor - 1; x < (macro_x + 1) * factor; ++x) {
      double here[2];  // the row above, which at the edge of the image is the row itself, and this one
      for (int k = 0; k < 2; ++k) {
        int yy = max(y - 1 + k, 0), xx = max(x, 0);
        int raw = frame[(i64)yy * width + image_column(xx, width, mirrored)];
        if (k == 1 && x >= macro_x * factor) raw_sum += raw;
        here[k] = image_suppress(raw, (i64)yy * width + xx, yy, xx, cuts);
      }
      if (x >= macro_x * factor) {
        row_sum += here[1];
        row_medians += image_median(left[0], here[0], left[1], here[1]);
      }
      left[0] = here[0];
      left[1] = here[1];
    }
    picture_sum += row_sum / factor;
    edges_sum += row_medians / factor;
  }
  atomicAdd(&raw_sums[blockIdx.z], raw_sum);
  i64 to = ((i64)blockIdx.z * (height / factor) + blockIdx.y) * (width / factor) + macro_x;
  picture[to] = picture_sum / factor;
  edges[to] = (with_median ? edges_sum : picture_sum) / factor;
}

// Sums of the suppressed image and of its squares down the columns of four pixels, one thread a column. Several rows
// are asked for at once, because a single one would leave the thread waiting for memory at every step.
#define IMAGE_AHEAD 8

__device__ __forceinline__ void image_add_fours(
    const u16* frame, int y, int column, int height, int width, int mirrored, const ImageCuts& cuts, double* sums) {
  double four[IMAGE_AHEAD], squares[IMAGE_AHEAD];
#pragma unroll
  for (int k = 0; k < IMAGE_AHEAD; ++k) {
    int row = min(y + k, height - 1);
    double z[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      int x = 4 * column + j;
      int raw = frame[(i64)row * width + image_column(x, width, mirrored)];
      z[j] = image_suppress(raw, (i64)row * width + x, row, x, cuts);
    }
    four[k] = z[0] + z[1] + z[2] + z[3];
    squares[k] = z[0] * z[0] + z[1] * z[1] + z[2] * z[2] + z[3] * z[3];
  }
#pragma unroll
  for (int k = 0; k < IMAGE_AHEAD; ++k)
    if (y + k < height) {
      sums[0] += four[k];
      sums[1] += squares[k];
    }
}

extern "C" __global__ void __launch_bounds__(64) image_totals(
    const u16* frames, const double* mean, const double* rms, const u16* threshold, double nsigma, int ceiling,
    int first_row, int last_row, int first_col, int last_col, int corrected, double a, double b, double c,
    double start, int height, int width, int mirrored, double* column_sums, double* column_squares) {
  ImageCuts cuts = {mean, rms, threshold, nsigma, ceiling, first_row, last_row, first_col, last_col, corrected, a, b, c,
                    start};
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width / 4) return;
  const u16* frame = frames + (i64)blockIdx.y * height * width;
  double sums[2] = {0.0, 0.0};
  // Rows outside the acceptance are zero, and a zero changes no sum.
  for (int y = first_row; y < last_row; y += IMAGE_AHEAD)
    image_add_fours(frame, y, column, last_row, width, mirrored, cuts, sums);
  column_sums[(i64)blockIdx.y * (width / 4) + column] = sums[0];
  column_squares[(i64)blockIdx.y * (width / 4) + column] = sums[1];
}

// ... and from left to right: one block a frame, its first thread adds what all of them fetch.
extern "C" __global__ void __launch_bounds__(128) image_totals_across(
    const double* column_sums, const double* column_squares, int columns, double* integral, double* squares) {
  __shared__ double sums[128], sums_of_squares[128];
  double total = 0.0, total_of_squares = 0.0;
  for (int first = 0; first < columns; first += 128) {
    int column = first + threadIdx.x;
    if (column < columns) {
      sums[threadIdx.x] = column_sums[(i64)blockIdx.x * columns + column];
      sums_of_squares[threadIdx.x] = column_squares[(i64)blockIdx.x * columns + column];
    }
    __syncthreads();
    if (threadIdx.x == 0)
      for (int k = 0; k < min(128, columns - first); ++k) {
        total += sums[k];
        total_of_squares += sums_of_squares[k];
      }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    integral[blockIdx.x] = total;
    squares[blockIdx.x] = total_of_squares;
  }
}

// The noise filter walks over the image in raster order and in place: a macro-pixel is judged when the three above it
// and the one to its left have been, and those to the right and below have not. Macro-pixel (y, x) may therefore be
// judged at step x + 2 y, and all of a step at once. One block a frame; a thread has a row. Of the image only a ring of
// the last 16 steps' macro-pixels is kept, by row and step: a step looks 3 back and 3 ahead, and 8 steps are fetched
// at a time. The ring is in shared memory unless the image has more rows than that holds.
#define IMAGE_RING 16
#define IMAGE_FETCH 8
#define IMAGE_RING_ROWS 704

__device__ __forceinline__ float image_rounded(const double* image, int y, int x, int height, int width) {
  bool rim = y < 2 || y >= height - 2 || x < 2 || x >= width - 2;
  return rim ? 0.0f : (float)image[(i64)y * width + x];
}

extern "C" __global__ void __launch_bounds__(1024) image_noise_filter(
    const double* edges, int height, int width, float difference, float min_average, int min_neighbours, float* memory,
    double* filtered) {
  __shared__ float shared[IMAGE_RING_ROWS * IMAGE_RING];
  float* ring = height <= IMAGE_RING_ROWS ? shared : memory + (i64)blockIdx.x * height * IMAGE_RING;
  const double* image = edges + (i64)blockIdx.x * height * width;
  double* result = filtered + (i64)blockIdx.x * height * width;
  // Slot of a row's macro-pixel that belongs to a step; steps before the first are never negative here.
#define IMAGE_AT(y, step) ring[((step) & (IMAGE_RING - 1)) * height + (y)]
  int first_step = 0, last_step = width + 2 * height;
  for (int y = threadIdx.x; y < height; y += blockDim.x)
    for (int step = first_step - 3; step < first_step + 11; ++step)
      IMAGE_AT(y, step + IMAGE_RING) = image_rounded(image, y, step - 2 * y, height, width);
  __syncthreads();
  for (int group = first_step; group < last_step; group += IMAGE_FETCH) {
    for (int step = group; step < group + IMAGE_FETCH; ++step) {
      for (int y = threadIdx.x; y < height; y += blockDim.x) {
        int x = step - 2 * y;
        if (y < 1 || y >= height - 2 || x < 1 || x >= width - 2) continue;
        int s = step + IMAGE_RING;
        float above_left = IMAGE_AT(y - 1, s - 3), above = IMAGE_AT(y - 1, s - 2), above_right = IMAGE_AT(y - 1, s - 1);
        float left = IMAGE_AT(y, s - 1), here = IMAGE_AT(y, s), right = IMAGE_AT(y, s + 1);
        float below_left = IMAGE_AT(y + 1, s + 1), below = IMAGE_AT(y + 1, s + 2), below_right = IMAGE_AT(y + 1, s + 3);
        float outer = above_left + left + below_left + above + below;
        float average = (outer + above_right + right + below_right) * 0.125f;
        int alive = (above_left != 0.0f) + (left != 0.0f) + (below_left != 0.0f) + (above != 0.0f) + (here != 0.0f) +
                    (below != 0.0f) + (above_right != 0.0f) + (right != 0.0f) + (below_right != 0.0f);
        if (average < min_average || alive < min_neighbours) {
          IMAGE_AT(y, s) = 0.0f;
        } else if (fabsf(here - average) > difference) {
          IMAGE_AT(y, s) = average;
          result[(i64)y * width + x] = average;
        } else if (here != 0.0f) {
          result[(i64)y * width + x] = image[(i64)y * width + x];
        }
      }
      __syncthreads();
    }
    for (int y = threadIdx.x; y < height; y += blockDim.x)
      for (int step = group + 11; step < group + 11 + IMAGE_FETCH; ++step)
        IMAGE_AT(y, step) = image_rounded(image, y, step - 2 * y, height, width);
    __syncthreads();
  }
#undef IMAGE_AT
}

// Points of every row of every frame, counted; a frame that the spark veto found has none. One block a row.
extern "C" __global__ void __launch_bounds__(128) image_count(
    const double* filtered, const u8* vetoed, int height, int width, int* counts) {
  i64 row = blockIdx.x;
  int count = 0;
  for (int first = 0; first < width; first += blockDim.x) {
    int x = first + threadIdx.x;
    count += __syncthreads_count(x < width && !vetoed[row / height] && filtered[row * width + x] > 0.5);
  }
  if (threadIdx.x == 0) counts[row] = count;
}

// ... and listed in raster order. A point's place in its row is the number of bits before its own; 8192 columns have
// room.
extern "C" __global__ void __launch_bounds__(128) image_points(
    const double* filtered, const double* picture, const u8* vetoed, const i64* row_ends, int height, int width,
    int charge, int* rows, int* cols, int* weights, int* frames) {
  __shared__ u32 bits[256];
  i64 row = blockIdx.x, frame = row / height, begin = row ? row_ends[row - 1] : 0;
  if (begin == row_ends[row]) return;  // the whole block agrees on this
  for (int word = threadIdx.x; word < (width + 31) / 32; word += blockDim.x) bits[word] = 0;
  __syncthreads();
  for (int x = threadIdx.x; x < width; x += blockDim.x)
    if (filtered[row * width + x] > 0.5) atomicOr(&bits[x / 32], 1u << (x % 32));
  __syncthreads();
  for (int x = threadIdx.x; x < width; x += blockDim.x) {
    if (!(bits[x / 32] >> (x % 32) & 1u)) continue;
    i64 at = begin + __popc(bits[x / 32] & ((1u << (x % 32)) - 1u));
    for (int word = 0; word < x / 32; ++word) at += __popc(bits[word]);
    rows[at] = (int)(row - frame * height);
    cols[at] = x;
    weights[at] = charge ? max((int)picture[row * width + x], 1) : 1;
    frames[at] = (int)frame;
  }
}

// Pixels behind some of the points, one thread a pixel; frames with a saturated one are marked.
extern "C" __global__ void __launch_bounds__(256) image_patches(
    const u16* frames, const double* mean, const double* rms, const double* response, double nsigma, int cimax,
    int saturated_to_zero, int first_row, int last_row, int first_col, int last_col, int corrected, double a, double b,
    double c, double start, int factor, int height, int width, int mirrored, const i64* order, i64 members,
    const int* rows, const int* cols, const int* frame_of_point, int* member_rows, int* member_cols, double* z,
    u8* above, u8* saturated, u32* frame_saturated) {
  ImageCuts cuts = {mean, rms, 0, nsigma, 0, first_row, last_row, first_col, last_col, corrected, a, b, c, start};
  i64 pixel = global_thread();
  if (pixel >= members * factor * factor) return;
  i64 member = pixel / (factor * factor), point = order[member];
  int inside = (int)(pixel - member * factor * factor);
  int y = rows[point] * factor + inside / factor, x = cols[point] * factor + inside % factor;
  if (inside == 0) {
    member_rows[member] = rows[point];
    member_cols[member] = cols[point];
  }
  i64 at = (i64)y * width + x;
  int frame = frame_of_point[point];
  int raw = frames[(i64)frame * height * width + (i64)y * width + image_column(x, width, mirrored)];
  bool full = raw >= cimax;
  if (full && saturated_to_zero) raw = 0;
  if (full) atomicOr(&frame_saturated[frame], 1u);
  double sub = image_correct((double)raw - mean[at], cuts);
  double value = sub * response[at];
  z[pixel] = value;
  above[pixel] = image_accepted(y, x, cuts) && sub > nsigma * rms[at] && value > 0.0;
  saturated[pixel] = full;
}

// Saved pixels of clusters, one block each: coordinates along the axes of the table, counts rounded as NumPy does.
extern "C" __global__ void __launch_bounds__(128) image_redpix(
    const i64* clusters, const i64* begins, const i64* offsets, int factor, int rows_first, double scale,
    const int* rows, const int* cols, const double* z, int* ix, int* iy, float* iz) {
  int pixels = factor * factor;
  i64 first = offsets[clusters[blockIdx.x]] * pixels, last = offsets[clusters[blockIdx.x] + 1] * pixels;
  i64 to = begins[blockIdx.x];
  for (i64 k = threadIdx.x; k < last - first; k += blockDim.x) {
    i64 member = (first + k) / pixels;
    int inside = (int)(first + k - member * pixels);
    int row = rows[member] * factor + inside / factor, col = cols[member] * factor + inside % factor;
    ix[to + k] = rows_first ? row : col;
    iy[to + k] = rows_first ? col : row;
    iz[to + k] = (float)(rint(z[first + k] * scale) / scale);
  }
}
