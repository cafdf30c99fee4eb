// A pattern of Oniguruma (Ruby syntax), read for PCRE2 in such a way that no table of Unicode of
// theirs counts: all sets of characters that the pattern names divide the characters into kinds,
// and what PCRE2 sees is a text of one byte for each character, its kind.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/tokenizer/char_set.h"

namespace moetron {

class CharKinds {
 public:
  CharKinds() = default;
  // Characters are of one kind if the same sets contain them. A line feed is its own. Appends the
  // kinds of each set to `kinds_of_sets`. Throws InputError with `what` where there are more than
  // 255 kinds.
  CharKinds(const std::vector<CharSet>& sets, const std::string& what,
            std::vector<std::vector<uint8_t>>& kinds_of_sets);

  uint8_t of(char32_t c) const { return pages_[page_of_[c / kPage] * kPage + c % kPage]; }
  // Of valid UTF-8 text, a byte for each character.
  void read(std::string_view text, std::string& kinds) const;

 private:
  static constexpr size_t kPage = 256;
  std::array<uint16_t, kNumCodePoints / kPage> page_of_{};
  std::vector<uint8_t> pages_;
};

struct ParsedPattern {
  std::string code;  // for PCRE2, of bytes, with MULTILINE
  CharKinds kinds;
};

// `file` is for messages. Throws InputError, naming what in the pattern is not supported.
ParsedPattern parse_pattern(std::string_view pattern, const std::string& file);

}  // namespace moetron
