#include "moetron/data/clean_text.h"

#include <algorithm>

#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

bool is_line_end(char32_t c) {
  return c == '\n' || c == '\r' || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool is_invisible(char32_t c) {
  const bool is_control = (c < 0x20 && c != '\t') || (c >= 0x7F && c < 0xA0);
  // Soft hyphen, zero-width space, word joiner, byte order mark; and what stands for bytes that
  // were no text. Zero-width joiners belong to the spelling of words.
  return is_control || c == 0xAD || c == 0x200B || c == 0x2060 || c == 0xFEFF || c == 0xFFFD;
}

bool is_blank(char32_t c) {
  return c == ' ' || c == '\t' || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string with_visible_characters(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Character c = decode_utf8(text.data() + i);
    const bool is_first_of_two = c.value == '\r' && i + 1 < text.size() && text[i + 1] == '\n';
    if (is_line_end(c.value)) {
      if (!is_first_of_two) out += '\n';
    } else if (!is_invisible(c.value)) {
      out.append(text, i, c.length);
    }
    i += c.length;
  }
  return out;
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool is_word_byte(char c) {
  return (lower(c) >= 'a' && lower(c) <= 'z') || (c >= '0' && c <= '9');
}

// Bytes of the address that begins at `begin`; 0: none does.
size_t address_length(std::string_view text, size_t begin) {
  if (begin > 0 && is_word_byte(text[begin - 1])) return 0;
  const std::string_view rest = text.substr(begin);
  for (const std::string_view scheme : {"http://", "https://", "ftp://"}) {
    const bool is_it = rest.size() > scheme.size() &&
                       std::equal(scheme.begin(), scheme.end(), rest.begin(),
                                  [](char wanted, char c) { return wanted == lower(c); });
    if (!is_it) continue;
    const auto end = std::find_if(rest.begin(), rest.end(), [](char c) {
      return c <= ' ' || c == '"' || c == '<' || c == '>' || c == 0x7F;  // beyond ASCII: negative
    });
    const auto length = static_cast<size_t>(end - rest.begin());
    if (length > scheme.size()) return length;
  }
  return 0;
}

std::string without_addresses(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t skipped = address_length(text, i);
    if (skipped == 0) out += text[i];
    i += std::max<size_t>(skipped, 1);
  }
  return out;
}

// One space for blanks, one empty line for several.
std::string with_single_blanks(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool owes_blank = false;
  int owed_line_ends = 0;  // at most two
  for (size_t i = 0; i < text.size();) {
    const Character c = decode_utf8(text.data() + i);
    if (c.value == '\n') {
      owed_line_ends = std::min(owed_line_ends + 1, 2);
    } else if (is_blank(c.value)) {
      owes_blank = true;
    } else {
      if (!out.empty() && owed_line_ends > 0) {
        out.append(static_cast<size_t>(owed_line_ends), '\n');
      } else if (!out.empty() && owes_blank) {
        out += ' ';
      }
      owes_blank = false;
      owed_line_ends = 0;
      out.append(text, i, c.length);
    }
    i += c.length;
  }
  return out;
}

}  // namespace

std::string clean_text(std::string_view text) {
  return with_single_blanks(without_addresses(with_visible_characters(text)));
}

}  // namespace moetron
