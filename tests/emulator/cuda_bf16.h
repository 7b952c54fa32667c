// As much of CUDA's header of this name as kernels use.
#pragma once
#include "vectors.hpp"

struct __nv_bfloat16 {
  unsigned short bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float x) {
    unsigned word;
    std::memcpy(&word, &x, 4);
    if (x == x) word += 0x7fff + (word >> 16 & 1);  // to the nearest, ties to even
    bits = static_cast<unsigned short>(word >> 16);
  }
  operator float() const {
    const unsigned word = static_cast<unsigned>(bits) << 16;
    float x;
    std::memcpy(&x, &word, 4);
    return x;
  }
};

struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {__nv_bfloat16(low), __nv_bfloat16(high)};
}
