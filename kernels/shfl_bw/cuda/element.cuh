#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// The element type, and two values as elements.

#define DEVICE __device__ __forceinline__

#ifdef BFLOAT
typedef __nv_bfloat16 Element;
#else
typedef __half Element;
#endif

// Lets the kernel behind this one start, as far as there is room; it waits by itself.
DEVICE void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the kernel in front has ended and what it wrote can be read.
DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

DEVICE unsigned pack(float low, float high) {
#ifdef BFLOAT
  __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
#else
  __half2 both = __floats2half2_rn(low, high);
#endif
  return *reinterpret_cast<unsigned*>(&both);
}
