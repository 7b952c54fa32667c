#include "ring.cuh"

// Gradient of the input of a sliding-channel convolution, channels-last, for Hopper:
// dy (pixels, COUT) -> dx (pixels, CIN).
//
// CHUNK channels always lie in the same MEMBERS windows; their gradient is a sum of products of 64
// pixels, CHUNK channels and the outputs q of one window, o = PERIOD * q + r. Neighbouring outputs
// are of different windows: a thread reads units of 8 outputs and pairs up those of a window in
// registers, which the tensor cores take as their first factor. The weights' rows are ordered so that
// a thread's sums are 8 neighbouring channels of a pixel. Blocks (x, s) of one x share a pixel's
// channels, CIN / SPLIT each.
//
// Compile-time constants, see plan.py: CIN, COUT, WIDTH, CHUNK, INVERSE (of the shift in chunks,
// modulo PERIOD), PERIOD and those of ring.cuh.

constexpr int Q = COUT / PERIOD;           // outputs of a window
constexpr int MEMBERS = WIDTH / CHUNK;     // windows that read a chunk
constexpr int OWN = CIN / CHUNK / SPLIT;   // chunks of a block
constexpr int PARTS = COUT / CHANNELS;     // stages a tile
constexpr int STEP = 16 * PERIOD;          // outputs that hold 16 of each window
constexpr int UNITS = PERIOD / 2;          // of 8 outputs, a thread's of a step and pixel
constexpr int COLUMNS = MEMBERS * Q;       // of a chunk's weights
constexpr int AHEAD = PERIOD < 8 ? 2 : 1;  // steps whose outputs fit in registers
constexpr int CHUNK_BYTES = CHUNK * COLUMNS * 2;
constexpr int WEIGHT_BYTES = OWN * CHUNK_BYTES;
static_assert(STAGES > PARTS * (WARPGROUPS - 1), "no wait for the round after the next");
static_assert(PERIOD == 2 || PERIOD == 4 || PERIOD == 8, "whole units");
static_assert(CHUNK % 32 == 0 && COLUMNS % 64 == 0 && CHANNELS % STEP == 0, "whole rows");
static_assert(WIDTH % CHUNK == 0 && CIN % (CHUNK * SPLIT) == 0 && SPLIT <= 2, "whole chunks");

typedef float Sums[CHUNK / 8][4];
typedef unsigned Pairs[PERIOD][4];  // of each window: 16 outputs of 64 pixels, this thread's share

// Reads 16 outputs of each window for a thread's two pixels: its four of a window are pairs[r][0]
// and [2] of the first pixel, [1] and [3] of the other, in the order of a unit's outputs.
DEVICE void pair_up(Pairs& pairs, unsigned stage, int step) {
  const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    unsigned words[4 * UNITS];
#pragma unroll
    for (int u = 0; u < UNITS; ++u) {
      const int unit = step * (STEP / 8) + u * 4;  // of the stage; and the thread's among four
      const int turned = (unit + lane % 4 ^ row % 2 * 4) % 8;
      read_unit(words + 4 * u, stage + unit / 8 * (TILE * 128) + (row + 8 * half) * 128 + turned * 16);
    }
#pragma unroll
    for (int r = 0; r < PERIOD; ++r)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        pairs[r][2 * i + half] =
            halves_of(words[(2 * i * PERIOD + r) / 2], words[((2 * i + 1) * PERIOD + r) / 2], r % 2);
  }
}

// Adds the products of 16 outputs of each window, from `first` on, for the S-th share of channels.
template <int S>
DEVICE void multiply(Sums (&sums)[OWN], const Pairs& pairs, unsigned weights, int first,
                     bool fresh) {
#pragma unroll
  for (int member = 0; member < MEMBERS; ++member) {
    const int column = member * Q + first;
#pragma unroll
    for (int own = 0; own < OWN; ++own) {
      const int window = (S * OWN + own - member + PERIOD) * INVERSE % PERIOD;
      warpgroup_product(sums[own], pairs[window],
                        matrix_tile(weights + own * CHUNK_BYTES + column / 64 * (CHUNK * 128)) +
                            column % 64 / 16 * 2,
                        !fresh || member > 0);
    }
  }
}

template <int S>
DEVICE void multiply_tile(Sums (&sums)[OWN], const Shared& shared, int slot) {
  Pairs pairs[AHEAD];
#pragma unroll
  for (int own = 0; own < OWN; ++own) hold(sums[own]);
#pragma unroll
  for (int part = 0; part < PARTS; ++part) {
    const Place place(slot + part);
    const unsigned stage = shared.wait_for(place);
#pragma unroll
    for (int step = 0; step < CHANNELS / STEP; ++step) {
      const int number = part * (CHANNELS / STEP) + step;
      pair_up(pairs[number % AHEAD], stage, step);
      begin_products();
      multiply<S>(sums, pairs[number % AHEAD], shared.weights, 16 * number, number == 0);
      commit_products();
      wait_products<AHEAD - 1>();
    }
    __syncwarp();
    shared.give_back(place);
  }
  wait_products<0>();
#pragma unroll
  for (int own = 0; own < OWN; ++own) hold(sums[own]);
}

// Four neighbouring columns of eight hold, at a thread's places, 8 neighbouring channels.
DEVICE void store(const Sums (&sums)[OWN], const Results<OWN * CHUNK * 2, CIN * 2>& results) {
  results.begin();
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int unit = 0; unit < OWN * CHUNK / 32; ++unit) {
      const int own = unit / (CHUNK / 32), column = unit % (CHUNK / 32) * 4;
      unsigned words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        words[i] = to_halves<false>(sums[own][column + i][2 * half],
                                    sums[own][column + i][2 * half + 1]);
      results.put(half, unit, words);
    }
  results.end();
}

template <int S>
DEVICE void walk(const Shared& shared, unsigned char* dx, long long pixels) {
  const int group = threadIdx.x / 128;
  int slot = group * PARTS;
  for (long long tile = blockIdx.x + group * static_cast<long long>(gridDim.x);
       tile * TILE < pixels;
       tile += WARPGROUPS * static_cast<long long>(gridDim.x), slot += WARPGROUPS * PARTS) {
    Sums sums[OWN];
    multiply_tile<S>(sums, shared, slot);
    store(sums, {dx + (tile * TILE * CIN + S * (OWN * CHUNK)) * 2, pixels_left(tile, pixels),
                 shared.results});
  }
  wait_stores<0>();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    sliding_input_gradient(const unsigned char* dy, const unsigned char* packed,
                                  unsigned char* dx, long long pixels) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const Shared shared(shared_address(memory), WEIGHT_BYTES);
  shared.begin();
  if (threadIdx.x / 128 == WARPGROUPS) {
    give_registers<LOADING_REGISTERS>();
    shared.load_weights(packed, WEIGHT_BYTES);
    load_tiles<COUT, false>(shared, dy, pixels);
  } else {
    take_registers<MULTIPLYING_REGISTERS>();
    wait_barrier(shared.loaded, 0);
    if (SPLIT == 1 || blockIdx.y == 0)
      walk<0>(shared, dx, pixels);
    else
      walk<1>(shared, dx, pixels);
  }
}
