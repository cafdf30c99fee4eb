// Random tokens, for measurements: no files, the same for every layout of ranks.
#pragma once

#include <string_view>

#include "moetron/base/random.h"
#include "moetron/data/token_dataset.h"

namespace moetron {

class MockDataset : public TokenDataset {
 public:
  // `name` tells data sets of one seed apart. Tokens are from 0 to vocab_size - 1.
  MockDataset(uint64_t seed, std::string_view name, int64_t size, int64_t sequence_length,
              int64_t vocab_size);

  int64_t size() const override { return size_; }
  int64_t sequence_length() const override { return sequence_length_; }
  TokenSample get(int64_t index) const override;

 private:
  RandomStream random_;
  int64_t size_;
  int64_t sequence_length_;
  int64_t vocab_size_;
};

}  // namespace moetron
