// Byte-pair encoding (Sennrich et al., "Neural machine translation of rare words with subword
// units", ACL 2016): a word begins as one token a byte (or a character), and the adjacent pair with
// the lowest rank merges, the leftmost of equals first, until no pair merges.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "moetron/tokenizer/char_tokens.h"
#include "moetron/tokenizer/char_units.h"
#include "moetron/tokenizer/merge_table.h"
#include "moetron/tokenizer/whole_words.h"
#include "moetron/tokenizer/word_cache.h"

namespace moetron {

// Tokens of a word, and which of its units each begins with.
struct TokenRun {
  std::vector<int32_t> ids;
  std::vector<uint32_t> begins;

  void clear();
  void append(const TokenRun& other, size_t from);
  void truncate(size_t size);
};

// What one thread needs to encode.
class BpeScratch {
 private:
  friend class Bpe;
  WordCache::View view_;
  // What the word begins as: bytes, and kNumByteUnits + the ids of characters.
  std::vector<int32_t> units_;
  std::vector<uint32_t> unit_ends_;  // the byte of the word behind each
  TokenRun tokens_;                  // of the word at hand
  TokenRun window_;                  // of a part of it
  TokenRun seam_;                    // of what lies around the end of a part
  TokenRun pair_;
  std::vector<int32_t> ids_;     // the heap's; -1: merged into the token before
  std::vector<uint32_t> ranks_;  // of tokens i and next_[i]
  std::vector<uint32_t> next_;   // the heap's linked list of living tokens
  std::vector<uint32_t> before_;
  std::vector<uint64_t> heap_;  // rank << 32 | place, smallest first
};

class Bpe {
 public:
  Bpe() { byte_ids_.fill(-1); }  // knows no token
  // byte_ids[b] is the token of byte b, or -1: such bytes are dropped, as in the library.
  // `whole_words` (the bytes of every token, or nothing) are taken before any merge.
  Bpe(const std::array<int32_t, 256>& byte_ids, std::span<const MergeRule> rules,
      const TextToId& whole_words);
  // Over characters.
  Bpe(CharUnits characters, std::span<const MergeRule> rules, const TextToId& whole_words);

  // Appends the tokens of at most WordBatch::kMaxWords words. Memory up to `readable_end` may be
  // read behind words that lie before it; null if they lie in different places.
  void encode(std::span<const std::string_view> words, const char* readable_end,
              BpeScratch& scratch, std::vector<int32_t>& out) const;
  // The tokens of a word, and the byte of it behind each.
  void encode_placed(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& out,
                     std::vector<uint32_t>& ends) const;

 private:
  int32_t unit_id(int32_t unit) const;
  uint32_t unit_rank(int32_t left, int32_t right) const;
  void encode_new(std::string_view word, uint64_t hash, BpeScratch& scratch,
                  bool with_ends = false) const;
  void read_bytes(std::string_view word, BpeScratch& scratch, bool with_ends) const;
  void merge_long(BpeScratch& scratch) const;
  void join(uint32_t end, BpeScratch& scratch) const;
  bool is_pair(uint32_t begin, uint32_t border, uint32_t end, BpeScratch& scratch) const;
  void merge_range(uint32_t begin, uint32_t end, BpeScratch& scratch, TokenRun& out) const;
  void merge_by_scan(std::span<const int32_t> units, uint32_t begin, TokenRun& out) const;
  void merge_by_heap(std::span<const int32_t> units, uint32_t begin, BpeScratch& scratch,
                     TokenRun& out) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<uint32_t> byte_merges_;  // [256, 256], ranks of the tokens of two bytes
  MergeTable merges_;
  CharTokens char_tokens_;
  std::optional<CharUnits> characters_;
  WholeWords whole_words_;
  std::unique_ptr<WordCache> cache_;
};

}  // namespace moetron
