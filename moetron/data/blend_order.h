// Megatron's greedy order of a blend: sample t goes to the dataset that lags most behind its share.
// The order of a longer blend begins with that of a shorter one.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace moetron {

class BlendOrder {
 public:
  // `weights` sum to 1. Throws ConfigError for more datasets than 16 bits count.
  explicit BlendOrder(std::vector<double> weights);

  struct Draw {
    int32_t dataset = 0;
    int64_t sample = 0;  // number within that dataset
  };
  // What sample t >= 0 of the blend is. The first look at a sample takes time in proportion to what
  // lies between it and the furthest that was seen. From any thread.
  Draw at(int64_t t) const;
  // How many of the blend's first `size` samples each dataset gives.
  std::vector<int64_t> drawn(int64_t size) const;

 private:
  // The samples of one block, which alone are kept.
  void find_block(int64_t block) const;
  int32_t draw(int64_t t, std::vector<int64_t>& drawn) const;

  std::vector<double> weights_;
  mutable std::mutex mutex_;                         // guards what follows
  mutable std::vector<std::vector<int64_t>> drawn_;  // before each block, as far as was seen
  mutable int64_t block_ = -1;
  mutable std::vector<Draw> draws_;  // of that block
};

}  // namespace moetron
