// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC11). A draw depends on key and counter alone, so neither layout nor resume changes
// it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace moetron {

// 128 random bits for a 64-bit key and a 128-bit counter {low, high}.
std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high);

// A stream of numbers named by (seed, step, name). Element i is the same whatever else is drawn.
class RandomStream {
 public:
  RandomStream(uint64_t seed, uint64_t step, std::string_view name);

  double uniform(uint64_t index) const;  // [0, 1), 32 bits of it
  // values[i] = mean 0, deviation std, element first_index + i of the stream (Box-Muller).
  void fill_normal(std::span<float> values, uint64_t first_index, float std) const;

 private:
  uint64_t key_;
  uint64_t step_;
};

}  // namespace moetron
