// Neighbourhoods of points on the grids of many frames at once.
//
// Points come frame after frame, each in raster order. A line is a row of a frame, numbered through all frames:
// frame * height + row; the points of a line are starts[line] .. starts[line + 1] - 1. On a line, a ball is an interval
// of columns (half[d] to either side, d rows from its centre), found by halving.
//
// A cluster is named by the index of its first core point: no frame shares a name with another, and the order of names
// is the order of the numbers to come.

// Core points, gathered: those of a line are rank[starts[line]] .. rank[starts[line + 1]] - 1.
struct lattice_Cores {
  const int* starts;
  const int* rank;     // number of cores before a point
  const int* columns;  // of the cores
  int* parent;         // of the cores: a forest whose trees become the clusters
};

struct lattice_Ball {
  const int* half;
  int reach;  // -1: the empty ball
};

// First of the ascending columns low .. high - 1 that is not left of `column`.
__device__ int lattice_lower(const int* columns, int low, int high, int column) {
  while (low < high) {
    int middle = low + (high - low) / 2;
    if (columns[middle] < column) low = middle + 1;
    else high = middle;
  }
  return low;
}

// First and last core of a line within `width` columns of `column`; false if there is none.
__device__ bool lattice_window(const lattice_Cores cores, int line, int column, int width, int* first, int* last) {
  int end = cores.rank[cores.starts[line + 1]];
  *first = lattice_lower(cores.columns, cores.rank[cores.starts[line]], end, column - width);
  if (*first == end || cores.columns[*first] > column + width) return false;
  *last = lattice_lower(cores.columns, *first, end, column + width + 1) - 1;
  return true;
}

// The search halves the path it goes. Its writes may undo the write of a join that runs at the same time, but no more
// than the shortcut that this join makes: see there.
__device__ int lattice_root(int* parent, int core) {
  volatile int* up = parent;
  for (int next = up[core]; next != core; next = up[core]) {
    int after = up[next];
    if (after != next) up[core] = after;
    core = after;
  }
  return core;
}

// Put two cores into one tree, under the root that comes first. A root that got another parent in the meantime is
// joined with it in turn, so that nothing is lost whoever was first.
__device__ void lattice_join(int* parent, int a, int b) {
  a = lattice_root(parent, a);
  b = lattice_root(parent, b);
  while (a != b) {
    int later = max(a, b), earlier = min(a, b);
    int before = atomicMin(&parent[later], earlier);
    if (before == later) return;
    a = lattice_root(parent, before);
    b = lattice_root(parent, earlier);
  }
}

// Join a core with the others in its ball, on its own line and on those below, the last of which is `bottom`.
//
// On its own line the next core is enough. On another, cores in the window are in one tree by their own line's doing
// unless a gap of more than half[0] is between them. A window of 2 * width <= 2 * half[0] holds at most one such gap:
// its first and last core stand for all.
__device__ void lattice_join_ball(const lattice_Cores cores, const lattice_Ball ball, int core, int line, int bottom) {
  int column = cores.columns[core];
  if (core + 1 < cores.rank[cores.starts[line + 1]] && cores.columns[core + 1] - column <= ball.half[0])
    lattice_join(cores.parent, core, core + 1);
  for (int d = 1; d <= ball.reach && line + d <= bottom; ++d) {
    int first, last;
    if (!lattice_window(cores, line + d, column, ball.half[d], &first, &last)) continue;
    lattice_join(cores.parent, core, first);
    if (last != first) lattice_join(cores.parent, core, last);
  }
}

// Lowest root of the cores in the ball around a point, on the lines top .. bottom; -1 if there is no core.
__device__ int lattice_lowest(
    const lattice_Cores cores, const lattice_Ball ball, int line, int column, int top, int bottom) {
  int lowest = -1;
  for (int other = max(top, line - ball.reach); other <= min(bottom, line + ball.reach); ++other) {
    int first, last;
    if (!lattice_window(cores, other, column, ball.half[abs(other - line)], &first, &last)) continue;
    int root = min(lattice_root(cores.parent, first), lattice_root(cores.parent, last));
    if (lowest < 0 || root < lowest) lowest = root;
  }
  return lowest;
}

// One block a frame: coordinates counted from the first occupied row and column, the frame of every point, and the
// table of the lines (n * height + 1).
extern "C" __global__ void lattice_index(
    const int* rows, const int* cols, const i64* frame_offsets, int height, int* row, int* column, int* frame_of,
    int* starts) {
  __shared__ int left;
  int frame = blockIdx.x, begin = (int)frame_offsets[frame], end = (int)frame_offsets[frame + 1];
  int first_line = frame * height, last_line = first_line - 1;
  if (threadIdx.x == 0) left = 0x7fffffff;
  __syncthreads();
  int nearest = 0x7fffffff;
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) nearest = min(nearest, cols[i]);
  atomicMin(&left, nearest);
  __syncthreads();
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) {
    row[i] = rows[i] - rows[begin];
    column[i] = cols[i] - left;
    frame_of[i] = frame;
    int line = row[i], before = i == begin ? -1 : rows[i - 1] - rows[begin];
    while (before < line) starts[first_line + ++before] = i;
  }
  if (begin < end) last_line += 1 + rows[end - 1] - rows[begin];
  for (int line = last_line + 1 + threadIdx.x; line < first_line + height; line += blockDim.x) starts[line] = end;
  if (frame == gridDim.x - 1 && threadIdx.x == 0) starts[first_line + height] = end;
}

// Sums of the weights in the ball around every point; before[i] is the weight of all points before point i.
extern "C" __global__ void lattice_ball_sums(
    const int* row, const int* column, const int* frame_of, const int* starts, int height, int n_points,
    const i64* before, const int* half, int reach, i64* sums) {
  i64 i = global_thread();
  if (i >= n_points) return;
  int top = frame_of[i] * height, line = top + row[i];
  i64 sum = 0;
  for (int other = max(top, line - reach); other <= min(top + height - 1, line + reach); ++other) {
    int width = half[abs(other - line)], end = starts[other + 1];
    int first = lattice_lower(column, starts[other], end, column[i] - width);
    int stop = lattice_lower(column, first, end, column[i] + width + 1);
    sum += before[stop] - before[first];
  }
  sums[i] = sum;
}

// List the core points, each the root of its own tree.
extern "C" __global__ void lattice_gather(
    const int* column, const bool* core, const int* rank, int n_points, int* points, int* columns, int* parent) {
  i64 i = global_thread();
  if (i >= n_points || !core[i]) return;
  points[rank[i]] = (int)i;
  columns[rank[i]] = column[i];
  parent[rank[i]] = rank[i];
}

extern "C" __global__ void lattice_connect(
    const int* row, const int* frame_of, const int* starts, int height, int n_points, const int* half, int reach,
    const int* rank, const int* points, const int* columns, int* parent) {
  i64 core = global_thread();
  if (core >= rank[n_points]) return;
  lattice_Cores cores = {starts, rank, columns, parent};
  lattice_Ball ball = {half, reach};
  int top = frame_of[points[core]] * height;
  lattice_join_ball(cores, ball, (int)core, top + row[points[core]], top + height - 1);
}

// Name of the cluster of every member, -1 for none: a core's is its root, any other's the lowest in its ball.
extern "C" __global__ void lattice_owner(
    const int* row, const int* column, const int* frame_of, const int* starts, int height, int n_points,
    const int* half, int reach, const bool* member, const bool* core, const int* rank, const int* points,
    const int* columns, int* parent, int* owner) {
  i64 i = global_thread();
  if (i >= n_points) return;
  int root = -1;
  if (core[i]) {
    root = lattice_root(parent, rank[i]);
  } else if (member[i]) {
    lattice_Cores cores = {starts, rank, columns, parent};
    lattice_Ball ball = {half, reach};
    int top = frame_of[i] * height;
    root = lattice_lowest(cores, ball, top + row[i], column[i], top, top + height - 1);
  }
  owner[i] = root < 0 ? -1 : points[root];
}

// Number of points of every cluster, at the cluster's name.
extern "C" __global__ void lattice_sizes(const int* owner, int n_points, int* sizes) {
  i64 i = global_thread();
  if (i < n_points && owner[i] >= 0) atomicAdd(&sizes[owner[i]], 1);
}

// Size of the smallest cluster of every frame.
extern "C" __global__ void lattice_smallest(const int* sizes, const int* frame_of, int n_points, int* smallest) {
  i64 i = global_thread();
  if (i < n_points && sizes[i] > 0) atomicMin(&smallest[frame_of[i]], sizes[i]);
}
