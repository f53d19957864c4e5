// What the kernels of every vector width get and how they are called.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common.h"

namespace vitdense {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// The arguments of the operator: value (B, S, M, D), locations (B, Q, M, L, P, 2), weights (B, Q, M, L, P).
template <class T>
struct Arguments {
  int64_t pixels, heads, width, queries, points;
  const Level* levels;
  int64_t level_count;
  const T* value;
  const float *locations, *weights;
};

template <class T>
struct Gradients {
  const T* output;  // (B, Q, M * D)
  T* value;
  float *locations, *weights;
};

// A pixel that an output reads: where its row lies, counted from the first row of the image and head, and its weight.
template <class T>
struct Tap {
  const T* pixel;
  float weight;
};

template <class T>
struct Sample {
  int64_t pixel;
  Cell cell;
  bool inside, exists[4];
};

// The part of the backward pass that has its gradients for itself.
struct Task {
  int64_t image, head, begin_level, end_level;
};

template <class T>
struct Kernels {
  // Outputs of all heads for (image, query) number `begin` to `end`; `taps` has room for 4 * L * P.
  void (*forward)(const Arguments<T>&, int64_t begin, int64_t end, Tap<T>* taps, T* out);
  // `rows` has room for the pixels of the task's level times D.
  void (*backward)(const Arguments<T>&, const Gradients<T>&, const Task&, float* rows, Sample<T>* samples);
};

}  // namespace vitdense
