// DCNv3 on a CPU, forward and backward, through PyTorch's stable ABI: one binary for every Python and torch >= 2.10.
// cpu_kernel.h holds the arithmetic; here are the choice of the instruction set, the threads and the operators.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif


namespace {

using torch::stable::Tensor;

enum Normalize : int64_t { kNone, kSoftmax, kSigmoid };

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

template <class T>
struct Gradients {
  T *value, *offset, *mask;
};

// ---- Instruction sets ---------------------------------------------------------------------------------------------

#if defined(__clang__)
#define SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define SHUFFLE(A, B, ...) __builtin_shuffle(A, B, Vector<IndexOf<sizeof(A[0])>, 4>{__VA_ARGS__})
#endif

namespace plain {
#define TARGET
#define BYTES 16
#include "cpu_kernel.h"
}  // namespace plain

#if defined(__x86_64__) && !defined(WITHOUT_AVX2)
#define HAS_AVX2 1
namespace avx2 {
#define TARGET __attribute__((target("avx2,fma")))
#define BYTES 32
#include "cpu_kernel.h"
}  // namespace avx2
#endif

#if defined(__x86_64__) && !defined(WITHOUT_AVX512)
#define HAS_AVX512 1
namespace avx512 {
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define BYTES 64
#include "cpu_kernel.h"
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

// `settings`: kernel, stride, padding, dilation (height, width each), remove_center, normalize, elements between
// output positions in offset and in mask, and the instruction set (-1: the best).
Problem problem_of(const Tensor& value, const Tensor& offset, const std::vector<int64_t>& s, double scale) {
  STD_TORCH_CHECK(value.dim() == 5 && offset.dim() == 6 && s.size() == 13 && value.is_contiguous());
  return {value.size(0), value.size(1), value.size(2), value.size(3), value.size(4), offset.size(1), offset.size(2),
          s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11], scale};
}

int64_t level_of(const std::vector<int64_t>& settings) {
  static const int64_t best = best_level();
  return settings[12] < 0 ? best : std::min(best, settings[12]);
}

template <class T>
void forward_typed(const Problem& p, int64_t level, const Tensor& value, const Tensor& offset, const Tensor& mask,
                   Tensor& out) {
  auto* v = static_cast<const T*>(value.const_data_ptr());
  auto* o = static_cast<const T*>(offset.const_data_ptr());
  auto* m = static_cast<const T*>(mask.const_data_ptr());
  auto* to = static_cast<T*>(out.mutable_data_ptr());
  const int64_t work = p.groups * p.points() * (p.depth + 16);
  run(p.batch * p.positions(), std::max<int64_t>(1, 32768 / work), [&](int64_t begin, int64_t end) {
#if HAS_AVX512
    if (level >= kAvx512) return avx512::forward(p, v, o, m, to, begin, end);
#endif
#if HAS_AVX2
    if (level >= kAvx2) return avx2::forward(p, v, o, m, to, begin, end);
#endif
    plain::forward(p, v, o, m, to, begin, end);
  });
}

template <class T>
void backward_typed(const Problem& p, int64_t level, const Tensor& grad, const Tensor& value, const Tensor& offset,
                    const Tensor& mask, const Gradients<T>& into) {
  auto* y = static_cast<const T*>(grad.const_data_ptr());
  auto* v = static_cast<const T*>(value.const_data_ptr());
  auto* o = static_cast<const T*>(offset.const_data_ptr());
  auto* m = static_cast<const T*>(mask.const_data_ptr());
  run(p.batch * p.groups, 1, [&](int64_t begin, int64_t end) {
#if HAS_AVX512
    if (level >= kAvx512) return avx512::backward(p, y, v, o, m, into, begin, end);
#endif
#if HAS_AVX2
    if (level >= kAvx2) return avx2::backward(p, y, v, o, m, into, begin, end);
#endif
    plain::backward(p, y, v, o, m, into, begin, end);
  });
}

using torch::headeronly::ScalarType;

Tensor forward(const Tensor& value, const Tensor& offset, const Tensor& mask, std::vector<int64_t> settings,
               double scale) {
  const Problem p = problem_of(value, offset, settings, scale);
  const int64_t level = level_of(settings);
  Tensor out = torch::stable::new_empty(value, {p.batch, p.out_h, p.out_w, p.groups, p.depth});
  if (value.scalar_type() == ScalarType::Float)
    forward_typed<float>(p, level, value, offset, mask, out);
  else if (value.scalar_type() == ScalarType::Double)
    forward_typed<double>(p, level, value, offset, mask, out);
  else
    forward_typed<BFloat16>(p, level, value, offset, mask, out);
  return out;
}

template <class T>
Gradients<T> pointers(Tensor& value, Tensor& offset, Tensor& mask) {
  return {static_cast<T*>(value.mutable_data_ptr()), static_cast<T*>(offset.mutable_data_ptr()),
          static_cast<T*>(mask.mutable_data_ptr())};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& value, const Tensor& offset,
                                            const Tensor& mask, std::vector<int64_t> settings, double scale) {
  const Problem p = problem_of(value, offset, settings, scale);
  const int64_t level = level_of(settings);
  Tensor to_value = torch::stable::new_empty(value, {p.batch, p.height, p.width, p.groups, p.depth});
  Tensor to_offset = torch::stable::new_empty(value, {p.batch, p.out_h, p.out_w, p.groups, p.points(), 2});
  Tensor to_mask = torch::stable::new_empty(value, {p.batch, p.out_h, p.out_w, p.groups, p.points()});
  if (value.scalar_type() == ScalarType::Float)
    backward_typed(p, level, grad, value, offset, mask, pointers<float>(to_value, to_offset, to_mask));
  else if (value.scalar_type() == ScalarType::Double)
    backward_typed(p, level, grad, value, offset, mask, pointers<double>(to_value, to_offset, to_mask));
  else
    backward_typed(p, level, grad, value, offset, mask, pointers<BFloat16>(to_value, to_offset, to_mask));
  return {to_value, to_offset, to_mask};
}

int64_t instruction_set() { return best_level(); }

}  // namespace

STABLE_TORCH_LIBRARY(internimage_cpu, library) {
  library.def("forward(Tensor value, Tensor offset, Tensor mask, int[] settings, float scale) -> Tensor");
  library.def(
      "backward(Tensor grad, Tensor value, Tensor offset, Tensor mask, int[] settings, float scale)"
      " -> (Tensor, Tensor, Tensor)");
  library.def("instruction_set() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(internimage_cpu, CPU, library) {
  library.impl("forward", TORCH_BOX(&forward));
  library.impl("backward", TORCH_BOX(&backward));
}

STABLE_TORCH_LIBRARY_IMPL(internimage_cpu, CompositeExplicitAutograd, library) {
  library.impl("instruction_set", TORCH_BOX(&instruction_set));
}
