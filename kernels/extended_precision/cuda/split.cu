#include "instructions.cuh"

// A float matrix (rows x K) to the image that gemm.cu multiplies.
//
// Each row is scaled by a power of two that puts its largest magnitude into [2^14, 2^15), then every
// x becomes hi = half(x) and lo = half((x - hi) * 2^RESIDUAL). Per 32 columns of K the image holds,
// for all rows, 128 bytes: 4 units of 8 hi, 4 units of 8 lo, unit u at place u ^ (row % 8) or, without
// SWIZZLE, at place u. Rows and columns of padding are zero.
//
// `trouble` counts a row's elements that two halves at the row's scale hold less exactly than to 22
// bits. NOT_FINITE and TINY are added for rows with inf or nan and for rows too small to be scaled.
//
// Compile-time constants, see plan.py: RESIDUAL, TRUNCATE, SWIZZLE, WARPS (a row), VALUES (4 floats of a
// row a thread holds), ALIGNED (rows can be read 4 floats at a time).

constexpr int NOT_FINITE = 1 << 30, TINY = 1 << 29;
constexpr int THREADS = 256;
constexpr int ROWS = 8 / WARPS;  // of a block, K contiguous
constexpr int TALL = 128;        // rows of a block, rows contiguous
constexpr int MEASURED = 512;    // columns of K of such a block that measures
constexpr int CHUNK = 128;       // and of one that splits
constexpr int MANY = 1024;       // threads of a block that measures
constexpr unsigned INFINITY_BITS = 0x7f800000u;

struct Source {
  const float* from;
  long long batch_stride, stride;  // the other stride is 1
  int rows, k, padded, batch;
};

DEVICE float power_of_two(int exponent) { return __int_as_float((exponent + 127) << 23); }

DEVICE unsigned magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// Exponent of a row's scale from the bits of its largest finite magnitude.
DEVICE int scale_exponent(unsigned largest) {
  if (largest == 0) return 0;
  const int top = largest >> 23 ? static_cast<int>(largest >> 23) - 127 : -118 - __clz(largest);
  return min(max(14 - top, -113), 100);
}

// What a row's largest magnitude alone adds to its trouble: 2^-86 is the least that is scaled.
DEVICE int tiny(unsigned largest) { return largest != 0 && largest < (41u << 23) ? TINY : 0; }

// Two numbers' upper and lower halves; counts those that are held poorly.
DEVICE void split_pair(float x, float y, float scale, unsigned& hi, unsigned& lo, int& poor) {
  x *= scale, y *= scale;
  hi = to_halves<TRUNCATE>(x, y);
  const float2 upper = to_floats(hi);
  const float grown = power_of_two(RESIDUAL);
  // inf - inf would be nan
  const float rest_x = magnitude(x) < INFINITY_BITS ? (x - upper.x) * grown : 0.0f;
  const float rest_y = magnitude(y) < INFINITY_BITS ? (y - upper.y) * grown : 0.0f;
  lo = to_halves<TRUNCATE>(rest_x, rest_y);
  const float least = power_of_two(-3 - RESIDUAL);
  poor += (x != 0.0f && fabsf(x) < least) + (y != 0.0f && fabsf(y) < least);
}

// Byte offset of unit `unit` of a row in a batch's image.
DEVICE long long unit_at(const Source& s, int step, int row, int unit) {
  const int place = SWIZZLE ? unit ^ row % 8 : unit;
  return (static_cast<long long>(step) * s.padded + row) * 128 + place * 16;
}

// K is contiguous: WARPS warps a row, which is read once where they can hold it.

DEVICE float4 load_four(const float* from, int k, int end) {
  if constexpr (ALIGNED) {
    if (k + 3 < end) return *reinterpret_cast<const float4*>(from + k);
  }
  float4 v;
  v.x = k < end ? from[k] : 0.0f;
  v.y = k + 1 < end ? from[k + 1] : 0.0f;
  v.z = k + 2 < end ? from[k + 2] : 0.0f;
  v.w = k + 3 < end ? from[k + 3] : 0.0f;
  return v;
}

DEVICE void look(float x, unsigned& largest, int& trouble) {
  const unsigned bits = magnitude(x);
  if (bits < INFINITY_BITS) {
    largest = max(largest, bits);
  } else {
    trouble = NOT_FINITE;
  }
}

DEVICE unsigned warp_max(unsigned value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    value = max(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

DEVICE int sum_of_warp(int value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    split_rows(const float* from, long long batch_stride, long long row_stride, int rows, int k,
               int padded, int batch, unsigned char* image, int* exponents, int* trouble) {
  __shared__ unsigned warp_largest[8];
  __shared__ int warp_trouble[8], warp_poor[8];
  constexpr int WIDTH = 32 * WARPS, HELD = 4 * WIDTH * VALUES;
  const Source s = {from, batch_stride, row_stride, rows, k, padded, batch};
  const int warp = threadIdx.x / 32, place = threadIdx.x % WIDTH, first_warp = warp / WARPS * WARPS;
  const int row = blockIdx.x * ROWS + warp / WARPS;
  const int steps = (k + 31) / 32;
  for (int b = blockIdx.y; b < batch; b += gridDim.y) {
    const float* line = s.from + b * s.batch_stride + row * s.stride;
    const int end = row < rows ? k : 0;
    float4 held[VALUES];
    unsigned largest = 0;
    int bad = 0, poor = 0;
    for (int start = 0; start < k; start += HELD) {
#pragma unroll
      for (int i = 0; i < VALUES; ++i) held[i] = load_four(line, start + 4 * (place + i * WIDTH), end);
#pragma unroll
      for (int i = 0; i < VALUES; ++i) {
        look(held[i].x, largest, bad);
        look(held[i].y, largest, bad);
        look(held[i].z, largest, bad);
        look(held[i].w, largest, bad);
      }
    }
    largest = warp_max(largest);
    if constexpr (WARPS > 1) {
      if (threadIdx.x % 32 == 0) warp_largest[warp] = largest;
      __syncthreads();
#pragma unroll
      for (int i = 0; i < WARPS; ++i) largest = max(largest, warp_largest[first_warp + i]);
    }
    const int exponent = scale_exponent(largest);
    const float scale = power_of_two(exponent);
    unsigned char* to = image + static_cast<long long>(b) * steps * padded * 128;
    for (int start = 0; start < k; start += HELD) {
#pragma unroll
      for (int i = 0; i < VALUES; ++i) {
        const int at = start + 4 * (place + i * WIDTH);
        if (at >= steps * 32 || row >= padded) continue;
        const float4 v = k <= HELD ? held[i] : load_four(line, at, end);
        uint2 hi, lo;
        split_pair(v.x, v.y, scale, hi.x, lo.x, poor);
        split_pair(v.z, v.w, scale, hi.y, lo.y, poor);
        const int unit = at % 32 / 8, half = at % 8 * 2;
        *reinterpret_cast<uint2*>(to + unit_at(s, at / 32, row, unit) + half) = hi;
        *reinterpret_cast<uint2*>(to + unit_at(s, at / 32, row, unit + 4) + half) = lo;
      }
    }
    poor = sum_of_warp(poor);
    bad = static_cast<int>(warp_max(bad));
    if constexpr (WARPS > 1) {
      if (threadIdx.x % 32 == 0) warp_poor[warp] = poor, warp_trouble[warp] = bad;
      __syncthreads();
      poor = bad = 0;
#pragma unroll
      for (int i = 0; i < WARPS; ++i) {
        poor += warp_poor[first_warp + i];
        bad = max(bad, warp_trouble[first_warp + i]);
      }
    }
    if (place == 0 && row < padded) {
      exponents[static_cast<long long>(b) * padded + row] = exponent;
      trouble[static_cast<long long>(b) * padded + row] = poor + tiny(largest) + bad;
    }
    if constexpr (WARPS > 1) __syncthreads();
  }
}

// Rows are contiguous: their largest magnitudes first, by parts of K, then tiles that turn in shared
// memory.

extern "C" __global__ void __launch_bounds__(MANY)
    measure_columns(const float* from, long long batch_stride, long long k_stride, int rows, int k,
                    int padded, int batch, unsigned* partial, int* trouble) {
  __shared__ unsigned found[MANY];
  const int row = static_cast<int>(blockIdx.x) * TALL + static_cast<int>(threadIdx.x) % TALL;
  const int chunks = gridDim.y;
  const int first = static_cast<int>(blockIdx.y) * MEASURED + static_cast<int>(threadIdx.x) / TALL;
  for (int b = blockIdx.z; b < batch; b += gridDim.z) {
    const float* column = from + b * batch_stride + row;
    unsigned largest = 0;
    int bad = 0;
    if (row < rows) {
#pragma unroll 16
      for (int i = 0; i < MEASURED; i += MANY / TALL)
        look(first + i < k ? column[(first + i) * k_stride] : 0.0f, largest, bad);
    }
    found[threadIdx.x] = largest | (bad ? 1u << 31 : 0u);
    __syncthreads();
    if (threadIdx.x < TALL && row < padded) {
      unsigned flag = 0;
#pragma unroll
      for (int i = 0; i < MANY; i += TALL) {
        largest = max(largest, found[threadIdx.x + i] & 0x7fffffffu);
        flag |= found[threadIdx.x + i] & 1u << 31;
      }
      partial[(static_cast<long long>(b) * chunks + blockIdx.y) * padded + row] = largest | flag;
      if (blockIdx.y == 0) trouble[static_cast<long long>(b) * padded + row] = 0;
    }
    __syncthreads();
  }
}

// 32 columns of K of a block's rows: what a thread brings.
DEVICE void load_columns(const Source& s, const float* matrix, int start, int row,
                         float (&held)[32 * TALL / THREADS]) {
#pragma unroll
  for (int i = 0; i < 32 * TALL / THREADS; ++i) {
    const int at = start + i * (THREADS / TALL) + static_cast<int>(threadIdx.x) / TALL;
    held[i] = at < s.k && row < s.rows ? matrix[at * s.stride + row] : 0.0f;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    split_columns(const float* from, long long batch_stride, long long k_stride, int rows, int k,
                  int padded, int batch, int measured, const unsigned* partial,
                  unsigned char* image, int* exponents, int* trouble) {
  __shared__ float tile[32][TALL + 1];
  __shared__ unsigned found[THREADS];
  const Source s = {from, batch_stride, k_stride, rows, k, padded, batch};
  const int steps = (k + 31) / 32, row = threadIdx.x % TALL;
  const int top = static_cast<int>(blockIdx.x) * TALL;
  const int begin = static_cast<int>(blockIdx.y) * CHUNK, end = min(k, begin + CHUNK);
  for (int b = blockIdx.z; b < batch; b += gridDim.z) {
    const float* matrix = from + b * batch_stride;
    float held[32 * TALL / THREADS];
    load_columns(s, matrix, begin, top + row, held);
    unsigned largest = 0, flag = 0;
    if (top + row < padded) {
#pragma unroll 8
      for (int i = threadIdx.x / TALL; i < measured; i += THREADS / TALL) {
        const unsigned part =
            partial[(static_cast<long long>(b) * measured + i) * padded + top + row];
        largest = max(largest, part & 0x7fffffffu);
        flag |= part & 1u << 31;
      }
    }
    found[threadIdx.x] = largest | flag;
    __syncthreads();
    if (threadIdx.x < TALL) {
      largest = max(largest, found[threadIdx.x + TALL] & 0x7fffffffu);
      flag |= found[threadIdx.x + TALL] & 1u << 31;
      const int exponent = scale_exponent(largest);
      found[row] = static_cast<unsigned>(exponent);
      if (blockIdx.y == 0 && top + row < padded) {
        exponents[static_cast<long long>(b) * padded + top + row] = exponent;
        const int all = tiny(largest) + (flag ? NOT_FINITE : 0);
        if (all) atomicAdd(&trouble[static_cast<long long>(b) * padded + top + row], all);
      }
    }
    unsigned char* to = image + static_cast<long long>(b) * steps * padded * 128;
    for (int start = begin; start < end; start += 32) {
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 32 * TALL / THREADS; ++i)
        tile[i * (THREADS / TALL) + threadIdx.x / TALL][row] = held[i];
      __syncthreads();
      if (start + 32 < end) load_columns(s, matrix, start + 32, top + row, held);
      // A warp takes 8 rows of 4 units: no two lanes read one bank, and it writes whole sectors.
#pragma unroll
      for (int item = threadIdx.x; item < TALL * 4; item += THREADS) {
        const int r = item / 4, unit = item % 4;
        if (top + r >= padded) continue;
        const float scale = power_of_two(static_cast<int>(found[r]));
        uint4 hi, lo;
        int poor = 0;
        unsigned* highs = &hi.x;
        unsigned* lows = &lo.x;
#pragma unroll
        for (int i = 0; i < 4; ++i)
          split_pair(tile[8 * unit + 2 * i][r], tile[8 * unit + 2 * i + 1][r], scale, highs[i],
                     lows[i], poor);
        *reinterpret_cast<uint4*>(to + unit_at(s, start / 32, top + r, unit)) = hi;
        *reinterpret_cast<uint4*>(to + unit_at(s, start / 32, top + r, unit + 4)) = lo;
        if (poor) atomicAdd(&trouble[static_cast<long long>(b) * padded + top + r], poor);
      }
    }
    __syncthreads();
  }
}
