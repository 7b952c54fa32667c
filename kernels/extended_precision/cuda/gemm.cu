#include "instructions.cuh"

typedef unsigned long long uint64;

// A (m x k) times B (n x k) transposed, both split in two halves, for Hopper.
//
// Operands are images: per 32 columns of K, all rows of 128 bytes, 32 upper halves then 32 lower
// ones, swizzled as the tensor cores read them. Whatever rows a tile takes are then contiguous: one
// bulk copy an operand and stage, shared by the blocks of a cluster that need the same rows.
//
// The last warpgroup loads. Every other one owns STRIPS times 64 rows of the tile. Tensor cores
// truncate when they add, so that sums of theirs stay short: after PROMOTE stages they go to `total`,
// which is added to with ordinary additions.
//
// Compile-time constants, see plan.py: WARPGROUPS (that multiply), STRIPS, BN, STAGES, CLUSTER_M,
// CLUSTER_N, SCHEDULE, PROMOTE (0: never), PRODUCTS, RESIDUAL, GROUP, NEAREST.

constexpr int BM = 64 * STRIPS * WARPGROUPS;
constexpr int COLUMNS = BN / 8;  // of 8, as accumulators are numbered
constexpr int CLUSTER = CLUSTER_M * CLUSTER_N;
constexpr int THREADS = 128 * (WARPGROUPS + 1);
constexpr int ROW_BYTES = 128;
constexpr int STAGE_BYTES = (BM + BN) * ROW_BYTES;
constexpr int SHARED = 0, SEPARATE = 1;  // schedules
constexpr int LOADING_REGISTERS = WARPGROUPS == 2 ? 40 : 56;
constexpr int MULTIPLYING_REGISTERS = WARPGROUPS == 2 ? 232 : 152;
static_assert(STRIPS == 1 || (PROMOTE == 1 && SCHEDULE != SEPARATE), "registers of one strip");
static_assert(SCHEDULE == SHARED || PROMOTE == 1, "other schedules promote at every stage");
static_assert(SCHEDULE != SHARED || RESIDUAL == 0, "one accumulator has one scale");

typedef float Sums[COLUMNS][4];

struct Operand {
  const unsigned char* image;
  const int* exponents;  // row r of the image is 2^exponents[r] times the matrix's
  uint64 batch_bytes;    // from one matrix to the next; 0 where all share one
  int batch_rows;        // the same for the exponents
  int rows;              // of the image
};

struct Sizes {
  int m, n, stages, batch;
  int clusters_m, clusters_n;  // tiles of whole clusters
};

struct Tile {
  int batch, row, column;
  bool valid;
};

// The blocks' i-th tile. Neighbouring clusters get neighbouring tiles of up to GROUP rows of
// tiles, so that what they read is in the second-level cache; with NEAREST one block goes through
// all columns of its rows.
DEVICE Tile locate(int i, const Sizes& s) {
  const int cluster = static_cast<int>(blockIdx.x) / CLUSTER;
  const int clusters = static_cast<int>(gridDim.x) / CLUSTER;
  const int rank = cluster_rank();
  const int each = s.clusters_m * s.clusters_n;
  int m, n, batch = 0;
  bool valid;
  if constexpr (NEAREST) {
    m = cluster + i / s.clusters_n * clusters;
    n = i % s.clusters_n;
    valid = m < s.clusters_m;
  } else {
    const int item = cluster + i * clusters;
    valid = item < each * s.batch;
    batch = item / each;
    const int inside = item - batch * each;
    const int band = inside / (GROUP * s.clusters_n) * GROUP;
    const int height = min(GROUP, s.clusters_m - band);
    const int offset = inside - band * s.clusters_n;
    m = band + offset % height;
    n = offset / height;
  }
  const int row = (m * CLUSTER_M + rank / CLUSTER_N) * BM;
  return {batch, row, (n * CLUSTER_N + rank % CLUSTER_N) * BN, valid};
}

DEVICE unsigned full_barrier(unsigned barriers, int stage) { return barriers + 8 * stage; }

DEVICE unsigned empty_barrier(unsigned barriers, int stage) { return barriers + 8 * (STAGES + stage); }

// A place in the ring of stages; `phase` counts the rounds.
struct Place {
  int stage = 0;
  unsigned phase = 0;

  DEVICE void advance() {
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
};

DEVICE int rows_there(int rows, int first, int wanted) { return max(0, min(wanted, rows - first)); }

// Loads this block's share of a stage of one operand into all blocks that need it.
template <int ROWS, int SHARES>
DEVICE void load_rows(unsigned to, const Operand& from, const unsigned char* matrix, int stage,
                      int first, int share, unsigned barrier, unsigned short mask) {
  constexpr int PART = ROWS / SHARES;
  const int row = first + share * PART;
  const int bytes = rows_there(from.rows, row, PART) * ROW_BYTES;
  if (bytes == 0) return;
  const unsigned char* source =
      matrix + (static_cast<uint64>(stage) * from.rows + row) * ROW_BYTES;
  to += share * PART * ROW_BYTES;
  if constexpr (SHARES == 1) {
    copy_block(to, source, bytes, barrier);
  } else {
    copy_block_to(to, source, bytes, barrier, mask);
  }
}

DEVICE void load_tiles(unsigned buffers, unsigned barriers, const Operand& a, const Operand& b,
                       const Sizes& s) {
  const int rank = cluster_rank();
  const int down = rank / CLUSTER_N, across = rank % CLUSTER_N;
  const unsigned short a_mask = ((1u << CLUSTER_N) - 1) << (down * CLUSTER_N);
  unsigned short b_mask = 0;
#pragma unroll
  for (int i = 0; i < CLUSTER_M; ++i) b_mask |= 1u << (i * CLUSTER_N + across);
  Place place;
  for (int i = 0;; ++i) {
    const Tile tile = locate(i, s);
    if (!tile.valid) break;
    const int bytes =
        (rows_there(a.rows, tile.row, BM) + rows_there(b.rows, tile.column, BN)) * ROW_BYTES;
    const unsigned char* a_matrix = a.image + tile.batch * a.batch_bytes;
    const unsigned char* b_matrix = b.image + tile.batch * b.batch_bytes;
#pragma unroll 1
    for (int k = 0; k < s.stages; ++k, place.advance()) {
      const unsigned full = full_barrier(barriers, place.stage);
      const unsigned to = buffers + place.stage * STAGE_BYTES;
      wait_barrier(empty_barrier(barriers, place.stage), place.phase ^ 1);
      arrive_expecting(full, bytes);
      load_rows<BM, CLUSTER_N>(to, a, a_matrix, k, tile.row, across, full, a_mask);
      load_rows<BN, CLUSTER_M>(to + BM * ROW_BYTES, b, b_matrix, k, tile.column, down, full, b_mask);
    }
  }
}

// Tells the blocks that write into this stage that this warp has done with it.
DEVICE void release(unsigned barriers, int stage) {
  const int lane = threadIdx.x % 32, rank = cluster_rank();
  const int down = rank / CLUSTER_N, across = rank % CLUSTER_N;
  if (lane < CLUSTER && (lane / CLUSTER_N == down || lane % CLUSTER_N == across))
    arrive_at(empty_barrier(barriers, stage), lane);
}

constexpr int UPPER = 0, LOWER = 4, STEP = 2;  // in a tile's row, in the units of matrix_tile

template <int A, int B>
DEVICE void multiply(Sums& sums, uint64 a, uint64 b, bool fresh) {
  warpgroup_product(sums, a + A, b + B, !fresh);
  warpgroup_product(sums, a + A + STEP, b + B + STEP, true);
}

// The small products first: less of them is lost to truncation.
DEVICE void multiply_corrections(Sums& sums, uint64 a, uint64 b, bool fresh) {
  if constexpr (PRODUCTS == 4) {
    multiply<LOWER, LOWER>(sums, a, b, fresh);
    fresh = false;
  }
  multiply<LOWER, UPPER>(sums, a, b, fresh);
  multiply<UPPER, LOWER>(sums, a, b, false);
}

DEVICE float power_of_two(int exponent) { return __int_as_float((exponent + 127) << 23); }

template <int EXPONENT>
DEVICE void promote(Sums& total, const Sums& part) {
#pragma unroll
  for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      total[j][i] = EXPONENT == 0 ? total[j][i] + part[j][i]
                                  : fmaf(part[j][i], power_of_two(EXPONENT), total[j][i]);
}

DEVICE void clear(Sums& sums) {
#pragma unroll
  for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[j][i] = 0.0f;
}

// Multiplies all of K for one warpgroup's rows.
DEVICE void multiply_tile(Sums (&total)[STRIPS], unsigned buffers, unsigned barriers, int group,
                          int stages, Place& place) {
  Sums part, corrections;
#pragma unroll
  for (int strip = 0; strip < STRIPS; ++strip) clear(total[strip]);
  for (int k = 0; k < stages; ++k, place.advance()) {
    const unsigned at = buffers + place.stage * STAGE_BYTES;
    const uint64 b = matrix_tile(at + BM * ROW_BYTES);
    wait_barrier(full_barrier(barriers, place.stage), place.phase);
#pragma unroll
    for (int strip = 0; strip < STRIPS; ++strip) {
      const uint64 a = matrix_tile(at + (group * STRIPS + strip) * 64 * ROW_BYTES);
      if constexpr (SCHEDULE == SHARED) {
        const bool fresh = PROMOTE == 1 || (PROMOTE == 0 ? k == 0 : k % PROMOTE == 0);
        hold(part);
        begin_products();
        multiply_corrections(part, a, b, fresh);
        multiply<UPPER, UPPER>(part, a, b, false);
        commit_products();
        wait_products<0>();
        hold(part);
        const bool whole = PROMOTE == 1 || (PROMOTE != 0 && k % PROMOTE == PROMOTE - 1);
        if (whole || k == stages - 1) promote<0>(total[strip], part);
      } else {
        hold(part);
        hold(corrections);
        begin_products();
        multiply<UPPER, UPPER>(part, a, b, true);
        commit_products();
        multiply_corrections(corrections, a, b, k == 0);
        commit_products();
        wait_products<1>();  // also the corrections of the stage before
        hold(part);
        promote<0>(total[strip], part);
      }
    }
    if constexpr (SCHEDULE == SEPARATE) {
      if (k > 0) release(barriers, place.stage == 0 ? STAGES - 1 : place.stage - 1);
    } else {
      release(barriers, place.stage);
    }
  }
  if constexpr (SCHEDULE == SEPARATE) {
    wait_products<0>();
    hold(corrections);
    release(barriers, place.stage == 0 ? STAGES - 1 : place.stage - 1);
    promote<-RESIDUAL>(total[0], corrections);
  }
}

// 2^-exponent as two factors, since one may not be a float: exponents are -113 to 100. Sums times
// the first factors of row and column stay floats wherever the result is one.
struct Scale {
  float first, second;

  DEVICE explicit Scale(int exponent) {
    const int half = -exponent >> 1;
    first = power_of_two(half), second = power_of_two(-exponent - half);
  }
};

// Exponents of columns j and j + 1; those of padding are there too.
DEVICE int2 column_exponents(const Operand& b, int batch, int j) {
  return *reinterpret_cast<const int2*>(b.exponents + batch * b.batch_rows + j);
}

struct Output {
  float* out;
  const float* added;  // null where there is nothing to add
  long long batch_stride, row_stride;
  long long added_batch_stride, added_row_stride, added_column_stride;
  float alpha, beta;
};

// Stores a strip. Two columns and two rows are a thread's; WHOLE tiles need no look at the edges.
template <bool WHOLE, bool ADDED>
DEVICE void store(const Sums& total, const Tile& tile, int row, const Operand& a, const Operand& b,
                  const Sizes& s, const Output& o) {
  const int lane = threadIdx.x % 32, first = tile.column + lane % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = row + lane / 4 + 8 * half;
    if (i >= s.m) continue;
    const Scale down(a.exponents[tile.batch * a.batch_rows + i]);
    const float factor = down.second * o.alpha;
    float* to = o.out + tile.batch * o.batch_stride + i * o.row_stride + first;
    const float* added = o.added;
    if constexpr (ADDED)
      added += tile.batch * o.added_batch_stride + i * o.added_row_stride +
               first * o.added_column_stride;
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      const int j = first + 8 * c;
      if (!WHOLE && j >= s.n) continue;
      const int2 exponents = column_exponents(b, tile.batch, j);
      const Scale left(exponents.x), right(exponents.y);
      const float* sums = total[c] + 2 * half;
      float x = sums[0] * down.first * left.first * factor * left.second;
      float y = sums[1] * down.first * right.first * factor * right.second;
      const bool both = WHOLE || j + 1 < s.n;
      if constexpr (ADDED) {
        x = fmaf(o.beta, *added, x);
        if (both) y = fmaf(o.beta, added[o.added_column_stride], y);
        added += 8 * o.added_column_stride;
      }
      if constexpr (WHOLE) {
        *reinterpret_cast<float2*>(to + 8 * c) = make_float2(x, y);
      } else {
        to[8 * c] = x;
        if (both) to[8 * c + 1] = y;
      }
    }
  }
}

DEVICE void store(const Sums& total, const Tile& tile, int row, const Operand& a, const Operand& b,
                  const Sizes& s, const Output& o) {
  const bool whole = tile.column + BN <= s.n && (o.row_stride | o.batch_stride) % 2 == 0 &&
                     reinterpret_cast<uint64>(o.out) % 8 == 0;
  if (whole && !o.added) {
    store<true, false>(total, tile, row, a, b, s, o);
  } else if (whole) {
    store<true, true>(total, tile, row, a, b, s, o);
  } else if (!o.added) {
    store<false, false>(total, tile, row, a, b, s, o);
  } else {
    store<false, true>(total, tile, row, a, b, s, o);
  }
}

// The columns with the least added[j] - 2 a_i b_j so far, for a thread's two rows of a strip.
struct Nearest {
  float distance[2];
  int column[2];

  DEVICE void reset() {
    distance[0] = distance[1] = __int_as_float(0x7f800000);
    column[0] = column[1] = 0;
  }

  DEVICE void offer(int half, float other, int j) {
    if (other < distance[half]) distance[half] = other, column[half] = j;
  }

  DEVICE void look(const Sums& total, const Tile& tile, int row, const Operand& a,
                   const Operand& b, const Sizes& s, const float* norms) {
    const int lane = threadIdx.x % 32, i = row + lane / 4;
    const Scale down[2] = {Scale(a.exponents[min(i, a.rows - 1)]),
                           Scale(a.exponents[min(i + 8, a.rows - 1)])};
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      const int j = tile.column + 8 * c + lane % 4 * 2;
      if (j >= s.n) continue;
      const int2 exponents = column_exponents(b, tile.batch, j);
      const Scale left(exponents.x), right(exponents.y);
      const float norm = norms[j], next = j + 1 < s.n ? norms[j + 1] : __int_as_float(0x7f800000);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* sums = total[c] + 2 * half;
        const float factor = -2.0f * down[half].second;
        const float x = sums[0] * down[half].first * left.first * factor;
        const float y = sums[1] * down[half].first * right.first * factor;
        offer(half, fmaf(x, left.second, norm), j);
        offer(half, fmaf(y, right.second, next), j + 1);
      }
    }
  }

  // Takes the four lanes of a row together; among equals the first column wins.
  DEVICE void store(int row, const Sizes& s, long long* columns, float* distances) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int step = 1; step < 4; step *= 2) {
        const float there = __shfl_xor_sync(0xffffffffu, distance[half], step);
        const int where = __shfl_xor_sync(0xffffffffu, column[half], step);
        if (there < distance[half] || (there == distance[half] && where < column[half]))
          distance[half] = there, column[half] = where;
      }
      const int i = row + lane / 4 + 8 * half;
      if (lane % 4 == 0 && i < s.m) {
        columns[i] = column[half];
        distances[i] = distance[half];
      }
    }
  }
};

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)
    extended_gemm(const unsigned char* a_image, const int* a_exponents, uint64 a_batch_bytes,
                  int a_batch_rows, int a_rows, const unsigned char* b_image,
                  const int* b_exponents, uint64 b_batch_bytes, int b_batch_rows, int b_rows, int m,
                  int n, int stages, int batch, int clusters_m, int clusters_n, float* out, long long batch_stride,
                  long long row_stride, const float* added, long long added_batch_stride,
                  long long added_row_stride, long long added_column_stride, float alpha,
                  float beta, long long* columns) {
  const Operand a = {a_image, a_exponents, a_batch_bytes, a_batch_rows, a_rows};
  const Operand b = {b_image, b_exponents, b_batch_bytes, b_batch_rows, b_rows};
  const Sizes s = {m, n, stages, batch, clusters_m, clusters_n};
  extern __shared__ __align__(1024) unsigned char memory[];
  const unsigned start = shared_address(memory);
  const unsigned buffers = (start + 1023) / 1024 * 1024;  // swizzling goes by address
  const unsigned barriers = buffers + STAGES * STAGE_BYTES;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; ++i) {
      start_barrier(full_barrier(barriers, i), 1);
      start_barrier(empty_barrier(barriers, i), 4 * WARPGROUPS * (CLUSTER_M + CLUSTER_N - 1));
    }
    publish_barriers();
  }
  meet_cluster();
  const int group = threadIdx.x / 128;
  if (group == WARPGROUPS) {
    give_registers<LOADING_REGISTERS>();
    if (threadIdx.x % 128 == 0) load_tiles(buffers, barriers, a, b, s);
  } else {
    take_registers<MULTIPLYING_REGISTERS>();
    const Output o = {out,
                      added,
                      batch_stride,
                      row_stride,
                      added_batch_stride,
                      added_row_stride,
                      added_column_stride,
                      alpha,
                      beta};
    Place place;
    Sums total[STRIPS];
    [[maybe_unused]] Nearest nearest[STRIPS];
    for (int i = 0;; ++i) {
      const Tile tile = locate(i, s);
      if (!tile.valid) break;
      multiply_tile(total, buffers, barriers, group, s.stages, place);
#pragma unroll
      for (int strip = 0; strip < STRIPS; ++strip) {
        const int row = tile.row + (group * STRIPS + strip) * 64 + threadIdx.x % 128 / 32 * 16;
        if constexpr (NEAREST) {
          if (i % s.clusters_n == 0) nearest[strip].reset();
          nearest[strip].look(total[strip], tile, row, a, b, s, added);
          if (i % s.clusters_n == s.clusters_n - 1)
            nearest[strip].store(row, s, columns, out);
        } else {
          store(total[strip], tile, row, a, b, s, o);
        }
      }
    }
  }
  __syncwarp();
  meet_cluster();  // no block may end while another still writes to it
}
