#pragma once
#include <cuda_fp16.h>

#include "instructions.cuh"

// Sums over warps and blocks, products of rows, and the barrier of all blocks.
//
// Compile-time constants of all kernels: WARPS of a block, BITS of a little weight (4 or 8).

constexpr int THREADS = 32 * WARPS;

DEVICE float warp_sum(float value) {
#pragma unroll
  for (int far = 16; far > 0; far /= 2) value += __shfl_xor_sync(~0u, value, far);
  return value;
}

DEVICE int warp_sum(int value) {
#pragma unroll
  for (int far = 16; far > 0; far /= 2) value += __shfl_xor_sync(~0u, value, far);
  return value;
}

// Whether all blocks of the launch came here; the counter is never reset. All blocks of the grid
// must fit on the GPU at once.
DEVICE void wait_for_blocks(unsigned long long* counter) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned long long before = add_release(counter, 1);
    const unsigned long long all = (before / gridDim.x + 1) * gridDim.x;
    while (load_acquire(counter) < all) pause();
  }
  __syncthreads();
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
// warp; AHEAD loads of 16 bytes are on the way.
DEVICE float row_product(const __half* row, const __half* vector, int count, int lane) {
  constexpr int AHEAD = 8;
  const uint4* const from = reinterpret_cast<const uint4*>(row);
  const uint4* const with = reinterpret_cast<const uint4*>(vector);
  const int parts = count / 8;
  float sum = 0.0f;
  int at = lane;
  for (; at + 32 * (AHEAD - 1) < parts; at += 32 * AHEAD) {
    uint4 loaded[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) loaded[i] = load_once(from + at + 32 * i);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) sum = dot(loaded[i], with[at + 32 * i], sum);
  }
  uint4 loaded[AHEAD];
#pragma unroll
  for (int i = 0; i < AHEAD; ++i)
    if (at + 32 * i < parts) loaded[i] = load_once(from + at + 32 * i);
#pragma unroll
  for (int i = 0; i < AHEAD; ++i)
    if (at + 32 * i < parts) sum = dot(loaded[i], with[at + 32 * i], sum);
  return warp_sum(sum);
}

// Signs of a projection's row that a lane holds: on the way while the vector is still coming in.
constexpr int HELD = 8;

DEVICE void load_signs(unsigned (&held)[HELD], const unsigned char* signs, int bytes, int lane) {
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int at = lane + 32 * i;
    held[i] = at < bytes / 4 ? __ldg(reinterpret_cast<const unsigned*>(signs) + at) : 0u;
  }
}

// A word of 16 signs of two bits (0, +1, -1) times 16 halves.
DEVICE float signed_sum(unsigned word, const __half* vector) {
  const uint4* const from = reinterpret_cast<const uint4*>(vector);
  const uint4 low = from[0], high = from[1];
  const unsigned halves[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float2 x = numbers(halves[i]);
    const unsigned two = word >> (4 * i);
    sum += (two & 1 ? x.x : 0.0f) - (two & 2 ? x.x : 0.0f);
    sum += (two & 4 ? x.y : 0.0f) - (two & 8 ? x.y : 0.0f);
  }
  return sum;
}

// One number of a projection, by a warp: signs times a vector of halves in shared memory,
// zero-padded to 64. `held` has the row's first signs.
DEVICE float projected(const unsigned (&held)[HELD], const unsigned char* signs,
                       const __half* vector, int bytes, int lane) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < HELD; ++i)
    if (lane + 32 * i < bytes / 4) sum += signed_sum(held[i], vector + 16 * (lane + 32 * i));
  for (int at = lane + 32 * HELD; at < bytes / 4; at += 32)
    sum += signed_sum(__ldg(reinterpret_cast<const unsigned*>(signs) + at), vector + 16 * at);
  return warp_sum(sum);
}

DEVICE float larger(float value, float other) {
  return other > value || other != other ? other : value;  // NaN stays
}

DEVICE float warp_largest(float value) {
#pragma unroll
  for (int far = 16; far > 0; far /= 2) value = larger(value, __shfl_xor_sync(~0u, value, far));
  return value;
}

// Rounds what one projection gave, or two, to bytes in shared memory, each part padded to 32, and
// tells what one of them is worth. `raw` has room for all, `scratch` for WARPS a part.
template <int PARTS>
DEVICE void round_to_bytes(signed char* to, const float* from, const int (&counts)[PARTS],
                           float* raw, float* scratch, float (&worth)[PARTS]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int total = PARTS == 1 ? counts[0] : counts[0] + counts[PARTS - 1];
  float largest[PARTS] = {};
  for (int i = threadIdx.x; i < total; i += THREADS) {
    const float value = load_shared_by_blocks(from + i), size = fabsf(value);
    raw[i] = value;
    if (PARTS == 1 || i < counts[0]) {
      largest[0] = larger(largest[0], size);
    } else {
      largest[PARTS - 1] = larger(largest[PARTS - 1], size);
    }
  }
#pragma unroll
  for (int part = 0; part < PARTS; ++part) {
    largest[part] = warp_largest(largest[part]);
    if (lane == 0) scratch[part * WARPS + warp] = largest[part];
  }
  __syncthreads();
#pragma unroll
  for (int part = 0; part < PARTS; ++part) {
    largest[part] = warp_largest(lane < WARPS ? scratch[part * WARPS + lane] : 0.0f);
    worth[part] = largest[part] == 0.0f ? 1.0f : __fdiv_rn(largest[part], 127.0f);
  }
  for (int i = threadIdx.x; i < total; i += THREADS) {
    const bool second = PARTS > 1 && i >= counts[0];
    const float whole = rintf(__fdiv_rn(raw[i], worth[second ? PARTS - 1 : 0]));
    const int at = second ? i - counts[0] + (counts[0] + 31) / 32 * 32 : i;
    to[at] = static_cast<signed char>(fminf(fmaxf(whole, -127.0f), 127.0f));
  }
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
