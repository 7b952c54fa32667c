#include "ring.cuh"

// Sliding-channel convolution, channels-last, for Hopper: x (pixels, CIN) -> y (pixels, COUT).
//
// Outputs o = PERIOD * q + r that share r share a window: a product of 64 pixels, Q outputs and
// WIDTH channels. The weights' rows are ordered so that a thread's sums are 8 neighbouring outputs
// of a pixel: 16-byte stores straight from registers, 64 bytes side by side. Blocks (x, s) of one x
// share a pixel's outputs, COUT / SPLIT each.
//
// Compile-time constants, see plan.py: CIN, COUT, WIDTH, SHIFT, PERIOD, BIAS and those of ring.cuh.

constexpr int Q = COUT / PERIOD / SPLIT;
constexpr int BLOCKS = CIN / 16, STEPS = WIDTH / 16;  // of 16 channels: a pixel's and a window's
constexpr int PARTS = CIN / CHANNELS;                 // stages a tile
constexpr int WEIGHT_BYTES = Q * PERIOD * WIDTH * 2;
static_assert(STAGES > PARTS * (WARPGROUPS - 1), "no wait for the round after the next");
static_assert(PERIOD <= 8 && 8 % PERIOD == 0, "units of 8 outputs");
static_assert(Q % 16 == 0 && Q * PERIOD % 32 == 0 && PERIOD * WIDTH % 64 == 0, "whole rows");
static_assert(SHIFT % 16 == 0, "whole steps");

typedef float Sums[Q / 8][4];

DEVICE constexpr int step_of(int r, int block) {
  return (block - r * SHIFT % CIN / 16 + BLOCKS) % BLOCKS;
}

// Whether no earlier block of channels is in the window.
DEVICE constexpr bool is_first(int r, int block) {
  for (int i = 0; i < block; ++i)
    if (step_of(r, i) < STEPS) return false;
  return true;
}

// Products of one stage: blocks FIRST to FIRST + CHANNELS / 16 - 1 of the pixels' channels.
template <int PART>
DEVICE void multiply(Sums (&sums)[PERIOD], unsigned weights, unsigned stage) {
#pragma unroll
  for (int i = 0; i < CHANNELS / 16; ++i) {
    const int block = PART * (CHANNELS / 16) + i;
    const unsigned long long pixels = matrix_tile(stage + i / 4 * (TILE * 128)) + i % 4 * 2;
#pragma unroll
    for (int r = 0; r < PERIOD; ++r) {
      const int step = step_of(r, block);
      if (step >= STEPS) continue;
      const int column = r * WIDTH + 16 * step;
      warpgroup_product(sums[r], pixels,
                        matrix_tile(weights + column / 64 * (Q * 128)) + column % 64 / 16 * 2,
                        BIAS || !is_first(r, block));
    }
  }
}

template <int PART>
DEVICE void multiply_parts(Sums (&sums)[PERIOD], const Shared& shared, int slot) {
  if constexpr (PART < PARTS) {
    const Place place(slot + PART);
    const unsigned stage = shared.wait_for(place);
    show_to_tensor_cores();
#pragma unroll
    for (int r = 0; r < PERIOD; ++r) hold(sums[r]);
    begin_products();
    multiply<PART>(sums, shared.weights, stage);
    commit_products();
    wait_products<0>();
#pragma unroll
    for (int r = 0; r < PERIOD; ++r) hold(sums[r]);
    shared.give_back(place);
    multiply_parts<PART + 1>(sums, shared, slot);
  }
}

// A thread's sums are 8 neighbouring outputs each: windows first, then the q that share a unit.
DEVICE float sum_of(const Sums (&sums)[PERIOD], int unit, int element, int half) {
  if constexpr (PERIOD == 8) return sums[element][unit / 2][2 * half + unit % 2];
  const int q = element / PERIOD, tiles = 4 / PERIOD;  // tiles of 8 columns that fill a unit
  return sums[element % PERIOD][unit * tiles + q / 2][2 * half + q % 2];
}

DEVICE void store(const Sums (&sums)[PERIOD], const Results<Q * PERIOD * 2, COUT * 2>& results) {
  results.begin();
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int unit = 0; unit < Q * PERIOD / 32; ++unit) {
      unsigned words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        words[i] = to_halves<false>(sum_of(sums, unit, 2 * i, half),
                                    sum_of(sums, unit, 2 * i + 1, half));
      results.put(half, unit, words);
    }
  results.end();
}

// Starts sums at the bias of their outputs.
DEVICE void start(Sums (&sums)[PERIOD], const float* bias) {
  const float* const own = bias + blockIdx.y * (Q * PERIOD) + threadIdx.x % 4 * 8;
#pragma unroll
  for (int r = 0; r < PERIOD; ++r)
#pragma unroll
    for (int j = 0; j < Q / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        constexpr int tiles = PERIOD == 8 ? 1 : 4 / PERIOD;
        const int unit = PERIOD == 8 ? 2 * j + e : j / tiles;
        const int element = PERIOD == 8 ? r : (j % tiles * 2 + e) * PERIOD + r;
        sums[r][j][e] = sums[r][j][2 + e] = __ldg(own + unit * 32 + element);
      }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    sliding_forward(const unsigned char* x, const unsigned char* packed, const float* bias,
                           unsigned char* y, long long pixels) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const Shared shared(shared_address(memory), WEIGHT_BYTES);
  shared.begin();
  const int group = threadIdx.x / 128;
  if (group == WARPGROUPS) {
    give_registers<LOADING_REGISTERS>();
    shared.load_weights(packed, WEIGHT_BYTES);
    load_tiles<CIN, true>(shared, x, pixels);
  } else {
    take_registers<MULTIPLYING_REGISTERS>();
    wait_barrier(shared.loaded, 0);
    int slot = group * PARTS;
    for (long long tile = blockIdx.x + group * static_cast<long long>(gridDim.x);
         tile * TILE < pixels;
         tile += WARPGROUPS * static_cast<long long>(gridDim.x), slot += WARPGROUPS * PARTS) {
      Sums sums[PERIOD];
      if constexpr (BIAS) start(sums, bias);
      multiply_parts<0>(sums, shared, slot);
      store(sums, {y + (tile * TILE * COUT + blockIdx.y * (Q * PERIOD)) * 2,
                   pixels_left(tile, pixels), shared.results});
    }
    wait_stores<0>();
  }
}
