#include "moetron/tokenizer/merge_table.h"

#include <bit>

namespace moetron {
namespace {

constexpr size_t kBitsPerMerge = 4;

}  // namespace

MergeTable::MergeTable(size_t num_merges)
    : entries_(std::bit_ceil(2 * num_merges + 2), kEmpty),
      bits_(std::bit_ceil(kBitsPerMerge * num_merges + 64) / 64),
      shift_(64 - std::countr_zero(entries_.size())),
      bit_shift_(64 - std::countr_zero(bits_.size() * 64)) {
  merged_.reserve(num_merges);
}

void MergeTable::insert(int32_t left, int32_t right, int32_t merged) {
  const uint64_t key = make_key(left, right);
  const uint64_t hash = hash_of(key);
  size_t i = hash >> shift_;
  while (entries_[i] != kEmpty && entries_[i] >> kRankBits != key)
    i = (i + 1) & (entries_.size() - 1);
  entries_[i] = key << kRankBits | merged_.size();
  const uint64_t bit = hash >> bit_shift_;
  bits_[bit / 64] |= uint64_t{1} << bit % 64;
  merged_.push_back(merged);
}

}  // namespace moetron
