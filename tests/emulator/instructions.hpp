// What kernels' instructions.cuh say in assembly, in plain C++ from the instruction set's manual.
#pragma once
#include "machine.hpp"

#define DEVICE inline

template <int BYTES>
void copy_async(unsigned to, const void* from, bool valid) {
  if (to % BYTES != 0 || reinterpret_cast<uintptr_t>(from) % BYTES != 0)
    machine::fail("copy_async is not aligned");
  machine::current->open.push_back([=] {
    if (valid) std::memcpy(at_shared(to), from, BYTES);
    else std::memset(at_shared(to), 0, BYTES);
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

// Thread l gets, of each of four 8 x 8 matrices of 2 bytes, the two elements 2 * (l % 4) of row
// l / 4; threads 8 i to 8 i + 7 give the addresses of matrix i's rows.
inline void load_matrices(unsigned (&r)[4], unsigned address) {
  if (address % 16 != 0) machine::fail("ldmatrix is not aligned");
  const auto rows = machine::show(address);
  const int lane = machine::lane();
  for (int i = 0; i < 4; ++i)
    std::memcpy(&r[i], at_shared(rows.shown[8 * i + lane / 4]) + lane % 4 * 4, 4);
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

inline uint4 load_once(const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) machine::fail("load_once is not aligned");
  return *static_cast<const uint4*>(from);
}
inline float load_shared_by_blocks(const float* from) { return *from; }
inline unsigned long long add_release(unsigned long long* to, unsigned long long value) {
  const unsigned long long before = *to;
  *to += value, ++machine::progress;
  return before;
}
inline unsigned long long load_acquire(const unsigned long long* from) { return *from; }
inline void pause() { machine::yield(); }

#ifdef HOPPER

struct Barrier {
  int expected = 0, came = 0, bytes = 0;
  long phase = 0;
  std::vector<std::function<void()>> copies;
  void settle() {
    if (came < expected || bytes != 0) return;
    came = 0, ++phase, ++machine::progress;
  }
};
inline std::map<unsigned, Barrier> barriers;
inline unsigned barriers_block = ~0u;

inline void start_barrier(unsigned barrier, int count) {
  if (barriers_block != machine::block_index.x) barriers.clear();
  barriers_block = machine::block_index.x;
  barriers[barrier] = Barrier{count};
}

inline void arrive(unsigned barrier) {
  Barrier& b = barriers.at(barrier);
  if (++b.came > b.expected) machine::fail("more threads arrive at a barrier than it expects");
  ++machine::progress;
  b.settle();
}

inline void arrive_expecting(unsigned barrier, int bytes) {
  barriers.at(barrier).bytes += bytes;
  arrive(barrier);
}

inline void copy_block(unsigned to, const void* from, int bytes, unsigned barrier) {
  if (to % 16 != 0 || bytes % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0)
    machine::fail("copy_block is not aligned");
  barriers.at(barrier).copies.push_back([=] {
    std::memcpy(at_shared(to), from, bytes);
    barriers.at(barrier).bytes -= bytes;
  });
}

inline void wait_barrier(unsigned barrier, unsigned parity) {
  Barrier& b = barriers.at(barrier);
  machine::wait_until([&] {
    if (b.came == b.expected) {  // the latest moment at which block copies may end
      for (auto& copy : b.copies) copy();
      if (!b.copies.empty()) b.copies.clear(), b.settle();
    }
    return (b.phase & 1) != static_cast<long>(parity);
  });
}

inline void publish_barriers() {}
inline void show_to_tensor_cores() {}

template <int NAME, int THREADS>
void wait_for_group() { machine::meet(NAME, THREADS); }

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
inline std::map<int, Group> groups;
inline std::map<int, Product> being_shown;

inline int warpgroup() { return machine::current->number / 128; }
inline void meet_warpgroup() { machine::meet(200 + warpgroup(), 128); }
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
  meet_warpgroup();
}

template <int ROWS_, int COLUMNS_>
void hold(int (&counts)[ROWS_][COLUMNS_]) { asm volatile("" : : "r"(&counts) : "memory"); }

#endif
