#include "moetron/comm/reduce.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

namespace moetron {
namespace {

template <class T>
struct AccumulatorOf {
  using type = T;
};
template <>
struct AccumulatorOf<c10::BFloat16> {
  using type = float;
};
template <>
struct AccumulatorOf<c10::Half> {
  using type = float;
};

struct Sum {
  template <class A>
  static A apply(A a, A b) {
    // Unsigned, where a signed integer would overflow without a defined result.
    if constexpr (std::is_integral_v<A>) {
      using Unsigned = std::make_unsigned_t<A>;
      return static_cast<A>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
    } else {
      return a + b;
    }
  }
};
struct Max {
  template <class A>
  static A apply(A a, A b) {
    return b > a || b != b ? b : a;  // a NaN wins
  }
};
struct Min {
  template <class A>
  static A apply(A a, A b) {
    return b < a || b != b ? b : a;
  }
};

// A block of accumulators stays in the first-level cache while all inputs pass through it.
constexpr int64_t kBlock = 2048;

template <class T, class Op>
void reduce_blocks(T* output, std::span<const void* const> inputs, int64_t num_elements) {
  using A = typename AccumulatorOf<T>::type;
  std::array<A, kBlock> sums;
  for (int64_t begin = 0; begin < num_elements; begin += kBlock) {
    const int64_t count = std::min(kBlock, num_elements - begin);
    const T* first = static_cast<const T*>(inputs[0]) + begin;
    for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<A>(first[i]);
    for (const void* input : inputs.subspan(1)) {
      const T* values = static_cast<const T*>(input) + begin;
      for (int64_t i = 0; i < count; ++i) sums[i] = Op::apply(sums[i], static_cast<A>(values[i]));
    }
    for (int64_t i = 0; i < count; ++i) output[begin + i] = static_cast<T>(sums[i]);
  }
}

template <class T>
void reduce_type(ReduceOp op, void* output, std::span<const void* const> inputs, int64_t count) {
  T* typed = static_cast<T*>(output);
  switch (op) {
    case ReduceOp::kSum:
      return reduce_blocks<T, Sum>(typed, inputs, count);
    case ReduceOp::kMax:
      return reduce_blocks<T, Max>(typed, inputs, count);
    case ReduceOp::kMin:
      return reduce_blocks<T, Min>(typed, inputs, count);
  }
}

}  // namespace

void reduce_in_order(c10::ScalarType type, ReduceOp op, void* output,
                     std::span<const void* const> inputs, int64_t num_elements) {
  switch (type) {
    case c10::ScalarType::Float:
      return reduce_type<float>(op, output, inputs, num_elements);
    case c10::ScalarType::BFloat16:
      return reduce_type<c10::BFloat16>(op, output, inputs, num_elements);
    case c10::ScalarType::Half:
      return reduce_type<c10::Half>(op, output, inputs, num_elements);
    case c10::ScalarType::Double:
      return reduce_type<double>(op, output, inputs, num_elements);
    case c10::ScalarType::Long:
      return reduce_type<int64_t>(op, output, inputs, num_elements);
    case c10::ScalarType::Int:
      return reduce_type<int32_t>(op, output, inputs, num_elements);
    case c10::ScalarType::Byte:
      return reduce_type<uint8_t>(op, output, inputs, num_elements);
    default:
      MT_CHECK(false, "no reduction over ", type);
  }
}

}  // namespace moetron
