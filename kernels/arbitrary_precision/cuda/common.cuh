#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "instructions.cuh"

// Element type, rounding and the swizzle shared by the kernels.
//
// Tiles lie in shared memory as [row][128 bytes]: 1024 bits of one plane of one row. The 16-byte
// chunks of a row are permuted by its low three bits, as tensor cores read them.

#ifdef BFLOAT
typedef __nv_bfloat16 Element;
#else
typedef __half Element;
#endif

constexpr int TILE_BYTES = 128;  // of a row
constexpr int STEP_BITS = 256;   // of one tensor core product
constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number, ties to even

DEVICE unsigned chunk_offset(int row, int chunk) {
  return static_cast<unsigned>(row * TILE_BYTES + ((chunk ^ (row & 7)) << 4));
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

// The whole number that a real one is rounded to, ties to even, kept in [low, high], in the low byte.
// NaN becomes the lowest one.
DEVICE unsigned whole_bits(float number, float inverse_step, float low, float high) {
  const float whole = fminf(fmaxf(__fmul_rn(number, inverse_step), low), high);
  return __float_as_uint(__fadd_rn(whole, MAGIC));
}

// Codes of four numbers, a byte each: whole numbers of steps, plus the code of zero.
DEVICE unsigned four_codes(const float* number, float inverse, int zero, int highest) {
  const float low = static_cast<float>(-zero), high = static_cast<float>(highest - zero);
  unsigned bits[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) bits[i] = whole_bits(number[i], inverse, low, high);
  const unsigned all = __byte_perm(__byte_perm(bits[0], bits[1], 0x0040),
                                   __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
  const unsigned zeros = zero * 0x01010101u, top = 0x80808080u;  // added without carries
  return ((all & ~top) + (zeros & ~top)) ^ ((all ^ zeros) & top);
}

// A byte of a plane: bit q of eight codes, four in each word.
DEVICE unsigned plane_of(unsigned left, unsigned right, int q) {
  const unsigned plane = 0x01010101u << q;
  return __dp4a(right & plane, 0x80402010u, __dp4a(left & plane, 0x08040201u, 0u)) >> q;
}
