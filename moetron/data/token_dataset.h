// What the training loop sees of a dataset, whatever it is made of: numbered samples of one length.
#pragma once

#include <cstdint>
#include <vector>

namespace moetron {

struct TokenSample {
  std::vector<int32_t> tokens;      // [sequence]
  std::vector<int32_t> labels;      // [sequence], the token after each
  std::vector<float> loss_weights;  // [sequence], of each label's loss; 0: none
  std::vector<int32_t> positions;   // [sequence], restarts at 0 with each document when bounds do
  // {0, ..., end}, ascending: attention does not cross a bound, and what lies behind the last one
  // is padding, of no loss. {0, sequence}: all is one document.
  std::vector<int32_t> document_bounds;
  // Of the sample's labels under a model that others are compared with; weighted by loss_weights.
  double reference_log_probability = 0;
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
