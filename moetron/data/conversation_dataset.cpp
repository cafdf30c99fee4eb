#include "moetron/data/conversation_dataset.h"

#include <numeric>
#include <span>

#include "moetron/base/error.h"

namespace moetron {

ConversationDataset::ConversationDataset(std::shared_ptr<const ConversationSet> set,
                                         std::vector<int32_t> lengths, PackList packs,
                                         int64_t sequence_length,
                                         std::shared_ptr<const std::vector<double>> references)
    : set_(std::move(set)),
      lengths_(std::move(lengths)),
      packs_(std::move(packs)),
      sequence_length_(sequence_length),
      references_(std::move(references)) {}

void ConversationDataset::append(int64_t conversation, TokenSample& sample) const {
  const auto begin = static_cast<size_t>(sample.document_bounds.back());
  const auto length = static_cast<size_t>(lengths_[static_cast<size_t>(conversation)]);
  MT_CHECK(begin + length <= sample.tokens.size(), "a pack of more than ", sample.tokens.size(),
           " tokens");
  std::vector<float> weights(length);
  const auto tokens = std::span(sample.tokens).subspan(begin, length);
  set_->get(conversation, tokens, weights);
  for (size_t i = 0; i + 1 < length; ++i) {
    sample.labels[begin + i] = tokens[i + 1];
    sample.loss_weights[begin + i] = weights[i + 1];
  }
  const auto positions = sample.positions.begin() + static_cast<ptrdiff_t>(begin);
  std::iota(positions, positions + static_cast<ptrdiff_t>(length), 0);
  sample.document_bounds.push_back(static_cast<int32_t>(begin + length));
}

TokenSample ConversationDataset::get(int64_t index) const {
  const auto length = static_cast<size_t>(sequence_length_);
  TokenSample sample{.tokens = std::vector<int32_t>(length, 0),
                     .labels = std::vector<int32_t>(length, 0),
                     .loss_weights = std::vector<float>(length, 0),
                     .positions = std::vector<int32_t>(length, 0),
                     .document_bounds = {0}};
  const std::span<const int64_t> pack = packs_[index];
  for (const int64_t conversation : pack) append(conversation, sample);
  if (references_ != nullptr && !pack.empty()) {
    MT_CHECK(pack.size() == 1, "a reference says something of ", pack.size(), " conversations");
    sample.reference_log_probability = (*references_)[static_cast<size_t>(pack.front())];
  }
  const auto end = sample.document_bounds.back();
  std::iota(sample.positions.begin() + end, sample.positions.end(), 0);
  return sample;
}

}  // namespace moetron
