#pragma once
#include "../../cuda/sm90.cuh"

// Inline assembly that these kernels alone use; what others use too stands in kernels/cuda.

DEVICE unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return memory;
}

// Is counted by a group that waits, and goes on.
template <int NAME, int THREADS_>
DEVICE void tell_group() {
  asm volatile("bar.arrive %0, %1;" ::"n"(NAME), "n"(THREADS_) : "memory");
}

// Describes such tiles with rows of 64 columns, one row for each element of K; the next 64 columns lie
// `leading` bytes further. Adding 128 moves on by 16 elements of K.
DEVICE unsigned long long matrix_tile_across(unsigned address, unsigned leading) {
  return (address & 0x3FFFFu) >> 4 | static_cast<unsigned long long>(leading >> 4) << 16 |
         64ull << 32 | 1ull << 62;
}

#ifdef BFLOAT
#define WGMMA_TYPES "f32.bf16.bf16"
#else
#define WGMMA_TYPES "f32.f16.f16"
#endif

#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
#define D32(i) D16(i), D16(i + 16)
#define D64(i) D32(i), D32(i + 32)
#define D128(i) D64(i), D64(i + 64)

#define T8(a) "%" #a "0, %" #a "1, %" #a "2, %" #a "3, %" #a "4, %" #a "5, %" #a "6, %" #a "7, "
#define T10(a) T8(a) "%" #a "8, %" #a "9, "
#define DIGITS "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, "
#define LIST32 DIGITS T10(1) T10(2) "%30, %31"
#define LIST64 DIGITS T10(1) T10(2) T10(3) T10(4) T10(5) "%60, %61, %62, %63"
#define LIST128                                                                              \
  DIGITS T10(1) T10(2) T10(3) T10(4) T10(5) T10(6) T10(7) T10(8) T10(9) T10(10) T10(11)      \
  "%120, %121, %122, %123, %124, %125, %126, %127"

#define WGMMA(n, count, list, a, b)                                                           \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16." WGMMA_TYPES " {" list "}, %" #a \
               ", %" #b ", 1, 1, 1, 0, 1;"                                                    \
               : count                                                                        \
               : "l"(left), "l"(right))

// d += A (64 x 16) B (16 x n), both in shared memory, A along K and B across; COUNT = n / 2 of the sums are this thread's.
template <int COUNT>
DEVICE void warpgroup_product_across(float (&d)[COUNT], unsigned long long left, unsigned long long right) {
  if constexpr (COUNT == 32) {
    WGMMA(64, D32(0), LIST32, 32, 33);
  } else if constexpr (COUNT == 64) {
    WGMMA(128, D64(0), LIST64, 64, 65);
  } else {
    static_assert(COUNT == 128, "n is 64, 128 or 256");
    WGMMA(256, D128(0), LIST128, 128, 129);
  }
}
