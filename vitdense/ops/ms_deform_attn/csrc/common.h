// Where a sample lies, and its derivatives: a sample at a time. cpu_samples.h has the same for vectors of samples.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define VITDENSE_FUNCTION __host__ __device__ __forceinline__
#else
#define VITDENSE_FUNCTION inline
#endif

namespace vitdense {

struct Level {
  int32_t height, width;
  int64_t start;  // of its pixels among the S of an image
};

// The four pixels around a sample: (y, x) is the upper left one, fy and fx in [0, 1) are the shares of the lower and the
// right ones.
struct Cell {
  int32_t y, x;
  float fy, fx;

  VITDENSE_FUNCTION bool has_top() const { return y >= 0; }
  VITDENSE_FUNCTION bool has_left() const { return x >= 0; }
  VITDENSE_FUNCTION bool has_bottom(int32_t height) const { return y + 1 < height; }
  VITDENSE_FUNCTION bool has_right(int32_t width) const { return x + 1 < width; }
};

// Pixel centres lie at (i + 0.5) / size. False where no pixel is in reach; comparisons with NaN are false as well.
VITDENSE_FUNCTION bool find_cell(float loc_x, float loc_y, int32_t height, int32_t width, Cell& cell) {
  const float x = loc_x * static_cast<float>(width) - 0.5f;
  const float y = loc_y * static_cast<float>(height) - 0.5f;
  if (!(x > -1.0f && y > -1.0f && x < static_cast<float>(width) && y < static_cast<float>(height))) return false;
  const float left = floorf(x), top = floorf(y);
  cell = {static_cast<int32_t>(top), static_cast<int32_t>(left), y - top, x - left};
  return true;
}

// Bilinear shares of the four pixels times the attention weight; they add up to it.
struct Weights {
  float top_left, top_right, bottom_left, bottom_right;
};

VITDENSE_FUNCTION Weights weigh(const Cell& cell, float attention) {
  const float bottom_right = cell.fy * cell.fx * attention;
  const float bottom_left = cell.fy * attention - bottom_right;
  const float top_right = cell.fx * attention - bottom_right;
  return {attention - top_right - bottom_left - bottom_right, top_right, bottom_left, bottom_right};
}

// Dot products of the gradient of the output with the four pixels; 0 for a pixel outside.
struct Dots {
  float top_left, top_right, bottom_left, bottom_right;
};

struct SampleGradient {
  float x, y, attention;  // by the normalised location, and by the attention weight
};

VITDENSE_FUNCTION SampleGradient gradient(
    const Cell& cell, const Dots& d, float attention, int32_t height, int32_t width) {
  const float gx = 1.0f - cell.fx, gy = 1.0f - cell.fy;
  return {
      attention * static_cast<float>(width) *
          (gy * (d.top_right - d.top_left) + cell.fy * (d.bottom_right - d.bottom_left)),
      attention * static_cast<float>(height) *
          (gx * (d.bottom_left - d.top_left) + cell.fx * (d.bottom_right - d.top_right)),
      gy * (gx * d.top_left + cell.fx * d.top_right) + cell.fy * (gx * d.bottom_left + cell.fx * d.bottom_right)};
}

}  // namespace vitdense
