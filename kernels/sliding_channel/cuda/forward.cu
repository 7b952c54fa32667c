#include "tiles.cuh"
#include "windows.cuh"

// Sliding-channel convolution, channels-last: x (pixels, CIN) -> y (pixels, COUT).
// Blocks stay resident and walk over tiles of PIXELS pixels, STAGES of them in flight.

constexpr int THREADS = 32 * WARPS;
constexpr int TILE_BYTES = PIXELS * CIN * 2;

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    sliding_forward(const Element* __restrict__ x, const uint2* __restrict__ packed,
                    const float* __restrict__ bias, Element* __restrict__ y, long long pixels) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const unsigned buffers = shared_address(memory);
  float* const shared_bias = reinterpret_cast<float*>(memory + STAGES * TILE_BYTES);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = blockIdx.y * OUT_WARPS + warp % OUT_WARPS;
  const int pixel_warp = warp / OUT_WARPS;
  const long long tiles = (pixels + PIXELS - 1) / PIXELS;
  long long next = blockIdx.x;
  const auto fetch = [&](int stage) {
    if (next < tiles)
      fetch_tile<CIN, CIN, PIXELS, THREADS>(buffers + stage * TILE_BYTES, x, next * PIXELS, pixels);
    commit_copies();
    next += gridDim.x;
  };
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; ++stage) fetch(stage);
  if constexpr (BIAS)
    for (int i = threadIdx.x; i < COUT; i += THREADS) shared_bias[i] = bias[i];
  WindowWeights weights;
  weights.load(packed, group, lane);
  const int column = first_output(group, lane);
  int stage = 0;
  for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    wait_copies<STAGES - 2>();
    __syncthreads();
    fetch(stage == 0 ? STAGES - 1 : stage - 1);
    const int left = static_cast<int>(min(pixels - tile * PIXELS, static_cast<long long>(PIXELS)));
    Element* const to = y + tile * PIXELS * COUT + column;
#pragma unroll 1
    for (int at = 16 * ROWS * pixel_warp; at < PIXELS; at += 16 * ROWS * PIXEL_WARPS) {
      float acc[ROWS][PERIOD][4] = {};
      if constexpr (BIAS) start_sums(acc, shared_bias + column);
      window_products(acc, weights, buffers + stage * TILE_BYTES, at, lane);
      Element* const first = to + (at + lane / 4) * COUT;
#pragma unroll
      for (int part = 0; part < 2 * ROWS; ++part) {
        if (at + lane / 4 + 8 * part < left)
          each_run(acc, part, [&](int offset, float2(&values)[RUN / 2]) {
            unsigned words[RUN / 2];
#pragma unroll
            for (int i = 0; i < RUN / 2; ++i) words[i] = pack(values[i].x, values[i].y);
            store_words<RUN / 2>(first + 8 * part * COUT + offset, words);
          });
      }
    }
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }
  wait_copies<0>();
}
