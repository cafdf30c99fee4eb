// The generator and the shuffle of numpy.random.RandomState: MT19937 and masked rejection. The
// order of samples follows from it bit for bit, as in Megatron.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <utility>

namespace moetron {

class NumpyRandom {
 public:
  explicit NumpyRandom(uint32_t seed) : engine_(seed) {}

  // A uniform integer of [0, max].
  uint64_t interval(uint64_t max);

  template <class T>
  void shuffle(std::span<T> values) {
    for (size_t i = values.size(); i-- > 1;) std::swap(values[i], values[interval(i)]);
  }

 private:
  std::mt19937 engine_;
};

}  // namespace moetron
