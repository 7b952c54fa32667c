#pragma once
#include <cuda_fp16.h>

#include "instructions.cuh"

// Sums over warps, the projection that a cluster of blocks computes, and products of rows.
//
// Compile-time constants of all kernels: COUNT_0 and COUNT_1, numbers in the input's parts (the
// second may be none), K_0 and K_1, the numbers that they are projected to, ALIGNED, whether both
// lie at multiples of 8 bytes, BITS of a little weight (4 or 8), WARPS of a block, CLUSTER of
// blocks, HELD products of a projection whose signs a warp holds while the vector is still coming
// in, DEEP loads of a row that are on the way, OVERLAP, whether a launch begins while the one in
// front still runs, HOPPER where there are clusters and barriers.
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

// Begins to bring bytes (a multiple of 16) to shared memory: `brought` waits for all of them. On
// Hopper the barrier has been told how many bytes come.
DEVICE void bring(void* to, const void* from, int bytes, unsigned barrier) {
#ifdef HOPPER
  if (threadIdx.x == BRINGS && bytes > 0) copy_block(shared_address(to), from, bytes, barrier);
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

DEVICE float worth_of(float largest) {
  return largest == 0.0f ? 1.0f : __fdiv_rn(largest, 127.0f);  // NaN stays NaN
}

// What a number is worth in bytes, and the inverse of that.
struct Unit {
  float worth, inverse;
};
DEVICE Unit unit_of(float largest) {
  const float worth = worth_of(largest);
  return {worth, __fdividef(1.0f, worth)};
}
DEVICE Unit of_part(const Unit (&units)[PARTS], bool second) {  // without a run-time index
  const Unit a = units[0], b = units[PARTS - 1];
  return {second ? b.worth : a.worth, second ? b.inverse : a.inverse};
}

// The division is carried out only where its last bits decide: it would cost more than all the
// rest. What is near is off by 5e-5 at most.
DEVICE int to_byte(float value, Unit unit) {
  const float near = __fmul_rn(value, unit.inverse);
  float whole = rintf(near);
  if (fabsf(near - whole) > 0.4999f) whole = rintf(__fdiv_rn(value, unit.worth));
  return static_cast<int>(fminf(fmaxf(whole, -127.0f), 127.0f));
}

// Rounds 32 numbers to bytes, of which a warp writes the eight planes of bits; zeros beyond
// `count`.
DEVICE void write_planes(unsigned* to, const __half* vector, int count, Unit unit, int lane) {
  const int byte = lane < count ? to_byte(__half2float(vector[lane]), unit) : 0;
  unsigned mine = 0;
#pragma unroll
  for (int plane = 0; plane < 8; ++plane) {
    const unsigned bits = __ballot_sync(~0u, byte >> plane & 1);
    if (lane == plane) mine = bits;
  }
  if (lane < 8) to[lane] = mine;
}

// A cluster's blocks divide the projection among themselves: first the vector's parts, then each
// part's chunks of 256 inputs into GROUPS runs, then its tiles of 16 numbers. So a block rounds only
// what it projects, and sends a few sums to the others. A block without a cluster has all parts.
constexpr int SHARES = larger(CLUSTER, PARTS), OF_BLOCK = SHARES / CLUSTER;
constexpr int TILE_GROUPS = SHARES / (PARTS * GROUPS);
static_assert(SHARES == PARTS * GROUPS * TILE_GROUPS, "blocks share evenly");
constexpr int OWN_CHUNKS = over(larger(CHUNKS_0, CHUNKS - CHUNKS_0), GROUPS);
constexpr int OWN_TILES = over(larger(TILES_0, TILES_1), TILE_GROUPS);

// A warp's job is a tile of a share and RUN of its chunks, whose signs lie together.
constexpr int RUN = smaller(HELD, OWN_CHUNKS), RUNS = over(OWN_CHUNKS, RUN);
constexpr int JOBS = OF_BLOCK * OWN_TILES * RUNS;
constexpr int PLANES = 64 * RUN * RUNS;  // words of a share: beyond its chunks they meet no sign
constexpr int OWN_SUMS = 16 * OF_BLOCK * OWN_TILES, SUMS = OWN_SUMS * CLUSTER;
constexpr int AWAITED = 4 * (SUMS - OWN_SUMS);  // bytes of the projection from the other blocks

struct Projection {
  const uint4* signs;  // job by job: which are +1, then which are -1, as the tensor cores take them
  unsigned* planes;    // of this block's shares
  int* sums;           // share by share

  // A number of a part.
  DEVICE int of(bool second, int number) const {
    constexpr int PART = 16 * OWN_TILES * TILE_GROUPS;
    int sum = 0;
#pragma unroll
    for (int group = 0; group < GROUPS; ++group)
      sum += sums[PART * (PARTS * group + second) + number];
    return sum;
  }
  DEVICE int* own() const { return sums + OWN_SUMS * cluster_rank(); }
  DEVICE void clear() const {
    if (RUNS == 1) return;
    for (int i = threadIdx.x; i < OWN_SUMS; i += THREADS) own()[i] = 0;
  }
  DEVICE const uint4* of_job(int job) const {
    return signs + 64 * RUN * (JOBS * cluster_rank() + job);
  }
};

DEVICE int part_of(int share) { return share / TILE_GROUPS % PARTS; }

DEVICE void load_signs(uint4 (&held)[RUN][2], const uint4* signs, int lane) {
#pragma unroll
  for (int i = 0; i < RUN; ++i) {
    held[i][0] = __ldg(signs + 64 * i + lane);
    held[i][1] = __ldg(signs + 64 * i + 32 + lane);
  }
}

// Loads the signs of a warp's first job; the others' come nearer.
DEVICE void begin_signs(uint4 (&held)[RUN][2], const Projection& p, int warp, int lane) {
  if (warp < JOBS) load_signs(held, p.of_job(warp), lane);
#pragma unroll 1
  for (int job = warp + WARPS; job < JOBS; job += WARPS)
    if (lane == 0) prefetch(p.of_job(job), 1024 * RUN);
}

// Computes one job, by a warp.
DEVICE void multiply_signs(const uint4 (&signs)[RUN][2], const Projection& p, int job, int lane) {
  const unsigned* const planes =
      p.planes + PLANES * (job / (OWN_TILES * RUNS)) + 64 * RUN * (job % RUNS);
  int plus[4] = {}, minus[4] = {};
#pragma unroll
  for (int i = 0; i < RUN; ++i) {
    const unsigned low = planes[64 * i + 8 * (lane % 4) + lane / 4];
    const unsigned high = planes[64 * i + 8 * (4 + lane % 4) + lane / 4];
    const unsigned positive[4] = {signs[i][0].x, signs[i][0].y, signs[i][0].z, signs[i][0].w};
    const unsigned negative[4] = {signs[i][1].x, signs[i][1].y, signs[i][1].z, signs[i][1].w};
    multiply(plus, positive, low, high);
    multiply(minus, negative, low, high);
  }
  // Columns are planes: bit 7 counts -128.
  const int even = 1 << 2 * (lane % 4), odd = lane % 4 == 3 ? -128 : 2 * even;
  int2 sum = {(plus[0] - minus[0]) * even + (plus[1] - minus[1]) * odd,
              (plus[2] - minus[2]) * even + (plus[3] - minus[3]) * odd};
#pragma unroll
  for (int far = 1; far < 4; far *= 2) {
    sum.x += __shfl_xor_sync(~0u, sum.x, far);
    sum.y += __shfl_xor_sync(~0u, sum.y, far);
  }
  if (lane % 4 != 0) return;
  int* const to = p.own() + 16 * (job / RUNS) + lane / 4;
  if (RUNS == 1) {
    to[0] = sum.x, to[8] = sum.y;
  } else {
    atomicAdd(to, sum.x);
    atomicAdd(to + 8, sum.y);
  }
}

// Rounds what this block projects of the vector, whose parts lie behind each other in shared
// memory; `scratch` shows the largest of each part.
DEVICE void write_all_planes(const Projection& p, const __half* vector, const unsigned* scratch) {
  const int rank = cluster_rank();
#pragma unroll
  for (int own = 0; own < OF_BLOCK; ++own) {
    const int share = OF_BLOCK * rank + own, group = share / (TILE_GROUPS * PARTS);
    const bool second = part_of(share) > 0;
    const Unit unit = unit_of(shown_size(scratch, second));
    const int count = second ? COUNT_1 : COUNT_0;
#pragma unroll 1
    for (int word = threadIdx.x / 32; word < 8 * OWN_CHUNKS; word += WARPS) {
      const int begin = 32 * (8 * OWN_CHUNKS * group + word);
      write_planes(p.planes + PLANES * own + 8 * word, vector + begin + (second ? ROOM_0 : 0),
                   count - begin, unit, threadIdx.x % 32);
    }
  }
}

// Computes this block's sums and sends them to the cluster; `held` has the first job's signs.
DEVICE void project(const Projection& p, uint4 (&held)[RUN][2], unsigned barrier) {
  const int lane = threadIdx.x % 32, rank = cluster_rank();
#pragma unroll 1
  for (int job = threadIdx.x / 32; job < JOBS; job += WARPS) {
    if (job >= WARPS) load_signs(held, p.of_job(job), lane);
    multiply_signs(held, p, job, lane);
  }
#if SENT
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < SUMS / 4; i += THREADS) {
    const int to = i / (OWN_SUMS / 4);
    int* const four = p.own() + 4 * (i % (OWN_SUMS / 4));
    if (to != rank)
      send(shared_address(four), barrier, to, *reinterpret_cast<const int4*>(four));
  }
#else
  show_to_copies();
  __syncthreads();
  const unsigned from = shared_address(p.own());
  if (threadIdx.x < CLUSTER && threadIdx.x != rank)
    send_block(from, from, 4 * OWN_SUMS, barrier, threadIdx.x);
#endif
}

// Waits for the projection and rounds it to bytes, zeros behind each part; tells what one is worth
// in each part. `scale` is of a sum of signs; `scratch` shows the largest of the vector's parts, and
// behind them has room for as much.
DEVICE void round_projection(signed char* bytes, float (&steps)[PARTS], const Projection& p,
                             const float (&scale)[PARTS], unsigned* scratch, unsigned barrier) {
  constexpr int TURNS_ = over(BYTES, THREADS);
  float sign[PARTS];
#pragma unroll
  for (int part = 0; part < PARTS; ++part)
    sign[part] = __fmul_rn(worth_of(shown_size(scratch, part)), scale[part]);
  wait_barrier(barrier, 0);
  scratch += PARTS * WARPS;
  int whole[TURNS_];
  unsigned most[PARTS] = {};
#pragma unroll
  for (int turn = 0; turn < TURNS_; ++turn) {
    const int i = threadIdx.x + THREADS * turn;
    const bool late = PARTS == 2 && i >= BYTES_0;
    const int within = late ? i - BYTES_0 : i;
    const bool any = i < BYTES && within < (late ? K_1 : K_0);
    whole[turn] = any ? p.of(late, within) : 0;
    const unsigned size = abs(whole[turn]);
    most[0] = max(most[0], late ? 0u : size);
    if (PARTS == 2) most[PARTS - 1] = max(most[PARTS - 1], late ? size : 0u);
  }
  show_largest(scratch, most);
  __syncthreads();
  Unit rounded[PARTS];
#pragma unroll
  for (int part = 0; part < PARTS; ++part) {
    const int largest = static_cast<int>(shown_largest(scratch, part));
    rounded[part] = unit_of(__fmul_rn(static_cast<float>(largest), sign[part]));
    steps[part] = rounded[part].worth;
  }
#pragma unroll
  for (int turn = 0; turn < TURNS_; ++turn) {
    const int i = threadIdx.x + THREADS * turn;
    const bool late = PARTS == 2 && i >= BYTES_0;
    const float value =
        __fmul_rn(static_cast<float>(whole[turn]), late ? sign[PARTS - 1] : sign[0]);
    if (i < BYTES)
      bytes[i] = static_cast<signed char>(to_byte(value, of_part(rounded, late)));
  }
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
