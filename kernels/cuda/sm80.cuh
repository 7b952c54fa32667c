#pragma once

// Instructions of every GPU since sm_80 that C++ has no words for, shared by the kernel systems. What is
// for one system alone stands in its own instructions.cuh, which includes this. tests/emulator has all of
// them in plain C++, so that the kernels also run on a CPU.

#define DEVICE __device__ __forceinline__

DEVICE unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Copies BYTES (8 or 16); zeros where `valid` is false, nothing is read then.
template <int BYTES>
DEVICE void copy_async(unsigned to, const void* from, bool valid) {
  static_assert(BYTES == 8 || BYTES == 16, "the sizes that kernels copy");
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from),
                 "r"(valid ? 8 : 0)
                 : "memory");
}

DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Stores BYTES (8 or 16). The compiler splits vector stores of registers that it did not place side by
// side; this does not.
template <int BYTES>
DEVICE void store_bytes(void* to, const unsigned* words) {
  static_assert(BYTES == 8 || BYTES == 16, "the sizes that kernels store");
  if constexpr (BYTES == 16)
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
  else
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(words[0]), "r"(words[1])
                 : "memory");
}

// Reads four matrices of 8 x 8 halves; lane l gives the address of row l % 8 of matrix l / 8.
DEVICE void load_matrices(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// c += a * b on single bits, 16 x 256 by 256 x 8: AND, then counts of ones. a[0] holds row l / 4,
// bits 32 * (l % 4) on; a[1] eight rows further; a[2], a[3] 128 bits further; b0, b1 likewise.
DEVICE void multiply(int* c, const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
