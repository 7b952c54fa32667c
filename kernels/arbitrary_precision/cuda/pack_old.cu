#include "common.cuh"

// Rounds rows of real numbers to codes and writes their bit planes and sums.
// LANES threads take a row, 8 neighbouring elements each at a time: a byte of every plane.

#if INPUT == 4
typedef float Input;
#else
typedef Element Input;
#endif

DEVICE void load_numbers(float (&to)[8], const Input* from) {
#if INPUT == 4
  const float4 low = __ldg(reinterpret_cast<const float4*>(from));
  const float4 high = __ldg(reinterpret_cast<const float4*>(from) + 1);
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
#else
  const uint4 all = __ldg(reinterpret_cast<const uint4*>(from));
  const unsigned words[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 both = unpack(words[i]);
    to[2 * i] = both.x, to[2 * i + 1] = both.y;
  }
#endif
}

extern "C" __global__ void __launch_bounds__(256)
    low_bit_pack(const Input* __restrict__ x, const float* __restrict__ step,
                 unsigned char* __restrict__ planes, int* __restrict__ sums, long long rows, int k,
                 int plane_bytes, int zero) {
  const long long row = (static_cast<long long>(blockIdx.x) * 256 + threadIdx.x) / LANES;
  const int lane = threadIdx.x % LANES;
  const float inverse = __fdiv_rn(1.0f, *step);
  int total = 0;
  if (row < rows) {
    const Input* const from = x + row * k;
    unsigned char* const to = planes + row * Q * plane_bytes;
    for (int byte = lane; byte < plane_bytes; byte += LANES) {
      float number[8] = {};
      const int first = byte * 8;
      const bool whole = k % 8 == 0 && first + 8 <= k;
      if (whole) load_numbers(number, from + first);
      else
        for (int i = 0; i < 8 && first + i < k; ++i) number[i] = static_cast<float>(from[first + i]);
      unsigned bytes[Q] = {};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (!whole && first + i >= k) continue;
        const unsigned code =
            to_code(number[i], inverse, static_cast<float>(zero), (1 << Q) - 1);
        total += code;
#pragma unroll
        for (int q = 0; q < Q; ++q) bytes[q] |= (code >> q & 1) << i;
      }
#pragma unroll
      for (int q = 0; q < Q; ++q) to[q * plane_bytes + byte] = bytes[q];
    }
  }
#pragma unroll
  for (int far = LANES / 2; far > 0; far /= 2) total += __shfl_xor_sync(~0u, total, far);
  if (lane == 0 && row < rows) sums[row] = total;
}
