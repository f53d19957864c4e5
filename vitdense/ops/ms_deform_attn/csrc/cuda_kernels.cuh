// The two kernels of multi-scale deformable attention.
#pragma once

#include "cuda_stage.cuh"

namespace vitdense {

constexpr uint32_t kAllLanes = 0xffffffff;
#if __CUDA_ARCH__ >= 900
constexpr int kAddends = 4;  // that an atomic addition takes at once
#else
constexpr int kAddends = 1;
#endif

struct Gradients {
  const void* output;  // (B, Q, M, D), given
  float* value;        // (B, S, M, D), added to
  float2* locations;   // (B, Q, M, L, P), xy
  float* attention;    // (B, Q, M, L, P)
};

template <typename Tile>
struct BackwardStage : Stage<Tile> {
  Corners<float> dots[Tile::units][Tile::round + 1];  // of pixels with the gradient of the output
};

template <typename Tile>
__global__ void __launch_bounds__(kMaxThreads, 8)
    forward_kernel(const __grid_constant__ Problem problem, void* output) {  // (B, Q, M, D)
  using T = typename Tile::T;
  extern __shared__ uint4 shared[];
  const Place<Tile> place(problem);
  if (place.first_unit >= problem.units) return;
  Stage<Tile>& stage = reinterpret_cast<Stage<Tile>*>(shared)[place.warp];
  const uint32_t width = Tile::width(problem), head = place.unit % problem.heads * width;
  const T* image = static_cast<const T*>(problem.value) + place.batch * problem.image;

  for (uint32_t pass = 0; pass < width; pass += Tile::channels) {
    const uint32_t mine = pass + place.lane * Tile::pack;
    const T* pixels = settled(image + head + mine);
    float total[Tile::pieces][Tile::pack] = {};
    for (uint32_t first = 0; first < problem.samples; first += Tile::round) {
      __syncwarp();
      stage_round(problem, place, first, stage);
      __syncwarp();
      const int count = min(problem.samples - first, uint32_t{Tile::round});
#pragma unroll(Tile::pieces == 1 ? 2 : 1)
      for (int s = 0; s < count; ++s) {
        const Corners<float> weights = stage.weights[place.row][s];
        const Corners<uint32_t> offsets = stage.offsets[place.row][s];
#pragma unroll
        for (int n = 0; n < Tile::pieces; ++n) {
          constexpr uint32_t step = Tile::lanes * Tile::pack;
          const auto packs = load_corners<Tile::pack>(pixels + n * step, offsets, mine + n * step < width);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
#pragma unroll
            for (int i = 0; i < Tile::pack; ++i) total[n][i] += weights.at[k] * channel(packs.at[k], i);
          }
        }
      }
    }
#pragma unroll
    for (int n = 0; n < Tile::pieces; ++n) {
      const uint32_t at = mine + n * Tile::lanes * Tile::pack;
      if (place.unit < problem.units && at < width) {
        store(static_cast<T*>(output) + (place.batch * problem.units + place.unit) * width + at, total[n]);
      }
    }
  }
}

VITDENSE_DEVICE void add(float* to, const float (&addends)[1], float factor) { atomicAdd(to, factor * addends[0]); }

#if __CUDA_ARCH__ >= 900
VITDENSE_DEVICE void add(float* to, const float (&addends)[4], float factor) {
  const float4 sum = {factor * addends[0], factor * addends[1], factor * addends[2], factor * addends[3]};
  atomicAdd(reinterpret_cast<float4*>(to), sum);
}
#endif

// Sums over the lanes of a unit. In each step a lane keeps one half of its dots and gives the other half to a partner,
// so that lane i of n ends with dot i * 4 / n, or, of 2 lanes, with two from i * 2 on.
template <int Lanes>
VITDENSE_DEVICE void sum_over_lanes(float (&dots)[4], int lane) {
  int held = 4;
#pragma unroll
  for (int step = Lanes / 2; step > 0; step /= 2) {
    const bool upper = lane & step;
    if (held > 1) {
      held /= 2;
#pragma unroll
      for (int k = 0; k < held; ++k) {
        const float given = upper ? dots[k] : dots[k + held];
        dots[k] = (upper ? dots[k + held] : dots[k]) + __shfl_xor_sync(kAllLanes, given, step);
      }
    } else {
      dots[0] += __shfl_xor_sync(kAllLanes, dots[0], step);
    }
  }
}

template <typename Tile>
__global__ void __launch_bounds__(kMaxThreads, 6)
    backward_kernel(const __grid_constant__ Problem problem, const __grid_constant__ Gradients grads) {
  using T = typename Tile::T;
  constexpr int addends = Tile::pack == 1 ? 1 : kAddends;
  constexpr int additions = Tile::pieces * Tile::pack / addends;
  constexpr int sharers = Tile::lanes < 4 ? 1 : Tile::lanes / 4;  // lanes that end with the same dot
  constexpr int held = Tile::lanes < 4 ? 4 / Tile::lanes : 1;     // dots that a lane ends with
  extern __shared__ uint4 shared[];
  const Place<Tile> place(problem);
  if (place.first_unit >= problem.units) return;
  BackwardStage<Tile>& stage = reinterpret_cast<BackwardStage<Tile>*>(shared)[place.warp];
  const uint32_t width = Tile::width(problem), head = place.unit % problem.heads * width;
  const T* image = static_cast<const T*>(problem.value) + place.batch * problem.image + head;
  float* grad_image = grads.value + place.batch * problem.image + head;
  const T* grad_output = static_cast<const T*>(grads.output) + (place.batch * problem.units + place.unit) * width;

  for (uint32_t first = 0; first < problem.samples; first += Tile::round) {
    __syncwarp();
    const Round round = stage_round(problem, place, first, stage);
    __syncwarp();
    const int count = min(problem.samples - first, uint32_t{Tile::round});
    for (uint32_t pass = 0; pass < width; pass += Tile::channels) {
      // Twice the same channels, dealt out for loads of `pack` and for additions of `addends`.
      constexpr uint32_t step = Tile::lanes * Tile::pack, add_step = Tile::lanes * addends;
      const uint32_t mine = pass + place.lane * Tile::pack, mine_to_add = pass + place.lane * addends;
      const T* pixels = settled(image + mine);
      float* grad_pixels = settled(grad_image + mine_to_add);
      float grad[Tile::pieces][Tile::pack], grad_to_add[additions][addends];
      const bool there = place.unit < problem.units;
      load_floats(grad_output, mine, step, there ? width : 0, grad);
      load_floats(grad_output, mine_to_add, add_step, there ? width : 0, grad_to_add);

      for (int s = 0; s < count; ++s) {
        const Corners<float> weights = stage.weights[place.row][s];
        const Corners<uint32_t> offsets = stage.offsets[place.row][s];
        float dots[4] = {};
#pragma unroll
        for (int n = 0; n < Tile::pieces; ++n) {
          const auto packs = load_corners<Tile::pack>(pixels + n * step, offsets, mine + n * step < width);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
#pragma unroll
            for (int i = 0; i < Tile::pack; ++i) dots[k] += grad[n][i] * channel(packs.at[k], i);
          }
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int n = 0; n < additions; ++n) {
            if (offsets.at[k] != kOutside && mine_to_add + n * add_step < width) {
              add(grad_pixels + offsets.at[k] + n * add_step, grad_to_add[n], weights.at[k]);
            }
          }
        }
        sum_over_lanes<Tile::lanes>(dots, place.lane);
        if (place.lane % sharers == 0) {
          float* sums = &stage.dots[place.row][s].at[place.lane / sharers * held];
#pragma unroll
          for (int k = 0; k < held; ++k) sums[k] = pass == 0 ? dots[k] : sums[k] + dots[k];
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Sample& sample = round.samples[i];
      if (sample.index < 0) continue;
      const Corners<float>& d = stage.dots[place.staged_row(i)][place.staged_column()];
      const SampleGradient by = gradient(sample.cell, {d.at[0], d.at[1], d.at[2], d.at[3]}, sample.attention,
                                         round.level.height, round.level.width);
      grads.locations[sample.index] = make_float2(by.x, by.y);
      grads.attention[sample.index] = by.attention;
    }
  }
}

}  // namespace vitdense
