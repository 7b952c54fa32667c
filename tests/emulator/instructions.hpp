// What kernels' instructions.cuh say in assembly, in plain C++ from the instruction set's manual.
#pragma once
#include "machine.hpp"

#define DEVICE inline

// When copy_async last wrote a unit of 16 bytes that no fence of its thread covers, by block.
inline std::map<std::pair<int, unsigned>, long> written;
inline long now = 0;

template <int BYTES>
void copy_async(unsigned to, const void* from, bool valid) {
  if (to % BYTES != 0 || reinterpret_cast<uintptr_t>(from) % BYTES != 0)
    machine::fail("copy_async is not aligned");
  machine::current->open.push_back([=, own = machine::rank(), writer = machine::current] {
    unsigned char* const there = machine::shared_of(machine::running[own]) + static_cast<int>(to);
    if (valid) std::memcpy(there, from, BYTES);
    else std::memset(there, 0, BYTES);
#ifdef HOPPER
    written[{own, to / 16}] = ++now;
    writer->unfenced.push_back({to / 16, now});
#endif
  });
}

inline void commit_copies() {
  machine::current->copies.push_back(std::move(machine::current->open));
  machine::current->open.clear();
}

template <int PENDING>
void wait_copies() {
  auto& groups = machine::current->copies;
  while (groups.size() > PENDING) {
    for (auto& copy : groups.front()) copy();
    groups.pop_front();
  }
}

template <int BYTES>
void store_bytes(void* to, const unsigned* words) {
  if (reinterpret_cast<uintptr_t>(to) % BYTES != 0) machine::fail("store_bytes is not aligned");
  std::memcpy(to, words, BYTES);
}

inline float positive_part(float number) { return number <= 0 ? 0.0f : number; }

inline void store_away(void* to, const unsigned* words) { store_bytes<16>(to, words); }

// Thread l gets, of each of four 8 x 8 matrices of 2 bytes, the two elements 2 * (l % 4) of row
// l / 4; threads 8 i to 8 i + 7 give the addresses of matrix i's rows.
inline void load_matrices(unsigned (&r)[4], unsigned address) {
  if (address % 16 != 0) machine::fail("ldmatrix is not aligned");
  const auto rows = machine::show(address);
  const int lane = machine::lane();
  for (int i = 0; i < 4; ++i)
    std::memcpy(&r[i], at_shared(rows.shown[8 * i + lane / 4]) + lane % 4 * 4, 4);
}

// The same with each matrix transposed: the elements 2 * (l % 4) and the next of column l / 4.
inline void load_matrices_transposed(unsigned (&r)[4], unsigned address) {
  if (address % 16 != 0) machine::fail("ldmatrix is not aligned");
  const auto rows = machine::show(address);
  const int lane = machine::lane();
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 2; ++k)
      std::memcpy(reinterpret_cast<unsigned char*>(&r[i]) + 2 * k,
                  at_shared(rows.shown[8 * i + lane % 4 * 2 + k]) + lane / 4 * 2, 2);
}

// m16n8k256 on single bits: a[0] holds row l / 4, bits 32 * (l % 4) on; a[1] eight rows further;
// a[2] and a[3] 128 bits further. b0 and b1 are column l / 4 likewise.
inline void multiply(int* c, const unsigned (&a)[4], unsigned b0, unsigned b1) {
  machine::Exchange all[6];
  const unsigned own[6] = {a[0], a[1], a[2], a[3], b0, b1};
  for (int i = 0; i < 6; ++i) all[i] = machine::show(own[i]);
  const int lane = machine::lane();
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4, column = 2 * (lane % 4) + i % 2;
    for (int t = 0; t < 4; ++t)
      for (int far = 0; far < 2; ++far) {
        const unsigned x = all[i / 2 + 2 * far].shown[4 * row + t];
        const unsigned y = all[4 + far].shown[4 * column + t];
        c[i] += __builtin_popcount(x & y);
      }
  }
}

template <bool TOWARD_ZERO>
unsigned to_halves(float low, float high) {
  unsigned both = 0;
  for (int i = 0; i < 2; ++i) {
    const float x = i ? high : low;
    const _Float16 half = static_cast<_Float16>(x);
    unsigned bits = same_bits<unsigned short>(half);
    if (TOWARD_ZERO && std::fabs(static_cast<float>(half)) > std::fabs(x)) --bits;
    both |= bits << 16 * i;
  }
  return both;
}

inline float half_at(const unsigned char* at) {
#ifdef BFLOAT
  __nv_bfloat16 half;
#else
  _Float16 half;
#endif
  std::memcpy(&half, at, 2);
  return static_cast<float>(half);
}

inline float2 to_floats(unsigned both) {
  const unsigned high = both >> 16;
  return {half_at(reinterpret_cast<const unsigned char*>(&both)),
          half_at(reinterpret_cast<const unsigned char*>(&high))};
}

inline void read_unit(unsigned* words, unsigned address) {
  if (address % 16 != 0) machine::fail("read_unit is not aligned");
  std::memcpy(words, at_shared(address), 16);
}

inline unsigned halves_of(unsigned first, unsigned second, bool upper) {
  return upper ? first >> 16 | (second & 0xffff0000u) : (first & 0xffffu) | second << 16;
}

// How Hopper's tensor cores add: 16 exact products and the sum are cut to 25 bits below the largest
// exponent among them (a product's is the sum of its factors'), added, and cut to a float.
inline float add_products(const unsigned char* a, const unsigned char* b, float sum) {
  constexpr int nothing = -10000, kept = 25;
  double products[16], straight = sum;
  int largest = nothing, top, other;
  if (sum != 0) std::frexp(sum, &top), largest = top - 1;
  for (int k = 0; k < 16; ++k) {
    const double x = half_at(a + 2 * k), y = half_at(b + 2 * k);
    products[k] = x * y, straight += x * y;
    if (products[k] == 0) continue;
    std::frexp(x, &top), std::frexp(y, &other);
    largest = std::max(largest, std::max(top - 1, -14) + std::max(other - 1, -14));  // subnormal
  }
  if (!std::isfinite(straight) || largest == nothing) return static_cast<float>(straight);
  const double unit = std::ldexp(1.0, kept - largest);
  long total = static_cast<long>(sum * unit);
  for (double product : products) total += static_cast<long>(product * unit);
  if (total == 0) return 0.0f;
  const int bits = 64 - __builtin_clzl(static_cast<unsigned long>(std::labs(total)));
  const long cut = bits > 24 ? 1l << (bits - 24) : 1;
  return static_cast<float>(std::ldexp(static_cast<double>(total / cut * cut), largest - kept));
}

// m16n8k16 on halves: a[0] holds row l / 4, columns 2 * (l % 4) on; a[1] eight rows further; a[2]
// and a[3] 8 columns further. b[0] and b[1] are column l / 4 of the second factor likewise.
inline void warp_product(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  machine::Exchange all[6];
  for (int i = 0; i < 6; ++i) all[i] = machine::show(i < 4 ? a[i] : b[i - 4]);
  const int lane = machine::lane();
  for (int i = 0; i < 4; ++i) {
    unsigned row[8], column[8];
    for (int k = 0; k < 8; ++k) {
      row[k] = static_cast<unsigned>(all[i / 2 + k / 4 * 2].shown[lane / 4 * 4 + k % 4]);
      column[k] = static_cast<unsigned>(all[4 + k / 4].shown[(lane % 4 * 2 + i % 2) * 4 + k % 4]);
    }
    sums[i] = add_products(reinterpret_cast<unsigned char*>(row),
                           reinterpret_cast<unsigned char*>(column), sums[i]);
  }
}

inline void multiply(float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                     unsigned b0, unsigned b1) {
  warp_product(sums, {a0, a1, a2, a3}, {b0, b1});
}

inline unsigned read_word(unsigned address) {
  if (address % 4 != 0) machine::fail("read_word is not aligned");
  unsigned word;
  std::memcpy(&word, at_shared(address), 4);
  return word;
}

inline float2 read_pair(unsigned address) {
  if (address % 8 != 0) machine::fail("read_pair is not aligned");
  float2 pair;
  std::memcpy(&pair, at_shared(address), 8);
  return pair;
}

inline void write_word(unsigned address, unsigned word) {
  if (address % 4 != 0) machine::fail("write_word is not aligned");
  std::memcpy(at_shared(address), &word, 4);
}

inline void drop_negative(unsigned& both) {
  for (int i = 0; i < 2; ++i) {
    const bool nan = std::isnan(half_at(reinterpret_cast<unsigned char*>(&both) + 2 * i));
    if (!nan && both >> (15 + 16 * i) & 1) both &= ~(0xffffu << 16 * i);
  }
}

inline float4 read_floats(const float4* from) { return *from; }

inline uint4 load_once(const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) machine::fail("load_once is not aligned");
  return *static_cast<const uint4*>(from);
}
inline void prefetch(const void* from, int bytes) {
  if (reinterpret_cast<unsigned long>(from) % 16 != 0 || bytes % 16 != 0)
    machine::fail("a prefetch that is not of whole units of 16 bytes");
}
inline void prefetch_line(const void*) {}
template <class T>
T load_fresh(const T* from) { return *from; }
inline unsigned count_up(unsigned* counter, unsigned last) {
  const unsigned before = *counter;
  *counter = before >= last ? 0 : before + 1;
  return before;
}
inline void pause() { machine::yield(); }

inline void let_next_start() {}
inline void wait_for_previous() {}

inline int warp_sum(int value) {
  const auto all = machine::show(static_cast<unsigned>(value));
  unsigned sum = 0;
  for (unsigned long long shown : all.shown) sum += static_cast<unsigned>(shown);
  return static_cast<int>(sum);
}
inline unsigned warp_largest(unsigned value) {
  const auto all = machine::show(value);
  return static_cast<unsigned>(*std::max_element(all.shown, all.shown + machine::WARP));
}

#ifdef HOPPER

struct Barrier {
  int expected = 0, came = 0, bytes = 0;
  int coming = 0;  // arrivals that copies bring
  long phase = 0;
  std::deque<std::function<void()>> copies;
  void settle() {
    if (came < expected || bytes != 0) return;
    came = 0, ++phase, ++machine::progress;
  }
  void take_copy() {
    copies.front()();
    copies.pop_front();
    ++machine::progress;
    settle();
  }
};
inline std::map<std::pair<int, unsigned>, Barrier> barriers;  // by block of those that run, address

inline Barrier& barrier_of(int block, unsigned barrier) {
  const auto found = barriers.find({block, barrier});
  if (found != barriers.end()) return found->second;
  machine::fail("there is no barrier");
  std::abort();
}

inline void start_barrier(unsigned barrier, int count) {
  if (barrier % 8 != 0) machine::fail("a barrier is not aligned");
  barriers[{machine::rank(), barrier}] = Barrier{count};
}

inline void arrive_at(unsigned barrier, int block) {
  Barrier& b = barrier_of(block, barrier);
  if (++b.came + b.coming > b.expected)
    machine::fail("more threads arrive at a barrier than it expects");
  ++machine::progress;
  b.settle();
}

inline void arrive(unsigned barrier) { arrive_at(barrier, machine::rank()); }

inline void arrive_expecting(unsigned barrier, int bytes) {
  barrier_of(machine::rank(), barrier).bytes += bytes;
  arrive(barrier);
}

// What this thread began to copy is the barrier's from here on.
inline void arrive_when_copied(unsigned barrier) {
  commit_copies();
  Barrier& b = barrier_of(machine::rank(), barrier);
  if (b.came + ++b.coming > b.expected)
    machine::fail("more threads arrive at a barrier than it expects");
  b.copies.push_back([&b, groups = std::move(machine::current->copies)] {
    for (const auto& group : groups)
      for (const auto& copy : group) copy();
    --b.coming, ++b.came;
  });
  machine::current->copies.clear();
}

inline void copy_block_to(unsigned to, const void* from, int bytes, unsigned barrier,
                          unsigned short blocks) {
  if (to % 16 != 0 || bytes % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0)
    machine::fail("copy_block is not aligned");
  for (int block = 0; blocks >> block; ++block) {
    if ((blocks >> block & 1) == 0) continue;
    Barrier& b = barrier_of(block, barrier);
    b.copies.push_back([=, &b] {
      std::memcpy(machine::shared_of(machine::running[block]) + to, from, bytes);
      b.bytes -= bytes;
    });
  }
}

inline void copy_block(unsigned to, const void* from, int bytes, unsigned barrier) {
  copy_block_to(to, from, bytes, barrier, static_cast<unsigned short>(1 << machine::rank()));
}

inline void wait_barrier(unsigned barrier, unsigned parity) {
  Barrier& b = barrier_of(machine::rank(), barrier);
  machine::wait_until([&b, parity] {
    // The latest moment at which block copies may end.
    while (b.came + b.coming == b.expected && !b.copies.empty()) b.take_copy();
    return (b.phase & 1) != static_cast<long>(parity);
  });
}

// With a seed some copies end before they are waited for.
inline void end_some_copies() {
  for (auto& [place, barrier] : barriers)
    if (!barrier.copies.empty() && machine::draw() % 3 == 0) barrier.take_copy();
}
inline const bool copies_end_early = (machine::meanwhile = end_some_copies, true);

inline int of_first_lane(int number) { return __shfl_sync(~0u, number, 0); }

inline int cluster_rank() { return machine::rank(); }
inline void meet_cluster() {
  machine::all_meet.meet(static_cast<int>(machine::running.size() * machine::block_size.x));
}

inline void publish_barriers() {}
inline void show_to_tensor_cores() {
  for (const auto& [unit, when] : machine::current->unfenced) {
    const auto found = written.find({machine::rank(), unit});
    if (found != written.end() && found->second == when) written.erase(found);
  }
  machine::current->unfenced.clear();
  machine::current->fenced = now;
}
inline void arrive_at_cluster() {}
inline void wait_for_cluster() { meet_cluster(); }

template <class T>
inline void send(unsigned to, unsigned barrier, int rank, T value) {
  if (to % sizeof(T) != 0) machine::fail("what is sent is not aligned");
  Barrier& b = barrier_of(rank, barrier);
  b.copies.push_back([=, &b] {
    std::memcpy(machine::shared_of(machine::running[rank]) + to, &value, sizeof(T));
    b.bytes -= sizeof(T);
  });
}

inline void show_to_copies() {}
inline void send_block(unsigned to, unsigned from, int bytes, unsigned barrier, int rank) {
  if (to % 16 != 0 || from % 16 != 0 || bytes % 16 != 0) machine::fail("send_block is not aligned");
  Barrier& b = barrier_of(rank, barrier);
  b.copies.push_back([=, &b, own = machine::rank()] {
    std::memcpy(machine::shared_of(machine::running[rank]) + to,
                machine::shared_of(machine::running[own]) + from, bytes);
    b.bytes -= bytes;
  });
}

template <int NAME, int THREADS>
void wait_for_group() { machine::meet(NAME, THREADS); }
template <int NAME, int THREADS>
void tell_group() { machine::block->meetings[NAME].come(THREADS); }

template <int REGISTERS>
void give_registers() {}
template <int REGISTERS>
void take_registers() {}

// Products wait in the order in which they were begun, a warpgroup's by its first thread.
struct Product {
  int* counts[128];
  unsigned long long rows, columns;
  int count;
  bool keep;
};
struct Group {
  std::deque<std::vector<Product>> committed;
  std::vector<Product> open;
};
inline std::map<int, Group> groups;  // by warpgroup of all blocks that run
inline std::map<int, Product> being_shown;

inline const bool products_end = (machine::forget = [] {
  groups.clear(), barriers.clear(), written.clear();
}, true);

inline int warpgroup() { return 8 * machine::rank() + machine::current->number / 128; }
inline void meet_warpgroup() { machine::meet(200 + machine::current->number / 128, 128); }
inline bool first_of_warpgroup() { return machine::current->number % 128 == 0; }

inline void begin_products() { meet_warpgroup(); }

template <int REGISTERS>
void warpgroup_product(int (&counts)[REGISTERS], unsigned long long rows,
                       unsigned long long columns, bool keep) {
  Product& shown = being_shown[warpgroup()];
  shown.counts[machine::current->number % 128] = counts;
  shown.rows = rows, shown.columns = columns, shown.count = 2 * REGISTERS, shown.keep = keep;
  meet_warpgroup();
  if (first_of_warpgroup()) groups[warpgroup()].open.push_back(shown);
  meet_warpgroup();
}

inline void commit_products() {
  if (first_of_warpgroup()) {
    Group& group = groups[warpgroup()];
    group.committed.push_back(std::move(group.open));
    group.open.clear();
  }
  machine::current->products.push_back(std::move(machine::current->begun));
  machine::current->begun.clear();
  meet_warpgroup();
}

// 32 bytes of a row of a tile with a 128-byte swizzle, from a descriptor that may be moved along.
inline void read_row(unsigned char (&to)[32], unsigned long long descriptor, int row) {
  if (descriptor >> 62 != 1 || (descriptor >> 32 & 0x3fff) != 64)
    machine::fail("a descriptor says another layout");
  const unsigned address = static_cast<unsigned>(descriptor & 0x3fff) << 4;
  for (int byte = 0; byte < 32; byte += 16) {
    unsigned at = address + row * 128 + byte;
    at ^= (at >> 7 & 7) << 4;
    std::memcpy(to + byte, memory + at, 16);
  }
}

inline void carry_out(const Product& p) {
  std::vector<unsigned char> columns(p.count * 32);
  for (int n = 0; n < p.count; ++n)
    read_row(*reinterpret_cast<unsigned char(*)[32]>(&columns[32 * n]), p.columns, n);
  for (int m = 0; m < 64; ++m) {
    unsigned char row[32];
    read_row(row, p.rows, m);
    for (int n = 0; n < p.count; ++n) {
      int count = 0;
      for (int i = 0; i < 4; ++i) {
        unsigned long long x, y;
        std::memcpy(&x, row + 8 * i, 8);
        std::memcpy(&y, &columns[32 * n + 8 * i], 8);
        count += __builtin_popcountll(x & y);
      }
      const int thread = m / 16 * 32 + m % 8 * 4 + n % 8 / 2;
      int& to = p.counts[thread][4 * (n / 8) + 2 * (m % 16 / 8) + n % 2];
      to = (p.keep ? to : 0) + count;
    }
  }
}

template <int PENDING>
void wait_products() {
  meet_warpgroup();
  if (first_of_warpgroup()) {
    auto& committed = groups[warpgroup()].committed;
    while (committed.size() > PENDING) {
      for (const Product& product : committed.front()) carry_out(product);
      committed.pop_front();
    }
  }
  auto& own = machine::current->products;
  for (; own.size() > PENDING; own.pop_front())
    for (auto& product : own.front()) product();
  meet_warpgroup();
}

template <class T, int ROWS_, int COLUMNS_>
void hold(T (&counts)[ROWS_][COLUMNS_]) { asm volatile("" : : "r"(&counts) : "memory"); }

inline unsigned long long matrix_tile(unsigned address) {
  if (address % 1024 != 0) machine::fail("a swizzled tile is not aligned");
  return (address & 0x3ffff) >> 4 | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// m64nNk16 on halves: each thread carries out its own part when it waits.
template <int TILES>
void warpgroup_product(float (&sums)[TILES][4], unsigned long long rows,
                       unsigned long long columns, bool keep) {
  machine::current->begun.push_back([=, &sums] {
    const int thread = machine::current->number % 128, lane = thread % 32;
    unsigned char a[2][32], b[32];
    for (int half = 0; half < 2; ++half)
      read_row(a[half], rows, thread / 32 * 16 + lane / 4 + 8 * half);
    for (int i = 0; i < TILES; ++i)
      for (int e = 0; e < 2; ++e) {
        read_row(b, columns, 8 * i + lane % 4 * 2 + e);
        for (int half = 0; half < 2; ++half) {
          float& sum = sums[i][2 * half + e];
          sum = add_products(a[half], b, keep ? sum : 0.0f);
        }
      }
  });
}

// The same with the rows in registers, which must hold them until the product is waited for: two
// columns of a row and of that 8 rows on, then the same 8 columns on.
template <int TILES>
void warpgroup_product(float (&sums)[TILES][4], const unsigned (&rows)[4],
                       unsigned long long columns, bool keep) {
  machine::current->begun.push_back([=, &sums, &rows] {
    const int lane = machine::lane();
    unsigned char a[2][32], b[32];
    machine::Exchange all[4];
    for (int i = 0; i < 4; ++i) all[i] = machine::show(rows[i]);
    for (int i = 0; i < 4; ++i)
      for (int t = 0; t < 4; ++t) {
        const unsigned word = static_cast<unsigned>(all[i].shown[lane / 4 * 4 + t]);
        std::memcpy(a[i % 2] + i / 2 * 16 + t * 4, &word, 4);
      }
    for (int i = 0; i < TILES; ++i)
      for (int e = 0; e < 2; ++e) {
        read_row(b, columns, 8 * i + lane % 4 * 2 + e);
        for (int half = 0; half < 2; ++half) {
          float& sum = sums[i][2 * half + e];
          sum = add_products(a[half], b, keep ? sum : 0.0f);
        }
      }
  });
}

// m64nNk256 on single bits with the rows in registers, which must hold them until the product is
// waited for: bits 32 * (l % 4) on of a row and of that 8 rows on, then the same 128 bits on.
template <int REGISTERS>
void warpgroup_product(int (&counts)[REGISTERS], const unsigned (&rows)[4],
                       unsigned long long columns, bool keep) {
  machine::current->begun.push_back([=, &counts, &rows] {
    const int lane = machine::lane();
    unsigned char a[2][32], b[32];
    for (int i = 0; i < 4; ++i) {
      const auto all = machine::show(rows[i]);
      for (int t = 0; t < 4; ++t) {
        const unsigned word = static_cast<unsigned>(all.shown[lane / 4 * 4 + t]);
        std::memcpy(a[i % 2] + i / 2 * 16 + t * 4, &word, 4);
      }
    }
    for (int i = 0; i < REGISTERS / 2; ++i) {
      read_row(b, columns, i / 2 * 8 + lane % 4 * 2 + i % 2);
      for (int half = 0; half < 2; ++half) {
        int& to = counts[i / 2 * 4 + 2 * half + i % 2];
        to = keep ? to : 0;
        for (int word = 0; word < 32; word += 8) {
          unsigned long long x, y;
          std::memcpy(&x, a[half] + word, 8);
          std::memcpy(&y, b + word, 8);
          to += __builtin_popcountll(x & y);
        }
      }
    }
  });
}

inline unsigned long long matrix_tile_across(unsigned address, unsigned leading) {
  return matrix_tile(address) & ~(0x3fffull << 16) |
         static_cast<unsigned long long>(leading >> 4) << 16;
}

// The same with the second factor across: a row of 64 columns for each element of K. Copies that
// neither their thread nor, since then, this one has fenced must not be read.
template <int COUNT>
void warpgroup_product_across(float (&sums)[COUNT], unsigned long long rows,
                              unsigned long long columns) {
  machine::current->begun.push_back([=, &sums, seen = machine::current->fenced] {
    const int thread = machine::current->number % 128, lane = thread % 32;
    unsigned char a[2][32], b[32];
    for (int half = 0; half < 2; ++half)
      read_row(a[half], rows, thread / 32 * 16 + lane / 4 + 8 * half);
    const unsigned start = static_cast<unsigned>(columns & 0x3fff) << 4;
    const unsigned leading = static_cast<unsigned>(columns >> 16 & 0x3fff) << 4;
    for (int i = 0; i < COUNT; ++i) {
      const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) {
        unsigned at = start + column / 64 * leading + k * 128 + column % 64 * 2;
        at ^= (at >> 7 & 7) << 4;
        const auto found = written.find({machine::rank(), at / 16});
        if (found != written.end() && found->second > seen)
          machine::fail("tensor cores read what no fence covers");
        std::memcpy(b + 2 * k, memory + at, 2);
      }
      sums[i] = add_products(a[i / 2 % 2], b, sums[i]);
    }
  });
}

inline unsigned char* dynamic_shared() { return memory; }

#else

inline int cluster_rank() { return 0; }
inline void start_barrier(unsigned, int) {}
inline void arrive(unsigned) {}
inline void arrive_expecting(unsigned, int) {}
inline void publish_barriers() {}
inline void arrive_at_cluster() {}
inline void wait_for_cluster() {}
inline void wait_barrier(unsigned, unsigned) { __syncthreads(); }

template <class T>
inline void send(unsigned to, unsigned, int, T value) {
  if (to % sizeof(T) != 0) machine::fail("what is sent is not aligned");
  std::memcpy(at_shared(to), &value, sizeof(T));
}
inline void show_to_copies() {}
inline void send_block(unsigned, unsigned, int, unsigned, int) {}

#endif
