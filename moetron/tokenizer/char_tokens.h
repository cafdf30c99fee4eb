// The characters beyond ASCII that merge into one token before anything else can happen to their
// bytes. A word may begin as these tokens instead of as its bytes, and its merges are the same: of
// Chinese, two of three are saved.
//
// A character is one if its neighbours in the word are none or beyond ASCII too (" \xE5" is a token
// of many), and if, when it is merged by itself, one token is left, and each merge that would take
// a part of it and of a neighbour has a higher rank than the one that takes this part into the
// character. That is enough where each token has one merge, of a higher rank than those of its two
// parts: merges then come in the order of their ranks, and at each rank the word that began as
// bytes differs only in characters that are not yet whole, whose tokens nothing has merged so far.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "moetron/tokenizer/merge_table.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {

struct MergeRule {  // its place in a list is its rank
  int32_t left;
  int32_t right;
  int32_t merged;
};

class CharTokens {
 public:
  CharTokens() = default;
  CharTokens(const std::array<int32_t, 256>& byte_ids, std::span<const MergeRule> rules,
             const MergeTable& merges);

  // The token of a character whose neighbours are not ASCII, or -1.
  int32_t find(char32_t character) const { return character < ids_.size() ? ids_[character] : -1; }

 private:
  std::vector<int32_t> ids_;  // of characters of up to 3 bytes; empty if there are none
};

}  // namespace moetron
