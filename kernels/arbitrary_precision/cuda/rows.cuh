#pragma once
#include "common.cuh"

// Brings rows of activations into a tile: rows of a matrix, or windows of images (implicit GEMM).
//
// Activations lie as [row][plane][bytes]. A row of a convolution's matrix is the window of one
// output pixel, taps in order, the channels of each tap padded to 64. UNIT is how many bytes are
// copied at once, 16 where a plane's bytes allow it, else 8.
//
// Compile-time constants of all kernels: Q planes of activations, P of weights, IMAGES (0 or 1),
// UNIT, and what finish.cuh names.

struct Images {
  int height, width, out_height, out_width;
  int kernel_width, taps;
  int stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
};

// Where the window of an output pixel begins: rows above its image, and its corner.
struct Corner {
  int image_rows, y, x;
};

DEVICE Corner corner_of(int token, const Images& g) {
  const int per_image = g.out_height * g.out_width;
  const int image = token / per_image, place = token % per_image;
  const int y = place / g.out_width, x = place % g.out_width;
  return {image * g.height, y * g.stride_y - g.pad_y, x * g.stride_x - g.pad_x};
}

// Index of the pixel that a tap of a window reads, -1 outside the image.
DEVICE int pixel_of(const Corner& corner, int tap, const Images& g) {
  const int y = corner.y + tap / g.kernel_width * g.dilation_y;
  const int x = corner.x + tap % g.kernel_width * g.dilation_x;
  const bool inside = y >= 0 && y < g.height && x >= 0 && x < g.width;
  return inside ? (corner.image_rows + y) * g.width + x : -1;
}

struct Rows {
  const unsigned char* planes;   // [row][Q][plane_bytes]
  const unsigned char* outside;  // [Q][plane_bytes]: what lies outside images
  const int* sums;               // [stored]: sums of codes; stored rows are tokens, or input pixels
  int count;                     // rows of the product: tokens, or output pixels
  int plane_bytes;
  int k_bytes;                   // of a plane of a row of the product
  int outside_sum;               // of the codes outside images
};

// Copies tile `tile_k` of TOKENS_ tokens from `first` on. Rows of the tile: [strip][64], where strip
// Q * s + q holds plane q of the s-th 64 tokens. `thread` counts from 0 to THREADS_ - 1.
// For images, `corners` holds the tile's windows.
template <int TOKENS_, int THREADS_>
DEVICE void fetch_rows(unsigned to, const Rows& rows, int first, int tile_k, const Corner* corners,
                       const Images& images, int thread) {
  constexpr int STEP = THREADS_ / 8;  // rows that are copied side by side
  static_assert(64 % STEP == 0, "a strip is whole steps");
  const int chunk = thread % 8, row = thread / 8;
  const long long pitch = static_cast<long long>(Q) * rows.plane_bytes;
#pragma unroll
  for (int part = 0; part < 16 / UNIT; ++part) {
    const int byte = tile_k * TILE_BYTES + chunk * 16 + part * UNIT;
    const bool inside_k = byte < rows.k_bytes;
    const unsigned target = to + chunk_offset(row, chunk) + part * UNIT;
    int tap = 0, within = byte;
    if constexpr (IMAGES) tap = byte / rows.plane_bytes, within = byte % rows.plane_bytes;
#pragma unroll 1
    for (int strip = 0; strip < TOKENS_ / 64; ++strip)
#pragma unroll
      for (int down = 0; down < 64; down += STEP) {
        const int token = strip * 64 + down + row;  // of the tile
        const unsigned char* from;
        bool valid = inside_k && first + token < rows.count;
        if constexpr (IMAGES) {
          const int pixel = valid ? pixel_of(corners[token], tap, images) : -1;
          from = (pixel < 0 ? rows.outside : rows.planes + pixel * pitch) + (valid ? within : 0);
        } else {
          from = rows.planes + (valid ? (first + token) * pitch + within : 0);
        }
#pragma unroll
        for (int q = 0; q < Q; ++q)
          copy_async<UNIT>(target + ((strip * Q + q) * 64 + down) * TILE_BYTES,
                           from + q * rows.plane_bytes, valid);
      }
  }
}

// Sum of the codes that a row of the product reads. Four neighbouring lanes have the same row, and
// each looks at a quarter of a window, since a lane alone would wait for memory once a tap.
DEVICE int sum_of_codes(const Rows& rows, int token, const Images& images) {
  if constexpr (!IMAGES) return token < rows.count ? rows.sums[token] : 0;
  int total = 0;
  if (token < rows.count) {
    const Corner corner = corner_of(token, images);
#pragma unroll 3
    for (int tap = static_cast<int>(threadIdx.x) % 4; tap < images.taps; tap += 4) {
      const int pixel = pixel_of(corner, tap, images);
      total += pixel < 0 ? rows.outside_sum : rows.sums[pixel];
    }
  }
  total += __shfl_xor_sync(~0u, total, 1);
  return total + __shfl_xor_sync(~0u, total, 2);
}
