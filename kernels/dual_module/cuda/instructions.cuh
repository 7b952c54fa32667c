#pragma once

// Instructions of the hardware that C++ has no words for: all inline assembly of these kernels.
// tests/emulator has the same functions in plain C++, so that the kernels also run on a CPU.

#define DEVICE __device__ __forceinline__

DEVICE unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Copies BYTES (8 or 16); zeros where `valid` is false, nothing is read then.
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

// Reads 16 bytes that are used once: not kept in the first-level cache.
DEVICE uint4 load_once(const void* from) {
  uint4 all;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(all.x), "=r"(all.y), "=r"(all.z), "=r"(all.w)
               : "l"(from));
  return all;
}

// Brings bytes (a multiple of 128) into the second-level cache, where they are awaited soon.
DEVICE void prefetch(const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#else
  const char* const line = static_cast<const char*>(from);
  for (int i = 0; i < bytes; i += 128)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(line + i) : "memory");
#endif
}

// What another block wrote during this launch: not from the first-level cache.
DEVICE float load_shared_by_blocks(const float* from) {
  float value;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(value) : "l"(from) : "memory");
  return value;
}

// Counts who comes, from 0 to `last`, then from 0 again; the last sees what all before wrote.
DEVICE unsigned count_up(unsigned* counter, unsigned last) {
  unsigned before;
  asm volatile("atom.inc.acq_rel.gpu.global.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(counter), "r"(last)
               : "memory");
  return before;
}

DEVICE void pause() { asm volatile("nanosleep.u32 20;"); }

DEVICE int warp_sum(int value) { return __reduce_add_sync(~0u, value); }
DEVICE unsigned warp_largest(unsigned value) { return __reduce_max_sync(~0u, value); }

// c += a * b on single bits, 16 x 256 by 256 x 8: AND, then counts of ones. a[0] holds row l / 4,
// bits 32 * (l % 4) on; a[1] eight rows further; a[2], a[3] 128 bits further; b0, b1 likewise.
DEVICE void multiply(int* c, const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#ifdef HOPPER

DEVICE int cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

DEVICE void start_barrier(unsigned barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

DEVICE void arrive_expecting(unsigned barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Shows barriers that were started to the cluster; then all threads arrive, and later wait.
DEVICE void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
DEVICE void arrive_at_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
DEVICE void wait_for_cluster() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }

DEVICE void wait_barrier(unsigned barrier, unsigned parity) {
  asm volatile(
      "{.reg .pred done; WAIT: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;"
      "@!done bra WAIT;}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

DEVICE unsigned in_block(unsigned address, int rank) {
  unsigned there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}

// Stores in the shared memory of a block of the cluster, whose barrier counts the bytes.
DEVICE void send(unsigned to, unsigned barrier, int rank, unsigned value) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
          in_block(to, rank)),
      "r"(value), "r"(in_block(barrier, rank))
      : "memory");
}
// Shows what the thread wrote in shared memory to copies that others begin after a barrier.
DEVICE void show_to_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Copies shared memory (16 bytes or more) to a block of the cluster, whose barrier counts the bytes.
DEVICE void send_block(unsigned to, unsigned from, int bytes, unsigned barrier, int rank) {
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, "
      "[%3];" ::"r"(in_block(to, rank)),
      "r"(from), "r"(bytes), "r"(in_block(barrier, rank))
      : "memory");
}

#else  // a block is a cluster

DEVICE int cluster_rank() { return 0; }
DEVICE void start_barrier(unsigned, int) {}
DEVICE void arrive_expecting(unsigned, int) {}
DEVICE void publish_barriers() {}
DEVICE void arrive_at_cluster() {}
DEVICE void wait_for_cluster() {}
DEVICE void wait_barrier(unsigned, unsigned) { __syncthreads(); }

DEVICE void send(unsigned to, unsigned, int, unsigned value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
DEVICE void show_to_copies() {}
DEVICE void send_block(unsigned, unsigned, int, unsigned, int) {}

#endif
