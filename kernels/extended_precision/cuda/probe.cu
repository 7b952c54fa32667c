#include "instructions.cuh"

// How tensor cores add: sum + a[0] b[0] + .. + a[15] b[15], the same in every place of a tile.

extern "C" __global__ void __launch_bounds__(32)
    probe_warp(const unsigned* a, const unsigned* b, const float* sum, float* out) {
  // A thread's halves of K: 2t, 2t + 1 and 8 more.
  const int t = threadIdx.x % 4;
  const unsigned left[4] = {a[t], a[t], a[t + 4], a[t + 4]}, right[2] = {b[t], b[t + 4]};
  float d[4] = {*sum, *sum, *sum, *sum};
  warp_product(d, left, right);
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = d[i];
}

#ifdef HOPPER
extern "C" __global__ void __launch_bounds__(128, 1)
    probe_warpgroup(const unsigned* a, const unsigned* b, const float* sum, float* out) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const unsigned start = shared_address(memory);
  const unsigned tiles = (start + 1023) / 1024 * 1024;
  unsigned* words = reinterpret_cast<unsigned*>(memory + (tiles - start));
  const int row = threadIdx.x % 64, tile = threadIdx.x / 64;
  for (int i = 0; i < 8; ++i) {
    const int place = i / 4 ^ row % 8;
    words[tile * 2048 + row * 32 + place * 4 + i % 4] = tile ? b[i] : a[i];
  }
  show_to_tensor_cores();
  __syncthreads();
  float d[8][4];
  for (int j = 0; j < 8; ++j)
    for (int i = 0; i < 4; ++i) d[j][i] = *sum;
  hold(d);
  begin_products();
  warpgroup_product(d, matrix_tile(tiles), matrix_tile(tiles + 8192), true);
  commit_products();
  wait_products<0>();
  hold(d);
  for (int j = 0; j < 8; ++j)
    for (int i = 0; i < 4; ++i) out[32 * threadIdx.x + 4 * j + i] = d[j][i];
}
#endif
