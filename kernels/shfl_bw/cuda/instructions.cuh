#pragma once

// Instructions of the hardware that C++ has no words for: all inline assembly of these kernels.
// tests/emulator has the same functions in plain C++, so that the kernels also run on a CPU.

#define DEVICE __device__ __forceinline__

// Launches that overlap.

// Lets the kernel behind this one start as far as there is room; it waits by itself.
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

DEVICE unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return memory;
}

DEVICE unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Barriers in shared memory.

DEVICE void start_barrier(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

DEVICE void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DEVICE void arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

DEVICE void arrive_expecting(unsigned barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Arrives at the barrier at the same place in another block of the cluster. No scope is named: with
// .cluster it becomes a fence of all memory (MEMBAR.ALL.GPU in SASS), while what the barrier guards is
// touched by copies and tensor cores alone.
DEVICE void arrive_at(unsigned barrier, unsigned rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

DEVICE void wait_barrier(unsigned barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra out;\n"
      "bra again;\n"
      "out:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

DEVICE int cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

DEVICE void meet_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// Waits for the threads of a part of the block, which come here or are counted below.
template <int NAME, int THREADS_>
DEVICE void wait_for_group() {
  asm volatile("bar.sync %0, %1;" ::"n"(NAME), "n"(THREADS_) : "memory");
}

template <int NAME, int THREADS_>
DEVICE void tell_group() {
  asm volatile("bar.arrive %0, %1;" ::"n"(NAME), "n"(THREADS_) : "memory");
}

// Copies.

// Copies BYTES (16); zeros where `valid` is false, nothing is read then.
template <int BYTES>
DEVICE void copy_async(unsigned to, const void* from, bool valid) {
  static_assert(BYTES == 16, "the size that these kernels copy");
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Arrives at a barrier, which counts this thread, once all its copies so far have landed.
DEVICE void arrive_when_copied(unsigned barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// What this thread wrote to shared memory, or saw announced, is seen by the
// tensor cores that it orders afterwards.
DEVICE void show_to_tensor_cores() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// One bulk copy, counted by `barrier`.
DEVICE void copy_block(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// The same to that place in every block of `blocks`, counted by the barrier of each.
DEVICE void copy_block_to(unsigned to, const void* from, unsigned bytes, unsigned barrier,
                                unsigned short blocks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(blocks)
      : "memory");
}

// Registers and tensor cores.

template <int COUNT>
DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int PENDING>
DEVICE void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Describes a tile of rows of 128 bytes, along K, whose 16-byte units are swizzled by the row, at a
// multiple of 1024. Adding 2 moves on by 16 elements of K.
DEVICE unsigned long long matrix_tile(unsigned address) {
  return (address & 0x3FFFFu) >> 4 | 1ull << 16 | 64ull << 32 | 1ull << 62;
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
