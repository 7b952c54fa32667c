#pragma once
#ifdef BFLOAT
#include <cuda_bf16.h>
#endif

// Hopper's instructions that C++ has no words for: all inline assembly of forward_hopper.cu.
// tests/emulator has the same functions in plain C++, so that the kernel also runs on a CPU.

#define DEVICE __device__ __forceinline__

DEVICE unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

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

// The compiler splits vector stores of registers that it did not place side by side; this does not.
template <int BYTES>
DEVICE void store_bytes(void* to, const unsigned* words) {
  static_assert(BYTES == 16, "units");
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words[0]), "r"(words[1]),
               "r"(words[2]), "r"(words[3])
               : "memory");
}

// Copies of 16 bytes; zeros where `valid` is false, nothing is read then.
template <int BYTES>
DEVICE void copy_async(unsigned to, const void* from, bool valid) {
  static_assert(BYTES == 16, "units");
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

DEVICE void read_unit(unsigned* words, unsigned address) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

// The lower or the upper halves of two words, side by side.
DEVICE unsigned halves_of(unsigned first, unsigned second, bool upper) {
  return __byte_perm(first, second, upper ? 0x7632 : 0x5410);
}

// Barriers in shared memory, which count arrivals and bytes.

DEVICE void start_barrier(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised barriers known to the copy engine.
DEVICE void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DEVICE void arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and has the phase wait for so many bytes more.
DEVICE void arrive_expecting(unsigned barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Arrives once what this thread began to copy has come.
DEVICE void arrive_when_copied(unsigned barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Waits until the phase of that parity has ended.
DEVICE void wait_barrier(unsigned barrier, unsigned parity) {
  asm volatile(
      "{.reg .pred done;"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;"
      "@!done bra again;}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Copies from global to shared memory; the barrier is told of the bytes that have come.
DEVICE void copy_block(unsigned to, const void* from, int bytes, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

DEVICE void write_unit(unsigned address, const unsigned* words) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(words[0]),
               "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}

// Copies from shared to global memory, in groups of this thread.
DEVICE void store_block(void* to, unsigned from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from),
               "r"(bytes)
               : "memory");
}

DEVICE void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until the shared memory of all groups but PENDING may be written again.
template <int PENDING>
DEVICE void wait_stores() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

template <int REGISTERS>
DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Warpgroup products: 64 rows of A times N rows of B, both in shared memory with K contiguous.

// Makes ordinary writes to shared memory that this thread did or saw announced known to the
// tensor cores.
DEVICE void show_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int PENDING>
DEVICE void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Describes a tile whose rows are 128 bytes, swizzled in groups of 8 rows, at a multiple of 1024.
// Adding 2 moves on by 16 elements within the row.
DEVICE unsigned long long matrix_tile(unsigned address) {
  return (address & 0x3ffffu) >> 4 | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// Keeps the compiler from moving reads or writes of the sums across this place.
template <int TILES>
DEVICE void hold(float (&sums)[TILES][4]) {
#pragma unroll
  for (int j = 0; j < TILES; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(sums[j][i])::"memory");
}

#ifdef BFLOAT
#define PRODUCT_TYPES "f32.bf16.bf16"
#else
#define PRODUCT_TYPES "f32.f16.f16"
#endif
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
