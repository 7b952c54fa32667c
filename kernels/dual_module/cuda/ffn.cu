#include "common.cuh"

// A feed-forward block with ReLU of one vector, in one launch: rows of the first matrix and rows of
// the second's transpose are read where the little module says that the hidden unit matters.
//
// A block owns `units` hidden units. It estimates them and lists those that matter, whose rows of
// both matrices then come into the second-level cache. Warps compute the listed hidden values, then
// all threads add each value times the second matrix' row to the block's share of the output, 8
// outputs a thread and turn. After a second barrier the shares are added up in the order of blocks.

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
  float* const raw = reinterpret_cast<float*>(at);
  float* const bias = raw + k;  // with the next two: on the way before they are needed
  float* const scale = bias + units;
  float* const offset = scale + units;
  float* const values = offset + units;
  float* const scratch = values + units;
  int* const list = reinterpret_cast<int*>(scratch + THREADS);
  int* const sorted = list + units;
  int* const listed = sorted + units;

  fetch(little, codes + static_cast<long long>(first) * little_bytes, own * little_bytes);
  commit_copies();
  unsigned held[HELD];
  int number = warp * gridDim.x + blockIdx.x;
  if (number < k) load_signs(held, signs + number * (room / 4), room / 4, lane);
  for (int i = threadIdx.x; i < room; i += THREADS) vector[i] = i < inputs ? x[i] : __half(0.0f);
  for (int i = threadIdx.x; i < bytes; i += THREADS) rounded[i] = 0;
  for (int row = threadIdx.x; row < own; row += THREADS) {
    bias[row] = first_bias[first + row];
    scale[row] = code_scale[first + row];
    offset[row] = code_bias[first + row];
  }
  if (threadIdx.x == 0) *listed = 0;
  const float least = *threshold;
  __syncthreads();
  while (number < k) {
    const float u = projected(held, signs + number * (room / 4), vector, room / 4, lane);
    if (lane == 0) projections[number] = u * worth;
    number += gridDim.x * WARPS;
    if (number < k) load_signs(held, signs + number * (room / 4), room / 4, lane);
  }
  wait_for_blocks(counter);

  float step[1];
  round_to_bytes<1>(rounded, projections, {k}, raw, scratch, step);
  wait_copies<0>();
  __syncthreads();
  for (int row = warp; row < own; row += WARPS) {
    const int whole = little_product(little + row * little_bytes, rounded, bytes, lane);
    if (lane == 0) {
      const float estimate =
          __fmaf_rn(__fmul_rn(step[0], static_cast<float>(whole)), scale[row], offset[row]);
      if (!(estimate < least)) {
        list[atomicAdd(listed, 1)] = row;
        const long long place = first + row;
        prefetch(first_weight + place * room, 2 * room);
        prefetch(second_rows + place * outputs, 2 * outputs);
      }
    }
  }
  __syncthreads();
  const int count = *listed;
  // The order of the list varies from run to run; sums must not. Rank sort: lists are short.
  for (int i = threadIdx.x; i < count; i += THREADS) {
    int rank = 0;
    for (int j = 0; j < count; ++j) rank += list[j] < list[i];
    sorted[rank] = list[i];
  }
  for (int i = warp; i < count; i += WARPS) {
    const int row = list[i];
    const float value =
        row_product(first_weight + static_cast<long long>(first + row) * room, vector, room, lane);
    if (lane == 0) {
      const float whole = value + bias[row];
      values[row] = whole < 0.0f ? 0.0f : whole;  // NaN stays NaN
    }
  }
  __syncthreads();

  float sums[TURNS][8] = {};
#pragma unroll 8
  for (int i = 0; i < count; ++i) {
    const __half* const row = second_rows + static_cast<long long>(first + sorted[i]) * outputs;
    const float value = values[sorted[i]];
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
  // 32 outputs a block and turn: a warp adds up every WARPS-th share of them.
  for (int begin = blockIdx.x * 32; begin < outputs; begin += gridDim.x * 32) {
    const int out = begin + lane;
    float sum = 0.0f;
    if (out < outputs) {
#pragma unroll 8
      for (int block = warp; block < static_cast<int>(gridDim.x); block += WARPS)
        sum += load_shared_by_blocks(shares + static_cast<long long>(block) * outputs + out);
    }
    scratch[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0 && out < outputs) {
      float whole = second_bias[out];
      for (int i = 0; i < WARPS; ++i) whole += scratch[32 * i + lane];
      y[out] = __half(whole);
    }
    __syncthreads();
  }
}
