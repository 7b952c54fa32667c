// Runs CUDA kernels of this project on a CPU, a thread for a thread: stands in for hopper.cuh and for
// what CUDA C++ has beyond C++. For tests: small, slow, and strict where a GPU may be lucky.
//
// - Copies by cp.async happen as late as the program allows, bulk copies as early.
// - Tensor cores read their operands as late as the program allows (with EAGER: at once), by descriptor,
//   swizzle and all.
// - A byte that cp.async wrote may be read by them only after a fence of its writer's or, since then, of
//   their own.
// - Copies read only from memory that was declared; a barrier nobody completes ends in an error.

#pragma once
#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static  // one block at a time
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define DEVICE inline

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
DEVICE int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
DEVICE float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
DEVICE float2 make_float2(float x, float y) { return {x, y}; }
DEVICE uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
template <typename T>
DEVICE T __ldcs(const T* from) { return *from; }
template <typename T>
DEVICE void __stcs(T* to, T value) { *to = value; }
DEVICE void let_next_start() {}
DEVICE void wait_for_previous() {}
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE float __expf(float v) { return std::exp(v); }
DEVICE unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const std::uint64_t both = std::uint64_t(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i)
    result |= unsigned(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return result;
}

// Element types: 2 bytes and their meaning.

struct Element {
  std::uint16_t bits;
};

DEVICE float to_float(std::uint16_t bits) {
#ifdef BFLOAT
  const unsigned wide = unsigned(bits) << 16;
#else
  const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, rest = bits & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * std::ldexp(float(rest), -24);
  const unsigned wide = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | rest << 13;
#endif
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

DEVICE std::uint16_t to_bits(float value) {
  unsigned wide;
  std::memcpy(&wide, &value, 4);
  if (value != value) return 0x7FFF;
#ifdef BFLOAT
  return std::uint16_t(wide + 0x7FFF + (wide >> 16 & 1) >> 16);
#else
  const std::uint16_t sign = std::uint16_t(wide >> 16 & 0x8000);
  const float size = std::fabs(value);
  if (size >= 65520.0f) return sign | 0x7C00;
  int exponent;
  std::frexp(size, &exponent);
  const int scale = size < 6.103515625e-5f ? 24 : 11 - exponent;  // to whole units of the last place
  const float rounded = std::nearbyint(std::ldexp(size, scale));
  if (scale == 24) return sign | std::uint16_t(rounded);
  const bool carried = rounded == 2048.0f;
  const unsigned biased = exponent + 14 + carried;
  return sign | std::uint16_t(biased << 10 | (carried ? 0 : unsigned(rounded) - 1024));
#endif
}

DEVICE unsigned pack(float low, float high) {
  return to_bits(low) | unsigned(to_bits(high)) << 16;
}

// The machine.

[[noreturn]] inline void fail(const char* what, long long detail = 0) {
  std::fprintf(stderr, "emulation: %s (%lld)\n", what, detail);
  std::fflush(stderr);
  std::_Exit(70);
}

struct Barrier {
  std::mutex lock;
  std::condition_variable changed;
  int arrivals = 0, pending = 0;
  long long bytes = 0;
  unsigned phase = 0;

  void settle() {  // under the lock
    if (pending > 0 || bytes != 0) return;
    if (pending < 0) fail("more arrivals at a barrier than it counts");
    pending = arrivals;
    phase ^= 1;
    changed.notify_all();
  }
  void arrive(long long expected) {
    std::lock_guard<std::mutex> held(lock);
    --pending;
    bytes += expected;
    settle();
  }
  void complete(long long count) {
    std::lock_guard<std::mutex> held(lock);
    bytes -= count;
    settle();
  }
  void wait(unsigned parity) {
    std::unique_lock<std::mutex> held(lock);
    if (!changed.wait_for(held, std::chrono::seconds(60), [&] { return phase != parity; }))
      fail("a barrier was waited for in vain");
  }
};

constexpr int SHARED_BYTES = 232448;

struct Warp {
  std::barrier<> meet{32};
  unsigned words[32];
};

struct Block {
  explicit Block(int threads) : all(threads), part(threads - 128), warps(threads / 32) {
    memory = std::make_unique<unsigned char[]>(SHARED_BYTES + 1024);
    base = reinterpret_cast<unsigned char*>(
        (reinterpret_cast<std::uintptr_t>(memory.get()) + 1023) / 1024 * 1024);
    std::memset(base, 0xFF, SHARED_BYTES);  // NaN, were it read
  }
  std::unique_ptr<unsigned char[]> memory;
  unsigned char* base;
  std::atomic<int> written[SHARED_BYTES / 16] = {};  // when, of a unit that its writer's fence does not cover
  std::map<unsigned, std::unique_ptr<Barrier>> barriers;
  std::barrier<> all, part;
  std::vector<Warp> warps;
  unsigned rank = 0;
};

struct Cluster {
  std::vector<std::unique_ptr<Block>> blocks;
  std::unique_ptr<std::barrier<>> all;
};

struct Copy {
  unsigned to;
  const void* from;
  bool valid;
};

struct Product {
  float* sums;
  int count;
  std::uint64_t left, right;
  int fenced;
};

inline std::vector<std::pair<const char*, const char*>> readable;
inline Cluster* cluster = nullptr;
inline thread_local Block* block = nullptr;
inline thread_local std::vector<std::vector<Copy>> copies(1);
inline std::atomic<int> now{0};
inline thread_local int fenced = 0;  // when
inline thread_local std::vector<std::pair<unsigned, int>> unfenced;
inline thread_local std::vector<std::vector<Product>> products(1);
inline thread_local Index threadIdx, blockIdx;
inline Index gridDim;

DEVICE void check_source(const void* from, unsigned bytes) {
  const char* begin = static_cast<const char*>(from);
  for (const auto& [first, last] : readable)
    if (begin >= first && begin + bytes <= last) return;
  fail("a copy reads memory that is not its own", bytes);
}

DEVICE unsigned char* shared_at(unsigned address, unsigned bytes) {
  if (address + bytes > SHARED_BYTES || address % (bytes >= 16 ? 16 : 1)) fail("shared memory", address);
  return block->base + address;
}

DEVICE unsigned char* dynamic_shared() { return block->base; }
DEVICE unsigned shared_address(const void* pointer) {
  return unsigned(static_cast<const unsigned char*>(pointer) - block->base);
}

DEVICE void __syncthreads() { block->all.arrive_and_wait(); }

DEVICE unsigned exchange(unsigned value, int from) {
  Warp& warp = block->warps[threadIdx.x / 32];
  warp.words[threadIdx.x % 32] = value;
  warp.meet.arrive_and_wait();
  const unsigned got = warp.words[from % 32];
  warp.meet.arrive_and_wait();
  return got;
}
DEVICE int __shfl_sync(unsigned, int value, int from) { return int(exchange(unsigned(value), from)); }
DEVICE unsigned __shfl_xor_sync(unsigned, unsigned value, int mask) {
  return exchange(value, int(threadIdx.x % 32) ^ mask);
}

DEVICE Barrier& barrier_at(Block& of, unsigned address) {
  const auto found = of.barriers.find(address);
  if (found == of.barriers.end()) fail("no barrier was set up there", address);
  return *found->second;
}
DEVICE void barrier_init(unsigned address, int arrivals) {
  auto made = std::make_unique<Barrier>();
  made->arrivals = made->pending = arrivals;
  block->barriers[address] = std::move(made);
}
DEVICE void barrier_inits_visible() {}
DEVICE void barrier_arrive(unsigned address) { barrier_at(*block, address).arrive(0); }
DEVICE void barrier_arrive_expecting(unsigned address, unsigned bytes) {
  barrier_at(*block, address).arrive(bytes);
}
DEVICE void barrier_arrive_remote(unsigned address, unsigned rank) {
  barrier_at(*cluster->blocks.at(rank), address).arrive(0);
}
DEVICE void barrier_wait(unsigned address, unsigned parity) {
  barrier_at(*block, address).wait(parity);
}
DEVICE unsigned cluster_rank() { return block->rank; }
template <int COUNT>
DEVICE void consumers_sync() { block->part.arrive_and_wait(); }
DEVICE float4 read_remote(unsigned address, unsigned rank) {
  float4 value;
  std::memcpy(&value, cluster->blocks.at(rank)->base + address, 16);
  return value;
}
DEVICE void cluster_sync() { cluster->all->arrive_and_wait(); }

DEVICE void copy_async(unsigned to, const void* from, bool valid) {
  copies.back().push_back({to, from, valid});
}
DEVICE void commit_copies() { copies.emplace_back(); }
DEVICE void carry_out(std::vector<Copy>& group) {
    for (const Copy& copy : group) {
      unsigned char* target = shared_at(copy.to, 16);
      if (copy.valid) {
        check_source(copy.from, 16);
        std::memcpy(target, copy.from, 16);
      } else {
        std::memset(target, 0, 16);
      }
      const int time = ++now;
      block->written[copy.to / 16] = time;
      unfenced.push_back({copy.to / 16, time});
    }
    group.clear();
}
template <int PENDING>
DEVICE void wait_copies() {
  while (copies.size() > PENDING + 1) {
    carry_out(copies.front());
    copies.erase(copies.begin());
  }
}
DEVICE void arrive_after_copies(unsigned barrier) {
  for (auto& group : copies) carry_out(group);
  barrier_arrive(barrier);
}
DEVICE void fence_for_tensor_cores() {
  for (auto [unit, time] : unfenced) block->written[unit].compare_exchange_strong(time, 0);
  unfenced.clear();
  fenced = now;
}

DEVICE void copy_to(Block& of, unsigned to, const void* from, unsigned bytes, unsigned barrier) {
  check_source(from, bytes);
  if (to + bytes > SHARED_BYTES || to % 16 || bytes % 16) fail("a bulk copy's place", to);
  std::memcpy(of.base + to, from, bytes);
  barrier_at(of, barrier).complete(bytes);
}
DEVICE void copy_bulk(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
  copy_to(*block, to, from, bytes, barrier);
}
DEVICE void copy_bulk_multicast(unsigned to, const void* from, unsigned bytes, unsigned barrier,
                                unsigned short blocks) {
  for (auto& one : cluster->blocks)
    if (blocks >> one->rank & 1) copy_to(*one, to, from, bytes, barrier);
}

template <int COUNT>
DEVICE void give_registers() {}
template <int COUNT>
DEVICE void take_registers() {}

// PTX, asynchronous warpgroup matrices: descriptor fields, canonical layouts in units of 16 bytes with
// the 128-byte swizzle, and which thread holds which sum.
struct Operand {
  unsigned start, leading, stride;
  int seen;

  Operand(std::uint64_t descriptor, int fenced)
      : seen(fenced), start(unsigned(descriptor & 0x3FFF) << 4),
        leading(unsigned(descriptor >> 16 & 0x3FFF) << 4),
        stride(unsigned(descriptor >> 32 & 0x3FFF) << 4) {
    if (descriptor >> 62 != 1) fail("not the 128-byte swizzle");
  }
  float at(unsigned address) const {
    address ^= (address >> 7 & 7) << 4;
    if (block->written[address / 16] > seen) fail("tensor cores read what no fence covers", address);
    std::uint16_t bits;
    std::memcpy(&bits, shared_at(address, 2), 2);
    return to_float(bits);
  }
  float k_major(int row, int k) const {
    return at(start + row / 8 * stride + row % 8 * 128 + k * 2);
  }
  float mn_major(int n, int k) const {
    return at(start + n / 64 * leading + k / 8 * stride + k % 8 * 128 + n % 64 * 2);
  }
};

DEVICE void products_begin() {}
DEVICE void products_commit() { products.emplace_back(); }
DEVICE void compute(const Product& product) {
  const Operand left(product.left, product.fenced), right(product.right, product.fenced);
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  float a[2][16];
  for (int h = 0; h < 2; ++h)
    for (int k = 0; k < 16; ++k) a[h][k] = left.k_major(16 * warp + lane / 4 + 8 * h, k);
  for (int j = 0; j < product.count / 4; ++j)
    for (int e = 0; e < 2; ++e)
      for (int k = 0; k < 16; ++k) {
        const float b = right.mn_major(8 * j + 2 * (lane % 4) + e, k);
        for (int h = 0; h < 2; ++h) product.sums[4 * j + 2 * h + e] += a[h][k] * b;
      }
}
template <int PENDING>
DEVICE void products_wait() {
  while (products.size() > PENDING + 1) {
    for (const Product& product : products.front()) compute(product);
    products.erase(products.begin());
  }
  block->warps[threadIdx.x / 32].meet.arrive_and_wait();  // a warp waits as one
}
DEVICE unsigned long long describe(unsigned address, unsigned leading, unsigned stride) {
  return (std::uint64_t(address & 0x3FFFF) >> 4) | std::uint64_t(leading >> 4) << 16 |
         std::uint64_t(stride >> 4) << 32 | 1ull << 62;
}
template <int COUNT>
DEVICE void multiply(float (&d)[COUNT], unsigned long long left, unsigned long long right) {
  const Product product{d, COUNT, left, right, fenced};
#ifdef EAGER
  compute(product);
#else
  products.back().push_back(product);
#endif
}

// Runs `kernel` for every thread of a grid, a cluster at a time.
template <typename Kernel>
void launch(Index grid, int threads, int cluster_size, const Kernel& kernel) {
  grid.y = grid.y ? grid.y : 1;
  gridDim = grid;
  if (grid.x % cluster_size) fail("the grid is no whole number of clusters", grid.x);
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned first = 0; first < grid.x; first += cluster_size) {
      Cluster made;
      made.all = std::make_unique<std::barrier<>>(threads * cluster_size);
      std::vector<std::thread> running;
      for (int rank = 0; rank < cluster_size; ++rank) {
        made.blocks.push_back(std::make_unique<Block>(threads));
        made.blocks.back()->rank = rank;
      }
      cluster = &made;
      for (int rank = 0; rank < cluster_size; ++rank)
        for (int thread = 0; thread < threads; ++thread)
          running.emplace_back([&, rank, thread] {
            block = made.blocks[rank].get();
            threadIdx = {unsigned(thread), 0, 0};
            blockIdx = {first + rank, y, 0};
            kernel();
            if (copies.size() > 1 || products.size() > 1) fail("a thread ends with work under way");
          });
      for (std::thread& thread : running) thread.join();
    }
}
