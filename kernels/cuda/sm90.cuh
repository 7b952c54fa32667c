#pragma once
#include "sm80.cuh"

// Hopper's barriers, clusters, bulk copies and warpgroup products (sm_90a).

// Barriers in shared memory, which count arrivals and bytes.

DEVICE void start_barrier(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised barriers known to the cluster's threads and to the copy engine.
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

// Arrives, for this thread, once all copies that it began so far have come.
DEVICE void arrive_when_copied(unsigned barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Arrives at the same barrier of a block of the cluster. Neither this nor the wait names a scope:
// with .cluster they become a fence of all memory (MEMBAR.ALL.GPU, CCTL.IVALL in SASS), while here
// only the copy engine and the tensor cores touch what the barriers guard.
DEVICE void arrive_at(unsigned barrier, int block) {
  asm volatile(
      "{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;"
      "mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(barrier),
      "r"(block)
      : "memory");
}

// Waits until the phase of that parity has ended.
DEVICE void wait_barrier(unsigned barrier, unsigned parity) {
  asm volatile(
      "{.reg .pred done;"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;"
      "@done bra out; bra again; out:}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Waits for the threads of a part of the block, which come here with the same NAME.
template <int NAME, int THREADS_>
DEVICE void wait_for_group() {
  asm volatile("bar.sync %0, %1;" ::"n"(NAME), "n"(THREADS_) : "memory");
}

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

// Clusters.

DEVICE int cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Waits for all threads of the cluster.
DEVICE void meet_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// Bulk copies from global to shared memory.

// The barrier is told of the bytes that have come.
DEVICE void copy_block(unsigned to, const void* from, int bytes, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// The same into every block of the mask, each of which has its own barrier told.
DEVICE void copy_block_to(unsigned to, const void* from, int bytes, unsigned barrier,
                          unsigned short blocks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(blocks)
      : "memory");
}

// Warpgroups: their registers and products.

template <int REGISTERS>
DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Makes ordinary writes to shared memory that this thread did, or saw announced, known to tensor cores
// and bulk copies.
DEVICE void show_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int PENDING>
DEVICE void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Describes a tile whose rows are 128 bytes along K, swizzled in groups of 8 rows, at a multiple of
// 1024. Adding 2 moves on by 16 elements of K.
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
