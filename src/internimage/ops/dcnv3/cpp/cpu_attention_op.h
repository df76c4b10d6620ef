// Multi-scale deformable attention as operators: checks, memory and threads around cpu_attention.h. A part of cpu.cpp.

// Sides that float32 counts exactly.
constexpr int64_t kLongestSide = int64_t{1} << 24;

struct AttentionCall {
  AttentionCall(const Tensor& v, Ints shapes, const Tensor& at, const Tensor& w, int64_t wanted)
      : value(dense(widened(v))), points(dense(at)), weights(dense(w)), level(usable_level(wanted)) {
    STD_TORCH_CHECK(v.dim() == 4 && at.dim() == 6 && w.dim() == 5 && at.size(5) == 2,
                    "attention: wrong number of dimensions");
    const ScalarType type = v.scalar_type(), own = type == ScalarType::Double ? type : ScalarType::Float;
    STD_TORCH_CHECK(type == ScalarType::Double || type == ScalarType::Float || type == ScalarType::BFloat16 ||
                    type == ScalarType::Half, "attention: the dtype must be float64, float32, bfloat16 or float16");
    STD_TORCH_CHECK(at.scalar_type() == own && w.scalar_type() == own,
                    "attention: points and weights must be float64 with a float64 value, else float32");
    for (int64_t axis = 0; axis < 5; ++axis)
      STD_TORCH_CHECK(at.size(axis) == w.size(axis), "attention: points and weights don't fit together");
    for (const int64_t side : shapes)
      STD_TORCH_CHECK(side > 0 && side < kLongestSide, "attention: a map's side must be from 1 to 2^24 - 1");
    levels = {shapes, w.size(4)};
    p = {v.size(0), 1, v.size(1), v.size(2), v.size(3), 1, w.size(1), w.size(3), w.size(4),
         1, 1, 0, 0, 1, 1, 0, kNone, 0, 0, 1.0};
    STD_TORCH_CHECK(w.size(0) == p.batch && w.size(2) == p.groups &&
                    static_cast<int64_t>(shapes.size()) == 2 * w.size(3) && levels.pixels() == p.width,
                    "attention: value, shapes, points and weights don't fit together");
    STD_TORCH_CHECK(p.groups > 0 && p.depth > 0 && p.points() > 0 && p.points() <= kMostPoints &&
                    p.width * p.channels() < (int64_t{1} << 31),
                    "attention: there must be groups, channels and points, of which an output has at most 4096, and an "
                    "image has less than 2^31 elements");
  }
  Tensor value, points, weights;
  int64_t level;
  Levels levels;
  Problem p;
};

template <class T>
void attention_typed(const AttentionCall& c, Tensor& out) {
  const Problem& p = c.p;
  [[maybe_unused]] const int64_t level = c.level;
  const T* value = pointer<T>(c.value);
  const auto *points = pointer<Accumulate<T>>(c.points), *weights = pointer<Accumulate<T>>(c.weights);
  auto* to = static_cast<T*>(out.mutable_data_ptr());
  const int64_t grain = std::max<int64_t>(1, 32768 / (p.points() * (p.depth + 16)));
  run(p.batch * p.positions() * p.groups, grain, [&](int64_t begin, int64_t end) {
    ON_LEVEL(attend(p, c.levels, value, points, weights, to, begin, end))
  });
}

// value (N, S, G, D), shapes (H, W) of each level in turn, points (N, Q, G, L, P, 2), weights (N, Q, G, L, P), to
// (N, Q, G, D). Points and weights have the dtype of value or, if that has 16 bits, float32.
Tensor attention(const Tensor& value, Ints shapes, const Tensor& points, const Tensor& weights, int64_t level) {
  const AttentionCall c(value, shapes, points, weights, level);
  Tensor out = empty(c.value, {c.p.batch, c.p.positions(), c.p.groups, c.p.depth});
  by_type(c.value.scalar_type(), [&](auto number) { attention_typed<decltype(number)>(c, out); });
  return narrowed(out, value.scalar_type());
}

template <class T>
void attention_backward_typed(const AttentionCall& c, const Tensor& grad, Tensor& to_value, Tensor& to_points,
                              Tensor& to_weights) {
  using A = Accumulate<T>;
  [[maybe_unused]] const int64_t level = c.level;
  const T *y = pointer<T>(grad), *value = pointer<T>(c.value);
  const A *points = pointer<A>(c.points), *weights = pointer<A>(c.weights);
  const auto into = pointers<T, A>(to_value, to_points, to_weights);
  run(c.p.batch * c.p.groups, 1, [&](int64_t begin, int64_t end) {
    ON_LEVEL(attend_backward(c.p, c.levels, y, value, points, weights, into, begin, end))
  });
}

Triple attention_backward(const Tensor& grad, const Tensor& value, Ints shapes, const Tensor& points,
                          const Tensor& weights, int64_t level) {
  const AttentionCall c(value, shapes, points, weights, level);
  const Problem& p = c.p;
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == p.batch && grad.size(1) == p.positions() &&
                  grad.size(2) == p.groups && grad.size(3) == p.depth && grad.scalar_type() == value.scalar_type(),
                  "attention: the gradient doesn't fit the output");
  const Tensor y = dense(widened(grad));
  Tensor to_value = empty(c.value, {p.batch, p.width, p.groups, p.depth});
  Tensor to_points = empty(c.points, {p.batch, p.positions(), p.groups, p.kernel_h, p.kernel_w, 2});
  Tensor to_weights = empty(c.weights, {p.batch, p.positions(), p.groups, p.kernel_h, p.kernel_w});
  by_type(c.value.scalar_type(), [&](auto number) {
    attention_backward_typed<decltype(number)>(c, y, to_value, to_points, to_weights);
  });
  return {narrowed(to_value, value.scalar_type()), to_points, to_weights};
}
