// The kernels for one set of instructions: vectors of VITDENSE_WIDTH floats, functions with the attribute
// VITDENSE_TARGET, in the namespace VITDENSE_NAMESPACE. cpu.cpp includes this once for each. The width cannot be an
// argument of templates: where a function lacks the attribute, its wide vectors are taken apart before it is inlined.

#define VITDENSE_INLINE VITDENSE_TARGET __attribute__((always_inline)) inline

namespace vitdense::VITDENSE_NAMESPACE {

#include "cpu_vector.h"
#include "cpu_samples.h"

constexpr int kBlock = 32 / kWidth;  // vectors held in registers; most heads have 32 channels
constexpr int kSums = kWidth / 4;    // of each, so that eight additions are under way: one alone takes four cycles

// In vectors: a call of memcpy for each pixel would take longer than its few numbers do.
template <class T>
VITDENSE_TARGET void copy(const T* from, int64_t stride, int64_t rows, int64_t width, T* to) {
  constexpr int64_t step = sizeof(Vector) / sizeof(T), ahead = 16;
  for (int64_t i = 0; i < rows; ++i, from += stride, to += width) {
    prefetch(from + ahead * stride, width);
    int64_t c = 0;
    for (; c + step <= width; c += step) {
      Vector v;
      __builtin_memcpy(&v, from + c, sizeof v);
      __builtin_memcpy(to + c, &v, sizeof v);
    }
    for (; c < width; ++c) to[c] = from[c];
  }
}

// `N` vectors of an output, from channel `c` on.
template <int N, class T>
VITDENSE_INLINE void gather(const Chunk<T>* chunks, int64_t samples, int64_t c, T* out) {
  Vector total[kSums][N] = {};
  for (const Chunk<T>* chunk = chunks; samples > 0; ++chunk, samples -= kWidth) {
    const int64_t count = samples < kWidth ? samples : kWidth;
    for (int64_t s = 0; s < count; ++s) {
      for (int k = 0; k < 4; ++k) {
        const T* row = chunk->rows[k][s] + c;
        for (int n = 0; n < N; ++n) total[k % kSums][n] += chunk->weights[k][s] * load(row + n * kWidth);
      }
    }
  }
  for (int n = 0; n < N; ++n) {
    for (int k = 1; k < kSums; ++k) total[0][n] += total[k][n];
    store(out + c + n * kWidth, total[0][n]);
  }
}

template <class T>
VITDENSE_INLINE void sum_up(const Chunk<T>* chunks, int64_t samples, int64_t width, T* out) {
  int64_t c = 0;
  for (; c + kBlock * kWidth <= width; c += kBlock * kWidth) gather<kBlock>(chunks, samples, c, out);
  for (; c + kWidth <= width; c += kWidth) gather<1>(chunks, samples, c, out);
  for (; c < width; ++c) {
    float sum = 0;
    for (int64_t i = 0; i < samples; ++i) {
      const Chunk<T>& chunk = chunks[i / kWidth];
      for (int k = 0; k < 4; ++k) sum += chunk.weights[k][i % kWidth] * static_cast<float>(chunk.rows[k][i % kWidth][c]);
    }
    out[c] = sum;
  }
}

template <class T>
VITDENSE_TARGET void forward(const Arguments<T>& a, const ForwardTask<T>& task, T* out) {
  const int64_t chunks = (a.samples + kWidth - 1) / kWidth, step = task.copy ? a.heads : 1;
  const int64_t begin = task.begin * a.heads + task.head, end = task.end * a.heads;
  const std::unique_ptr<Chunk<T>[]> room(new Chunk<T>[2 * chunks]);
  const std::unique_ptr<T[]> zeros(new T[a.width]());
  Chunk<T>*listed = room.get(), *next = listed + chunks;
  const auto list = [&](int64_t i, Chunk<T>* to) VITDENSE_TARGET {
    const Map<T> map = task.copy ? Map<T>{task.copy, a.width, zeros.get()}
                                 : Map<T>{a.map(i / (a.queries * a.heads), i % a.heads), a.stride(), zeros.get()};
    for (int64_t s = 0; s < a.samples; s += kWidth, ++to) {
      const int64_t count = a.samples - s < kWidth ? a.samples - s : kWidth;
      locate(a, i * a.samples + s, s, 0, count, *to);
      point_to(map, *to);
      if (!task.copy) prefetch_rows(*to, count, a.width);  // a copy is near: asking for it would take longer
    }
  };
  if (begin < end) list(begin, next);
  for (int64_t i = begin; i < end; i += step) {
    prefetch_samples(a, (i + kAhead * step) * a.samples);
    prefetch(out + (i + kAhead * step) * a.width, a.width);
    Chunk<T>* const now = next;
    next = listed, listed = now;
    if (i + step < end) list(i + step, next);  // its pixels are fetched while this output is summed
    sum_up(now, a.samples, a.width, out + i * a.width);
  }
}

#include "cpu_backward.h"

template <class T>
constexpr Kernels<T> kernels = {forward<T>, backward<T>, copy<T>};

}  // namespace vitdense::VITDENSE_NAMESPACE

#undef VITDENSE_INLINE
#undef VITDENSE_NAMESPACE
#undef VITDENSE_TARGET
#undef VITDENSE_WIDTH
