// Sets of characters, as patterns name them.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "moetron/tokenizer/unicode_tables.h"

namespace moetron {

class CharSet {
 public:
  CharSet() = default;
  explicit CharSet(std::vector<CodeRange> ranges);  // in any order; they may overlap
  explicit CharSet(std::span<const CodeRange> ranges)
      : CharSet(std::vector<CodeRange>(ranges.begin(), ranges.end())) {}

  // Ascending, with a gap between each two.
  std::span<const CodeRange> ranges() const { return ranges_; }
  bool contains(char32_t c) const;
  CharSet complement() const;
  CharSet united(const CharSet& other) const;
  CharSet intersected(const CharSet& other) const;
  bool operator==(const CharSet& other) const;

 private:
  std::vector<CodeRange> ranges_;
};

// The set of a property's name as Oniguruma reads it: a general category of one or two letters, a
// script, or one of few more names. Nothing for any other.
std::optional<CharSet> named_set(std::string_view name);

CharSet word_set();       // \w in a class
CharSet lone_word_set();  // \w by itself, and what \b looks at: Latin-1's numbers too
CharSet space_set();      // \s, and Rust's char::is_whitespace
// What the library's Digits takes for numbers, and its Punctuation for that.
CharSet number_set();
CharSet punctuation_set();

}  // namespace moetron
