#include "moetron/data/mock_dataset.h"

#include <algorithm>
#include <numeric>

#include "moetron/base/error.h"

namespace moetron {

MockDataset::MockDataset(uint64_t seed, std::string_view name, int64_t size,
                         int64_t sequence_length, int64_t vocab_size)
    : random_(seed, /*step=*/0, name),
      size_(size),
      sequence_length_(sequence_length),
      vocab_size_(vocab_size) {}

TokenSample MockDataset::get(int64_t index) const {
  MT_CHECK(index >= 0 && index < size_, "sample ", index, " of ", size_);
  const auto length = static_cast<size_t>(sequence_length_);
  // A sequence has one token more than it has labels.
  const auto first = static_cast<uint64_t>(index) * static_cast<uint64_t>(sequence_length_ + 1);
  std::vector<int32_t> drawn(length + 1);
  for (size_t i = 0; i < drawn.size(); ++i) {
    const auto token =
        static_cast<int64_t>(random_.uniform(first + i) * static_cast<double>(vocab_size_));
    drawn[i] = static_cast<int32_t>(std::min(token, vocab_size_ - 1));
  }
  TokenSample sample;
  sample.tokens.assign(drawn.begin(), drawn.end() - 1);
  sample.labels.assign(drawn.begin() + 1, drawn.end());
  sample.loss_weights.assign(length, 1.0F);
  sample.positions.resize(length);
  std::iota(sample.positions.begin(), sample.positions.end(), 0);
  sample.document_bounds = {0, static_cast<int32_t>(sequence_length_)};
  return sample;
}

}  // namespace moetron
