#include "activation.cuh"
#include "hopper.cuh"

// Product of packed weights with feature-major input, y[row][n] = sum w[row][k] x[k][n], or the
// convolution of (c, h, w, b) images as the same product. For Hopper.
//
// A block multiplies the panel of one group (V rows, its kept columns) with the rows of x that the
// panel keeps, TOKENS columns at a time. Four warps gather those rows, 32 at a time, to a ring of
// slices with 16-byte copies, in the order in which tensor cores read them. The panel comes in tiles
// of 64 columns, packed as such beforehand, by bulk copies to a ring of its own, shared by the blocks
// of a cluster. One or two warpgroups multiply: below each other for V = 128, else side by side.
//
// Barriers: `full` of a slice counts the 128 gathering threads, as their copies land, and `empty` the
// multiplying warps; `panel_full` counts a bulk copy and `panel_empty` the multiplying warps of all
// blocks of the cluster.

constexpr int DEPTH = 32;                       // kept columns of a slice
constexpr int STRIPS = V > 64 ? V / 64 : 1;     // of 64 rows
constexpr int CONSUMERS = STRIPS * SIDE;        // warpgroups that multiply
constexpr int TOKENS = WIDTH * SIDE;            // columns of an output tile
constexpr int THREADS = 128 * (1 + CONSUMERS);
constexpr int PANEL_BYTES = STRIPS * 64 * 128;
constexpr int SLICE_BYTES = DEPTH * TOKENS * 2;
constexpr int ATOM_BYTES = DEPTH * 128;         // 64 columns of a slice
constexpr int STAGED_PITCH = WIDTH * 2 + 16;    // of a row that waits to be written: no two rows of
                                                // a matrix start in the same banks

static_assert(V == 16 || V == 32 || V == 64 || V == 128, "rows of a group");
static_assert(CONSUMERS <= 2 && STAGES >= 3 && PANELS >= 2, "one or two warpgroups, rings");

struct Tensors {
  const Element* x;
  const Element* panels;       // tiles of STRIPS * 64 x 64, swizzled, of all groups
  const int* columns;          // 64 a tile, -1 behind the last
  const int* shifts;           // of a convolution: vertical << 16 | horizontal shift of each tap
  const int4* items;           // what the clusters do, one after the other
  const int* bounds;           // where each cluster's items begin
  const int* rows;             // packed place to row, -1 for none
  const float* bias;
  Element* y;
  float* partial;              // sums of each split, where K is split
};

struct Sizes {
  int tokens, x_pitch, y_pitch;
};

struct Image {
  int batch, height, width, out_width, stride_down, stride_across, pad_top, pad_left;
};

// One output tile's share of kept columns.
struct Item {
  int first_token, group, slice, end;  // groups count on from split to split

  DEVICE Item(int at, unsigned rank, const Tensors& t) {
    const int4 item = t.items[at];
    first_token = (item.x + static_cast<int>(rank)) * TOKENS;
    group = item.y;
    slice = item.z;
    end = item.w;
  }
};

// A place in a ring, and how often it went round.
template <int COUNT>
struct Place {
  int index = 0;
  unsigned phase = 0;

  DEVICE void move() {
    if (++index == COUNT) index = 0, phase ^= 1;
  }
};

struct Rings {
  unsigned panels, slices, staged, full, empty, panel_full, panel_empty;

  DEVICE explicit Rings(unsigned base) : panels(base) {
    slices = base + PANELS * PANEL_BYTES;
    staged = slices + STAGES * SLICE_BYTES;
#ifdef STAGED
    full = staged + CONSUMERS * 64 * STAGED_PITCH;
#else
    full = staged;
#endif
    empty = full + STAGES * 8;
    panel_full = empty + STAGES * 8;
    panel_empty = panel_full + PANELS * 8;
  }
};

// A unit is 8 neighbouring columns of x, 16 bytes. A warp's copy takes 32 of them: units of one row,
// or of as many rows as fit.
constexpr int UNITS = TOKENS / 8;
constexpr int COPIES = UNITS > 32 ? UNITS / 32 : 1;     // of a warp for a row
constexpr int ROWS = UNITS < 32 ? 32 / UNITS : 1;       // of one copy
constexpr int TURNS = DEPTH / (4 * ROWS);               // of the four warps for a slice

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

// Row r of a slice is 128 bytes of each atom, its 16-byte units permuted by r % 8. Lane l has the
// slice's column l, and its shift.
DEVICE void gather_slice(unsigned to, int columns, int shifts, const Source& source, int warp,
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
    const int column = __shfl_sync(~0u, columns, step * turn + first);
    const unsigned offset = max(column, 0);
#ifdef CONV
    const int shift = __shfl_sync(~0u, shifts, step * turn + first);
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

// Barriers' phase before the first counts as over: rings start empty.
DEVICE void fetch_panel(const Rings& rings, const Place<PANELS>& panel, int tile, unsigned rank,
                        const Tensors& t) {
  const unsigned full = rings.panel_full + panel.index * 8;
  barrier_wait(rings.panel_empty + panel.index * 8, panel.phase ^ 1);
  barrier_arrive_expecting(full, PANEL_BYTES);
  constexpr unsigned share = PANEL_BYTES / CLUSTER;
  const unsigned char* from = reinterpret_cast<const unsigned char*>(t.panels) +
                              static_cast<long long>(tile) * PANEL_BYTES + rank * share;
  const unsigned to = rings.panels + panel.index * PANEL_BYTES + rank * share;
  if constexpr (CLUSTER == 1)
    copy_bulk(to, from, share, full);
  else
    copy_bulk_multicast(to, from, share, full, (1 << CLUSTER) - 1);
}

DEVICE void produce(const Rings& rings, unsigned rank, int at, int last, const Tensors& t,
                    const Sizes& sizes, const Image& image) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  Place<STAGES> slot;
  Place<PANELS> panel;
  for (; at < last; ++at) {
    const Item item(at, rank, t);
    const Source source(item, lane, t, sizes, image);
    for (int slice = item.slice; slice < item.end; ++slice) {
      const long long first = static_cast<long long>(slice) * DEPTH;
      const int columns = t.columns[first + lane];
#ifdef CONV
      const int shifts = t.shifts[first + lane];
#else
      constexpr int shifts = 0;
#endif
      if (slice % 2 == 0) {
        if (thread == 0) fetch_panel(rings, panel, slice / 2, rank, t);
        panel.move();
      }
      barrier_wait(rings.empty + slot.index * 8, slot.phase ^ 1);
      const unsigned to = rings.slices + slot.index * SLICE_BYTES;
      gather_slice(to, columns, shifts, source, warp, lane, t, sizes, image);
      arrive_after_copies(rings.full + slot.index * 8);
      slot.move();
    }
  }
  wait_copies();
}

#ifdef SPLIT
// Writes a thread's sums: acc[4 j + 2 h + e] is row h * 8 and column 8 j + e of its own first.
DEVICE void write_tile(float (&acc)[WIDTH / 2], const Item& item, const Rings& rings, int strip,
                       int first_token, int warp, int lane, const Tensors& t,
                       const Sizes& sizes) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int place = strip * 64 + warp * 16 + h * 8 + lane / 4;
    const bool real = V >= 64 || place < V;
    const int packed = item.group * V + (real ? place : 0);
    float* to = t.partial + static_cast<long long>(packed) * sizes.y_pitch;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; ++j) {
      const int token = first_token + 8 * j + 2 * (lane % 4);
      if (real && token < sizes.tokens)
        *reinterpret_cast<float2*>(to + token) =
            make_float2(acc[4 * j + 2 * h], acc[4 * j + 2 * h + 1]);
    }
  }
}
#else
// Row of y of a place in the group, -1 for none.
DEVICE int row_of(int place, const Item& item, const Tensors& t) {
  return V >= 64 || place < V ? t.rows[item.group * V + place] : -1;
}

DEVICE float bias_of(int row, const Tensors& t) {
  return t.bias != nullptr && row >= 0 ? t.bias[row] : 0.0f;
}

// The word of columns 8 j + 2 (lane % 4) of row 8 h of a thread's own.
DEVICE unsigned word(const float (&acc)[WIDTH / 2], int j, int h, float bias) {
  return pack(activate<ACTIVATION>(acc[4 * j + 2 * h] + bias),
              activate<ACTIVATION>(acc[4 * j + 2 * h + 1] + bias));
}

#ifdef STAGED
// Puts the rows of a warp down in shared memory, from where bulk copies take them while the next
// tile is multiplied.
DEVICE void write_tile(float (&acc)[WIDTH / 2], const Item& item, const Rings& rings, int strip,
                       int first_token, int warp, int lane, const Tensors& t,
                       const Sizes& sizes) {
  const int place = strip * 64 + warp * 16;
  const int consumer = threadIdx.x / 128 - 1;
  const unsigned base = rings.staged + (consumer * 64 + warp * 16) * STAGED_PITCH;
  const int row = lane < 16 ? row_of(place + lane, item, t) : -1;
  float bias[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) bias[h] = bias_of(row_of(place + h * 8 + lane / 4, item, t), t);
  wait_bulk_read();
  __syncwarp();
  const unsigned to = base + lane % 16 * STAGED_PITCH + lane / 16 * 16;
#pragma unroll
  for (int j = 0; j < WIDTH / 8; j += 2) {
    const unsigned words[4] = {word(acc, j, 0, bias[0]), word(acc, j, 1, bias[1]),
                               word(acc, j + 1, 0, bias[0]), word(acc, j + 1, 1, bias[1])};
    store_matrices(to + j * 16, words);
  }
  fence_for_async();
  __syncwarp();
  const int count = min(WIDTH, sizes.tokens - first_token);
  if (row >= 0 && count > 0)
    copy_bulk_out(t.y + static_cast<long long>(row) * sizes.y_pitch + first_token,
                  base + lane * STAGED_PITCH, count * 2);
  commit_bulk_out();
}
#else
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

DEVICE void write_tile(float (&acc)[WIDTH / 2], const Item& item, const Rings& rings, int strip,
                       int first_token, int warp, int lane, const Tensors& t,
                       const Sizes& sizes) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = row_of(strip * 64 + warp * 16 + h * 8 + lane / 4, item, t);
    const float bias = bias_of(row, t);
    Element* to = t.y + static_cast<long long>(row < 0 ? 0 : row) * sizes.y_pitch;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j += 4) {
      unsigned words[4] = {word(acc, j, h, bias), word(acc, j + 1, h, bias),
                           word(acc, j + 2, h, bias), word(acc, j + 3, h, bias)};
      exchange_in_quads(words, lane);
      const int token = first_token + 8 * (j + lane % 4);
      if (row >= 0 && token < sizes.tokens)
        *reinterpret_cast<uint4*>(to + token) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}
#endif
#endif

// Gives back a slice, and a panel's tile where there is one, once per warp.
DEVICE void release(const Rings& rings, int slot, int panel, int lane) {
  if (slot >= 0 && lane == 0) barrier_arrive(rings.empty + slot * 8);
  if (panel >= 0) {
    if constexpr (CLUSTER == 1) {
      if (lane == 0) barrier_arrive(rings.panel_empty + panel * 8);
    } else {
      if (lane < CLUSTER) barrier_arrive_remote(rings.panel_empty + panel * 8, lane);
    }
  }
}

DEVICE void consume(const Rings& rings, unsigned rank, int at, int last, const Tensors& t,
                    const Sizes& sizes) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const int consumer = threadIdx.x / 128 - 1;
  const int strip = consumer / SIDE, side = consumer % SIDE;
  Place<STAGES> slot;
  Place<PANELS> panel;
  for (; at < last; ++at) {
    const Item item(at, rank, t);
    float acc[WIDTH / 2];
#pragma unroll
    for (int i = 0; i < WIDTH / 2; ++i) acc[i] = 0.0f;
    int slot_before = -1, panel_before = -1;
#pragma unroll 1
    for (int slice = item.slice; slice < item.end; ++slice) {
      const bool second = slice % 2, done = second || slice + 1 == item.end;
      if (!second) barrier_wait(rings.panel_full + panel.index * 8, panel.phase);
      barrier_wait(rings.full + slot.index * 8, slot.phase);
      fence_for_async();
      const unsigned long long left =
          describe(rings.panels + panel.index * PANEL_BYTES + strip * (64 * 128) + second * 64, 16,
                   1024);
      const unsigned long long right =
          describe(rings.slices + slot.index * SLICE_BYTES + side * (WIDTH / 64) * ATOM_BYTES,
                   ATOM_BYTES, 1024);
      products_begin();
#pragma unroll
      for (int k = 0; k < DEPTH / 16; ++k)
        multiply(acc, left + k * (32 >> 4), right + k * (16 * 128 >> 4));
      products_commit();
      products_wait<1>();  // those of the slice before are done
      release(rings, slot_before, panel_before, lane);
      slot_before = slot.index;
      panel_before = done ? panel.index : -1;
      slot.move();
      if (done) panel.move();
    }
    products_wait<0>();
    release(rings, slot_before, panel_before, lane);
    write_tile(acc, item, rings, strip, item.first_token + side * WIDTH, warp, lane, t, sizes);
  }
#ifdef STAGED
  wait_bulk_done();
#endif
}

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, BLOCKS_PER_SM)
    shfl_bw_spmm(const Element* x, const Element* panels, const int* columns, const int* shifts,
                 const int4* items, const int* bounds, const int* rows, const float* bias,
                 Element* y, float* partial, int tokens, int x_pitch, int y_pitch, int batch,
                 int height, int width, int out_width, int stride_down, int stride_across,
                 int pad_top, int pad_left) {
  const Tensors t{x, panels, columns, shifts, items, bounds, rows, bias, y, partial};
  const Sizes sizes{tokens, x_pitch, y_pitch};
  const Image image{batch, height, width, out_width, stride_down, stride_across, pad_top, pad_left};
  const Rings rings(shared_address(dynamic_shared()));
  const unsigned rank = CLUSTER > 1 ? cluster_rank() : 0;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < STAGES; ++slot) {
      barrier_init(rings.full + slot * 8, 128);
      barrier_init(rings.empty + slot * 8, 4 * CONSUMERS);
    }
    for (int panel = 0; panel < PANELS; ++panel) {
      barrier_init(rings.panel_full + panel * 8, 1);
      barrier_init(rings.panel_empty + panel * 8, 4 * CONSUMERS * CLUSTER);
    }
    barrier_inits_visible();
  }
  if constexpr (CLUSTER > 1)
    cluster_sync();
  else
    __syncthreads();
  const int at = bounds[blockIdx.x / CLUSTER], last = bounds[blockIdx.x / CLUSTER + 1];
  if (threadIdx.x < 128) {
    give_registers<PRODUCER_REGISTERS>();
    produce(rings, rank, at, last, t, sizes, image);
  } else {
    take_registers<CONSUMER_REGISTERS>();
    consume(rings, rank, at, last, t, sizes);
  }
  if constexpr (CLUSTER > 1) cluster_sync();  // no block leaves while others write to it
}
