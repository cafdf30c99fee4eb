#include "moetron/tokenizer/char_tokens.h"

#include <algorithm>

namespace moetron {
namespace {

constexpr char32_t kFirst = 0x80;
constexpr char32_t kEnd = 0x10000;  // longer characters are rare
constexpr char32_t kFirstOfThreeBytes = 0x800;

// What the rules say of each token, by id: of merges with what lies beside a character, which is
// another one beyond ASCII.
struct RuleFacts {
  std::vector<uint32_t> as_right;  // the lowest rank of a merge whose right part it is
  std::vector<uint32_t> as_left;   // of one whose left it is
  bool is_ordered = true;          // as the header asks
};

RuleFacts read_rules(const std::array<int32_t, 256>& byte_ids, std::span<const MergeRule> rules) {
  int32_t largest = 0;
  for (const int32_t id : byte_ids) largest = std::max(largest, id);
  for (const MergeRule& rule : rules)
    largest = std::max({largest, rule.left, rule.right, rule.merged});
  RuleFacts facts;
  facts.as_right.resize(static_cast<size_t>(largest) + 1, MergeTable::kNoRank);
  facts.as_left = facts.as_right;
  std::vector<int> first_byte(facts.as_right.size(), -1);  // -1: made by no rule so far
  std::vector<int> last_byte(facts.as_right.size(), -1);
  for (int byte = 0; byte < 256; ++byte)
    if (byte_ids[byte] >= 0) first_byte[byte_ids[byte]] = last_byte[byte_ids[byte]] = byte;
  // Without a token for a byte that begins characters, others would become neighbours.
  for (int byte = 0xC2; byte <= 0xF4; ++byte) facts.is_ordered &= byte_ids[byte] >= 0;
  for (uint32_t rank = 0; rank < rules.size() && facts.is_ordered; ++rank) {
    const auto& [left, right, merged] = rules[rank];
    facts.is_ordered &= first_byte[left] >= 0 && first_byte[right] >= 0 && first_byte[merged] < 0;
    first_byte[merged] = first_byte[left];
    last_byte[merged] = last_byte[right];
    if (last_byte[left] >= 0x80) facts.as_right[right] = std::min(facts.as_right[right], rank);
    if (first_byte[right] >= 0xC0) facts.as_left[left] = std::min(facts.as_left[left], rank);
  }
  return facts;
}

// Merges one character, whose parts are ids.
class CharMerger {
 public:
  CharMerger(const RuleFacts& facts, const MergeTable& merges) : facts_(facts), merges_(merges) {}

  int32_t merge(int32_t first, int32_t second) const {
    const uint32_t rank = merges_.find(first, second);
    return takes(first, second, rank) ? merges_.merged(rank) : -1;
  }

  int32_t merge(int32_t first, int32_t second, int32_t third) const {
    const uint32_t begin = merges_.find(first, second);
    const uint32_t end = merges_.find(second, third);
    if (begin == MergeTable::kNoRank && end == MergeTable::kNoRank) return -1;
    if (begin <= end)  // the leftmost of equals comes first
      return facts_.as_right[first] > begin ? merge(merges_.merged(begin), third) : -1;
    return facts_.as_left[third] > end ? merge(first, merges_.merged(end)) : -1;
  }

 private:
  // Whether two parts become the character before one of them merges with what lies beside it.
  bool takes(int32_t first, int32_t last, uint32_t rank) const {
    return rank != MergeTable::kNoRank && facts_.as_right[first] > rank &&
           facts_.as_left[last] > rank;
  }

  const RuleFacts& facts_;
  const MergeTable& merges_;
};

}  // namespace

CharTokens::CharTokens(const std::array<int32_t, 256>& byte_ids, std::span<const MergeRule> rules,
                       const MergeTable& merges) {
  const RuleFacts facts = read_rules(byte_ids, rules);
  if (!facts.is_ordered) return;
  const CharMerger merger(facts, merges);
  ids_.assign(kEnd, -1);
  for (char32_t c = kFirst; c < kEnd; ++c) {
    const bool has_three = c >= kFirstOfThreeBytes;
    const int32_t first = byte_ids[has_three ? 0xE0 | c >> 12 : 0xC0 | c >> 6];
    const int32_t second = byte_ids[0x80 | (has_three ? c >> 6 & 0x3F : c & 0x3F)];
    const int32_t third = byte_ids[0x80 | (c & 0x3F)];
    if (first < 0 || second < 0 || third < 0) continue;
    ids_[c] = has_three ? merger.merge(first, second, third) : merger.merge(first, second);
  }
}

}  // namespace moetron
