#include "moetron/data/pattern_dataset.h"

#include <algorithm>

#include "moetron/base/random.h"

namespace moetron {
namespace {

// Three documents, then up to two tokens of padding, all of lengths that differ from sample to
// sample.
void cut_into_documents(int64_t index, TokenSample& sample) {
  const auto length = static_cast<int32_t>(sample.tokens.size());
  const int32_t end = length - static_cast<int32_t>(index % 3);
  const int32_t first = 1 + static_cast<int32_t>(index % (end - 2));
  sample.document_bounds = {0, first, first + 1, end};
  for (int32_t i = 0; i < length; ++i) {
    const auto place = static_cast<size_t>(i);
    if (i >= first) sample.positions[place] = i > first ? i - first - 1 : 0;
    if (i >= end) sample.loss_weights[place] = 0;
    if (sample.tokens[place] % 2 == 0) sample.loss_weights[place] *= 0.5f;
  }
}

}  // namespace

TokenSample PatternDataset::get(int64_t index) const {
  const RandomStream random(7, static_cast<uint64_t>(index), "pattern");
  std::vector<int32_t> text = {static_cast<int32_t>(random.uniform(0) * kVocabulary)};
  const auto length = static_cast<uint64_t>(sequence_length_);
  for (uint64_t i = 1; i <= length; ++i) {
    const bool jumps = random.uniform(2 * i) < 0.1;
    text.push_back(jumps ? static_cast<int32_t>(random.uniform(2 * i + 1) * kVocabulary)
                         : (text.back() * 5 + 3) % kVocabulary);
  }
  TokenSample sample;
  sample.tokens.assign(text.begin(), text.end() - 1);
  sample.labels.assign(text.begin() + 1, text.end());
  sample.loss_weights.assign(length, 1.0f);
  // Uneven targets: the mean over the global batch is not the mean of the ranks' means.
  const auto kept = static_cast<std::ptrdiff_t>(std::min<uint64_t>(4, length));
  if (index % 3 == 0)
    std::fill(sample.loss_weights.begin() + kept, sample.loss_weights.end(), 0.0f);
  for (uint64_t i = 0; i < length; ++i) sample.positions.push_back(static_cast<int32_t>(i));
  sample.document_bounds = {0, static_cast<int32_t>(sequence_length_)};
  if (filling_ == Filling::kDocuments) cut_into_documents(index, sample);
  return sample;
}

}  // namespace moetron
