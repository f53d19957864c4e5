// Which kernel computes a call, and how its grids are cut. `start(kernel, grid, problem, argument)` runs one grid.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda_kernels.cuh"

namespace vitdense {

enum class Element { Float, Half, BFloat16 };

struct Call {
  Problem problem;
  Element element;
  int64_t images;
  int64_t multiprocessors, max_grid_images;  // of the device
};

struct Grid {
  uint32_t blocks, images, threads;
  size_t shared;  // bytes of a block
};

struct Sizes {
  int64_t queries, heads, width, points;
  std::vector<int64_t> spatial_shapes;  // H and W of each level
};

// A problem without its tensors.
inline Problem describe(const Sizes& sizes) {
  Problem problem = {};
  int64_t pixels = 0;
  const int64_t levels = static_cast<int64_t>(sizes.spatial_shapes.size()) / 2;
  for (int64_t i = 0; i < levels; ++i) {
    const int64_t height = sizes.spatial_shapes[2 * i], width = sizes.spatial_shapes[2 * i + 1];
    problem.levels[i] = {static_cast<int32_t>(height), static_cast<int32_t>(width), pixels};
    pixels += height * width;
  }
  problem.image = pixels * sizes.heads * sizes.width;
  problem.units = static_cast<uint32_t>(sizes.queries * sizes.heads);
  problem.heads = static_cast<uint32_t>(sizes.heads);
  problem.width = static_cast<uint32_t>(sizes.width);
  problem.samples = static_cast<uint32_t>(levels * sizes.points);
  problem.per_point = 1.0f / static_cast<float>(sizes.points);
  return problem;
}

// Blocks of 128 threads, or of fewer where multiprocessors would be left without one.
inline Grid cut_grid(const Call& call, int64_t images, int64_t warp_units, size_t warp_bytes) {
  const int64_t warps = (call.problem.units + warp_units - 1) / warp_units;
  int64_t block = kMaxThreads / kWarp;
  while (block > 1 && (warps + block - 1) / block * images < call.multiprocessors) block /= 2;
  return {static_cast<uint32_t>((warps + block - 1) / block), static_cast<uint32_t>(images),
          static_cast<uint32_t>(block * kWarp), block * warp_bytes};
}

template <typename Stage, typename Start, typename Kernel, typename Argument>
void run_grids(Call call, int64_t warp_units, const Start& start, Kernel kernel, const Argument& argument) {
  if (call.problem.units == 0) return;
  for (int64_t first = 0; first < call.images; first += call.max_grid_images) {
    call.problem.first_batch = first;
    const Grid grid = cut_grid(call, std::min(call.images - first, call.max_grid_images), warp_units, sizeof(Stage));
    start(kernel, grid, call.problem, argument);
  }
}

template <typename Run>
void with_tiling(const Call& call, const Run& run) {
  const auto by_width = [&](auto element) {
    using T = decltype(element);
    switch (call.problem.width) {
      case 16: return run(Tiling<T, 16>());
      case 32: return run(Tiling<T, 32>());
      case 64: return run(Tiling<T, 64>());
      default: return run(Tiling<T, 0>());
    }
  };
  switch (call.element) {
    case Element::Float: return by_width(float());
    case Element::Half: return by_width(__half());
    case Element::BFloat16: return by_width(__nv_bfloat16());
  }
}

template <typename Start>
void run_forward(const Call& call, void* output, const Start& start) {
  with_tiling(call, [&](auto tile) {
    using Tile = decltype(tile);
    run_grids<Stage<Tile>>(call, Tile::units, start, forward_kernel<Tile>, output);
  });
}

template <typename Start>
void run_backward(const Call& call, const Gradients& grads, const Start& start) {
  with_tiling(call, [&](auto tile) {
    using Tile = decltype(tile);
    run_grids<BackwardStage<Tile>>(call, Tile::units, start, backward_kernel<Tile>, grads);
  });
}

}  // namespace vitdense
