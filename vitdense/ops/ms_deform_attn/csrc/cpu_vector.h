// Vectors of VITDENSE_WIDTH floats, for one set of instructions; part of cpu_kernels.h, so without an include guard.

typedef float Vector __attribute__((vector_size(4 * VITDENSE_WIDTH)));
typedef uint32_t Bits __attribute__((vector_size(4 * VITDENSE_WIDTH)));
typedef int32_t Integers __attribute__((vector_size(4 * VITDENSE_WIDTH)));
typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadIndex __attribute__((vector_size(16)));

constexpr int kWidth = VITDENSE_WIDTH;

VITDENSE_INLINE Vector load(const float* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

VITDENSE_INLINE void store(float* to, Vector v) { __builtin_memcpy(to, &v, sizeof v); }

// __builtin_shuffle of GCC is __builtin_shufflevector elsewhere.
#ifdef __clang__
#define VITDENSE_SHUFFLE(Index, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define VITDENSE_SHUFFLE(Index, a, b, ...) __builtin_shuffle(a, b, Index{__VA_ARGS__})
#endif

#if VITDENSE_WIDTH == 4 && defined(__x86_64__)  // where a vector of eight bytes might be an MMX register
typedef uint64_t LongBits __attribute__((vector_size(16)));

VITDENSE_INLINE Bits load_bits(const void* from) {
  uint64_t bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  const Bits low = (Bits)LongBits{bits}, pairs = VITDENSE_SHUFFLE(Bits, low, low, 0, 0, 1, 1);
  return (pairs & Bits{0xffff, 0, 0xffff, 0}) | (pairs >> 16 & Bits{0, 0xffff, 0, 0xffff});
}

VITDENSE_INLINE void store_bits(void* to, Bits v) {
  const Bits pairs = VITDENSE_SHUFFLE(Bits, v, v, 0, 2, 0, 2) | VITDENSE_SHUFFLE(Bits, v, v, 1, 3, 1, 3) << 16;
  __builtin_memcpy(to, &pairs, 8);
}
#else
typedef uint16_t ShortBits __attribute__((vector_size(2 * VITDENSE_WIDTH)));

VITDENSE_INLINE Bits load_bits(const void* from) {
  ShortBits bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return __builtin_convertvector(bits, Bits);
}

VITDENSE_INLINE void store_bits(void* to, Bits v) {
  const ShortBits bits = __builtin_convertvector(v, ShortBits);
  __builtin_memcpy(to, &bits, sizeof bits);
}
#endif

VITDENSE_INLINE Vector load(const BFloat16* from) { return (Vector)(load_bits(from) << 16); }

// To the nearest, ties to even. The sum would carry a NaN over to another number.
VITDENSE_INLINE void store(BFloat16* to, Vector v) {
  const Bits bits = (Bits)v, is_number = (Bits)(v == v);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
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
// The bits are shifted into place, and a product corrects the bias of the exponent; infinity and NaN keep all its ones.
VITDENSE_INLINE Vector load(const Half* from) {
  const Bits bits = load_bits(from), magnitude = (bits & 0x7fff) << 13;
  const Bits not_finite = (Bits)(magnitude >= 0x0f800000) & 0x7f800000;
  return (Vector)((Bits)((Vector)magnitude * 0x1p112f) | not_finite | (bits & 0x8000) << 16);
}

VITDENSE_INLINE void store(Half* to, Vector v) {
  for (int i = 0; i < kWidth; ++i) to[i] = v[i];
}
#endif

VITDENSE_INLINE Quad sum_of_quads(Vector v) {
  Quad quads[kWidth / 4];
  __builtin_memcpy(quads, &v, sizeof v);
  for (int n = kWidth / 8; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) quads[i] += quads[i + n];
  }
  return quads[0];
}

VITDENSE_INLINE float sum(Vector v) {
  const Quad quad = sum_of_quads(v), pair = quad + VITDENSE_SHUFFLE(QuadIndex, quad, quad, 2, 3, 0, 1);
  return pair[0] + pair[1];
}

#undef VITDENSE_SHUFFLE
