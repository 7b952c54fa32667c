#include "numbers.cuh"

// Rounds rows of real numbers to codes and writes their bit planes and sums.
// LANES threads take a row, 8 neighbouring elements each at a time: a byte of every plane.

extern "C" __global__ void __launch_bounds__(256)
    low_bit_pack(const Input* __restrict__ x, const float* __restrict__ step,
                 unsigned char* __restrict__ planes, int* __restrict__ sums, long long rows, int k,
                 int plane_bytes, int zero) {
  const long long row = (static_cast<long long>(blockIdx.x) * 256 + threadIdx.x) / LANES;
  const int lane = threadIdx.x % LANES;
  int total = 0;
  if (row < rows)
    total = pack_row<LANES>(planes + row * Q * plane_bytes, plane_bytes, x + row * k, k,
                            __fdiv_rn(1.0f, *step), zero, lane);
#pragma unroll
  for (int far = LANES / 2; far > 0; far /= 2) total += __shfl_xor_sync(~0u, total, far);
  if (lane == 0 && row < rows) sums[row] = total;
}
