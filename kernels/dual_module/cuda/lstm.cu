#include "common.cuh"

// One LSTM step of one vector with a little module, in one launch.
//
// A block owns all four gates of some hidden units, up to `units`. A cluster of blocks computes the projection
// for itself: each block some tiles of it, which it sends to all. Meanwhile little weights come in,
// and the first `ahead` of the block's rows come into the second-level cache, in case they matter.
// Then each warp estimates its rows, computes the first that matters and lists the others, of which
// warps that are done take halves, of W_ih and of W_hh, until all are taken. Mixing, gates and the
// cell's update are local. With DENSE the list holds all rows, and there is no little module: what
// the other is compared with.
//
// Compile-time constants beside those of all kernels: DENSE, and PIECES of a listed row.

constexpr int GATES = 4;  // input, forget, cell, output

DEVICE float sigmoid(float x) { return __fdiv_rn(1.0f, 1.0f + expf(-x)); }

struct Shared {
  __half* vector;         // x, h, zeros: each padded to 64
  signed char* bytes;     // the projections, each padded to 32
  unsigned char* little;  // little weights of the block's rows
  Projection projection;
  int* raw;               // the projections before they are rounded
  float* estimate;        // [units][gate]
  float* part;            // [row][PIECES]: what the big weights give
  float* bias;            // [units][gate]; with the next two: on the way before they are needed
  float* scale;
  float* offset;
  float* cell;            // [units]
  unsigned* scratch;      // [2][WARPS], for each of two roundings
  int* matters;           // [row]
  int* list;
  int* counters;          // rows listed, pieces taken, warps that estimated, rows that matter
  unsigned long long* barrier;
};

struct Sizes {
  int room_x, room_h, chunks_x, chunks_h, bytes_x, bytes_h, tiles_x, tiles_h, little, units;
};

DEVICE Shared divide(unsigned char* at, const Sizes& z) {
  const int rows = GATES * z.units;
  Shared s;
  s.barrier = reinterpret_cast<unsigned long long*>(at), at += 16;
  s.vector = reinterpret_cast<__half*>(at), at += 2 * (z.room_x + z.room_h);
  s.projection.planes = reinterpret_cast<unsigned*>(at);
  at += up_to(z.chunks_x + z.chunks_h, CLUSTER) / CLUSTER * 256;
  s.bytes = reinterpret_cast<signed char*>(at), at += z.bytes_x + z.bytes_h;
  s.little = at, at += rows * z.little;
  s.projection.chunks[0] = z.chunks_x, s.projection.chunks[1] = z.chunks_h;
  s.projection.tiles[0] = z.tiles_x, s.projection.tiles[1] = z.tiles_h;
  s.projection.sums = reinterpret_cast<int*>(at);
  at += 64 * CLUSTER * (z.tiles_x + z.tiles_h);
  s.raw = reinterpret_cast<int*>(at), at += 64 * (z.tiles_x + z.tiles_h);
  float* next = reinterpret_cast<float*>(at);
  s.estimate = next, next += rows;
  s.part = next, next += PIECES * rows;
  s.bias = next, next += rows;
  s.scale = next, next += rows;
  s.offset = next, next += rows;
  s.cell = next, next += z.units;
  s.scratch = reinterpret_cast<unsigned*>(next), next += 4 * WARPS;
  s.matters = reinterpret_cast<int*>(next);
  s.list = s.matters + rows;
  s.counters = s.list + rows;
  return s;
}

extern "C" __global__ void CLUSTERED __launch_bounds__(THREADS, 1) dual_lstm_step(
    const __half* __restrict__ x, const __half* __restrict__ h, const float* __restrict__ c,
    const __half* __restrict__ weight, const float* __restrict__ bias,
    const unsigned char* __restrict__ codes, const float* __restrict__ code_scale,
    const float* __restrict__ code_bias, const unsigned char* __restrict__ signs_x,
    const unsigned char* __restrict__ signs_h, const float* __restrict__ thresholds,
    __half* __restrict__ new_h, float* __restrict__ new_c, int* __restrict__ computed, int inputs,
    int hidden, int units, int k_x, int k_h, int pitch, float worth_x, float worth_h, int ahead) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Sizes z;
  z.room_x = up_to(inputs, 64), z.room_h = up_to(hidden, 64);
  z.chunks_x = up_to(inputs, 256) / 256, z.chunks_h = up_to(hidden, 256) / 256;
  z.bytes_x = up_to(k_x, 32), z.bytes_h = up_to(k_h, 32);
  z.tiles_x = up_to(k_x, 16) / 16, z.tiles_h = up_to(k_h, 16) / 16;
  z.little = (z.bytes_x + z.bytes_h) * BITS / 8, z.units = units;
  Shared s = divide(memory, z);
  // The first blocks own `units` units, the others one less.
  const int full = hidden - gridDim.x * (units - 1), block = blockIdx.x;
  const int first = block * (units - 1) + min(block, full), own = block < full ? units : units - 1;
  const int rows = GATES * own;
  const Part parts[2] = {{x, inputs, z.room_x}, {h, hidden, z.room_h}};
  // Rows lie unit by unit, the gates of a unit together: a block's are contiguous.
  const long long place = static_cast<long long>(GATES) * first;
  const __half* const weights = weight + place * pitch;

  uint2 got[TURNS_AHEAD];
  begin_vector(got, parts, threadIdx.x);
  const float state = threadIdx.x < own ? c[first + threadIdx.x] : 0.0f;
#if !DENSE
  const unsigned barrier = shared_address(s.barrier);
  s.projection.signs[0] = reinterpret_cast<const uint4*>(signs_x);
  s.projection.signs[1] = reinterpret_cast<const uint4*>(signs_h);
  uint4 held[HELD][2];
  load_signs(held, s.projection, warp, lane);
  const float threshold = thresholds[warp % GATES];  // of every row that the warp estimates
  if (threadIdx.x == 0) {
    start_barrier(barrier, 1);
    publish_barriers();
    arrive_expecting(barrier, s.projection.awaited());
  }
  __syncwarp();
  arrive_at_cluster();
  fetch(s.little, codes + place * z.little, rows * z.little);
  fetch(s.scale, code_scale + place, 4 * rows);
  fetch(s.offset, code_bias + place, 4 * rows);
  s.projection.clear();
  for (int i = threadIdx.x; i < z.bytes_x + z.bytes_h; i += THREADS) s.bytes[i] = 0;
#endif
  fetch(s.bias, bias + place, 4 * rows);
  commit_copies();
  for (int row = threadIdx.x; row < rows; row += THREADS) {
    s.matters[row] = DENSE;
    if (DENSE) s.list[row] = row;
  }
  if (threadIdx.x < 4) s.counters[threadIdx.x] = DENSE && threadIdx.x % 3 == 0 ? rows : 0;
  unsigned largest[2] = {};
  end_vector(s.vector, got, parts, largest);
  if (threadIdx.x < own) s.cell[threadIdx.x] = state;
  for (int unit = threadIdx.x + THREADS; unit < own; unit += THREADS) s.cell[unit] = c[first + unit];
#if !DENSE
  show_largest(s.scratch, largest);
  __syncthreads();
  if (threadIdx.x < min(ahead, rows)) prefetch(weights + threadIdx.x * pitch, 2 * pitch);
  float worth[2];
#pragma unroll
  for (int i = 0; i < 2; ++i)
    worth[i] = worth_of(__half2float(__ushort_as_half(shown_largest(s.scratch, i))));
  write_all_planes(s.projection, s.vector, parts, worth);
  __syncthreads();
  wait_for_cluster();
  project(s.projection, held, barrier);
  arrive_at_cluster();  // nothing is copied from this block's memory when all have arrived

  const auto projected = [&](int i) {
    return s.projection.of(i < k_x ? i : i - k_x + 16 * z.tiles_x);
  };
  unsigned most[2] = {};
#pragma unroll 1
  for (int i = threadIdx.x; i < k_x + k_h; i += THREADS) {
    const int whole = projected(i);
    s.raw[i] = whole;  // read again by the same thread
    const unsigned size = abs(whole);
    most[0] = max(most[0], i < k_x ? size : 0u);
    most[1] = max(most[1], i < k_x ? 0u : size);
  }
  show_largest(s.scratch + 2 * WARPS, most);
  __syncthreads();
  const float unit[2] = {__fmul_rn(worth[0], worth_x), __fmul_rn(worth[1], worth_h)};
  float steps[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int whole = static_cast<int>(shown_largest(s.scratch + 2 * WARPS, i));
    steps[i] = worth_of(__fmul_rn(static_cast<float>(whole), unit[i]));
  }
  for (int i = threadIdx.x; i < k_x + k_h; i += THREADS) {
    const bool of_h = i >= k_x;
    const float value = __fmul_rn(static_cast<float>(s.raw[i]), of_h ? unit[1] : unit[0]);
    s.bytes[of_h ? i - k_x + z.bytes_x : i] = static_cast<signed char>(to_byte(value, of_h ? steps[1] : steps[0]));
  }
  wait_copies<0>();
  __syncthreads();
  int mine = -1;
  const auto decide = [&](int row, int from_x, int from_h) {
    const float sum = __fmaf_rn(steps[0], static_cast<float>(from_x),
                                __fmul_rn(steps[1], static_cast<float>(from_h)));
    const float estimate = __fmaf_rn(sum, s.scale[row], s.offset[row]);
    const bool matters = !(fabsf(estimate) > threshold);
    if (lane == 0) {
      s.estimate[row] = estimate;
      if (matters) {
        s.matters[row] = 1;
        atomicAdd(s.counters + 3, 1);
        if (mine >= 0) s.list[atomicAdd(s.counters, 1)] = row;
      }
    }
    if (matters && mine < 0) mine = row;
  };
#pragma unroll 1
  for (int row = warp; row < rows; row += 2 * WARPS) {
    const int other = row + WARPS < rows ? row + WARPS : row;
    int from_x[2], from_h[2];
    little_products(from_x, from_h, s.little + row * z.little, s.little + other * z.little, s.bytes,
                    z.bytes_x, z.bytes_x + z.bytes_h, lane);
    decide(row, from_x[0], from_h[0]);
    if (other != row) decide(other, from_x[1], from_h[1]);
  }
  if (lane == 0) {
    __threadfence_block();
    atomicAdd(s.counters + 2, 1);
  }
  if (mine >= 0) {
    const float sum = row_product(weights + static_cast<long long>(mine) * pitch, s.vector, pitch, lane);
    if (lane == 0) {
      s.part[PIECES * mine] = sum;
      if (PIECES == 2) s.part[PIECES * mine + 1] = 0.0f;
    }
  }
  while (*static_cast<volatile int*>(s.counters + 2) < WARPS) pause();
  __threadfence_block();
#else
  __syncthreads();
#endif
  const int listed = *static_cast<volatile int*>(s.counters);
  for (;;) {
    int next = 0;
    if (lane == 0) next = atomicAdd(s.counters + 1, 1);
    next = __shfl_sync(~0u, next, 0);
    if (next >= PIECES * listed) break;
    const int row = static_cast<volatile int*>(s.list)[next / PIECES];
    const int begin = next % PIECES == 0 ? 0 : z.room_x;
    const float sum = row_product(weights + static_cast<long long>(row) * pitch + begin, s.vector + begin,
                                  PIECES == 1 ? pitch : begin == 0 ? z.room_x : z.room_h, lane);
    if (lane == 0) s.part[next % PIECES + PIECES * row] = sum;
  }
  wait_copies<0>();
  __syncthreads();
  // A thread a gate; the four of a unit lie side by side.
  for (int base = 0; base < rows; base += THREADS) {
    const int row = base + threadIdx.x, gate = row % GATES;
    float value = 0.0f;
    if (row < rows) {
      if (s.matters[row]) {
        value = s.part[PIECES * row] + s.bias[row];
        if (PIECES == 2) value += s.part[PIECES * row + 1];
      } else {
        value = s.estimate[row];
      }
    }
    const float flat = sigmoid(gate == 2 ? 2.0f * value : value);
    const float active = gate == 2 ? 2.0f * flat - 1.0f : flat;  // tanh of the cell's gate
    // The input gate meets the cell's, the forget gate's thread the output gate's.
    const float other = __shfl_xor_sync(~0u, active, 2);
    const float before = row < rows ? s.cell[row / GATES] : 0.0f;
    const float share = active * (gate == 1 ? before : other);
    const float cell = share + __shfl_xor_sync(~0u, share, 1);
    if (row < rows && gate == 1) {
      new_c[first + row / GATES] = cell;
      new_h[first + row / GATES] = __half(other * tanhf(cell));
    }
  }
  if (threadIdx.x == 0) computed[blockIdx.x] = s.counters[3];
#if !DENSE
  wait_for_cluster();
#endif
}
