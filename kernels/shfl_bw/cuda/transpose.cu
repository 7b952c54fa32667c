#include "element.cuh"

// Transposes (rows, columns) of 2-byte elements to (columns, rows). A block moves 64 x 64: a thread
// reads 8 neighbours of two rows, puts them down as pairs, and takes up 8 neighbours of a column
// twice. Pairs of a column lie 4 to a unit of 16 bytes, and units are permuted by the column, so
// that a warp writes 32 banks and reads 8 whole units at a time.
//
// Pitches are multiples of 8. Rows behind the last are written as zeros up to `filled`, columns
// behind the last are left alone.
//
// What a layer is given is taken from its last rows on (tokens), so that the product finds its first
// tokens in the L2 cache; what it returns (LEAVES) from its last columns on, which the product wrote
// last. What nobody reads again passes through the cache without staying.

DEVICE unsigned pair_place(int column, int pair) {
  return column * 32 + ((pair / 4 ^ (column + column / 8) % 8) * 4) + pair % 4;
}

extern "C" __global__ void __launch_bounds__(256)
    shfl_bw_transpose(const unsigned short* from, unsigned short* to, int rows, int columns,
                      int from_pitch, int to_pitch, int filled) {
  __shared__ __align__(16) unsigned pairs[64 * 32];
  let_next_start();
  wait_for_previous();
#ifdef LEAVES
  const int top = blockIdx.x * 64, left = (gridDim.y - 1 - blockIdx.y) * 64;
#else
  const int top = (gridDim.y - 1 - blockIdx.y) * 64, left = blockIdx.x * 64;
#endif
  {
    const int unit = threadIdx.x % 8, pair = threadIdx.x / 8;
    uint4 lines[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = top + 2 * pair + i, column = left + 8 * unit;
      const bool inside = row < rows && column < columns;
      const uint4* line = reinterpret_cast<const uint4*>(
          from + static_cast<long long>(row) * from_pitch + column);
      lines[i] = !inside ? make_uint4(0, 0, 0, 0) : __ldcs(line);
    }
    const unsigned first[4] = {lines[0].x, lines[0].y, lines[0].z, lines[0].w};
    const unsigned second[4] = {lines[1].x, lines[1].y, lines[1].z, lines[1].w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      pairs[pair_place(8 * unit + i, pair)] =
          __byte_perm(first[i / 2], second[i / 2], i % 2 ? 0x7632 : 0x5410);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int unit = threadIdx.x % 8, column = threadIdx.x / 8 + 32 * i;
    const int row = top + 8 * unit;
    if (left + column < columns && row < filled) {
      uint4* line =
          reinterpret_cast<uint4*>(to + static_cast<long long>(left + column) * to_pitch + row);
      const uint4 units = *reinterpret_cast<const uint4*>(pairs + pair_place(column, 4 * unit));
#ifdef LEAVES
      __stcs(line, units);
#else
      *line = units;
#endif
    }
  }
}
