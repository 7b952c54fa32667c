#include "arguments.cuh"

// Low-bit product on Hopper's tensor cores: wgmma on single bits, AND and population count.
//
// A warpgroup brings tiles in: activations row by row with asynchronous copies, weights as whole
// blocks of their image with bulk copies. WARPGROUPS others multiply: each owns TOKEN_STRIPS times
// 64 tokens, all Q planes of them, and all of the tile's FEATURES with P planes at once (PASSES
// times, from the highest plane down, where P is 1). Either they share a tile, or they take tiles in
// turn (PINGPONG): one then finishes its outputs while another multiplies. Blocks stay resident and
// walk over tiles. CLUSTER blocks take tiles of neighbouring tokens at a time, so that they need
// the same weights: each brings in a part of them, for all.
//
// Where this text ends, wgmma.py's follows: multiply_bits, one product of 64 x COLUMNS x 256 bits.

constexpr int STRIPS = TOKEN_STRIPS * Q;            // of 64 rows, a warpgroup's
constexpr int SHARERS = PINGPONG ? 1 : WARPGROUPS;  // warpgroups of a tile
constexpr int TOKENS = 64 * TOKEN_STRIPS * SHARERS;
constexpr int COLUMNS = P * FEATURES;
constexpr int A_BYTES = 64 * STRIPS * SHARERS * TILE_BYTES;
constexpr int B_BYTES = COLUMNS * TILE_BYTES;
constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
constexpr int THREADS = 128 * (1 + WARPGROUPS);
constexpr unsigned short EVERY_BLOCK = (1 << CLUSTER) - 1;

static_assert(STAGES >= 2 && FEATURES % 32 == 0 && (PASSES == 1 || P == 1), "what plan.py gives");
static_assert(STAGE_BYTES % 1024 == 0, "tiles begin at multiples of 1024 bytes");
static_assert(CLUSTER == 1 || CLUSTER == 2 || CLUSTER == 4, "parts of weights are whole rows");

DEVICE void multiply_bits(int (&counts)[COLUMNS / 2], unsigned long long rows,
                          unsigned long long columns, bool keep);

// What tensor cores must know of a tile: address, 1024 bytes between 8 rows, 128-byte swizzle.
DEVICE unsigned long long descriptor(unsigned address) {
  return static_cast<unsigned long long>((address & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 |
         1ull << 62;
}

// The tiles of a block, in its order; those of a cluster differ in their tokens alone.
struct Walk {
  const Tiles& tiles;
  int tile = static_cast<int>(blockIdx.x) / CLUSTER;

  DEVICE bool more() const { return tile < tiles.count; }
  DEVICE void skip(int number) { tile += static_cast<int>(gridDim.x) / CLUSTER * number; }
  DEVICE int feature() const { return tile % tiles.across * FEATURES; }
  DEVICE int token() const {
    return (tile / tiles.across * CLUSTER + static_cast<int>(blockIdx.x) % CLUSTER) * TOKENS;
  }
};

// Copies this block's part of a tile of one plane of weights, `rows` of 128 bytes, for its cluster.
DEVICE void fetch_weights(unsigned to, const unsigned char* from, int rows, unsigned full) {
  if constexpr (CLUSTER == 1) {
    copy_block(to, from, rows * TILE_BYTES, full);
  } else {
    const int bytes = rows / CLUSTER * TILE_BYTES;
    const int skipped = static_cast<int>(blockIdx.x) % CLUSTER * bytes;
    copy_block_to(to + skipped, from + skipped, bytes, full, EVERY_BLOCK);
  }
}

DEVICE void produce(unsigned stages, unsigned full, unsigned empty, Corner* corners,
                    const Rows& rows, const Images& images, const Weights& weights,
                    const Tiles& tiles) {
  const int thread = threadIdx.x;
  int turn = 0;
  for (Walk walk{tiles}; walk.more(); walk.skip(1)) {
    const int first = walk.token(), feature = walk.feature();
    if constexpr (IMAGES) {
      wait_for_group<1, 128>();
      for (int t = thread; t < TOKENS; t += 128)
        corners[t] = corner_of(min(first + t, rows.count - 1), images);
      wait_for_group<1, 128>();
    }
    const int weight_rows = min(FEATURES, weights.rows - feature);
    for (int pass = 0; pass < PASSES; ++pass)
      for (int k = 0; k < tiles.depth; ++k, ++turn) {
        const int stage = turn % STAGES;
        const unsigned to = stages + stage * STAGE_BYTES, told = full + 8 * stage;
        if (turn >= STAGES) wait_barrier(empty + 8 * stage, (turn / STAGES - 1) & 1);
        if (thread == 0) {
          arrive_expecting(told, P * weight_rows * TILE_BYTES);
#pragma unroll
          for (int p = 0; p < P; ++p) {
            const int plane = PASSES > 1 ? PASSES - 1 - pass : p;
            const long long row =
                (static_cast<long long>(k) * P * PASSES + plane) * weights.rows + feature;
            fetch_weights(to + A_BYTES + p * FEATURES * TILE_BYTES,
                          weights.image + row * TILE_BYTES, weight_rows, told);
          }
        }
        fetch_rows<TOKENS, 128>(to, rows, first, k, corners, images, thread);
        arrive_when_copied(told);
      }
  }
  commit_copies();
  wait_copies<0>();
}

// Multiplies the tile of one stage: `steps` products of 256 bits along k.
DEVICE void multiply_tile(int (&counts)[STRIPS][COLUMNS / 2], unsigned a, unsigned b, int steps,
                          bool first) {
  const unsigned long long rows = descriptor(a), columns = descriptor(b);
  begin_products();
  if (steps == 4) {
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int s = 0; s < STRIPS; ++s)
        multiply_bits(counts[s], rows + s * (64 * TILE_BYTES >> 4) + 2 * step, columns + 2 * step,
                      !first || step > 0);
  } else {
    for (int step = 0; step < steps; ++step)
#pragma unroll
      for (int s = 0; s < STRIPS; ++s)
        multiply_bits(counts[s], rows + s * (64 * TILE_BYTES >> 4) + 2 * step, columns + 2 * step,
                      !first || step > 0);
  }
  commit_products();
}

// Waits until the warpgroup before has begun all products of the tile before. A barrier tells but
// even phases from odd ones: who looked at stages earlier could take one of before for its own.
DEVICE void wait_for_turn(unsigned begun, int group, int round) {
  if (group > 0) {
    wait_barrier(begun + 8 * (group - 1), round & 1);
  } else if (round > 0) {
    wait_barrier(begun + 8 * (WARPGROUPS - 1), (round - 1) & 1);
  }
}

// Gives a stage back to all blocks that write to it.
DEVICE void release(unsigned empty, int turn) {
  const int lane = threadIdx.x % 32;
  const unsigned barrier = empty + 8 * (turn % STAGES);
  if constexpr (CLUSTER == 1) {
    if (lane == 0) arrive(barrier);
  } else {
    if (lane < CLUSTER) arrive_at(barrier, lane);
  }
}

DEVICE void consume(unsigned stages, unsigned full, unsigned empty, unsigned begun, const Rows& rows,
                    const Images& images, const Tiles& tiles, const Finish& f) {
  const int group = of_first_lane(threadIdx.x / 128 - 1);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int sharer = PINGPONG ? 0 : group, turns = PASSES * tiles.depth;
  const int own = sharer * STRIPS * 64 * TILE_BYTES;
  Walk walk{tiles};
  int turn = 0, round = 0;
  if constexpr (PINGPONG) walk.skip(group), turn = group * turns;
  for (; walk.more(); walk.skip(WARPGROUPS / SHARERS), turn += (WARPGROUPS / SHARERS - 1) * turns,
                      ++round) {
    const int first = walk.token() + sharer * TOKEN_STRIPS * 64 + 16 * warp;
    int code_sums[TOKEN_STRIPS][2] = {};
    if (f.times_sum != 0)
#pragma unroll
      for (int s = 0; s < TOKEN_STRIPS; ++s)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          code_sums[s][half] =
              sum_of_codes(rows, first + 64 * s + lane / 4 + 8 * half, images);
    int counts[STRIPS][COLUMNS / 2];
#if PASSES > 1
    int run[TOKEN_STRIPS][1][COLUMNS / 2] = {};
#endif
    if constexpr (PINGPONG) wait_for_turn(begun, group, round);
    for (int pass = 0; pass < PASSES; ++pass) {
      for (int k = 0; k < tiles.depth; ++k, ++turn) {
        const int stage = turn % STAGES;
        const unsigned at = stages + stage * STAGE_BYTES;
        wait_barrier(full + 8 * stage, turn / STAGES & 1);
        show_to_tensor_cores();  // what asynchronous copies wrote
        const int left = rows.k_bytes * 8 - k * 8 * TILE_BYTES;
        multiply_tile(counts, at + own, at + A_BYTES, min(4, (left + STEP_BITS - 1) / STEP_BITS),
                      k == 0);
        if (k > 0) {
          wait_products<1>();
          release(empty, turn - 1);
        }
      }
      if (PINGPONG && pass == PASSES - 1 && lane == 0) arrive(begun + 8 * group);
      wait_products<0>();
      hold(counts);
      release(empty, turn - 1);
#if PASSES > 1
#pragma unroll
      for (int s = 0; s < TOKEN_STRIPS; ++s)
        add_pass(run[s][0], counts + s * Q, SIGNED && pass == 0);
#endif
    }
#pragma unroll
    for (int s = 0; s < TOKEN_STRIPS; ++s) {
#if PASSES > 1
      finish_block<1, 1, false, FEATURES>(run[s], code_sums[s], first + 64 * s, rows.count,
                                          walk.feature(), lane, f);
#else
      finish_block<Q, P, SIGNED, FEATURES>(counts + s * Q, code_sums[s], first + 64 * s, rows.count,
                                           walk.feature(), lane, f);
#endif
    }
  }
}

#if CLUSTER > 1
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define IN_CLUSTERS
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(THREADS, 1) low_bit_product(ARGUMENTS) {
  READ_ARGUMENTS;
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) unsigned long long barriers[2 * STAGES + WARPGROUPS];
  const unsigned stages = (shared_address(memory) + 1023) & ~1023u;
  const unsigned full = shared_address(barriers), empty = full + 8 * STAGES;
  const unsigned begun = empty + 8 * STAGES;
  // Behind the stages: windows of images.
  Corner* const corners = reinterpret_cast<Corner*>(memory + (stages - shared_address(memory)) +
                                                    STAGES * STAGE_BYTES);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; ++stage) {
      start_barrier(full + 8 * stage, 128 + 1);
      start_barrier(empty + 8 * stage, 4 * SHARERS * CLUSTER);
    }
    for (int group = 0; group < WARPGROUPS; ++group) start_barrier(begun + 8 * group, 4);
    publish_barriers();
  }
  if constexpr (CLUSTER == 1) {
    __syncthreads();
  } else {
    meet_cluster();
  }
  if (threadIdx.x < 128) {
    give_registers<PRODUCER_REGISTERS>();
    produce(stages, full, empty, corners, rows, images, weights, all);
  } else {
    take_registers<CONSUMER_REGISTERS>();
    consume(stages, full, empty, begun, rows, images, all, finish_with);
  }
  if constexpr (CLUSTER > 1) {
    __syncwarp();
    meet_cluster();  // no block may end while another still writes to it
  }
}
