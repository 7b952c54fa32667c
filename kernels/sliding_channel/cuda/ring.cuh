#pragma once
#include "instructions.cuh"

// How Hopper's kernels walk over pixels: one block an SM stays resident, its weights lie in shared
// memory for the whole launch, its last warpgroup copies tiles of 64 pixels into a ring of stages of
// CHANNELS channels, and the others take whole tiles in turn, so that one multiplies while another
// stores.
//
// Compile-time constants, see plan.py: CHANNELS, STAGES, WARPGROUPS (that multiply), SPLIT (blocks
// that share what is written for a pixel), STAGED (whether results leave through shared memory).

constexpr int TILE = 64;
constexpr int THREADS = 128 * (WARPGROUPS + 1);
constexpr int STAGE_BYTES = TILE * CHANNELS * 2;
constexpr int LOADING_REGISTERS = 56;
constexpr int MULTIPLYING_REGISTERS = 224;
static_assert(WARPGROUPS == 2, "registers of three warpgroups");
static_assert(CHANNELS % 64 == 0, "whole rows of 128 bytes");

// A place in the ring.
struct Place {
  int stage;
  unsigned phase;

  DEVICE explicit Place(int slot) : stage(slot % STAGES), phase(slot / STAGES & 1) {}
};

struct Shared {
  unsigned weights, stages, full, empty, loaded, results;

  // Swizzling goes by address.
  DEVICE Shared(unsigned start, int weight_bytes)
      : weights((start + 1023) / 1024 * 1024),
        stages(weights + weight_bytes),
        full(stages + STAGES * STAGE_BYTES),
        empty(full + 8 * STAGES),
        loaded(empty + 8 * STAGES),
        results((loaded + 8 + 127) / 128 * 128) {}

  // All threads call it first.
  DEVICE void begin() const {
    if (threadIdx.x == 0) {
      for (int i = 0; i < STAGES; ++i) {
        start_barrier(full + 8 * i, 128);
        start_barrier(empty + 8 * i, 4);
      }
      start_barrier(loaded, 1);
      publish_barriers();
    }
    __syncthreads();
  }

  DEVICE void load_weights(const unsigned char* packed, int bytes) const {
    if (threadIdx.x % 128 != 0) return;
    arrive_expecting(loaded, bytes);
    copy_block(weights, packed + blockIdx.y * static_cast<long long>(bytes), bytes, loaded);
  }

  DEVICE unsigned wait_for(const Place& place) const {
    wait_barrier(full + 8 * place.stage, place.phase);
    return stages + place.stage * STAGE_BYTES;
  }

  DEVICE void give_back(const Place& place) const {
    if (threadIdx.x % 32 == 0) arrive(empty + 8 * place.stage);
  }
};

DEVICE int pixels_left(long long tile, long long pixels) {
  return static_cast<int>(min(pixels - tile * TILE, static_cast<long long>(TILE)));
}

// Copies all tiles of this block: x (pixels, WHOLE channels). A stage is 64 channels of all pixels
// after another, rows of 128 bytes, their 16-byte units turned by the pixel: by its low three bits as
// the tensor cores read, or by its lowest where threads read 64 bytes of two neighbouring pixels.
template <int WHOLE, bool TENSOR_CORES>
DEVICE void load_tiles(const Shared& shared, const unsigned char* x, long long pixels) {
  constexpr int units = CHANNELS / 8, rows = 128 / units, parts = WHOLE / CHANNELS;
  static_assert(WHOLE % CHANNELS == 0, "whole stages");
  const int thread = threadIdx.x % 128, row = thread / units, unit = thread % units;
  int slot = 0;
  for (long long tile = blockIdx.x; tile * TILE < pixels; tile += gridDim.x) {
    const int left = pixels_left(tile, pixels);
    const unsigned char* from = x + (tile * TILE + row) * (WHOLE * 2) + unit * 16;
#pragma unroll 1
    for (int part = 0; part < parts; ++part, ++slot, from += CHANNELS * 2) {
      const Place place(slot);
      wait_barrier(shared.empty + 8 * place.stage, place.phase ^ 1);
      const unsigned to = shared.stages + place.stage * STAGE_BYTES + unit / 8 * (TILE * 128);
#pragma unroll
      for (int i = 0; i < TILE; i += rows) {
        const int turn = TENSOR_CORES ? row + i : (row + i) % 2 * 4;
        copy_async<16>(to + (row + i) * 128 + ((unit ^ turn) % 8 << 4), from + i * (WHOLE * 2),
                       row + i < left);
      }
      arrive_when_copied(shared.full + 8 * place.stage);
    }
  }
}

// Where a warp's 16 pixels of a tile go, BYTES of each, WHOLE apart. With STAGED they lie in shared
// memory first, from where the copy engine takes whole rows; 64 bytes between rows keep the units
// that a warp writes at once in different banks.
template <int BYTES, int WHOLE>
struct Results {
  static constexpr int PITCH = BYTES + 64;

  unsigned char* to;  // the first of the warp's pixels
  int left;           // pixels there are
  unsigned staging;

  DEVICE Results(unsigned char* tile, int left_, unsigned results)
      : to(tile + threadIdx.x % 128 / 32 * 16 * WHOLE),
        left(left_ - threadIdx.x % 128 / 32 * 16),
        staging(results + threadIdx.x / 32 * 16 * PITCH) {}

  DEVICE void begin() const {
    if constexpr (STAGED) {
      wait_stores<0>();
      __syncwarp();
    }
  }

  // The unit of 8 elements at 64 * `place` bytes, for the half-th 8 pixels.
  DEVICE void put(int half, int place, const unsigned (&words)[4]) const {
    const int lane = threadIdx.x % 32, row = lane / 4 + 8 * half, at = place * 64 + lane % 4 * 16;
    if constexpr (STAGED) {
      write_unit(staging + row * PITCH + at, words);
    } else if (row < left) {
      store_bytes<16>(to + row * WHOLE + at, words);
    }
  }

  DEVICE void end() const {
    if constexpr (STAGED) {
      const int lane = threadIdx.x % 32;
      show_to_tensor_cores();
      __syncwarp();
      if (lane < min(16, left)) store_block(to + lane * WHOLE, staging + lane * PITCH, BYTES);
      commit_stores();
    }
  }
};
