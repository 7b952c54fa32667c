#include "common.cuh"

// A feed-forward block with ReLU of one vector, in one launch: rows of the first matrix and rows of
// the second's transpose are read where the little module says that the hidden unit matters.
//
// A cluster of blocks computes the projection for itself, each block some tiles of it. A block
// estimates `units` hidden units and tells the cluster which matter; the cluster's blocks then share
// them evenly. Warps compute the hidden values of a block's share; then all threads add each value
// times the second matrix' row, 8 outputs a thread and turn. Each block of a cluster adds up a slice
// of the cluster's outputs, and the last cluster to come adds up all clusters' slices, in order.
// With DENSE all units are computed, and rows of the second matrix are left out whose hidden value
// is zero: what loses nothing.
//
// Compile-time constants beside those of all kernels: DENSE, TURNS of 8 outputs a thread, EARLY rows
// of the second matrix that are on the way before hidden values are known, SOON: whether listed rows
// come into the second-level cache first.

struct Shared {
  __half* vector;         // padded to 64
  signed char* bytes;     // the projection, padded to 32
  unsigned char* little;  // little weights of the block's rows
  Projection projection;
  int* raw;               // the projection before it is rounded
  float* sums;            // [block of the cluster][slice]: what the blocks send of this one's outputs
  float* shares;          // [outputs]: what this block sends of the others'
  float* scale;           // [units]: on the way before it is needed
  float* offset;
  float* values;          // of listed units
  unsigned* scratch;      // [WARPS], for each of two roundings
  unsigned* flags;        // [block of the cluster][words]: which units matter
  unsigned* own_flags;
  int* list;              // units that this block computes
  int* counters;          // units taken, whether this is the last cluster
  unsigned long long* barriers;  // projection, flags, sums
};

struct Sizes {
  int room, chunks, bytes, tiles, little, units, words, slice;
};

DEVICE Shared divide(unsigned char* at, const Sizes& z) {
  Shared s;
  s.barriers = reinterpret_cast<unsigned long long*>(at), at += 32;
  s.vector = reinterpret_cast<__half*>(at), at += 2 * z.room;
  s.projection.planes = reinterpret_cast<unsigned*>(at);
  at += up_to(z.chunks, CLUSTER) / CLUSTER * 256;
  s.bytes = reinterpret_cast<signed char*>(at), at += z.bytes;
  s.little = at, at += z.units * z.little;
  s.projection.chunks[0] = z.chunks, s.projection.chunks[1] = 0;
  s.projection.tiles[0] = z.tiles, s.projection.tiles[1] = 0;
  s.projection.sums = reinterpret_cast<int*>(at), at += 64 * CLUSTER * z.tiles;
  s.raw = reinterpret_cast<int*>(at), at += 64 * z.tiles;
  float* next = reinterpret_cast<float*>(at);
  s.sums = next, next += CLUSTER * z.slice;
  s.shares = next, next += CLUSTER * z.slice;
  s.scale = next, next += z.units;
  s.offset = next, next += z.units;
  s.values = next, next += z.units;
  s.scratch = reinterpret_cast<unsigned*>(next), next += 2 * WARPS;
  s.flags = reinterpret_cast<unsigned*>(next), next += CLUSTER * z.words;
  s.own_flags = reinterpret_cast<unsigned*>(next), next += z.words;
  s.list = reinterpret_cast<int*>(next);
  s.counters = s.list + z.units;
  return s;
}

// Rounds the vector, projects it together with the cluster, and rounds that to bytes.
DEVICE float project_vector(const Shared& s, uint4 (&held)[HELD][2], const Part (&parts)[1],
                            unsigned (&largest)[1], int k, float scale) {
  show_largest(s.scratch, largest);
  __syncthreads();
  const float worth = worth_of(__half2float(__ushort_as_half(shown_largest(s.scratch, 0))));
  write_all_planes(s.projection, s.vector, parts, {worth, worth});
  __syncthreads();
  wait_for_cluster();
  project(s.projection, held, shared_address(s.barriers));
  unsigned most[1] = {};
  for (int i = threadIdx.x; i < k; i += THREADS) {
    s.raw[i] = s.projection.of(i);  // read again by the same thread
    most[0] = max(most[0], static_cast<unsigned>(abs(s.raw[i])));
  }
  show_largest(s.scratch + WARPS, most);
  __syncthreads();
  const float unit = __fmul_rn(worth, scale);
  const int whole = static_cast<int>(shown_largest(s.scratch + WARPS, 0));
  const float step = worth_of(__fmul_rn(static_cast<float>(whole), unit));
  for (int i = threadIdx.x; i < k; i += THREADS) {
    const float value = __fmul_rn(static_cast<float>(s.raw[i]), unit);
    s.bytes[i] = static_cast<signed char>(to_byte(value, step));
  }
  wait_copies<0>();
  __syncthreads();
  return step;
}

// Lists this block's share of the cluster's units that matter, in order; returns their number.
DEVICE int share_units(const Shared& s, const Sizes& z, int first) {
  const int lane = threadIdx.x % 32, words = CLUSTER * z.words, rank = cluster_rank();
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
      s.list[place] = first + word / z.words * z.units + word % z.words * 32 + lane;
  }
  return end - begin;
}

extern "C" __global__ void CLUSTERED __launch_bounds__(THREADS, 1) dual_ffn(
    const __half* __restrict__ x, const __half* __restrict__ first_weight,
    const float* __restrict__ first_bias, const __half* __restrict__ second_rows,
    const float* __restrict__ second_bias, const unsigned char* __restrict__ codes,
    const float* __restrict__ code_scale, const float* __restrict__ code_bias,
    const unsigned char* __restrict__ signs, const float* __restrict__ threshold, float* shares,
    unsigned* came, __half* __restrict__ y, int* __restrict__ computed, int inputs, int hidden,
    int outputs, int units, int k, float scale) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = cluster_rank();
  Sizes z;
  z.room = up_to(inputs, 64), z.chunks = up_to(inputs, 256) / 256, z.bytes = up_to(k, 32);
  z.tiles = up_to(k, 16) / 16, z.little = z.bytes * BITS / 8, z.units = units;
  z.words = up_to(units, 32) / 32, z.slice = up_to(outputs, 8 * CLUSTER) / CLUSTER;
  Shared s = divide(memory, z);
  const int first = blockIdx.x * units, own = max(0, min(units, hidden - first));
  const unsigned barrier = shared_address(s.barriers);
  const Part parts[1] = {{x, inputs, z.room}};
  uint2 got[TURNS_AHEAD];
  begin_vector(got, parts, threadIdx.x);
  unsigned largest[1] = {};
  if (threadIdx.x == 0) {
    for (int i = 0; i < 3; ++i) start_barrier(barrier + 8 * i, 1);
    publish_barriers();
    arrive_expecting(barrier, s.projection.awaited());
    arrive_expecting(barrier + 8, 4 * CLUSTER * z.words);
    arrive_expecting(barrier + 16, 4 * (CLUSTER - 1) * z.slice);
  }
  __syncwarp();
  arrive_at_cluster();
#if DENSE
  const int count = own;
  for (int i = threadIdx.x; i < own; i += THREADS) s.list[i] = first + i;
  if (threadIdx.x < 2) s.counters[threadIdx.x] = 0;
  end_vector(s.vector, got, parts, largest);
  __syncthreads();
  wait_for_cluster();
#else
  uint4 held[HELD][2];
  s.projection.signs[0] = reinterpret_cast<const uint4*>(signs);
  load_signs(held, s.projection, warp, lane);
  const bool some = threadIdx.x < own;
  const float its_scale = some ? code_scale[first + threadIdx.x] : 0.0f;
  const float its_offset = some ? code_bias[first + threadIdx.x] : 0.0f;
  fetch(s.little, codes + static_cast<long long>(first) * z.little, own * z.little);
  commit_copies();
  for (int i = threadIdx.x; i < z.bytes; i += THREADS) s.bytes[i] = 0;
  for (int i = threadIdx.x; i < z.words; i += THREADS) s.own_flags[i] = 0;
  if (threadIdx.x < 2) s.counters[threadIdx.x] = 0;
  s.projection.clear();
  end_vector(s.vector, got, parts, largest);
  if (some) s.scale[threadIdx.x] = its_scale, s.offset[threadIdx.x] = its_offset;
  for (int row = threadIdx.x + THREADS; row < own; row += THREADS) {
    s.scale[row] = code_scale[first + row];
    s.offset[row] = code_bias[first + row];
  }
  const float least = *threshold;
  const float step = project_vector(s, held, parts, largest, k, scale);

  const auto decide = [&](int row, int whole) {
    const float estimate =
        __fmaf_rn(__fmul_rn(step, static_cast<float>(whole)), s.scale[row], s.offset[row]);
    if (lane == 0 && !(estimate < least)) {
      atomicOr(s.own_flags + row / 32, 1u << row % 32);
#if SOON
      const long long place = first + row;
      prefetch(first_weight + place * z.room, 2 * z.room);
      if (SOON == 2) prefetch(second_rows + place * outputs, 2 * outputs);
#endif
    }
  };
#pragma unroll 2
  for (int row = warp; row < own; row += 2 * WARPS) {
    const int other = row + WARPS < own ? row + WARPS : row;
    int whole[2], none[2];
    little_products(whole, none, s.little + row * z.little, s.little + other * z.little, s.bytes,
                    z.bytes, z.bytes, lane);
    decide(row, whole[0]);
    if (other != row) decide(other, whole[1]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < CLUSTER * z.words; i += THREADS)
    send(shared_address(s.flags + rank * z.words + i / CLUSTER), barrier + 8, i % CLUSTER,
         s.own_flags[i / CLUSTER]);
  wait_barrier(barrier + 8, 0);
  const int count = share_units(s, z, (static_cast<int>(blockIdx.x) - rank) * units);
  __syncthreads();
#endif

  uint4 early[EARLY > 0 ? EARLY : 1];
#if EARLY > 0
#pragma unroll
  for (int i = 0; i < EARLY; ++i)
    if (i < count && threadIdx.x * 8 < outputs)
      early[i] = load_once(second_rows + static_cast<long long>(s.list[i]) * outputs +
                           threadIdx.x * 8);
#endif
  for (;;) {
    int next = 0;
    if (lane == 0) next = atomicAdd(s.counters, 1);
    next = __shfl_sync(~0u, next, 0);
    if (next >= count) break;
    const int unit = s.list[next];
    const float bias = __ldg(first_bias + unit);
    const float value =
        row_product(first_weight + static_cast<long long>(unit) * z.room, s.vector, z.room, lane);
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
  for (int i = 0; i < EARLY; ++i)
    if (i < left && threadIdx.x * 8 < outputs) add(sums[0], s.values[i], early[i]);
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    const int column = (turn * THREADS + threadIdx.x) * 8;
    if (column >= outputs) continue;
#pragma unroll 8
    for (int i = turn == 0 ? EARLY : 0; i < left; ++i)
      add(sums[turn], s.values[i],
          load_once(second_rows + static_cast<long long>(s.list[i]) * outputs + column));
  }
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    const int column = (turn * THREADS + threadIdx.x) * 8;
    if (column >= outputs) continue;
    float* const to = column / z.slice == rank ? s.sums + rank * z.slice + column % z.slice
                                               : s.shares + column;
    const float(&eight)[8] = sums[turn];
    *reinterpret_cast<float4*>(to) = make_float4(eight[0], eight[1], eight[2], eight[3]);
    *reinterpret_cast<float4*>(to + 4) = make_float4(eight[4], eight[5], eight[6], eight[7]);
  }
  if (threadIdx.x == 0) computed[blockIdx.x] = left;
  show_to_copies();
  __syncthreads();
  if (threadIdx.x < CLUSTER && threadIdx.x != rank)
    send_block(shared_address(s.sums + rank * z.slice),
               shared_address(s.shares + threadIdx.x * z.slice), 4 * z.slice, barrier + 16,
               threadIdx.x);
  wait_barrier(barrier + 16, 0);
  arrive_at_cluster();  // nothing is copied from this block's memory when all have arrived

  // The slice of this block: from the cluster's blocks, then from all clusters.
  const int begin = rank * z.slice, end = min(outputs, begin + z.slice);
  const int cluster = blockIdx.x / CLUSTER, clusters = gridDim.x / CLUSTER;
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    float sum = 0.0f;
#pragma unroll
    for (int block = 0; block < CLUSTER; ++block) sum += s.sums[block * z.slice + i - begin];
    shares[static_cast<long long>(cluster) * outputs + i] = sum;
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
      sum += load_shared_by_blocks(shares + static_cast<long long>(other) * outputs + i);
    y[i] = __half(sum);
  }
}
