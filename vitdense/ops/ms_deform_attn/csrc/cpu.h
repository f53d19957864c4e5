// What the kernels of every vector width are given.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common.h"

namespace vitdense {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// value (B, S, M, D), locations (B, Q, M, L, P, 2) and weights (B, Q, M, L, P).
template <class T>
struct Arguments {
  int64_t pixels, heads, width, queries, points, level_count;
  const Level* levels;
  const T* value;
  const float *locations, *weights;
};

// The gradient of the output (B, Q, M * D), and where those of the arguments go.
template <class T>
struct Gradients {
  const T* output;
  T* value;
  float *locations, *weights;
};

// A pixel that an output reads.
template <class T>
struct Tap {
  const T* row;
  float weight;
};

// A sample of the backward pass, and its four pixels: whether they exist, their weights, values and gradients.
template <class T>
struct Sample {
  Cell cell;
  bool inside, exists[4];
  float weight[4];
  const T* value[4];
  float* grad[4];
};

// A part of the backward pass; nothing else writes what it writes.
struct Task {
  int64_t image, head, begin_level, end_level, first_pixel, pixels;
};

template <class T>
struct Kernels {
  // All heads of the queries number `begin` to `end` of the B * Q, at least one; `taps` has room for 8 * L * P.
  void (*forward)(const Arguments<T>&, int64_t begin, int64_t end, Tap<T>* taps, T* out);
  // `grad_rows` has room for D numbers of each pixel of the task, `samples` for the task's levels times P.
  void (*backward)(const Arguments<T>&, const Gradients<T>&, const Task&, float* grad_rows, Sample<T>* samples);
};

}  // namespace vitdense
