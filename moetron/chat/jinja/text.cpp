#include "moetron/chat/jinja/text.h"

#include <algorithm>
#include <cstring>

#include <utf8proc.h>

#include "moetron/chat/jinja/case_tables.h"
#include "moetron/chat/jinja/characters.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron::jinja {
namespace {

bool is_decimal(char32_t character) {
  return category_of(character) == UTF8PROC_CATEGORY_ND;
}

bool is_digit(char32_t character) {
  return is_decimal(character) ||
         std::any_of(kOtherDigits.begin(), kOtherDigits.end(), [character](const auto& range) {
           return character >= range[0] && character <= range[1];
         });
}

bool is_numeric(char32_t character) {
  const utf8proc_category_t category = category_of(character);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

template <class Test>
bool all_of(std::string_view text, Test test) {
  bool all = !text.empty();
  each_character(text, [&](char32_t character, size_t) { all = all && test(character); });
  return all;
}

bool has_case(std::string_view text, bool upper) {
  bool some = false;
  bool all = true;
  each_character(text, [&](char32_t character, size_t) {
    const bool right = upper ? is_upper(character) : is_lower(character);
    some |= right;
    all &= right || !is_cased(character);
  });
  return some && all;
}

bool is_printable(char32_t character) {
  const utf8proc_category_t category = category_of(character);
  return character == ' ' || (category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS);
}

}  // namespace

bool is_python_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; });
}

size_t byte_of_character(std::string_view text, int64_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += decode_utf8(text.data() + at).length;
  return at;
}

std::vector<std::string_view> split_characters(std::string_view text) {
  std::vector<std::string_view> characters;
  for (size_t at = 0; at < text.size();) {
    const size_t length = decode_utf8(text.data() + at).length;
    characters.push_back(text.substr(at, length));
    at += length;
  }
  return characters;
}

size_t find_text(std::string_view text, std::string_view part) {
  const void* found = memmem(text.data(), text.size(), part.data(), part.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

void append_utf8(std::string& out, char32_t character) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

std::string_view strip(std::string_view text, Side side,
                       std::optional<std::string_view> characters) {
  const auto goes = [&characters](std::string_view character) {
    if (characters) return characters->find(character) != std::string_view::npos;
    return is_python_space(decode_utf8(character.data()).value);
  };
  while (side != Side::kRight && !text.empty()) {
    const size_t length = decode_utf8(text.data()).length;
    if (!goes(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (side != Side::kLeft && !text.empty()) {
    const size_t length = decode_utf8_before(text.data() + text.size()).length;
    if (!goes(text.substr(text.size() - length))) break;
    text.remove_suffix(length);
  }
  return text;
}

std::optional<bool> test_text(std::string_view method, std::string_view text) {
  if (method == "isalpha") return all_of(text, is_letter);
  if (method == "isdecimal") return all_of(text, is_decimal);
  if (method == "isdigit") return all_of(text, is_digit);
  if (method == "isnumeric") return all_of(text, is_numeric);
  if (method == "isspace") return all_of(text, is_python_space);
  if (method == "isupper") return has_case(text, true);
  if (method == "islower") return has_case(text, false);
  if (method == "isalnum")
    return all_of(text, [](char32_t c) { return is_letter(c) || is_digit(c) || is_numeric(c); });
  if (method == "isascii")
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return static_cast<uint8_t>(c) < 0x80; });
  return std::nullopt;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t most,
                                    bool from_right) {
  std::vector<std::string_view> parts;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t found = from_right ? text.rfind(separator) : find_text(text, separator);
    if (found == std::string_view::npos) break;
    const std::string_view before = text.substr(0, found);
    const std::string_view behind = text.substr(found + separator.size());
    parts.push_back(from_right ? behind : before);
    text = from_right ? before : behind;
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_at_spaces(std::string_view text, int64_t most,
                                              bool from_right) {
  std::vector<std::string_view> parts;
  const auto is_space = [](std::string_view character) {
    return is_python_space(decode_utf8(character.data()).value);
  };
  const Side near = from_right ? Side::kRight : Side::kLeft;
  for (text = strip(text, near); !text.empty(); text = strip(text, near)) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) >= most) {
      parts.push_back(strip(text, from_right ? Side::kLeft : Side::kRight));
      break;
    }
    size_t length = 0;
    while (length < text.size()) {
      const size_t next = from_right ? decode_utf8_before(text.data() + text.size() - length).length
                                     : decode_utf8(text.data() + length).length;
      if (is_space(from_right ? text.substr(text.size() - length - next, next)
                              : text.substr(length, next)))
        break;
      length += next;
    }
    parts.push_back(from_right ? text.substr(text.size() - length) : text.substr(0, length));
    if (from_right) {
      text.remove_suffix(length);
    } else {
      text.remove_prefix(length);
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Character character = decode_utf8(text.data() + at);
    const char32_t c = character.value;
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    size_t next = at + character.length;
    if (ends) {
      if (c == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back(text.substr(begin, (keep_ends ? next : at) - begin));
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t most) {
  std::string out;
  int64_t done = 0;
  if (from.empty()) {
    for (const std::string_view character : split_characters(text)) {
      if (most < 0 || done++ < most) out += to;
      out += character;
    }
    if (most < 0 || done < most) out += to;
    return out;
  }
  for (; most < 0 || done < most; ++done) {
    const size_t found = find_text(text, from);
    if (found == std::string_view::npos) break;
    out.append(text.substr(0, found)).append(to);
    text.remove_prefix(found + from.size());
  }
  return out.append(text);
}

int64_t count_of(std::string_view text, std::string_view part) {
  if (part.empty()) return count_characters(text) + 1;
  int64_t count = 0;
  for (size_t found = find_text(text, part); found != std::string_view::npos;
       found = find_text(text, part)) {
    ++count;
    text.remove_prefix(found + part.size());
  }
  return count;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    switch (byte) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += byte;
    }
  }
  return out;
}

std::string quote_text(std::string_view text) {
  const bool in_double =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = in_double ? '"' : '\'';
  std::string out(1, quote);
  const auto hex = [&out](char32_t value, int digits) {
    for (int i = digits - 1; i >= 0; --i) out += "0123456789abcdef"[value >> (4 * i) & 15];
  };
  each_character(text, [&](char32_t c, size_t place) {
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      out += text.substr(place, decode_utf8(text.data() + place).length);
    } else if (c < 0x100) {
      out += "\\x";
      hex(c, 2);
    } else if (c < 0x10000) {
      out += "\\u";
      hex(c, 4);
    } else {
      out += "\\U";
      hex(c, 8);
    }
  });
  return out += quote;
}

}  // namespace moetron::jinja
