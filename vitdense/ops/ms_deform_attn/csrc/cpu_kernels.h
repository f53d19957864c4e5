// The kernels for one set of instructions: vectors of VITDENSE_WIDTH floats, functions with the attribute
// VITDENSE_TARGET, in the namespace VITDENSE_NAMESPACE. cpu.cpp includes this once for each. The width cannot be an
// argument of templates: where a function lacks the attribute, its wide vectors are taken apart before it is inlined.

#define VITDENSE_INLINE VITDENSE_TARGET __attribute__((always_inline)) inline

namespace vitdense::VITDENSE_NAMESPACE {

#include "cpu_vector.h"

constexpr int kBlock = 32 / kWidth;  // vectors held in registers; most heads have 32 channels
constexpr int64_t kAhead = 8;        // queries from the reading of memory to its use

// Up to 128 bytes of a row of D numbers.
template <class T>
VITDENSE_INLINE void prefetch(const T* row, int64_t width) {
  __builtin_prefetch(row);
  if (width * sizeof(T) > 64) __builtin_prefetch(row + 64 / sizeof(T));
}

VITDENSE_INLINE bool in_image(const Cell& cell, const Level& level) {
  return cell.has_top() && cell.has_left() && cell.has_bottom(level.height) && cell.has_right(level.width);
}

// Lists the pixels that output number `i` of the B * Q * M reads, and has them fetched. Returns how many they are.
template <class T>
VITDENSE_INLINE int64_t list_taps(const Arguments<T>& a, int64_t i, Tap<T>* taps) {
  const int64_t image = i / (a.queries * a.heads), head = i % a.heads, right = a.heads * a.width;
  const T* value = a.value + image * a.pixels * right + head * a.width;
  int64_t sample = i * a.level_count * a.points, count = 0;
  for (int64_t l = 0; l < a.level_count; ++l) {
    const Level level = a.levels[l];
    const int64_t below = level.width * right;
    for (int64_t p = 0; p < a.points; ++p, ++sample) {
      const float* location = a.locations + sample * 2;
      Cell cell;
      if (!find_cell(location[0], location[1], level.height, level.width, cell)) continue;
      const Weights w = weigh(cell, a.weights[sample]);
      const int64_t offset = level.start * right + cell.y * below + cell.x * right;
      if (in_image(cell, level)) {
        const T *upper = value + offset, *lower = upper + below;
        taps[count] = {upper, w.top_left};
        taps[count + 1] = {upper + right, w.top_right};
        taps[count + 2] = {lower, w.bottom_left};
        taps[count + 3] = {lower + right, w.bottom_right};
        for (int k = 0; k < 4; ++k) prefetch(taps[count + k].row, a.width);
        count += 4;
        continue;
      }
      const bool has_left = cell.has_left(), has_right = cell.has_right(level.width);
      if (cell.has_top() && has_left) taps[count++] = {value + offset, w.top_left};
      if (cell.has_top() && has_right) taps[count++] = {value + offset + right, w.top_right};
      if (!cell.has_bottom(level.height)) continue;
      if (has_left) taps[count++] = {value + offset + below, w.bottom_left};
      if (has_right) taps[count++] = {value + offset + below + right, w.bottom_right};
    }
  }
  return count;
}

// `N` vectors of an output, from channel `c` on.
template <int N, class T>
VITDENSE_INLINE void gather(const Tap<T>* taps, int64_t count, int64_t c, T* out) {
  Vector even[N] = {}, odd[N] = {};  // a single sum would wait for its last addition
  int64_t i = 0;
  for (; i + 1 < count; i += 2) {
    for (int n = 0; n < N; ++n) {
      even[n] += taps[i].weight * load(taps[i].row + c + n * kWidth);
      odd[n] += taps[i + 1].weight * load(taps[i + 1].row + c + n * kWidth);
    }
  }
  for (int n = 0; n < N; ++n) {
    if (i < count) even[n] += taps[i].weight * load(taps[i].row + c + n * kWidth);
    store(out + c + n * kWidth, even[n] + odd[n]);
  }
}

template <class T>
VITDENSE_TARGET void forward(const Arguments<T>& a, int64_t begin, int64_t end, Tap<T>* taps, T* out) {
  Tap<T>* next = taps + 4 * a.level_count * a.points;
  int64_t next_count = list_taps(a, begin * a.heads, next);
  for (int64_t i = begin * a.heads; i < end * a.heads; ++i) {
    const int64_t count = next_count;
    Tap<T>* const listed = next;
    next = taps, taps = listed;
    if (i + 1 < end * a.heads) next_count = list_taps(a, i + 1, next);  // fetched while this output is summed
    T* row = out + i * a.width;
    int64_t c = 0;
    for (; c + kBlock * kWidth <= a.width; c += kBlock * kWidth) gather<kBlock>(taps, count, c, row);
    for (; c + kWidth <= a.width; c += kWidth) gather<1>(taps, count, c, row);
    for (; c < a.width; ++c) {
      float sum = 0;
      for (int64_t k = 0; k < count; ++k) sum += taps[k].weight * static_cast<float>(taps[k].row[c]);
      row[c] = sum;
    }
  }
}

// `N` vectors from channel `c` on: adds to the products of `grad_output` with the four values, and to their gradients.
template <int N, class T>
VITDENSE_INLINE void scatter(const Sample<T>& sample, const T* grad_output, int64_t c, Vector products[4]) {
  Vector grad[N];
  for (int n = 0; n < N; ++n) grad[n] = load(grad_output + c + n * kWidth);
  for (int k = 0; k < 4; ++k) {
    if (!sample.exists[k]) continue;
    const T* value = sample.value[k] + c;
    float* to = sample.grad[k] + c;
    for (int n = 0; n < N; ++n) products[k] += grad[n] * load(value + n * kWidth);
    for (int n = 0; n < N; ++n) store(to + n * kWidth, load(to + n * kWidth) + sample.weight[k] * grad[n]);
  }
}

template <class T>
VITDENSE_INLINE Dots scatter(const Sample<T>& sample, const T* grad_output, int64_t width) {
  Vector products[4] = {};
  int64_t c = 0;
  for (; c + kBlock * kWidth <= width; c += kBlock * kWidth) scatter<kBlock>(sample, grad_output, c, products);
  for (; c + kWidth <= width; c += kWidth) scatter<1>(sample, grad_output, c, products);
  Quad dots = sums(products);
  for (; c < width; ++c) {
    const float grad = grad_output[c];
    for (int k = 0; k < 4; ++k) {
      if (!sample.exists[k]) continue;
      dots[k] += grad * static_cast<float>(sample.value[k][c]);
      sample.grad[k][c] += sample.weight[k] * grad;
    }
  }
  return {dots[0], dots[1], dots[2], dots[3]};
}

// What a task reads and writes for one query: `row` of the output and its gradient, and the samples from `index` on.
template <class T>
VITDENSE_INLINE void prefetch_query(const Arguments<T>& a, const Gradients<T>& g, int64_t row, int64_t index) {
  prefetch(g.output + row * a.width, a.width);
  prefetch(a.locations + index * 2, 32);
  prefetch(g.locations + index * 2, 32);
  __builtin_prefetch(a.weights + index);
  __builtin_prefetch(g.weights + index);
}

// Finds the pixels of a sample and has them fetched. `value` and `grad` point to the level's first pixel.
template <class T>
VITDENSE_INLINE void find_sample(const Arguments<T>& a, const Level& level, int64_t index, const T* value, float* grad,
                                 Sample<T>& sample) {
  const float* location = a.locations + index * 2;
  sample.inside = find_cell(location[0], location[1], level.height, level.width, sample.cell);
  if (!sample.inside) return;
  const Cell cell = sample.cell;
  const Weights w = weigh(cell, a.weights[index]);
  const int64_t pixel = static_cast<int64_t>(cell.y) * level.width + cell.x;
  const int64_t pixels[4] = {pixel, pixel + 1, pixel + level.width, pixel + level.width + 1};
  const float weights[4] = {w.top_left, w.top_right, w.bottom_left, w.bottom_right};
  const bool top = cell.has_top(), bottom = cell.has_bottom(level.height);
  const bool left = cell.has_left(), right = cell.has_right(level.width);
  const bool exists[4] = {top && left, top && right, bottom && left, bottom && right};
  for (int k = 0; k < 4; ++k) {
    sample.exists[k] = exists[k];
    if (!exists[k]) continue;
    sample.weight[k] = weights[k];
    sample.value[k] = value + pixels[k] * a.heads * a.width;
    sample.grad[k] = grad + pixels[k] * a.width;
    prefetch(sample.value[k], a.width);
    prefetch(sample.grad[k], a.width);
  }
}

// The samples of one query that are the task's, number `first` and following.
template <class T>
VITDENSE_INLINE void find_samples(const Arguments<T>& a, const Task& task, int64_t first, float* grad_rows,
                                  Sample<T>* samples) {
  const int64_t stride = a.heads * a.width;
  const T* value = a.value + task.image * a.pixels * stride + task.head * a.width;
  for (int64_t l = task.begin_level, i = 0; l < task.end_level; ++l) {
    const Level level = a.levels[l];
    float* grad = grad_rows + (level.start - task.first_pixel) * a.width;
    for (int64_t p = 0; p < a.points; ++p, ++i) {
      find_sample(a, level, first + i, value + level.start * stride, grad, samples[i]);
    }
  }
}

template <class T>
VITDENSE_TARGET void backward(const Arguments<T>& a, const Gradients<T>& g, const Task& task, float* grad_rows,
                              Sample<T>* samples) {
  const int64_t query_samples = a.heads * a.level_count * a.points;
  int64_t row = task.image * a.queries * a.heads + task.head;  // of the B * Q * M
  int64_t first = (row * a.level_count + task.begin_level) * a.points;
  __builtin_memset(grad_rows, 0, task.pixels * a.width * sizeof(float));
  for (int64_t q = 0; q < a.queries; ++q, row += a.heads, first += query_samples) {
    if (q + kAhead < a.queries) prefetch_query(a, g, row + kAhead * a.heads, first + kAhead * query_samples);
    find_samples(a, task, first, grad_rows, samples);
    for (int64_t l = task.begin_level, i = 0; l < task.end_level; ++l) {
      const Level level = a.levels[l];
      for (int64_t p = 0; p < a.points; ++p, ++i) {
        SampleGradient grad = {};
        if (samples[i].inside) {
          const Dots dots = scatter(samples[i], g.output + row * a.width, a.width);
          grad = gradient(samples[i].cell, dots, a.weights[first + i], level.height, level.width);
        }
        g.locations[(first + i) * 2] = grad.x;
        g.locations[(first + i) * 2 + 1] = grad.y;
        g.weights[first + i] = grad.attention;
      }
    }
  }
  const int64_t stride = a.heads * a.width;
  T* grad_value = g.value + (task.image * a.pixels + task.first_pixel) * stride + task.head * a.width;
  for (int64_t i = 0; i < task.pixels; ++i) {
    const float* from = grad_rows + i * a.width;
    T* to = grad_value + i * stride;
    int64_t c = 0;
    for (; c + kWidth <= a.width; c += kWidth) store(to + c, load(from + c));
    for (; c < a.width; ++c) to[c] = from[c];
  }
}

template <class T>
constexpr Kernels<T> kernels = {forward<T>, backward<T>};

}  // namespace vitdense::VITDENSE_NAMESPACE

#undef VITDENSE_INLINE
#undef VITDENSE_NAMESPACE
#undef VITDENSE_TARGET
#undef VITDENSE_WIDTH
