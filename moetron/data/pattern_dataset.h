// Numbers that can be learned: each token follows from the one before, now and then at random. For
// what trains without data.
#pragma once

#include "moetron/data/token_dataset.h"

namespace moetron {

// How a sample is filled: by one document, or by several with padding behind them, whose labels
// weigh differently.
enum class Filling { kWhole, kDocuments };

class PatternDataset final : public TokenDataset {
 public:
  static constexpr int kVocabulary = 61;

  explicit PatternDataset(int64_t sequence_length = 16, Filling filling = Filling::kWhole)
      : sequence_length_(sequence_length), filling_(filling) {}
  int64_t size() const override { return 1 << 20; }
  int64_t sequence_length() const override { return sequence_length_; }
  TokenSample get(int64_t index) const override;

 private:
  int64_t sequence_length_;
  Filling filling_;
};

}  // namespace moetron
