// The known pre-tokenizer patterns, matched by hand-written code: no backtracking, linear time, and
// ten times as fast as a regular-expression engine. A pattern that is not listed here goes to
// Pattern (pattern.h).
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace moetron {

enum class WordMatcher {
  kGpt2,            // contractions in lower case, words and numbers of any length, with their space
  kQwen,            // contractions in any case, words, single digits, punctuation, white space
  kLlama3,          // the same with up to three digits together
  kDeepSeekDigits,  // up to three digits, the first of DeepSeek-V3's three patterns
  kDeepSeekCjk,     // runs of Han, Hiragana and Katakana, the second
  kDeepSeekWords,   // words with marks, punctuation, white space, the third
};

// The GPT-2 pattern, which ByteLevel applies by itself with use_regex.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The matcher of a pattern as it is written in a tokenizer.json, if there is one.
std::optional<WordMatcher> find_word_matcher(std::string_view pattern);

// Appends the matches of `text` (valid UTF-8) and the gaps between them, in order.
void split_words(WordMatcher matcher, std::string_view text, std::vector<std::string_view>& pieces);

}  // namespace moetron
