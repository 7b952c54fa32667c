#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "instructions.cuh"

// The element type, and two values as elements.

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
