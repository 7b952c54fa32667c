#pragma once
#include "../../cuda/sm90.cuh"
#ifdef BFLOAT
#include <cuda_bf16.h>
#endif

// Inline assembly that these kernels alone use; what others use too stands in kernels/cuda.

#ifdef BFLOAT
#define ELEMENT "bf16"
#else
#define ELEMENT "f16"
#endif

// Two floats as two elements, to nearest; the first is the lower one.
template <bool TOWARD_ZERO>
DEVICE unsigned to_halves(float low, float high) {
  static_assert(!TOWARD_ZERO, "to nearest");
  unsigned both;
#ifdef BFLOAT
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#endif
  return both;
}

DEVICE void read_unit(unsigned* words, unsigned address) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

DEVICE unsigned read_word(unsigned address) {
  unsigned word;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
  return word;
}

DEVICE float2 read_pair(unsigned address) {
  float2 pair;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
               : "=f"(pair.x), "=f"(pair.y)
               : "r"(address)
               : "memory");
  return pair;
}

DEVICE void write_word(unsigned address, unsigned word) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}

// ReLU of two elements; NaN stays NaN.
DEVICE void drop_negative(unsigned& both) {
  asm("max.NaN." ELEMENT "x2 %0, %0, %1;" : "+r"(both) : "r"(0));
}

// Reads four matrices of 8 x 8 elements and transposes each; addresses as for load_matrices.
DEVICE void load_matrices_transposed(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// c (16 x 8, float) += a (16 x 16) b (16 x 8).
DEVICE void multiply(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                     unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32." ELEMENT "." ELEMENT
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Reads four floats that the kernel in front wrote, after wait_for_previous.
DEVICE float4 read_floats(const float4* from) {
  float4 values;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(values.x), "=f"(values.y), "=f"(values.z), "=f"(values.w)
               : "l"(from)
               : "memory");
  return values;
}

// The lower or the upper halves of two words, side by side.
DEVICE unsigned halves_of(unsigned first, unsigned second, bool upper) {
  return __byte_perm(first, second, upper ? 0x7632 : 0x5410);
}

// Warpgroup products: 64 rows of A times N rows of B, both in shared memory with K contiguous.

#define PRODUCT_TYPES "f32." ELEMENT "." ELEMENT
#define SUMS(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define SUMS2(j) SUMS(j), SUMS(j + 1)
#define SUMS4(j) SUMS2(j), SUMS2(j + 2)
#define SUMS8(j) SUMS4(j), SUMS4(j + 4)
#define LIST8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define LIST16 LIST8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define LIST32                                                                                \
  LIST16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST64                                                                                \
  LIST32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
         "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d += a b for 16 columns of K, or d = a b. A thread's registers of A are those of the sums: two
// columns of a row and of that 8 rows on, then the same 8 columns on.
#define PRODUCT(tiles, n, list, sums, i0, i1, i2, i3, i4, i5)                                 \
  DEVICE void warpgroup_product(float (&d)[tiles][4], unsigned long long a,                   \
                                unsigned long long b, bool keep) {                            \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " i2 ", 0;"                                   \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16." PRODUCT_TYPES " {" list "}, "   \
                 i0 ", " i1 ", p, 1, 1, 0, 0;}"                                               \
                 : sums                                                                       \
                 : "l"(a), "l"(b), "r"(static_cast<int>(keep)));                              \
  }                                                                                           \
  DEVICE void warpgroup_product(float (&d)[tiles][4], const unsigned (&a)[4],                 \
                                unsigned long long b, bool keep) {                            \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " i5 ", 0;"                                   \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16." PRODUCT_TYPES " {" list "}, {"  \
                 i0 ", " i1 ", " i2 ", " i3 "}, " i4 ", p, 1, 1, 0;}"                         \
                 : sums                                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                        \
                   "r"(static_cast<int>(keep)));                                              \
  }

#define SUMS16(j) SUMS8(j), SUMS8(j + 8)
PRODUCT(2, "16", LIST8, SUMS2(0), "%8", "%9", "%10", "%11", "%12", "%13")
PRODUCT(4, "32", LIST16, SUMS4(0), "%16", "%17", "%18", "%19", "%20", "%21")
PRODUCT(8, "64", LIST32, SUMS8(0), "%32", "%33", "%34", "%35", "%36", "%37")
PRODUCT(16, "128", LIST64, SUMS16(0), "%64", "%65", "%66", "%67", "%68", "%69")

#undef SUMS
#undef SUMS2
#undef SUMS4
#undef SUMS8
#undef SUMS16
