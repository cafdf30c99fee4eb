#include "moetron/data/pack_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "moetron/base/error.h"
#include "moetron/data/seeded_shuffle.h"

namespace moetron {
namespace {

// Conversations [begin, begin + count) of endless shuffles of `own`, one behind the other.
void append_passes(std::span<const int64_t> own, int64_t begin, int64_t count, uint64_t seed,
                   const std::string& name, std::vector<int64_t>& out) {
  const auto size = static_cast<int64_t>(own.size());
  while (count > 0) {
    std::vector<int64_t> pass(own.begin(), own.end());
    shuffle_seeded(std::span(pass), seed, static_cast<uint64_t>(begin / size), name);
    const int64_t first = begin % size, taken = std::min(count, size - first);
    out.insert(out.end(), pass.begin() + first, pass.begin() + first + taken);
    begin += taken;
    count -= taken;
  }
}

}  // namespace

std::vector<int64_t> epoch_conversations(const ConversationSet& set,
                                         std::span<const int64_t> training, uint64_t seed,
                                         int64_t epoch) {
  std::vector<int64_t> all;
  if (set.is_weighted()) {
    std::vector<std::vector<int64_t>> own(static_cast<size_t>(set.num_files()));
    for (const int64_t one : training) own[static_cast<size_t>(set.place(one).file)].push_back(one);
    double sum = 0;
    for (size_t file = 0; file < own.size(); ++file)
      if (!own[file].empty()) sum += set.weight(static_cast<int64_t>(file));
    for (size_t file = 0; file < own.size(); ++file) {
      if (own[file].empty()) continue;
      const double share = set.weight(static_cast<int64_t>(file)) / sum;
      const int64_t count = std::llround(share * static_cast<double>(training.size()));
      append_passes(own[file], epoch * count, count, seed, "file " + std::to_string(file), all);
    }
  } else {
    all.assign(training.begin(), training.end());
  }
  shuffle_seeded(std::span(all), seed, static_cast<uint64_t>(epoch), "conversations");
  return all;
}

PackList epoch_packs(std::span<const int64_t> conversations, std::span<const int32_t> lengths,
                     const PackSettings& settings, int64_t epoch) {
  PackList all;
  MT_CHECK(!settings.packs || settings.num_sides == 1, "pairs are not packed");
  if (!settings.packs) {
    for (const int64_t first : conversations) {
      for (int64_t one = first; one < first + settings.num_sides; ++one)
        all.add(std::span(&one, 1));
    }
    return all;
  }
  const auto window = static_cast<size_t>(settings.window);
  for (size_t begin = 0; begin < conversations.size(); begin += window) {
    const auto some = conversations.subspan(begin, std::min(window, conversations.size() - begin));
    const PackList packs = pack_first_fit_decreasing(some, lengths, settings.sequence_length);
    // The first packs have the longest conversations: training must not see those first.
    std::vector<int64_t> order(static_cast<size_t>(packs.size()));
    std::iota(order.begin(), order.end(), 0);
    shuffle_seeded(std::span(order), settings.seed, static_cast<uint64_t>(epoch),
                   "packs of window " + std::to_string(begin / window));
    for (const int64_t pack : order) all.add(packs[pack]);
  }
  return all;
}

PackOrder::PackOrder(const ConversationSet& set, const ConversationSplit& split,
                     const PackSettings& settings)
    : set_(set), split_(split), settings_(settings) {}

void PackOrder::add_epoch() {
  const int64_t epoch = num_epochs();
  const auto conversations = epoch_conversations(set_, split_.training, settings_.seed, epoch);
  MT_CHECK(!conversations.empty(), "an epoch without conversations");
  const PackList packs = epoch_packs(conversations, split_.lengths, settings_, epoch);
  for (int64_t i = 0; i < packs.size(); ++i) packs_.add(packs[i]);
  epoch_ends_.push_back(packs_.size());
}

void PackOrder::extend_to_packs(int64_t num_packs) {
  while (packs_.size() < num_packs) add_epoch();
}

void PackOrder::extend_to_epochs(int64_t num_epochs_wanted) {
  while (num_epochs() < num_epochs_wanted) add_epoch();
}

}  // namespace moetron
