#pragma once
#include "rows.cuh"

// From the counts of bit planes to outputs: combination, scale and offset, residual, ReLU, type,
// and codes of the next layer.
//
// A thread holds, of a product of 16 rows and 8 columns, rows lane / 4 (+ 8) and columns
// 2 * (lane % 4) (+ 1). Weights are dealt so that over four such column blocks its outputs are 8
// neighbours (see layout.py): 16 bytes of fp16, or one byte of each plane.
//
// Compile-time constants: OUT (1 whole numbers, 2 Elements, 4 codes, or 2 + 4), Q_OUT planes of
// the codes, RESIDUAL and RELU (0 or 1), SIGNED (whether the top plane of the weights counts
// negative), FEATURES of a tile.

struct Finish {
  const float* scale;        // [feature]
  const float* offset;       // [feature]
  const int* constants;      // [feature], for whole numbers
  const Element* residual;   // [token][feature]
  void* out;                 // [token][feature]: int32 or Element
  unsigned char* codes;      // [token][Q_OUT][code_bytes]
  int* code_sums;            // [part][token]: of the features of a tile
  int features, code_bytes;  // features are a multiple of 8
  int times_counts, times_sum;  // whole number = times_counts * counts + times_sum * sum of codes
  const float* code_step;    // what an integer of the codes is worth
  float zero;                // code of the real zero
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

// Adds 8 elements.
DEVICE void add_elements(float (&number)[8], const uint4& more) {
  const unsigned words[4] = {more.x, more.y, more.z, more.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 both = unpack(words[i]);
    number[2 * i] = __fadd_rn(number[2 * i], both.x);
    number[2 * i + 1] = __fadd_rn(number[2 * i + 1], both.y);
  }
}

// Finishes 8 neighbouring outputs of a token from `feature` on; returns the sum of their codes.
DEVICE int finish(const int (&whole)[8], long long token, int feature, const Finish& f) {
  if (feature >= f.features) return 0;
  const long long place = token * f.features + feature;
  float number[8], scale[8], offset[8];
  load_eight(scale, f.scale + feature);
  load_eight(offset, f.offset + feature);
#pragma unroll
  for (int i = 0; i < 8; ++i) number[i] = __fmaf_rn(real_of(whole[i]), scale[i], offset[i]);
  if constexpr (RESIDUAL) add_elements(number, *reinterpret_cast<const uint4*>(f.residual + place));
  if constexpr (RELU)
#pragma unroll
    for (int i = 0; i < 8; ++i) number[i] = number[i] < 0.0f ? 0.0f : number[i];  // keeps NaN
  if constexpr ((OUT & 2) != 0) {
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack(number[2 * i], number[2 * i + 1]);
    store_bytes<16>(static_cast<Element*>(f.out) + place, words);
  }
  int total = 0;
  if constexpr ((OUT & 4) != 0) {
    const float inverse_step = __fdiv_rn(1.0f, __ldg(f.code_step));
    unsigned bytes[Q_OUT] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const unsigned code = to_code(number[i], inverse_step, f.zero, (1 << Q_OUT) - 1);
      total += code;
#pragma unroll
      for (int q = 0; q < Q_OUT; ++q) bytes[q] |= (code >> q & 1) << i;
    }
    unsigned char* const to = f.codes + token * Q_OUT * f.code_bytes + feature / 8;
#pragma unroll
    for (int q = 0; q < Q_OUT; ++q) to[q * f.code_bytes] = bytes[q];
  }
  return total;
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
// columns hold W_PLANES planes of OUTPUTS weights side by side, the last negative or not; `sums` the tokens' sums of codes (lane / 4, and 8 rows further).
template <int X_PLANES, int W_PLANES, bool NEGATIVE, int OUTPUTS, int REGISTERS>
DEVICE void finish_block(const int (*counts)[REGISTERS], const int (&sums)[2], int first_token,
                         int tokens, int first_feature, int lane, int part,
                         const Finish& f) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = first_token + lane / 4 + 8 * half;
    int total = 0;
    if (OUT == 1 || token < tokens) {
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
        for (int i = 0; i < 8; ++i)
          whole[i] = whole[i] * f.times_counts + f.times_sum * sums[half];
        const int feature = first_feature + 32 * block + 8 * (lane % 4);
        if constexpr (OUT == 1) {
          store_whole(whole, token, tokens, feature, f);
        } else {
          total += finish(whole, token, feature, f);
        }
      }
    }
    if constexpr ((OUT & 4) != 0) {
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      if (lane % 4 == 0 && token < tokens)
        f.code_sums[static_cast<long long>(part) * tokens + token] = total;
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
