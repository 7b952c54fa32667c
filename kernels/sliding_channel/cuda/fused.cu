#include "tiles.cuh"
#include "windows.cuh"

// One pass over memory, channels-last: depthwise KERNEL x KERNEL, bias, activation, then
// sliding-channel product, bias, (residual,) activation.
//
// A block walks over tiles of HEIGHT x 8 output pixels. The input tile with its border (channels of
// all windows) is copied while the previous tile's products run; the depthwise result goes to a
// second tile, from which the products read fragments. Weights of the products stay in registers.

constexpr int THREADS = 32 * WARPS;
constexpr int COLUMNS = 8;
constexpr int HEIGHT = PIXELS / COLUMNS;
constexpr int HALO_WIDTH = (COLUMNS - 1) * STRIDE + KERNEL;
constexpr int HALO_HEIGHT = (HEIGHT - 1) * STRIDE + KERNEL;
constexpr int HALO_BYTES = HALO_WIDTH * HALO_HEIGHT * CIN * 2;
constexpr int TILE_BYTES = PIXELS * CIN * 2;
constexpr int UNITS = CIN / 8;
constexpr int SLABS = CIN / 64;  // of 64 channels: a warp's lanes hold two neighbours each

struct Image {
  int batch, height, width, out_height, out_width, tiles_down, tiles_across;
};

// An output tile. Blocks step over tiles by the grid's size: the step is kept as a place too, and
// added with carries, so that no tile costs a division.
struct Place {
  int image, down, across;

  DEVICE Place(int tile, const Image& image_)
      : image(tile / (image_.tiles_down * image_.tiles_across)),
        down(tile / image_.tiles_across % image_.tiles_down),
        across(tile % image_.tiles_across) {}

  DEVICE void move(const Place& step, const Image& image_) {
    across += step.across;
    const int carry = across >= image_.tiles_across;
    across -= carry ? image_.tiles_across : 0;
    down += step.down + carry;
    const int over = down >= image_.tiles_down;
    down -= over ? image_.tiles_down : 0;
    image += step.image + over;
  }
};

DEVICE void fetch_halo(unsigned to, const Element* x, const Place& place, const Image& image) {
  constexpr int pixels = HALO_WIDTH * HALO_HEIGHT;
  const int top = place.down * HEIGHT * STRIDE - KERNEL / 2;
  const int left = place.across * COLUMNS * STRIDE - KERNEL / 2;
  const Element* base = x + static_cast<long long>(place.image) * image.height * image.width * CIN;
  if constexpr (THREADS % UNITS == 0) {
    constexpr int at_once = THREADS / UNITS;
    const int unit = threadIdx.x % UNITS, first = threadIdx.x / UNITS;
    base += unit * 8;
    int row = top + first / HALO_WIDTH, column = left + first % HALO_WIDTH;
#pragma unroll
    for (int i = 0; i < pixels; i += at_once) {
      const bool inside = static_cast<unsigned>(row) < static_cast<unsigned>(image.height) &&
                          static_cast<unsigned>(column) < static_cast<unsigned>(image.width);
      const Element* from = base + (inside ? (row * image.width + column) * CIN : 0);
      if (pixels % at_once == 0 || first + i < pixels)
        copy_async<16>(to + threadIdx.x * 16 + i * CIN * 2, from, inside);
      column += at_once % HALO_WIDTH;
      row += at_once / HALO_WIDTH;
      if (column >= left + HALO_WIDTH) {
        column -= HALO_WIDTH;
        ++row;
      }
    }
  } else {
    for (int i = threadIdx.x; i < pixels * UNITS; i += THREADS) {
      const int pixel = i / UNITS;
      const int row = top + pixel / HALO_WIDTH, column = left + pixel % HALO_WIDTH;
      const bool inside = row >= 0 && row < image.height && column >= 0 && column < image.width;
      copy_async<16>(to + i * 16,
                 base + (inside ? (row * image.width + column) * CIN : 0) + i % UNITS * 8, inside);
    }
  }
  commit_copies();
}

// LINES rows of 8 output pixels at two channels; `taps` holds the filters as [tap][channel] floats.
template <int LINES>
DEVICE void depthwise_rows(unsigned halo, unsigned taps, unsigned to, int row, int pair,
                           float2 bias) {
  float2 acc[LINES][COLUMNS];
#pragma unroll
  for (int r = 0; r < LINES; ++r)
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) acc[r][c] = bias;
#pragma unroll
  for (int y = 0; y < (LINES - 1) * STRIDE + KERNEL; ++y) {
    float2 line[HALO_WIDTH];
    const unsigned from = halo + ((row * STRIDE + y) * HALO_WIDTH * CIN + 2 * pair) * 2;
#pragma unroll
    for (int c = 0; c < HALO_WIDTH; ++c) line[c] = unpack(read_word(from + c * CIN * 2));
#pragma unroll
    for (int r = 0; r < LINES; ++r) {
      const int ky = y - r * STRIDE;
      if (ky < 0 || ky >= KERNEL) continue;
#pragma unroll
      for (int kx = 0; kx < KERNEL; ++kx) {
        const float2 tap = read_pair(taps + ((ky * KERNEL + kx) * CIN + 2 * pair) * 4);
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
          acc[r][c].x = fmaf(tap.x, line[c * STRIDE + kx].x, acc[r][c].x);
          acc[r][c].y = fmaf(tap.y, line[c * STRIDE + kx].y, acc[r][c].y);
        }
      }
    }
  }
  const unsigned target = to + row * COLUMNS * CIN * 2 + pair * 4;
#pragma unroll
  for (int r = 0; r < LINES; ++r)
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)  // the swizzle by the pixel's low bits is one by its column
      write_word((target ^ (c << 4)) + (r * COLUMNS + c) * CIN * 2,
                 pack_activated<FIRST_ACT>(acc[r][c].x, acc[r][c].y));
}

DEVICE void depthwise_tile(unsigned halo, unsigned taps, const float2* bias, unsigned to) {
  constexpr int jobs = SLABS * HEIGHT / DW_ROWS;
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int job = threadIdx.x / 32; job < jobs; job += WARPS) {
    const int pair = job % SLABS * 32 + lane;
    depthwise_rows<DW_ROWS>(halo, taps, to, job / SLABS * DW_ROWS, pair, bias[pair]);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    sliding_fused(const Element* __restrict__ x, const float* __restrict__ taps,
                  const float* __restrict__ first_bias, const uint2* __restrict__ packed,
                  const float* __restrict__ bias, const Element* __restrict__ residual,
                  Element* __restrict__ y, int batch, int height, int width, int out_height,
                  int out_width, int tiles_down, int tiles_across) {
  extern __shared__ __align__(1024) unsigned char memory[];
  const unsigned halo = shared_address(memory), middle = halo + HALO_BYTES;
  float* const shared_taps = reinterpret_cast<float*>(memory + HALO_BYTES + TILE_BYTES);
  float* const shared_first_bias = shared_taps + KERNEL * KERNEL * CIN;
  float* const shared_bias = shared_first_bias + CIN;
  const Image image{batch, height, width, out_height, out_width, tiles_down, tiles_across};
  const int tiles = batch * tiles_down * tiles_across;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = blockIdx.y * OUT_WARPS + warp % OUT_WARPS;
  const int pixel_warp = warp / OUT_WARPS;
  const int column = first_output(group, lane);
  const Place step(gridDim.x, image);
  Place place(blockIdx.x, image);
  fetch_halo(halo, x, place, image);
  for (int i = threadIdx.x; i < KERNEL * KERNEL * CIN; i += THREADS) shared_taps[i] = taps[i];
  for (int i = threadIdx.x; i < CIN; i += THREADS) shared_first_bias[i] = first_bias[i];
  for (int i = threadIdx.x; i < COUT; i += THREADS) shared_bias[i] = bias[i];
  WindowWeights weights;
  weights.load(packed, group, lane);
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    wait_copies<0>();
    __syncthreads();  // the input is there; all products of the previous tile are done
    depthwise_tile(halo, shared_address(shared_taps), reinterpret_cast<float2*>(shared_first_bias),
                   middle);
    __syncthreads();
    const int top = place.down * HEIGHT, across = place.across * COLUMNS + lane / 4;
    const long long corner =
        ((static_cast<long long>(place.image) * out_height + top) * out_width + across) * COUT +
        column;
    Element* const to = y + corner;
    const Element* const added = residual + corner;
    const int rows = across < out_width ? out_height - top : 0;
    place.move(step, image);
    if (tile + gridDim.x < tiles) fetch_halo(halo, x, place, image);
#pragma unroll 1
    for (int at = 16 * ROWS * pixel_warp; at < PIXELS; at += 16 * ROWS * PIXEL_WARPS) {
      float acc[ROWS][PERIOD][4];
      start_sums(acc, shared_bias + column);
      window_products(acc, weights, middle, at, lane);
#pragma unroll
      for (int part = 0; part < 2 * ROWS; ++part) {
        const int row = at / COLUMNS + part;
        if (row >= rows) continue;
        const int line = row * out_width * COUT;
        each_run(acc, part, [&](int offset, float2(&values)[RUN / 2]) {
          unsigned words[RUN / 2];
          if constexpr (RESIDUAL) load_words<RUN / 2>(words, added + line + offset);
#pragma unroll
          for (int i = 0; i < RUN / 2; ++i) {
            const float2 pair = RESIDUAL ? unpack(words[i]) : make_float2(0.0f, 0.0f);
            words[i] = pack_activated<LAST_ACT>(values[i].x + pair.x, values[i].y + pair.y);
          }
          store_words<RUN / 2>(to + line + offset, words);
        });
      }
    }
  }
}
