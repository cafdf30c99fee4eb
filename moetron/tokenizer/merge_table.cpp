#include "moetron/tokenizer/merge_table.h"

#include <bit>

namespace moetron {

MergeTable::MergeTable(size_t num_merges)
    : entries_(std::bit_ceil(2 * num_merges + 2)), shift_(64 - std::countr_zero(entries_.size())) {}

void MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = make_key(left, right);
  size_t i = slot(key);
  while (entries_[i].key != kEmpty && entries_[i].key != key) i = (i + 1) & (entries_.size() - 1);
  entries_[i] = {key, merge};
}

}  // namespace moetron
