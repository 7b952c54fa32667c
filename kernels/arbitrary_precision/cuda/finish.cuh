#pragma once
#include "rows.cuh"

// From the counts of bit planes to outputs: combination, scale and offset, type.
//
// A thread holds, of a product of 16 rows and 8 columns, rows lane / 4 (+ 8) and columns
// 2 * (lane % 4) (+ 1). Weights are dealt so that over four such column blocks its outputs are 8
// neighbours (see layout.py): 16 bytes of fp16.
//
// Compile-time constants: OUT (1 whole numbers, 2 Elements; see direct_sm90.cu for codes), SIGNED
// (whether the top plane of the weights counts negative), FEATURES of a tile.

struct Finish {
  const float* scale;    // [feature]
  const float* offset;   // [feature]
  const int* constants;  // [feature], for whole numbers
  void* out;             // [token][feature]: int32 or Element
  int features;          // a multiple of 8
  int times_counts, times_sum;  // whole number = times_counts * counts + times_sum * sum of codes
};

DEVICE float real_of(int whole) {
#ifdef SMALL_SUMS
  return __fsub_rn(__int_as_float(whole + 0x4b400000), MAGIC);  // |whole| < 2^22
#else
  return __int2float_rn(whole);
#endif
}

DEVICE void load_eight(float (&to)[8], const float* from) {
  const float4 low = __ldg(reinterpret_cast<const float4*>(from));
  const float4 high = __ldg(reinterpret_cast<const float4*>(from) + 1);
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

// Stores 8 neighbouring whole numbers of a token from `feature` on, for all threads of a warp at once:
// neighbours exchange halves, so that what a store writes is whole sectors of 32 bytes.
DEVICE void store_whole(const int (&whole)[8], int token, int tokens, int feature, const Finish& f) {
  const bool odd = threadIdx.x % 2 != 0;
  int4 low = {}, high = {};
  if (feature < f.features) {
    low = __ldg(reinterpret_cast<const int4*>(f.constants + feature));
    high = __ldg(reinterpret_cast<const int4*>(f.constants + feature) + 1);
  }
  const int constants[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  unsigned left[4], right[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const unsigned low = whole[i] + constants[i], high = whole[4 + i] + constants[4 + i];
    const unsigned other = __shfl_xor_sync(~0u, odd ? low : high, 1);
    left[i] = odd ? other : low, right[i] = odd ? high : other;
  }
  if (token >= tokens) return;
  const int at = feature - (odd ? 4 : 0);  // of `left`; that of `right` is 8 further
  int* const to = static_cast<int*>(f.out) + static_cast<long long>(token) * f.features + at;
  if (at < f.features) store_away(to, left);
  if (at + 8 < f.features) store_away(to + 8, right);
}

// Stores 8 neighbouring real outputs of a token from `feature` on.
DEVICE void store_real(const int (&whole)[8], long long token, int feature, const Finish& f) {
  if (feature >= f.features) return;
  float number[8], scale[8], offset[8];
  load_eight(scale, f.scale + feature);
  load_eight(offset, f.offset + feature);
#pragma unroll
  for (int i = 0; i < 8; ++i) number[i] = __fmaf_rn(real_of(whole[i]), scale[i], offset[i]);
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = pack(number[2 * i], number[2 * i + 1]);
  store_bytes<16>(static_cast<Element*>(f.out) + token * f.features + feature, words);
}

// Counts of one token and 8 neighbouring outputs, planes of activations added up.
// `counts[q]` holds the accumulators of plane q: [column block][4].
template <int PLANES, int REGISTERS>
DEVICE void add_planes(int (&sum)[8], const int (*counts)[REGISTERS], int first_block, int half) {
#pragma unroll
  for (int a = 0; a < 4; ++a)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      int value = 0;
#pragma unroll
      for (int q = PLANES - 1; q >= 0; --q)
        value = 2 * value + counts[q][4 * (first_block + a) + 2 * half + e];
      sum[2 * a + e] = value;
    }
}

// Finishes all outputs of a block of 16 tokens. `counts` holds X_PLANES planes of the tokens; its
// columns hold W_PLANES planes of OUTPUTS weights side by side, the last negative or not; `sums` the
// tokens' sums of codes (lane / 4, and 8 rows further).
template <int X_PLANES, int W_PLANES, bool NEGATIVE, int OUTPUTS, int REGISTERS>
DEVICE void finish_block(const int (*counts)[REGISTERS], const int (&sums)[2], int first_token,
                         int tokens, int first_feature, int lane, const Finish& f) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = first_token + lane / 4 + 8 * half;
    if (OUT != 1 && token >= tokens) continue;
#pragma unroll
    for (int block = 0; block < OUTPUTS / 32; ++block) {
      int whole[8] = {};
#pragma unroll
      for (int p = W_PLANES - 1; p >= 0; --p) {
        int sum[8];
        add_planes<X_PLANES>(sum, counts, p * (OUTPUTS / 8) + 4 * block, half);
#pragma unroll
        for (int i = 0; i < 8; ++i)
          whole[i] = 2 * whole[i] + (NEGATIVE && p == W_PLANES - 1 ? -sum[i] : sum[i]);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) whole[i] = whole[i] * f.times_counts + f.times_sum * sums[half];
      const int feature = first_feature + 32 * block + 8 * (lane % 4);
      if constexpr (OUT == 1) {
        store_whole(whole, token, tokens, feature, f);
      } else {
        store_real(whole, token, feature, f);
      }
    }
  }
}

// Adds the counts of one plane of weights to what the higher planes gave, which counts twice.
template <int REGISTERS>
DEVICE void add_pass(int (&run)[REGISTERS], const int (*counts)[REGISTERS], bool negative) {
#pragma unroll
  for (int c = 0; c < REGISTERS; ++c) {
    int value = 0;
#pragma unroll
    for (int q = Q - 1; q >= 0; --q) value = 2 * value + counts[q][c];
    run[c] = 2 * run[c] + (negative ? -value : value);
  }
}
