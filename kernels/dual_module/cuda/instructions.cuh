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

DEVICE unsigned long long add_release(unsigned long long* to, unsigned long long value) {
  unsigned long long before;
  asm volatile("atom.add.release.gpu.global.u64 %0, [%1], %2;"
               : "=l"(before)
               : "l"(to), "l"(value)
               : "memory");
  return before;
}

DEVICE unsigned long long load_acquire(const unsigned long long* from) {
  unsigned long long value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
  return value;
}

DEVICE void pause() { asm volatile("nanosleep.u32 20;"); }
