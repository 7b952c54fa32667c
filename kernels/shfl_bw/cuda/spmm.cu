#include "activation.cuh"

// Product of packed weights with feature-major input, y[row][n] = sum w[row][k] x[k][n], or the
// convolution of (c, h, w, b) images as the same product. For Hopper.
//
// A block multiplies the panel of one group (V rows, its kept columns) with the rows of x that the
// panel keeps, TOKENS columns at a time. Four warps gather those rows to a ring of tiles with
// 16-byte copies, in the order in which tensor cores read them; the panel's tile, packed as such
// beforehand, comes by one bulk copy, shared by the blocks of a cluster. One or two warpgroups multiply: below each other for V = 128,
// else side by side, or in two teams that take output tiles in turn: one multiplies while the other
// writes.
//
// Barriers of a slot of the ring: `full` counts the 128 gathering threads and the bulk copy,
// `empty` the multiplying warps of all blocks of the cluster.

constexpr int DEPTH = 64;                       // kept columns of a tile
constexpr int STRIPS = V / 64;                 // of 64 rows
constexpr int TEAM = STRIPS * SIDE;             // warpgroups that multiply together
constexpr int CONSUMERS = TEAM * TEAMS;
constexpr int TOKENS = WIDTH * SIDE;            // columns of an output tile
constexpr int THREADS = 128 * (1 + CONSUMERS);
constexpr int PANEL_BYTES = STRIPS * 64 * DEPTH * 2;
constexpr int GATHERED_BYTES = DEPTH * TOKENS * 2;
constexpr int SLOT_BYTES = PANEL_BYTES + GATHERED_BYTES;
constexpr int ATOM_BYTES = DEPTH * 128;         // 64 columns of a gathered tile

static_assert(V == 64 || V == 128, "rows of a group");
static_assert(CONSUMERS <= 2 && STAGES >= 2, "one or two warpgroups, a ring");

struct Tensors {
  const Element* x;
  const Element* panels;       // tiles of STRIPS * 64 x DEPTH, swizzled, of all groups
  const int* columns;          // DEPTH a tile, -1 behind the last
  const int* shifts;           // of a convolution: vertical << 16 | horizontal shift of each tap
  const int* tiles;            // where each group's tiles begin
  const int* order;            // groups, longest first
  const int4* items;           // dealt to clusters, see Item; or null
  const int* rows;             // packed place to row, -1 for none
  const float* bias;
  Element* y;
  float* partial;              // sums of each split, where K is split
};

struct Sizes {
  int groups, tokens, tiles, splits, items;
  int x_pitch, y_pitch;
};

struct Image {
  int batch, height, width, out_width, stride_down, stride_across, pad_top, pad_left;
};

// One output tile's share of kept columns, of `dealt`: the group, from bit 20 on the split; first token
// of the cluster; the first tile and the one behind the last.
struct Item {
  int group, split, first_token, tile, end;

  DEVICE Item(const int4& dealt, int rank)
      : group(dealt.x & 0xFFFFF), split(dealt.x >> 20), first_token(dealt.y + rank * TOKENS),
        tile(dealt.z), end(dealt.w) {}
};

// The items of a cluster one after the other; the next is read ahead.
struct Walk {
  int at, step;
  int4 next;

  DEVICE Walk(const Tensors& t, const Sizes& sizes)
      : at(blockIdx.x / CLUSTER), step(gridDim.x / CLUSTER) {
    next = read(t, sizes);
  }
  DEVICE bool over() const { return next.x < 0; }
  DEVICE Item take(int rank, const Tensors& t, const Sizes& sizes) {
    const Item item(next, rank);
    at += step;
    next = read(t, sizes);
    return item;
  }
  // Where nothing was dealt: the longest groups of a few tokens first, then the next tokens.
  DEVICE int4 read(const Tensors& t, const Sizes& sizes) const {
    if (at >= sizes.items) return make_int4(-1, 0, 0, 0);
    if (t.items != nullptr) return t.items[at];
    const int each = sizes.groups * sizes.splits, share = at % each, split = share % sizes.splits;
    const int group = t.order[share / sizes.splits], begin = t.tiles[group];
    const int count = t.tiles[group + 1] - begin;
    return make_int4(group | split << 20, at / each * CLUSTER * TOKENS,
                     begin + count * split / sizes.splits,
                     begin + count * (split + 1) / sizes.splits);
  }
};

// A place in the ring, and how often it went round.
struct Slot {
  int index = 0;
  unsigned phase = 0;

  DEVICE void move() {
    if (++index == STAGES) index = 0, phase ^= 1;
  }
  DEVICE void skip(int count) {
    index += count;
    phase ^= index / STAGES & 1;
    index %= STAGES;
  }
};

struct Ring {
  unsigned memory, full, empty;

  DEVICE explicit Ring(unsigned base) : memory(base) {
    full = base + STAGES * SLOT_BYTES;
    empty = full + STAGES * 8;
  }
  DEVICE unsigned panel(int slot) const { return memory + slot * SLOT_BYTES; }
  DEVICE unsigned gathered(int slot) const { return panel(slot) + PANEL_BYTES; }
};

// A unit is 8 neighbouring columns of x, 16 bytes. A warp's copy takes 32 of them: units of one row,
// or of as many rows as fit.
constexpr int UNITS = TOKENS / 8;
constexpr int COPIES = UNITS > 32 ? UNITS / 32 : 1;     // of a warp for a row
constexpr int ROWS = UNITS < 32 ? 32 / UNITS : 1;       // of one copy
constexpr int TURNS = DEPTH / (4 * ROWS);               // of the four warps for a tile

// Where a lane's units come from.
struct Source {
  const char* base[COPIES];
  bool inside[COPIES];
#ifdef CONV
  int top[COPIES], left[COPIES];
#endif

  DEVICE Source(const Item& item, int lane, const Tensors& t, const Sizes& sizes,
                const Image& image) {
#pragma unroll
    for (int i = 0; i < COPIES; ++i) {
      const int token = item.first_token + (i * 32 + lane % (32 / ROWS)) * 8;
      inside[i] = token < sizes.tokens;
#ifdef CONV
      const int pixel = token / image.batch, row = pixel / image.out_width;
      top[i] = row * image.stride_down - image.pad_top;
      left[i] = (pixel - row * image.out_width) * image.stride_across - image.pad_left;
      base[i] = reinterpret_cast<const char*>(
          t.x + static_cast<long long>(top[i] * image.width + left[i]) * image.batch +
          (token - pixel * image.batch));
#else
      base[i] = reinterpret_cast<const char*>(t.x + (inside[i] ? token : 0));
#endif
    }
  }
};

// The kept columns of a tile, two a lane; read before there is room for what they name.
struct Columns {
  int tile = -1, low, high;
#ifdef CONV
  int low_shift, high_shift;
#endif

  DEVICE void read(int wanted, int lane, const Tensors& t) {
    if (wanted == tile) return;
    tile = wanted;
    const long long first = static_cast<long long>(tile) * DEPTH + lane;
    low = t.columns[first], high = t.columns[first + 32];
#ifdef CONV
    low_shift = t.shifts[first], high_shift = t.shifts[first + 32];
#endif
  }
};

// Row r of a gathered tile is 128 bytes of each atom, its 16-byte units permuted by r % 8.
// FULL says that all its columns exist.
template <bool FULL>
DEVICE void gather_tile(unsigned to, const Columns& columns, const Source& source, int warp,
                        int lane, const Tensors& t, const Sizes& sizes, const Image& image) {
#ifdef CONV
  const unsigned pitch = image.batch * 2;
#else
  const unsigned pitch = sizes.x_pitch * 2;
#endif
  const int unit = lane % (32 / ROWS), first = ROWS * warp + lane / (32 / ROWS);
  const unsigned target =
      (to + unit / 8 * ATOM_BYTES + unit % 8 * 16 ^ first % 8 << 4) + first * 128;
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    constexpr int step = 4 * ROWS;  // rows of a turn
    const bool upper = step * turn >= 32;
    const int column = __shfl_sync(~0u, upper ? columns.high : columns.low, step * turn % 32 + first);
    const unsigned offset = max(column, 0);
#ifdef CONV
    const int shift = __shfl_sync(~0u, upper ? columns.high_shift : columns.low_shift,
                                  step * turn % 32 + first);
#endif
    const unsigned place = (target ^ step * turn % 8 << 4) + step * turn * 128;
#pragma unroll
    for (int i = 0; i < COPIES; ++i) {
      const char* from = source.base[i] + static_cast<unsigned long long>(offset) * pitch;
      bool valid = column >= 0;
#ifdef CONV
      const unsigned row = source.top[i] + (shift >> 16), across = source.left[i] + (shift & 0xFFFF);
      valid = valid && row < static_cast<unsigned>(image.height) &&
              across < static_cast<unsigned>(image.width);
      from = valid ? from : reinterpret_cast<const char*>(t.x);
#endif
      if (FULL || source.inside[i]) copy_async<16>(place + i * 4 * ATOM_BYTES, from, valid);
    }
  }
}

DEVICE void fetch_panel(const Ring& ring, int slot, int tile, int rank, const Tensors& t) {
  const unsigned full = ring.full + slot * 8;
  arrive_expecting(full, PANEL_BYTES);
  constexpr unsigned share = PANEL_BYTES / CLUSTER;
  const unsigned char* from = reinterpret_cast<const unsigned char*>(t.panels) +
                              static_cast<long long>(tile) * PANEL_BYTES + rank * share;
  const unsigned to = ring.panel(slot) + rank * share;
  if constexpr (CLUSTER == 1)
    copy_block(to, from, share, full);
  else
    copy_block_to(to, from, share, full, (1 << CLUSTER) - 1);
}

// The phase before the first counts as over: the ring starts empty.
DEVICE void wait_for_room(const Ring& ring, const Slot& slot) {
  wait_barrier(ring.empty + slot.index * 8, slot.phase ^ 1);
}

// The barrier itself sees the copies land; those who multiply fence.
DEVICE void produce(const Ring& ring, int rank, const Tensors& t, const Sizes& sizes,
                    const Image& image) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  Slot slot;
  Columns columns, ahead;
  for (Walk walk(t, sizes); !walk.over();) {
    const Item item = walk.take(rank, t, sizes);
    const Source source(item, lane, t, sizes, image);
    const bool full = item.first_token + TOKENS <= sizes.tokens;
    for (int tile = item.tile; tile < item.end; ++tile) {
      ahead.read(tile, lane, t);
      columns = ahead;
      const int after = tile + 1 < item.end ? tile + 1 : walk.over() ? tile : walk.next.z;
      if (after < sizes.tiles) ahead.read(after, lane, t);
      wait_for_room(ring, slot);
      if (thread == 0) fetch_panel(ring, slot.index, tile, rank, t);
      const unsigned to = ring.gathered(slot.index);
      if (full)
        gather_tile<true>(to, columns, source, warp, lane, t, sizes, image);
      else
        gather_tile<false>(to, columns, source, warp, lane, t, sizes, image);
      arrive_when_copied(ring.full + slot.index * 8);
      slot.move();
    }
  }
  commit_copies();
  wait_copies<0>();
}

// Lanes of a quad hold neighbouring pairs of columns of four units of 8; afterwards each holds the
// four pairs of one unit.
DEVICE void exchange_in_quads(unsigned (&words)[4], int lane) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool odd = lane & bit;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int low = bit == 1 ? 2 * i : i, high = low + bit;
      const unsigned sent = odd ? words[low] : words[high];
      const unsigned got = __shfl_xor_sync(~0u, sent, bit);
      (odd ? words[low] : words[high]) = got;
    }
  }
}

// Where a thread's sums go: acc[4 j + 2 h + e] is row h * 8 and column 8 j + e of its own first.
struct Target {
  int packed[2], row[2];
  float bias[2];

  DEVICE Target(const Item& item, int strip, int warp, int lane, const Tensors& t) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      packed[h] = item.group * V + strip * 64 + warp * 16 + h * 8 + lane / 4;
#ifndef SPLIT
      row[h] = t.rows[packed[h]];
      bias[h] = t.bias != nullptr && row[h] >= 0 ? t.bias[row[h]] : 0.0f;
#endif
    }
  }
};

DEVICE void write_tile(float (&acc)[WIDTH / 2], const Item& item, const Target& target,
                       int first_token, int lane, const Tensors& t, const Sizes& sizes) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#ifdef SPLIT
    const long long packed =
        static_cast<long long>(item.split) * sizes.groups * V + target.packed[h];
    float* to = t.partial + packed * sizes.y_pitch;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; ++j) {
      const int token = first_token + 8 * j + 2 * (lane % 4);
      if (token < sizes.tokens)
        *reinterpret_cast<float2*>(to + token) =
            make_float2(acc[4 * j + 2 * h], acc[4 * j + 2 * h + 1]);
    }
#else
    const int row = target.row[h];
    const float bias = target.bias[h];
    Element* to = t.y + static_cast<long long>(row < 0 ? 0 : row) * sizes.y_pitch;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j += 4) {
      unsigned words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        words[i] = pack(activate<ACTIVATION>(acc[4 * (j + i) + 2 * h] + bias),
                        activate<ACTIVATION>(acc[4 * (j + i) + 2 * h + 1] + bias));
      exchange_in_quads(words, lane);
      const int token = first_token + 8 * (j + lane % 4);
      if (row >= 0 && token < sizes.tokens)
        *reinterpret_cast<uint4*>(to + token) = make_uint4(words[0], words[1], words[2], words[3]);
    }
#endif
  }
}

DEVICE void release(const Ring& ring, int slot, int lane) {
  if constexpr (CLUSTER == 1) {
    if (lane == 0) arrive(ring.empty + slot * 8);
  } else {
    if (lane < CLUSTER) arrive_at(ring.empty + slot * 8, lane);
  }
}

// Teams multiply in turn: whose turn it is waits for the other to have begun its last tile.
DEVICE void wait_for_turn(int team) {
  if (team == 0)
    wait_for_group<2, 256 * TEAM>();
  else
    wait_for_group<3, 256 * TEAM>();
}

DEVICE void tell_team(int team) {
  if (team == 0)
    tell_group<2, 256 * TEAM>();
  else
    tell_group<3, 256 * TEAM>();
}

DEVICE void consume(const Ring& ring, int rank, const Tensors& t, const Sizes& sizes) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const int consumer = threadIdx.x / 128 - 1, team = consumer / TEAM;
  const int strip = consumer % TEAM / SIDE, side = consumer % SIDE;
  const unsigned panel_offset = strip * (64 * DEPTH * 2);
  const unsigned side_offset = side * (WIDTH / 64) * ATOM_BYTES;
  Slot slot;
  int turn = 0;
  Walk walk(t, sizes);
  if (TEAMS > 1 && team == 1 && !walk.over()) tell_team(0);
  for (; !walk.over(); turn ^= TEAMS - 1) {
    const Item item = walk.take(rank, t, sizes);
    if (turn != team) {
      slot.skip(item.end - item.tile);
      continue;
    }
    if (TEAMS > 1) wait_for_turn(team);
    const int first_token = item.first_token + side * WIDTH;
    const Target target(item, strip, warp, lane, t);
    float acc[WIDTH / 2];
#pragma unroll
    for (int i = 0; i < WIDTH / 2; ++i) acc[i] = 0.0f;
    int before = -1, tile = item.tile;
    if (first_token >= sizes.tokens) {  // nothing of it exists
      for (; tile < item.end; ++tile) {
        wait_barrier(ring.full + slot.index * 8, slot.phase);
        release(ring, slot.index, lane);
        slot.move();
      }
    }
#pragma unroll 1
    for (; tile < item.end; ++tile) {
      wait_barrier(ring.full + slot.index * 8, slot.phase);
      show_to_tensor_cores();
      const unsigned long long left = matrix_tile(ring.panel(slot.index) + panel_offset);
      const unsigned long long right =
          matrix_tile_across(ring.gathered(slot.index) + side_offset, ATOM_BYTES);
      begin_products();
#pragma unroll
      for (int k = 0; k < DEPTH / 16; ++k)
        warpgroup_product_across(acc, left + k * (32 >> 4), right + k * (16 * 128 >> 4));
      commit_products();
      wait_products<1>();  // those of the tile before are done
      if (before >= 0) release(ring, before, lane);
      before = slot.index;
      slot.move();
    }
    // Not earlier: a team that waited for a slot that the other's tiles have yet to fill would take
    // their barrier's phase for its own.
    if (TEAMS > 1 && !walk.over()) tell_team(team ^ 1);
    wait_products<0>();
    if (before >= 0) release(ring, before, lane);
    write_tile(acc, item, target, first_token, lane, t, sizes);
  }
}

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, BLOCKS_PER_SM)
    shfl_bw_spmm(const Element* x, const Element* panels, const int* columns, const int* shifts,
                 const int* tiles, const int* order, const int4* items, const int* rows,
                 const float* bias, Element* y, float* partial, int groups, int tokens,
                 int all_tiles, int splits, int item_count, int x_pitch, int y_pitch, int batch,
                 int height, int width, int out_width, int stride_down, int stride_across,
                 int pad_top, int pad_left) {
  const Tensors t{x, panels, columns, shifts, tiles, order, items, rows, bias, y, partial};
  const Sizes sizes{groups, tokens, all_tiles, splits, item_count, x_pitch, y_pitch};
  const Image image{batch, height, width, out_width, stride_down, stride_across, pad_top, pad_left};
  const Ring ring(shared_address(dynamic_shared()));
  const int rank = CLUSTER > 1 ? cluster_rank() : 0;
  let_next_start();
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < STAGES; ++slot) {
      start_barrier(ring.full + slot * 8, 128 + 1);
      start_barrier(ring.empty + slot * 8, 4 * TEAM * CLUSTER);
    }
    publish_barriers();
  }
  if constexpr (CLUSTER > 1)
    meet_cluster();
  else
    __syncthreads();
  wait_for_previous();
  if (threadIdx.x < 128) {
    give_registers<PRODUCER_REGISTERS>();
    produce(ring, rank, t, sizes, image);
  } else {
    take_registers<CONSUMER_REGISTERS>();
    consume(ring, rank, t, sizes);
  }
  if constexpr (CLUSTER > 1) meet_cluster();  // no block leaves while others write to it
}
