#include "arguments.cuh"

// Direct convolution of bit planes on Hopper's tensor cores: windows are never put together.
//
// A warpgroup takes 64 output pixels and FEATURES outputs at a time. All weights of these outputs
// stay in shared memory for the whole launch; codes go from the second-level cache straight into the
// registers that the products read, so that nothing of the input passes through shared memory and
// no thread waits for another. A thread reads whole UNITs of a pixel's plane, 16 bytes or 8: four
// neighbouring lanes hold four units in a row of one window (a turn), and the weights' words are put
// into the order that follows. A block is one warpgroup and several share a multiprocessor: one
// multiplies while others wait for memory or write.
//
// Weights of -1 and +1 need the sum of the codes under each window: ONES columns more, all of ones,
// count it. So nobody writes or adds up sums.
//
// Compile-time constants beside those of finish.cuh: OUT may have 4 in it, codes of the next layer,
// of Q_OUT planes; RESIDUAL and RELU (0 or 1); BLOCKS of a multiprocessor, TAPS and KERNEL_WIDTH of
// the window, UNITS of a tap. Where this text ends, wgmma.py's follows.

constexpr int THREADS = 128;
constexpr int COLUMNS = P * FEATURES + ONES;
constexpr int WORDS = UNIT / 4, STEPS = WORDS / 2;  // of a unit; products of a turn
constexpr int TURNS = (TAPS * UNITS + 3) / 4;
constexpr int AT_ONCE = TURNS <= 12 ? TURNS : 6;  // turns whose products are written out
constexpr int ROUNDS = (TURNS + AT_ONCE - 1) / AT_ONCE;
constexpr int TURN_BYTES = 4 * UNIT;  // of a row of weights
constexpr int K_TILES = (ROUNDS * AT_ONCE * TURN_BYTES + TILE_BYTES - 1) / TILE_BYTES;
constexpr int EIGHTS = FEATURES / 32;  // of a thread and token: outputs by 8
constexpr int MAGIC_BITS = 0x4b400000;  // of MAGIC; whole numbers below 2^22 may be added to them
#ifdef SMALL_SUMS
constexpr bool IN_MANTISSA = OUT != 1;
#else
constexpr bool IN_MANTISSA = false;
#endif

static_assert(FEATURES % 32 == 0 && COLUMNS % 8 == 0, "tiles are whole groups of 8 rows");

// What outputs are added to, and what the next layer reads.
struct Next {
  const Element* residual;  // [token][feature]
  unsigned char* codes;     // [token][Q_OUT][code_bytes]
  const float* code_step;   // what an integer of the codes is worth
  int code_bytes;
  int zero;                 // code of the real zero
};

typedef unsigned Turn[STEPS][Q][4];  // codes as products read them

DEVICE void multiply_window(int (&counts)[COLUMNS / 2], const unsigned (&rows)[4],
                            unsigned long long columns, bool keep);

// Brings the weights of FEATURES outputs into shared memory. In 4 units along K, word w of unit u
// goes to place 4 * w + u, where the products meet it.
DEVICE void bring_weights(unsigned char* to, const Weights& weights, int feature, int depth) {
#pragma unroll 3
  for (int item = threadIdx.x; item < 2 * K_TILES * COLUMNS; item += THREADS) {
    const int column = item % COLUMNS, tile = item / COLUMNS / 2, side = item / COLUMNS % 2 * 4;
    const int row = feature + column % FEATURES;
    const unsigned fill = column < P * FEATURES ? 0u : ~0u;
    unsigned words[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint4 four = make_uint4(fill, fill, fill, fill);
      if (fill == 0 && row < weights.rows && tile < depth) {
        const long long place = static_cast<long long>(tile * P + column / FEATURES) * weights.rows;
        four = __ldg(reinterpret_cast<const uint4*>(weights.image + place * TILE_BYTES +
                                                    chunk_offset(row, side + i)));
      }
      words[i][0] = four.x, words[i][1] = four.y, words[i][2] = four.z, words[i][3] = four.w;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int pair = i / 2 * 2, w = i % 2;  // of units of 8 bytes
      const uint4 four =
          UNIT == 16 ? make_uint4(words[0][i], words[1][i], words[2][i], words[3][i])
                     : make_uint4(words[pair][w], words[pair][2 + w], words[pair + 1][w],
                                  words[pair + 1][2 + w]);
      *reinterpret_cast<uint4*>(to + tile * COLUMNS * TILE_BYTES + chunk_offset(column, side + i)) =
          four;
    }
  }
}

// Windows of a token and of the one 8 further; tokens beyond the last take another's.
DEVICE void windows_of(Corner (&window)[2], int token, int count, const Images& g) {
  const int first = min(token, count - 1), per_image = g.out_height * g.out_width;
  int image = first / per_image, y = first % per_image / g.out_width, x = first % g.out_width;
  window[0] = {image * g.height, y * g.stride_y - g.pad_y, x * g.stride_x - g.pad_x};
  window[1] = window[0];
  if (first + 8 >= count) return;
  for (x += 8; x >= g.out_width; x -= g.out_width) ++y;
  for (; y >= g.out_height; y -= g.out_height) ++image;
  window[1] = {image * g.height, y * g.stride_y - g.pad_y, x * g.stride_x - g.pad_x};
}

// Loads this lane's unit of a turn from all planes of two windows.
DEVICE void take(Turn& to, const Corner (&window)[2], int turn, const Rows& rows, const Images& g) {
  const int unit = 4 * turn + threadIdx.x % 4, tap = unit / UNITS;
  const int down = tap / KERNEL_WIDTH * g.dilation_y, right = tap % KERNEL_WIDTH * g.dilation_x;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int y = window[half].y + down, x = window[half].x + right;
    const bool inside = static_cast<unsigned>(y) < static_cast<unsigned>(g.height) &&
                        static_cast<unsigned>(x) < static_cast<unsigned>(g.width);
    const long long pixel = (window[half].image_rows + y) * g.width + x;
    const unsigned char* const from = (inside ? rows.planes + pixel * (Q * UNITS * UNIT) : rows.outside) +
                                      unit % UNITS * UNIT;
    unsigned words[Q][WORDS] = {};
    if (TAPS * UNITS % 4 == 0 || unit < TAPS * UNITS) {
#pragma unroll
      for (int q = 0; q < Q; ++q) {
        if constexpr (UNIT == 16) {
          const uint4 four = *reinterpret_cast<const uint4*>(from + q * UNITS * UNIT);
          words[q][0] = four.x, words[q][1] = four.y, words[q][2] = four.z, words[q][3] = four.w;
        } else if constexpr (UNITS == 1 && Q % 2 == 0) {  // two planes lie side by side
          if (q % 2 != 0) continue;
          const uint4 four = *reinterpret_cast<const uint4*>(from + q * UNIT);
          words[q][0] = four.x, words[q][1] = four.y;
          words[q + 1][0] = four.z, words[q + 1][1] = four.w;
        } else {
          const uint2 two = *reinterpret_cast<const uint2*>(from + q * UNITS * UNIT);
          words[q][0] = two.x, words[q][1] = two.y;
        }
      }
    }
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
#pragma unroll
      for (int q = 0; q < Q; ++q)
        to[step][q][half] = words[q][2 * step], to[step][q][2 + half] = words[q][2 * step + 1];
  }
}

// Counts 64 windows against all columns.
DEVICE void count_windows(int (&counts)[Q][COLUMNS / 2], const Corner (&window)[2], unsigned weights,
                          const Rows& rows, const Images& images) {
  Turn taken[2];
  for (int first = 0; first < ROUNDS * AT_ONCE; first += AT_ONCE) {
#pragma unroll
    for (int i = 0; i < 2 && i < AT_ONCE; ++i) take(taken[i], window, first + i, rows, images);
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      begin_products();
#pragma unroll
      for (int step = 0; step < STEPS; ++step) {
        const int byte = (first + i) * TURN_BYTES + 32 * step;
        const unsigned long long columns =
            matrix_tile(weights + byte / TILE_BYTES * COLUMNS * TILE_BYTES) + byte % TILE_BYTES / 16;
#pragma unroll
        for (int q = 0; q < Q; ++q)
          multiply_window(counts[q], taken[i % 2][step][q], columns, first + i + step > 0);
      }
      commit_products();
      if (i > 0 && i + 1 < AT_ONCE) {
        wait_products<1>();  // of the turn before, in whose place the next one goes
        take(taken[(i + 1) % 2], window, first + i + 1, rows, images);
      }
    }
    wait_products<0>();
  }
  hold(counts);
}

// Whole numbers of one token and 8 neighbouring outputs, all `more` larger.
DEVICE void combine(int (&whole)[8], const int (&counts)[Q][COLUMNS / 2], int eight, int half,
                    const Finish& f, int more) {
  int base = 0;
  if constexpr (ONES > 0) {
#pragma unroll
    for (int q = Q - 1; q >= 0; --q) base = 2 * base + counts[q][P * FEATURES / 2 + 2 * half];
    base *= f.times_sum;
  }
  int all[8] = {};
#pragma unroll
  for (int p = P - 1; p >= 0; --p) {
    int sum[8];
    add_planes<Q>(sum, counts, p * (FEATURES / 8) + 4 * eight, half);
#pragma unroll
    for (int i = 0; i < 8; ++i) all[i] = 2 * all[i] + (SIGNED && p == P - 1 ? -sum[i] : sum[i]);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) whole[i] = all[i] * f.times_counts + (base + more);
}

// Four neighbouring lanes hold four bytes each; lane l gets the l-th byte of all.
DEVICE unsigned across_lanes(unsigned bytes) {
  const int lane = threadIdx.x % 4;
  unsigned other = __shfl_xor_sync(~0u, bytes, 1);
  bytes = lane % 2 == 0 ? __byte_perm(bytes, other, 0x6240) : __byte_perm(other, bytes, 0x7351);
  other = __shfl_xor_sync(~0u, bytes, 2);
  return lane < 2 ? __byte_perm(bytes, other, 0x5410) : __byte_perm(other, bytes, 0x7632);
}

struct Factors {
  float scale[FEATURES], offset[FEATURES];
  float inverse_step;
};

DEVICE void load_factors(Factors& to, const Finish& f, const Next& next, int feature) {
  if (OUT == 1) return;
  for (int i = threadIdx.x; i < FEATURES; i += THREADS) {
    to.scale[i] = feature + i < f.features ? __ldg(f.scale + feature + i) : 0.0f;
    to.offset[i] = feature + i < f.features ? __ldg(f.offset + feature + i) : 0.0f;
  }
  if ((OUT & 4) != 0 && threadIdx.x == 0) to.inverse_step = __fdiv_rn(1.0f, __ldg(next.code_step));
}

// Adds 8 elements, where there are any, and makes negative numbers zero.
DEVICE void add_residual(float (&number)[8], const uint4& more) {
  if constexpr (RESIDUAL) {
    const unsigned words[4] = {more.x, more.y, more.z, more.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 both = unpack(words[i]);
      number[2 * i] = __fadd_rn(number[2 * i], both.x);
      number[2 * i + 1] = __fadd_rn(number[2 * i + 1], both.y);
    }
  }
  if constexpr (RELU)
#pragma unroll
    for (int i = 0; i < 8; ++i) number[i] = positive_part(number[i]);
}

// Loads what is added to a thread's outputs.
DEVICE void load_residual(uint4 (&more)[EIGHTS][2], int token, int tokens, int feature,
                          const Finish& f, const Next& next) {
#pragma unroll
  for (int e = 0; e < EIGHTS; ++e)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      more[e][half] = make_uint4(0, 0, 0, 0);
      if (token + 8 * half < tokens && feature + 32 * e < f.features)
        more[e][half] = *reinterpret_cast<const uint4*>(
            next.residual + (token + 8ll * half) * f.features + feature + 32 * e);
    }
}

// Finishes a warp's 16 tokens: all outputs of two tokens a thread, see finish.cuh.
DEVICE void finish_windows(const int (&counts)[Q][COLUMNS / 2], int token, int tokens, int feature,
                           const Factors& factors, const Finish& f, const Next& next) {
  const int lane = threadIdx.x % 32, own = feature + lane % 4 * 8;
  const bool there[2] = {token < tokens, token + 8 < tokens};
  uint4 more[EIGHTS][2];
  if constexpr (RESIDUAL) load_residual(more, token, tokens, own, f, next);
  unsigned bytes[2][(Q_OUT * EIGHTS + 3) / 4] = {};  // of planes, then of eights
#pragma unroll
  for (int e = 0; e < EIGHTS; ++e) {
    const int at = own + 32 * e;
    float scale[8], offset[8];
#pragma unroll
    for (int i = 0; i < 8 && OUT != 1; ++i) {
      scale[i] = factors.scale[lane % 4 * 8 + 32 * e + i];
      offset[i] = factors.offset[lane % 4 * 8 + 32 * e + i];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int whole[8];
      combine(whole, counts, e, half, f, IN_MANTISSA ? MAGIC_BITS : 0);
      if constexpr (OUT == 1) {
        store_whole(whole, token + 8 * half, tokens, at, f);
        continue;
      }
      float number[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float real = IN_MANTISSA ? __fsub_rn(__int_as_float(whole[i]), MAGIC)
                                       : __int2float_rn(whole[i]);
        number[i] = __fmaf_rn(real, scale[i], offset[i]);
      }
      add_residual(number, more[e][half]);
      if ((OUT & 2) != 0 && there[half] && at < f.features) {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = pack(number[2 * i], number[2 * i + 1]);
        store_bytes<16>(static_cast<Element*>(f.out) + (token + 8ll * half) * f.features + at, words);
      }
      if ((OUT & 4) != 0 && at < f.features) {
        constexpr int highest = (1 << Q_OUT) - 1;
        const unsigned left = four_codes(number, factors.inverse_step, next.zero, highest);
        const unsigned right = four_codes(number + 4, factors.inverse_step, next.zero, highest);
#pragma unroll
        for (int q = 0; q < Q_OUT; ++q)
          bytes[half][(q * EIGHTS + e) / 4] |= plane_of(left, right, q) << (q * EIGHTS + e) % 4 * 8;
      }
    }
  }
  if constexpr ((OUT & 4) != 0)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < (Q_OUT * EIGHTS + 3) / 4; ++i) {
        const unsigned word = across_lanes(bytes[half][i]);
        const int item = 4 * i + lane % 4, plane = item / EIGHTS, at = feature + 32 * (item % EIGHTS);
        if (there[half] && plane < Q_OUT && at < f.features)
          *reinterpret_cast<unsigned*>(
              next.codes + ((token + 8ll * half) * Q_OUT + plane) * next.code_bytes + at / 8) = word;
      }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    low_bit_direct(ARGUMENTS, const Element* residual, unsigned char* codes, const float* code_step,
                   int code_bytes, int zero) {
  READ_ARGUMENTS;
  const Next next{residual, codes, code_step, code_bytes, zero};
  extern __shared__ unsigned char memory[];
  __shared__ __align__(16) Factors factors;
  const unsigned weights_at = (shared_address(memory) + 1023) & ~1023u;
  const int feature = static_cast<int>(blockIdx.x) % all.across * FEATURES;
  let_next_start();
  bring_weights(memory + (weights_at - shared_address(memory)), weights, feature, all.depth);
  load_factors(factors, finish_with, next, feature);
  show_to_tensor_cores();
  __syncthreads();
  wait_for_previous();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int tile = static_cast<int>(blockIdx.x) / all.across; tile < all.count;
       tile += static_cast<int>(gridDim.x) / all.across) {
    const int token = 64 * tile + 16 * warp + lane / 4;
    Corner window[2];
    windows_of(window, token, rows.count, images);
    int counts[Q][COLUMNS / 2];
    count_windows(counts, window, weights_at, rows, images);
    finish_windows(counts, token, rows.count, feature, factors, finish_with, next);
  }
}
