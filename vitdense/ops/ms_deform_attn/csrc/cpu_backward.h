// The backward pass; part of cpu_kernels.h, so without an include guard.

// What a task reads and writes for one query: `row` of the output and its gradient, and the samples from `index` on.
template <class T>
VITDENSE_INLINE void prefetch_query(const Arguments<T>& a, const Gradients<T>& g, int64_t row, int64_t index) {
  prefetch(g.output + row * a.width, a.width);
  prefetch_samples(a, index);
  prefetch(g.locations + index * 2, 32);
  prefetch(g.weights + index, 16);
}

// `N` vectors from channel `c` on of a pixel: adds to the product of `grad_output` with it, and to its gradient.
template <int N, class T>
VITDENSE_INLINE void scatter(const T* row, float* grad_row, float weight, const T* grad_output, int64_t c,
                             Vector& product) {
  for (int n = 0; n < N; ++n) {
    const Vector grad = load(grad_output + c + n * kWidth);
    product += grad * load(row + c + n * kWidth);
    store(grad_row + c + n * kWidth, load(grad_row + c + n * kWidth) + weight * grad);
  }
}

// Adds to the gradient of a pixel. Returns the product of `grad_output` with it.
template <class T>
VITDENSE_INLINE float scatter(const T* row, float* grad_row, float weight, const T* grad_output, int64_t width) {
  Vector product = {};
  int64_t c = 0;
  for (; c + kBlock * kWidth <= width; c += kBlock * kWidth) {
    scatter<kBlock>(row, grad_row, weight, grad_output, c, product);
  }
  for (; c + kWidth <= width; c += kWidth) scatter<1>(row, grad_row, weight, grad_output, c, product);
  float dot = sum(product);
  for (; c < width; ++c) {
    dot += static_cast<float>(grad_output[c]) * static_cast<float>(row[c]);
    grad_row[c] += weight * static_cast<float>(grad_output[c]);
  }
  return dot;
}

// Gradients by the locations and weights of the `count` samples from `index` on, of the products with their pixels.
template <class T>
VITDENSE_INLINE void differentiate(const Arguments<T>& a, const Gradients<T>& g, const Chunk<T>& chunk,
                                   const float (&dots)[4][kWidth], int64_t index, int64_t site, int64_t count) {
  const Vector top_left = load(dots[0]), top_right = load(dots[1]);
  const Vector bottom_left = load(dots[2]), bottom_right = load(dots[3]);
  const Vector fx = load(chunk.fx), fy = load(chunk.fy), gx = 1 - fx, gy = 1 - fy, weight = load(chunk.attention);
  const Vector rows = __builtin_convertvector(load(a.sites.height + site), Vector);
  const Vector columns = __builtin_convertvector(load(a.sites.width + site), Vector);
  const Vector x = weight * columns * (gy * (top_right - top_left) + fy * (bottom_right - bottom_left));
  const Vector y = weight * rows * (gx * (bottom_left - top_left) + fx * (bottom_right - top_right));
  const Vector attention = gy * (gx * top_left + fx * top_right) + fy * (gx * bottom_left + fx * bottom_right);
  const Integers inside = load(chunk.inside);
  float axes[2][kWidth], by_location[kWidth][2], by_weight[kWidth];
  store(axes[0], masked(x, inside));
  store(axes[1], masked(y, inside));
  store(by_weight, masked(attention, inside));
  for (int s = 0; s < kWidth; ++s) by_location[s][0] = axes[0][s], by_location[s][1] = axes[1][s];
  __builtin_memcpy(g.locations + 2 * index, by_location, count * sizeof *by_location);
  __builtin_memcpy(g.weights + index, by_weight, count * sizeof *by_weight);
}

// `WIDTH` is D where the compiler shall know it, else 0.
template <int64_t WIDTH, class T>
VITDENSE_TARGET void backward_of(const Arguments<T>& a, const Gradients<T>& g, const BackwardTask& task,
                                 float* grad_rows, T* copied) {
  const int64_t width = WIDTH ? WIDTH : a.width;
  const int64_t samples = task.end - task.begin, chunks = (samples + kWidth - 1) / kWidth;
  const int64_t begin = task.image * a.queries * a.heads + task.head, end = begin + a.queries * a.heads;
  const std::unique_ptr<Chunk<T>[]> room(new Chunk<T>[2 * chunks]);
  const std::unique_ptr<T[]> zeros(new T[width]());
  Chunk<T>*listed = room.get(), *next = listed + chunks;
  Map<T> map = {a.map(task.image, task.head) + task.first_pixel * a.stride(), a.stride(), zeros.get()};
  if (copied) {
    copy(map.first, a.stride(), task.pixels, width, copied);
    map.first = copied, map.stride = width;
  }
  __builtin_memset(grad_rows - 4 * width, 0, (task.pixels + 4) * width * sizeof(float));
  const auto grad_of = [&](int64_t pixel) VITDENSE_TARGET { return grad_rows + pixel * width; };
  const auto list = [&](int64_t row, Chunk<T>* to) VITDENSE_TARGET {
    for (int64_t s = task.begin; s < task.end; s += kWidth, ++to) {
      const int64_t count = task.end - s < kWidth ? task.end - s : kWidth;
      locate(a, row * a.samples + s, s, static_cast<int32_t>(task.first_pixel), count, *to);
      point_to(map, *to);
      if (copied) continue;
      prefetch_rows(*to, count, width);
      for (int k = 0; k < 4; ++k) {
        for (int64_t i = 0; i < count; ++i) prefetch<2>(grad_of(to->pixels[k][i]), width);
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
      float dots[4][kWidth] = {};
      for (int64_t i = 0; i < count; ++i) {
        for (int k = 0; k < 4; ++k) {
          dots[k][i] = scatter(chunk.rows[k][i], grad_of(chunk.pixels[k][i]), chunk.weights[k][i],
                               g.output + row * width, width);
        }
      }
      differentiate(a, g, chunk, dots, row * a.samples + s, s, count);
    }
  }
  T* grad_value = g.value + (task.image * a.pixels + task.first_pixel) * a.stride() + task.head * width;
  for (int64_t i = 0; i < task.pixels; ++i) {
    const float* from = grad_rows + i * width;
    T* to = grad_value + i * a.stride();
    int64_t c = 0;
    for (; c + kWidth <= width; c += kWidth) store(to + c, load(from + c));
    for (; c < width; ++c) to[c] = from[c];
  }
}

template <class T>
VITDENSE_TARGET void backward(const Arguments<T>& a, const Gradients<T>& g, const BackwardTask& task, float* grad_rows,
                              T* copied) {
  a.width == 32 ? backward_of<32>(a, g, task, grad_rows, copied) : backward_of<0>(a, g, task, grad_rows, copied);
}
