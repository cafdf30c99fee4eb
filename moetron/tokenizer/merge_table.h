// The merges of a BPE model: pair of token ids -> rank and merged token, as an open-addressing hash
// table with linear probing, at most half full.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moetron {

struct Merge {
  static constexpr uint32_t kNoRank = UINT32_MAX;
  uint32_t rank = kNoRank;  // lower merges first; kNoRank: the pair does not merge
  int32_t id = -1;
};

class MergeTable {
 public:
  explicit MergeTable(size_t num_merges = 0);

  // The last of a repeated pair wins, as in the library.
  void insert(int32_t left, int32_t right, Merge merge);

  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = make_key(left, right);
    for (size_t i = slot(key);; i = (i + 1) & (entries_.size() - 1)) {
      const Entry& entry = entries_[i];
      if (entry.key == key) return entry.merge;
      if (entry.key == kEmpty) return {};
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;  // ids are not negative, so no pair has this key
  struct Entry {
    uint64_t key = kEmpty;
    Merge merge;
  };

  static uint64_t make_key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  // Fibonacci hashing: the high bits of the product mix all bits of the key.
  size_t slot(uint64_t key) const {
    key ^= key >> 32;
    return static_cast<size_t>(key * 0x9E3779B97F4A7C15ULL >> shift_);
  }

  std::vector<Entry> entries_;
  int shift_;
};

}  // namespace moetron
