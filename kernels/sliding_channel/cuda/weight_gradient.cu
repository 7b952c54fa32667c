#include "tiles.cuh"

// Gradient of the weights, channels-last: x (pixels, CIN), dy (pixels, COUT) -> dw (COUT, WIDTH).
//
// dw of window r is the product dy_r^T x_r, a sum over all pixels. Every block walks over tiles of
// pixels with its sums in registers and writes them once, to its slots of `partial`; a second
// kernel adds the slots in order. No atomics: equal inputs give equal bits.
// blockIdx.y shares out the outputs: SLICE neighbouring ones to each.

constexpr int THREADS = 32 * WARPS;
constexpr int SLICE = COUT / SPLIT;
constexpr int PER_WINDOW = SLICE / PERIOD;  // outputs of a window in this slice
constexpr int X_BYTES = PIXELS * CIN * 2;
constexpr int DY_BYTES = PIXELS * SLICE * 2;
constexpr int STAGE_BYTES = X_BYTES + DY_BYTES;
constexpr int DOWN = PER_WINDOW / TILE_Q, ACROSS = WIDTH / TILE_J;
constexpr int TILES = PERIOD * DOWN * ACROSS;  // of TILE_Q outputs by TILE_J weights, a warp each
constexpr int FRAGMENTS = TILE_Q * TILE_J / 128;  // of a warp: 16 x 8 sums, 4 to a thread
constexpr int SHARE = SLICE * WIDTH / 4;           // quadruples of sums in a slice
constexpr int DEPTH = WARPS / TILES;            // warps that share a tile, over pixels

static_assert(WARPS % TILES == 0 && PIXELS / 16 % DEPTH == 0, "whole warps");
static_assert(TILE_Q % 16 == 0 && TILE_J % 16 == 0 && SHIFT % 8 == 0, "whole fragments");

DEVICE void add(float4& sum, const float4& value) {
  sum.x += value.x, sum.y += value.y, sum.z += value.z, sum.w += value.w;
}

// Writes the index-th four sums of a slice: two neighbouring weights of each of two outputs.
DEVICE void store_sums(unsigned* dw, int slice, int index, const float4& sum) {
  const int lane = index % 32, fragment = index / 32 % FRAGMENTS, owned = index / 32 / FRAGMENTS;
  const int window = owned / (DOWN * ACROSS);
  const int q = owned / ACROSS % DOWN * TILE_Q + fragment / (TILE_J / 8) * 16 + lane / 4;
  const int j = owned % ACROSS * TILE_J + fragment % (TILE_J / 8) * 8 + lane % 4 * 2;
  const int output = slice * SLICE + PERIOD * q + window;
  dw[(output * WIDTH + j) / 2] = pack(sum.x, sum.y);
  dw[((output + 8 * PERIOD) * WIDTH + j) / 2] = pack(sum.z, sum.w);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    sliding_weight_gradient(const Element* __restrict__ x, const Element* __restrict__ dy,
                            float4* __restrict__ partial, long long pixels) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const unsigned buffers = shared_address(memory);
  const unsigned sorted = buffers + STAGES * STAGE_BYTES;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int depth = warp / TILES, owned = warp % TILES;
  const int window = owned / (DOWN * ACROSS);
  const int q = owned / ACROSS % DOWN * TILE_Q, j = owned % ACROSS * TILE_J;
  unsigned a_offset[TILE_Q / 16], b_offset[TILE_J / 16];  // of this thread's row in a fragment
#pragma unroll
  for (int i = 0; i < TILE_Q / 16; ++i)
    a_offset[i] = unit_offset<SLICE>(
        lane % 8 + lane / 16 * 8, (window * PER_WINDOW + q) / 8 + 2 * i + lane / 8 % 2);
#pragma unroll
  for (int i = 0; i < TILE_J / 16; ++i)
    b_offset[i] = unit_offset<CIN>(lane % 16, ((window * SHIFT + j) / 8 + 2 * i + lane / 16) %
                                                  (CIN / 8));
  const long long tiles = (pixels + PIXELS - 1) / PIXELS;
  const Element* slice = dy + blockIdx.y * SLICE;
  long long next = blockIdx.x;
  const auto fetch = [&](int stage) {
    if (next < tiles) {
      const unsigned to = buffers + stage * STAGE_BYTES;
      fetch_tile<CIN, CIN, PIXELS, THREADS>(to, x, next * PIXELS, pixels);
      fetch_tile<SLICE, COUT, PIXELS, THREADS>(to + X_BYTES, slice, next * PIXELS, pixels);
    }
    commit_copies();
    next += gridDim.x;
  };
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; ++stage) fetch(stage);
  let_next_start();
  float acc[TILE_Q / 16][TILE_J / 8][4] = {};
  int stage = 0;
  for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    wait_copies<STAGES - 2>();
    __syncthreads();
    const unsigned current = buffers + stage * STAGE_BYTES;
    fetch(stage == 0 ? STAGES - 1 : stage - 1);
    deinterleave<SLICE, PERIOD, PIXELS, THREADS>(current + X_BYTES, sorted);
    __syncthreads();
#pragma unroll
    for (int step = 0; step < PIXELS / 16 / DEPTH; ++step) {
      const int pixel = (step * DEPTH + depth) * 16;
      unsigned a[TILE_Q / 16][4];
#pragma unroll
      for (int i = 0; i < TILE_Q / 16; ++i)
        load_matrices_transposed(a[i], sorted + pixel * SLICE * 2 + a_offset[i]);
#pragma unroll
      for (int i = 0; i < TILE_J / 16; ++i) {
        unsigned b[4];
        load_matrices_transposed(b, current + pixel * CIN * 2 + b_offset[i]);
#pragma unroll
        for (int m = 0; m < TILE_Q / 16; ++m) {
          multiply(acc[m][2 * i], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
          multiply(acc[m][2 * i + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
        }
      }
    }
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }
  wait_copies<0>();
  // Sums are kept in the order in which threads hold them; the last addition sorts them.
  const long long slot = blockIdx.x * DEPTH + depth;
  float4* const own = partial + (slot * SPLIT + blockIdx.y) * SHARE;
#pragma unroll
  for (int i = 0; i < FRAGMENTS; ++i) {
    const float(&sums)[4] = acc[i / (TILE_J / 8)][i % (TILE_J / 8)];
    own[(owned * FRAGMENTS + i) * 32 + lane] = make_float4(sums[0], sums[1], sums[2], sums[3]);
  }
}

// dw = sum over slots of partial[slot]: eight runs of slots in order, then the eight sums. It starts
// while the slots are still written, and waits.
extern "C" __global__ void __launch_bounds__(256)
    sliding_add_slots(const float4* partial, unsigned* dw, int slots) {
  __shared__ float4 sums[8][32];
  const int index = blockIdx.x * 32 + threadIdx.x % 32, run = threadIdx.x / 32;
  const int length = (slots + 7) / 8, end = min(slots, (run + 1) * length);
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  wait_for_previous();
#pragma unroll 8
  for (int slot = run * length; slot < end; ++slot)
    add(sum, read_floats(partial + static_cast<long long>(slot) * SPLIT * SHARE + index));
  sums[run][threadIdx.x % 32] = sum;
  __syncthreads();
  if (run != 0) return;
#pragma unroll
  for (int other = 1; other < 8; ++other) add(sum, sums[other][threadIdx.x]);
  store_sums(dw, index / SHARE, index % SHARE, sum);
}
