#pragma once
#include <cuda_fp16.h>

#include "instructions.cuh"

// Sums over warps, the projection that a cluster of blocks computes, and products of rows.
//
// Compile-time constants of all kernels: WARPS of a block, CLUSTER of blocks, BITS of a little
// weight (4 or 8), HELD products of a projection whose signs a warp holds while the vector is still
// coming in, DEEP loads of a row that are on the way, HOPPER where there are clusters of more than
// one block.

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
#pragma unroll 1
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
    const bool second = PARTS > 1 && begin >= parts[0].room;
    const Part& last = parts[PARTS - 1];
    const Part part = {second ? last.from : parts[0].from, second ? last.count : parts[0].count, 0};
    got[i] = four_of(part, second ? begin - parts[0].room : begin);
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
// which are -1, as the tensor cores take them. A cluster's blocks divide the chunks among
// themselves, so that each rounds only its own part of the vector; what they sum up is added later.
struct Projection {
  const uint4* signs[2];  // of each part of the vector
  int chunks[2], tiles[2];
  unsigned* planes;  // of this block's chunks, one behind the other
  int* sums;         // [block of the cluster][numbers of all tiles]

  DEVICE int numbers() const { return 16 * (tiles[0] + tiles[1]); }
  DEVICE int* of_block(int rank) const { return sums + numbers() * rank; }
  DEVICE int own_chunks() const {
    return max(0, (chunks[0] + chunks[1] - cluster_rank() + CLUSTER - 1) / CLUSTER);
  }
  // Products of this block: its chunks, of each the tiles of the chunk's part.
  DEVICE int products() const {
    return max(tiles[0], tiles[1]) * own_chunks();
  }
  DEVICE int of(int number) const {
    int sum = 0;
#pragma unroll
    for (int rank = 0; rank < CLUSTER; ++rank) sum += of_block(rank)[number];
    return sum;
  }
  DEVICE void clear() const {
    for (int i = threadIdx.x; i < numbers(); i += THREADS) of_block(cluster_rank())[i] = 0;
  }
  // Bytes that come from the other blocks.
  DEVICE int awaited() const { return 4 * numbers() * (CLUSTER - 1); }
};

// One product: a tile and a chunk of this block.
struct TileProduct {
  const uint4* signs;
  const unsigned* planes;
  int* sums;
  bool any;
};

DEVICE TileProduct product_of(const Projection& p, int job) {
  const int most = max(p.tiles[0], p.tiles[1]), own = job / most, tile = job % most;
  const int chunk = cluster_rank() + CLUSTER * own;
  const bool second = chunk >= p.chunks[0];
  const int tiles = second ? p.tiles[1] : p.tiles[0], chunks = second ? p.chunks[1] : p.chunks[0];
  const int within = second ? chunk - p.chunks[0] : chunk;
  return {(second ? p.signs[1] : p.signs[0]) + 64 * (tile * chunks + within), p.planes + 64 * own,
          p.of_block(cluster_rank()) + 16 * (second ? p.tiles[0] + tile : tile),
          job < p.products() && tile < tiles};
}

DEVICE void load_signs(uint4 (&held)[HELD][2], const Projection& p, int job, int lane) {
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const TileProduct product = product_of(p, job + WARPS * i);
    if (!product.any) continue;
    held[i][0] = __ldg(product.signs + lane);
    held[i][1] = __ldg(product.signs + 32 + lane);
  }
}

// Adds one product to this block's sums, by a warp.
DEVICE void multiply_signs(const uint4 (&signs)[2], const TileProduct& product, int lane) {
  const unsigned low = product.planes[8 * (lane % 4) + lane / 4];
  const unsigned high = product.planes[8 * (4 + lane % 4) + lane / 4];
  const unsigned positive[4] = {signs[0].x, signs[0].y, signs[0].z, signs[0].w};
  const unsigned negative[4] = {signs[1].x, signs[1].y, signs[1].z, signs[1].w};
  int plus[4] = {}, minus[4] = {};
  multiply(plus, positive, low, high);
  multiply(minus, negative, low, high);
  // Columns are planes: bit 7 counts -128.
  const int even = 1 << 2 * (lane % 4), odd = lane % 4 == 3 ? -128 : 2 * even;
  int2 sum = {(plus[0] - minus[0]) * even + (plus[1] - minus[1]) * odd,
              (plus[2] - minus[2]) * even + (plus[3] - minus[3]) * odd};
#pragma unroll
  for (int far = 1; far < 4; far *= 2) {
    sum.x += __shfl_xor_sync(~0u, sum.x, far);
    sum.y += __shfl_xor_sync(~0u, sum.y, far);
  }
  if (lane % 4 == 0) {
    atomicAdd(product.sums + lane / 4, sum.x);
    atomicAdd(product.sums + lane / 4 + 8, sum.y);
  }
}

// Rounds this block's chunks of the vector's parts, which lie behind each other in shared memory.
template <int PARTS>
DEVICE void write_all_planes(const Projection& p, const __half* vector, const Part (&parts)[PARTS],
                             const float (&worth)[2]) {
#pragma unroll 1
  for (int word = threadIdx.x / 32; word < 8 * p.own_chunks(); word += WARPS) {
    const int chunk = cluster_rank() + CLUSTER * (word / 8);
    const bool second = chunk >= p.chunks[0];
    const int begin = 256 * (second ? chunk - p.chunks[0] : chunk) + 32 * (word % 8);
    write_planes(p.planes + 8 * word, vector + begin + (second ? parts[0].room : 0),
                 (second ? parts[PARTS - 1].count : parts[0].count) - begin,
                 second ? worth[1] : worth[0], threadIdx.x % 32);
  }
}

// Computes this block's products and sends its sums to the cluster; `held` has the first signs.
DEVICE void project(const Projection& p, uint4 (&held)[HELD][2], unsigned barrier) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = cluster_rank();
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const TileProduct product = product_of(p, warp + WARPS * i);
    if (product.any) multiply_signs(held[i], product, lane);
  }
#pragma unroll 1
  for (int job = warp + WARPS * HELD; job < p.products(); job += WARPS) {
    const TileProduct product = product_of(p, job);
    if (!product.any) continue;
    const uint4 signs[2] = {__ldg(product.signs + lane), __ldg(product.signs + 32 + lane)};
    multiply_signs(signs, product, lane);
  }
  show_to_copies();
  __syncthreads();
  const unsigned from = shared_address(p.of_block(rank));
  if (threadIdx.x < CLUSTER && threadIdx.x != rank)
    send_block(from, from, 4 * p.numbers(), barrier, threadIdx.x);
  wait_barrier(barrier, 0);
}

// The whole numbers that two rows of little weights in shared memory give with bytes, by a warp:
// with those before `middle` and with the others. Both are multiples of 32: weights are padded with
// zeros. Of 4 bits, byte i of a word of 8 weights holds weights i (low half) and i + 4: two words of
// bytes come out with a shift and a mask, as signed numbers times 16.
DEVICE void little_products(int (&before)[2], int (&after)[2], const unsigned char* first,
                            const unsigned char* second, const signed char* bytes, int middle,
                            int count, int lane) {
  constexpr int EACH = 32 / BITS;  // weights of a word
  const unsigned* const rows[2] = {reinterpret_cast<const unsigned*>(first),
                                   reinterpret_cast<const unsigned*>(second)};
  int sums[2][2] = {};
#pragma unroll 4
  for (int at = lane; at < count / EACH; at += 32) {
    const bool late = at >= middle / EACH;
    int2 input;
    if constexpr (BITS == 8) {
      input = {reinterpret_cast<const int*>(bytes)[at], 0};
    } else {
      input = reinterpret_cast<const int2*>(bytes)[at];
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const unsigned word = rows[row][at];
      int sum;
      if constexpr (BITS == 8) {
        sum = __dp4a(static_cast<int>(word), input.x, 0);
      } else {
        sum = __dp4a(static_cast<int>(word << 4 & 0xf0f0f0f0u), input.x, 0);
        sum = __dp4a(static_cast<int>(word & 0xf0f0f0f0u), input.y, sum);
      }
      sums[row][0] += late ? 0 : sum;
      sums[row][1] += late ? sum : 0;
    }
  }
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    before[row] = warp_sum(sums[row][0]) / (BITS == 8 ? 1 : 16);
    after[row] = warp_sum(sums[row][1]) / (BITS == 8 ? 1 : 16);
  }
}
