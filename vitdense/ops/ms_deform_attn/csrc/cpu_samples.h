// Where samples lie, for as many at once as a vector holds; part of cpu_kernels.h, so without an include guard. The
// arithmetic is that of common.h, without branches: at the borders of maps no processor guesses right.

constexpr int64_t kAhead = 8;  // queries from the reading of memory to its use

// The map (S, D) of an image and head, its pixels `stride` numbers apart, and a row of zeros beside it.
template <class T>
struct Map {
  const T* first;
  int64_t stride;
  const T* zeros;
};

// Samples of one output. By corner of the cell (top left, top right, bottom left, bottom right): the pixel, -1 to -4
// where there is none, its weight, 0 where there is none, and the row of its numbers.
template <class T>
struct Chunk {
  alignas(64) int32_t pixels[4][kWidth];
  float weights[4][kWidth];
  const T* rows[4][kWidth];
  float attention[kWidth], fx[kWidth], fy[kWidth];
  int32_t inside[kWidth];  // -1 where a pixel is in reach, else 0
};

VITDENSE_INLINE Integers load(const int32_t* from) {
  Integers v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

VITDENSE_INLINE void store(int32_t* to, Integers v) { __builtin_memcpy(to, &v, sizeof v); }

VITDENSE_INLINE Vector masked(Vector v, Integers mask) { return (Vector)((Integers)v & mask); }

// `count` samples from `index` on, whose number in their output is `site`; pixels are counted from `first_pixel` on.
template <class T>
VITDENSE_INLINE void locate(const Arguments<T>& a, int64_t index, int64_t site, int32_t first_pixel, int64_t count,
                            Chunk<T>& chunk) {
  float places[2][kWidth] = {}, attention[kWidth] = {};
  const float* locations = a.locations + 2 * index;
  if (count == kWidth) {
    for (int s = 0; s < kWidth; ++s) places[0][s] = locations[2 * s], places[1][s] = locations[2 * s + 1];
    __builtin_memcpy(attention, a.weights + index, sizeof attention);
  } else {  // the next vector would reach beyond the end
    for (int64_t s = 0; s < count; ++s) places[0][s] = locations[2 * s], places[1][s] = locations[2 * s + 1];
    for (int64_t s = 0; s < count; ++s) attention[s] = a.weights[index + s];
  }
  const Integers height = load(a.sites.height + site), width = load(a.sites.width + site);
  const Integers start = load(a.sites.start + site) - first_pixel;
  const Vector rows = __builtin_convertvector(height, Vector), columns = __builtin_convertvector(width, Vector);
  Vector x = load(places[0]) * columns - 0.5f, y = load(places[1]) * rows - 0.5f;
  const Integers inside = (x > -1.0f) & (y > -1.0f) & (x < columns) & (y < rows);  // false for NaN
  x = masked(x, inside), y = masked(y, inside);
  Integers left = __builtin_convertvector(x, Integers), top = __builtin_convertvector(y, Integers);
  left += __builtin_convertvector(left, Vector) > x, top += __builtin_convertvector(top, Vector) > y;  // -1 is true
  const Vector fx = x - __builtin_convertvector(left, Vector), fy = y - __builtin_convertvector(top, Vector);
  const Vector weight = load(attention);
  const Vector bottom_right = fy * fx * weight, bottom_left = fy * weight - bottom_right;
  const Vector top_right = fx * weight - bottom_right, top_left = weight - top_right - bottom_left - bottom_right;
  const Integers has_top = inside & (top >= 0), has_bottom = inside & (top + 1 < height);
  const Integers has_left = left >= 0, has_right = left + 1 < width;
  const Integers pixel = start + top * width + left;
  const Integers exists[4] = {has_top & has_left, has_top & has_right, has_bottom & has_left, has_bottom & has_right};
  const Integers pixels[4] = {pixel, pixel + 1, pixel + width, pixel + width + 1};
  const Vector weights[4] = {top_left, top_right, bottom_left, bottom_right};
  for (int k = 0; k < 4; ++k) {
    store(chunk.pixels[k], (pixels[k] & exists[k]) | (-1 - k & ~exists[k]));
    store(chunk.weights[k], masked(weights[k], exists[k]));
  }
  store(chunk.attention, weight);
  store(chunk.fx, fx);
  store(chunk.fy, fy);
  store(chunk.inside, inside);
}

template <class T>
VITDENSE_INLINE void point_to(const Map<T>& map, Chunk<T>& chunk) {
  const int32_t stride = static_cast<int32_t>(map.stride);
  for (int k = 0; k < 4; ++k) {
    for (int s = 0; s < kWidth; ++s) {
      const int32_t pixel = chunk.pixels[k][s];
      const T* row = map.first + static_cast<int64_t>(pixel) * stride;
      chunk.rows[k][s] = pixel < 0 ? map.zeros : row;
    }
  }
}

// Fetches up to 128 bytes of a row of D numbers, to the second-level cache where `level` is 2: more can be under way.
template <int level = 1, class T>
VITDENSE_INLINE void prefetch(const T* row, int64_t width) {
  __builtin_prefetch(row, 0, 4 - level);
  if (width * sizeof(T) > 64) __builtin_prefetch(row + 64 / sizeof(T), 0, 4 - level);
}

template <class T>
VITDENSE_INLINE void prefetch_rows(const Chunk<T>& chunk, int64_t count, int64_t width) {
  for (int k = 0; k < 4; ++k) {
    for (int64_t s = 0; s < count; ++s) prefetch<2>(chunk.rows[k][s], width);
  }
}

// Locations and weights of 16 samples from `index` on, which need not exist.
template <class T>
VITDENSE_INLINE void prefetch_samples(const Arguments<T>& a, int64_t index) {
  prefetch(a.locations + index * 2, 32);
  prefetch(a.weights + index, 16);
}
