// The backward pass; part of cpu_kernels.h, so without an include guard.

// What a task reads and writes for one query: `row` of the output and its gradient, and the samples from `index` on.
template <class T>
VITDENSE_INLINE void prefetch_query(const Arguments<T>& a, const Gradients<T>& g, int64_t row, int64_t index) {
  prefetch(g.output + row * a.width, a.width);
  prefetch_samples(a, index);
  prefetch(g.locations + index * 2, 32);
  prefetch(g.weights + index, 16);
}

// Of a sample: its four pixels, their gradients and weights.
template <class T>
struct Corners {
  const T* rows[4];
  float *grads[4], weights[4];
};

// `N` vectors from channel `c` on: adds to the products of `grad_output` with the four pixels, and to their gradients.
template <int N, class T>
VITDENSE_INLINE void scatter(const Corners<T>& corners, const T* grad_output, int64_t c, Vector products[4]) {
  Vector grad[N];
  for (int n = 0; n < N; ++n) grad[n] = load(grad_output + c + n * kWidth);
  for (int k = 0; k < 4; ++k) {
    const T* row = corners.rows[k] + c;
    float* to = corners.grads[k] + c;
    for (int n = 0; n < N; ++n) products[k] += grad[n] * load(row + n * kWidth);
    for (int n = 0; n < N; ++n) store(to + n * kWidth, load(to + n * kWidth) + corners.weights[k] * grad[n]);
  }
}

// Adds to the gradients of a sample's pixels. Returns the products of `grad_output` with the pixels.
template <class T>
VITDENSE_INLINE Quad scatter(const Corners<T>& corners, const T* grad_output, int64_t width) {
  Vector products[4] = {};
  int64_t c = 0;
  for (; c + kBlock * kWidth <= width; c += kBlock * kWidth) scatter<kBlock>(corners, grad_output, c, products);
  for (; c + kWidth <= width; c += kWidth) scatter<1>(corners, grad_output, c, products);
  Quad dots = sums(products);
  for (; c < width; ++c) {
    const float grad = grad_output[c];
    for (int k = 0; k < 4; ++k) {
      dots[k] += grad * static_cast<float>(corners.rows[k][c]);
      corners.grads[k][c] += corners.weights[k] * grad;
    }
  }
  return dots;
}

// Gradients by the locations and weights of the `count` samples from `index` on, of the products with their pixels.
template <class T>
VITDENSE_INLINE void differentiate(const Arguments<T>& a, const Gradients<T>& g, const Chunk<T>& chunk,
                                   const float (&dots)[kWidth][4], int64_t index, int64_t site, int64_t count) {
  float by_corner[4][kWidth], by_location[kWidth][2], by_weight[kWidth];
  for (int k = 0; k < 4; ++k) {
    for (int s = 0; s < kWidth; ++s) by_corner[k][s] = dots[s][k];
  }
  const Vector top_left = load(by_corner[0]), top_right = load(by_corner[1]);
  const Vector bottom_left = load(by_corner[2]), bottom_right = load(by_corner[3]);
  const Vector fx = load(chunk.fx), fy = load(chunk.fy), gx = 1 - fx, gy = 1 - fy, weight = load(chunk.attention);
  const Vector rows = __builtin_convertvector(load(a.sites.height + site), Vector);
  const Vector columns = __builtin_convertvector(load(a.sites.width + site), Vector);
  const Vector x = weight * columns * (gy * (top_right - top_left) + fy * (bottom_right - bottom_left));
  const Vector y = weight * rows * (gx * (bottom_left - top_left) + fx * (bottom_right - top_right));
  const Vector attention = gy * (gx * top_left + fx * top_right) + fy * (gx * bottom_left + fx * bottom_right);
  const Integers inside = load(chunk.inside);
  store(by_corner[0], masked(x, inside));
  store(by_corner[1], masked(y, inside));
  store(by_weight, masked(attention, inside));
  for (int s = 0; s < kWidth; ++s) by_location[s][0] = by_corner[0][s], by_location[s][1] = by_corner[1][s];
  __builtin_memcpy(g.locations + 2 * index, by_location, count * sizeof *by_location);
  __builtin_memcpy(g.weights + index, by_weight, count * sizeof *by_weight);
}

template <class T>
VITDENSE_TARGET void backward(const Arguments<T>& a, const Gradients<T>& g, const BackwardTask& task, float* grad_rows,
                              T* copied) {
  const int64_t samples = task.end - task.begin, chunks = (samples + kWidth - 1) / kWidth;
  const int64_t begin = task.image * a.queries * a.heads + task.head, end = begin + a.queries * a.heads;
  const std::unique_ptr<Chunk<T>[]> room(new Chunk<T>[2 * chunks]);
  const std::unique_ptr<T[]> zeros(new T[a.width]());
  const std::unique_ptr<float[]> waste(new float[4 * a.width]());  // gradients of pixels that are not there
  Chunk<T>*listed = room.get(), *next = listed + chunks;
  Map<T> map = {a.map(task.image, task.head) + task.first_pixel * a.stride(), a.stride(), zeros.get()};
  if (copied) {
    copy(map.first, a.stride(), task.pixels, a.width, copied);
    map.first = copied, map.stride = a.width;
  }
  __builtin_memset(grad_rows, 0, task.pixels * a.width * sizeof(float));
  const auto grad_of = [&](int64_t k, int64_t pixel) VITDENSE_TARGET {
    return pixel < 0 ? waste.get() + k * a.width : grad_rows + pixel * a.width;
  };
  const auto list = [&](int64_t row, Chunk<T>* to) VITDENSE_TARGET {
    for (int64_t s = task.begin; s < task.end; s += kWidth, ++to) {
      const int64_t count = task.end - s < kWidth ? task.end - s : kWidth;
      locate(a, row * a.samples + s, s, static_cast<int32_t>(task.first_pixel), count, *to);
      point_to(map, *to);
      prefetch_rows(*to, count, a.width);
      for (int k = 0; k < 4; ++k) {
        for (int64_t i = 0; i < count; ++i) prefetch<2>(grad_of(k, to->pixels[k][i]), a.width);
      }
    }
  };
  if (begin < end) list(begin, next);
  for (int64_t row = begin; row < end; row += a.heads) {
    const int64_t ahead = row + kAhead * a.heads;
    prefetch_query(a, g, ahead, ahead * a.samples + task.begin);
    Chunk<T>* const now = next;
    next = listed, listed = now;
    if (row + a.heads < end) list(row + a.heads, next);
    for (int64_t s = task.begin; s < task.end; s += kWidth) {
      const int64_t count = task.end - s < kWidth ? task.end - s : kWidth;
      const Chunk<T>& chunk = now[(s - task.begin) / kWidth];
      float dots[kWidth][4] = {};
      for (int64_t i = 0; i < count; ++i) {
        Corners<T> corners;
        for (int k = 0; k < 4; ++k) {
          corners.rows[k] = chunk.rows[k][i], corners.weights[k] = chunk.weights[k][i];
          corners.grads[k] = grad_of(k, chunk.pixels[k][i]);
        }
        const Quad dot = scatter(corners, g.output + row * a.width, a.width);
        __builtin_memcpy(dots[i], &dot, sizeof dot);
      }
      differentiate(a, g, chunk, dots, row * a.samples + s, s, count);
    }
  }
  T* grad_value = g.value + (task.image * a.pixels + task.first_pixel) * a.stride() + task.head * a.width;
  for (int64_t i = 0; i < task.pixels; ++i) {
    const float* from = grad_rows + i * a.width;
    T* to = grad_value + i * a.stride();
    int64_t c = 0;
    for (; c + kWidth <= a.width; c += kWidth) store(to + c, load(from + c));
    for (; c < a.width; ++c) to[c] = from[c];
  }
}
