#include "common.cuh"

// One LSTM step of one vector with a little module, in one launch.
//
// A block owns all four gates of `units` hidden units. It fetches its little weights, computes its
// share of the projections, and waits for all blocks. Then it estimates its rows, lists those that
// matter, and its warps take rows of [W_ih | W_hh] from the list until it is empty. Mixing, gates
// and the cell's update are local. Rows that keep their estimate are not read. With DENSE the list
// holds all rows, and there is no little module: what the other is compared with.

constexpr int GATES = 4;  // input, forget, cell, output

DEVICE float sigmoid(float x) { return __fdiv_rn(1.0f, 1.0f + expf(-x)); }

struct Shared {
  __half* vector;         // x, h, zeros: each padded to 64
  signed char* bytes;     // the projections, each padded to 32
  unsigned char* little;  // little weights of the block's rows
  float* row_value;       // [units][gate]
  int* list;
  float* scratch;         // [WARPS]
  int* counters;          // rows listed, rows taken
};

DEVICE int up_to(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

extern "C" __global__ void __launch_bounds__(THREADS, 1) dual_lstm_step(
    const __half* __restrict__ x, const __half* __restrict__ h, const float* __restrict__ c,
    const __half* __restrict__ weight, const float* __restrict__ bias,
    const unsigned char* __restrict__ codes, const float* __restrict__ code_scale,
    const float* __restrict__ code_bias, const unsigned char* __restrict__ signs_x,
    const unsigned char* __restrict__ signs_h, const float* __restrict__ thresholds,
    float* projections, unsigned long long* counter, __half* __restrict__ new_h,
    float* __restrict__ new_c, int* __restrict__ computed, int inputs, int hidden, int units,
    int k_x, int k_h, int pitch, float worth_x, float worth_h) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int room_x = up_to(inputs, 64), room_h = up_to(hidden, 64);
  const int bytes_x = up_to(k_x, 32), bytes_h = up_to(k_h, 32);
  const int little_bytes = (bytes_x + bytes_h) * BITS / 8;
  const int first = blockIdx.x * units, own = min(units, hidden - first);
  Shared s;
  unsigned char* at = memory;
  s.vector = reinterpret_cast<__half*>(at), at += 2 * (room_x + room_h);
  s.bytes = reinterpret_cast<signed char*>(at), at += bytes_x + bytes_h;
  s.little = at, at += GATES * units * little_bytes;
  s.row_value = reinterpret_cast<float*>(at), at += 4 * GATES * units;
  s.list = reinterpret_cast<int*>(at), at += 4 * GATES * units;
  s.scratch = reinterpret_cast<float*>(at), at += 4 * WARPS;
  s.counters = reinterpret_cast<int*>(at);

#if !DENSE
  // Rows of the block: unit by unit, the gates of a unit together.
  for (int row = warp; row < GATES * own; row += WARPS) {
    const long long place = static_cast<long long>(row % GATES) * hidden + first + row / GATES;
    const unsigned to = shared_address(s.little + row * little_bytes);
    for (int i = lane * 16; i < little_bytes; i += 512)
      copy_async<16>(to + i, codes + place * little_bytes + i, true);
  }
  commit_copies();
#endif
  for (int i = threadIdx.x; i < room_x + room_h; i += THREADS)
    s.vector[i] = i < room_x ? (i < inputs ? x[i] : __half(0.0f))
                             : (i - room_x < hidden ? h[i - room_x] : __half(0.0f));
  if (threadIdx.x < 2) s.counters[threadIdx.x] = 0;
#if DENSE
  for (int row = threadIdx.x; row < GATES * own; row += THREADS) s.list[row] = row;
  if (threadIdx.x == 0) s.counters[0] = GATES * own;
#else
  for (int i = threadIdx.x; i < bytes_x + bytes_h; i += THREADS) s.bytes[i] = 0;
  __syncthreads();
  for (int k = blockIdx.x * WARPS + warp; k < k_x + k_h; k += gridDim.x * WARPS) {
    const bool of_x = k < k_x;
    const int sign_bytes = (of_x ? room_x : room_h) / 4;
    const unsigned char* const signs =
        of_x ? signs_x + k * sign_bytes : signs_h + (k - k_x) * sign_bytes;
    const float u = projected(signs, of_x ? s.vector : s.vector + room_x, sign_bytes, lane);
    if (lane == 0) projections[k] = u * (of_x ? worth_x : worth_h);
  }
  wait_for_blocks(counter);

  const float step_x = round_to_bytes(s.bytes, projections, k_x, s.scratch);
  const float step_h = round_to_bytes(s.bytes + bytes_x, projections + k_x, k_h, s.scratch);
  wait_copies<0>();
  __syncthreads();
  for (int row = warp; row < GATES * own; row += WARPS) {
    const int place = row % GATES * hidden + first + row / GATES;
    const unsigned char* const little = s.little + row * little_bytes;
    const int from_x = little_product(little, s.bytes, bytes_x, lane);
    const int from_h =
        little_product(little + bytes_x * BITS / 8, s.bytes + bytes_x, bytes_h, lane);
    if (lane == 0) {
      const float sum = __fmaf_rn(step_x, static_cast<float>(from_x),
                                  __fmul_rn(step_h, static_cast<float>(from_h)));
      const float estimate = __fmaf_rn(sum, code_scale[place], code_bias[place]);
      s.row_value[row] = estimate;
      if (!(fabsf(estimate) > thresholds[row % GATES])) s.list[atomicAdd(s.counters, 1)] = row;
    }
  }
#endif
  __syncthreads();
  const int listed = s.counters[0];
  for (;;) {
    int next = 0;
    if (lane == 0) next = atomicAdd(s.counters + 1, 1);
    next = __shfl_sync(~0u, next, 0);
    if (next >= listed) break;
    const int row = s.list[next];
    const int place = row % GATES * hidden + first + row / GATES;
    const __half* const weights = weight + static_cast<long long>(place) * pitch;
    const float sum = row_product(weights, s.vector, room_x, lane) +
                      row_product(weights + room_x, s.vector + room_x, room_h, lane);
    if (lane == 0) s.row_value[row] = sum + bias[place];
  }
  __syncthreads();
  for (int unit = threadIdx.x; unit < own; unit += THREADS) {
    const float* const gate = s.row_value + GATES * unit;
    const float cell = sigmoid(gate[1]) * c[first + unit] + sigmoid(gate[0]) * tanhf(gate[2]);
    new_c[first + unit] = cell;
    new_h[first + unit] = __half(sigmoid(gate[3]) * tanhf(cell));
  }
  if (threadIdx.x == 0) computed[blockIdx.x] = listed;
}
