// What the kernels of every vector width are given.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>

namespace vitdense {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// The level of each sample of an output, L * P of them and as many more as a vector reaches beyond.
struct Sites {
  const int32_t *height, *width, *start;
};

// value (B, S, M, D), locations (B, Q, M, L, P, 2) and weights (B, Q, M, L, P).
template <class T>
struct Arguments {
  int64_t pixels, heads, width, queries, samples;  // samples: L * P
  Sites sites;
  const T* value;
  const float *locations, *weights;

  int64_t stride() const { return heads * width; }
  const T* map(int64_t image, int64_t head) const { return value + image * pixels * stride() + head * width; }
};

// The gradient of the output (B, Q, M * D), and where those of the arguments go.
template <class T>
struct Gradients {
  const T* output;
  T* value;
  float *locations, *weights;
};

// Queries number `begin` to `end` of the B * Q: of all heads, or of one image and head, whose map `copy` holds.
template <class T>
struct ForwardTask {
  int64_t begin, end, head;
  const T* copy;  // (S, D), or null
};

// Samples number `begin` to `end` of each query of an image and head, which read the `pixels` from `first_pixel` on:
// one or all levels. Nothing else writes what the task writes.
struct BackwardTask {
  int64_t image, head, begin, end, first_pixel, pixels;
};

template <class T>
struct Kernels {
  void (*forward)(const Arguments<T>&, const ForwardTask<T>&, T* out);
  // `grad_rows` has room for D numbers of each pixel of the task, and of four before the first, which stand for those
  // that do not exist. `copy` has room for the pixels, too, and may be null.
  void (*backward)(const Arguments<T>&, const Gradients<T>&, const BackwardTask&, float* grad_rows, T* copy);
  // Rows of D numbers that lie `stride` apart, to rows without gaps.
  void (*copy)(const T* from, int64_t stride, int64_t rows, int64_t width, T* to);
};

}  // namespace vitdense
