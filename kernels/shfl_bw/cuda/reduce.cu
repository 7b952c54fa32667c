#include "activation.cuh"

// Adds the sums of all splits in their order, then bias and activation, and writes each row where
// it belongs. A thread takes 8 columns; the second axis of the grid counts packed rows.

extern "C" __global__ void __launch_bounds__(128)
    shfl_bw_reduce(const float* partial, const int* rows, const float* bias, Element* y, int splits,
                   int packed_rows, int tokens, int partial_pitch, int y_pitch) {
  const int packed = blockIdx.y, row = rows[packed];
  const int token = (blockIdx.x * 128 + threadIdx.x) * 8;
  if (row < 0 || token >= tokens) return;
  const float* from = partial + static_cast<long long>(packed) * partial_pitch + token;
  const long long step = static_cast<long long>(packed_rows) * partial_pitch;
  float sums[8];
  const float start = bias == nullptr ? 0.0f : bias[row];
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[i] = start;
  for (int split = 0; split < splits; ++split, from += step) {
    const float4 low = *reinterpret_cast<const float4*>(from);
    const float4 high = *reinterpret_cast<const float4*>(from + 4);
    sums[0] += low.x, sums[1] += low.y, sums[2] += low.z, sums[3] += low.w;
    sums[4] += high.x, sums[5] += high.y, sums[6] += high.z, sums[7] += high.w;
  }
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    words[i] = pack(activate<ACTIVATION>(sums[2 * i]), activate<ACTIVATION>(sums[2 * i + 1]));
  *reinterpret_cast<uint4*>(y + static_cast<long long>(row) * y_pitch + token) =
      make_uint4(words[0], words[1], words[2], words[3]);
}
