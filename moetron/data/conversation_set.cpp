#include "moetron/data/conversation_set.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moetron/base/error.h"
#include "moetron/data/seeded_shuffle.h"

namespace moetron {

ConversationSet::ConversationSet(std::vector<ConversationFile> files, bool pairs)
    : files_(std::move(files)), has_pairs_(pairs) {
  for (const ConversationFile& file : files_) {
    MT_CHECK(!pairs || file.cache->size() % 2 == 0, "a file of pairs holds half of one");
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
  const int64_t size = set.num_records(), num_sides = set.num_sides();
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
    const int64_t first = i * num_sides;
    bool is_useless = false, is_cut = false;
    for (int64_t one = first; one < first + num_sides; ++one) {
      int32_t& length = split.lengths[static_cast<size_t>(one)];
      if (length <= settings.sequence_length) continue;
      is_useless =
          is_useless || !settings.truncates || set.first_target(one) >= settings.sequence_length;
      length = static_cast<int32_t>(settings.sequence_length);
      is_cut = true;
    }
    if (is_cut && !is_useless) split.cut.push_back(first);
    const bool held = is_held[static_cast<size_t>(i)];
    (is_useless ? split.too_long : held ? split.held_out : split.training).push_back(first);
  }
  return split;
}

}  // namespace moetron
