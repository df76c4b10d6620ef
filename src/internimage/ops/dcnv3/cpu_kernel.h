// DCNv3's arithmetic for one instruction set. cpu.cpp includes this file once for each, in a namespace of its own, with
// TARGET (a function attribute) and BYTES (of its vectors) set: vector code must know its target where it is written.
//
// Shapes: value (N, H, W, G, D), offset (N, Ho, Wo, G, K, 2) as (x, y), mask (N, Ho, Wo, G, K); see README.md.
// A "lane" is one sampling point of one group at one output position. Work goes in three steps over blocks of lanes
// that stay in the first-level cache: where the points lie and how much they count (vectors of lanes), then the four
// corners of each point (vectors of the group's channels), then, backward, gradients per lane.
//
// Results don't depend on the number of threads: an output position, and backward a whole (image, group), belongs to
// one thread, and a lane is computed alike wherever it lies in a block.

#define INLINE TARGET inline __attribute__((always_inline))

constexpr int64_t kBlock = 16;

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

// Add the sums over the lanes of four vectors to four numbers.
template <class A, int W>
INLINE Vector<A, W / 2> fold(Vector<A, W> x) {
  Vector<A, W / 2> half[2];
  std::memcpy(half, &x, sizeof x);
  return half[0] + half[1];
}
template <class A, int W>
INLINE void add_sums(A* to, Vector<A, W> a, Vector<A, W> b, Vector<A, W> c, Vector<A, W> d) {
  if constexpr (W > 4) {
    add_sums<A, W / 2>(to, fold<A, W>(a), fold<A, W>(b), fold<A, W>(c), fold<A, W>(d));
  } else if constexpr (W == 4) {
    const Vector<A, 4> ab = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
    const Vector<A, 4> cd = SHUFFLE(c, d, 0, 4, 1, 5) + SHUFFLE(c, d, 2, 6, 3, 7);
    store<4>(to, load<4>(to) + (SHUFFLE(ab, cd, 0, 1, 4, 5) + SHUFFLE(ab, cd, 2, 3, 6, 7)));
  } else {
    for (int i = 0; i < W; ++i) to[0] += a[i], to[1] += b[i], to[2] += c[i], to[3] += d[i];
  }
}

// ---- Where the points lie -----------------------------------------------------------------------------------------

// Sampling points in flight. `first` is the pixel of the upper left corner that is on the map, or -1 for a point that
// is off it; `right` and `down` are the elements from there to the other corners, 0 where there is none (it has weight
// 0 then). Arrays are padded to full blocks.
template <class A>
struct Lanes {
  explicit Lanes(int64_t most) : size(padded(most)), numbers(kArrays * size), indices(3 * size) {
    A* next = numbers.data();
    for (A** each : {&x, &y, &m, &w00, &w01, &w10, &w11, &wx0, &wx1, &wy0, &wy1, &on_x0, &on_x1, &on_y0, &on_y1})
      *each = next, next += size;
    dots = next;
    first = indices.data(), right = first + size, down = right + size;
  }
  static int64_t padded(int64_t count) { return (count + kBlock - 1) / kBlock * kBlock; }

  static constexpr int64_t kArrays = 19;
  int64_t size;
  std::vector<A> numbers;
  std::vector<int32_t> indices;
  // Position, modulation; weights of the corners; their factors per axis; 1 where a row or column is on the map.
  A *x, *y, *m, *w00, *w01, *w10, *w11, *wx0, *wx1, *wy0, *wy1, *on_x0, *on_x1, *on_y0, *on_y1;
  // Backward: per lane, the scalar products of the output's gradient with the four corners.
  A* dots;
  int32_t *first, *right, *down;
};

// The kernel's grid, repeated for every group that a row of lanes covers.
template <class A>
struct Grid {
  Grid(const Problem& p, int64_t groups) {
    const int64_t center_h = p.dilation_h * (p.kernel_h - 1) / 2, center_w = p.dilation_w * (p.kernel_w - 1) / 2;
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t ix = 0; ix < p.kernel_w; ++ix)
        for (int64_t iy = 0; iy < p.kernel_h; ++iy) {
          if (p.remove_center && ix == p.kernel_w / 2 && iy == p.kernel_h / 2) continue;
          dx.push_back(static_cast<A>(p.scale * static_cast<double>(p.dilation_w * ix - center_w)));
          dy.push_back(static_cast<A>(p.scale * static_cast<double>(p.dilation_h * iy - center_h)));
        }
    start_x = static_cast<A>(center_w - p.padding_w), start_y = static_cast<A>(center_h - p.padding_h);
  }
  std::vector<A> dx, dy;
  A start_x, start_y;
};

// Neighbouring output positions of one row.
struct Run {
  int64_t image, row, column, length, position;
};

// Positions are counted image by image in strips of columns, row by row within a strip, so that the pixels around a
// run stay in the cache however wide the map is. Position `index` and at most `most` after it in its row.
TARGET inline Run run_at(const Problem& p, int64_t index, int64_t most) {
  constexpr int64_t kStrip = 32;
  const int64_t image = index / p.positions(), rest = index % p.positions();
  const int64_t left = rest / (kStrip * p.out_h) * kStrip, width = std::min(kStrip, p.out_w - left);
  const int64_t row = (rest - left * p.out_h) / width, column = (rest - left * p.out_h) % width;
  return {image, row, left + column, std::min(most, width - column),
          (image * p.out_h + row) * p.out_w + left + column};
}

// Positions and raw modulations of the lanes of one output position.
template <class T, class A>
INLINE void read_lanes(const Problem& p, const Grid<A>& grid, int64_t row, int64_t column, const T* offset,
                       const T* mask, Lanes<A>& lanes, int64_t at) {
  const int64_t count = static_cast<int64_t>(grid.dx.size());
  const A out_x = static_cast<A>(column) * static_cast<A>(p.stride_w) + grid.start_x;
  const A out_y = static_cast<A>(row) * static_cast<A>(p.stride_h) + grid.start_y;
  const A scale = static_cast<A>(p.scale);
  const A *__restrict dx = grid.dx.data(), *__restrict dy = grid.dy.data();
  A *__restrict x = lanes.x + at, *__restrict y = lanes.y + at, *__restrict m = lanes.m + at;
  for (int64_t i = 0; i < count; ++i) {
    x[i] = (out_x + dx[i]) + scale * to_accumulate(offset[2 * i]);
    y[i] = (out_y + dy[i]) + scale * to_accumulate(offset[2 * i + 1]);
    m[i] = to_accumulate(mask[i]);
  }
}

// Softmax over each K of the lanes. A K known to the compiler (9, almost always) makes the short loops straight code.
template <int W, int64_t K, class A>
INLINE void softmax(A* __restrict m, int64_t count, int64_t points) {
  if (K) points = K;
  for (A* group = m; group < m + count; group += points) {
    A most = group[0];
    for (int64_t k = 1; k < points; ++k) most = group[k] > most ? group[k] : most;
    for (int64_t k = 0; k < points; ++k) group[k] -= most;
  }
  for (A* block = m; block < m + count; block += W) store<W>(block, exponential<W>(load<W>(block)));
  for (A* group = m; group < m + count; group += points) {
    A sum = 0;
    for (int64_t k = 0; k < points; ++k) sum += group[k];
    const A inverse = A(1) / sum;
    for (int64_t k = 0; k < points; ++k) group[k] *= inverse;
  }
}
template <int W, class A>
INLINE void normalize_lanes(const Problem& p, A* __restrict m, int64_t count) {
  if (p.normalize == kSoftmax) {
    if (p.points() == 9)
      softmax<W, 9>(m, count, 9);
    else
      softmax<W, 0>(m, count, p.points());
  } else if (p.normalize == kSigmoid) {
    for (A* block = m; block < m + count; block += W) store<W>(block, A(1) / (exponential<W>(-load<W>(block)) + A(1)));
  }
}

// Corners and weights of W lanes from `at` on; `pixel` is the number of elements from one pixel to the next.
template <bool kBackward, int W, class A>
INLINE void find_corners_of(const Problem& p, int64_t pixel, const Lanes<A>& l, int64_t at) {
  using V = Vector<A, W>;
  using Index = IndexOf<sizeof(A)>;
  using I = Vector<Index, W>;
  using I32 = Vector<int32_t, W>;
  const A width = static_cast<A>(p.width), height = static_cast<A>(p.height);
  const Index columns = static_cast<Index>(p.width), rows = static_cast<Index>(p.height);
  const Index one_right = static_cast<Index>(pixel), one_down = one_right * columns;
  const V all_x = load<W>(l.x + at), all_y = load<W>(l.y + at), m = load<W>(l.m + at), none = {}, one = none + A(1);
  // Not inside is also NaN, for which every comparison is false.
  const I inside = (all_x > A(-1)) & (all_x < width) & (all_y > A(-1)) & (all_y < height);
  const V x = inside ? all_x : none, y = inside ? all_y : none;
  I x0 = __builtin_convertvector(x, I), y0 = __builtin_convertvector(y, I);
  // The conversion cuts the fraction off: below zero that is one too much. A true comparison is -1.
  x0 += __builtin_convertvector(x0, V) > x, y0 += __builtin_convertvector(y0, V) > y;
  const V part_x = x - __builtin_convertvector(x0, V), part_y = y - __builtin_convertvector(y0, V);
  const I left = x0 >= 0, right = x0 < columns - 1, up = y0 >= 0, down = y0 < rows - 1;
  const V wx0 = left ? one - part_x : none, wx1 = right ? part_x : none;
  const V wy0 = up ? one - part_y : none, wy1 = down ? part_y : none;
  const V upper = wy0 * m, lower = wy1 * m;
  store<W>(l.w00 + at, upper * wx0), store<W>(l.w01 + at, upper * wx1);
  store<W>(l.w10 + at, lower * wx0), store<W>(l.w11 + at, lower * wx1);
  const I first = ((y0 & up) * columns + (x0 & left)) | ~inside;
  const I to_right = inside & left & right & one_right, to_down = inside & up & down & one_down;
  store<W>(l.first + at, __builtin_convertvector(first, I32));
  store<W>(l.right + at, __builtin_convertvector(to_right, I32));
  store<W>(l.down + at, __builtin_convertvector(to_down, I32));
  if (!kBackward) return;
  store<W>(l.wx0 + at, wx0), store<W>(l.wx1 + at, wx1), store<W>(l.wy0 + at, wy0), store<W>(l.wy1 + at, wy1);
  // A point off the map gets no gradient, and its dot products are those of zeros.
  store<W>(l.on_x0 + at, inside & left ? one : none), store<W>(l.on_x1 + at, inside & right ? one : none);
  store<W>(l.on_y0 + at, inside & up ? one : none), store<W>(l.on_y1 + at, inside & down ? one : none);
}
template <bool kBackward, int W, class A>
INLINE void find_corners(const Problem& p, int64_t pixel, const Lanes<A>& lanes, int64_t count) {
  for (int64_t at = 0; at < count; at += W) find_corners_of<kBackward, W>(p, pixel, lanes, at);
}

// ---- Forward ------------------------------------------------------------------------------------------------------

// W * R channels of one group at one output position.
template <int W, int R, class T, class A = Accumulate<T>>
INLINE void aggregate(const Lanes<A>& l, int64_t lane, int64_t points, const T* value, int64_t pixel, const T* zeros,
                      T* out) {
  Vector<A, W> upper[R] = {}, lower[R] = {};
  for (int64_t i = lane; i < lane + points; ++i) {
    const T* corner = l.first[i] < 0 ? zeros : value + l.first[i] * pixel;
    const T* below = corner + l.down[i];
    const int64_t right = l.right[i];
    const A w00 = l.w00[i], w01 = l.w01[i], w10 = l.w10[i], w11 = l.w11[i];
    for (int r = 0; r < R; ++r) {
      upper[r] += load<W>(corner + r * W) * w00;
      lower[r] += load<W>(below + r * W) * w10;
      upper[r] += load<W>(corner + right + r * W) * w01;
      lower[r] += load<W>(below + right + r * W) * w11;
    }
  }
  for (int r = 0; r < R; ++r) store<W>(out + r * W, upper[r] + lower[r]);
}

template <int W, class T, class A = Accumulate<T>>
INLINE void aggregate_group(const Lanes<A>& l, int64_t lane, int64_t points, int64_t depth, const T* value,
                            int64_t pixel, const T* zeros, T* out) {
  int64_t d = 0;
  for (; d + 2 * W <= depth; d += 2 * W) aggregate<W, 2>(l, lane, points, value + d, pixel, zeros, out + d);
  if (d + W <= depth) aggregate<W, 1>(l, lane, points, value + d, pixel, zeros, out + d), d += W;
  if constexpr (W > 8)
    if (d + 8 <= depth) aggregate<8, 1>(l, lane, points, value + d, pixel, zeros, out + d), d += 8;
  if constexpr (W > 4)
    if (d + 4 <= depth) aggregate<4, 1>(l, lane, points, value + d, pixel, zeros, out + d), d += 4;
  for (; d < depth; ++d) aggregate<1, 1>(l, lane, points, value + d, pixel, zeros, out + d);
}

// Output positions [from, to) of the whole batch, in the order of `run_at`.
template <class T>
TARGET void forward(const Problem& p, const T* value, const T* offset, const T* mask, T* out, int64_t from,
                    int64_t to) {
  using A = Accumulate<T>;
  constexpr int W = BYTES / sizeof(A);
  const int64_t points = p.points(), per_position = p.groups * points, pixel = p.channels();
  const int64_t most = std::max<int64_t>(1, 256 / per_position);
  const Grid<A> grid(p, p.groups);
  const std::vector<T> zeros(p.depth, T{});
  Lanes<A> lanes(most * per_position);
  while (from < to) {
    const Run run = run_at(p, from, std::min(most, to - from));
    for (int64_t i = 0; i < run.length; ++i)
      read_lanes(p, grid, run.row, run.column + i, offset + (run.position + i) * p.offset_stride,
                 mask + (run.position + i) * p.mask_stride, lanes, i * per_position);
    normalize_lanes<W>(p, lanes.m, run.length * per_position);
    find_corners<false, W>(p, pixel, lanes, run.length * per_position);
    const T* image = value + run.image * p.height * p.width * pixel;
    for (int64_t i = 0; i < run.length; ++i)
      for (int64_t g = 0; g < p.groups; ++g)
        aggregate_group<W>(lanes, (i * p.groups + g) * points, points, p.depth, image + g * p.depth, pixel,
                           zeros.data(), out + (run.position + i) * pixel + g * p.depth);
    from += run.length;
  }
}

// ---- Backward -----------------------------------------------------------------------------------------------------

// W channels of one output position: scalar products with the corners, and what the corners receive.
template <int W, class A>
INLINE void scatter(const Lanes<A>& l, int64_t lane, int64_t points, int64_t depth, const A* grad, const A* value,
                    const A* zeros, A* grad_value, A* sink) {
  const Vector<A, W> g = load<W>(grad);
  for (int64_t i = lane; i < lane + points; ++i) {
    const bool inside = l.first[i] >= 0;
    const int64_t at = l.first[i] * depth, right = l.right[i], down = l.down[i];
    const A* v = inside ? value + at : zeros;
    add_sums<A, W>(l.dots + 4 * i, g * load<W>(v), g * load<W>(v + right), g * load<W>(v + down),
                   g * load<W>(v + down + right));
    A* to = inside ? grad_value + at : sink;
    store<W>(to, load<W>(to) + g * l.w00[i]);
    store<W>(to + right, load<W>(to + right) + g * l.w01[i]);
    store<W>(to + down, load<W>(to + down) + g * l.w10[i]);
    store<W>(to + down + right, load<W>(to + down + right) + g * l.w11[i]);
  }
}

template <int W, class A>
INLINE void scatter_group(const Lanes<A>& l, int64_t lane, int64_t points, int64_t depth, const A* grad,
                          const A* value, const A* zeros, A* grad_value, A* sink) {
  int64_t d = 0;
  for (; d + W <= depth; d += W)
    scatter<W>(l, lane, points, depth, grad + d, value + d, zeros + d, grad_value + d, sink + d);
  if constexpr (W > 8)
    if (d + 8 <= depth)
      scatter<8>(l, lane, points, depth, grad + d, value + d, zeros + d, grad_value + d, sink + d), d += 8;
  if constexpr (W > 4)
    if (d + 4 <= depth)
      scatter<4>(l, lane, points, depth, grad + d, value + d, zeros + d, grad_value + d, sink + d), d += 4;
  for (; d < depth; ++d)
    scatter<1>(l, lane, points, depth, grad + d, value + d, zeros + d, grad_value + d, sink + d);
}

// Per lane: the gradients of the position (into x and y) and of the modulation (into w00).
template <int W, class A>
INLINE void differentiate(const Problem& p, const Lanes<A>& l, int64_t count) {
  using V = Vector<A, W>;
  const A scale = static_cast<A>(p.scale);
  for (int64_t i = 0; i < count; i += W) {
    V s00, s01, s10, s11;
    for (int j = 0; j < W; ++j) {
      const A* dots = l.dots + 4 * (i + j);
      s00[j] = dots[0], s01[j] = dots[1], s10[j] = dots[2], s11[j] = dots[3];
    }
    const V wx0 = load<W>(l.wx0 + i), wx1 = load<W>(l.wx1 + i), wy0 = load<W>(l.wy0 + i), wy1 = load<W>(l.wy1 + i);
    const V on_x0 = load<W>(l.on_x0 + i), on_x1 = load<W>(l.on_x1 + i);
    const V on_y0 = load<W>(l.on_y0 + i), on_y1 = load<W>(l.on_y1 + i), m = load<W>(l.m + i) * scale;
    store<W>(l.x + i, m * (wy0 * (on_x1 * s01 - on_x0 * s00) + wy1 * (on_x1 * s11 - on_x0 * s10)));
    store<W>(l.y + i, m * (wx0 * (on_y1 * s10 - on_y0 * s00) + wx1 * (on_y1 * s11 - on_y0 * s01)));
    store<W>(l.w00 + i, wy0 * (wx0 * s00 + wx1 * s01) + wy1 * (wx0 * s10 + wx1 * s11));
  }
  if (p.normalize == kNone) return;
  const int64_t points = p.points();
  for (int64_t first = 0; first < count; first += points) {
    A mean = 0;
    for (int64_t i = first; i < first + points; ++i) mean += l.m[i] * l.w00[i];
    for (int64_t i = first; i < first + points; ++i)
      l.w00[i] = p.normalize == kSoftmax ? l.m[i] * (l.w00[i] - mean) : l.w00[i] * l.m[i] * (A(1) - l.m[i]);
  }
}

// One group of one image between strided (stride `pixel`) and dense memory.
template <class T, class A>
INLINE void pack(const T* from, int64_t count, int64_t depth, int64_t pixel, A* to) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < depth; ++d) to[i * depth + d] = to_accumulate(from[i * pixel + d]);
}
template <class T, class A>
INLINE void unpack(const A* from, int64_t count, int64_t depth, int64_t pixel, T* to) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < depth; ++d) assign(to[i * pixel + d], from[i * depth + d]);
}

// Pairs (image, group) [from, to): each owns its slice of the value's gradient, so no two threads add to one number.
template <class T>
TARGET void backward(const Problem& p, const T* grad, const T* value, const T* offset, const T* mask,
                     const Gradients<T>& into, int64_t from, int64_t to) {
  using A = Accumulate<T>;
  constexpr int W = BYTES / sizeof(A);
  const int64_t points = p.points(), depth = p.depth, pixel = p.channels(), pixels = p.height * p.width;
  const int64_t most = std::max<int64_t>(1, 144 / points);
  const Grid<A> grid(p, 1);
  const std::vector<A> zeros(depth);
  // A group's channels, dense: neighbouring pixels then share cache sets and lines.
  std::vector<A> sink(depth), dense_value(pixels * depth), grad_value(pixels * depth), dense_grad(most * depth);
  Lanes<A> lanes(most * points);
  for (int64_t pair = from; pair < to; ++pair) {
    const int64_t n = pair / p.groups, g = pair % p.groups, slice = n * pixels * pixel + g * depth;
    pack(value + slice, pixels, depth, pixel, dense_value.data());
    std::fill(grad_value.begin(), grad_value.end(), A(0));
    for (int64_t done = 0; done < p.positions();) {
      const Run run = run_at(p, n * p.positions() + done, std::min(most, p.positions() - done));
      const int64_t count = run.length * points;
      pack(grad + run.position * pixel + g * depth, run.length, depth, pixel, dense_grad.data());
      for (int64_t i = 0; i < run.length; ++i)
        read_lanes(p, grid, run.row, run.column + i, offset + (run.position + i) * p.offset_stride + g * points * 2,
                   mask + (run.position + i) * p.mask_stride + g * points, lanes, i * points);
      normalize_lanes<W>(p, lanes.m, count);
      find_corners<true, W>(p, depth, lanes, count);
      std::fill(lanes.dots, lanes.dots + 4 * lanes.size, A(0));
      for (int64_t i = 0; i < run.length; ++i)
        scatter_group<W>(lanes, i * points, points, depth, dense_grad.data() + i * depth, dense_value.data(),
                         zeros.data(), grad_value.data(), sink.data());
      differentiate<W>(p, lanes, count);
      for (int64_t i = 0; i < run.length; ++i) {
        const int64_t first = ((run.position + i) * p.groups + g) * points;
        for (int64_t k = 0; k < points; ++k) {
          assign(into.offset[2 * (first + k)], lanes.x[i * points + k]);
          assign(into.offset[2 * (first + k) + 1], lanes.y[i * points + k]);
          assign(into.mask[first + k], lanes.w00[i * points + k]);
        }
      }
      done += run.length;
    }
    unpack(grad_value.data(), pixels, depth, pixel, into.value + slice);
  }
}

#undef INLINE
#undef TARGET
#undef BYTES
