#include "projection.cuh"

// A feed-forward block with ReLU of one vector, in one launch: rows of the first matrix and rows of
// the second's transpose are read where the little module says that the hidden unit matters.
//
// A cluster of blocks computes the projection for itself, each block of some chunks of the input. A
// block estimates `units` hidden units and tells the cluster which matter; the cluster's blocks
// then share them evenly. Warps compute the hidden values of a block's share; then all threads add
// each value times the second matrix' row, 8 outputs a thread and turn. Each block of a cluster
// adds up a slice of the cluster's outputs, and the last cluster to come adds up all clusters'
// slices, in order. With DENSE all units are computed, and rows of the second matrix are left out
// whose hidden value is zero: what loses nothing.
//
// Compile-time constants beside those of all kernels: DENSE, HIDDEN units, OUTPUTS.

constexpr int TURNS = over(OUTPUTS, 8 * THREADS);             // of 8 outputs a thread
constexpr int SLICE = up_to(OUTPUTS, 8 * CLUSTER) / CLUSTER;  // outputs that a block adds up

struct Shared {
  __half* vector;         // padded to 64
  signed char* bytes;     // the projection, padded to 32
  unsigned char* little;  // little weights of the block's rows
  Projection projection;
  float* sums;            // [block of the cluster][slice]: what the blocks send of this one's outputs
  float* shares;          // [outputs]: what this block sends of the others'
  float* scale;           // [units]: on the way before it is needed
  float* offset;
  float* values;          // of listed units
  unsigned* scratch;      // [WARPS]: largest of the vector
  unsigned* most;         // [BYTES / 32]: of the projection
  float* step;            // what a byte of the projection is worth
  unsigned* flags;        // [block of the cluster][words]: which units matter
  unsigned* own_flags;
  int* list;              // units that this block computes
  int* counters;          // units taken, whether this is the last cluster
  unsigned long long* barriers;  // projection, flags, sums
};

DEVICE Shared divide(unsigned char* at, int units) {
  const int words = over(units, 32);
  Shared s;
  s.barriers = reinterpret_cast<unsigned long long*>(at), at += 32;
  s.vector = reinterpret_cast<__half*>(at), at += 2 * ROOM;
  s.projection.planes = reinterpret_cast<unsigned*>(at), at += 4 * PLANES * OF_BLOCK;
  s.bytes = reinterpret_cast<signed char*>(at), at += BYTES;
  s.projection.sums = reinterpret_cast<int*>(at), at += 4 * SUMS;
  s.sums = reinterpret_cast<float*>(at), at += 4 * CLUSTER * SLICE;
  s.shares = reinterpret_cast<float*>(at), at += 4 * CLUSTER * SLICE;
  s.scratch = reinterpret_cast<unsigned*>(at), at += 4 * WARPS;
  s.most = reinterpret_cast<unsigned*>(at), at += up_to(BYTES / 8, 16);
  s.step = reinterpret_cast<float*>(at), at += 16;
  s.counters = reinterpret_cast<int*>(at), at += 16;
  s.little = at, at += units * LITTLE;
  float* next = reinterpret_cast<float*>(at);
  s.scale = next, next += units;
  s.offset = next, next += units;
  s.values = next, next += units;
  s.flags = reinterpret_cast<unsigned*>(next), next += CLUSTER * words;
  s.own_flags = reinterpret_cast<unsigned*>(next), next += words;
  s.list = reinterpret_cast<int*>(next);
  return s;
}

// Rounds the vector, projects it together with the cluster, and rounds that to bytes.
DEVICE float project_vector(const Shared& s, const Projection& projection,
                            uint4 (&held)[RUN][2], const unsigned (&largest)[1],
                            float scale) {
  show_largest(s.scratch, largest);
  __syncthreads();
  write_all_planes(projection, s.vector, s.scratch);
  __syncthreads();
  project(projection, held, shared_address(s.barriers));
  round_projection(s.bytes, s.step, projection, {scale}, s.scratch, s.most,
                   shared_address(s.barriers));
  brought(shared_address(s.barriers) + 24);
  __syncthreads();
  return s.step[0];
}

// Lists this block's share of the cluster's units that matter, in order; returns their number.
DEVICE int share_units(const Shared& s, int units, int first) {
  const int lane = threadIdx.x % 32, rank = cluster_rank();
  const int each = over(units, 32), words = CLUSTER * each;
  int total = 0;
  for (int word = lane; word < words; word += 32) total += __popc(s.flags[word]);
  total = warp_sum(total);
  const int begin = total * rank / CLUSTER, end = total * (rank + 1) / CLUSTER;
  for (int word = threadIdx.x / 32; word < words; word += WARPS) {
    int place = 0;
    for (int before = lane; before < word; before += 32) place += __popc(s.flags[before]);
    const unsigned bits = s.flags[word];
    place = warp_sum(place) + __popc(bits & ((1u << lane) - 1)) - begin;
    if ((bits >> lane & 1) && place >= 0 && place < end - begin)
      s.list[place] = first + word / each * units + word % each * 32 + lane;
  }
  return end - begin;
}

extern "C" __global__ void CLUSTERED __launch_bounds__(THREADS, 1) dual_ffn(
    const __half* __restrict__ x, const __half* __restrict__ first_weight,
    const float* __restrict__ first_bias, const __half* __restrict__ second_rows,
    const float* __restrict__ second_bias, const unsigned char* __restrict__ codes,
    const float* __restrict__ code_scale, const float* __restrict__ code_bias,
    const uint4* __restrict__ signs, const float* __restrict__ threshold, float* shares,
    unsigned* came, __half* __restrict__ y, int* __restrict__ computed, int units, float scale) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = cluster_rank();
  const Shared s = divide(memory, units);
  const int first = blockIdx.x * units, own = max(0, min(units, HIDDEN - first));
  const unsigned barrier = shared_address(s.barriers);
  const Vector vector = {{x, nullptr}};
  uint2 got[VECTOR_TURNS];
  unsigned largest[1] = {};
#if OVERLAP
  let_next_start();
  expect_vector(vector);
#else
  begin_vector(got, vector);
#endif
  if (threadIdx.x == BRINGS) {
    for (int i = 0; i < 4; ++i) start_barrier(barrier + 8 * i, 1);
    publish_barriers();
    arrive_expecting(barrier, AWAITED);
    arrive_expecting(barrier + 8, 4 * CLUSTER * over(units, 32));
    arrive_expecting(barrier + 16, 4 * (CLUSTER - 1) * SLICE);
    arrive_expecting(barrier + 24, own * LITTLE);
  }
  __syncwarp();
  arrive_at_cluster();
  if (threadIdx.x < 2) s.counters[threadIdx.x] = 0;
#if DENSE
  const int count = own;
  for (int i = threadIdx.x; i < own; i += THREADS) s.list[i] = first + i;
#else
  Projection projection = s.projection;
  projection.signs = signs;
  if (brings())
    bring(s.little, codes + static_cast<long long>(first) * LITTLE, own * LITTLE, barrier + 24);
  uint4 held[RUN][2];
  begin_signs(held, projection, warp, lane);
  for (int i = threadIdx.x; i < over(units, 32); i += THREADS) s.own_flags[i] = 0;
  projection.clear();
  for (int row = threadIdx.x; row < own; row += THREADS) {
    s.scale[row] = code_scale[first + row];
    s.offset[row] = code_bias[first + row];
  }
#endif
  wait_for_cluster();  // its blocks have begun
#if OVERLAP
  wait_for_previous();
  begin_vector(got, vector);
#endif
#if !DENSE
  const float least = load_fresh(threshold);
#endif
  end_vector(s.vector, got, largest);
#if DENSE
  __syncthreads();
#else
  const float step = project_vector(s, projection, held, largest, scale);

  const auto decide = [&](int row, int whole) {
    const float estimate =
        __fmaf_rn(__fmul_rn(step, static_cast<float>(whole)), s.scale[row], s.offset[row]);
    if (lane == 0 && !(estimate < least)) {
      atomicOr(s.own_flags + row / 32, 1u << row % 32);
      prefetch(first_weight + static_cast<long long>(first + row) * ROOM, 2 * ROOM);
    }
  };
#pragma unroll 1
  for (int row = warp; row < own; row += 2 * WARPS) {
    const int other = row + WARPS < own ? row + WARPS : row;
    int whole[2][1];
    little_products<2>(whole, {s.little + row * LITTLE, s.little + other * LITTLE}, s.bytes, lane);
    decide(row, whole[0][0]);
    if (other != row) decide(other, whole[1][0]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < CLUSTER * over(units, 32); i += THREADS)
    send(shared_address(s.flags + rank * over(units, 32) + i / CLUSTER), barrier + 8, i % CLUSTER,
         s.own_flags[i / CLUSTER]);
  wait_barrier(barrier + 8, 0);
  const int count = share_units(s, units, (static_cast<int>(blockIdx.x) - rank) * units);
  __syncthreads();
#endif

  for (;;) {
    int next = 0;
    if (lane == 0) next = atomicAdd(s.counters, 1);
    next = __shfl_sync(~0u, next, 0);
    if (next >= count) break;
    const int unit = s.list[next];
    const float bias = __ldg(first_bias + unit);
    const float value =
        row_product<ROOM>(first_weight + static_cast<long long>(unit) * ROOM, s.vector, lane);
    if (lane == 0) {
      const float whole = value + bias;
      s.values[next] = whole < 0.0f ? 0.0f : whole;  // NaN stays NaN
    }
  }
  __syncthreads();
  int left = count;
#if DENSE
  if (warp == 0) {
    left = 0;
    for (int base = 0; base < count; base += 32) {
      const int i = base + lane;
      const float value = i < count ? s.values[i] : 0.0f;
      const int unit = i < count ? s.list[i] : 0;
      const unsigned some = __ballot_sync(~0u, i < count && value != 0.0f);
      const int to = left + __popc(some & ((1u << lane) - 1));
      if (some >> lane & 1) s.values[to] = value, s.list[to] = unit;
      left += __popc(some);
      __syncwarp();
    }
    if (lane == 0) s.counters[0] = left;
  }
  __syncthreads();
  left = s.counters[0];
#endif

  float sums[TURNS][8] = {};
  const auto add = [&](float (&to)[8], float value, const uint4& eight) {
    const unsigned words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 both = numbers(words[j]);
      to[2 * j] = __fmaf_rn(value, both.x, to[2 * j]);
      to[2 * j + 1] = __fmaf_rn(value, both.y, to[2 * j + 1]);
    }
  };
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    const int column = (turn * THREADS + threadIdx.x) * 8;
    if (column >= OUTPUTS) continue;
#pragma unroll 8
    for (int i = 0; i < left; ++i)
      add(sums[turn], s.values[i],
          load_once(second_rows + static_cast<long long>(s.list[i]) * OUTPUTS + column));
  }
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    const int column = (turn * THREADS + threadIdx.x) * 8;
    if (column >= OUTPUTS) continue;
    float* const to = column / SLICE == rank ? s.sums + rank * SLICE + column % SLICE
                                               : s.shares + column;
    const float(&eight)[8] = sums[turn];
    *reinterpret_cast<float4*>(to) = make_float4(eight[0], eight[1], eight[2], eight[3]);
    *reinterpret_cast<float4*>(to + 4) = make_float4(eight[4], eight[5], eight[6], eight[7]);
  }
  if (threadIdx.x == 0) computed[blockIdx.x] = left;
  show_to_copies();
  __syncthreads();
  if (threadIdx.x < CLUSTER && threadIdx.x != rank)
    send_block(shared_address(s.sums + rank * SLICE),
               shared_address(s.shares + threadIdx.x * SLICE), 4 * SLICE, barrier + 16,
               threadIdx.x);
  wait_barrier(barrier + 16, 0);
  arrive_at_cluster();  // nothing is copied from this block's memory when all have arrived

  // The slice of this block: from the cluster's blocks, then from all clusters.
  const int begin = rank * SLICE, end = min(OUTPUTS, begin + SLICE);
  const int cluster = blockIdx.x / CLUSTER, clusters = gridDim.x / CLUSTER;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    float sum = 0.0f;
#pragma unroll
    for (int block = 0; block < CLUSTER; ++block) sum += s.sums[block * SLICE + i - begin];
    shares[static_cast<long long>(cluster) * OUTPUTS + i] = sum;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0)
    s.counters[1] = count_up(came + rank, clusters - 1) == clusters - 1;
  __syncthreads();
  wait_for_cluster();
  if (s.counters[1] == 0) return;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    float sum = second_bias[i];
#pragma unroll 16
    for (int other = 0; other < clusters; ++other)
      sum += load_fresh(shares + static_cast<long long>(other) * OUTPUTS + i);
    y[i] = __half(sum);
  }
}
