// The known pre-tokenizer patterns, matched by hand-written code: no backtracking, linear time,
// eight bytes at once where they are ASCII. A pattern that is not listed here goes to Pattern
// (pattern.h).
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "moetron/tokenizer/word_batch.h"

namespace moetron {

enum class WordMatcher {
  kGpt2,      // contractions in lower case, words and numbers of any length, with their space
  kQwen,      // contractions in any case, words, single digits, punctuation, white space
  kLlama3,    // the same with up to three digits together; GPT-4's (cl100k)
  kQwen35,    // kQwen with marks within words
  kGpt4o,     // words of capital, then small letters, with their contraction (o200k)
  kTekken,    // kGpt4o without contractions, and single digits (Mistral)
  kKimi,      // kGpt4o with runs of Han by themselves
  kDeepSeek,  // DeepSeek-V3's three patterns in a row: up to three digits; runs of Han, Hiragana
              // and Katakana; words with marks, punctuation, white space
};

// The GPT-2 pattern, which ByteLevel applies by itself with use_regex.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The matcher of patterns as they are written in a tokenizer.json, each of which cuts the pieces of
// the one before it, if there is one.
std::optional<WordMatcher> find_word_matcher(std::span<const std::string_view> patterns);

// Appends the matches of `text` (valid UTF-8) and the gaps between them, in order.
void split_words(WordMatcher matcher, std::string_view text, WordBatch& words);

}  // namespace moetron
