#pragma once
#include "common.cuh"

// Copies PIXELS pixels of CHANNELS neighbouring channels, SPACING apart in memory, into a swizzled
// tile. Pixels from `pixels` on become zero.
template <int CHANNELS, int SPACING, int PIXELS_, int THREADS_>
DEVICE void fetch_tile(unsigned to, const Element* from, long long first, long long pixels) {
  constexpr int units = CHANNELS / 8, rows = THREADS_ / units;
  const int left = static_cast<int>(min(pixels - first, static_cast<long long>(PIXELS_)));
  const int row = threadIdx.x / units, unit = threadIdx.x % units;
  const Element* source = from + (first + row) * SPACING + unit * 8;
  if constexpr (THREADS_ % units == 0 && rows > PIXELS_) {
    if (row < PIXELS_) copy_async<16>(to + unit_offset<CHANNELS>(row, unit), source, row < left);
  } else if constexpr (THREADS_ % units == 0 && PIXELS_ % rows == 0 && (rows & (rows - 1)) == 0) {
    const unsigned target = to + unit_offset<CHANNELS>(row, unit);
#pragma unroll
    for (int i = 0; i < PIXELS_ / rows; ++i)
      copy_async<16>((target ^ (i * rows % 8 << 4)) + i * rows * CHANNELS * 2,
                 source + i * rows * SPACING, row + i * rows < left);
  } else {
    for (int i = threadIdx.x; i < PIXELS_ * units; i += THREADS_) {
      const int pixel = i / units;
      copy_async<16>(to + unit_offset<CHANNELS>(pixel, i % units),
                 from + (first + pixel) * SPACING + i % units * 8, pixel < left);
    }
  }
}

// Moves a tile from channel order N * q + r to window-major order r * (CHANNELS / N) + q.
template <int CHANNELS, int N, int PIXELS_, int THREADS_>
DEVICE void deinterleave(unsigned from, unsigned to) {
  constexpr int units = N >= 4 ? N / 4 : 1;  // 16-byte units a thread reads
  constexpr int pairs = N >= 4 ? 1 : 4 / N;  // pairs of q in them
  constexpr int items = CHANNELS / (8 * units);
  constexpr int window_units = CHANNELS / N / 8;
  static_assert(window_units % 8 == 0 || 8 % window_units == 0, "a window's units do not carry");
  static_assert((items & (items - 1)) == 0 && THREADS_ % items == 0, "whole rows of threads");
  constexpr int rows = THREADS_ / items;
  const int row = threadIdx.x / items, item = threadIdx.x % items;
  const unsigned source = from + unit_offset<CHANNELS>(row, item * units);
  const int channel = 2 * pairs * item;
  const unsigned target = to + unit_offset<CHANNELS>(row, channel / 8) + channel % 8 * 2;
#pragma unroll
  for (int i = 0; i < (PIXELS_ + rows - 1) / rows; ++i) {
    if (PIXELS_ % rows != 0 && row + i * rows >= PIXELS_) break;
    const unsigned turn = i * rows % 8 << 4, down = i * rows * CHANNELS * 2;
    unsigned words[units][4];
#pragma unroll
    for (int u = 0; u < units; ++u) read_unit(words[u], (source ^ turn ^ (u << 4)) + down);
#pragma unroll
    for (int pair = 0; pair < pairs; ++pair)
#pragma unroll
      for (int r = 0; r < N; ++r) {
        const int low = 2 * pair * N + r, high = low + N;  // elements of q and of q + 1
        const unsigned first = words[low / 8][low % 8 / 2], second = words[high / 8][high % 8 / 2];
        const unsigned selector = (low % 2 ? 0x32 : 0x10) | (high % 2 ? 0x7600 : 0x5400);
        const unsigned turned = turn ^ (r * window_units % 8 << 4);
        write_word((target ^ turned) + down + r * window_units / 8 * 128 + pair * 4,
                   __byte_perm(first, second, selector));
      }
  }
}
