// DCNv3 on a CPU, forward and backward, the branch before it, and deformable attention, through PyTorch's stable ABI: one
// binary for every Python and torch >= 2.10. cpu_kernel.h, cpu_branch.h and cpu_attention.h hold the arithmetic; here and
// in cpu_attention_op.h are the choice of the instruction set, the threads and the operators.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#include <sys/mman.h>
#endif


namespace {

using torch::stable::Tensor;

enum Normalize : int64_t { kNone, kSoftmax, kSigmoid };

// Sampling points of one group: blocks have room for a kernel of 64 x 64.
constexpr int64_t kMostPoints = 4096;

struct BFloat16 {
  uint16_t bits;
};
template <class T>
struct AccumulateOf {
  using type = T;
};
template <>
struct AccumulateOf<BFloat16> {
  using type = float;
};
template <class T>
using Accumulate = typename AccumulateOf<T>::type;

struct Problem {
  int64_t batch, height, width, groups, depth, out_h, out_w;
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  int64_t remove_center, normalize;
  // Elements from one output position to the next.
  int64_t offset_stride, mask_stride;
  double scale;

  int64_t points() const { return kernel_h * kernel_w - remove_center; }
  int64_t channels() const { return groups * depth; }
  int64_t positions() const { return out_h * out_w; }
};

// Those of positions and modulations can be wider than the value's.
template <class T, class A = T>
struct Gradients {
  T* value;
  A *offset, *mask;
};

enum Activation : int64_t { kGelu, kRelu, kSilu };

// The maps of deformable attention: (height, width) of each level, one after the other in memory, and how many points an
// output has on each.
struct Levels {
  std::vector<int64_t> sizes;
  int64_t points;

  int64_t pixels() const {
    int64_t sum = 0;
    for (size_t i = 0; i < sizes.size(); i += 2) sum += sizes[i] * sizes[i + 1];
    return sum;
  }
};

// The separable branch: depth-wise convolution, layer normalisation, activation.
struct Branch {
  int64_t batch, height, width, channels, out_h, out_w;
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
  int64_t activation;
  double eps;

  // Channels of one row of parameters in whole vectors. The number of vectors is odd: rows a power of two apart would
  // share few sets of the first-level cache.
  int64_t padded() const { return ((channels + 15) / 16 | 1) * 16; }
};

// ---- Instruction sets ---------------------------------------------------------------------------------------------

#if defined(__clang__)
#define SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define SHUFFLE(A, B, ...) __builtin_shuffle(A, B, decltype(A == B){__VA_ARGS__})
#endif

namespace plain {
#define TARGET
#define BYTES 16
#include "cpu_level.h"
}  // namespace plain

#if defined(__x86_64__) && !defined(WITHOUT_AVX2)
#define HAS_AVX2 1
namespace avx2 {
#define TARGET __attribute__((target("avx2,fma")))
#define BYTES 32
#include "cpu_level.h"
}  // namespace avx2
#endif

#if defined(__x86_64__) && !defined(WITHOUT_AVX512)
#define HAS_AVX512 1
namespace avx512 {
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define BYTES 64
#include "cpu_level.h"
}  // namespace avx512
#endif

enum Level : int64_t { kPlain, kAvx2, kAvx512 };

int64_t best_level() {
#if HAS_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
    return kAvx512;
#endif
#if HAS_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kPlain;
}

// The level to work on, where `wanted` is the most or -1.
int64_t usable_level(int64_t wanted) {
  static const int64_t best = best_level();
  return wanted < 0 ? best : std::min(best, wanted);
}

// Return a call of the function of that name in the namespace of `level`.
#if HAS_AVX512
#define ON_AVX512(...) \
  if (level >= kAvx512) return avx512::__VA_ARGS__;
#else
#define ON_AVX512(...)
#endif
#if HAS_AVX2
#define ON_AVX2(...) \
  if (level >= kAvx2) return avx2::__VA_ARGS__;
#else
#define ON_AVX2(...)
#endif
#define ON_LEVEL(...) ON_AVX512(__VA_ARGS__) ON_AVX2(__VA_ARGS__) return plain::__VA_ARGS__;

// ---- Operators ----------------------------------------------------------------------------------------------------

// A forked child has the parent's thread pool by name only: waiting for it would never end.
bool forked = false;
#if !defined(_WIN32)
const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

template <class F>
void run(int64_t count, int64_t grain, const F& work) {
  if (forked)
    work(0, count);
  else
    torch::stable::parallel_for(0, count, grain, work);
}

// The arguments of the operator after its tensors, and `level`: the most to use of the instruction sets, -1 for all.
struct Settings {
  std::vector<int64_t> kernel, stride, padding, dilation;
  double scale;
  bool remove_center;
  std::string normalize;
  int64_t level = -1;
};

using torch::headeronly::ScalarType;

template <class T>
const T* pointer(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

// `work` with a number of the type.
template <class F>
void by_type(ScalarType type, const F& work) {
  if (type == ScalarType::Float)
    work(float{});
  else if (type == ScalarType::Double)
    work(double{});
  else
    work(BFloat16{});
}

// Few processors compute in float16.
Tensor widened(const Tensor& x) {
  return x.scalar_type() == ScalarType::Half ? torch::stable::to(x, ScalarType::Float) : x;
}
Tensor narrowed(const Tensor& x, ScalarType type) {
  return x.scalar_type() == type ? x : torch::stable::to(x, type);
}

// Uninitialised memory of `like`'s type. A large block is always new to the process, and its first touch costs one fault
// per page: half of the forward pass on a 448 x 448 map. Pages of 2 MiB, where the system has them to give, end that.
Tensor empty(const Tensor& like, std::vector<int64_t> sizes) {
  Tensor x = torch::stable::new_empty(like, sizes);
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  const auto begin = reinterpret_cast<uintptr_t>(x.mutable_data_ptr()), end = begin + x.numel() * x.element_size();
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = end / kPage * kPage;
  if (end - begin >= 4 * kPage && first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return x;
}

Tensor dense(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }

// The tensor, or a copy, with all that belongs to one output position side by side and positions evenly spaced: slices
// of one projection's output stay as they are.
Tensor rows(const Tensor& x) {
  int64_t inner = 1;
  for (int64_t d = x.dim() - 1; d > 2; inner *= x.size(d--))
    if (x.stride(d) != inner) return torch::stable::contiguous(x);
  const bool even = x.stride(1) == x.size(2) * x.stride(2) && x.stride(0) == x.size(1) * x.stride(1);
  return even ? x : torch::stable::contiguous(x);
}

// The tensors as the kernel takes them.
struct Call {
  Call(const Tensor& v, const Tensor& o, const Tensor& m, const Settings& s)
      : value(dense(widened(v))), offset(rows(widened(o))), mask(rows(widened(m))) {
    STD_TORCH_CHECK(v.dim() == 5 && o.dim() == 6 && m.dim() == 5 && s.kernel.size() == 2 && s.stride.size() == 2 &&
                    s.padding.size() == 2 && s.dilation.size() == 2, "dcnv3: wrong number of dimensions");
    STD_TORCH_CHECK(v.scalar_type() == o.scalar_type() && v.scalar_type() == m.scalar_type(),
                    "dcnv3: value, offset and mask must share one dtype");
    STD_TORCH_CHECK(v.scalar_type() == ScalarType::Double || v.scalar_type() == ScalarType::Float ||
                    v.scalar_type() == ScalarType::BFloat16 || v.scalar_type() == ScalarType::Half,
                    "dcnv3: the dtype must be float64, float32, bfloat16 or float16");
    level = usable_level(s.level);
    const int64_t normalize = s.normalize == "softmax" ? kSoftmax : s.normalize == "sigmoid" ? kSigmoid : kNone;
    p = {v.size(0), v.size(1), v.size(2), v.size(3), v.size(4), o.size(1), o.size(2), s.kernel[0], s.kernel[1],
         s.stride[0], s.stride[1], s.padding[0], s.padding[1], s.dilation[0], s.dilation[1], s.remove_center,
         normalize, offset.stride(2), mask.stride(2), s.scale};
    STD_TORCH_CHECK(p.height * p.width * p.channels() < (int64_t{1} << 31),
                    "dcnv3: an image has 2^31 elements or more; use backend='reference'");
    STD_TORCH_CHECK(p.points() <= kMostPoints,
                    "dcnv3: the kernel has more than 4096 points; use backend='reference'");
    STD_TORCH_CHECK(p.groups > 0 && p.depth > 0 && p.points() > 0, "dcnv3: there must be groups, channels and points");
    STD_TORCH_CHECK(o.size(0) == p.batch && o.size(3) == p.groups && o.size(4) == p.points() && o.size(5) == 2 &&
                    m.size(0) == p.batch && m.size(1) == p.out_h && m.size(2) == p.out_w && m.size(3) == p.groups &&
                    m.size(4) == p.points(), "dcnv3: value, offset and mask don't fit together");
  }
  Tensor value, offset, mask;
  Problem p;
  int64_t level;
};

template <class T>
void forward_typed(const Problem& p, [[maybe_unused]] int64_t level, const Tensor& value, const Tensor& offset,
                   const Tensor& mask, Tensor& out) {
  const T* v = pointer<T>(value);
  const T* o = pointer<T>(offset);
  const T* m = pointer<T>(mask);
  auto* to = static_cast<T*>(out.mutable_data_ptr());
  const int64_t work = p.groups * p.points() * (p.depth + 16);
  run(p.batch * p.positions(), std::max<int64_t>(1, 32768 / work), [&](int64_t begin, int64_t end) {
    ON_LEVEL(forward(p, v, o, m, to, begin, end))
  });
}

template <class T>
void backward_typed(const Problem& p, [[maybe_unused]] int64_t level, const Tensor& grad, const Tensor& value,
                    const Tensor& offset, const Tensor& mask, const Gradients<T>& into) {
  const T* y = pointer<T>(grad);
  const T* v = pointer<T>(value);
  const T* o = pointer<T>(offset);
  const T* m = pointer<T>(mask);
  run(p.batch * p.groups, 1, [&](int64_t begin, int64_t end) {
    ON_LEVEL(backward(p, y, v, o, m, into, begin, end))
  });
}

Tensor forward(const Tensor& value, const Tensor& offset, const Tensor& mask, const Settings& settings) {
  const Call c(value, offset, mask, settings);
  Tensor out = empty(c.value, {c.p.batch, c.p.out_h, c.p.out_w, c.p.groups, c.p.depth});
  by_type(c.value.scalar_type(), [&](auto number) {
    forward_typed<decltype(number)>(c.p, c.level, c.value, c.offset, c.mask, out);
  });
  return narrowed(out, value.scalar_type());
}

template <class T, class A = T>
Gradients<T, A> pointers(Tensor& value, Tensor& offset, Tensor& mask) {
  return {static_cast<T*>(value.mutable_data_ptr()), static_cast<A*>(offset.mutable_data_ptr()),
          static_cast<A*>(mask.mutable_data_ptr())};
}

using Triple = std::tuple<Tensor, Tensor, Tensor>;

Triple backward(const Tensor& grad, const Tensor& value, const Tensor& offset, const Tensor& mask,
                const Settings& settings) {
  const Call c(value, offset, mask, settings);
  const Problem& p = c.p;
  STD_TORCH_CHECK(grad.dim() == 5 && grad.size(0) == p.batch && grad.size(1) == p.out_h && grad.size(2) == p.out_w &&
                  grad.size(3) == p.groups && grad.size(4) == p.depth && grad.scalar_type() == value.scalar_type(),
                  "dcnv3: the gradient doesn't fit the output");
  const Tensor y = dense(widened(grad));
  Tensor to_value = empty(c.value, {p.batch, p.height, p.width, p.groups, p.depth});
  Tensor to_offset = empty(c.value, {p.batch, p.out_h, p.out_w, p.groups, p.points(), 2});
  Tensor to_mask = empty(c.value, {p.batch, p.out_h, p.out_w, p.groups, p.points()});
  by_type(c.value.scalar_type(), [&](auto number) {
    const auto into = pointers<decltype(number)>(to_value, to_offset, to_mask);
    backward_typed(c.p, c.level, y, c.value, c.offset, c.mask, into);
  });
  const ScalarType type = value.scalar_type();
  return {narrowed(to_value, type), narrowed(to_offset, type), narrowed(to_mask, type)};
}

using Ints = std::vector<int64_t>;

Tensor dcnv3(const Tensor& value, const Tensor& offset, const Tensor& mask, Ints kernel, Ints stride, Ints padding,
             Ints dilation, double scale, bool remove_center, std::string normalize) {
  return forward(value, offset, mask, {kernel, stride, padding, dilation, scale, remove_center, normalize});
}
Triple dcnv3_backward(const Tensor& grad, const Tensor& value, const Tensor& offset, const Tensor& mask, Ints kernel,
                      Ints stride, Ints padding, Ints dilation, double scale, bool remove_center,
                      std::string normalize) {
  return backward(grad, value, offset, mask, {kernel, stride, padding, dilation, scale, remove_center, normalize});
}

// The same on a given instruction set, for tests.
Tensor forward_on(const Tensor& value, const Tensor& offset, const Tensor& mask, Ints kernel, Ints stride,
                  Ints padding, Ints dilation, double scale, bool remove_center, std::string normalize,
                  int64_t level) {
  return forward(value, offset, mask, {kernel, stride, padding, dilation, scale, remove_center, normalize, level});
}
Triple backward_on(const Tensor& grad, const Tensor& value, const Tensor& offset, const Tensor& mask, Ints kernel,
                   Ints stride, Ints padding, Ints dilation, double scale, bool remove_center, std::string normalize,
                   int64_t level) {
  return backward(grad, value, offset, mask,
                  {kernel, stride, padding, dilation, scale, remove_center, normalize, level});
}

template <class T>
void branch_typed(const Branch& p, [[maybe_unused]] int64_t level, const Tensor& x, const Tensor& weight,
                  const Tensor* bias, const Tensor& norm_weight, const Tensor& norm_bias, Tensor& out) {
  const T* from = pointer<T>(x);
  T* to = static_cast<T*>(out.mutable_data_ptr());
  using A = Accumulate<T>;
  const auto pack = [&](auto number) {
    using P = decltype(number);
    return plain::pack_branch<P, A>(p, pointer<P>(weight), bias ? pointer<P>(*bias) : nullptr, pointer<P>(norm_weight),
                                    pointer<P>(norm_bias));
  };
  auto parameters = weight.scalar_type() == x.scalar_type() ? pack(T{}) : pack(A{});
  const A* packed = parameters.data();
  const int64_t work = p.out_w * p.channels * (p.kernel_h * p.kernel_w + 32);
  run(p.batch * p.out_h, std::max<int64_t>(1, 262144 / std::max<int64_t>(1, work)), [&](int64_t begin, int64_t end) {
    ON_LEVEL(branch<T>(p, from, packed, to, begin, end))
  });
}

// x (N, H, W, C), weight (C, 1, kh, kw), the others (C), to (N, Ho, Wo, C). Parameters have the dtype of x or, if that
// has 16 bits, float32.
Tensor branch(const Tensor& x, const Tensor& weight, std::optional<Tensor> bias, const Tensor& norm_weight,
              const Tensor& norm_bias, double eps, Ints stride, Ints padding, std::string activation, int64_t level) {
  const ScalarType type = x.scalar_type(), own = weight.scalar_type();
  const bool is_short = type == ScalarType::BFloat16 || type == ScalarType::Half;
  STD_TORCH_CHECK(type == ScalarType::Double || type == ScalarType::Float || is_short,
                  "branch: the dtype must be float64, float32, bfloat16 or float16");
  STD_TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && stride.size() == 2 && padding.size() == 2,
                  "branch: wrong number of dimensions");
  STD_TORCH_CHECK(activation == "gelu" || activation == "relu" || activation == "silu",
                  "branch: the activation must be gelu, relu or silu");
  const int64_t channels = x.size(3);
  const auto fits = [&](const Tensor& t) {
    return t.dim() == 1 && t.size(0) == channels && t.scalar_type() == own;
  };
  STD_TORCH_CHECK(channels > 0 && weight.size(0) == channels && weight.size(1) == 1 &&
                  (own == type || (own == ScalarType::Float && is_short)) && (!bias || fits(*bias)) &&
                  fits(norm_weight) && fits(norm_bias),
                  "branch: the input and the parameters don't fit together");
  STD_TORCH_CHECK(std::min({weight.size(2), weight.size(3), stride[0], stride[1]}) > 0 &&
                  std::min(padding[0], padding[1]) >= 0, "branch: the kernel, stride or padding is not possible");
  const int64_t kind = activation == "relu" ? kRelu : activation == "silu" ? kSilu : kGelu;
  const int64_t room_h = x.size(1) + 2 * padding[0] - weight.size(2);
  const int64_t room_w = x.size(2) + 2 * padding[1] - weight.size(3);
  STD_TORCH_CHECK(room_h >= 0 && room_w >= 0, "branch: the map is smaller than the kernel");
  const Branch p{x.size(0), x.size(1), x.size(2), channels, room_h / stride[0] + 1, room_w / stride[1] + 1,
                 weight.size(2), weight.size(3), stride[0], stride[1], padding[0], padding[1], kind, eps};
  level = usable_level(level);
  const Tensor map = dense(widened(x)), w = dense(widened(weight));
  const Tensor gamma = dense(widened(norm_weight)), beta = dense(widened(norm_bias));
  const Tensor b = bias ? dense(widened(*bias)) : beta;
  const Tensor* shift = bias ? &b : nullptr;
  Tensor out = empty(map, {p.batch, p.out_h, p.out_w, channels});
  by_type(map.scalar_type(), [&](auto number) {
    branch_typed<decltype(number)>(p, level, map, w, shift, gamma, beta, out);
  });
  return narrowed(out, type);
}

#include "cpu_attention_op.h"

int64_t instruction_set() { return best_level(); }

}  // namespace

#define TENSORS "Tensor value, Tensor offset, Tensor mask, "
#define SETTINGS                                                                                               \
  "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, float offset_scale, bool remove_center, " \
  "str normalize, int level"
#define ATTENTION "Tensor value, int[] shapes, Tensor points, Tensor weights, int level=-1"

STABLE_TORCH_LIBRARY(internimage_cpu, library) {
  library.def("forward(" TENSORS SETTINGS ") -> Tensor");
  library.def("backward(Tensor grad, " TENSORS SETTINGS ") -> (Tensor, Tensor, Tensor)");
  library.def("branch(Tensor x, Tensor weight, Tensor? bias, Tensor norm_weight, Tensor norm_bias, float eps, "
              "int[2] stride, int[2] padding, str activation, int level=-1) -> Tensor");
  library.def("attention(" ATTENTION ") -> Tensor");
  library.def("attention_backward(Tensor grad, " ATTENTION ") -> (Tensor, Tensor, Tensor)");
  library.def("instruction_set() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(internimage_cpu, CPU, library) {
  library.impl("forward", TORCH_BOX(&forward_on));
  library.impl("backward", TORCH_BOX(&backward_on));
  library.impl("branch", TORCH_BOX(&branch));
  library.impl("attention", TORCH_BOX(&attention));
  library.impl("attention_backward", TORCH_BOX(&attention_backward));
}

STABLE_TORCH_LIBRARY_IMPL(internimage_cpu, CompositeExplicitAutograd, library) {
  library.impl("instruction_set", TORCH_BOX(&instruction_set));
}

// op.py has defined these; from now on the dispatcher comes here without Python.
STABLE_TORCH_LIBRARY_IMPL(internimage, CPU, library) {
  library.impl("dcnv3", TORCH_BOX(&dcnv3));
  library.impl("dcnv3_backward", TORCH_BOX(&dcnv3_backward));
}
