#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "instructions.cuh"

// Element type, matrix fragments and the XOR swizzle shared by the kernels.
//
// Tiles lie in shared memory as [pixel][channel] of 2-byte elements. The 16-byte units of a pixel
// are permuted within each 128 bytes by the pixel's low three bits: ldmatrix reads 8 pixels of one
// unit, and copies write 8 units of one pixel, both without bank conflicts.

#ifdef BFLOAT
typedef __nv_bfloat16 Element;
#else
typedef __half Element;
#endif

DEVICE unsigned pack(float low, float high) {
#ifdef BFLOAT
  __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
#else
  __half2 both = __floats2half2_rn(low, high);
#endif
  return *reinterpret_cast<unsigned*>(&both);
}

DEVICE float2 unpack(unsigned both) {
#ifdef BFLOAT
  return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u));
#else
  return __half22float2(*reinterpret_cast<__half2*>(&both));
#endif
}

// Activations by number: 0 none, 1 ReLU, 2 ReLU6, 3 SiLU, 4 hard swish. NaN stays NaN.
template <int KIND>
DEVICE float activate(float v) {
  if constexpr (KIND == 2) return v < 0.0f ? 0.0f : v > 6.0f ? 6.0f : v;
  if constexpr (KIND == 3) return v / (1.0f + __expf(-v));
  if constexpr (KIND == 4) return v * (v < -3.0f ? 0.0f : v > 3.0f ? 6.0f : v + 3.0f) / 6.0f;
  return v;
}

// Two activated values as elements. ReLU commutes with rounding and is taken on both at once.
template <int KIND>
DEVICE unsigned pack_activated(float low, float high) {
  unsigned both = pack(activate<KIND>(low), activate<KIND>(high));
  if constexpr (KIND == 1) drop_negative(both);
  return both;
}

// Byte offset of a 16-byte unit of a pixel in a tile of CHANNELS channels.
template <int CHANNELS>
DEVICE unsigned unit_offset(int pixel, int unit) {
  static_assert(CHANNELS % 64 == 0, "whole groups of 8 units");
  return static_cast<unsigned>(pixel * (CHANNELS * 2) + ((unit ^ (pixel & 7)) << 4));
}

// Stores WORDS words, 16 bytes at a time where it can.
template <int WORDS>
DEVICE void store_words(void* to, const unsigned* words) {
  if constexpr (WORDS % 4 == 0) {
#pragma unroll
    for (int i = 0; i < WORDS; i += 4)
      store_bytes<16>(static_cast<unsigned*>(to) + i, words + i);
  } else if constexpr (WORDS == 2) {
    store_bytes<8>(to, words);
  } else {
    *static_cast<unsigned*>(to) = words[0];
  }
}

// Reads WORDS words that the kernel does not write.
template <int WORDS>
DEVICE void load_words(unsigned* words, const void* from) {
  if constexpr (WORDS % 4 == 0) {
#pragma unroll
    for (int i = 0; i < WORDS / 4; ++i) {
      const uint4 value = __ldg(static_cast<const uint4*>(from) + i);
      words[4 * i] = value.x, words[4 * i + 1] = value.y;
      words[4 * i + 2] = value.z, words[4 * i + 3] = value.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < WORDS; ++i) words[i] = __ldg(static_cast<const unsigned*>(from) + i);
  }
}
