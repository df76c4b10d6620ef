// Multi-scale deformable attention's arithmetic for one instruction set: Eq. (3), arXiv:2010.04159, by the steps of
// cpu_kernel.h.
//
// Shapes: value (N, S, G, D), points (N, Q, G, L, P, 2) as (x, y) in maps, weights (N, Q, G, L, P), out (N, Q, G, D). In
// DCNv3's words: an image of 1 x S pixels, 1 x Q output positions, a kernel of L x P, except that a lane's map is its
// level's. A row is a group at an output position; points and weights are dense, so that rows follow each other.
//
// Results don't depend on the number of threads, for the reason that cpu_kernel.h gives.

// The maps of the lanes of `rows` rows; `pixel` is the number of elements from one pixel to the next.
template <class A>
struct ManyMaps {
  ManyMaps(const Levels& levels, int64_t pixel, int64_t rows) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0, before = 0; i < static_cast<int64_t>(levels.sizes.size()); i += 2) {
        const int64_t high = levels.sizes[i], wide = levels.sizes[i + 1];
        for (int64_t k = 0; k < levels.points; ++k) {
          height.push_back(static_cast<A>(high)), width.push_back(static_cast<A>(wide));
          this->rows.push_back(static_cast<int32_t>(high)), columns.push_back(static_cast<int32_t>(wide));
          start.push_back(static_cast<int32_t>(before * pixel));
        }
        before += high * wide;
      }
    // Vectors reach past the last lane.
    for (auto* each : {&height, &width}) each->resize(each->size() + 16);
    for (auto* each : {&this->rows, &columns, &start}) each->resize(each->size() + 16);
  }

  template <int W>
  INLINE MapsOf<W, A> at(int64_t lane) const {
    using I = typename MapsOf<W, A>::I;
    return {load<W>(width.data() + lane), load<W>(height.data() + lane),
            __builtin_convertvector(load<W>(columns.data() + lane), I),
            __builtin_convertvector(load<W>(rows.data() + lane), I),
            __builtin_convertvector(load<W>(start.data() + lane), I)};
  }

  // Where `count` points lie in pixels, and how much they count; the first is lane `at`.
  INLINE void place(const A* points, const A* weights, int64_t at, int64_t count, Lanes<A>& lanes) const {
    const A *__restrict w = width.data() + at, *__restrict h = height.data() + at;
    A *__restrict x = lanes.x + at, *__restrict y = lanes.y + at;
    for (int64_t i = 0; i < count; ++i) {
      x[i] = points[2 * i] * w[i] - A(0.5);
      y[i] = points[2 * i + 1] * h[i] - A(0.5);
    }
    std::memcpy(lanes.m + at, weights, count * sizeof(A));
  }

  std::vector<A> height, width;
  std::vector<int32_t> rows, columns, start;
};

// Rows [from, to) of the whole batch.
template <class T, class A = Accumulate<T>>
TARGET void attend(const Problem& p, const Levels& levels, const T* value, const A* points, const A* weights, T* out,
                   int64_t from, int64_t to) {
  constexpr int W = BYTES / sizeof(A);
  const int64_t count = p.points(), most = std::max<int64_t>(1, kBlock / count), pixel = p.channels();
  const int64_t image = p.width * pixel, image_rows = p.positions() * p.groups;
  const ManyMaps<A> maps(levels, pixel, most);
  const std::vector<T> zeros(p.depth, T{});
  const std::unique_ptr<Lanes<A>> memory(new Lanes<A>);
  Lanes<A>& lanes = *memory;
  while (from < to) {
    const int64_t length = std::min(most, to - from), lane_count = length * count;
    maps.place(points + from * count * 2, weights + from * count, 0, lane_count, lanes);
    find_corners<false, W, A>(maps, pixel, -1, lanes, lane_count);
    for (int64_t lane = 0; lane < lane_count; lane += count, ++from) {
      // What comes one block later; beyond the end any address will do.
      prefetch(points + (from + length) * count * 2, 2 * count), prefetch(weights + (from + length) * count, count);
      const T* slice = value + from / image_rows * image + from % p.groups * p.depth;
      aggregate_group<W, 0, 0>(lanes, lane, count, p.depth, slice, zeros.data() - slice + 1, out + from * p.depth);
    }
  }
}

// Pairs (image, group) [from, to): each owns its slice of the value's gradient, so no two threads add to one number.
template <int64_t kDepth, class T, class A>
TARGET void attend_backward_of(const Problem& p, const Levels& levels, const T* grad, const T* value, const A* points,
                               const A* weights, const Gradients<T, A>& into, int64_t from, int64_t to) {
  constexpr int W = BYTES / sizeof(A);
  const int64_t count = p.points(), depth = kDepth ? kDepth : p.depth, pixel = p.channels(), pixels = p.width;
  const int64_t most = std::max<int64_t>(1, kBlock / count);
  const ManyMaps<A> maps(levels, depth, most);
  // Dense, and with a pixel of zeros for points off the map: as DCNv3's.
  Buffer<A> dense_value((pixels + 1) * depth), grad_value((pixels + 1) * depth), dense_grad(most * depth);
  const std::unique_ptr<BackwardLanes<A>> memory(new BackwardLanes<A>);
  BackwardLanes<A>& lanes = *memory;
  for (int64_t pair = from; pair < to; ++pair) {
    const int64_t n = pair / p.groups, g = pair % p.groups, slice = n * pixels * pixel + g * depth;
    pack<kDepth>(value + slice, pixels, depth, pixel, dense_value.data());
    grad_value.clear();
    for (int64_t done = 0; done < p.positions(); done += most) {
      const int64_t length = std::min(most, p.positions() - done), lane_count = length * count;
      const int64_t first = (n * p.positions() + done) * p.groups + g;
      pack<kDepth>(grad + first * depth, length, depth, pixel, dense_grad.data());
      for (int64_t i = 0, row = first; i < length; ++i, row += p.groups)
        maps.place(points + row * count * 2, weights + row * count, i * count, count, lanes);
      find_corners<true, W, A>(maps, depth, pixels * depth, lanes, lane_count);
      for (int64_t i = 0, next = first + length * p.groups; i < length; ++i, next += p.groups) {
        prefetch(points + next * count * 2, 2 * count), prefetch(weights + next * count, count);
        prefetch(grad + next * depth, depth);
        scatter_group<W, 0, kDepth>(lanes, i * count, count, depth, dense_grad.data() + i * depth, dense_value.data(),
                                    grad_value.data());
      }
      differentiate<W, 0>(p, lanes, lane_count);
      for (int64_t i = 0, row = first; i < length; ++i, row += p.groups)
        for (int64_t k = 0, lane = i * count; k < count; ++k, ++lane) {
          into.offset[2 * (row * count + k)] = lanes.x[lane] * maps.width[k];
          into.offset[2 * (row * count + k) + 1] = lanes.y[lane] * maps.height[k];
          into.mask[row * count + k] = lanes.w00[lane];
        }
    }
    unpack<kDepth>(grad_value.data(), pixels, depth, pixel, into.value + slice);
  }
}

template <class T, class A = Accumulate<T>>
TARGET void attend_backward(const Problem& p, const Levels& levels, const T* grad, const T* value, const A* points,
                            const A* weights, const Gradients<T, A>& into, int64_t from, int64_t to) {
  // The width of every published DETR.
  if constexpr (kSpecial<T>)
    if (p.depth == 32) return attend_backward_of<32>(p, levels, grad, value, points, weights, into, from, to);
  attend_backward_of<0>(p, levels, grad, value, points, weights, into, from, to);
}
