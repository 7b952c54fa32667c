// Runs CUDA kernels on a CPU: every thread of a cluster of blocks is a fiber, and which of them goes
// on is drawn anew whenever one waits. Copies happen at some later moment, matrix products when
// they are waited for: what a kernel may not rely on, it does not get.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __shared__ static

using std::max;
using std::min;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct int2 {
  int x, y;
};
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};

inline float2 make_float2(float x, float y) { return {x, y}; }

namespace emulated {

struct Barrier {
  unsigned arrivals = 0, missing = 0, phase = 0;
  long bytes = 0;

  void settle() {
    if (missing == 0 && bytes == 0) phase ^= 1, missing = arrivals;
  }
};

struct Product {
  unsigned long long a, b;
  int add, columns;
  float* sums;
};

struct Block {
  dim3 index;
  std::vector<unsigned char> shared;
  std::map<unsigned, Barrier> barriers;
  unsigned arrived = 0, generation = 0, led = 0;
};

struct Warp {
  unsigned arrived = 0, generation = 0;
  uint32_t values[2][32];
};

struct Fiber {
  ucontext_t start;
  jmp_buf there;
  std::unique_ptr<unsigned char[]> stack;
  bool started = false, done = false;
  const std::function<bool()>* waits = nullptr;
  Block* block = nullptr;
  Warp* warp = nullptr;
  dim3 thread;
  unsigned rank = 0, parity = 0;
  std::vector<Product> issued;
  std::vector<std::vector<Product>> groups;
};

struct Copy {
  std::vector<unsigned> blocks;
  unsigned to, bytes, barrier;
  const void* from;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<Block> blocks;  // of the cluster that runs
  std::vector<Warp> warps;
  std::vector<Copy> copies;
  std::mt19937_64 random;
  dim3 grid, threads;
  unsigned arrived = 0, generation = 0;
  Fiber* current = nullptr;
  jmp_buf scheduler;
  const std::function<void()>* kernel = nullptr;
};

inline Machine machine;

inline Fiber& self() { return *machine.current; }

[[noreturn]] inline void fail(const char* why) {
  fprintf(stderr, "emulator: %s (block %u, thread %u)\n", why,
          machine.current ? self().block->index.x : 0, machine.current ? self().thread.x : 0);
  exit(3);
}

__attribute__((noipa)) inline void wait(const std::function<bool()>& condition) {
  self().waits = &condition;
  if (!_setjmp(self().there)) _longjmp(machine.scheduler, 1);
}

inline void begin() {
  (*machine.kernel)();
  self().done = true;
  _longjmp(machine.scheduler, 1);
}

inline void perform(size_t number) {
  const Copy copy = machine.copies[number];
  machine.copies.erase(machine.copies.begin() + static_cast<long>(number));
  for (unsigned rank : copy.blocks) {
    Block& block = machine.blocks[rank];
    memcpy(block.shared.data() + copy.to, copy.from, copy.bytes);
    Barrier& barrier = block.barriers.at(copy.barrier);
    barrier.bytes -= copy.bytes;
    barrier.settle();
  }
}

__attribute__((noipa)) inline void go_on(Fiber& fiber) {
  machine.current = &fiber;
  fiber.waits = nullptr;
  if (!_setjmp(machine.scheduler)) {
    if (fiber.started) _longjmp(fiber.there, 1);
    fiber.started = true;
    setcontext(&fiber.start);
  }
  machine.current = nullptr;
}

inline void run_cluster() {
  size_t left = machine.fibers.size();
  while (left > 0) {
    if (!machine.copies.empty() && machine.random() % 4 == 0)
      perform(machine.random() % machine.copies.size());
    const size_t first = machine.random() % machine.fibers.size();
    Fiber* next = nullptr;
    for (size_t i = 0; i < machine.fibers.size() && !next; ++i) {
      Fiber& fiber = machine.fibers[(first + i) % machine.fibers.size()];
      if (!fiber.done && (!fiber.waits || (*fiber.waits)())) next = &fiber;
    }
    if (next) {
      go_on(*next);
      left -= next->done;
    } else if (!machine.copies.empty()) {
      perform(machine.random() % machine.copies.size());
    } else {
      fail("deadlock");
    }
  }
  if (!machine.copies.empty()) fail("blocks ended before their copies");
}

constexpr size_t STACK = 1 << 16;

// Runs a kernel; `cluster` blocks run side by side, the others one after the other.
inline void launch(dim3 grid, dim3 threads, unsigned cluster, unsigned shared_bytes,
                   unsigned long long seed, const std::function<void()>& kernel) {
  machine.random.seed(seed);
  machine.grid = grid, machine.threads = threads, machine.kernel = &kernel;
  const unsigned blocks = grid.x * grid.y * grid.z;
  for (unsigned first = 0; first < blocks; first += cluster) {
    machine.blocks = std::vector<Block>(cluster);
    machine.warps = std::vector<Warp>(cluster * threads.x / 32);
    machine.fibers = std::vector<Fiber>(cluster * threads.x);
    machine.arrived = 0;
    for (unsigned i = 0; i < machine.fibers.size(); ++i) {
      Fiber& fiber = machine.fibers[i];
      fiber.rank = i / threads.x;
      fiber.block = &machine.blocks[fiber.rank];
      fiber.warp = &machine.warps[i / 32];
      fiber.thread = {i % threads.x, 0, 0};
      if (i % threads.x == 0) {
        const unsigned number = first + fiber.rank;
        fiber.block->index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
        fiber.block->shared.resize(shared_bytes);
        for (auto& byte : fiber.block->shared) byte = 0xff;  // NaN as half and as float
      }
      fiber.stack.reset(new unsigned char[STACK]);
      getcontext(&fiber.start);
      fiber.start.uc_stack.ss_sp = fiber.stack.get();
      fiber.start.uc_stack.ss_size = STACK;
      makecontext(&fiber.start, begin, 0);
    }
    run_cluster();
  }
}

inline void meet(unsigned& arrived, unsigned& generation, unsigned all) {
  const unsigned mine = generation;
  if (++arrived == all) {
    arrived = 0, ++generation;
  } else {
    wait([&] { return generation != mine; });
  }
}

inline void meet_warp() { meet(self().warp->arrived, self().warp->generation, 32); }

template <class T>
T from_lane(T value, unsigned lane) {
  static_assert(sizeof(T) == 4, "one word");
  Fiber& me = self();
  const unsigned parity = me.parity ^= 1;  // a slow lane still reads the exchange before
  memcpy(&me.warp->values[parity][me.thread.x % 32], &value, 4);
  meet_warp();
  memcpy(&value, &me.warp->values[parity][lane], 4);
  return value;
}

}  // namespace emulated

#define threadIdx (emulated::self().thread)
#define blockIdx (emulated::self().block->index)
#define blockDim (emulated::machine.threads)
#define gridDim (emulated::machine.grid)

inline void __syncthreads() {
  emulated::Block& block = *emulated::self().block;
  emulated::meet(block.arrived, block.generation, emulated::machine.threads.x);
}

inline void __syncwarp() { emulated::meet_warp(); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated::from_lane(value, threadIdx.x % 32 ^ static_cast<unsigned>(mask));
}

template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}

inline float __int_as_float(int bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}

inline int __clz(unsigned value) { return value ? __builtin_clz(value) : 32; }
