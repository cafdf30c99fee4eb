#include "moetron/tokenizer/whole_words.h"

#include <bit>

#include "moetron/tokenizer/word_cache.h"

namespace moetron {
namespace {

constexpr size_t kBitsPerWord = 16;

// The table looks at other bits than the cache of words and the bits do.
size_t slot_of(uint64_t hash, size_t size) {
  return (hash >> 20) & (size - 1);
}

uint32_t word_tag(uint64_t hash) {
  return static_cast<uint32_t>(hash >> 32);
}

}  // namespace

WholeWords::WholeWords(const TextToId& words)
    : bits_(std::bit_ceil(kBitsPerWord * words.size() + 64) / 64),
      bit_mask_(bits_.size() * 64 - 1),
      entries_(std::bit_ceil(2 * words.size() + 2)) {
  for (const auto& [word, id] : words) {
    const uint64_t hash = word_hash(word);
    bits_[(hash & bit_mask_) / 64] |= uint64_t{1} << hash % 64;
    size_t slot = slot_of(hash, entries_.size());
    while (entries_[slot].id >= 0) slot = (slot + 1) & (entries_.size() - 1);
    entries_[slot] = {id, word_tag(hash), bytes_.size(), word.size()};
    bytes_ += word;
  }
}

int32_t WholeWords::find_entry(std::string_view word, uint64_t hash) const {
  size_t slot = slot_of(hash, entries_.size());
  for (; entries_[slot].id >= 0; slot = (slot + 1) & (entries_.size() - 1)) {
    const Entry& entry = entries_[slot];
    if (entry.tag == word_tag(hash) &&
        std::string_view(bytes_).substr(entry.begin, entry.size) == word)
      return entry.id;
  }
  return -1;
}

}  // namespace moetron
