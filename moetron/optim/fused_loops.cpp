#include "moetron/optim/fused_loops.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

// Compiled with -ffp-contract=off: every vector width then gives the same bits, for each operation
// is one correctly rounded IEEE operation.
#if defined(__x86_64__) && defined(__GNUC__)
#define MT_AVX2 __attribute__((target("avx2")))
#define MT_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#endif

namespace moetron {
namespace {

template <bool kRounds>
inline __attribute__((always_inline)) void update(float* __restrict value,
                                                  float* __restrict exp_avg,
                                                  float* __restrict exp_avg_sq,
                                                  const float* __restrict grad,
                                                  uint16_t* __restrict rounded, int64_t count,
                                                  const AdamWCoefficients c) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * c.grad_scale;
    const float m = exp_avg[i] + c.one_minus_beta1 * (g - exp_avg[i]);
    const float v = exp_avg_sq[i] * c.beta2 + c.one_minus_beta2 * g * g;
    const float updated = value[i] * c.keep + c.minus_step_size * m / (std::sqrt(v) + c.eps);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    value[i] = updated;
    if constexpr (kRounds) {
      const auto bits = std::bit_cast<uint32_t>(updated);
      const uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
      const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
      rounded[i] = static_cast<uint16_t>(is_nan ? 0x7fc0u : nearest);
    }
  }
}

// Past the caches where the processor can: a line that is only written need not be read first.
void store_past_caches(uint16_t* to, const uint16_t* from, int64_t count) {
  int64_t i = 0;
#ifdef __SSE2__
  for (; i < count && reinterpret_cast<uintptr_t>(to + i) % 16 != 0; ++i) to[i] = from[i];
  for (; i + 8 <= count; i += 8) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
#endif
  for (; i < count; ++i) to[i] = from[i];
}

// Makes what was stored past the caches visible to other threads and devices as other stores are.
void end_stores() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

inline __attribute__((always_inline)) void update_all(const AdamWPointers& p, int64_t count,
                                                      const AdamWCoefficients& c) {
  if (p.rounded == nullptr) {
    update<false>(p.value, p.exp_avg, p.exp_avg_sq, p.grad, nullptr, count, c);
    return;
  }
  constexpr int64_t kBlock = 1024;  // in the nearest cache
  std::array<uint16_t, kBlock> block;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = std::min(kBlock, count - begin);
    update<true>(p.value + begin, p.exp_avg + begin, p.exp_avg_sq + begin, p.grad + begin,
                 block.data(), size, c);
    store_past_caches(p.rounded + begin, block.data(), size);
  }
  end_stores();
}

inline __attribute__((always_inline)) void add_carrying(double& sum, double& rest, double value) {
  const double larger = sum + value;
  const double added = larger - sum;
  rest += (sum - (larger - added)) + (value - added);
  sum = larger;
}

inline __attribute__((always_inline)) CarriedSum add_squares(const float* __restrict values,
                                                             int64_t count) {
  constexpr int64_t kLanes = 16;  // independent sums, to fill vector registers of any width
  std::array<double, kLanes> sums{}, rests{};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      add_carrying(sums[lane], rests[lane], value * value);
    }
  }
  CarriedSum total;
  for (int64_t i = whole; i < count; ++i) {
    const double value = values[i];
    total.add(value * value);
  }
  for (int64_t lane = 0; lane < kLanes; ++lane) total.add({sums[lane], rests[lane]});
  return total;
}

#ifdef MT_AVX2
MT_AVX512 void update_avx512(const AdamWPointers& p, int64_t count, const AdamWCoefficients& c) {
  update_all(p, count, c);
}

MT_AVX2 void update_avx2(const AdamWPointers& p, int64_t count, const AdamWCoefficients& c) {
  update_all(p, count, c);
}

MT_AVX2 CarriedSum add_squares_avx2(const float* values, int64_t count) {
  return add_squares(values, count);
}
#endif

}  // namespace

VectorWidth widest_vectors() {
#ifdef MT_AVX2
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return VectorWidth::kAvx512;
  }
  if (__builtin_cpu_supports("avx2")) return VectorWidth::kAvx2;
#endif
  return VectorWidth::kBaseline;
}

void adamw_update(const AdamWPointers& p, int64_t count, const AdamWCoefficients& c,
                  VectorWidth width) {
#ifdef MT_AVX2
  if (width == VectorWidth::kAvx512) return update_avx512(p, count, c);
  if (width == VectorWidth::kAvx2) return update_avx2(p, count, c);
#endif
  update_all(p, count, c);
}

void CarriedSum::add(double value) {
  add_carrying(sum, rest, value);
}

void CarriedSum::add(const CarriedSum& other) {
  add_carrying(sum, rest, other.sum);
  rest += other.rest;
}

CarriedSum sum_of_squares(const float* values, int64_t count) {
#ifdef MT_AVX2
  if (__builtin_cpu_supports("avx2")) return add_squares_avx2(values, count);
#endif
  return add_squares(values, count);
}

}  // namespace moetron
