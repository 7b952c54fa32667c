#pragma once
#include "common.cuh"

// The input's rounding to bytes, and its projection, which a cluster of blocks computes together.

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
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < SUMS / 4; i += THREADS) {
    const int to = i / (OWN_SUMS / 4);
    int* const four = p.own() + 4 * (i % (OWN_SUMS / 4));
    if (to != rank)
      send(shared_address(four), barrier, to, *reinterpret_cast<const int4*>(four));
  }
}

// Waits for the projection and rounds it to bytes, zeros behind each part; tells what one is worth
// in each part. `scale` is of a sum of signs; `shown` has the largest of the vector's parts, `most`
// room for BYTES / 32. A barrier of the block follows.
DEVICE void round_projection(signed char* bytes, float* steps, const Projection& p,
                             const float (&scale)[PARTS], const unsigned* shown, unsigned* most,
                             unsigned barrier) {
  constexpr int TURNS_ = over(BYTES, THREADS);
  const int lane = threadIdx.x % 32;
  int whole[TURNS_];
  float sign[TURNS_];  // a warp's numbers of a turn are of one part
#pragma unroll
  for (int turn = 0; turn < TURNS_; ++turn) {
    const bool late = PARTS == 2 && threadIdx.x + THREADS * turn >= BYTES_0;
    sign[turn] = __fmul_rn(worth_of(shown_size(shown, late)), late ? scale[PARTS - 1] : scale[0]);
  }
  wait_barrier(barrier, 0);
#pragma unroll
  for (int turn = 0; turn < TURNS_; ++turn) {
    const int i = threadIdx.x + THREADS * turn;
    const bool late = PARTS == 2 && i >= BYTES_0;
    const int within = late ? i - BYTES_0 : i;
    const bool any = i < BYTES && within < (late ? K_1 : K_0);
    whole[turn] = any ? p.of(late, within) : 0;
    const unsigned size = warp_largest(abs(whole[turn]));
    if (lane == 0 && i < BYTES) most[i / 32] = size;
  }
  __syncthreads();
#pragma unroll
  for (int turn = 0; turn < TURNS_; ++turn) {
    const int i = threadIdx.x + THREADS * turn;
    if (i >= BYTES) break;
    const bool late = PARTS == 2 && i >= BYTES_0;
    unsigned size = 0;
    for (int at = (late ? BYTES_0 / 32 : 0) + lane; at < (late ? BYTES : BYTES_0) / 32; at += 32)
      size = max(size, most[at]);
    const int largest = static_cast<int>(warp_largest(size));
    const Unit unit = unit_of(__fmul_rn(static_cast<float>(largest), sign[turn]));
    if (i == (late ? BYTES_0 : 0)) steps[late] = unit.worth;
    const float value = __fmul_rn(static_cast<float>(whole[turn]), sign[turn]);
    bytes[i] = static_cast<signed char>(to_byte(value, unit));
  }
}
