// The merges of a BPE model: pair of token ids -> rank, as an open-addressing hash table with
// linear probing, at most half full, of 8 bytes an entry; in front of it a bit for each of many
// hashes, which mostly says by itself that a pair does not merge, and lies in a cache that is
// nearer than the table's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moetron {

class MergeTable {
 public:
  static constexpr int kIdBits = 21;
  static constexpr int kRankBits = 22;
  static constexpr uint32_t kNoRank = (1U << kRankBits) - 1;  // of a pair that does not merge

  explicit MergeTable(size_t num_merges = 0);

  // Ranks ascend from 0, and all below kNoRank; ids have kIdBits. The last of a repeated pair wins,
  // as in the library.
  void insert(int32_t left, int32_t right, int32_t merged);

  uint32_t find(int32_t left, int32_t right) const {
    const uint64_t key = make_key(left, right);
    const uint64_t hash = hash_of(key);
    const uint64_t bit = hash >> bit_shift_;
    if ((bits_[bit / 64] >> bit % 64 & 1) == 0) return kNoRank;
    for (size_t i = hash >> shift_;; i = (i + 1) & (entries_.size() - 1)) {
      if (entries_[i] >> kRankBits == key) return static_cast<uint32_t>(entries_[i]) & kNoRank;
      if (entries_[i] == kEmpty) return kNoRank;
    }
  }
  int32_t merged(uint32_t rank) const { return merged_[rank]; }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;  // no entry has kNoRank

  static uint64_t make_key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << kIdBits | static_cast<uint64_t>(right);
  }
  // Fibonacci hashing: the high bits of the product mix all bits of the key.
  static uint64_t hash_of(uint64_t key) { return (key ^ key >> kIdBits) * 0x9E3779B97F4A7C15ULL; }

  std::vector<uint64_t> entries_;  // left, right, rank
  std::vector<uint64_t> bits_;
  std::vector<int32_t> merged_;  // by rank
  int shift_;
  int bit_shift_;
};

}  // namespace moetron
