// The parts of a pattern that stand for one character: [...] and escapes, as Oniguruma reads them.
#pragma once

#include <string>
#include <string_view>

#include "moetron/tokenizer/char_set.h"

namespace moetron {

// How far a pattern has been read.
class PatternPlace {
 public:
  // `what` begins messages.
  PatternPlace(std::string_view pattern, std::string what)
      : pattern_(pattern), what_(std::move(what)) {}

  bool is_end() const { return place_ == pattern_.size(); }
  std::string_view rest() const { return pattern_.substr(place_); }
  bool starts_with(std::string_view text) const { return rest().starts_with(text); }
  // Goes behind the text, if it comes next.
  bool takes(std::string_view text);
  char last() const { return pattern_[place_ - 1]; }
  void skip(size_t bytes) { place_ += bytes; }
  // The next character; throws InputError with `at_end` where there is none.
  char32_t next(std::string_view at_end = "it ends too early");
  void require(bool is_supported, std::string_view cause) const;
  const std::string& what() const { return what_; }

 private:
  std::string_view pattern_;
  std::string what_;
  size_t place_ = 0;
};

struct ClassItem {
  bool is_set = false;
  CharSet set;
  char32_t character = 0;
};

// Of what follows a backslash. Throws InputError for what is not supported.
ClassItem parse_escape(PatternPlace& place, bool is_in_class);
// Of what follows a bracket.
CharSet parse_class(PatternPlace& place, bool any_case);
// The set and what its letters are in the other case. Throws InputError where a letter that is not
// ASCII's would have one.
CharSet in_any_case(const CharSet& set, const PatternPlace& place);

}  // namespace moetron
