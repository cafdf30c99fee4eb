#include "moetron/data/conversation_set.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moetron/base/error.h"
#include "moetron/data/seeded_shuffle.h"

namespace moetron {

ConversationSet::ConversationSet(std::vector<ConversationFile> files) : files_(std::move(files)) {
  for (const ConversationFile& file : files_) {
    begins_.push_back(size());
    for (int64_t i = 0; i < file.cache->size(); ++i) lengths_.push_back(file.cache->length(i));
  }
  begins_.push_back(size());
}

bool ConversationSet::is_weighted() const {
  return std::any_of(files_.begin(), files_.end(),
                     [](const ConversationFile& file) { return file.weight > 0; });
}

ConversationSet::Place ConversationSet::place(int64_t conversation) const {
  MT_CHECK(conversation >= 0 && conversation < size(), "conversation ", conversation, " of ",
           size());
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), conversation);
  return {after - begins_.begin() - 1, conversation - *(after - 1)};
}

const ConversationCache& ConversationSet::cache(const Place& place) const {
  return *files_[static_cast<size_t>(place.file)].cache;
}

int32_t ConversationSet::line(int64_t conversation) const {
  const Place where = place(conversation);
  return cache(where).line(where.number);
}

int32_t ConversationSet::first_target(int64_t conversation) const {
  const Place where = place(conversation);
  return cache(where).first_target(where.number);
}

void ConversationSet::get(int64_t conversation, std::span<int32_t> tokens,
                          std::span<float> weights) const {
  const Place where = place(conversation);
  cache(where).get(where.number, tokens, weights);
}

ConversationSplit split_conversations(const ConversationSet& set, const SplitSettings& settings) {
  const int64_t size = set.size();
  std::vector<int64_t> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  shuffle_seeded(std::span(order), settings.seed, 0, "held out");
  const auto num_held =
      static_cast<int64_t>(std::llround(settings.eval_fraction * static_cast<double>(size)));
  std::vector<bool> is_held(order.size(), false);
  for (int64_t i = 0; i < std::min(num_held, size); ++i)
    is_held[static_cast<size_t>(order[static_cast<size_t>(i)])] = true;

  ConversationSplit split;
  split.lengths = set.lengths();
  for (int64_t i = 0; i < size; ++i) {
    const auto place = static_cast<size_t>(i);
    int32_t& length = split.lengths[place];
    if (length > settings.sequence_length) {
      const bool is_useless =
          !settings.truncates || set.first_target(i) >= settings.sequence_length;
      length = static_cast<int32_t>(settings.sequence_length);
      if (is_useless) {
        split.too_long.push_back(i);
        continue;
      }
    }
    (is_held[place] ? split.held_out : split.training).push_back(i);
  }
  return split;
}

}  // namespace moetron
