#pragma once
#include "../../cuda/sm80.cuh"

// Inline assembly that these kernels alone use; what others use too stands in kernels/cuda.

// Stores 16 bytes that nobody reads soon.
DEVICE void store_away(void* to, const unsigned* words) {
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words[0]),
               "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}

// The larger of a number and zero; keeps NaN.
DEVICE float positive_part(float number) {
  float found;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(found) : "f"(number));
  return found;
}

#ifdef HOPPER
#include "../../cuda/sm90.cuh"

// The same number for all lanes, which the compiler then knows to be the same.
DEVICE int of_first_lane(int number) { return __shfl_sync(~0u, number, 0); }

// Keeps the compiler from touching accumulators before the products are done.
template <int ROWS_, int COLUMNS_>
DEVICE void hold(int (&counts)[ROWS_][COLUMNS_]) {
#pragma unroll
  for (int r = 0; r < ROWS_; ++r)
#pragma unroll
    for (int c = 0; c < COLUMNS_; ++c) asm volatile("" : "+r"(counts[r][c])::"memory");
}

#endif
