#include "activation.cuh"
#include "hopper.cuh"

// Product of packed weights with feature-major input, y[row][n] = sum w[row][k] x[k][n], or the
// convolution of (c, h, w, b) images as the same product. For Hopper.
//
// A block multiplies the panel of one group (V rows, its kept columns) with the rows of x that the
// panel keeps, TOKENS columns at a time. Four warps gather those rows to a ring of tiles with
// 16-byte copies, in the order in which tensor cores read them; the panel's tile, packed as such
// beforehand, comes by one bulk copy, shared by the blocks of a cluster. One or two warpgroups
// multiply: below each other for V = 128, else side by side.
//
// Barriers of a slot of the ring: `full` counts the 128 gathering threads and the bulk copy,
// `empty` the multiplying warps of all blocks of the cluster.

constexpr int DEPTH = 64;                       // kept columns of a tile
constexpr int STRIPS = V > 64 ? V / 64 : 1;     // of 64 rows
constexpr int CONSUMERS = STRIPS * SIDE;        // warpgroups that multiply
constexpr int TOKENS = WIDTH * SIDE;            // columns of an output tile
constexpr int THREADS = 128 * (1 + CONSUMERS);
constexpr int PANEL_BYTES = STRIPS * 64 * DEPTH * 2;
constexpr int GATHERED_BYTES = DEPTH * TOKENS * 2;
constexpr int SLOT_BYTES = PANEL_BYTES + GATHERED_BYTES;
#ifndef COUNTED
constexpr int LAG = STAGES > 3 ? STAGES - 2 : 1;  // copies of so many tiles are under way
#endif
constexpr int ATOM_BYTES = DEPTH * 128;         // 64 columns of a gathered tile

static_assert(V == 16 || V == 32 || V == 64 || V == 128, "rows of a group");
static_assert(CONSUMERS <= 2 && STAGES >= 2, "one or two warpgroups, a ring");

struct Tensors {
  const Element* x;
  const Element* panels;       // tiles of STRIPS * 64 x DEPTH, swizzled, of all groups
  const int* columns;          // DEPTH a tile, -1 behind the last
  const int* shifts;           // of a convolution: vertical << 16 | horizontal shift of each tap
  const int* tiles;            // where each group's tiles begin
  const int* order;            // groups, longest first
  const int* rows;             // packed place to row, -1 for none
  const float* bias;
  Element* y;
  float* partial;              // sums of each split, where K is split
};

struct Sizes {
  int groups, tokens, token_tiles, splits, tokens_first;
  int x_pitch, y_pitch;
};

struct Image {
  int batch, height, width, out_width, stride_down, stride_across, pad_top, pad_left;
};

// One output tile's share of kept columns.
struct Item {
  int group, first_token, split, tile, end;

  DEVICE Item(int number, unsigned rank, const Tensors& t, const Sizes& sizes) {
    const int supers = (sizes.token_tiles + CLUSTER - 1) / CLUSTER;
    const int shares = sizes.groups * sizes.splits;
    const int super = sizes.tokens_first ? number / shares : number % supers;
    const int share = sizes.tokens_first ? number % shares : number / supers;
    first_token = (super * CLUSTER + static_cast<int>(rank)) * TOKENS;
    split = share % sizes.splits;
    group = t.order[share / sizes.splits];
    const int begin = t.tiles[group], count = t.tiles[group + 1] - begin;
    tile = begin + count * split / sizes.splits;
    end = begin + count * (split + 1) / sizes.splits;
  }
};

DEVICE int item_count(const Sizes& sizes) {
  return (sizes.token_tiles + CLUSTER - 1) / CLUSTER * sizes.groups * sizes.splits;
}

// A place in the ring, and how often it went round.
struct Slot {
  int index = 0;
  unsigned phase = 0;

  DEVICE void move() {
    if (++index == STAGES) index = 0, phase ^= 1;
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

// Row r of a gathered tile is 128 bytes of each atom, its 16-byte units permuted by r % 8.
DEVICE void gather_tile(unsigned to, int tile, const Source& source, int warp, int lane,
                        const Tensors& t, const Sizes& sizes, const Image& image) {
  const int* columns = t.columns + static_cast<long long>(tile) * DEPTH;
  const int low = columns[lane], high = columns[lane + 32];
#ifdef CONV
  const int* shifts = t.shifts + static_cast<long long>(tile) * DEPTH;
  const int low_shift = shifts[lane], high_shift = shifts[lane + 32];
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
    const int column = __shfl_sync(~0u, upper ? high : low, step * turn % 32 + first);
    const unsigned offset = max(column, 0);
#ifdef CONV
    const int shift = __shfl_sync(~0u, upper ? high_shift : low_shift, step * turn % 32 + first);
#endif
    const unsigned place = (target ^ step * turn % 8 << 4) + step * turn * 128;
#pragma unroll
    for (int i = 0; i < COPIES; ++i) {
      const char* from = source.base[i] + static_cast<unsigned long long>(offset) * pitch;
      bool valid = source.inside[i] && column >= 0;
#ifdef CONV
      const unsigned row = source.top[i] + (shift >> 16), across = source.left[i] + (shift & 0xFFFF);
      valid = valid && row < static_cast<unsigned>(image.height) &&
              across < static_cast<unsigned>(image.width);
      from = valid ? from : reinterpret_cast<const char*>(t.x);
#endif
      copy_async(place + i * 4 * ATOM_BYTES, from, valid);
    }
  }
}

DEVICE void fetch_panel(const Ring& ring, int slot, int tile, unsigned rank, const Tensors& t) {
  const unsigned full = ring.full + slot * 8;
  barrier_arrive_expecting(full, PANEL_BYTES);
  constexpr unsigned share = PANEL_BYTES / CLUSTER;
  const unsigned char* from = reinterpret_cast<const unsigned char*>(t.panels) +
                              static_cast<long long>(tile) * PANEL_BYTES + rank * share;
  const unsigned to = ring.panel(slot) + rank * share;
  if constexpr (CLUSTER == 1)
    copy_bulk(to, from, share, full);
  else
    copy_bulk_multicast(to, from, share, full, (1 << CLUSTER) - 1);
}

// The phase before the first counts as over: the ring starts empty.
DEVICE void wait_for_room(const Ring& ring, const Slot& slot) {
  barrier_wait(ring.empty + slot.index * 8, slot.phase ^ 1);
}

#ifdef COUNTED
// The barrier itself sees the copies land; those who multiply fence.
DEVICE void produce(const Ring& ring, unsigned rank, int first, int step, const Tensors& t,
                    const Sizes& sizes, const Image& image) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  Slot slot;
  for (int number = first; number < item_count(sizes); number += step) {
    const Item item(number, rank, t, sizes);
    const Source source(item, lane, t, sizes, image);
    for (int tile = item.tile; tile < item.end; ++tile) {
      wait_for_room(ring, slot);
      if (thread == 0) fetch_panel(ring, slot.index, tile, rank, t);
      gather_tile(ring.gathered(slot.index), tile, source, warp, lane, t, sizes, image);
      arrive_after_copies(ring.full + slot.index * 8);
      slot.move();
    }
  }
  commit_copies();
  wait_copies<0>();
}
#else
DEVICE void produce(const Ring& ring, unsigned rank, int first, int step, const Tensors& t,
                    const Sizes& sizes, const Image& image) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  Slot slot, landed;
  int pending = 0;
  for (int number = first; number < item_count(sizes); number += step) {
    const Item item(number, rank, t, sizes);
    const Source source(item, lane, t, sizes, image);
    for (int tile = item.tile; tile < item.end; ++tile) {
      wait_for_room(ring, slot);
      if (thread == 0) fetch_panel(ring, slot.index, tile, rank, t);
      gather_tile(ring.gathered(slot.index), tile, source, warp, lane, t, sizes, image);
      commit_copies();
      slot.move();
      if (pending == LAG) {
        wait_copies<LAG>();
        fence_for_tensor_cores();
        barrier_arrive(ring.full + landed.index * 8);
        landed.move();
      } else {
        ++pending;
      }
    }
  }
  wait_copies<0>();
  fence_for_tensor_cores();
  for (; pending > 0; --pending) {
    barrier_arrive(ring.full + landed.index * 8);
    landed.move();
  }
}
#endif

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

// Writes a thread's sums: acc[4 j + 2 h + e] is row h * 8 and column 8 j + e of its own first.
DEVICE void write_tile(float (&acc)[WIDTH / 2], const Item& item, int strip, int first_token,
                       int warp, int lane, const Tensors& t, const Sizes& sizes) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int place = strip * 64 + warp * 16 + h * 8 + lane / 4;
    const bool real = V >= 64 || place < V;
    const int packed = item.group * V + (real ? place : 0);
#ifdef SPLIT
    float* to = t.partial +
                (static_cast<long long>(item.split) * sizes.groups * V + packed) * sizes.y_pitch;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; ++j) {
      const int token = first_token + 8 * j + 2 * (lane % 4);
      if (real && token < sizes.tokens)
        *reinterpret_cast<float2*>(to + token) =
            make_float2(acc[4 * j + 2 * h], acc[4 * j + 2 * h + 1]);
    }
#else
    const int row = real ? t.rows[packed] : -1;
    const float bias = t.bias != nullptr && row >= 0 ? t.bias[row] : 0.0f;
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
    if (lane == 0) barrier_arrive(ring.empty + slot * 8);
  } else {
    if (lane < CLUSTER) barrier_arrive_remote(ring.empty + slot * 8, lane);
  }
}

DEVICE void consume(const Ring& ring, unsigned rank, int first, int step, const Tensors& t,
                    const Sizes& sizes) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const int consumer = threadIdx.x / 128 - 1;
  const int strip = consumer / SIDE, side = consumer % SIDE;
  const unsigned panel_offset = strip * (64 * DEPTH * 2);
  const unsigned side_offset = side * (WIDTH / 64) * ATOM_BYTES;
  Slot slot;
  for (int number = first; number < item_count(sizes); number += step) {
    const Item item(number, rank, t, sizes);
    float acc[WIDTH / 2];
#pragma unroll
    for (int i = 0; i < WIDTH / 2; ++i) acc[i] = 0.0f;
    int before = -1;
#pragma unroll 1
    for (int tile = item.tile; tile < item.end; ++tile) {
      barrier_wait(ring.full + slot.index * 8, slot.phase);
#ifdef COUNTED
      fence_for_tensor_cores();
#endif
      const unsigned long long left = describe(ring.panel(slot.index) + panel_offset, 16, 1024);
      const unsigned long long right =
          describe(ring.gathered(slot.index) + side_offset, ATOM_BYTES, 1024);
      products_begin();
#pragma unroll
      for (int k = 0; k < DEPTH / 16; ++k)
        multiply(acc, left + k * (32 >> 4), right + k * (16 * 128 >> 4));
      products_commit();
      products_wait<1>();  // those of the tile before are done
      if (before >= 0) release(ring, before, lane);
      before = slot.index;
      slot.move();
    }
    products_wait<0>();
    if (before >= 0) release(ring, before, lane);
    write_tile(acc, item, strip, item.first_token + side * WIDTH, warp, lane, t, sizes);
  }
}

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, BLOCKS_PER_SM)
    shfl_bw_spmm(const Element* x, const Element* panels, const int* columns, const int* shifts,
                 const int* tiles, const int* order, const int* rows,
                 const float* bias, Element* y, float* partial, int groups, int tokens,
                 int token_tiles, int splits, int tokens_first, int x_pitch, int y_pitch, int batch, int height,
                 int width, int out_width, int stride_down, int stride_across, int pad_top,
                 int pad_left) {
  const Tensors t{x, panels, columns, shifts, tiles, order, rows, bias, y, partial};
  const Sizes sizes{groups, tokens, token_tiles, splits, tokens_first, x_pitch, y_pitch};
  const Image image{batch, height, width, out_width, stride_down, stride_across, pad_top, pad_left};
  const Ring ring(shared_address(dynamic_shared()));
  const unsigned rank = CLUSTER > 1 ? cluster_rank() : 0;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < STAGES; ++slot) {
      barrier_init(ring.full + slot * 8, 128 + 1);
      barrier_init(ring.empty + slot * 8, 4 * CONSUMERS * CLUSTER);
    }
    barrier_inits_visible();
  }
  if constexpr (CLUSTER > 1)
    cluster_sync();
  else
    __syncthreads();
  const int first = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER;
  if (threadIdx.x < 128) {
    give_registers<PRODUCER_REGISTERS>();
    produce(ring, rank, first, step, t, sizes, image);
  } else {
    take_registers<CONSUMER_REGISTERS>();
    consume(ring, rank, first, step, t, sizes);
  }
  if constexpr (CLUSTER > 1) cluster_sync();  // no block leaves while others write to it
}
