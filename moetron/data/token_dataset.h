// What the training loop sees of a dataset: numbered samples of one length.
#pragma once

#include <cstdint>
#include <vector>

namespace moetron {

struct TokenSample {
  std::vector<int32_t> tokens;     // [sequence]
  std::vector<int32_t> labels;     // [sequence], the token after each
  std::vector<float> loss_mask;    // [sequence], 0 or 1
  std::vector<int32_t> positions;  // [sequence], restarts at 0 with each document when bounds do
  // Where documents begin in the sample, then its length: {0, ..., sequence}. Attention that must
  // not cross documents takes it as cumulative lengths.
  std::vector<int32_t> document_bounds;
};

class TokenDataset {
 public:
  virtual ~TokenDataset() = default;
  virtual int64_t size() const = 0;             // samples
  virtual int64_t sequence_length() const = 0;  // tokens of a sample
  // Sample `index`, 0 <= index < size(); safe to call from several threads.
  virtual TokenSample get(int64_t index) const = 0;
};

}  // namespace moetron
