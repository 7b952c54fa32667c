#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../../cuda/sm80.cuh"

// Element type, matrix fragments and the XOR swizzle shared by the kernels.
//
// Tiles lie in shared memory as [pixel][channel] of 2-byte elements. The 16-byte units of a pixel
// are permuted within each 128 bytes by the pixel's low three bits: ldmatrix reads 8 pixels of one
// unit, and copies write 8 units of one pixel, both without bank conflicts.

#ifdef BFLOAT
typedef __nv_bfloat16 Element;
#define MMA_TYPE "bf16"
#else
typedef __half Element;
#define MMA_TYPE "f16"
#endif

DEVICE void load_matrices_transposed(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// c (16 x 8, float) += a (16 x 16) b (16 x 8).
DEVICE void multiply(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                     unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32." MMA_TYPE "." MMA_TYPE
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

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
  if constexpr (KIND == 1)
    asm("max.NaN." MMA_TYPE "x2 %0, %0, %1;" : "+r"(both) : "r"(0));
  return both;
}

// Byte offset of a 16-byte unit of a pixel in a tile of CHANNELS channels.
template <int CHANNELS>
DEVICE unsigned unit_offset(int pixel, int unit) {
  static_assert(CHANNELS % 64 == 0, "whole groups of 8 units");
  return static_cast<unsigned>(pixel * (CHANNELS * 2) + ((unit ^ (pixel & 7)) << 4));
}

// The compiler splits vector stores of registers that it did not place side by side; this does not.
template <int WORDS>
DEVICE void store_words(void* to, const unsigned* words) {
  if constexpr (WORDS % 4 == 0) {
#pragma unroll
    for (int i = 0; i < WORDS; i += 4)
      asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(static_cast<unsigned*>(to) + i),
                   "r"(words[i]), "r"(words[i + 1]), "r"(words[i + 2]), "r"(words[i + 3])
                   : "memory");
  } else if constexpr (WORDS == 2) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(words[0]), "r"(words[1])
                 : "memory");
  } else {
    asm volatile("st.global.u32 [%0], %1;" ::"l"(to), "r"(words[0]) : "memory");
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
