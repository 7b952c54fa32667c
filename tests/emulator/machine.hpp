// A GPU's blocks on a CPU: every thread of a block is a fiber. Blocks run one after the other, a
// cluster's (BLOCKS_TOGETHER) at once, or all at once where the source defines COOPERATIVE; where
// several do, only dynamic shared memory is each block's own.
//
// It is slow, and strict where a GPU is lenient: an asynchronous copy happens when it is waited
// for, not before, so that a wait that is missing gives wrong results here every time. With a seed
// other than 0 threads run in an order drawn from it, and copies happen some time after they are
// begun: a copy that comes too early for what it overwrites is found then. What it cannot tell:
// races that memory ordering alone prevents (fences), and time.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __restrict__
#define __align__(n) __attribute__((aligned(n)))

using std::max;
using std::min;

extern "C" {
alignas(1024) unsigned char memory[1 << 18];  // dynamic shared memory
}

namespace machine {

constexpr int WARP = 32;
constexpr size_t STACK_BYTES = 256 << 10;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;
  uint3 index{};
  int number = 0;
  bool done = false;
  const std::function<bool()>* ready = nullptr;  // whether it may go on; null if it may
  std::deque<std::vector<std::function<void()>>> copies;  // committed groups of copies
  std::vector<std::function<void()>> open;                // copies of the group being made
  std::deque<std::vector<std::function<void()>>> products;  // the same for products
  std::vector<std::function<void()>> begun;
  std::vector<std::pair<unsigned, long>> unfenced;  // units that copies of its own wrote, and when
  long fenced = 0;
};

inline Fiber* current = nullptr;
inline ucontext_t home;
inline uint3 block_index, grid_size, block_size;
inline std::function<void()> body;
inline long progress = 0;  // counts whatever lets some fiber go on
inline unsigned long long seed = 0;
inline std::mt19937_64 draw;
inline std::function<void()> meanwhile;  // with a seed, called between the blocks' turns
inline std::function<void()> forget;     // called before blocks begin, after a launch that failed too

inline std::string failure;

// Ends the launch with a reason.
inline void fail(const char* why) {
  failure = std::string(why) + " (block " + std::to_string(block_index.x) + ", thread " +
            std::to_string(current ? current->number : -1) + ")";
  if (current) swapcontext(&current->context, &home);
}

inline void yield() { swapcontext(&current->context, &home); }

// Waits without being resumed for it: the block's turn looks whether the condition holds.
template <class Condition>
void wait_until(Condition condition) {
  const std::function<bool()> ready = condition;
  while (!ready()) {
    current->ready = &ready;
    yield();
    current->ready = nullptr;
  }
  ++progress;
}

// Threads that meet: the last of `count` to come lets all go on.
struct Meeting {
  int came = 0;
  long round = 0;
  bool come(int count) {
    if (++came < count) return false;
    came = 0, ++round, ++progress;
    return true;
  }
  void meet(int count) {
    const long mine = round;
    if (!come(count)) wait_until([&] { return round != mine; });
  }
};

// Values that the threads of a warp show each other.
struct Exchange {
  unsigned long long shown[WARP];
};

struct Block {
  uint3 index{};
  std::vector<Fiber> fibers;
  std::map<int, Meeting> meetings;  // by name: 0 the block, 1 to 15 named, 100 + warp
  std::map<int, Exchange> exchanges;
  std::vector<unsigned char> shared;
};
inline Block* block = nullptr;
inline std::vector<Block> running;  // blocks that run side by side
inline Meeting all_meet;

inline int rank() { return static_cast<int>(block - running.data()); }
inline unsigned char* shared_of(Block& other) {
  return &other == block ? memory : other.shared.data();
}
inline int warp() { return current->number / WARP; }
inline int lane() { return current->number % WARP; }
inline void meet(int name, int count) { block->meetings[name].meet(count); }
inline void meet_warp() { meet(100 + warp(), WARP); }

// Shows a value to the warp, and returns what all its threads show.
inline Exchange show(unsigned long long value) {
  Exchange& exchange = block->exchanges[warp()];
  exchange.shown[lane()] = value;
  meet_warp();
  const Exchange all = exchange;
  meet_warp();
  return all;
}

inline void enter() {
  body();
  current->done = true;
  ++progress;
  swapcontext(&current->context, &home);
}

inline void prepare(Block& made, uint3 index) {
  const int threads = block_size.x * block_size.y * block_size.z;
  made.index = index;
  made.fibers = std::vector<Fiber>(threads);
  made.shared.assign(sizeof memory, 0xff);  // NaN in every type
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = made.fibers[i];
    fiber.number = i;
    fiber.index = {i % block_size.x, i / block_size.x % block_size.y,
                   i / block_size.x / block_size.y};
    fiber.stack.reset(new unsigned char[STACK_BYTES]);  // not cleared: few pages are ever used
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = &home;
    makecontext(&fiber.context, enter, 0);
  }
}

// Runs every thread of a block until it waits; returns how many ended.
inline int turn(Block& own) {
  int ended = 0;
  block = &own, block_index = own.index;
  std::memcpy(memory, own.shared.data(), sizeof memory);
  std::vector<int> order(own.fibers.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  if (seed) std::shuffle(order.begin(), order.end(), draw);
  for (int number : order) {
    Fiber& fiber = own.fibers[number];
    current = &fiber;
    if (fiber.done || (fiber.ready && !(*fiber.ready)())) continue;
    swapcontext(&home, &fiber.context);
    if (!failure.empty()) break;
    if (fiber.done) ++ended;
  }
  current = nullptr;
  std::memcpy(own.shared.data(), memory, sizeof memory);
  block = nullptr;
  return ended;
}

inline void run_blocks() {
  size_t left = 0;
  for (const Block& own : running) left += own.fibers.size();
  while (left > 0) {
    const long before = progress;
    for (Block& own : running) {
      left -= turn(own);
      if (!failure.empty()) return;
      if (seed && meanwhile) meanwhile();
    }
    if (left > 0 && progress == before) return fail("all threads wait for each other");
  }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}

// Returns why the launch ended early; empty if it did not.
template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block,
                   unsigned long long order, int count, const int* sizes, void** arguments) {
  const int expected[] = {static_cast<int>(sizeof(A))...};
  if (count != static_cast<int>(sizeof...(A)) || !std::equal(sizes, sizes + count, expected))
    return "it has other parameters";
  grid_size = {grid[0], grid[1], grid[2]}, block_size = {block[0], block[1], block[2]};
  failure.clear();
  seed = order, draw.seed(order);
  body = [=] { call(kernel, arguments, std::index_sequence_for<A...>()); };
#if defined(COOPERATIVE)
  const unsigned together = grid[0] * grid[1] * grid[2];
#elif defined(BLOCKS_TOGETHER)
  const unsigned together = BLOCKS_TOGETHER;
#else
  const unsigned together = 1;
#endif
  struct AtEnd {
    ~AtEnd() { std::vector<Block>().swap(running); }  // a library stays loaded, stacks need not
  } at_end;
  for (unsigned first = 0; first < grid[0] * grid[1] * grid[2]; first += together) {
    if (forget) forget();
    running = std::vector<Block>(together);
    all_meet = Meeting();
    for (unsigned i = 0; i < together; ++i) {
      const unsigned at = first + i;
      prepare(running[i], {at % grid[0], at / grid[0] % grid[1], at / grid[0] / grid[1]});
    }
    run_blocks();
    if (!failure.empty()) return failure.c_str();
  }
  return "";
}

}  // namespace machine

#define threadIdx (machine::current->index)
#define blockIdx (machine::block_index)
#define gridDim (machine::grid_size)
#define blockDim (machine::block_size)

inline void __syncthreads() {
  using namespace machine;
  meet(0, block_size.x * block_size.y * block_size.z);
}
inline void __syncwarp(unsigned = ~0u) { machine::meet_warp(); }

inline unsigned __shfl_xor_sync(unsigned, unsigned value, int mask) {
  return static_cast<unsigned>(machine::show(value).shown[machine::lane() ^ mask]);
}
inline int __shfl_xor_sync(unsigned mask, int value, int far) {
  return static_cast<int>(__shfl_xor_sync(mask, static_cast<unsigned>(value), far));
}
inline float __shfl_xor_sync(unsigned mask, float value, int far) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  bits = __shfl_xor_sync(mask, bits, far);
  std::memcpy(&value, &bits, 4);
  return value;
}

inline int __shfl_sync(unsigned, int value, int lane) {
  return static_cast<int>(machine::show(static_cast<unsigned>(value)).shown[lane]);
}
inline unsigned __ballot_sync(unsigned, bool value) {
  const auto all = machine::show(value);
  unsigned bits = 0;
  for (int i = 0; i < machine::WARP; ++i) bits |= static_cast<unsigned>(all.shown[i] != 0) << i;
  return bits;
}
inline void __threadfence_block() {}
inline void __threadfence() {}
inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; ++i)
    sum += static_cast<signed char>(a >> 8 * i) * static_cast<signed char>(b >> 8 * i);
  return sum;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 4; ++i) sum += (a >> 8 * i & 0xff) * (b >> 8 * i & 0xff);
  return sum;
}
template <class T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to += value;
  return before;
}

inline unsigned atomicOr(unsigned* to, unsigned value) {
  const unsigned before = *to;
  *to |= value;
  return before;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }

inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }

template <class T>
T __ldg(const T* at) { return *at; }
template <class T>
T __ldcs(const T* at) { return *at; }
template <class T>
void __stcs(T* at, T value) { *at = value; }

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits of one size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline int __float_as_int(float x) { return same_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
  unsigned bytes = 0;
  for (int i = 0; i < 4; ++i) bytes |= (both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return bytes;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }

// Shared memory has 32-bit addresses: bytes from the beginning of the dynamic part.
inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(static_cast<const unsigned char*>(pointer) - memory);
}
inline unsigned char* at_shared(unsigned address) { return memory + static_cast<int>(address); }
