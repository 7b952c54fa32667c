// Takes the place of the kernels' own ptx.cuh on a CPU: the same functions without a GPU.
#pragma once
#include <immintrin.h>

#define DEVICE inline

typedef unsigned long long uint64;

using emulated::machine;
using emulated::self;

constexpr unsigned SHARED_BASE = 0x410;  // dynamic shared memory need not start at a round address

inline unsigned char* shared_memory() { return self().block->shared.data(); }

inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(static_cast<const unsigned char*>(pointer) - shared_memory()) +
         SHARED_BASE;
}

// Halves

inline float half_to_float(unsigned bits) { return _cvtsh_ss(static_cast<unsigned short>(bits)); }

template <bool TOWARD_ZERO>
unsigned to_halves(float low, float high) {
  constexpr int mode = TOWARD_ZERO ? _MM_FROUND_TO_ZERO : _MM_FROUND_TO_NEAREST_INT;
  return _cvtss_sh(low, mode) | static_cast<unsigned>(_cvtss_sh(high, mode)) << 16;
}

inline float2 to_floats(unsigned both) { return {half_to_float(both), half_to_float(both >> 16)}; }

// Barriers

inline emulated::Barrier& barrier_at(unsigned address, unsigned block) {
  auto found = machine.blocks[block].barriers.find(address - SHARED_BASE);
  if (found == machine.blocks[block].barriers.end()) emulated::fail("no barrier there");
  return found->second;
}

inline void barrier_init(unsigned address, unsigned arrivals) {
  if (address % 8) emulated::fail("a barrier must lie at a multiple of 8");
  self().block->barriers[address - SHARED_BASE] = {arrivals, arrivals, 0, 0};
}

inline void barrier_publish() {}

inline void arrive(emulated::Barrier& barrier, unsigned bytes) {
  if (barrier.missing == 0) emulated::fail("more arrivals than the barrier expects");
  --barrier.missing;
  barrier.bytes += bytes;
  barrier.settle();
}

inline void barrier_expect(unsigned address, unsigned bytes) {
  arrive(barrier_at(address, self().rank), bytes);
}

inline void barrier_arrive(unsigned address, unsigned block) {
  arrive(barrier_at(address, block), 0);
}

inline void barrier_wait(unsigned address, unsigned parity) {
  const emulated::Barrier& barrier = barrier_at(address, self().rank);
  emulated::wait([&] { return barrier.phase != parity; });
}

inline unsigned cluster_rank() { return self().rank; }

inline void cluster_sync() {
  emulated::meet(machine.arrived, machine.generation,
                 static_cast<unsigned>(machine.fibers.size()));
}

inline void copy_to_blocks(unsigned to, const void* from, unsigned bytes, unsigned barrier,
                           std::vector<unsigned> blocks) {
  if (to % 16 || bytes % 16 || reinterpret_cast<uintptr_t>(from) % 16 || bytes == 0)
    emulated::fail("bulk copies move multiples of 16 bytes");
  machine.copies.push_back(
      {std::move(blocks), to - SHARED_BASE, bytes, barrier - SHARED_BASE, from});
}

inline void copy_bulk(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
  copy_to_blocks(to, from, bytes, barrier, {self().rank});
}

inline void copy_bulk_to(unsigned to, const void* from, unsigned bytes, unsigned barrier,
                         unsigned short mask) {
  std::vector<unsigned> blocks;
  for (unsigned i = 0; i < 16; ++i)
    if (mask >> i & 1) blocks.push_back(i);
  copy_to_blocks(to, from, bytes, barrier, blocks);
}

inline void lead() { ++self().block->led; }

inline void follow() {
  const unsigned& led = self().block->led;
  emulated::wait([&] { return led >= 128; });
}

template <int REGISTERS>
void take_registers() {}

template <int REGISTERS>
void give_registers() {}

// Matrix products, as measured and read of Hopper: 16 products and the sum are cut to 25 bits below
// the largest exponent, added, and the result is cut to a float.

inline uint64 mma_tile(unsigned address) {
  if (address % 1024) emulated::fail("a swizzled tile must lie at a multiple of 1024");
  return (address & 0x3ffffu) >> 4 | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

struct Number {
  double value;
  int exponent;
};

constexpr int NOTHING = -10000;

inline Number number_of(unsigned half) {
  const double value = half_to_float(half);
  int exponent;
  frexp(value, &exponent);
  return {value, value == 0 ? NOTHING : exponent - 1};
}

inline Number number_at(uint64 tile, int row, int k) {
  const unsigned start = static_cast<unsigned>(tile & 0x3fff) << 4;
  const unsigned group = static_cast<unsigned>(tile >> 32 & 0x3fff) << 4;
  const unsigned logical = start + row / 8 * group + row % 8 * 128 + 2 * k;
  const unsigned address = logical ^ (logical >> 7 & 7) << 4;
  unsigned short bits;
  memcpy(&bits, shared_memory() + (address - SHARED_BASE), 2);
  return number_of(bits);
}

inline float add_products(const Number* a, const Number* b, float sum) {
  double products[16], straight = sum;
  int exponents[16], exponent = NOTHING, top = NOTHING;
  if (sum != 0) frexp(sum, &top), exponent = top - 1;
  for (int k = 0; k < 16; ++k) {
    products[k] = a[k].value * b[k].value;
    exponents[k] = products[k] == 0 ? NOTHING : a[k].exponent + b[k].exponent;
    exponent = max(exponent, exponents[k]);
    straight += products[k];
  }
  if (!isfinite(straight) || exponent == NOTHING) return static_cast<float>(straight);
  const double unit = ldexp(1.0, 25 - exponent);
  long total = static_cast<long>(sum * unit);
  for (int k = 0; k < 16; ++k) total += static_cast<long>(products[k] * unit);
  if (total == 0) return 0.0f;
  const int bits = 64 - __builtin_clzl(static_cast<unsigned long>(labs(total)));
  const long cut = bits > 24 ? 1l << (bits - 24) : 1;
  return static_cast<float>(ldexp(static_cast<double>(total / cut * cut), exponent - 25));
}

inline void perform(const emulated::Product& product) {
  const int thread = static_cast<int>(threadIdx.x) % 128, lane = thread % 32;
  for (int half = 0; half < 2; ++half) {
    Number a[16], b[16];
    for (int k = 0; k < 16; ++k)
      a[k] = number_at(product.a, thread / 32 * 16 + lane / 4 + 8 * half, k);
    for (int j = 0; j < product.columns; ++j)
      for (int e = 0; e < 2; ++e) {
        for (int k = 0; k < 16; ++k) b[k] = number_at(product.b, 8 * j + lane % 4 * 2 + e, k);
        float& sum = product.sums[4 * j + 2 * half + e];
        sum = add_products(a, b, product.add ? sum : 0.0f);
      }
  }
}

inline void fence_shared() {}

inline void mma_fence() {}

inline void mma_commit() { self().groups.push_back(std::move(self().issued)), self().issued.clear(); }

template <int PENDING>
void mma_wait() {
  auto& groups = self().groups;
  while (groups.size() > PENDING) {
    for (const emulated::Product& product : groups.front()) perform(product);
    groups.erase(groups.begin());
  }
  emulated::meet_warp();  // all of these instructions are the warp's
}

template <int TILES>
void pin(float (&)[TILES][4]) {}

template <int TILES>
void mma(float (&sums)[TILES][4], uint64 a, uint64 b, int add) {
  self().issued.push_back({a, b, add, TILES, &sums[0][0]});
}

inline void mma_warp(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  unsigned all[6][32];
  for (int i = 0; i < 6; ++i)
    for (unsigned lane = 0; lane < 32; ++lane)
      all[i][lane] = emulated::from_lane(i < 4 ? a[i] : b[i - 4], lane);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < 4; ++i) {
    Number row[16], column[16];
    for (int k = 0; k < 16; ++k) {
      const int there = k % 8 / 2, shift = k % 2 * 16;
      row[k] = number_of(all[i / 2 + k / 8 * 2][lane / 4 * 4 + there] >> shift);
      column[k] = number_of(all[4 + k / 8][(lane % 4 * 2 + i % 2) * 4 + there] >> shift);
    }
    d[i] = add_products(row, column, d[i]);
  }
}
