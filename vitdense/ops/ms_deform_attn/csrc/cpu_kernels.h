// The kernels for vectors of VITDENSE_WIDTH floats and the instructions VITDENSE_TARGET, in namespace VITDENSE_NAMESPACE.
// cpu.cpp includes this once for each instruction set: vectors wider than the instructions of a function are split into
// scalars, so that the target has to be on the function which handles them, and cannot be a template argument.

#define VITDENSE_INLINE VITDENSE_TARGET __attribute__((always_inline)) inline

namespace vitdense::VITDENSE_NAMESPACE {

constexpr int kWidth = VITDENSE_WIDTH;
constexpr int kBlock = 32 / kWidth;  // vectors that are kept in registers; 32 is the usual width of a head

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef uint32_t Bits __attribute__((vector_size(4 * kWidth)));
typedef uint16_t ShortBits __attribute__((vector_size(2 * kWidth)));

VITDENSE_INLINE Vector load(const float* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

VITDENSE_INLINE void store(float* to, Vector v) { __builtin_memcpy(to, &v, sizeof v); }

VITDENSE_INLINE Bits load_bits(const void* from) {
  ShortBits bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return __builtin_convertvector(bits, Bits);
}

VITDENSE_INLINE void store_bits(void* to, Bits v) {
  const ShortBits bits = __builtin_convertvector(v, ShortBits);
  __builtin_memcpy(to, &bits, sizeof bits);
}

VITDENSE_INLINE Vector load(const BFloat16* from) { return (Vector)(load_bits(from) << 16); }

// To nearest, ties to even; the sum must not carry a NaN over to another number.
VITDENSE_INLINE void store(BFloat16* to, Vector v) {
  const Bits bits = (Bits)v;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits is_number = (Bits)(v == v);
  store_bits(to, (rounded & is_number) | (0x7fc0 & ~is_number));
}

#if VITDENSE_WIDTH == 16
VITDENSE_INLINE Vector load(const Half* from) {
  return (Vector)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

VITDENSE_INLINE void store(Half* to, Vector v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif VITDENSE_WIDTH == 8
VITDENSE_INLINE Vector load(const Half* from) {
  return (Vector)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

VITDENSE_INLINE void store(Half* to, Vector v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
#else
// The exponent of a half is shifted into place and its bias corrected by a product; infinity and NaN keep all its ones.
VITDENSE_INLINE Vector load(const Half* from) {
  const Bits bits = load_bits(from);
  const Bits magnitude = (bits & 0x7fff) << 13;
  const Bits not_finite = (Bits)(magnitude >= 0x0f800000) & 0x7f800000;
  return (Vector)((Bits)((Vector)magnitude * 0x1p112f) | not_finite | (bits & 0x8000) << 16);
}

VITDENSE_INLINE void store(Half* to, Vector v) {
  for (int i = 0; i < kWidth; ++i) to[i] = v[i];
}
#endif

// `N` vectors of an output, from the taps of its samples.
template <int N, class T>
VITDENSE_INLINE void gather(const Tap<T>* taps, int64_t count, int64_t c, T* out) {
  Vector even[N] = {}, odd[N] = {};  // two sums: one would wait for itself
  int64_t i = 0;
  for (; i + 1 < count; i += 2) {
    for (int n = 0; n < N; ++n) {
      even[n] += taps[i].weight * load(taps[i].pixel + c + n * kWidth);
      odd[n] += taps[i + 1].weight * load(taps[i + 1].pixel + c + n * kWidth);
    }
  }
  for (int n = 0; n < N; ++n) {
    if (i < count) even[n] += taps[i].weight * load(taps[i].pixel + c + n * kWidth);
    store(out + c + n * kWidth, even[n] + odd[n]);
  }
}

template <class T>
VITDENSE_TARGET void forward(const Arguments<T>& a, int64_t begin, int64_t end, Tap<T>* taps, T* out) {
  const int64_t row = a.heads * a.width, samples = a.level_count * a.points;
  for (int64_t i = begin * a.heads; i < end * a.heads; ++i) {
    const int64_t image = i / (a.heads * a.queries), head = i % a.heads;
    const T* value = a.value + image * a.pixels * row + head * a.width;
    const float *location = a.locations + i * samples * 2, *weight = a.weights + i * samples;
    int64_t count = 0;
    for (int64_t l = 0; l < a.level_count; ++l) {
      const Level level = a.levels[l];
      const T* pixels = value + level.start * row;
      const int64_t below = level.width * row;
      for (int64_t p = 0; p < a.points; ++p, location += 2, ++weight) {
        Cell cell;
        if (!find_cell(location[0], location[1], level.height, level.width, cell)) continue;
        const Weights w = weigh(cell, *weight);
        const T* at = pixels + (cell.y * below + cell.x * row);
        const bool top = cell.has_top(), bottom = cell.has_bottom(level.height);
        const bool left = cell.has_left(), right = cell.has_right(level.width);
        const T* at2 = at + below;
        // Every tap is written; one outside is overwritten by the next.
        if (top & bottom & left & right) {
          taps[count + 0] = {at, w.top_left};
          taps[count + 1] = {at + row, w.top_right};
          taps[count + 2] = {at2, w.bottom_left};
          taps[count + 3] = {at2 + row, w.bottom_right};
          count += 4;
          for (int64_t c = 0; c < 128/sizeof(T) && c < a.width; c += 64 / sizeof(T)) {
          __builtin_prefetch(at + c);
          __builtin_prefetch(at + row + c);
          __builtin_prefetch(at2 + c);
          __builtin_prefetch(at2 + row + c);
          }
        } else {
        taps[count] = {at, w.top_left};
        count += top & left;
        taps[count] = {at + row, w.top_right};
        count += top & right;
        taps[count] = {at2, w.bottom_left};
        count += bottom & left;
        taps[count] = {at2 + row, w.bottom_right};
        count += bottom & right;
        }
      }
    }
#ifdef STAGEONLY
    count = 4;
#endif
    T* to = out + i * a.width;
    int64_t c = 0;
    for (; c + kBlock * kWidth <= a.width; c += kBlock * kWidth) gather<kBlock>(taps, count, c, to);
    for (; c + kWidth <= a.width; c += kWidth) gather<1>(taps, count, c, to);
    for (; c < a.width; ++c) {
      float sum = 0;
      for (int64_t k = 0; k < count; ++k) sum += taps[k].weight * static_cast<float>(taps[k].pixel[c]);
      to[c] = sum;
    }
  }
}

typedef float Quad __attribute__((vector_size(16)));

#ifdef __clang__
#define VITDENSE_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int QuadIndex __attribute__((vector_size(16)));
#define VITDENSE_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, QuadIndex{__VA_ARGS__})
#endif

VITDENSE_INLINE Quad fold(Vector v) {
  Quad quads[kWidth / 4];
  __builtin_memcpy(quads, &v, sizeof v);
  for (int n = kWidth / 8; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) quads[i] += quads[i + n];
  }
  return quads[0];
}

// The sums of four vectors, together.
VITDENSE_INLINE Quad sums(const Vector v[4]) {
  const Quad a = fold(v[0]), b = fold(v[1]), c = fold(v[2]), d = fold(v[3]);
  const Quad ab = VITDENSE_SHUFFLE(a, b, 0, 4, 1, 5) + VITDENSE_SHUFFLE(a, b, 2, 6, 3, 7);
  const Quad cd = VITDENSE_SHUFFLE(c, d, 0, 4, 1, 5) + VITDENSE_SHUFFLE(c, d, 2, 6, 3, 7);
  return VITDENSE_SHUFFLE(ab, cd, 0, 1, 4, 5) + VITDENSE_SHUFFLE(ab, cd, 2, 3, 6, 7);
}

// `N` vectors of the backward pass of a sample: adds to the four products, and to the gradients of the pixels.
template <int N, class T>
VITDENSE_INLINE void scatter(const T* grad_output, const T* const value[4], float* const rows[4], const bool exists[4],
                             const float weight[4], int64_t c, Vector products[4]) {
  Vector grad[N];
  for (int n = 0; n < N; ++n) grad[n] = load(grad_output + c + n * kWidth);
  for (int k = 0; k < 4; ++k) {
    if (!exists[k]) continue;
    for (int n = 0; n < N; ++n) products[k] += grad[n] * load(value[k] + c + n * kWidth);
    for (int n = 0; n < N; ++n) store(rows[k] + c + n * kWidth, load(rows[k] + c + n * kWidth) + weight[k] * grad[n]);
  }
}

template <class T>
VITDENSE_TARGET void backward(const Arguments<T>& a, const Gradients<T>& g, const Task& task, float* rows, Sample<T>* samples) {
  const int64_t width = a.width, row = a.heads * width;
  const Level last = a.levels[task.end_level - 1];
  const int64_t start = a.levels[task.begin_level].start;
  const int64_t pixels = last.start - start + static_cast<int64_t>(last.height) * last.width;
  const int64_t first = (task.image * a.pixels + start) * row + task.head * width;
  const T* value = a.value + first;
  __builtin_memset(rows, 0, pixels * width * sizeof(float));
  for (int64_t q = 0; q < a.queries; ++q) {
    const int64_t output = (task.image * a.queries + q) * a.heads + task.head;
    const T* grad_output = g.output + output * width;
    int64_t index = (output * a.level_count + task.begin_level) * a.points;
    Sample<T>* s = samples;
    for (int64_t l = task.begin_level; l < task.end_level; ++l) {
      const Level level = a.levels[l];
      for (int64_t p = 0; p < a.points; ++p, ++index, ++s) {
        const float* location = a.locations + index * 2;
        s->inside = find_cell(location[0], location[1], level.height, level.width, s->cell);
        if (!s->inside) continue;
        const bool top = s->cell.has_top(), bottom = s->cell.has_bottom(level.height);
        const bool left = s->cell.has_left(), right = s->cell.has_right(level.width);
        s->exists[0] = top & left; s->exists[1] = top & right; s->exists[2] = bottom & left; s->exists[3] = bottom & right;
        const int64_t pixel = level.start - start + static_cast<int64_t>(s->cell.y) * level.width + s->cell.x;
        s->pixel=pixel;
        if (top & left & bottom & right) {
          const int64_t at[4] = {pixel, pixel + 1, pixel + level.width, pixel + level.width + 1};
          for (int k = 0; k < 4; ++k) {
            for (int64_t c = 0; c < (int64_t)(128/sizeof(T)) && c < a.width; c += 64 / sizeof(T))
              __builtin_prefetch(value + at[k] * row + c);
            for (int64_t c = 0; c < 32 && c < a.width; c += 16)
              __builtin_prefetch(rows + at[k] * width + c, 1);
          }
        }
      }
    }
    index = (output * a.level_count + task.begin_level) * a.points;
    s = samples;
    for (int64_t l = task.begin_level; l < task.end_level; ++l) {
      const Level level = a.levels[l];
      for (int64_t p = 0; p < a.points; ++p, ++index, ++s) {
        SampleGradient gradient_of_sample = {};
        if (s->inside) {
          const float attention = a.weights[index];
          const Weights w = weigh(s->cell, attention);
          const float weight[4] = {w.top_left, w.top_right, w.bottom_left, w.bottom_right};
          const int64_t pixel = s->pixel;
          const int64_t at[4] = {pixel, pixel + 1, pixel + level.width, pixel + level.width + 1};
          const T* values[4];
          float* rowss[4];
          for (int k = 0; k < 4; ++k) values[k] = value + at[k] * row, rowss[k] = rows + at[k] * width;
          Vector products[4] = {};
          int64_t c = 0;
          for (; c + kBlock * kWidth <= width; c += kBlock * kWidth)
            scatter<kBlock>(grad_output, values, rowss, s->exists, weight, c, products);
          for (; c + kWidth <= width; c += kWidth) scatter<1>(grad_output, values, rowss, s->exists, weight, c, products);
          Quad dots = sums(products);
          for (; c < width; c++) {
            const float grad = grad_output[c];
            for (int k = 0; k < 4; ++k) {
              if (!s->exists[k]) continue;
              dots[k] += grad * static_cast<float>(values[k][c]);
              rowss[k][c] += weight[k] * grad;
            }
          }
          gradient_of_sample = gradient(s->cell, {dots[0], dots[1], dots[2], dots[3]}, attention, level.height, level.width);
        }
        g.locations[index * 2] = gradient_of_sample.x;
        g.locations[index * 2 + 1] = gradient_of_sample.y;
        g.weights[index] = gradient_of_sample.attention;
      }
    }
  }
  for (int64_t i = 0; i < pixels; ++i) {
    T* to = g.value + first + i * row;
    const float* from = rows + i * width;
    int64_t c = 0;
    for (; c + kWidth <= width; c += kWidth) store(to + c, load(from + c));
    for (; c < width; ++c) to[c] = from[c];
  }
}

template <class T>
constexpr Kernels<T> kernels = {forward<T>, backward<T>};

}  // namespace vitdense::VITDENSE_NAMESPACE

#undef VITDENSE_INLINE
#undef VITDENSE_SHUFFLE
#undef VITDENSE_NAMESPACE
#undef VITDENSE_TARGET
#undef VITDENSE_WIDTH
