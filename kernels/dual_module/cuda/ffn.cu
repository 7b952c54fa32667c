#include "common.cuh"

// A feed-forward block with ReLU of one vector, in one launch: rows of the first matrix and rows of
// the second's transpose are read where the little module says that the hidden unit matters.
//
// A block owns `units` hidden units. It estimates them, lists those that matter, and takes them from
// the list BATCH at a time: each warp computes one hidden value, then all threads add that value
// times the second matrix' row to the block's share of the output, 8 outputs a thread and turn.
// After a second barrier the shares are added up in the order of blocks.

constexpr int BATCH = WARPS;

extern "C" __global__ void __launch_bounds__(THREADS, 1) dual_ffn(
    const __half* __restrict__ x, const __half* __restrict__ first_weight,
    const float* __restrict__ first_bias, const __half* __restrict__ second_rows,
    const float* __restrict__ second_bias, const unsigned char* __restrict__ codes,
    const float* __restrict__ code_scale, const float* __restrict__ code_bias,
    const unsigned char* __restrict__ signs, const float* __restrict__ threshold,
    float* projections, float* shares, unsigned long long* counter, __half* __restrict__ y,
    int* __restrict__ computed, int inputs, int hidden, int outputs, int units, int k,
    float worth) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int room = (inputs + 63) / 64 * 64, bytes = (k + 31) / 32 * 32;
  const int little_bytes = bytes * BITS / 8;
  const int first = blockIdx.x * units, own = max(0, min(units, hidden - first));
  unsigned char* at = memory;
  __half* const vector = reinterpret_cast<__half*>(at);
  at += 2 * room;
  signed char* const rounded = reinterpret_cast<signed char*>(at);
  at += bytes;
  unsigned char* const little = at;
  at += units * little_bytes;
  int* const list = reinterpret_cast<int*>(at);
  at += 4 * units;
  float* const values = reinterpret_cast<float*>(at);
  at += 4 * BATCH;
  float* const scratch = reinterpret_cast<float*>(at);
  at += 4 * WARPS;
  int* const listed = reinterpret_cast<int*>(at);

  fetch(little, codes + static_cast<long long>(first) * little_bytes, own * little_bytes);
  commit_copies();
  for (int i = threadIdx.x; i < room; i += THREADS) vector[i] = i < inputs ? x[i] : __half(0.0f);
  for (int i = threadIdx.x; i < bytes; i += THREADS) rounded[i] = 0;
  if (threadIdx.x == 0) *listed = 0;
  __syncthreads();
  for (int i = blockIdx.x * WARPS + warp; i < k; i += gridDim.x * WARPS) {
    const float u = projected(signs + i * (room / 4), vector, room / 4, lane);
    if (lane == 0) projections[i] = u * worth;
  }
  wait_for_blocks(counter);

  const float step = round_to_bytes(rounded, projections, k, scratch);
  wait_copies<0>();
  __syncthreads();
  for (int row = warp; row < own; row += WARPS) {
    const int whole = little_product(little + row * little_bytes, rounded, bytes, lane);
    if (lane == 0) {
      const float estimate = __fmaf_rn(__fmul_rn(step, static_cast<float>(whole)),
                                       code_scale[first + row], code_bias[first + row]);
      if (!(estimate < *threshold)) list[atomicAdd(listed, 1)] = row;
    }
  }
  __syncthreads();
  const int count = *listed;
  // The order of the list varies from run to run; sums must not. Rank sort: lists are short.
  int* const sorted = reinterpret_cast<int*>(little);
  for (int i = threadIdx.x; i < count; i += THREADS) {
    int rank = 0;
    for (int j = 0; j < count; ++j) rank += list[j] < list[i];
    sorted[rank] = list[i];
  }
  __syncthreads();

  float sums[TURNS][8] = {};
  for (int begin = 0; begin < count; begin += BATCH) {
    if (begin + warp < count) {
      const int row = first + sorted[begin + warp];
      const float value =
          row_product(first_weight + static_cast<long long>(row) * room, vector, room, lane);
      if (lane == 0) {
        const float whole = value + first_bias[row];
        values[warp] = whole < 0.0f ? 0.0f : whole;  // NaN stays NaN
      }
    }
    __syncthreads();
    const int some = min(BATCH, count - begin);
#pragma unroll 4
    for (int i = 0; i < some; ++i) {
      const __half* const row =
          second_rows + static_cast<long long>(first + sorted[begin + i]) * outputs;
      const float value = values[i];
#pragma unroll
      for (int turn = 0; turn < TURNS; ++turn) {
        const int column = (turn * THREADS + threadIdx.x) * 8;
        if (column < outputs) {
          const uint4 eight = load_once(row + column);
          const unsigned words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const float2 both = numbers(words[j]);
            sums[turn][2 * j] = __fmaf_rn(value, both.x, sums[turn][2 * j]);
            sums[turn][2 * j + 1] = __fmaf_rn(value, both.y, sums[turn][2 * j + 1]);
          }
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    const int column = (turn * THREADS + threadIdx.x) * 8;
    if (column < outputs) {
      float4* const to =
          reinterpret_cast<float4*>(shares + static_cast<long long>(blockIdx.x) * outputs + column);
      to[0] = make_float4(sums[turn][0], sums[turn][1], sums[turn][2], sums[turn][3]);
      to[1] = make_float4(sums[turn][4], sums[turn][5], sums[turn][6], sums[turn][7]);
    }
  }
  if (threadIdx.x == 0) computed[blockIdx.x] = count;
  wait_for_blocks(counter);
  for (int out = blockIdx.x * THREADS + threadIdx.x; out < outputs; out += gridDim.x * THREADS) {
    float sum = second_bias[out];
    for (int block = 0; block < gridDim.x; ++block)
      sum += load_shared_by_blocks(shares + static_cast<long long>(block) * outputs + out);
    y[out] = __half(sum);
  }
}
