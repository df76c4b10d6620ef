// Numbers, vectors and memory for one instruction set. cpu.cpp includes this file and those of the kernels once for each,
// in a namespace of its own, with TARGET (a function attribute) and BYTES (of its vectors) set: vector code must know its
// target where it is written.

#define INLINE TARGET inline __attribute__((always_inline))
#define INLINE_LAMBDA TARGET __attribute__((always_inline))

// ---- Numbers ------------------------------------------------------------------------------------------------------

INLINE float to_accumulate(float x) { return x; }
INLINE double to_accumulate(double x) { return x; }
INLINE float to_accumulate(BFloat16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
INLINE void assign(float& to, float x) { to = x; }
INLINE void assign(double& to, double x) { to = x; }

// ---- Vectors ------------------------------------------------------------------------------------------------------

template <class A, int W>
struct VectorOf {
  typedef A type __attribute__((vector_size(W * sizeof(A))));
};
template <class A, int W>
using Vector = typename VectorOf<A, W>::type;
// Integers as wide as the numbers they are compared with.
template <int kSize>
using IndexOf = std::conditional_t<kSize == 4, int32_t, int64_t>;

template <class To, class From>
INLINE To reinterpret(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &x, sizeof x);
  return result;
}

template <int W, class T>
INLINE Vector<Accumulate<T>, W> load(const T* from) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    Vector<uint16_t, W> half;
    std::memcpy(&half, from, sizeof half);
    return reinterpret<Vector<float, W>>(__builtin_convertvector(half, Vector<uint32_t, W>) << 16);
  } else {
    Vector<T, W> result;
    std::memcpy(&result, from, sizeof result);
    return result;
  }
}

template <int W, class T, class V>
INLINE void store(T* to, V x) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    // Round to nearest, ties to even; NaN keeps a bit of its fraction.
    const auto bits = reinterpret<Vector<uint32_t, W>>(x), kept = bits >> 16;
    const auto result = x == x ? (bits + 0x7fff + (kept & 1)) >> 16 : kept | 0x40;
    const auto half = __builtin_convertvector(result, Vector<uint16_t, W>);
    std::memcpy(to, &half, sizeof half);
  } else {
    std::memcpy(to, &x, sizeof x);
  }
}
INLINE void assign(BFloat16& to, float x) { store<1>(&to, Vector<float, 1>{x}); }

// Cody and Waite's reduction to [-ln 2 / 2, ln 2 / 2] and a polynomial; 2 ulp in float32.
template <int W, class V>
INLINE V exponential(V x) {
  if constexpr (std::is_same_v<V, Vector<double, W>>) {
    for (int i = 0; i < W; ++i) x[i] = std::exp(x[i]);
    return x;
  } else {
    const V low = V{} - 87.33654f, high = V{} + 88.37626f, clamped = x < low ? low : (x > high ? high : x);
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits, without a conversion that NaN makes undefined.
    const V shifted = clamped * 1.44269504f + 12582912.0f, rounded = shifted - 12582912.0f;
    const V r = (clamped - rounded * 0.693359375f) + rounded * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const auto power = (reinterpret<Vector<uint32_t, W>>(shifted) + 127u) << 23;
    return x < low ? V{} : p * reinterpret<V>(power);
  }
}

template <class A, int W>
INLINE Vector<A, W / 2> fold(Vector<A, W> x) {
  Vector<A, W / 2> half[2];
  std::memcpy(half, &x, sizeof x);
  return half[0] + half[1];
}
// Sums over the lanes of four vectors, added to four numbers or, the first time, in their place.
template <bool kFirst, class A, int W>
INLINE void add_sums(A* to, Vector<A, W> a, Vector<A, W> b, Vector<A, W> c, Vector<A, W> d) {
  if constexpr (W > 4) {
    add_sums<kFirst, A, W / 2>(to, fold<A, W>(a), fold<A, W>(b), fold<A, W>(c), fold<A, W>(d));
  } else if constexpr (W == 4) {
    const Vector<A, 4> ab = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
    const Vector<A, 4> cd = SHUFFLE(c, d, 0, 4, 1, 5) + SHUFFLE(c, d, 2, 6, 3, 7);
    const Vector<A, 4> sums = SHUFFLE(ab, cd, 0, 1, 4, 5) + SHUFFLE(ab, cd, 2, 3, 6, 7);
    store<4>(to, kFirst ? sums : load<4>(to) + sums);
  } else {
    if (kFirst) to[0] = to[1] = to[2] = to[3] = A(0);
    for (int i = 0; i < W; ++i) to[0] += a[i], to[1] += b[i], to[2] += c[i], to[3] += d[i];
  }
}

template <class A, int W>
INLINE A total(Vector<A, W> x) {
  if constexpr (W == 1)
    return x[0];
  else
    return total<A, W / 2>(fold<A, W>(x));
}

template <class A, int W>
INLINE A largest(Vector<A, W> x) {
  if constexpr (W == 1) {
    return x[0];
  } else {
    Vector<A, W / 2> half[2];
    std::memcpy(half, &x, sizeof x);
    return largest<A, W / 2>(half[0] > half[1] ? half[0] : half[1]);
  }
}

// Every second number of two vectors, from the first or the second on.
template <int kFrom, class V, int... I>
INLINE V every_second(V a, V b, std::integer_sequence<int, I...>) {
  return SHUFFLE(a, b, (2 * I + kFrom)...);
}
// Four vectors from W quadruples.
template <int W, class A>
INLINE void load_quadruples(const A* from, Vector<A, W>& a, Vector<A, W>& b, Vector<A, W>& c, Vector<A, W>& d) {
  const auto lanes = std::make_integer_sequence<int, W>();
  const Vector<A, W> q0 = load<W>(from), q1 = load<W>(from + W), q2 = load<W>(from + 2 * W), q3 = load<W>(from + 3 * W);
  const Vector<A, W> ac0 = every_second<0>(q0, q1, lanes), ac1 = every_second<0>(q2, q3, lanes);
  const Vector<A, W> bd0 = every_second<1>(q0, q1, lanes), bd1 = every_second<1>(q2, q3, lanes);
  a = every_second<0>(ac0, ac1, lanes), c = every_second<1>(ac0, ac1, lanes);
  b = every_second<0>(bd0, bd1, lanes), d = every_second<1>(bd0, bd1, lanes);
}

// Ask for the cache lines of `count` numbers ahead of their use; any address will do.
template <class T>
INLINE void prefetch(const T* from, int64_t count) {
  const char* bytes = reinterpret_cast<const char*>(from);
  for (int64_t i = 0; i < count * static_cast<int64_t>(sizeof(T)); i += 64) __builtin_prefetch(bytes + i);
}

// Numbers that begin at a cache line: vectors that lie across two cost twice.
template <class A>
class Buffer {
 public:
  explicit Buffer(int64_t size) : lines_((size * sizeof(A) + 63) / 64) {}
  A* data() { return lines_.data()->numbers; }
  void clear() { std::fill(lines_.begin(), lines_.end(), Line{}); }

 private:
  struct alignas(64) Line {
    A numbers[64 / sizeof(A)];
  };
  std::vector<Line> lines_;
};
