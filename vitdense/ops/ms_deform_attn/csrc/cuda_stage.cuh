// What the kernels for CUDA share: how the work is dealt out, memory access, and the staging of samples.
//
// A unit is a head of a query. A warp works for a few units, and each lane carries 16 bytes of its unit's channels.
// Warps know nothing of each other. They go through the samples in rounds: first each lane finds the pixels and weights
// of two samples and puts them in shared memory, then every lane runs through the samples of its unit.
#pragma once

#include <type_traits>

#include "common.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#define VITDENSE_DEVICE __device__ __forceinline__

namespace vitdense {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 128;           // of a block
constexpr int kMaxLevels = 32;
constexpr int kMaxSamples = 1 << 20;       // of a unit; Problem::level_of is exact up to there
constexpr uint32_t kOutside = 0xffffffff;  // in place of an element of an image

struct Problem {
  const void* value;        // (B, S, M, D)
  const float2* locations;  // (B, Q, M, L, P), xy
  const float* attention;   // (B, Q, M, L, P)
  int64_t image;            // S * M * D, less than kOutside
  int64_t first_batch;      // of the grid
  uint32_t units;           // Q * M
  uint32_t heads, width;    // M, D
  uint32_t samples;         // L * P, at most kMaxSamples
  float per_point;          // 1 / P
  Level levels[kMaxLevels];

  VITDENSE_FUNCTION int level_of(uint32_t sample) const {
    return static_cast<int>((static_cast<float>(sample) + 0.5f) * per_point);
  }
};

// How the D channels of a head are dealt to lanes: each has `pieces` of `pack` neighbours. D = 0 is for any number, in
// passes of 32 channels.
template <typename Element, int D>
struct Tiling {
  using T = Element;
  static constexpr int pack = D == 0 ? 1 : 16 / sizeof(T);
  static constexpr int pieces = D == 0 ? 4 : 1;
  static constexpr int lanes = D == 0 ? 8 : D / pack;
  static constexpr int channels = lanes * pieces * pack;  // in a pass
  static constexpr int units = kWarp / lanes;             // of a warp
  static constexpr int round = 2 * lanes;                 // samples of a unit
  static_assert((D == 0 || D == channels) && kWarp % round == 0);

  VITDENSE_DEVICE static uint32_t width(const Problem& problem) { return D == 0 ? problem.width : D; }
};

// Where a lane works.
template <typename Tile>
struct Place {
  const int warp = threadIdx.x / kWarp;
  const int in_warp = threadIdx.x % kWarp;
  const int row = in_warp / Tile::lanes;   // of its unit in the stage
  const int lane = in_warp % Tile::lanes;  // of its unit
  const uint32_t first_unit = (blockIdx.x * (blockDim.x / kWarp) + warp) * Tile::units;
  const uint32_t unit = first_unit + row;  // may lie beyond the last
  const int64_t batch;

  VITDENSE_DEVICE explicit Place(const Problem& problem) : batch(problem.first_batch + blockIdx.y) {}

  // Of the first or second sample that the lane puts in the stage.
  VITDENSE_DEVICE int staged_row(int i) const { return (i * kWarp + in_warp) / Tile::round; }
  VITDENSE_DEVICE int staged_column() const { return in_warp % Tile::round; }
};

// In the order top left, top right, bottom left, bottom right.
template <typename T>
struct alignas(16) Corners {
  T at[4];
};

// What a warp keeps in shared memory, a row for each unit. The spare entry makes rows begin in different banks.
template <typename Tile>
struct Stage {
  Corners<float> weights[Tile::units][Tile::round + 1];
  Corners<uint32_t> offsets[Tile::units][Tile::round + 1];  // of pixels from the image's start, or kOutside
};

// Bar the compiler from taking apart or computing again what a loop should find in registers: an address is then base +
// offset in one instruction instead of five, and bfloat16 is widened once.
template <typename T>
VITDENSE_DEVICE T* settled(T* address) {
#ifdef __CUDACC__
  asm("" : "+l"(address));
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

VITDENSE_DEVICE float settled(float number) {
#ifdef __CUDACC__
  asm volatile("" : "+f"(number));
#endif
  return number;
}

// The words of N channels.
template <typename T, int N>
struct Pack {
  static constexpr int bytes = N * sizeof(T);
  uint32_t words[(bytes + 3) / 4];
};

// One instruction, through the read-only path, so that atomic additions do not hold it up.
template <int N, typename T>
VITDENSE_DEVICE Pack<T, N> load(const T* from) {
  constexpr int bytes = Pack<T, N>::bytes;
  if constexpr (bytes == 16) {
    const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
    return {words.x, words.y, words.z, words.w};
  } else if constexpr (bytes == 8) {
    const uint2 words = __ldg(reinterpret_cast<const uint2*>(from));
    return {words.x, words.y};
  } else if constexpr (bytes == 4) {
    return {__ldg(reinterpret_cast<const unsigned int*>(from))};
  } else {
    static_assert(bytes == 2);
    return {__ldg(reinterpret_cast<const unsigned short*>(from))};
  }
}

// Packs at the four offsets; zeros for those outside, and for all if the channels are not there.
template <int N, typename T>
VITDENSE_DEVICE Corners<Pack<T, N>> load_corners(const T* from, const Corners<uint32_t>& offsets, bool there) {
  Corners<Pack<T, N>> packs = {};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (offsets.at[k] != kOutside && there) packs.at[k] = load<N>(from + offsets.at[k]);
  }
  return packs;
}

template <typename T, int N>
VITDENSE_DEVICE float channel(const Pack<T, N>& pack, int i) {
  if constexpr (std::is_same_v<T, float>) {
    return __uint_as_float(pack.words[i]);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const uint32_t word = pack.words[i / 2];
    return __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000);
  } else {
    __half2 pair;
    memcpy(&pair, &pack.words[i / 2], sizeof(pair));
    return i % 2 == 0 ? __low2float(pair) : __high2float(pair);
  }
}

// Channels first, first + step, ... and N neighbours of each; zeros from `end` on.
template <typename T, int Pieces, int N>
VITDENSE_DEVICE void load_floats(
    const T* from, uint32_t first, uint32_t step, uint32_t end, float (&channels)[Pieces][N]) {
#pragma unroll
  for (int n = 0; n < Pieces; ++n) {
    Pack<T, N> pack = {};
    if (first + n * step < end) pack = load<N>(from + first + n * step);
#pragma unroll
    for (int i = 0; i < N; ++i) channels[n][i] = settled(channel(pack, i));
  }
}

template <typename T, int N>
VITDENSE_DEVICE void store(T* to, const float (&channels)[N]) {
  struct alignas(N * sizeof(T)) Rounded {
    T at[N];
  } rounded;
#pragma unroll
  for (int i = 0; i < N; ++i) rounded.at[i] = static_cast<T>(channels[i]);
  *reinterpret_cast<Rounded*>(to) = rounded;
}

// A staged sample; what its gradient takes is kept in registers.
struct Sample {
  int64_t index;  // among all samples, or -1 where there is none
  Cell cell;
  float attention;  // 0 where no pixel is in reach
};

struct Round {
  Level level;  // of both samples of a lane
  Sample samples[2];
};

VITDENSE_DEVICE Corners<uint32_t> offsets_of(const Cell& cell, const Level& level, uint32_t pixel) {
  const bool top = cell.has_top(), bottom = cell.has_bottom(level.height);
  const bool left = cell.has_left(), right = cell.has_right(level.width);
  const uint32_t top_left = (static_cast<uint32_t>(level.start) + cell.y * level.width + cell.x) * pixel;
  const uint32_t bottom_left = top_left + level.width * pixel;
  return {top && left ? top_left : kOutside, top && right ? top_left + pixel : kOutside,
          bottom && left ? bottom_left : kOutside, bottom && right ? bottom_left + pixel : kOutside};
}

// Put the samples from number `first` on of the warp's units in the stage; those that are not there lie outside.
template <typename Tile>
VITDENSE_DEVICE Round stage_round(
    const Problem& problem, const Place<Tile>& place, uint32_t first, Stage<Tile>& stage) {
  const uint32_t number = first + place.staged_column(), pixel = problem.heads * Tile::width(problem);
  Round round{problem.levels[number < problem.samples ? problem.level_of(number) : 0]};
  float2 locations[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t unit = place.first_unit + place.staged_row(i);
    const bool there = unit < problem.units && number < problem.samples;
    const int64_t index = (place.batch * problem.units + unit) * problem.samples + number;
    locations[i] = there ? __ldg(problem.locations + index) : make_float2(-1.0f, -1.0f);
    round.samples[i] = {there ? index : -1, {}, there ? __ldg(problem.attention + index) : 0.0f};
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = place.staged_row(i), column = place.staged_column();
    Sample& sample = round.samples[i];
    Corners<uint32_t> offsets = {kOutside, kOutside, kOutside, kOutside};
    if (find_cell(locations[i].x, locations[i].y, round.level.height, round.level.width, sample.cell)) {
      offsets = offsets_of(sample.cell, round.level, pixel);
    } else {
      sample.attention = 0.0f;
    }
    const Weights weights = weigh(sample.cell, sample.attention);
    stage.weights[row][column] = {weights.top_left, weights.top_right, weights.bottom_left, weights.bottom_right};
    stage.offsets[row][column] = offsets;
  }
  return round;
}

}  // namespace vitdense
