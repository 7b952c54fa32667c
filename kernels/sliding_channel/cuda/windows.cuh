#pragma once
#include "common.cuh"

// Output pixels from a tile of input pixels: y[pixel][o] for windows that repeat after PERIOD
// outputs, o = PERIOD * q + r reading channels r * SHIFT .. r * SHIFT + WIDTH - 1 (modulo CIN).
//
// Each warp holds the weights of 8 values of q and all r in registers, in fragment order. In the
// accumulators of a thread lie then 2 * PERIOD outputs of a pixel, in runs that make up whole
// sectors with those of its neighbours: it stores them as they are.

constexpr int STEPS = WIDTH / 16;             // products of 16 channels per window
constexpr int BLOCKS = CIN / 16;              // 16-channel blocks of a pixel
constexpr int GROUPS = COUT / (8 * PERIOD);   // of 8 * PERIOD outputs, one per warp
constexpr int OUT_WARPS = GROUPS / SPLIT;     // warps side by side over outputs; SPLIT blocks share
constexpr int PIXEL_WARPS = WARPS / OUT_WARPS;
constexpr bool ALIGNED = SHIFT % 16 == 0;     // else windows start at odd multiples of 8
constexpr int AHEAD = PERIOD * ROWS >= 8 && BLOCKS_PER_SM > 1 ? 1 : 3;  // fragments on the way
constexpr int ROW_BYTES = 16 * CIN * 2;       // of 16 pixels

static_assert(CIN % 64 == 0 && WIDTH % 16 == 0 && SHIFT % 8 == 0, "16-byte units");
static_assert(GROUPS % SPLIT == 0 && WARPS % OUT_WARPS == 0, "whole warps");
static_assert(PIXELS % (16 * ROWS * PIXEL_WARPS) == 0, "whole fragments");

struct WindowWeights {
  uint2 b[PERIOD][STEPS];

  DEVICE void load(const uint2* packed, int group, int lane) {
#pragma unroll
    for (int r = 0; r < PERIOD; ++r)
#pragma unroll
      for (int k = 0; k < STEPS; ++k)
        b[r][k] = __ldg(packed + ((group * PERIOD + r) * STEPS + k) * 32 + lane);
  }
};

// A column of 16 pixels in a tile; block b of 16 channels lies at `block(b)`.
struct Fragments {
  unsigned base;

  DEVICE Fragments(unsigned tile, int pixel, int lane)
      : base(tile + unit_offset<CIN>(pixel + lane % 16, lane / 16)) {}
  DEVICE unsigned block(int b) const { return (base ^ (b % 4 << 5)) + b / 4 * 128; }
};

DEVICE constexpr int first_block(int r) { return (r * SHIFT % CIN) / 16; }

// acc += 16 * ROWS pixels from `pixel` on, times this warp's weights.
DEVICE void window_products(float (&acc)[ROWS][PERIOD][4], const WindowWeights& weights,
                            unsigned tile, int pixel, int lane) {
  const Fragments fragments(tile, pixel, lane);
  if constexpr (ALIGNED) {
    unsigned a[AHEAD + 1][ROWS][4];
    const auto load = [&](int block) {
#pragma unroll
      for (int row = 0; row < ROWS; ++row)
        load_matrices(a[block % (AHEAD + 1)][row], fragments.block(block) + row * ROW_BYTES);
    };
#pragma unroll
    for (int block = 0; block < AHEAD; ++block) load(block);
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
      if (block + AHEAD < BLOCKS) load(block + AHEAD);
#pragma unroll
      for (int r = 0; r < PERIOD; ++r) {
        const int k = (block - first_block(r) + BLOCKS) % BLOCKS;
        if (k >= STEPS) continue;
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
          const unsigned(&now)[4] = a[block % (AHEAD + 1)][row];
          multiply(acc[row][r], now[0], now[1], now[2], now[3], weights.b[r][k].x,
                   weights.b[r][k].y);
        }
      }
    }
  } else {
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      unsigned a[BLOCKS][4];
#pragma unroll
      for (int block = 0; block < BLOCKS; ++block)
        load_matrices(a[block], fragments.block(block) + row * ROW_BYTES);
#pragma unroll
      for (int r = 0; r < PERIOD; ++r)
#pragma unroll
        for (int k = 0; k < STEPS; ++k) {
          const int unit = (r * SHIFT % CIN) / 8 + 2 * k;
          const int low = unit % (2 * BLOCKS), high = (unit + 1) % (2 * BLOCKS);
          multiply(acc[row][r], a[low / 2][2 * (low % 2)], a[low / 2][2 * (low % 2) + 1],
                   a[high / 2][2 * (high % 2)], a[high / 2][2 * (high % 2) + 1],
                   weights.b[r][k].x, weights.b[r][k].y);
        }
    }
  }
}

// A thread's outputs of a pixel are RUNS runs of RUN: columns 2t and 2t + 1 of a fragment are the
// neighbours q and q + 1 or, where one q fills a 16-byte unit, q and q + 4.
constexpr int RUNS = PERIOD >= 8 ? 2 : 1;
constexpr int RUN = 2 * PERIOD / RUNS;
constexpr int RUN_STEP = 4 * PERIOD;  // from one run to the next

DEVICE int first_output(int group, int lane) {
  return PERIOD * 8 * group + RUN * (lane % 4);
}

// Starts sums at the bias of each output; `bias` points at this thread's first one.
DEVICE void start_sums(float (&acc)[ROWS][PERIOD][4], const float* bias) {
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int r = 0; r < PERIOD; ++r) {
      const float value = bias[RUNS == 2 ? i * RUN_STEP + r : i * PERIOD + r];
#pragma unroll
      for (int row = 0; row < ROWS; ++row) acc[row][r][i] = acc[row][r][2 + i] = value;
    }
}

// Calls use(offset of a run, its values as RUN / 2 pairs) for the part-th 8 pixels.
template <typename Use>
DEVICE void each_run(const float (&acc)[ROWS][PERIOD][4], int part, const Use& use) {
#pragma unroll
  for (int run = 0; run < RUNS; ++run) {
    float2 values[RUN / 2];
#pragma unroll
    for (int i = 0; i < RUN; ++i) {
      const int column = RUNS == 2 ? run : i / PERIOD;
      const float value = acc[part / 2][i % PERIOD][2 * (part % 2) + column];
      (i % 2 ? values[i / 2].y : values[i / 2].x) = value;
    }
    use(run * RUN_STEP, values);
  }
}
