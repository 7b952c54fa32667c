#include "tiles.cuh"

// Gradient of the input, channels-last: dy (pixels, COUT) -> dx (pixels, CIN).
//
// Input channels come in chunks of CHUNK (all windows start at multiples of it), and a chunk is
// read by MEMBERS windows. dy is put in window-major order first, so that the outputs of a window
// lie side by side; a chunk's gradient is then MEMBERS dense products. A warp owns 32 channels.
// Its weight columns are dealt so that a thread holds neighbouring channels of a pixel.

constexpr int THREADS = 32 * WARPS;
constexpr int TILE_BYTES = PIXELS * COUT * 2;
constexpr int PER_WINDOW = COUT / PERIOD;  // outputs of a window
constexpr int CHUNKS = CIN / CHUNK;
constexpr int MEMBERS = WIDTH / CHUNK;
constexpr int STEPS = PER_WINDOW / 16;
constexpr int PARTS = CHUNK >= 32 ? 1 : 32 / CHUNK;  // chunks of a warp
constexpr int TILES = 4 / PARTS;                     // 8-channel products of a chunk
constexpr int OWN = PARTS == 4 ? 8 : 2 * TILES;      // channels between the stores of neighbours
constexpr int OUT_WARPS = CIN / 32 / SPLIT;
constexpr int PIXEL_WARPS = WARPS / OUT_WARPS;

static_assert(PER_WINDOW % 16 == 0 && CHUNK % 8 == 0 && WIDTH % CHUNK == 0, "16-byte units");
static_assert(CHUNKS == PERIOD, "one window starts at each chunk");
static_assert(WARPS % OUT_WARPS == 0 && PIXELS % (16 * ROWS * PIXEL_WARPS) == 0, "whole fragments");

struct ChunkWeights {
  uint2 b[PARTS][MEMBERS][STEPS][TILES];

  DEVICE void load(const uint2* packed, int owner, int lane) {
    const uint2* from = packed + owner * (PARTS * MEMBERS * STEPS * TILES * 32) + lane;
#pragma unroll
    for (int part = 0; part < PARTS; ++part)
#pragma unroll
      for (int member = 0; member < MEMBERS; ++member)
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
#pragma unroll
          for (int tile = 0; tile < TILES; ++tile)
            b[part][member][step][tile] =
                __ldg(from + (((part * MEMBERS + member) * STEPS + step) * TILES + tile) * 32);
  }
};

// Transposes a 4 x 4 matrix of words whose columns lie in the four threads of a quad.
DEVICE void exchange_in_quad(unsigned (&row)[4], int own) {
  unsigned taken[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) taken[i] = own == i ? row[i] : 0;
#pragma unroll
  for (int distance = 1; distance < 4; ++distance) {
    const int other = own ^ distance;
    const unsigned low = other & 1 ? row[1] : row[0], high = other & 1 ? row[3] : row[2];
    const unsigned came = __shfl_xor_sync(0xffffffffu, other & 2 ? high : low, distance);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (other == i) taken[i] = came;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) row[i] = taken[i];
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    sliding_input_gradient(const Element* __restrict__ dy, const uint2* __restrict__ packed,
                           Element* __restrict__ dx, long long pixels) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const unsigned buffers = shared_address(memory);
  const unsigned sorted = buffers + STAGES * TILE_BYTES;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int owner = blockIdx.y * OUT_WARPS + warp % OUT_WARPS;
  const int pixel_warp = warp / OUT_WARPS;
  const long long tiles = (pixels + PIXELS - 1) / PIXELS;
  long long next = blockIdx.x;
  const auto fetch = [&](int stage) {
    if (next < tiles)
      fetch_tile<COUT, COUT, PIXELS, THREADS>(buffers + stage * TILE_BYTES, dy, next * PIXELS,
                                              pixels);
    commit_copies();
    next += gridDim.x;
  };
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; ++stage) fetch(stage);
  ChunkWeights weights;
  weights.load(packed, owner, lane);
  unsigned windows[PARTS][MEMBERS];  // where a window's outputs begin in this thread's row
#pragma unroll
  for (int part = 0; part < PARTS; ++part)
#pragma unroll
    for (int member = 0; member < MEMBERS; ++member) {
      const int chunk = owner * 32 / CHUNK + part;
      const int window = (chunk - member + CHUNKS) * INVERSE % PERIOD;
      const int unit = window * (PER_WINDOW / 8);
      windows[part][member] =
          unit_offset<COUT>(lane % 16, unit % 8 + lane / 16) + unit / 8 * 128;
    }
  int stage = 0;
  for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    wait_copies<STAGES - 2>();
    __syncthreads();
    fetch(stage == 0 ? STAGES - 1 : stage - 1);
    deinterleave<COUT, PERIOD, PIXELS, THREADS>(buffers + stage * TILE_BYTES, sorted);
    __syncthreads();
    const int left = static_cast<int>(min(pixels - tile * PIXELS, static_cast<long long>(PIXELS)));
    Element* const to = dx + tile * PIXELS * CIN + owner * 32 + OWN * (lane % 4);
#pragma unroll 1
    for (int at = 16 * ROWS * pixel_warp; at < PIXELS; at += 16 * ROWS * PIXEL_WARPS) {
      float acc[ROWS][PARTS][TILES][4] = {};
#pragma unroll
      for (int part = 0; part < PARTS; ++part)
#pragma unroll
        for (int member = 0; member < MEMBERS; ++member)
#pragma unroll
          for (int step = 0; step < STEPS; ++step)
#pragma unroll
            for (int row = 0; row < ROWS; ++row) {
              unsigned a[4];
              const unsigned from = sorted + (at + 16 * row) * COUT * 2 + windows[part][member];
              load_matrices(a, (from ^ (step % 4 << 5)) + step / 4 * 128);
#pragma unroll
              for (int i = 0; i < TILES; ++i)
                multiply(acc[row][part][i], a[0], a[1], a[2], a[3],
                         weights.b[part][member][step][i].x, weights.b[part][member][step][i].y);
            }
      Element* const first = to + (at + lane / 4) * CIN;
#pragma unroll
      for (int half = 0; half < 2 * ROWS; ++half) {
        const bool inside = at + lane / 4 + 8 * half < left;
        Element* const pixel = first + 8 * half * CIN;
        unsigned words[PARTS][TILES];
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
          for (int i = 0; i < TILES; ++i) {
            const float(&sums)[4] = acc[half / 2][part][i];
            words[part][i] = pack(sums[2 * (half % 2)], sums[2 * (half % 2) + 1]);
          }
        if constexpr (PARTS == 4) {
          unsigned row[4] = {words[0][0], words[1][0], words[2][0], words[3][0]};
          exchange_in_quad(row, lane % 4);
          if (inside) store_words<4>(pixel, row);
        } else {
#pragma unroll
          for (int part = 0; part < PARTS; ++part)
            if (inside) store_words<TILES>(pixel + part * CHUNK, words[part]);
        }
      }
    }
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }
  wait_copies<0>();
}
