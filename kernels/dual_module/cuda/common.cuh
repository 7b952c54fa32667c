#pragma once
#include <cuda_fp16.h>

#include "instructions.cuh"

// Sums over warps, the projection that a cluster of blocks computes, and products of rows.
//
// Compile-time constants of all kernels: WARPS of a block, CLUSTER of blocks, BITS of a little
// weight (4 or 8), SPLIT warps that share a tile of the projection, HELD chunks of its signs that each
// holds while the vector is still coming in, DEEP loads of a row that are on the way, HOPPER where
// there are clusters of more than one block.

constexpr int THREADS = 32 * WARPS;

#ifdef HOPPER
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
static_assert(CLUSTER == 1, "there are no clusters");
#endif

DEVICE int up_to(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

DEVICE float warp_sum(float value) {
#pragma unroll
  for (int far = 16; far > 0; far /= 2) value += __shfl_xor_sync(~0u, value, far);
  return value;
}

// Copies bytes (a multiple of 16) to shared memory, asynchronously.
DEVICE void fetch(void* to, const void* from, int bytes) {
  const unsigned at = shared_address(to);
  for (int i = threadIdx.x * 16; i < bytes; i += THREADS * 16)
    copy_async<16>(at + i, static_cast<const unsigned char*>(from) + i, true);
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

// The product of a row of `count` halves (a multiple of 8) with a vector in shared memory, by a
// warp; DEEP loads of 16 bytes are on the way.
DEVICE float row_product(const __half* row, const __half* vector, int count, int lane) {
  const uint4* const from = reinterpret_cast<const uint4*>(row);
  const uint4* const with = reinterpret_cast<const uint4*>(vector);
  const int parts = count / 8;
  float sum = 0.0f;
  int at = lane;
  for (; at + 32 * (DEEP - 1) < parts; at += 32 * DEEP) {
    uint4 loaded[DEEP];
#pragma unroll
    for (int i = 0; i < DEEP; ++i) loaded[i] = load_once(from + at + 32 * i);
#pragma unroll
    for (int i = 0; i < DEEP; ++i) sum = dot(loaded[i], with[at + 32 * i], sum);
  }
  uint4 loaded[DEEP];
#pragma unroll
  for (int i = 0; i < DEEP; ++i)
    if (at + 32 * i < parts) loaded[i] = load_once(from + at + 32 * i);
#pragma unroll
  for (int i = 0; i < DEEP; ++i)
    if (at + 32 * i < parts) sum = dot(loaded[i], with[at + 32 * i], sum);
  return warp_sum(sum);
}

// A part of the input vector: where it comes from, how long it is, and how long with zeros.
struct Part {
  const __half* from;
  int count, room;
};

// Four halves of a part from `begin` on; zeros beyond its end.
DEVICE uint2 four_of(const Part& part, int begin) {
  const unsigned short* const from = reinterpret_cast<const unsigned short*>(part.from) + begin;
  if (begin + 4 <= part.count && reinterpret_cast<unsigned long long>(from) % 8 == 0)
    return __ldg(reinterpret_cast<const uint2*>(from));
  unsigned each[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) each[i] = begin + i < part.count ? from[i] : 0u;
  return {each[0] | each[1] << 16, each[2] | each[3] << 16};
}

DEVICE unsigned largest_of(unsigned two) { return max(two & 0x7fffu, two >> 16 & 0x7fffu); }

// What a thread has of the vector's parts, behind each other, while it is coming in.
constexpr int TURNS_AHEAD = 3;

template <int PARTS>
DEVICE int fours_of(const Part (&parts)[PARTS]) {
  return (PARTS == 1 ? parts[0].room : parts[0].room + parts[PARTS - 1].room) / 4;
}

template <int PARTS>
DEVICE void begin_vector(uint2 (&got)[TURNS_AHEAD], const Part (&parts)[PARTS], int at) {
#pragma unroll
  for (int i = 0; i < TURNS_AHEAD; ++i) {
    const int begin = 4 * (at + THREADS * i);
    if (begin >= 4 * fours_of(parts)) continue;
    got[i] = PARTS == 1 || begin < parts[0].room
                 ? four_of(parts[0], begin)
                 : four_of(parts[PARTS - 1], begin - parts[0].room);
  }
}

// Stores the vector in shared memory; tells the largest of each part in size that the thread has
// seen, as bits of a half: NaN is larger than all.
template <int PARTS>
DEVICE void end_vector(__half* to, uint2 (&got)[TURNS_AHEAD], const Part (&parts)[PARTS],
                       unsigned (&largest)[PARTS]) {
  for (int at = threadIdx.x; at < fours_of(parts); at += THREADS * TURNS_AHEAD) {
    if (at != threadIdx.x) begin_vector(got, parts, at);
#pragma unroll
    for (int i = 0; i < TURNS_AHEAD; ++i) {
      const int begin = 4 * (at + THREADS * i);
      if (begin >= 4 * fours_of(parts)) continue;
      *reinterpret_cast<uint2*>(to + begin) = got[i];
      const unsigned most = max(largest_of(got[i].x), largest_of(got[i].y));
      if (PARTS == 1 || begin < parts[0].room) {
        largest[0] = max(largest[0], most);
      } else {
        largest[PARTS - 1] = max(largest[PARTS - 1], most);
      }
    }
  }
}

// The largest of all threads, for each part; `scratch` has room for PARTS * WARPS. A barrier of the
// block stands between the two halves of this.
template <int PARTS>
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

DEVICE float worth_of(float largest) {
  return largest == 0.0f ? 1.0f : __fdiv_rn(largest, 127.0f);  // NaN stays NaN
}

DEVICE int to_byte(float value, float worth) {
  const float whole = rintf(__fdiv_rn(value, worth));
  return static_cast<int>(fminf(fmaxf(whole, -127.0f), 127.0f));
}

// Rounds 32 numbers to bytes, of which a warp writes the eight planes of bits; zeros beyond `count`.
DEVICE void write_planes(unsigned* to, const __half* vector, int count, float worth, int lane) {
  const int byte = lane < count ? to_byte(__half2float(vector[lane]), worth) : 0;
  unsigned mine = 0;
#pragma unroll
  for (int plane = 0; plane < 8; ++plane) {
    const unsigned bits = __ballot_sync(~0u, byte >> plane & 1);
    if (lane == plane) mine = bits;
  }
  if (lane < 8) to[lane] = mine;
}

// Signs come in tiles of 16 numbers of the projection and chunks of 256 inputs: which are +1, then
// which are -1, as the tensor cores take them.

struct Tile {
  const uint4* signs;      // of the first chunk
  const unsigned* planes;  // of the rounded input
  int chunks;
};

DEVICE void load_signs(uint4 (&held)[HELD][2], const Tile& tile, int begin, int lane) {
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int chunk = begin + SPLIT * i;
    if (chunk >= tile.chunks) continue;
    held[i][0] = __ldg(tile.signs + 64 * chunk + lane);
    held[i][1] = __ldg(tile.signs + 64 * chunk + 32 + lane);
  }
}

DEVICE void multiply_signs(int (&plus)[4], int (&minus)[4], const uint4 (&signs)[2],
                           const unsigned* planes, int lane) {
  const unsigned low = planes[8 * (lane % 4) + lane / 4];
  const unsigned high = planes[8 * (4 + lane % 4) + lane / 4];
  const unsigned positive[4] = {signs[0].x, signs[0].y, signs[0].z, signs[0].w};
  const unsigned negative[4] = {signs[1].x, signs[1].y, signs[1].z, signs[1].w};
  multiply(plus, positive, low, high);
  multiply(minus, negative, low, high);
}

// Projects every SPLIT-th chunk of the rounded input on 16 rows of signs, by a warp. Each thread
// gets the whole numbers of rows l / 4 and l / 4 + 8.
DEVICE int2 project(uint4 (&held)[HELD][2], const Tile& tile, int begin, int lane) {
  int plus[4] = {}, minus[4] = {};
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int chunk = begin + SPLIT * i;
    if (chunk < tile.chunks) multiply_signs(plus, minus, held[i], tile.planes + 64 * chunk, lane);
  }
  constexpr int MORE = 2;
  for (int first = begin + SPLIT * HELD; first < tile.chunks; first += SPLIT * MORE) {
    uint4 signs[MORE][2];
#pragma unroll
    for (int i = 0; i < MORE; ++i) {
      const int chunk = first + SPLIT * i;
      if (chunk >= tile.chunks) continue;
      signs[i][0] = __ldg(tile.signs + 64 * chunk + lane);
      signs[i][1] = __ldg(tile.signs + 64 * chunk + 32 + lane);
    }
#pragma unroll
    for (int i = 0; i < MORE; ++i) {
      const int chunk = first + SPLIT * i;
      if (chunk < tile.chunks) multiply_signs(plus, minus, signs[i], tile.planes + 64 * chunk, lane);
    }
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
  return sum;
}

// What the cluster's blocks project lies block by block: 16 numbers of each tile of the block.
struct Projected {
  int* numbers;
  int tiles, per_block;  // in all, and at most of a block

  DEVICE int* of_block(int rank) const { return numbers + 16 * per_block * rank; }
  DEVICE int of(int number) const {
    const int tile = number / 16;
    return of_block(tile % CLUSTER)[16 * (tile / CLUSTER) + number % 16];
  }
  DEVICE void clear() const {
    for (int i = threadIdx.x; i < 16 * per_block; i += THREADS) of_block(cluster_rank())[i] = 0;
  }
  // Bytes that come from the other blocks.
  DEVICE int awaited() const { return 64 * per_block * (CLUSTER - 1); }
};

// Computes this block's tiles and sends them to the cluster; `tile_of` gives each of them, and
// `held` has the signs of the warp's first.
template <class TileOf>
DEVICE void project_tiles(const Projected& to, uint4 (&held)[HELD][2], const TileOf& tile_of,
                          unsigned barrier) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = cluster_rank();
  for (int job = warp;; job += WARPS) {
    const int own = job / SPLIT, tile = rank + CLUSTER * own;
    if (tile >= to.tiles) break;
    if (job != warp) load_signs(held, tile_of(tile), job % SPLIT, lane);
    const int2 sum = project(held, tile_of(tile), job % SPLIT, lane);
    if (lane % 4 == 0) {
      atomicAdd(to.of_block(rank) + 16 * own + lane / 4, sum.x);
      atomicAdd(to.of_block(rank) + 16 * own + lane / 4 + 8, sum.y);
    }
  }
  show_to_copies();
  __syncthreads();
  const unsigned from = shared_address(to.of_block(rank));
  if (threadIdx.x < CLUSTER && threadIdx.x != rank)
    send_block(from, from, 64 * to.per_block, barrier, threadIdx.x);
  wait_barrier(barrier, 0);
}

// The whole number that a row of little weights in shared memory gives with bytes, by a warp.
// `count` is a multiple of 32: weights are padded with zeros.
DEVICE int little_product(const unsigned char* row, const signed char* bytes, int count, int lane) {
  int sum = 0;
  if constexpr (BITS == 8) {
    const int* const weights = reinterpret_cast<const int*>(row);
    const int* const inputs = reinterpret_cast<const int*>(bytes);
    for (int at = lane; at < count / 4; at += 32) sum = __dp4a(weights[at], inputs[at], sum);
  } else {
    // Byte i of a word of 8 weights holds weights i (low half) and i + 4: two words of bytes come
    // out with a shift and a mask, as signed numbers times 16.
    const unsigned* const weights = reinterpret_cast<const unsigned*>(row);
    const int2* const inputs = reinterpret_cast<const int2*>(bytes);
    int sixteen = 0;
    for (int at = lane; at < count / 8; at += 32) {
      const unsigned word = weights[at];
      const int2 input = inputs[at];
      sixteen = __dp4a(static_cast<int>(word << 4 & 0xf0f0f0f0u), input.x, sixteen);
      sixteen = __dp4a(static_cast<int>(word & 0xf0f0f0f0u), input.y, sixteen);
    }
    sum = sixteen / 16;
  }
  return warp_sum(sum);
}
