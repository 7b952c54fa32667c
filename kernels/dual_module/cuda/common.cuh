#pragma once
#include <cuda_fp16.h>

#include "instructions.cuh"

// The input vector, sums over warps and products of rows.
//
// Compile-time constants of all kernels: COUNT_0 and COUNT_1, numbers in the input's parts (the
// second may be none), K_0 and K_1, the numbers that they are projected to, ALIGNED, whether both
// lie at multiples of 8 bytes, BITS of a little weight (4 or 8), WARPS of a block, CLUSTER of
// blocks, HELD chunks of the input whose signs a warp holds while the vector is still coming in,
// GROUPS of chunks that blocks of a cluster divide among themselves, DEEP loads of a row that are on
// the way, OVERLAP, whether a launch begins while the one in front still runs, HOPPER where there are
// clusters and barriers.
//
// With OVERLAP whatever does not come from another kernel is on its way before that one has ended.

constexpr int THREADS = 32 * WARPS;

#if CLUSTER > 1
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif

DEVICE constexpr int over(int value, int each) { return (value + each - 1) / each; }
DEVICE constexpr int up_to(int value, int multiple) { return over(value, multiple) * multiple; }
DEVICE constexpr int larger(int a, int b) { return a > b ? a : b; }
DEVICE constexpr int smaller(int a, int b) { return a < b ? a : b; }

constexpr int PARTS = COUNT_1 > 0 ? 2 : 1;
constexpr int ROOM_0 = up_to(COUNT_0, 64), ROOM_1 = up_to(COUNT_1, 64), ROOM = ROOM_0 + ROOM_1;
constexpr int CHUNKS_0 = over(COUNT_0, 256), CHUNKS = CHUNKS_0 + over(COUNT_1, 256);
constexpr int TILES_0 = over(K_0, 16), TILES_1 = over(K_1, 16);
constexpr int BYTES_0 = up_to(K_0, 32), BYTES = BYTES_0 + up_to(K_1, 32);
constexpr int LITTLE = BYTES * BITS / 8;  // bytes of a row's little weights

DEVICE float warp_sum(float value) {
#pragma unroll
  for (int far = 16; far > 0; far /= 2) value += __shfl_xor_sync(~0u, value, far);
  return value;
}

// The thread that starts barriers and begins copies: of a warp that has less to do than the first.
constexpr int BRINGS = THREADS - 32;

// Whether this thread begins to bring bytes to shared memory: without barriers all do so together.
#ifdef HOPPER
DEVICE bool brings() { return threadIdx.x == BRINGS; }
#else
DEVICE bool brings() { return true; }
#endif

// Begins to bring bytes (a multiple of 16): `brought` waits for all of them. On Hopper the barrier
// has been told how many bytes come.
DEVICE void bring(void* to, const void* from, int bytes, unsigned barrier) {
#ifdef HOPPER
  if (bytes > 0) copy_block(shared_address(to), from, bytes, barrier);
#else
  const unsigned at = shared_address(to);
#pragma unroll 1
  for (int i = threadIdx.x * 16; i < bytes; i += THREADS * 16)
    copy_async<16>(at + i, static_cast<const unsigned char*>(from) + i, true);
  commit_copies();
#endif
}
DEVICE void brought(unsigned barrier) {
#ifdef HOPPER
  wait_barrier(barrier, 0);
#else
  wait_copies<0>();  // of this thread: a barrier of the block follows
#endif
}

DEVICE float2 numbers(unsigned both) {
  return __half22float2(*reinterpret_cast<__half2*>(&both));
}

DEVICE float dot(const uint4& a, const uint4& b, float sum) {
  const unsigned left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 x = numbers(left[i]), y = numbers(right[i]);
    sum = __fmaf_rn(x.x, y.x, sum);
    sum = __fmaf_rn(x.y, y.y, sum);
  }
  return sum;
}

// The product of a row of COUNT halves (a multiple of 8) with a vector in shared memory, by a warp;
// up to DEEP loads of 16 bytes are on the way.
template <int COUNT>
DEVICE float row_product(const __half* row, const __half* vector, int lane) {
  const uint4* const from = reinterpret_cast<const uint4*>(row) + lane;
  const uint4* const with = reinterpret_cast<const uint4*>(vector) + lane;
  constexpr int EACH = over(COUNT / 8, 32);
  float sum = 0.0f;
#pragma unroll(EACH <= 2 * DEEP ? 2 : 1)
  for (int base = 0; base < EACH; base += DEEP) {
    uint4 loaded[DEEP];
#pragma unroll
    for (int i = 0; i < DEEP; ++i)
      if (32 * (base + i) + lane < COUNT / 8) loaded[i] = load_once(from + 32 * (base + i));
#pragma unroll
    for (int i = 0; i < DEEP; ++i)
      if (32 * (base + i) + lane < COUNT / 8)
        sum = dot(loaded[i], with[32 * (base + i)], sum);
  }
  return warp_sum(sum);
}

// The input vector's parts. They may come from the kernel in front, and are read past the
// first-level cache, which may hold what lay there before.
struct Vector {
  const __half* part[2];
};

// Four halves of a part from `begin` on; zeros beyond its end.
template <int COUNT>
DEVICE uint2 four_of(const __half* part, int begin) {
  const unsigned short* const from = reinterpret_cast<const unsigned short*>(part) + begin;
  if (ALIGNED && begin + 4 <= COUNT) return load_fresh(reinterpret_cast<const uint2*>(from));
  if (ALIGNED && COUNT % 4 == 0) return {0u, 0u};
  unsigned each[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) each[i] = begin + i < COUNT ? load_fresh(from + i) : 0u;
  return {each[0] | each[1] << 16, each[2] | each[3] << 16};
}

// Has the vector come into the second-level cache, where the kernel in front may still change it.
template <int COUNT>
DEVICE void expect_part(const __half* part) {
  const char* const from = reinterpret_cast<const char*>(part);
#pragma unroll 1
  for (int i = threadIdx.x; COUNT > 0 && i <= over(2 * COUNT, 128); i += THREADS)
    prefetch_line(from + min(128 * i, 2 * COUNT - 2));
}
DEVICE void expect_vector(const Vector& vector) {
  expect_part<COUNT_0>(vector.part[0]);
  expect_part<COUNT_1>(vector.part[1]);
}

DEVICE unsigned largest_of(unsigned two) { return max(two & 0x7fffu, two >> 16 & 0x7fffu); }

// What a thread has of the vector's parts, behind each other, while it is coming in.
constexpr int VECTOR_TURNS = over(ROOM / 4, THREADS);

DEVICE void begin_vector(uint2 (&got)[VECTOR_TURNS], const Vector& vector) {
#pragma unroll
  for (int i = 0; i < VECTOR_TURNS; ++i) {
    const int begin = 4 * (threadIdx.x + THREADS * i);
    if (begin < ROOM_0) {
      got[i] = four_of<COUNT_0>(vector.part[0], begin);
    } else if (begin < ROOM) {
      got[i] = four_of<COUNT_1>(vector.part[1], begin - ROOM_0);
    }
  }
}

// Stores the vector in shared memory; tells the largest of each part in size that the thread has
// seen, as bits of a half: NaN is larger than all.
DEVICE void end_vector(__half* to, const uint2 (&got)[VECTOR_TURNS], unsigned (&largest)[PARTS]) {
#pragma unroll
  for (int i = 0; i < VECTOR_TURNS; ++i) {
    const int begin = 4 * (threadIdx.x + THREADS * i);
    if (begin >= ROOM) continue;
    *reinterpret_cast<uint2*>(to + begin) = got[i];
    const unsigned most = max(largest_of(got[i].x), largest_of(got[i].y));
    largest[0] = max(largest[0], begin < ROOM_0 ? most : 0u);
    if (PARTS == 2) largest[PARTS - 1] = max(largest[PARTS - 1], begin < ROOM_0 ? 0u : most);
  }
}

// The largest of all threads, for each part; `scratch` has room for PARTS * WARPS. A barrier of the
// block stands between the two halves of this.
DEVICE void show_largest(unsigned* scratch, const unsigned (&largest)[PARTS]) {
#pragma unroll
  for (int part = 0; part < PARTS; ++part) {
    const unsigned most = warp_largest(largest[part]);
    if (threadIdx.x % 32 == 0) scratch[part * WARPS + threadIdx.x / 32] = most;
  }
}
DEVICE unsigned shown_largest(const unsigned* scratch, int part) {
  const int lane = threadIdx.x % 32;
  return warp_largest(lane < WARPS ? scratch[part * WARPS + lane] : 0u);
}

// The same as a number, where halves were shown.
DEVICE float shown_size(const unsigned* scratch, int part) {
  return __half2float(__ushort_as_half(shown_largest(scratch, part)));
}

// The whole numbers that ROWS rows of little weights in shared memory give with bytes, by a warp:
// with those of the first part and with the others. Of 4 bits, byte i of a word of 8 weights holds
// weights i (low half) and i + 4: two words of bytes come out with a shift and a mask, as signed
// numbers times 16.
template <int ROWS>
DEVICE void little_products(int (&found)[ROWS][PARTS], const unsigned char* const (&rows)[ROWS],
                            const signed char* bytes, int lane) {
  constexpr int EACH = 32 / BITS, WORDS = BYTES / EACH;  // weights of a word, words of a row
  int sums[ROWS][PARTS] = {};
#pragma unroll(over(WORDS, 32) <= 8 ? 8 : 4)
  for (int base = 0; base < WORDS; base += 32) {
    const int at = base + lane;
    if (at < WORDS) {
      int2 input;
      if constexpr (BITS == 8) {
        input = {reinterpret_cast<const int*>(bytes)[at], 0};
      } else {
        input = reinterpret_cast<const int2*>(bytes)[at];
      }
#pragma unroll
      for (int row = 0; row < ROWS; ++row) {
        const unsigned word = reinterpret_cast<const unsigned*>(rows[row])[at];
        int sum;
        if constexpr (BITS == 8) {
          sum = __dp4a(static_cast<int>(word), input.x, 0);
        } else {
          sum = __dp4a(static_cast<int>(word << 4 & 0xf0f0f0f0u), input.x, 0);
          sum = __dp4a(static_cast<int>(word & 0xf0f0f0f0u), input.y, sum);
        }
        sums[row][0] += at < BYTES_0 / EACH ? sum : 0;
        if (PARTS == 2) sums[row][PARTS - 1] += at < BYTES_0 / EACH ? 0 : sum;
      }
    }
  }
#pragma unroll
  for (int row = 0; row < ROWS; ++row)
#pragma unroll
    for (int part = 0; part < PARTS; ++part)
      found[row][part] = warp_sum(sums[row][part]) / (BITS == 8 ? 1 : 16);
}
