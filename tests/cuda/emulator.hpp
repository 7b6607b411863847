// Runs CUDA kernels on the host, one block after the other, the threads of a block as fibers that take turns at
// __syncthreads. The order of blocks, and that of threads between two barriers, is shuffled by a seed: a kernel whose
// result depends on it has a race.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

struct dim3 { unsigned x = 1, y = 1, z = 1; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __constant__ static
#define __restrict__ __restrict
#define __launch_bounds__(...)

namespace emulator {
struct Fiber { ucontext_t context; dim3 index; bool done = false; };
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static ucontext_t scheduler;
static Fiber* running = nullptr;
static const std::size_t STACK = 64 << 10;
// What the threads vote for until the next barrier, and what they voted for until the last one.
struct Votes { int any = 0, all = 1, count = 0; };
static Votes votes, counted;

inline void barrier() {
  Fiber* me = running;
  swapcontext(&me->context, &scheduler);
}
template <class F> struct Call { static F* work; };
template <class F> F* Call<F>::work = nullptr;
template <class F> void enter() {
  (*Call<F>::work)();
  running->done = true;
  swapcontext(&running->context, &scheduler);
}
template <class F> void run(F work, dim3 grid, dim3 block, unsigned seed) {
  std::mt19937 random(seed);
  Call<F>::work = &work;
  const std::size_t n_threads = (std::size_t)block.x * block.y * block.z;
  const std::size_t n_blocks = (std::size_t)grid.x * grid.y * grid.z;
  gridDim = grid;
  blockDim = block;
  fibers.assign(n_threads, Fiber());
  if (stacks.size() < n_threads * STACK) stacks.resize(n_threads * STACK);
  std::vector<std::size_t> order(n_threads), blocks(n_blocks);
  std::iota(order.begin(), order.end(), 0);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (std::size_t b : blocks) {
    blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    for (std::size_t t = 0; t < n_threads; ++t) {
      Fiber& fiber = fibers[t];
      fiber.done = false;
      fiber.index = {unsigned(t % block.x), unsigned(t / block.x % block.y), unsigned(t / block.x / block.y)};
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = stacks.data() + t * STACK;
      fiber.context.uc_stack.ss_size = STACK;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, enter<F>, 0);
    }
    votes = counted = Votes();
    for (bool alive = true; alive;) {
      alive = false;
      std::shuffle(order.begin(), order.end(), random);
      for (std::size_t t : order) {
        if (fibers[t].done) continue;
        running = &fibers[t];
        threadIdx = running->index;
        swapcontext(&scheduler, &running->context);
        alive |= !running->done;
      }
      counted = votes;
      votes = Votes();
    }
  }
}
template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}
// A pointer is told from a number of the same size by a thousand, and known by the size of what it points to.
template <class T> constexpr std::size_t kind() {
  if constexpr (std::is_pointer_v<T>) return 1000 + sizeof(std::remove_pointer_t<T>);
  else return sizeof(T);
}
template <class... A>
int launch(void (*kernel)(A...), void** arguments, const std::size_t* sizes, int count, const unsigned* shape, unsigned seed) {
  constexpr std::size_t expected[] = {kind<A>()..., 0};
  if (count != (int)sizeof...(A)) return 1000 + (int)sizeof...(A);
  for (int i = 0; i < count; ++i)
    if (sizes[i] != expected[i]) return 1 + i;
  auto work = [&] { call(kernel, arguments, std::index_sequence_for<A...>()); };
  run(work, {shape[0], shape[1], shape[2]}, {shape[3], shape[4], shape[5]}, seed);
  return 0;
}
}  // namespace emulator

static inline void __syncthreads() { emulator::barrier(); }
static inline int __syncthreads_or(int p) { emulator::votes.any |= p != 0; emulator::barrier(); return emulator::counted.any; }
static inline int __syncthreads_and(int p) { emulator::votes.all &= p != 0; emulator::barrier(); return emulator::counted.all; }
static inline int __syncthreads_count(int p) { emulator::votes.count += p != 0; emulator::barrier(); return emulator::counted.count; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

template <class T> T atomicAdd(T* where, T value) { T old = *where; *where = old + value; return old; }
template <class T> T atomicMin(T* where, T value) { T old = *where; *where = std::min(old, value); return old; }
template <class T> T atomicMax(T* where, T value) { T old = *where; *where = std::max(old, value); return old; }
template <class T> T atomicExch(T* where, T value) { T old = *where; *where = value; return old; }
template <class T> T atomicOr(T* where, T value) { T old = *where; *where = old | value; return old; }
template <class T> T atomicCAS(T* where, T expected, T value) { T old = *where; if (old == expected) *where = value; return old; }

using std::max;
using std::min;
static inline int __double2int_rn(double x) { return (int)std::nearbyint(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
