// The packs that a run trains on, in order: epoch after epoch, each a shuffle of its own, packed
// window by window.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moetron/data/conversation_set.h"
#include "moetron/data/packing.h"

namespace moetron {

struct PackSettings {
  int64_t sequence_length = 0;
  bool packs = true;      // else every conversation has a sequence of its own
  int64_t num_sides = 1;  // of a record: with 2 each of `conversations` stands for a pair, whose
                          // sequences follow each other; pairs are not packed
  int64_t window = 1024;  // conversations that are packed together, as the shuffle brings them
  uint64_t seed = 0;
};

// The conversations of an epoch in their order, which follows from seed and epoch alone. Without
// weights, each of the `training` ones once. With weights an epoch has as many in all; a file's
// share of them is taken from shuffles of the file, one behind the other, so that none comes again
// before all of its file came.
std::vector<int64_t> epoch_conversations(const ConversationSet& set,
                                         std::span<const int64_t> training, uint64_t seed,
                                         int64_t epoch);

// The packs of an epoch, each window's shuffled. `lengths`: of all conversations, as they are cut.
PackList epoch_packs(std::span<const int64_t> conversations, std::span<const int32_t> lengths,
                     const PackSettings& settings, int64_t epoch);

// Of all epochs that it takes: pack number i is the same whatever else is asked for.
class PackOrder {
 public:
  PackOrder(const ConversationSet& set, const ConversationSplit& split,
            const PackSettings& settings);

  // Goes on until there are so many packs, or whole epochs.
  void extend_to_packs(int64_t num_packs);
  void extend_to_epochs(int64_t num_epochs);

  int64_t num_epochs() const { return static_cast<int64_t>(epoch_ends_.size()); }
  int64_t epoch_end(int64_t epoch) const { return epoch_ends_.at(static_cast<size_t>(epoch)); }
  const PackList& packs() const { return packs_; }

 private:
  void add_epoch();

  const ConversationSet& set_;  // both outlive this
  const ConversationSplit& split_;
  PackSettings settings_;
  PackList packs_;
  std::vector<int64_t> epoch_ends_;  // packs
};

}  // namespace moetron
