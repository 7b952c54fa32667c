// A shared library around one CUDA source; `run` launches its kernels as the driver would.
#include "emulator.hpp"
#include SOURCE

#include <utility>

#ifdef CLUSTER_M
constexpr unsigned BLOCKS_TOGETHER = CLUSTER_M * CLUSTER_N;
#else
constexpr unsigned BLOCKS_TOGETHER = 1;
#endif

template <class... P, size_t... I>
void call(void (*kernel)(P...), void** values, std::index_sequence<I...>) {
  kernel(*static_cast<P*>(values[I])...);
}

template <class... P>
bool launch(void (*kernel)(P...), dim3 grid, dim3 threads, unsigned shared_bytes,
            unsigned long long seed, int count, const int* sizes, void** values) {
  const int expected[] = {static_cast<int>(sizeof(P))...};
  if (count != static_cast<int>(sizeof...(P))) return false;
  if (!std::equal(expected, expected + count, sizes)) return false;
  emulated::launch(grid, threads, BLOCKS_TOGETHER, shared_bytes, seed,
                   [&] { call(kernel, values, std::index_sequence_for<P...>()); });
  return true;
}

#define ENTRY(name) \
  if (!strcmp(function, #name)) return launch(name, grid, block, shared_bytes, seed, count, sizes, values);

// Returns whether there is such a kernel and its parameters have such sizes.
extern "C" bool run(const char* function, const unsigned* blocks, unsigned threads,
                    unsigned shared_bytes, unsigned long long seed, int count, const int* sizes,
                    void** values) {
  const dim3 grid = {blocks[0], blocks[1], blocks[2]}, block = {threads, 1, 1};
  ENTRIES
  return false;
}
