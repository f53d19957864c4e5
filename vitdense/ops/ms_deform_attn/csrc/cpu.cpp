// The operators vitdense_cpu::forward and vitdense_cpu::backward, on the stable ABI of PyTorch.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <tuple>
#include <vector>

#include "common.h"
#include "cpu.h"

#define VITDENSE_NAMESPACE width4
#define VITDENSE_TARGET
#define VITDENSE_WIDTH 4
#include "cpu_kernels.h"

#ifdef __x86_64__
#include <immintrin.h>

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
#ifdef __x86_64__
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 4;  // all with AVX2 have F16C
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
             ? 16
             : 8;
#else
  return 4;
#endif
}

// The widest vectors of which a head is made, unless the caller asks for others.
int64_t choose_width(int64_t asked, int64_t head_width) {
  const int64_t most = widest();
  STD_TORCH_CHECK(asked == 0 || ((asked == 4 || asked == 8 || asked == 16) && asked <= most),
                  "width: expected 4, 8 or 16 up to the ", most, " of this processor, or 0, found ", asked);
  if (asked != 0) return asked;
  int64_t width = most;
  while (width > 4 && head_width % width != 0) width /= 2;
  return width;
}

template <class T>
const Kernels<T>& kernels_of([[maybe_unused]] int64_t width) {
#ifdef __x86_64__
  if (width == 16) return width16::kernels<T>;
  if (width == 8) return width8::kernels<T>;
#endif
  return width4::kernels<T>;
}

std::vector<Level> to_levels(const std::vector<int64_t>& spatial_shapes, int64_t pixels) {
  STD_TORCH_CHECK(!spatial_shapes.empty() && spatial_shapes.size() % 2 == 0,
                  "spatial_shapes: expected a height and a width for each level, found ", spatial_shapes.size(),
                  " numbers");
  std::vector<Level> levels;
  int64_t start = 0;
  for (size_t i = 0; i < spatial_shapes.size(); i += 2) {
    const int64_t height = spatial_shapes[i], width = spatial_shapes[i + 1];
    STD_TORCH_CHECK(0 < height && height < INT32_MAX && 0 < width && width < INT32_MAX &&
                        height * width <= pixels - start,
                    "spatial_shapes: expected sizes for the ", pixels, " pixels of value, found ", height, " x ", width,
                    " from pixel ", start, " on");
    levels.push_back({static_cast<int32_t>(height), static_cast<int32_t>(width), start});
    start += height * width;
  }
  STD_TORCH_CHECK(start == pixels, "spatial_shapes: expected ", pixels, " pixels as in value, found ", start);
  return levels;
}

void check(const Tensor& tensor, const char* name, ScalarType dtype, const std::vector<int64_t>& sizes) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous() && tensor.scalar_type() == dtype, name,
                  ": expected a contiguous tensor on the CPU, float32 or of the type of value");
  const auto found = tensor.sizes();
  STD_TORCH_CHECK(std::equal(found.begin(), found.end(), sizes.begin(), sizes.end()), name,
                  ": its sizes do not fit the other arguments");
}

// The arguments of both passes, checked.
struct Inputs {
  const Tensor &value, &locations, &weights;
  std::vector<Level> levels;
  std::vector<int32_t> sites[3];  // height, width and start of the level of each sample of an output
  int64_t images, pixels, heads, width, queries, points;

  Inputs(const Tensor& value, const std::vector<int64_t>& spatial_shapes, const Tensor& locations,
         const Tensor& weights)
      : value(value), locations(locations), weights(weights) {
    STD_TORCH_CHECK(value.dim() == 4 && value.size(2) > 0 && value.size(3) > 0,
                    "value: expected (B, S, M, D) with at least one head and channel");
    STD_TORCH_CHECK(value.size(1) < INT32_MAX && value.size(2) * value.size(3) < INT32_MAX,
                    "value: expected fewer than 2**31 pixels, and numbers of a pixel, found ", value.size(1), " and ",
                    value.size(2) * value.size(3));
    STD_TORCH_CHECK(weights.dim() == 5, "attention_weights: expected (B, Q, M, L, P)");
    images = value.size(0), pixels = value.size(1), heads = value.size(2), width = value.size(3);
    queries = weights.size(1), points = weights.size(4);
    levels = to_levels(spatial_shapes, pixels);
    check(value, "value", value.scalar_type(), {images, pixels, heads, width});
    check(weights, "attention_weights", ScalarType::Float, {images, queries, heads, level_count(), points});
    check(locations, "sampling_locations", ScalarType::Float, {images, queries, heads, level_count(), points, 2});
    for (std::vector<int32_t>& site : sites) site.resize(samples() + 16);
    for (int64_t i = 0; i < samples(); ++i) {
      const Level& level = levels[i / points];
      sites[0][i] = level.height, sites[1][i] = level.width, sites[2][i] = static_cast<int32_t>(level.start);
    }
  }

  int64_t samples() const { return level_count() * points; }
  int64_t level_count() const { return static_cast<int64_t>(levels.size()); }

  template <class T>
  Arguments<T> arguments() const {
    return {pixels, heads, width, queries, samples(), {sites[0].data(), sites[1].data(), sites[2].data()},
            static_cast<const T*>(value.const_data_ptr()), static_cast<const float*>(locations.const_data_ptr()),
            static_cast<const float*>(weights.const_data_ptr())};
  }
};

// Calls `function` with a number of the type of `value`.
template <class F>
void with_type_of(const Tensor& value, const F& function) {
  switch (value.scalar_type()) {
    case ScalarType::Float: return function(float());
    case ScalarType::Half: return function(Half());
    case ScalarType::BFloat16: return function(BFloat16());
    default: STD_TORCH_CHECK(false, "value: expected float32, float16 or bfloat16");
  }
}

// From this many reads of each pixel on, it pays to copy the map of a head first: its pixels lie M * D numbers apart in
// `value`, where they fall on few sets of the caches and on many pages; the copy stays in the second-level cache.
constexpr int64_t kReadsToCopy = 8;

bool worth_copying(const Inputs& in) { return 4 * in.queries * in.samples() >= kReadsToCopy * in.pixels && in.heads > 1; }

struct alignas(64) CacheLine {
  char bytes[64];
};

template <class T>
std::unique_ptr<CacheLine[]> room_for(int64_t numbers) {
  return std::unique_ptr<CacheLine[]>(new CacheLine[numbers * sizeof(T) / sizeof(CacheLine) + 1]);
}

template <class T>
T* numbers_of(const std::unique_ptr<CacheLine[]>& room) {
  return reinterpret_cast<T*>(room.get());
}

// A head of an image after the other, a thread each. Where few are left for each thread, all maps are copied first, and
// threads share them. So the copies are never larger than `value`.
template <class T>
void forward_by_heads(const Inputs& in, const Arguments<T>& a, const Kernels<T>& kernels, T* out) {
  const int64_t pairs = in.images * in.heads, map = in.pixels * in.width;
  const int64_t threads = torch::stable::get_num_threads();
  const auto copy = [&](int64_t pair, T* to) {
    kernels.copy(a.map(pair / in.heads, pair % in.heads), a.stride(), in.pixels, in.width, to);
  };
  const auto run = [&](int64_t pair, int64_t begin, int64_t end, const T* copied) {
    const int64_t first = pair / in.heads * in.queries;
    kernels.forward(a, {first + begin, first + end, pair % in.heads, copied}, out);
  };
  if (threads == 1 || pairs >= 2 * threads) {
    std::atomic<int64_t> next{0};
    torch::stable::parallel_for(0, std::min(pairs, threads), 1, [&](int64_t, int64_t) {
      const auto room = room_for<T>(map);
      for (int64_t pair = next++; pair < pairs; pair = next++) {
        copy(pair, numbers_of<T>(room));
        run(pair, 0, in.queries, numbers_of<T>(room));
      }
    });
    return;
  }
  const auto room = room_for<T>(pairs * map);
  T* const copies = numbers_of<T>(room);
  torch::stable::parallel_for(0, pairs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) copy(pair, copies + pair * map);
  });
  torch::stable::parallel_for(0, pairs * in.queries, 64, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t pair = begin / in.queries, query = begin % in.queries;
      const int64_t count = std::min(in.queries - query, end - begin);
      run(pair, query, query + count, copies + pair * map);
      begin += count;
    }
  });
}

Tensor forward(Tensor value, std::vector<int64_t> spatial_shapes, Tensor locations, Tensor weights, int64_t width) {
  const Inputs in(value, spatial_shapes, locations, weights);
  Tensor out = torch::stable::new_empty(value, {in.images, in.queries, in.heads * in.width});
  with_type_of(value, [&](auto number) {
    using T = decltype(number);
    const Kernels<T>& kernels = kernels_of<T>(choose_width(width, in.width));
    const Arguments<T> arguments = in.arguments<T>();
    T* to = static_cast<T*>(out.mutable_data_ptr());
    if (worth_copying(in)) return forward_by_heads(in, arguments, kernels, to);
    torch::stable::parallel_for(0, in.images * in.queries, 64, [&](int64_t begin, int64_t end) {
      kernels.forward(arguments, {begin, end, 0, nullptr}, to);
    });
  });
  return out;
}

// An image and head each. Where these are fewer than the threads, a level each, the largest first.
std::vector<BackwardTask> backward_tasks(const Inputs& in, int64_t threads) {
  const int64_t pairs = in.images * in.heads, levels = pairs < threads ? 1 : in.level_count();
  std::vector<BackwardTask> tasks;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    for (int64_t l = 0; l < in.level_count(); l += levels) {
      const Level& first = in.levels[l];
      const Level& last = in.levels[l + levels - 1];
      const int64_t pixels = last.start + static_cast<int64_t>(last.height) * last.width - first.start;
      tasks.push_back(
          {pair / in.heads, pair % in.heads, l * in.points, (l + levels) * in.points, first.start, pixels});
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const BackwardTask& a, const BackwardTask& b) { return a.pixels > b.pixels; });
  return tasks;
}

std::tuple<Tensor, Tensor, Tensor> backward(Tensor grad_output, Tensor value, std::vector<int64_t> spatial_shapes,
                                            Tensor locations, Tensor weights, int64_t width) {
  const Inputs in(value, spatial_shapes, locations, weights);
  check(grad_output, "grad_output", value.scalar_type(), {in.images, in.queries, in.heads * in.width});
  Tensor grad_value = torch::stable::empty_like(value);
  Tensor grad_locations = torch::stable::empty_like(locations), grad_weights = torch::stable::empty_like(weights);
  const int64_t threads = torch::stable::get_num_threads();
  const std::vector<BackwardTask> tasks = backward_tasks(in, threads);
  const int64_t count = static_cast<int64_t>(tasks.size());
  with_type_of(value, [&](auto number) {
    using T = decltype(number);
    const Kernels<T>& kernels = kernels_of<T>(choose_width(width, in.width));
    const Arguments<T> arguments = in.arguments<T>();
    const Gradients<T> gradients = {
        static_cast<const T*>(grad_output.const_data_ptr()), static_cast<T*>(grad_value.mutable_data_ptr()),
        static_cast<float*>(grad_locations.mutable_data_ptr()), static_cast<float*>(grad_weights.mutable_data_ptr())};
    std::atomic<int64_t> next{0};
    torch::stable::parallel_for(0, std::min(count, threads), 1, [&](int64_t, int64_t) {
      std::unique_ptr<CacheLine[]> grad_rows, copy;
      for (int64_t i = next++; i < count; i = next++) {
        if (!grad_rows) {  // the first task of a thread is its largest: all rooms together hold the tasks once
          const int64_t numbers = tasks[i].pixels * in.width;
          grad_rows = room_for<float>(numbers + 4 * in.width);
          if (worth_copying(in)) copy = room_for<T>(numbers);
        }
        kernels.backward(arguments, gradients, tasks[i], numbers_of<float>(grad_rows) + 4 * in.width,
                         numbers_of<T>(copy));
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
