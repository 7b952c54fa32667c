#include "common.cuh"

// One LSTM step of one vector with a little module, in one launch.
//
// A block owns all four gates of `units` hidden units. It fetches its little weights, computes its
// share of the projections, and waits for all blocks; meanwhile the first `ahead` of its rows come
// into the second-level cache, in case they matter. Then it estimates its rows, lists those that
// do, and its warps take halves of them, of W_ih and of W_hh, until all are taken. Mixing, gates and
// the cell's update are local. With DENSE the list holds all rows, and there is no little module:
// what the other is compared with.

constexpr int GATES = 4;  // input, forget, cell, output

DEVICE float sigmoid(float x) { return __fdiv_rn(1.0f, 1.0f + expf(-x)); }

struct Shared {
  __half* vector;         // x, h, zeros: each padded to 64
  signed char* bytes;     // the projections, each padded to 32
  unsigned char* little;  // little weights of the block's rows
  float* raw;             // the projections before they are rounded
  float* row_value;       // [units][gate]: the estimate
  float* part;            // [row][W_ih, W_hh]: what the big weights give
  float* bias;            // [units][gate]; with the next two: on the way before they are needed
  float* scale;
  float* offset;
  float* cell;            // [units]
  float* scratch;         // [2][WARPS]
  int* list;
  int* counters;          // rows listed, halves of rows taken
};

DEVICE int up_to(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

DEVICE Shared divide(unsigned char* at, int vector, int bytes, int little, int numbers, int units) {
  const int rows = GATES * units;
  Shared s;
  s.vector = reinterpret_cast<__half*>(at), at += 2 * vector;
  s.bytes = reinterpret_cast<signed char*>(at), at += bytes;
  s.little = at, at += rows * little;
  float* next = reinterpret_cast<float*>(at);
  s.raw = next, next += numbers;
  s.row_value = next, next += rows;
  s.part = next, next += 2 * rows;
  s.bias = next, next += rows;
  s.scale = next, next += rows;
  s.offset = next, next += rows;
  s.cell = next, next += units;
  s.scratch = next, next += 2 * WARPS;
  s.list = reinterpret_cast<int*>(next);
  s.counters = s.list + rows;
  return s;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) dual_lstm_step(
    const __half* __restrict__ x, const __half* __restrict__ h, const float* __restrict__ c,
    const __half* __restrict__ weight, const float* __restrict__ bias,
    const unsigned char* __restrict__ codes, const float* __restrict__ code_scale,
    const float* __restrict__ code_bias, const unsigned char* __restrict__ signs_x,
    const unsigned char* __restrict__ signs_h, const float* __restrict__ thresholds,
    float* projections, unsigned long long* counter, __half* __restrict__ new_h,
    float* __restrict__ new_c, int* __restrict__ computed, int inputs, int hidden, int units,
    int k_x, int k_h, int pitch, float worth_x, float worth_h, int ahead) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int room_x = up_to(inputs, 64), room_h = up_to(hidden, 64);
  const int bytes_x = up_to(k_x, 32), bytes_h = up_to(k_h, 32);
  const int little_bytes = (bytes_x + bytes_h) * BITS / 8;
  const int first = blockIdx.x * units, own = min(units, hidden - first), rows = GATES * own;
  const Shared s =
      divide(memory, room_x + room_h, bytes_x + bytes_h, little_bytes, k_x + k_h, units);
  // Rows of the block: unit by unit, the gates of a unit together.
  const auto place = [&](int row) { return row % GATES * hidden + first + row / GATES; };

#if !DENSE
  for (int row = warp; row < rows; row += WARPS) {
    const unsigned to = shared_address(s.little + row * little_bytes);
    const unsigned char* const from = codes + static_cast<long long>(place(row)) * little_bytes;
    for (int i = lane * 16; i < little_bytes; i += 512) copy_async<16>(to + i, from + i, true);
  }
  commit_copies();
  const auto signs_of = [&](int k) {
    return k < k_x ? signs_x + k * (room_x / 4) : signs_h + (k - k_x) * (room_h / 4);
  };
  unsigned held[HELD];
  int k = warp * gridDim.x + blockIdx.x;
  if (k < k_x + k_h) load_signs(held, signs_of(k), (k < k_x ? room_x : room_h) / 4, lane);
#endif
  for (int i = threadIdx.x; i < room_x + room_h; i += THREADS)
    s.vector[i] = i < room_x ? (i < inputs ? x[i] : __half(0.0f))
                             : (i - room_x < hidden ? h[i - room_x] : __half(0.0f));
  for (int row = threadIdx.x; row < rows; row += THREADS) {
    s.bias[row] = bias[place(row)];
    if (row % GATES == 0) s.cell[row / GATES] = c[first + row / GATES];
#if DENSE
    s.list[row] = row;
#else
    s.scale[row] = code_scale[place(row)];
    s.offset[row] = code_bias[place(row)];
#endif
  }
  if (threadIdx.x < 2) s.counters[threadIdx.x] = DENSE && threadIdx.x == 0 ? rows : 0;
#if !DENSE
  const float threshold = thresholds[warp % GATES];  // of every row that the warp estimates
  for (int i = threadIdx.x; i < bytes_x + bytes_h; i += THREADS) s.bytes[i] = 0;
  __syncthreads();
  while (k < k_x + k_h) {
    const bool of_x = k < k_x;
    const float u = projected(held, signs_of(k), of_x ? s.vector : s.vector + room_x,
                              (of_x ? room_x : room_h) / 4, lane);
    if (lane == 0) projections[k] = u * (of_x ? worth_x : worth_h);
    k += gridDim.x * WARPS;
    if (k < k_x + k_h) load_signs(held, signs_of(k), (k < k_x ? room_x : room_h) / 4, lane);
  }
  if (threadIdx.x < min(ahead, rows))
    prefetch(weight + static_cast<long long>(place(threadIdx.x)) * pitch, 2 * pitch);
  wait_for_blocks(counter);

  float steps[2];
  round_to_bytes<2>(s.bytes, projections, {k_x, k_h}, s.raw, s.scratch, steps);
  wait_copies<0>();
  __syncthreads();
  for (int row = warp; row < rows; row += WARPS) {
    const unsigned char* const little = s.little + row * little_bytes;
    const int from_x = little_product(little, s.bytes, bytes_x, lane);
    const int from_h =
        little_product(little + bytes_x * BITS / 8, s.bytes + bytes_x, bytes_h, lane);
    if (lane == 0) {
      const float sum = __fmaf_rn(steps[0], static_cast<float>(from_x),
                                  __fmul_rn(steps[1], static_cast<float>(from_h)));
      const float estimate = __fmaf_rn(sum, s.scale[row], s.offset[row]);
      s.row_value[row] = estimate;
      if (!(fabsf(estimate) > threshold)) s.list[atomicAdd(s.counters, 1)] = row;
    }
  }
#endif
  __syncthreads();
  const int listed = s.counters[0];
  for (;;) {
    int next = 0;
    if (lane == 0) next = atomicAdd(s.counters + 1, 1);
    next = __shfl_sync(~0u, next, 0);
    if (next >= 2 * listed) break;
    const int row = s.list[next / 2];
    const __half* const weights = weight + static_cast<long long>(place(row)) * pitch;
    const float sum = next % 2 == 0
                          ? row_product(weights, s.vector, room_x, lane)
                          : row_product(weights + room_x, s.vector + room_x, room_h, lane);
    if (lane == 0) s.part[2 * row + next % 2] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < listed; i += THREADS) {
    const int row = s.list[i];
    s.row_value[row] = s.part[2 * row] + s.part[2 * row + 1] + s.bias[row];
  }
  __syncthreads();
  for (int unit = threadIdx.x; unit < own; unit += THREADS) {
    const float* const gate = s.row_value + GATES * unit;
    const float cell = sigmoid(gate[1]) * s.cell[unit] + sigmoid(gate[0]) * tanhf(gate[2]);
    new_c[first + unit] = cell;
    new_h[first + unit] = __half(sigmoid(gate[3]) * tanhf(cell));
  }
  if (threadIdx.x == 0) computed[blockIdx.x] = listed;
}
