// As much of CUDA's header of this name as kernels use.
#pragma once
#include "vectors.hpp"

struct __half {
  _Float16 value;
  __half() = default;
  explicit __half(float x) : value(static_cast<_Float16>(x)) {}
  operator float() const { return static_cast<float>(value); }
};

inline float __half2float(__half x) { return x; }
inline __half __ushort_as_half(unsigned short bits) {
  __half half;
  __builtin_memcpy(&half, &bits, 2);
  return half;
}

struct __half2 {
  __half x, y;
};

inline __half2 __floats2half2_rn(float low, float high) { return {__half(low), __half(high)}; }
inline float2 __half22float2(__half2 both) { return {both.x, both.y}; }
