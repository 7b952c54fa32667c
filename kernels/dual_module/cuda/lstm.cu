#include "projection.cuh"

// One LSTM step of one vector with a little module, in one launch.
//
// A block owns all four gates of some hidden units, up to `units`. A cluster of blocks computes the
// projection for itself: each block of some chunks of the input, whose sums it sends to all.
// Meanwhile little weights come in, and the first `ahead` of the block's rows come into the
// second-level cache, in case they matter. Then each warp estimates its rows, computes the first
// that matters and lists the others, of which warps that are done take pieces until all are taken.
// Mixing, gates and the cell's update are local. With DENSE the list holds all rows, and there is
// no little module: what the other is compared with.
//
// Compile-time constants beside those of all kernels: DENSE, and PIECES of a listed row, which are
// whole or of one part of the input.

constexpr int GATES = 4;  // input, forget, cell, output

DEVICE float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

struct Shared {
  unsigned long long* barriers;  // projection, what is brought, warps that estimated
  __half* vector;                // x, h, zeros: each padded to 64
  signed char* bytes;            // the projections, each padded to 32
  Projection projection;
  unsigned* scratch;             // [PARTS][WARPS]: largest of the vector
  unsigned* most;                // [BYTES / 32]: of the projection
  float* steps;                  // [PARTS]: what a byte of the projection is worth
  int* counters;                 // rows listed, pieces taken, rows that matter
  unsigned char* little;         // little weights of the block's rows
  float* bias;                   // [units][gate], and all others
  float* scale;
  float* offset;
  float* estimate;
  float* part;                   // [row][PIECES]: what the big weights give
  int* matters;
  int* list;
};

DEVICE Shared divide(unsigned char* at, int units) {
  const int rows = GATES * units;
  Shared s;
  s.barriers = reinterpret_cast<unsigned long long*>(at), at += 32;
  s.vector = reinterpret_cast<__half*>(at), at += 2 * ROOM;
  s.projection.planes = reinterpret_cast<unsigned*>(at), at += 4 * PLANES * OF_BLOCK;
  s.bytes = reinterpret_cast<signed char*>(at), at += BYTES;
  s.projection.sums = reinterpret_cast<int*>(at), at += 4 * SUMS;
  s.scratch = reinterpret_cast<unsigned*>(at), at += 4 * PARTS * WARPS;
  s.most = reinterpret_cast<unsigned*>(at), at += up_to(BYTES / 8, 16);
  s.steps = reinterpret_cast<float*>(at), at += 16;
  s.counters = reinterpret_cast<int*>(at), at += 16;
  s.little = at, at += rows * LITTLE;
  float* next = reinterpret_cast<float*>(at);
  s.bias = next, next += rows;
  s.scale = next, next += rows;
  s.offset = next, next += rows;
  s.estimate = next, next += rows;
  s.part = next, next += PIECES * rows;
  s.matters = reinterpret_cast<int*>(next), next += rows;
  s.list = reinterpret_cast<int*>(next);
  return s;
}

// The first blocks own `units` units, the others one less.
DEVICE int first_unit(int block, int units) {
  return block * (units - 1) + min(block, HIDDEN - static_cast<int>(gridDim.x) * (units - 1));
}

// What a piece of a row gives, by a warp.
DEVICE float piece_product(const __half* row, int piece, const __half* vector, int lane) {
  if (PIECES == 1) return row_product<ROOM>(row, vector, lane);
  if (ROOM_0 == ROOM_1 || piece == 0)
    return row_product<ROOM_0>(row + piece * ROOM_0, vector + piece * ROOM_0, lane);
  return row_product<ROOM_1>(row + ROOM_0, vector + ROOM_0, lane);
}

extern "C" __global__ void CLUSTERED __launch_bounds__(THREADS, 1) dual_lstm_step(
    const __half* __restrict__ x, const __half* __restrict__ h, const float* __restrict__ c,
    const __half* __restrict__ weight, const float* __restrict__ bias,
    const unsigned char* __restrict__ codes, const float* __restrict__ code_scale,
    const float* __restrict__ code_bias, const uint4* __restrict__ signs,
    const float* __restrict__ thresholds,
    __half* __restrict__ new_h, float* __restrict__ new_c, int* __restrict__ computed, int units,
    float scale_x, float scale_h, int ahead) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Shared s = divide(memory, units);
  const int first = first_unit(blockIdx.x, units);
  const int own = first_unit(blockIdx.x + 1, units) - first, rows = GATES * own;
  // Rows lie unit by unit, the gates of a unit together: a block's are contiguous.
  const long long place = static_cast<long long>(GATES) * first;
  const __half* const weights = weight + place * ROOM;
  const unsigned barrier = shared_address(s.barriers);
  const Vector vector = {{x, h}};
  uint2 got[VECTOR_TURNS];
#if OVERLAP
  let_next_start();
  expect_vector(vector);
#else
  begin_vector(got, vector);
#endif
  if (threadIdx.x == BRINGS) {
    start_barrier(barrier, 1);
    start_barrier(barrier + 8, 1);
    start_barrier(barrier + 16, WARPS);
    publish_barriers();
    arrive_expecting(barrier, AWAITED);
    arrive_expecting(barrier + 8, rows * (DENSE ? 4 : LITTLE + 12));
  }
  if (brings()) {
#if !DENSE
    bring(s.little, codes + place * LITTLE, rows * LITTLE, barrier + 8);
    bring(s.scale, code_scale + place, 4 * rows, barrier + 8);
    bring(s.offset, code_bias + place, 4 * rows, barrier + 8);
#endif
    bring(s.bias, bias + place, 4 * rows, barrier + 8);
  }
  __syncwarp();
#if !DENSE
  Projection projection = s.projection;
  projection.signs = signs;
  arrive_at_cluster();
  uint4 held[RUN][2];
  begin_signs(held, projection, warp, lane);
  const float threshold = thresholds[warp % GATES];  // of every row that the warp estimates
  projection.clear();
#endif
  if (warp == WARPS - 2)
#pragma unroll 1
    for (int row = lane; row < min(ahead, rows); row += 32)
      prefetch(weights + row * ROOM, 2 * ROOM);
#if DENSE
#pragma unroll 1
  for (int row = threadIdx.x; row < rows; row += THREADS) s.matters[row] = 1, s.list[row] = row;
#endif
  if (threadIdx.x < 3) s.counters[threadIdx.x] = DENSE && threadIdx.x != 1 ? rows : 0;
#if !DENSE
  wait_for_cluster();  // its blocks have begun
#endif
#if OVERLAP
  wait_for_previous();
  begin_vector(got, vector);
#endif
  const float state = threadIdx.x < rows ? load_fresh(c + first + threadIdx.x / GATES) : 0.0f;
  unsigned largest[PARTS] = {};
  end_vector(s.vector, got, largest);
#if !DENSE
  show_largest(s.scratch, largest);
  __syncthreads();
  write_all_planes(projection, s.vector, s.scratch);
  __syncthreads();
  project(projection, held, barrier);
  round_projection(s.bytes, s.steps, projection, {scale_x, scale_h}, s.scratch, s.most, barrier);
  arrive_at_cluster();  // nothing is copied from this block's memory when all have arrived
  brought(barrier + 8);
  __syncthreads();
  int mine = -1;  // the first row that the warp computes
#pragma unroll 1
  for (int row = warp; row < rows; row += 2 * WARPS) {
    const int other = row + WARPS < rows ? row + WARPS : row;
    int whole[2][PARTS];
    little_products<2>(whole, {s.little + row * LITTLE, s.little + other * LITTLE}, s.bytes, lane);
    // The first lane decides on one row, the second on the other.
    const int my = lane == 0 ? row : other;
    bool matters = false;
    if (lane == 0 || (lane == 1 && other != row)) {
      const float sum = __fmaf_rn(
          s.steps[0], static_cast<float>(lane == 0 ? whole[0][0] : whole[1][0]),
          __fmul_rn(s.steps[1], static_cast<float>(lane == 0 ? whole[0][1] : whole[1][1])));
      const float estimate = __fmaf_rn(sum, s.scale[my], s.offset[my]);
      matters = !(fabsf(estimate) > threshold);
      s.estimate[my] = estimate;
      s.matters[my] = matters;
    }
    const unsigned both = __ballot_sync(~0u, matters);
    if (mine < 0 && both != 0) mine = both & 1 ? row : other;
    if (lane == 0 && both != 0) atomicAdd(s.counters + 2, __popc(both));
    if (matters && my != mine) s.list[atomicAdd(s.counters, 1)] = my;
  }
  __syncwarp();
  if (lane == 0) arrive(barrier + 16);
  if (mine >= 0) {
    const float sum =
        row_product<ROOM>(weights + static_cast<long long>(mine) * ROOM, s.vector, lane);
    if (lane == 0) {
      s.part[PIECES * mine] = sum;
      if (PIECES == 2) s.part[PIECES * mine + 1] = 0.0f;
    }
  }
  wait_barrier(barrier + 16, 0);
#else
  __syncthreads();
#endif
  const int listed = s.counters[0];
  for (;;) {
    int next = 0;
    if (lane == 0) next = atomicAdd(s.counters + 1, 1);
    next = __shfl_sync(~0u, next, 0);
    if (next >= PIECES * listed) break;
    const int row = s.list[next / PIECES];
    const float sum = piece_product(weights + static_cast<long long>(row) * ROOM, next % PIECES,
                                    s.vector, lane);
    if (lane == 0) s.part[next % PIECES + PIECES * row] = sum;
  }
#if DENSE
  brought(barrier + 8);
#endif
  __syncthreads();
  // A thread a gate; the four of a unit lie side by side.
#pragma unroll 1
  for (int base = 0; base < rows; base += THREADS) {
    const int row = base + threadIdx.x, gate = row % GATES;
    float value = 0.0f, before = state;
    if (row < rows) {
      if (base > 0) before = load_fresh(c + first + row / GATES);
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
    const float share = active * (gate == 1 ? before : other);
    const float cell = share + __shfl_xor_sync(~0u, share, 1);
    if (row < rows && gate == 1) {
      new_c[first + row / GATES] = cell;
      new_h[first + row / GATES] = __half(other * (2.0f * sigmoid(2.0f * cell) - 1.0f));
    }
  }
  if (threadIdx.x == 0) computed[blockIdx.x] = s.counters[2];
#if !DENSE
  wait_for_cluster();
#endif
}
