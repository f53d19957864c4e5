// The operators vitdense_cpu::forward and ::backward, on PyTorch's stable ABI.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <tuple>
#include <vector>

#include "cpu.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#define VITDENSE_X86
#endif

#define VITDENSE_NAMESPACE width4
#define VITDENSE_TARGET
#define VITDENSE_WIDTH 4
#include "cpu_kernels.h"

#ifdef VITDENSE_X86
#define VITDENSE_NAMESPACE width8
#define VITDENSE_TARGET __attribute__((target("avx2,fma,f16c")))
#define VITDENSE_WIDTH 8
#include "cpu_kernels.h"

#define VITDENSE_NAMESPACE width16
#define VITDENSE_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define VITDENSE_WIDTH 16
#include "cpu_kernels.h"
#endif

namespace vitdense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

int64_t widest() {
#ifdef VITDENSE_X86
  static const int64_t width = [] {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return 4;
    for (const bool has : {__builtin_cpu_supports("avx512f") != 0, __builtin_cpu_supports("avx512bw") != 0,
                           __builtin_cpu_supports("avx512dq") != 0, __builtin_cpu_supports("avx512vl") != 0}) {
      if (!has) return 8;
    }
    return 16;
  }();
  return width;
#else
  return 4;
#endif
}

// The widest vectors up to `preferred` of which a head is made.
int64_t choose(int64_t asked, int64_t preferred, int64_t head_width) {
  STD_TORCH_CHECK(asked == 0 || ((asked == 4 || asked == 8 || asked == 16) && asked <= widest()),
                  "width: expected 0, or 4, 8 or 16 up to the ", widest(), " of this processor, found ", asked);
  if (asked != 0) return asked;
  int64_t width = std::min(preferred, widest());
  while (width > 4 && head_width % width != 0) width /= 2;
  return width;
}

template <class T>
const Kernels<T>& kernels_of(int64_t width) {
#ifdef VITDENSE_X86
  if (width == 16) return width16::kernels<T>;
  if (width == 8) return width8::kernels<T>;
#endif
  return width4::kernels<T>;
}

std::vector<Level> to_levels(const std::vector<int64_t>& spatial_shapes, int64_t pixels) {
  std::vector<Level> levels;
  int64_t start = 0;
  for (size_t i = 0; i + 1 < spatial_shapes.size(); i += 2) {
    const int64_t height = spatial_shapes[i], width = spatial_shapes[i + 1];
    STD_TORCH_CHECK(0 < height && height <= INT32_MAX && 0 < width && width <= INT32_MAX,
                    "spatial_shapes: expected sizes from 1 to 2^31 - 1, found ", height, " x ", width);
    levels.push_back({static_cast<int32_t>(height), static_cast<int32_t>(width), start});
    start += height * width;
  }
  STD_TORCH_CHECK(spatial_shapes.size() % 2 == 0 && !levels.empty(), "spatial_shapes: expected heights and widths");
  STD_TORCH_CHECK(start == pixels, "spatial_shapes: expected ", pixels, " pixels as in value, found ", start);
  return levels;
}

void check(const Tensor& tensor, const char* name, ScalarType dtype, const std::vector<int64_t>& sizes) {
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, name, ": expected another dtype than ",
                  static_cast<int>(tensor.scalar_type()));
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous(), name, ": expected a contiguous tensor on the CPU");
  bool fits = tensor.dim() == static_cast<int64_t>(sizes.size());
  for (size_t i = 0; fits && i < sizes.size(); ++i) fits = tensor.size(i) == sizes[i];
  STD_TORCH_CHECK(fits, name, ": its sizes do not fit the other arguments");
}

struct Call {
  std::vector<Level> levels;
  int64_t images, pixels, heads, width, queries, points;

  Call(const Tensor& value, const std::vector<int64_t>& spatial_shapes, const Tensor& locations, const Tensor& weights) {
    STD_TORCH_CHECK(value.dim() == 4, "value: expected (B, S, M, D)");
    STD_TORCH_CHECK(weights.dim() == 5, "attention_weights: expected (B, Q, M, L, P)");
    images = value.size(0), pixels = value.size(1), heads = value.size(2), width = value.size(3);
    queries = weights.size(1), points = weights.size(4);
    levels = to_levels(spatial_shapes, pixels);
    const int64_t count = static_cast<int64_t>(levels.size());
    check(value, "value", value.scalar_type(), {images, pixels, heads, width});
    check(weights, "attention_weights", ScalarType::Float, {images, queries, heads, count, points});
    check(locations, "sampling_locations", ScalarType::Float, {images, queries, heads, count, points, 2});
  }

  template <class T>
  Arguments<T> arguments(const Tensor& value, const Tensor& locations, const Tensor& weights) const {
    return {pixels, heads, width, queries, points, levels.data(), static_cast<int64_t>(levels.size()),
            static_cast<const T*>(value.const_data_ptr()), static_cast<const float*>(locations.const_data_ptr()),
            static_cast<const float*>(weights.const_data_ptr())};
  }
};

// Calls `function` with a number of the C++ type of `dtype`.
template <class F>
void with_type(ScalarType dtype, const F& function) {
  if (dtype == ScalarType::Float) return function(float());
  if (dtype == ScalarType::Half) return function(Half());
  if (dtype == ScalarType::BFloat16) return function(BFloat16());
  STD_TORCH_CHECK(false, "value: expected float32, float16 or bfloat16");
}

Tensor forward(Tensor value, std::vector<int64_t> spatial_shapes, Tensor locations, Tensor weights, int64_t width) {
  const Call call(value, spatial_shapes, locations, weights);
  Tensor out = torch::stable::new_empty(value, {call.images, call.queries, call.heads * call.width});
  with_type(value.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const Arguments<T> arguments = call.arguments<T>(value, locations, weights);
    const Kernels<T>& kernels = kernels_of<T>(choose(width, 8, call.width));
    T* to = static_cast<T*>(out.mutable_data_ptr());
    torch::stable::parallel_for(0, call.images * call.queries, 64, [&](int64_t begin, int64_t end) {
      std::vector<Tap<T>> taps(4 * call.levels.size() * call.points + 1);
      kernels.forward(arguments, begin, end, taps.data(), to);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> backward(
    Tensor grad_output, Tensor value, std::vector<int64_t> spatial_shapes, Tensor locations, Tensor weights,
    int64_t width) {
  const Call call(value, spatial_shapes, locations, weights);
  check(grad_output, "grad_output", value.scalar_type(), {call.images, call.queries, call.heads * call.width});
  Tensor grad_value = torch::stable::empty_like(value);
  Tensor grad_locations = torch::stable::empty_like(locations);
  Tensor grad_weights = torch::stable::empty_like(weights);

  const int64_t threads = torch::stable::get_num_threads(), pairs = call.images * call.heads;
  const int64_t L=call.levels.size(), levels = getenv("SPLIT") || pairs < threads ? 1 : L;
  const auto size = [&](const Task& task) {
    const Level& level = call.levels[task.end_level-1];
    return level.start - call.levels[task.begin_level].start + static_cast<int64_t>(level.height) * level.width;
  };
  std::vector<Task> tasks;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    for (int64_t level = 0; level < L; level += levels) {
      tasks.push_back({pair / call.heads, pair % call.heads, level, level + levels});
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(), [&](const Task& a, const Task& b) { return size(a) > size(b); });

  with_type(value.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const Arguments<T> arguments = call.arguments<T>(value, locations, weights);
    const Gradients<T> gradients = {
        static_cast<const T*>(grad_output.const_data_ptr()), static_cast<T*>(grad_value.mutable_data_ptr()),
        static_cast<float*>(grad_locations.mutable_data_ptr()), static_cast<float*>(grad_weights.mutable_data_ptr())};
    const Kernels<T>& kernels = kernels_of<T>(choose(width, 16, call.width));
    const int64_t count = static_cast<int64_t>(tasks.size());
    std::atomic<int64_t> next{0};
    torch::stable::parallel_for(
        0, std::min(count, threads), 1, [&](int64_t, int64_t) {
          std::vector<float> rows; std::vector<Sample<T>> samples(L*call.points);
          for (int64_t i = next++; i < count; i = next++) {
            rows.resize(std::max<size_t>(rows.size(), size(tasks[i]) * call.width + 16));
            kernels.backward(arguments, gradients, tasks[i], (float*)(((uintptr_t)rows.data()+63)&~63ull), samples.data());
          }
        });
  });
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY(vitdense_cpu, m) {
  m.def(
      "forward(Tensor value, int[] spatial_shapes, Tensor sampling_locations, Tensor attention_weights, int width=0) "
      "-> Tensor");
  m.def(
      "backward(Tensor grad_output, Tensor value, int[] spatial_shapes, Tensor sampling_locations, "
      "Tensor attention_weights, int width=0) -> (Tensor, Tensor, Tensor)");
  m.def("widest() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(vitdense_cpu, CPU, m) {
  m.impl("forward", TORCH_BOX(&forward));
  m.impl("backward", TORCH_BOX(&backward));
}

STABLE_TORCH_LIBRARY_IMPL(vitdense_cpu, CompositeExplicitAutograd, m) { m.impl("widest", TORCH_BOX(&widest)); }

}  // namespace vitdense
