#pragma once
#include "../../cuda/sm90.cuh"

// Inline assembly that these kernels alone use; what others use too stands in kernels/cuda.

// Two floats as two halves, to nearest or toward zero; the first is the lower half.
template <bool TOWARD_ZERO>
DEVICE unsigned to_halves(float low, float high) {
  unsigned both;
  if constexpr (TOWARD_ZERO) {
    asm("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  }
  return both;
}

DEVICE float2 to_floats(unsigned both) {
  float2 values;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}"
      : "=f"(values.x), "=f"(values.y)
      : "r"(both));
  return values;
}

// Warpgroup products: 64 rows of A times N rows of B, both in shared memory with K contiguous.

#define SUMS(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define SUMS4(j) SUMS(j), SUMS(j + 1), SUMS(j + 2), SUMS(j + 3)
#define SUMS8(j) SUMS4(j), SUMS4(j + 4)

// One warp's product, d (16 x 8) += a (16 x 16) b (16 x 8), for every GPU since sm_80.
DEVICE void warp_product(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a b for 16 columns of K, or d = a b.

DEVICE void warpgroup_product(float (&d)[8][4], unsigned long long a, unsigned long long b, bool keep) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %34, 0;"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, %32, %33, p, 1, 1, 0, 0;}"
      : SUMS8(0)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)));
}

DEVICE void warpgroup_product(float (&d)[16][4], unsigned long long a, unsigned long long b, bool keep) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %66, 0;"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "
      "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1, 0, 0;}"
      : SUMS8(0), SUMS8(8)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)));
}

DEVICE void warpgroup_product(float (&d)[24][4], unsigned long long a, unsigned long long b, bool keep) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %98, 0;"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "
      "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, "
      "%74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, "
      "%92, %93, %94, %95"
      "}, %96, %97, p, 1, 1, 0, 0;}"
      : SUMS8(0), SUMS8(8), SUMS8(16)
      : "l"(a), "l"(b), "r"(static_cast<int>(keep)));
}

#undef SUMS
#undef SUMS4
#undef SUMS8
