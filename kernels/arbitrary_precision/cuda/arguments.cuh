#pragma once
#include "finish.cuh"

// The arguments of all products: plain pointers and numbers, in the order in which launch.py gives
// them, and what they make up.

#define ARGUMENTS                                                                                \
  const unsigned char *planes, const unsigned char *outside, const int *sums,                    \
      const unsigned char *image, const float *scale, const float *offset, const int *constants, \
      void *out, int count, int plane_bytes, int k_bytes, int outside_sum, int image_rows,       \
      int features, int times_counts, int times_sum, int tiles, int across, int depth,           \
      int height, int width, int out_height, int out_width, int kernel_width, int taps,          \
      int stride_y, int stride_x, int pad_y, int pad_x, int dilation_y, int dilation_x

#define READ_ARGUMENTS                                                                           \
  const Rows rows{planes, outside, sums, count, plane_bytes, k_bytes, outside_sum};              \
  const Weights weights{image, image_rows};                                                      \
  const Tiles all{tiles, across, depth};                                                         \
  const Images images{height,   width,    out_height, out_width, kernel_width, taps,             \
                      stride_y, stride_x, pad_y,      pad_x,     dilation_y,   dilation_x};      \
  const Finish finish_with{scale, offset, constants, out, features, times_counts, times_sum}

struct Weights {
  const unsigned char* image;  // [tile along k][plane][row][128], see layout.py
  int rows;
};

struct Tiles {
  int count, across;  // in all, and over features
  int depth;          // along k
};
