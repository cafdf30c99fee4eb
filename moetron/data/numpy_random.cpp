#include "moetron/data/numpy_random.h"

#include <bit>

namespace moetron {

// Draws as many bits as `max` has until the number is not above it. Up to 32 bits come from one
// draw, more from two, the high half first.
uint64_t NumpyRandom::interval(uint64_t max) {
  if (max == 0) return 0;
  const uint64_t mask = ~uint64_t{0} >> std::countl_zero(max);
  uint64_t value = 0;
  do {
    value = engine_();
    if (max > 0xffffffff) value = value << 32 | engine_();
    value &= mask;
  } while (value > max);
  return value;
}

}  // namespace moetron
