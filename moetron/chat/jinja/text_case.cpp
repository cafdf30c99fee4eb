// Upper and lower case, as Python's str has them.
#include <algorithm>

#include "moetron/chat/jinja/case_tables.h"
#include "moetron/chat/jinja/characters.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

const SpecialCase* special_case(char32_t character) {
  if (character < 0xDF) return nullptr;
  const auto place = std::lower_bound(
      kSpecialCases.begin(), kSpecialCases.end(), character,
      [](const SpecialCase& entry, char32_t letter) { return entry.letter < letter; });
  return place != kSpecialCases.end() && place->letter == character ? &*place : nullptr;
}

void append_upper(std::string& out, char32_t character) {
  if (const SpecialCase* entry = special_case(character)) {
    out += entry->upper;
  } else {
    append_utf8(out, utf8proc_toupper(static_cast<utf8proc_int32_t>(character)));
  }
}

void append_title(std::string& out, char32_t character) {
  if (const SpecialCase* entry = special_case(character)) {
    out += entry->title;
  } else {
    append_utf8(out, utf8proc_totitle(static_cast<utf8proc_int32_t>(character)));
  }
}

// Of these a word may have any number between its letters, for the rule of the final sigma.
bool is_case_ignorable(char32_t character) {
  const utf8proc_category_t category = category_of(character);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME ||
         category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_LM ||
         category == UTF8PROC_CATEGORY_SK || character == '\'' || character == '.' ||
         character == ':' || character == 0xB7 || character == 0x2018 || character == 0x2019 ||
         character == 0x2024 || character == 0x2027;
}

// Whether the sigma at `place` ends a word: letters before it, and none behind.
bool is_final_sigma(std::string_view text, size_t place) {
  bool before = false;
  for (size_t at = place; at > 0;) {
    const Character character = decode_utf8_before(text.data() + at);
    at -= character.length;
    if (is_case_ignorable(character.value)) continue;
    before = is_cased(character.value);
    break;
  }
  if (!before) return false;
  for (size_t at = place + 2; at < text.size();) {
    const Character character = decode_utf8(text.data() + at);
    at += character.length;
    if (is_case_ignorable(character.value)) continue;
    return !is_cased(character.value);
  }
  return true;
}

void append_lower(std::string& out, char32_t character, std::string_view text, size_t place) {
  constexpr char32_t kSigma = 0x3A3;
  if (character == kSigma) {
    append_utf8(out, is_final_sigma(text, place) ? 0x3C2 : 0x3C3);
  } else if (character == 0x130) {
    out += "i\u0307";
  } else {
    append_utf8(out, utf8proc_tolower(static_cast<utf8proc_int32_t>(character)));
  }
}

}  // namespace

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  each_character(text, [&](char32_t character, size_t) { append_upper(out, character); });
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  each_character(
      text, [&](char32_t character, size_t place) { append_lower(out, character, text, place); });
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  each_character(text, [&](char32_t character, size_t place) {
    if (place == 0) {
      append_title(out, character);
    } else {
      append_lower(out, character, text, place);
    }
  });
  return out;
}

std::string title_case(std::string_view text) {
  std::string out;
  bool in_word = false;
  each_character(text, [&](char32_t character, size_t place) {
    if (in_word) {
      append_lower(out, character, text, place);
    } else {
      append_title(out, character);
    }
    in_word = is_cased(character);
  });
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  each_character(text, [&](char32_t character, size_t place) {
    if (is_upper(character)) {
      append_lower(out, character, text, place);
    } else if (is_lower(character)) {
      append_upper(out, character);
    } else {
      append_utf8(out, character);
    }
  });
  return out;
}

}  // namespace moetron::jinja
