// Least-squares fits of a Gaussian to profiles: a block of threads a profile.
//
// The terms of a sum over bins are made by all threads and added in the order of the bins by one (see variables.cu);
// the first thread takes the Levenberg-Marquardt steps. The exponential function is the only thing whose bits depend on
// the processor.

// State of a fit; amplitude, mean and sigma in this order.
struct MeasureFit {
  double parameters[3], low[3], high[3], trial[3];
  double chi_square, damping;
  double curvature[3][3], descent[3];  // at the parameters: lower triangle of half the second derivatives, minus half
                                       // the first
  bool fresh, determined;              // no step tried from these parameters yet; all of them have a finite step
  int steps, status;
};

enum { MEASURE_NOT_FITTED = -1, MEASURE_RUNNING = 0, MEASURE_UNFINISHED = 1, MEASURE_UNDETERMINED = 2,
       MEASURE_CONVERGED = 3 };

// Sums at the trial parameters: chi square, descent (3), curvature (lower triangle by rows).
#define MEASURE_FIT_SUMS 10

__device__ void measure_evaluate(const double* centres, const double* contents, const double* weights, int n,
                                 const double* parameters, MeasureTerms& terms, double* sums) {
  const int t = threadIdx.x;
  const double amplitude = parameters[0], mean = parameters[1], sigma = parameters[2];
  double sum = 0.0;
  for (int base = 0; base < n; base += MEASURE_THREADS) {
    const int k = base + t;
    if (k < n) {
      const double x = (centres[k] - mean) / sigma, exponential = exp(-0.5 * x * x), weight = weights[k];
      const double shape = exponential * weight, slope = amplitude * shape * x / sigma;
      const double gradient[3] = {shape, slope, slope * x};
      const double distance = (contents[k] - amplitude * exponential) * weight;
      const double residual = contents[k] * weight - amplitude * shape;
      // A bin without an error does not count.
      terms[0][t] = weight > 0.0 ? distance * distance : 0.0;
      for (int j = 0, row = 4; j < 3; ++j) {
        terms[1 + j][t] = weight > 0.0 ? gradient[j] * residual : 0.0;
        for (int i = 0; i <= j; ++i, ++row) terms[row][t] = weight > 0.0 ? gradient[j] * gradient[i] : 0.0;
      }
    }
    __syncthreads();
    measure_add_rows(terms, MEASURE_FIT_SUMS, min(MEASURE_THREADS, n - base), sum);
    __syncthreads();
  }
  if (t < MEASURE_FIT_SUMS) sums[t] = sum;
  __syncthreads();
}

// Solve the damped normal equations by Cholesky decomposition: the step is 0 for parameters that are held or that the
// data do not determine. True if every parameter that is not held has a finite step.
__device__ bool measure_solve(const MeasureFit& fit, double damping, double* step) {
  bool free[3], determined = true;
  double root[3][3] = {{0.0, 0.0, 0.0}, {0.0, 0.0, 0.0}, {0.0, 0.0, 0.0}};
  for (int j = 0; j < 3; ++j) {
    const bool held = (fit.parameters[j] <= fit.low[j] && fit.descent[j] <= 0.0) ||
                      (fit.parameters[j] >= fit.high[j] && fit.descent[j] >= 0.0);
    free[j] = !held;
    step[j] = 0.0;
  }
  for (int j = 0; j < 3; ++j) {
    if (!free[j]) continue;
    const double diagonal = fit.curvature[j][j] * (1.0 + damping);
    double known = 0.0;
    for (int i = 0; i < j; ++i) known += root[j][i] * root[j][i];
    const double pivot = diagonal - known;
    if (!(pivot > 1e-12 * diagonal)) {
      free[j] = determined = false;
      for (int i = 0; i < 3; ++i) root[j][i] = 0.0;
      continue;
    }
    root[j][j] = sqrt(pivot);
    for (int i = j + 1; i < 3; ++i) {
      if (!free[i]) continue;
      known = 0.0;
      for (int k = 0; k < j; ++k) known += root[i][k] * root[j][k];
      root[i][j] = (fit.curvature[i][j] - known) / root[j][j];
    }
    known = 0.0;
    for (int i = 0; i < j; ++i) known += root[j][i] * step[i];
    step[j] = (fit.descent[j] - known) / root[j][j];
  }
  for (int j = 2; j >= 0; --j) {
    if (!free[j]) continue;
    double known = 0.0;
    for (int i = j + 1; i < 3; ++i) known += root[i][j] * step[i];
    step[j] = (step[j] - known) / root[j][j];
  }
  return determined;
}

// Take what measure_evaluate found at the trial parameters as the state of the fit.
__device__ void measure_accept(MeasureFit& fit, const double* sums) {
  fit.chi_square = sums[0];
  for (int j = 0, row = 4; j < 3; ++j) {
    fit.parameters[j] = fit.trial[j];
    fit.descent[j] = sums[1 + j];
    for (int i = 0; i <= j; ++i, ++row) fit.curvature[j][i] = sums[row];
  }
  fit.fresh = true;
}

// Choose the next trial parameters, or end the fit.
__device__ void measure_propose(MeasureFit& fit, int max_steps) {
  double step[3];
  if (fit.fresh) {
    if (fit.steps == max_steps) {
      fit.status = MEASURE_UNFINISHED;
      return;
    }
    ++fit.steps;
    fit.fresh = false;
    fit.determined = measure_solve(fit, 0.0, step);
    const double gain = step[0] * fit.descent[0] + step[1] * fit.descent[1] + step[2] * fit.descent[2];
    if (gain <= 1e-9 * (1.0 + fit.chi_square)) {
      fit.status = fit.determined ? MEASURE_CONVERGED : MEASURE_UNDETERMINED;
      return;
    }
  }
  measure_solve(fit, fit.damping, step);
  for (int j = 0; j < 3; ++j) {
    double value = fit.parameters[j] + step[j];
    if (value < fit.low[j]) value = fit.low[j];
    if (value > fit.high[j]) value = fit.high[j];
    fit.trial[j] = value;
  }
}

// Accept the trial parameters if they are better, else damp the next step more.
__device__ void measure_judge(MeasureFit& fit, const double* sums) {
  if (sums[0] < fit.chi_square) {
    measure_accept(fit, sums);
    fit.damping = max(0.1 * fit.damping, 1e-12);
    return;
  }
  fit.damping *= 10.0;
  // Not even the smallest step gains anything: the descent is nothing but rounding.
  if (fit.damping > 1e16) fit.status = fit.determined ? MEASURE_CONVERGED : MEASURE_UNDETERMINED;
}

// Start values and limits, as ROOT takes them. `sums`: y, y x, y x**2 of the bins that count.
__device__ void measure_begin(MeasureFit& fit, const double* sums, double highest, double spacing, int n_used,
                              double mean, double rms, double mean_range, double sigma_limit) {
  fit.low[0] = -1.7976931348623157e308, fit.high[0] = -fit.low[0];
  fit.low[1] = mean - mean_range * rms, fit.high[1] = mean + mean_range * rms;
  const double total = sums[0];
  if (total > 0.0) {
    const double centre = sums[1] / total, variance = sums[2] / total - centre * centre;
    const double sigma = variance > 0.0 ? sqrt(variance) : spacing * n_used / 4;
    // Half way between the highest point (right with tails) and the height by area (right without).
    fit.trial[0] = 0.5 * (max(highest, 0.0) + spacing * total / (2.506628 * sigma));
    fit.trial[1] = centre;
    fit.trial[2] = sigma;
    fit.low[2] = 0.0, fit.high[2] = sigma_limit * sigma;
  } else {  // a negative sum has no moments
    fit.trial[0] = 0.0, fit.trial[1] = mean, fit.trial[2] = max(rms, 1.0);
    fit.low[2] = 0.5 * fit.trial[2], fit.high[2] = 1.5 * fit.trial[2];
  }
  if (fit.low[1] >= fit.high[1]) fit.low[1] = fit.high[1] = fit.trial[1];  // an empty range: the mean is fixed
  else if (!(fit.low[1] <= fit.trial[1] && fit.trial[1] <= fit.high[1]))
    fit.trial[1] = 0.5 * (fit.low[1] + fit.high[1]);
  fit.low[2] = max(fit.low[2], 1e-4 * fit.trial[2]);
  fit.damping = 3.0;
  fit.steps = 0;
  fit.status = MEASURE_RUNNING;
}

// Fit both profiles of every cluster, blockIdx.y 0 along, 1 across. `squares` become the weights, `centres` is memory
// for as many; for the other names see measure_profiles and measure_sums.
extern "C" __global__ void measure_fits(const i64* offsets, int n_clusters, int min_macropixels, double mean_range,
                                        double sigma_limit, int max_steps, const i64* cells, const int* n_bins_of,
                                        const int* edges, const double* contents, const double* moments,
                                        double* centres, double* squares, double* values) {
  __shared__ MeasureFit fit;
  __shared__ MeasureTerms terms;
  __shared__ double sums[MEASURE_FIT_SUMS];
  __shared__ int n_used;
  const int c = blockIdx.x, which = blockIdx.y, t = threadIdx.x, profile = 2 * c + which;
  if (offsets[c + 1] - offsets[c] < min_macropixels) return;
  const int n = n_bins_of[profile];
  edges += cells[profile], contents += cells[profile], centres += cells[profile];
  double* weights = squares + cells[profile];

  if (t == 0) n_used = 0;
  __syncthreads();
  int used = 0;
  double highest = -1e300, narrowest = -1e300;  // minus the spacing, to be the largest
  for (int k = t; k < n; k += MEASURE_THREADS) {
    centres[k] = measure_centre(edges, k);
    if (!(squares[cells[profile] + k] > 0.0)) continue;
    ++used;
    highest = max(highest, contents[k]);
    int before = k - 1;
    while (before >= 0 && !(squares[cells[profile] + before] > 0.0)) --before;
    if (before >= 0) narrowest = max(narrowest, measure_centre(edges, before) - centres[k]);
  }
  atomicAdd(&n_used, used);
  highest = measure_block_max(highest);
  narrowest = measure_block_max(narrowest);
  double sum = 0.0;
  for (int base = 0; base < n; base += MEASURE_THREADS) {
    const int k = base + t;
    if (k < n) {
      const double error = sqrt(weights[k]), y = error > 0.0 ? contents[k] : 0.0;
      weights[k] = error > 0.0 ? 1.0 / error : 0.0;
      terms[0][t] = y, terms[1][t] = y * centres[k], terms[2][t] = y * centres[k] * centres[k];
      terms[3][t] = contents[k];
    }
    __syncthreads();
    measure_add_rows(terms, 4, min(MEASURE_THREADS, n - base), sum);
    __syncthreads();
  }
  if (t < 4) sums[t] = sum;
  __syncthreads();

  double* row = values + c;
  const i64 next = n_clusters;
  double* amplitude = row + (which ? sc_tgaussamp : sc_lgaussamp) * next;
  double* mean = row + (which ? sc_tgaussmean : sc_lgaussmean) * next;
  double* sigma = row + (which ? sc_tgausssigma : sc_lgausssigma) * next;
  double* chi_square = row + (which ? sc_tchi2 : sc_lchi2) * next;
  double* status = row + (which ? sc_tstatus : sc_lstatus) * next;
  if (sums[3] == 0.0 || n_used == 0) {
    if (t == 0) *amplitude = *mean = *sigma = 0.0, *chi_square = 999.0, *status = MEASURE_NOT_FITTED;
    return;
  }
  if (t == 0)
    measure_begin(fit, sums, highest, n_used > 1 ? -narrowest : 1.0, n_used, moments[2 * profile],
                  moments[2 * profile + 1], mean_range, sigma_limit);
  __syncthreads();
  measure_evaluate(centres, contents, weights, n, fit.trial, terms, sums);
  if (t == 0) measure_accept(fit, sums);
  while (true) {
    if (t == 0 && fit.status == MEASURE_RUNNING) measure_propose(fit, max_steps);
    __syncthreads();
    if (fit.status != MEASURE_RUNNING) break;
    measure_evaluate(centres, contents, weights, n, fit.trial, terms, sums);
    if (t == 0) measure_judge(fit, sums);
  }
  if (t) return;
  *amplitude = fit.parameters[0], *mean = fit.parameters[1], *sigma = fit.parameters[2];
  *chi_square = fit.chi_square, *status = fit.status;
}
