#include "common.cuh"

// Rounds rows of real numbers to codes and writes their bit planes and sums.
// LANES threads take a row, 8 neighbouring elements each at a time: a byte of every plane.

#if INPUT == 4
typedef float Input;
#else
typedef Element Input;
#endif

constexpr int AHEAD = 4;  // loads of a thread that are on the way at a time

// Eight neighbouring numbers as they lie in memory, from where they are read once.
struct Eight {
  uint4 words[INPUT / 2];

  DEVICE void load(const Input* from) {
#pragma unroll
    for (int i = 0; i < INPUT / 2; ++i) words[i] = __ldcs(reinterpret_cast<const uint4*>(from) + i);
  }

  DEVICE void to(float (&number)[8]) const {
#pragma unroll
    for (int i = 0; i < INPUT / 2; ++i) {
      const unsigned four[4] = {words[i].x, words[i].y, words[i].z, words[i].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#if INPUT == 4
        number[4 * i + j] = __uint_as_float(four[j]);
#else
        const float2 both = unpack(four[j]);
        number[2 * j] = both.x, number[2 * j + 1] = both.y;
#endif
      }
    }
  }
};

// Writes one byte of every plane: codes of the first `count` of eight numbers; returns their sum.
DEVICE unsigned put_codes(unsigned char* to, int plane_bytes, const float (&number)[8], int count,
                          float inverse, int zero) {
  constexpr int highest = (1 << Q) - 1;
  unsigned left = four_codes(number, inverse, zero, highest);
  unsigned right = four_codes(number + 4, inverse, zero, highest);
  if (count < 8) {
    left &= count >= 4 ? ~0u : (1u << 8 * count) - 1;
    right &= count <= 4 ? 0u : (1u << 8 * (count - 4)) - 1;
  }
#pragma unroll
  for (int q = 0; q < Q; ++q) to[q * plane_bytes] = plane_of(left, right, q);
  return __dp4a(left, 0x01010101u, __dp4a(right, 0x01010101u, 0u));
}

// Writes the planes of a row of k numbers by LANES threads; returns the sum of a thread's codes.
DEVICE int pack_row(unsigned char* to, int plane_bytes, const Input* from, int k, float inverse,
                    int zero, int lane) {
  const int whole = k % 8 == 0 ? k / 8 : 0;  // bytes whose eight numbers are loaded at once
  unsigned total = 0;
  float number[8] = {};
  for (int first = lane; first < whole; first += AHEAD * LANES) {
    Eight loaded[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i)
      if (first + i * LANES < whole) loaded[i].load(from + 8 * (first + i * LANES));
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      const int byte = first + i * LANES;
      if (byte >= whole) break;
      loaded[i].to(number);
      total += put_codes(to + byte, plane_bytes, number, 8, inverse, zero);
    }
  }
  for (int byte = whole + lane; byte < plane_bytes; byte += LANES) {
    const int count = max(0, min(8, k - 8 * byte));
#pragma unroll
    for (int i = 0; i < 8; ++i) number[i] = i < count ? static_cast<float>(from[8 * byte + i]) : 0.0f;
    total += put_codes(to + byte, plane_bytes, number, count, inverse, zero);
  }
  return static_cast<int>(total);
}

extern "C" __global__ void __launch_bounds__(256)
    low_bit_pack(const Input* __restrict__ x, const float* __restrict__ step,
                 unsigned char* __restrict__ planes, int* __restrict__ sums, long long rows, int k,
                 int plane_bytes, int zero) {
  const long long row = (static_cast<long long>(blockIdx.x) * 256 + threadIdx.x) / LANES;
  const int lane = threadIdx.x % LANES;
  int total = 0;
  if (row < rows)
    total = pack_row(planes + row * Q * plane_bytes, plane_bytes, x + row * k, k,
                            __fdiv_rn(1.0f, *step), zero, lane);
#pragma unroll
  for (int far = LANES / 2; far > 0; far /= 2) total += __shfl_xor_sync(~0u, total, far);
  if (lane == 0 && row < rows) sums[row] = total;
}
