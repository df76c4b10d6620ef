// DCNv3's arithmetic for one instruction set, on the vectors of cpu_vectors.h.
//
// Shapes: value (N, H, W, G, D), offset (N, Ho, Wo, G, K, 2) as (x, y), mask (N, Ho, Wo, G, K); see README.md.
// A "lane" is one sampling point of one group at one output position. Work goes in three steps over blocks of lanes
// that stay in the first-level cache: where the points lie and how much they count (vectors of lanes), then the four
// corners of each point (vectors of the group's channels), then, backward, gradients per lane.
//
// A number of points or channels that templates know (kPoints, kDepth; 0 for any) makes short loops straight code.
//
// Results don't depend on the number of threads: an output position, and backward a whole (image, group), belongs to
// one thread, and a lane is computed alike wherever it lies in a block.

// ---- Blocks of lanes ----------------------------------------------------------------------------------------------

// Lanes that a block has room for (cpu.cpp refuses kernels of more points), and how many it aims at.
constexpr int64_t kCapacity = kMostPoints + 16, kBlock = 256;

// Whether 9 points and 16 channels, as in most published networks, get code of their own. More such code would take a
// compiler many seconds.
template <class T>
constexpr bool kSpecial = BYTES > 16 && sizeof(T) <= 4;

// The upper left corner that is on the map, in elements from the map's first one, or what `find_corners` was told for a
// point off the map; elements from there to the corners on the right and below, 0 where there is none (it has weight 0
// then). Arrays are computed in whole vectors, so that numbers after the last lane are read and mean nothing.
template <class A>
struct alignas(64) Lanes {
  // Position, modulation, weights of the corners.
  A x[kCapacity], y[kCapacity], m[kCapacity], w00[kCapacity], w01[kCapacity], w10[kCapacity], w11[kCapacity];
  int32_t first[kCapacity], right[kCapacity], down[kCapacity];
};
template <class A>
struct BackwardLanes : Lanes<A> {
  // Factors of the weights per axis; 1 where a row or column is on the map.
  A wx0[kCapacity], wx1[kCapacity], wy0[kCapacity], wy1[kCapacity];
  A on_x0[kCapacity], on_x1[kCapacity], on_y0[kCapacity], on_y1[kCapacity];
  // Scalar products of the output's gradient with the four corners.
  A dots[4 * kCapacity];
};

// The kernel's grid, repeated for every group and output position of a block.
template <class A>
struct Grid {
  Grid(const Problem& p, int64_t groups, int64_t positions) {
    const int64_t center_h = p.dilation_h * (p.kernel_h - 1) / 2, center_w = p.dilation_w * (p.kernel_w - 1) / 2;
    for (auto* each : {&column, &dx, &dy}) each->reserve(positions * groups * p.points());
    for (int64_t i = 0; i < positions * groups; ++i)
      for (int64_t ix = 0; ix < p.kernel_w; ++ix)
        for (int64_t iy = 0; iy < p.kernel_h; ++iy) {
          if (p.remove_center && ix == p.kernel_w / 2 && iy == p.kernel_h / 2) continue;
          column.push_back(static_cast<A>(i / groups * p.stride_w));
          dx.push_back(static_cast<A>(p.scale * static_cast<double>(p.dilation_w * ix - center_w)));
          dy.push_back(static_cast<A>(p.scale * static_cast<double>(p.dilation_h * iy - center_h)));
        }
    start_x = static_cast<A>(center_w - p.padding_w), start_y = static_cast<A>(center_h - p.padding_h);
  }
  std::vector<A> column, dx, dy;
  A start_x, start_y;
};

// Neighbouring output positions of one row; `position` is the first one's index in the whole batch.
struct Run {
  int64_t image, row, column, length, position;
};
// Position `index` and at most `most` after it in its row.
TARGET inline Run run_at(const Problem& p, int64_t index, int64_t most) {
  const int64_t row = index / p.out_w, column = index % p.out_w;
  return {row / p.out_h, row % p.out_h, column, std::min(most, p.out_w - column), index};
}

// ---- Where the points lie -----------------------------------------------------------------------------------------

// Positions of `count` lanes, the first of which is lane `at` of the block.
template <int64_t kCount, class T, class A>
INLINE void place(const Problem& p, const Grid<A>& grid, const Run& run, const T* offset, int64_t at, int64_t count,
                  Lanes<A>& lanes) {
  if (kCount) count = kCount;
  const A out_x = static_cast<A>(run.column) * static_cast<A>(p.stride_w) + grid.start_x;
  const A out_y = static_cast<A>(run.row) * static_cast<A>(p.stride_h) + grid.start_y;
  const A scale = static_cast<A>(p.scale);
  const A *__restrict dx = grid.dx.data() + at, *__restrict dy = grid.dy.data() + at;
  const A* __restrict column = grid.column.data() + at;
  A *__restrict x = lanes.x + at, *__restrict y = lanes.y + at;
  for (int64_t i = 0; i < count; ++i) {
    x[i] = ((out_x + column[i]) + dx[i]) + scale * to_accumulate(offset[2 * i]);
    y[i] = (out_y + dy[i]) + scale * to_accumulate(offset[2 * i + 1]);
  }
}

// What of a row of numbers goes through a vector.
template <int64_t kPoints>
constexpr int kRow = kPoints >= 8 ? 8 : 1;

// A row of logits less the largest; then, after the exponential, divided by the sum.
template <int64_t kPoints, class T, class A>
INLINE void subtract_largest(const T* from, int64_t points, A* to) {
  if (kPoints) points = kPoints;
  constexpr int W = kRow<kPoints>;
  const Vector<A, W> row = load<W>(from);
  A most = largest<A, W>(row);
  for (int64_t k = W; k < points; ++k) most = to_accumulate(from[k]) > most ? to_accumulate(from[k]) : most;
  store<W>(to, row - most);
  for (int64_t k = W; k < points; ++k) to[k] = to_accumulate(from[k]) - most;
}
template <int64_t kPoints, class A>
INLINE void divide_by_sum(A* m, int64_t points) {
  if (kPoints) points = kPoints;
  constexpr int W = kRow<kPoints>;
  const Vector<A, W> row = load<W>(m);
  A sum = total<A, W>(row);
  for (int64_t k = W; k < points; ++k) sum += m[k];
  const A inverse = A(1) / sum;
  store<W>(m, row * inverse);
  for (int64_t k = W; k < points; ++k) m[k] *= inverse;
}

// Modulations of a run, of which every position has `width` lanes.
template <int W, int64_t kPoints, class T, class A>
TARGET void modulate(const Problem& p, const Run& run, const T* mask, int64_t width, A* m) {
  const int64_t points = kPoints ? kPoints : p.points(), count = run.length * width;
  for (int64_t i = 0; i < run.length; ++i) {
    const T* from = mask + i * p.mask_stride;
    A* to = m + i * width;
    if (p.normalize == kSoftmax)
      for (int64_t j = 0; j < width; j += points) subtract_largest<kPoints>(from + j, points, to + j);
    else
      for (int64_t j = 0; j < width; ++j) to[j] = to_accumulate(from[j]);
  }
  if (p.normalize == kSoftmax) {
    for (int64_t i = 0; i < count; i += W) store<W>(m + i, exponential<W>(load<W>(m + i)));
    for (int64_t i = 0; i < count; i += points) divide_by_sum<kPoints>(m + i, points);
  } else if (p.normalize == kSigmoid) {
    for (int64_t i = 0; i < count; i += W) store<W>(m + i, A(1) / (exponential<W>(-load<W>(m + i)) + A(1)));
  }
}

// The maps of W lanes: their sizes, and the elements before each map's first one.
template <int W, class A>
struct MapsOf {
  using I = Vector<IndexOf<sizeof(A)>, W>;
  Vector<A, W> width, height;
  I columns, rows, start;
};
// One map for all lanes.
template <class A>
struct OneMap {
  int64_t height, width;

  template <int W>
  INLINE MapsOf<W, A> at(int64_t) const {
    using Index = IndexOf<sizeof(A)>;
    const typename MapsOf<W, A>::I none{};
    return {Vector<A, W>{} + static_cast<A>(width), Vector<A, W>{} + static_cast<A>(height),
            none + static_cast<Index>(width), none + static_cast<Index>(height), none};
  }
};

// Corners and weights of W lanes from `at` on; `pixel` is the number of elements from one pixel to the next, `outside`
// what a point off the map gets for its first corner.
template <bool kBackward, int W, class A, class Maps, class AnyLanes>
INLINE void find_corners_of(const Maps& maps, int64_t pixel, int64_t outside, AnyLanes& l, int64_t at) {
  using V = Vector<A, W>;
  using Index = IndexOf<sizeof(A)>;
  using I = Vector<Index, W>;
  using I32 = Vector<int32_t, W>;
  const auto [width, height, columns, rows, start] = maps.template at<W>(at);
  const Index one_right = static_cast<Index>(pixel);
  const I one_down = one_right * columns;
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
  const I first = start + (y0 & up) * one_down + (x0 & left) * one_right;
  const I to_right = inside & left & right & one_right, to_down = inside & up & down & one_down;
  store<W>(l.first + at, __builtin_convertvector(inside ? first : I{} + static_cast<Index>(outside), I32));
  store<W>(l.right + at, __builtin_convertvector(to_right, I32));
  store<W>(l.down + at, __builtin_convertvector(to_down, I32));
  if constexpr (kBackward) {
    store<W>(l.wx0 + at, wx0), store<W>(l.wx1 + at, wx1), store<W>(l.wy0 + at, wy0), store<W>(l.wy1 + at, wy1);
    // A point off the map gets no gradient, and its dot products are those of zeros.
    store<W>(l.on_x0 + at, inside & left ? one : none), store<W>(l.on_x1 + at, inside & right ? one : none);
    store<W>(l.on_y0 + at, inside & up ? one : none), store<W>(l.on_y1 + at, inside & down ? one : none);
  }
}
template <bool kBackward, int W, class A, class Maps, class AnyLanes>
TARGET void find_corners(const Maps& maps, int64_t pixel, int64_t outside, AnyLanes& lanes, int64_t count) {
  for (int64_t at = 0; at < count; at += W) find_corners_of<kBackward, W, A>(maps, pixel, outside, lanes, at);
}

// `work` for every lane of one group at one output position.
template <int64_t kPoints, class F>
INLINE void for_points(int64_t lane, int64_t points, const F& work) {
  if constexpr (kPoints != 0) {
#pragma GCC unroll 9
    for (int64_t i = 0; i < kPoints; ++i) work(lane + i);
  } else {
    for (int64_t i = lane; i < lane + points; ++i) work(i);
  }
}

// ---- Forward ------------------------------------------------------------------------------------------------------

// W * R channels of one group at one output position. `away` leads from first + value to zeros where first is -1.
template <int W, int R, int64_t kPoints, class T, class A = Accumulate<T>>
INLINE void aggregate(const Lanes<A>& l, int64_t lane, int64_t points, const T* value, int64_t away, T* out) {
  Vector<A, W> upper[R] = {}, lower[R] = {};
  for_points<kPoints>(lane, points, [&](int64_t i) INLINE_LAMBDA {
    const int64_t first = l.first[i], right = l.right[i];
    // Where the sign bit is set, without a branch: near a border there is no guessing.
    const T* corner = value + (first + (first >> 63 & away));
    const T* below = corner + l.down[i];
    const A w00 = l.w00[i], w01 = l.w01[i], w10 = l.w10[i], w11 = l.w11[i];
    for (int r = 0; r < R; ++r) {
      upper[r] += load<W>(corner + r * W) * w00;
      lower[r] += load<W>(below + r * W) * w10;
      upper[r] += load<W>(corner + right + r * W) * w01;
      lower[r] += load<W>(below + right + r * W) * w11;
    }
  });
  for (int r = 0; r < R; ++r) store<W>(out + r * W, upper[r] + lower[r]);
}

template <int W, int64_t kPoints, int64_t kDepth, class T, class A = Accumulate<T>>
INLINE void aggregate_group(const Lanes<A>& l, int64_t lane, int64_t points, int64_t depth, const T* value,
                            int64_t away, T* out) {
  int64_t d = 0;
  if constexpr (kDepth != 0) {
    constexpr int R = std::min<int64_t>(2, kDepth / W);
    for (; d < kDepth; d += R * W) aggregate<W, R, kPoints>(l, lane, points, value + d, away, out + d);
  } else {
    // Any number of points here: else a compiler computes all addresses ahead of the first loop.
    if constexpr (W == 8)
      for (; d + 4 * W <= depth; d += 4 * W) aggregate<W, 4, 0>(l, lane, points, value + d, away, out + d);
    for (; d + 2 * W <= depth; d += 2 * W) aggregate<W, 2, 0>(l, lane, points, value + d, away, out + d);
    if (d + W <= depth) aggregate<W, 1, 0>(l, lane, points, value + d, away, out + d), d += W;
    if constexpr (W > 8)
      if (d + 8 <= depth) aggregate<8, 1, 0>(l, lane, points, value + d, away, out + d), d += 8;
    if constexpr (W > 4)
      if (d + 4 <= depth) aggregate<4, 1, 0>(l, lane, points, value + d, away, out + d), d += 4;
    for (; d < depth; ++d) aggregate<1, 1, 0>(l, lane, points, value + d, away, out + d);
  }
}

// What the next run reads comes from memory while this one is computed: offsets, logits, and the pixels some rows below
// (those nearer were asked for some rows ago).
template <class T>
struct Ahead {
  TARGET Ahead(const Problem& p, const Run& next, const T* value, const T* offset, const T* mask) : p(p) {
    constexpr int64_t kRows = 4;
    const int64_t row = next.row * p.stride_h - p.padding_h + p.dilation_h * (p.kernel_h - 1) + kRows;
    const int64_t column = std::min(next.column * p.stride_w, p.width - 1);
    const int64_t on_map = std::max<int64_t>(0, std::min(row, p.height - 1));
    this->value = value + ((next.image * p.height + on_map) * p.width + column) * p.channels();
    this->offset = offset + next.position * p.offset_stride, this->mask = mask + next.position * p.mask_stride;
  }
  // The run's `i`-th position. Inlined: GCC drops calls that only prefetch.
  INLINE void fetch(int64_t i) const {
    prefetch(offset + i * p.offset_stride, 2 * p.groups * p.points());
    prefetch(mask + i * p.mask_stride, p.groups * p.points());
    prefetch(value + i * p.stride_w * p.channels(), p.stride_w * p.channels());
  }
  const Problem& p;
  const T *value, *offset, *mask;
};

// Output positions [from, to) of the whole batch.
template <int64_t kPoints, int64_t kDepth, class T>
TARGET void forward_of(const Problem& p, const T* value, const T* offset, const T* mask, T* out, int64_t from,
                       int64_t to) {
  using A = Accumulate<T>;
  constexpr int W = BYTES / sizeof(A);
  const int64_t points = kPoints ? kPoints : p.points(), pixel = p.channels();
  // A block has all groups of some positions or, of many groups, some groups of one position.
  const int64_t chunk = std::min(p.groups, std::max<int64_t>(1, kBlock / points));
  const int64_t most = std::max<int64_t>(1, kBlock / (chunk * points));
  const bool flat = chunk == p.groups && p.offset_stride == 2 * p.groups * points;
  const Grid<A> grid(p, chunk, most);
  const OneMap<A> map{p.height, p.width};
  const std::vector<T> zeros(p.depth, T{});
  const std::unique_ptr<Lanes<A>> memory(new Lanes<A>);
  Lanes<A>& lanes = *memory;
  while (from < to) {
    const Run run = run_at(p, from, std::min(most, to - from));
    from += run.length;
    const Ahead<T> ahead(p, from < to ? run_at(p, from, most) : run, value, offset, mask);
    const T* image = value + run.image * p.height * p.width * pixel;
    for (int64_t group = 0; group < p.groups; group += chunk) {
      const int64_t groups = std::min(chunk, p.groups - group), width = groups * points;
      const T* first_offset = offset + run.position * p.offset_stride + group * points * 2;
      if (flat)
        place<0>(p, grid, run, first_offset, 0, run.length * width, lanes);
      else
        for (int64_t i = 0; i < run.length; ++i)
          place<0>(p, grid, run, first_offset + i * p.offset_stride, i * width, width, lanes);
      const T* first_mask = mask + run.position * p.mask_stride + group * points;
      (points == 9 ? modulate<W, 9, T, A> : modulate<W, 0, T, A>)(p, run, first_mask, width, lanes.m);
      find_corners<false, W, A>(map, pixel, -1, lanes, run.length * width);
      for (int64_t i = 0; i < run.length; ++i) {
        if (group == 0) ahead.fetch(i);
        for (int64_t g = 0; g < groups; ++g) {
          const T* slice = image + (group + g) * p.depth;
          aggregate_group<W, kPoints, kDepth>(lanes, i * width + g * points, points, p.depth, slice,
                                              zeros.data() - slice + 1,
                                              out + (run.position + i) * pixel + (group + g) * p.depth);
        }
      }
    }
  }
}

template <class T>
TARGET void forward(const Problem& p, const T* value, const T* offset, const T* mask, T* out, int64_t from,
                    int64_t to) {
  if constexpr (kSpecial<T>)
    if (p.points() == 9 && p.depth == 16) return forward_of<9, 16>(p, value, offset, mask, out, from, to);
  forward_of<0, 0>(p, value, offset, mask, out, from, to);
}

// ---- Backward -----------------------------------------------------------------------------------------------------

// W * R channels of one group at one output position: scalar products with the corners, and what the corners receive.
template <int W, int R, int64_t kPoints, bool kFirst, class A>
INLINE void scatter(BackwardLanes<A>& l, int64_t lane, int64_t points, const A* grad, const A* value, A* to) {
  Vector<A, W> g[R];
  for (int r = 0; r < R; ++r) g[r] = load<W>(grad + r * W);
  for_points<kPoints>(lane, points, [&](int64_t i) INLINE_LAMBDA {
    const int64_t at00 = l.first[i], at10 = at00 + l.down[i], at01 = at00 + l.right[i], at11 = at10 + l.right[i];
    Vector<A, W> s00{}, s01{}, s10{}, s11{};
    for (int r = 0; r < R; ++r) {
      s00 += g[r] * load<W>(value + at00 + r * W), s01 += g[r] * load<W>(value + at01 + r * W);
      s10 += g[r] * load<W>(value + at10 + r * W), s11 += g[r] * load<W>(value + at11 + r * W);
    }
    add_sums<kFirst, A, W>(l.dots + 4 * i, s00, s01, s10, s11);
    // One corner after the other: they can be the same pixel.
    for (int r = 0; r < R; ++r) store<W>(to + at00 + r * W, load<W>(to + at00 + r * W) + g[r] * l.w00[i]);
    for (int r = 0; r < R; ++r) store<W>(to + at01 + r * W, load<W>(to + at01 + r * W) + g[r] * l.w01[i]);
    for (int r = 0; r < R; ++r) store<W>(to + at10 + r * W, load<W>(to + at10 + r * W) + g[r] * l.w10[i]);
    for (int r = 0; r < R; ++r) store<W>(to + at11 + r * W, load<W>(to + at11 + r * W) + g[r] * l.w11[i]);
  });
}

template <int W, int64_t kPoints, int64_t kDepth, class A>
INLINE void scatter_group(BackwardLanes<A>& l, int64_t lane, int64_t points, int64_t depth, const A* grad,
                          const A* value, A* to) {
  int64_t d = 0;
  if constexpr (kDepth != 0) {
    constexpr int R = std::min<int64_t>(W == 8 ? 4 : 2, kDepth / W);
    scatter<W, R, kPoints, true>(l, lane, points, grad, value, to);
    for (d = R * W; d < kDepth; d += R * W) scatter<W, R, kPoints, false>(l, lane, points, grad + d, value + d, to + d);
  } else {
    std::fill(l.dots + 4 * lane, l.dots + 4 * (lane + points), A(0));
    for (; d + W <= depth; d += W) scatter<W, 1, 0, false>(l, lane, points, grad + d, value + d, to + d);
    if constexpr (W > 8)
      if (d + 8 <= depth) scatter<8, 1, 0, false>(l, lane, points, grad + d, value + d, to + d), d += 8;
    if constexpr (W > 4)
      if (d + 4 <= depth) scatter<4, 1, 0, false>(l, lane, points, grad + d, value + d, to + d), d += 4;
    for (; d < depth; ++d) scatter<1, 1, 0, false>(l, lane, points, grad + d, value + d, to + d);
  }
}

// Through the softmax of one row: from the gradient of its results (and the results `m`) to that of its logits.
template <int64_t kPoints, class A>
INLINE void differentiate_softmax(const A* m, A* grad, int64_t points) {
  if (kPoints) points = kPoints;
  constexpr int W = kRow<kPoints>;
  const Vector<A, W> weights = load<W>(m), row = load<W>(grad);
  A mean = total<A, W>(weights * row);
  for (int64_t k = W; k < points; ++k) mean += m[k] * grad[k];
  store<W>(grad, weights * (row - mean));
  for (int64_t k = W; k < points; ++k) grad[k] = m[k] * (grad[k] - mean);
}

// Per lane: the gradients of the position (into x and y) and of the modulation's logit (into w00).
template <int W, int64_t kPoints, class A>
TARGET void differentiate(const Problem& p, BackwardLanes<A>& l, int64_t count) {
  using V = Vector<A, W>;
  const A scale = static_cast<A>(p.scale);
  for (int64_t i = 0; i < count; i += W) {
    V s00, s01, s10, s11;
    load_quadruples<W, A>(l.dots + 4 * i, s00, s01, s10, s11);
    const V wx0 = load<W>(l.wx0 + i), wx1 = load<W>(l.wx1 + i), wy0 = load<W>(l.wy0 + i), wy1 = load<W>(l.wy1 + i);
    const V on_x0 = load<W>(l.on_x0 + i), on_x1 = load<W>(l.on_x1 + i);
    const V on_y0 = load<W>(l.on_y0 + i), on_y1 = load<W>(l.on_y1 + i), m = load<W>(l.m + i);
    store<W>(l.x + i, m * scale * (wy0 * (on_x1 * s01 - on_x0 * s00) + wy1 * (on_x1 * s11 - on_x0 * s10)));
    store<W>(l.y + i, m * scale * (wx0 * (on_y1 * s10 - on_y0 * s00) + wx1 * (on_y1 * s11 - on_y0 * s01)));
    const V grad_m = wy0 * (wx0 * s00 + wx1 * s01) + wy1 * (wx0 * s10 + wx1 * s11);
    store<W>(l.w00 + i, p.normalize == kSigmoid ? grad_m * m * (A(1) - m) : grad_m);
  }
  if (p.normalize != kSoftmax) return;
  const int64_t points = kPoints ? kPoints : p.points();
  for (int64_t i = 0; i < count; i += points) differentiate_softmax<kPoints>(l.m + i, l.w00 + i, points);
}

// One group of one image between strided (stride `pixel`) and dense memory.
template <int64_t kDepth, class T, class A>
INLINE void pack(const T* from, int64_t count, int64_t depth, int64_t pixel, A* to) {
  if (kDepth) depth = kDepth;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < depth; ++d) to[i * depth + d] = to_accumulate(from[i * pixel + d]);
}
template <int64_t kDepth, class T, class A>
INLINE void unpack(const A* from, int64_t count, int64_t depth, int64_t pixel, T* to) {
  if (kDepth) depth = kDepth;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < depth; ++d) assign(to[i * pixel + d], from[i * depth + d]);
}

// Pairs (image, group) [from, to): each owns its slice of the value's gradient, so no two threads add to one number.
template <int64_t kPoints, int64_t kDepth, class T>
TARGET void backward_of(const Problem& p, const T* grad, const T* value, const T* offset, const T* mask,
                        const Gradients<T>& into, int64_t from, int64_t to) {
  using A = Accumulate<T>;
  constexpr int W = BYTES / sizeof(A);
  const int64_t points = kPoints ? kPoints : p.points(), depth = kDepth ? kDepth : p.depth, pixel = p.channels();
  const int64_t pixels = p.height * p.width, most = std::max<int64_t>(1, kBlock / points);
  const Grid<A> grid(p, 1, most);
  const OneMap<A> map{p.height, p.width};
  // A group's channels, dense: neighbouring pixels then share cache sets. One pixel more is the zeros that points off
  // the map read and what they add to.
  Buffer<A> dense_value((pixels + 1) * depth), grad_value((pixels + 1) * depth), dense_grad(most * depth);
  const std::unique_ptr<BackwardLanes<A>> memory(new BackwardLanes<A>);
  BackwardLanes<A>& lanes = *memory;
  for (int64_t pair = from; pair < to; ++pair) {
    const int64_t n = pair / p.groups, g = pair % p.groups, slice = n * pixels * pixel + g * depth;
    pack<kDepth>(value + slice, pixels, depth, pixel, dense_value.data());
    grad_value.clear();
    for (int64_t done = 0; done < p.positions();) {
      const Run run = run_at(p, n * p.positions() + done, std::min(most, p.positions() - done));
      const int64_t count = run.length * points;
      done += run.length;
      pack<kDepth>(grad + run.position * pixel + g * depth, run.length, depth, pixel, dense_grad.data());
      for (int64_t i = 0; i < run.length; ++i)
        place<kPoints>(p, grid, run, offset + (run.position + i) * p.offset_stride + g * points * 2, i * points, points,
                       lanes);
      const T* first_mask = mask + run.position * p.mask_stride + g * points;
      (points == 9 ? modulate<W, 9, T, A> : modulate<W, 0, T, A>)(p, run, first_mask, points, lanes.m);
      find_corners<true, W, A>(map, depth, pixels * depth, lanes, count);
      const Run next = done < p.positions() ? run_at(p, n * p.positions() + done, most) : run;
      for (int64_t i = 0; i < run.length; ++i) {
        prefetch(offset + (next.position + i) * p.offset_stride + g * points * 2, 2 * points);
        prefetch(mask + (next.position + i) * p.mask_stride + g * points, points);
        prefetch(grad + (next.position + i) * pixel + g * depth, depth);
        scatter_group<W, kPoints, kDepth>(lanes, i * points, points, depth, dense_grad.data() + i * depth,
                                          dense_value.data(), grad_value.data());
      }
      differentiate<W, kPoints>(p, lanes, count);
      for (int64_t i = 0; i < run.length; ++i) {
        const int64_t first = ((run.position + i) * p.groups + g) * points;
        for (int64_t k = 0; k < points; ++k) {
          assign(into.offset[2 * (first + k)], lanes.x[i * points + k]);
          assign(into.offset[2 * (first + k) + 1], lanes.y[i * points + k]);
          assign(into.mask[first + k], lanes.w00[i * points + k]);
        }
      }
    }
    unpack<kDepth>(grad_value.data(), pixels, depth, pixel, into.value + slice);
  }
}

template <class T>
TARGET void backward(const Problem& p, const T* grad, const T* value, const T* offset, const T* mask,
                     const Gradients<T>& into, int64_t from, int64_t to) {
  if constexpr (kSpecial<T>)
    if (p.points() == 9 && p.depth == 16) return backward_of<9, 16>(p, grad, value, offset, mask, into, from, to);
  backward_of<0, 0>(p, grad, value, offset, mask, into, from, to);
}
