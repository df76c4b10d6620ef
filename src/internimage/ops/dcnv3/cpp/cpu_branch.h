// DCNv3's separable branch for one instruction set: depth-wise convolution, layer normalisation and activation of a
// channels-last map in one pass, on the vectors of cpu_vectors.h.
//
// Shapes: x (N, H, W, C), out (N, Ho, Wo, C). Work goes in tiles of one output row that stay in the first-level cache:
// sums of products over the windows and their means, then variances, normalisation and activation. Results don't depend
// on the number of threads: an output row belongs to one thread.

// Output columns that share the loads of weights and pixels: images of 224 pixels have maps 56, 28, 14 and 7 wide.
constexpr int kTile = 7;

// The first `count` of a vector's numbers, 0 < count <= W; the others are 0.
template <int W, class T>
INLINE Vector<Accumulate<T>, W> load_first(const T* from, int64_t count) {
  T part[W] = {};
  std::memcpy(part, from, count * sizeof(T));
  return load<W>(part);
}
template <int W, class T, class V>
INLINE void store_first(T* to, V x, int64_t count) {
  T part[W];
  store<W>(part, x);
  std::memcpy(to, part, count * sizeof(T));
}

// The parameters as rows of channels, padded with zeros to whole vectors: one for each tap of the kernel, then the
// convolution's bias (null for none), the normalisation's weight and its bias.
template <class T, class A = Accumulate<T>>
TARGET Buffer<A> pack_branch(const Branch& p, const T* weight, const T* bias, const T* norm_weight, const T* norm_bias) {
  const int64_t taps = p.kernel_h * p.kernel_w, padded = p.padded();
  Buffer<A> rows((taps + 3) * padded);
  A *packed = rows.data(), *last = packed + taps * padded;
  for (int64_t c = 0; c < p.channels; ++c) {
    for (int64_t k = 0; k < taps; ++k) packed[k * padded + c] = to_accumulate(weight[c * taps + k]);
    last[c] = bias ? to_accumulate(bias[c]) : A(0);
    last[padded + c] = to_accumulate(norm_weight[c]), last[2 * padded + c] = to_accumulate(norm_bias[c]);
  }
  return rows;
}

// The pixels under the windows of one tile: rows [top, bottom) of the kernel are on the map, each with `span` columns.
// A pixel off the map is one of zeros, so that the loops over pixels know no borders.
template <class T>
struct Window {
  int64_t top, bottom, span;
  const T** pixels;
};

// W channels of a tile. kSize 3 stands for three columns and stride 1, which lets the compiler load each pixel once.
template <int W, int kSize, bool kPart, class T, class A>
INLINE void convolve_block(const Branch& p, const Window<T>& w, int64_t c, const A* packed, A* buffer,
                           Vector<A, W> (&sums)[kTile]) {
  const int64_t padded = p.padded(), columns = kSize ? kSize : p.kernel_w, step = kSize ? 1 : p.stride_w;
  Vector<A, W> result[kTile];
  for (int j = 0; j < kTile; ++j) result[j] = load<W>(packed + p.kernel_h * p.kernel_w * padded + c);
  for (int64_t ky = w.top; ky < w.bottom; ++ky)
    for (int64_t kx = 0; kx < columns; ++kx) {
      const Vector<A, W> weight = load<W>(packed + (ky * columns + kx) * padded + c);
      for (int j = 0; j < kTile; ++j) {
        const T* pixel = w.pixels[ky * w.span + kx + j * step];
        if constexpr (kPart)
          result[j] += load_first<W>(pixel + c, p.channels - c) * weight;
        else
          result[j] += load<W>(pixel + c) * weight;
      }
    }
  for (int j = 0; j < kTile; ++j) store<W>(buffer + j * padded + c, result[j]), sums[j] += result[j];
}

// All channels of a tile, and their means.
template <int W, int kSize, class T, class A>
INLINE void convolve(const Branch& p, const Window<T>& w, const A* packed, A* buffer, A* mean) {
  Vector<A, W> sums[kTile] = {};
  int64_t c = 0;
  for (; c + W <= p.channels; c += W) convolve_block<W, kSize, false>(p, w, c, packed, buffer, sums);
  if (c < p.channels) convolve_block<W, 0, true>(p, w, c, packed, buffer, sums);
  for (int j = 0; j < kTile; ++j) mean[j] = total<A, W>(sums[j]) / static_cast<A>(p.channels);
}

// x * Phi(x) = max(x, 0) - |x| * Phi(-|x|), which cancels nothing. log2(Phi(-a)) is a polynomial, our own minimax
// fit on [0, 6] by Lawson's iteration to 7e-8 of its value, still falling at 8; so is 2^r on [-1/2, 1/2], to 9e-8.
template <int W, class V>
INLINE V gelu(V x) {
  if constexpr (std::is_same_v<V, Vector<double, W>>) {
    for (int i = 0; i < W; ++i) x[i] *= 0.5 * std::erfc(x[i] * -0.70710678118654752440);
    return x;
  } else {
    const V most = V{} + 8.0f;
    const V size = reinterpret<V>(reinterpret<Vector<uint32_t, W>>(x) & 0x7fffffffu), a = size > most ? most : size;
    V y = (a * -1.86240907e-08f + 5.95907863e-07f) * a - 8.14074156e-06f;
    y = (y * a + 6.00016137e-05f) * a - 2.23357012e-04f;
    y = (y * a - 1.15085022e-04f) * a + 7.08363298e-03f;
    y = (y * a - 5.25290444e-02f) * a - 4.59194660e-01f;
    y = (y * a - 1.15110672f) * a - 1.0f;
    // As in `exponential`.
    const V shifted = y + 12582912.0f, r = y - (shifted - 12582912.0f);
    V q = (r * 1.32647273e-03f + 9.67151299e-03f) * r + 5.55073358e-02f;
    q = ((q * r + 2.40222424e-01f) * r + 6.93147004e-01f) * r + 1.0f;
    // Into the exponent of q; where that makes nonsense of NaN, `a` is NaN.
    const auto power = reinterpret<Vector<uint32_t, W>>(shifted) << 23;
    return (x > V{} ? x : V{}) - a * reinterpret<V>(reinterpret<Vector<uint32_t, W>>(q) + power);
  }
}

template <int W, int64_t kActivation, class V>
INLINE V activate(V x) {
  // NaN is not below anything. Below -87 `exponential` is no longer exact, and the result no number to speak of.
  if constexpr (kActivation == kRelu)
    return x < V{} ? V{} : x;
  else if constexpr (kActivation == kSilu)
    return x < V{} - 87 ? V{} : x / (exponential<W>(-x) + 1);
  else
    return gelu<W>(x);
}

// The tile's standard deviations, inverted.
template <int W, class A>
INLINE void find_inverse(const Branch& p, const A* buffer, const A (&mean)[kTile], A (&inverse)[kTile]) {
  Vector<A, W> squares[kTile] = {};
  int64_t c = 0;
  for (; c + W <= p.channels; c += W)
    for (int j = 0; j < kTile; ++j) {
      const Vector<A, W> difference = load<W>(buffer + j * p.padded() + c) - mean[j];
      squares[j] += difference * difference;
    }
  for (int j = 0; j < kTile; ++j) {
    A sum = total<A, W>(squares[j]);
    for (const A *row = buffer + j * p.padded(), *at = row + c; at < row + p.channels; ++at)
      sum += (*at - mean[j]) * (*at - mean[j]);
    inverse[j] = A(1) / std::sqrt(sum / static_cast<A>(p.channels) + static_cast<A>(p.eps));
  }
}

// Normalisation and activation of the tile's first `count` columns.
template <int W, int64_t kActivation, class T, class A>
INLINE void finish(const Branch& p, const A* buffer, const A (&mean)[kTile], const A (&inverse)[kTile],
                   const A* norm_weight, T* out, int64_t count) {
  for (int64_t j = 0; j < count; ++j, buffer += p.padded(), out += p.channels)
    for (int64_t c = 0; c < p.channels; c += W) {
      const Vector<A, W> weight = load<W>(norm_weight + c), bias = load<W>(norm_weight + p.padded() + c);
      const Vector<A, W> y = activate<W, kActivation>((load<W>(buffer + c) - mean[j]) * inverse[j] * weight + bias);
      if (c + W <= p.channels)
        store<W>(out + c, y);
      else
        store_first<W>(out + c, y, p.channels - c);
    }
}

// Output rows [from, to), counted through the whole batch.
template <class T, class A = Accumulate<T>>
TARGET void branch(const Branch& problem, const T* x, const A* packed, T* out, int64_t from, int64_t to) {
  // A copy, which writing to memory can't change.
  const Branch p = problem;
  constexpr int W = BYTES / sizeof(A);
  const int64_t pixel = p.channels, span = (kTile - 1) * p.stride_w + p.kernel_w;
  const A* norm_weight = packed + (p.kernel_h * p.kernel_w + 1) * p.padded();
  const std::vector<T> zeros(pixel, T{});
  std::vector<const T*> pixels(p.kernel_h * span);
  Buffer<A> scratch(kTile * p.padded());
  A *buffer = scratch.data(), mean[kTile], inverse[kTile];
  for (int64_t row = from; row < to; ++row) {
    const int64_t y = row % p.out_h * p.stride_h - p.padding_h;
    const T* image = x + row / p.out_h * p.height * p.width * pixel;
    Window<T> w{std::max<int64_t>(0, -y), std::min(p.kernel_h, p.height - y), span, pixels.data()};
    for (int64_t column = 0; column < p.out_w; column += kTile) {
      const int64_t left = column * p.stride_w - p.padding_w, count = std::min<int64_t>(kTile, p.out_w - column);
      for (int64_t ky = w.top; ky < w.bottom; ++ky)
        for (int64_t i = 0; i < span; ++i) {
          const bool on_map = left + i >= 0 && left + i < p.width;
          pixels[ky * span + i] = on_map ? image + ((y + ky) * p.width + left + i) * pixel : zeros.data();
        }
      if (p.kernel_w == 3 && p.stride_w == 1)
        convolve<W, 3>(p, w, packed, buffer, mean);
      else
        convolve<W, 0>(p, w, packed, buffer, mean);
      find_inverse<W>(p, buffer, mean, inverse);
      T* to_row = out + (row * p.out_w + column) * pixel;
      if (p.activation == kRelu)
        finish<W, kRelu>(p, buffer, mean, inverse, norm_weight, to_row, count);
      else if (p.activation == kSilu)
        finish<W, kSilu>(p, buffer, mean, inverse, norm_weight, to_row, count);
      else
        finish<W, kGelu>(p, buffer, mean, inverse, norm_weight, to_row, count);
    }
  }
}
