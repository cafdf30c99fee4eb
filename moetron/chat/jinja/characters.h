// Characters and their categories, for text.cpp and text_case.cpp.
#pragma once

#include <string_view>

#include <utf8proc.h>

#include "moetron/tokenizer/unicode.h"

namespace moetron::jinja {

inline utf8proc_category_t category_of(char32_t character) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(character));
}

inline bool is_upper(char32_t character) {
  return category_of(character) == UTF8PROC_CATEGORY_LU;
}

inline bool is_lower(char32_t character) {
  return category_of(character) == UTF8PROC_CATEGORY_LL;
}

inline bool is_title(char32_t character) {
  return category_of(character) == UTF8PROC_CATEGORY_LT;
}

inline bool is_cased(char32_t character) {
  return is_upper(character) || is_lower(character) || is_title(character);
}

inline bool is_letter(char32_t character) {
  const utf8proc_category_t category = category_of(character);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

// Calls `use` with each character of valid UTF-8 text and the byte where it begins.
template <class Use>
void each_character(std::string_view text, Use use) {
  for (size_t at = 0; at < text.size();) {
    const Character character = decode_utf8(text.data() + at);
    use(character.value, at);
    at += character.length;
  }
}

}  // namespace moetron::jinja
