// Words that are taken whole, before any merge, by the hash that the cache of words is asked with.
// Most words are none of them, which a bit for each of many hashes mostly says by itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/tokenizer/char_units.h"

namespace moetron {

class WholeWords {
 public:
  WholeWords() = default;  // none
  explicit WholeWords(const TextToId& words);

  // The id of a word, or -1. `hash`: word_hash() of it.
  int32_t find(std::string_view word, uint64_t hash) const {
    const uint64_t bit = hash & bit_mask_;
    if ((bits_[bit / 64] >> bit % 64 & 1) == 0) return -1;
    return find_entry(word, hash);
  }

 private:
  struct Entry {
    int32_t id = -1;
    uint32_t tag = 0;  // of the hash
    uint64_t begin = 0;
    uint64_t size = 0;
  };
  int32_t find_entry(std::string_view word, uint64_t hash) const;

  std::vector<uint64_t> bits_ = {0};
  uint64_t bit_mask_ = 63;
  std::vector<Entry> entries_;  // open addressing, half full at most
  std::string bytes_;
};

}  // namespace moetron
