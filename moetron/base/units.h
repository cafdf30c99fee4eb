// Multiples of units, as doubles: 3 * kGiga bytes are 3 GB, 3 * kGibi bytes are 3 GiB.
#pragma once
#include <cstdint>

namespace moetron {

inline constexpr double kMilli = 1e-3, kMega = 1e6, kGiga = 1e9, kTera = 1e12;
inline constexpr double kGibi = 1024.0 * 1024.0 * 1024.0;

// A count as a factor of a product of doubles; exact below 2^53.
inline double as_double(int64_t value) {
  return static_cast<double>(value);
}

}  // namespace moetron
