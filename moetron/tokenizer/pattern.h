// A pattern of a tokenizer.json that word_matcher.h does not know, matched by PCRE2. Such patterns
// are written for Oniguruma (Ruby syntax); pattern_parser.h reads them, and what PCRE2 cannot do in
// the same way is refused.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace moetron {

struct TextSpan {
  size_t begin;
  size_t end;
};

class Pattern {
 public:
  // A literal pattern matches itself. `file` is for messages. Throws InputError.
  Pattern(std::string_view pattern, bool is_literal, std::string file);

  const std::string& text() const { return pattern_; }
  bool is_literal() const { return is_literal_; }

  // The matches in valid UTF-8, in order; an empty match may not touch the one before it. Throws
  // InputError if the pattern needs too many steps on this text.
  void find_all(std::string_view text, std::vector<TextSpan>& matches) const;

 private:
  struct Code;
  std::string file_;
  std::string pattern_;
  bool is_literal_;
  std::shared_ptr<const Code> code_;  // none of a literal
};

}  // namespace moetron
