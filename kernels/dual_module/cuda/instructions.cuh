#pragma once
#include "../../cuda/sm80.cuh"

// Inline assembly that these kernels alone use; what others use too stands in kernels/cuda.

// Reads 16 bytes that are used once: not kept in the first-level cache.
DEVICE uint4 load_once(const void* from) {
  uint4 all;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(all.x), "=r"(all.y), "=r"(all.z), "=r"(all.w)
               : "l"(from));
  return all;
}

// Brings a line of 128 bytes into the second-level cache, where it is awaited soon.
DEVICE void prefetch_line(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at) : "memory");
}

// The same with many lines.
DEVICE void prefetch(const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#else
  const char* const line = static_cast<const char*>(from);
  for (int i = 0; i < bytes; i += 128) prefetch_line(line + i);
#endif
}

// What another kernel or block wrote lately: from the second-level cache, and not before what
// stands in front of it.
DEVICE float load_fresh(const float* from) {
  float value;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(value) : "l"(from) : "memory");
  return value;
}
DEVICE unsigned load_fresh(const unsigned short* from) {
  unsigned short value;
  asm volatile("ld.global.cg.u16 %0, [%1];" : "=h"(value) : "l"(from) : "memory");
  return value;
}
DEVICE uint2 load_fresh(const uint2* from) {
  uint2 value;
  asm volatile("ld.global.cg.v2.u32 {%0, %1}, [%2];"
               : "=r"(value.x), "=r"(value.y)
               : "l"(from)
               : "memory");
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

#ifdef HOPPER
#include "../../cuda/sm90.cuh"

DEVICE void arrive_at_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
DEVICE void wait_for_cluster() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }

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
DEVICE void send(unsigned to, unsigned barrier, int rank, int4 value) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::
          "r"(in_block(to, rank)),
      "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(in_block(barrier, rank))
      : "memory");
}

// Shows what the thread wrote in shared memory to copies that others begin after a barrier.
DEVICE void show_to_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Copies shared memory (16 bytes or more) to a block of the cluster, whose barrier counts the
// bytes.
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
DEVICE void arrive(unsigned) {}
DEVICE void arrive_expecting(unsigned, int) {}
DEVICE void publish_barriers() {}
DEVICE void arrive_at_cluster() {}
DEVICE void wait_for_cluster() {}
DEVICE void wait_barrier(unsigned, unsigned) { __syncthreads(); }

DEVICE void send(unsigned to, unsigned, int, unsigned value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
DEVICE void send(unsigned, unsigned, int, int4) {}  // no other block
DEVICE void show_to_copies() {}
DEVICE void send_block(unsigned, unsigned, int, unsigned, int) {}

#endif
