#include "arguments.cuh"

// Low-bit product on the tensor cores of sm_80 and later: mma.sync on single bits, AND and
// population count. The same tiles as product_sm90.cu, one of them a block: all threads copy, all
// multiply. TOKEN_WARPS x FEATURE_WARPS warps own 16 * BLOCKS tokens by FEATURES / FEATURE_WARPS
// outputs each.

constexpr int TOKENS = 16 * BLOCKS * TOKEN_WARPS;
constexpr int THREADS = 32 * TOKEN_WARPS * FEATURE_WARPS;
constexpr int OWN = FEATURES / FEATURE_WARPS;     // outputs of a warp
constexpr int COLUMNS = P * OWN;                  // columns of a warp
constexpr int A_BYTES = TOKENS * Q * TILE_BYTES;
constexpr int B_BYTES = P * FEATURES * TILE_BYTES;
constexpr int STAGE_BYTES = A_BYTES + B_BYTES;

static_assert(OWN % 32 == 0 && TOKENS % 64 == 0, "whole blocks of outputs, whole strips");

// Copies the planes of a block of weights of one tile along k; they lie swizzled in the image.
DEVICE void fetch_weights(unsigned to, const Weights& weights, int feature, int tile_k,
                          int plane) {
  const int bytes = min(FEATURES, weights.rows - feature) * TILE_BYTES;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    const long long row =
        (static_cast<long long>(tile_k) * P * PASSES + plane + p) * weights.rows + feature;
    for (int at = threadIdx.x * 16; at < bytes; at += THREADS * 16)
      copy_async<16>(to + p * FEATURES * TILE_BYTES + at, weights.image + row * TILE_BYTES + at, true);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    low_bit_product(ARGUMENTS) {
  READ_ARGUMENTS;
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ Corner corners[IMAGES ? TOKENS : 1];
  const unsigned stages = shared_address(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int feature = blockIdx.x % all.across * FEATURES;
  const int first = blockIdx.x / all.across * TOKENS;
  const int token_warp = warp / FEATURE_WARPS, feature_warp = warp % FEATURE_WARPS;
  if constexpr (IMAGES) {
    for (int t = threadIdx.x; t < TOKENS; t += THREADS)
      corners[t] = corner_of(min(first + t, rows.count - 1), images);
    __syncthreads();
  }
  int counts[BLOCKS * Q][4 * COLUMNS / 8] = {};
#if PASSES > 1
  int run[BLOCKS][1][4 * COLUMNS / 8] = {};
#endif
  const int turns = all.depth * PASSES;
  const auto fetch = [&](int turn) {
    if (turn < turns) {
      const unsigned to = stages + turn % STAGES * STAGE_BYTES;
      const int plane = PASSES > 1 ? PASSES - 1 - turn / all.depth : 0;
      fetch_weights(to + A_BYTES, weights, feature, turn % all.depth, plane);
      fetch_rows<TOKENS, THREADS>(to, rows, first, turn % all.depth, corners, images, threadIdx.x);
    }
    commit_copies();
  };
#pragma unroll
  for (int turn = 0; turn < STAGES - 1; ++turn) fetch(turn);
  for (int turn = 0; turn < turns; ++turn) {
    wait_copies<STAGES - 2>();
    __syncthreads();
    fetch(turn + STAGES - 1);
    const unsigned a = stages + turn % STAGES * STAGE_BYTES, b = a + A_BYTES;
    const int left = rows.k_bytes * 8 - turn % all.depth * 8 * TILE_BYTES;
    const int steps = min(4, (left + STEP_BITS - 1) / STEP_BITS);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      unsigned fragments[BLOCKS * Q][4];
#pragma unroll
      for (int block = 0; block < BLOCKS; ++block)
#pragma unroll
        for (int q = 0; q < Q; ++q) {
          const int token = (token_warp * BLOCKS + block) * 16;
          const int row = (token / 64 * Q + q) * 64 + token % 64 + lane % 16;
          load_matrices(fragments[block * Q + q], a + chunk_offset(row, 2 * step + lane / 16));
        }
#pragma unroll
      for (int p = 0; p < P; ++p)
#pragma unroll
        for (int pair = 0; pair < OWN / 16; ++pair) {
          unsigned columns[4];
          const int row = p * FEATURES + feature_warp * OWN + pair * 16 + lane % 8 + lane / 16 * 8;
          load_matrices(columns, b + chunk_offset(row, 2 * step + lane / 8 % 2));
          const int at = 4 * (p * OWN / 8 + 2 * pair);
#pragma unroll
          for (int i = 0; i < BLOCKS * Q; ++i) {
            multiply(counts[i] + at, fragments[i], columns[0], columns[1]);
            multiply(counts[i] + at + 4, fragments[i], columns[2], columns[3]);
          }
        }
    }
#if PASSES > 1
    if (turn % all.depth == all.depth - 1) {
#pragma unroll
      for (int block = 0; block < BLOCKS; ++block)
        add_pass(run[block][0], counts + block * Q, SIGNED && turn < all.depth);
#pragma unroll
      for (int i = 0; i < BLOCKS * Q; ++i)
#pragma unroll
        for (int c = 0; c < 4 * COLUMNS / 8; ++c) counts[i][c] = 0;
    }
#endif
  }
  wait_copies<0>();
#pragma unroll
  for (int block = 0; block < BLOCKS; ++block) {
    const int token = first + (token_warp * BLOCKS + block) * 16;
    int code_sums[2] = {};
    if (finish_with.times_sum != 0)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        code_sums[half] = sum_of_codes(rows, token + lane / 4 + 8 * half, images);
#if PASSES > 1
    finish_block<1, 1, false, OWN>(run[block], code_sums, token, rows.count,
                                   feature + feature_warp * OWN, lane, finish_with);
#else
    finish_block<Q, P, SIGNED, OWN>(counts + block * Q, code_sums, token, rows.count,
                                    feature + feature_warp * OWN, lane, finish_with);
#endif
  }
}
