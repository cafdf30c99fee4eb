#include "moetron/tokenizer/unicode.h"

#include <algorithm>
#include <vector>

#include <simdjson.h>

#include "moetron/tokenizer/char_set.h"

namespace moetron {
namespace {

uint8_t category_bits(Category category) {
  if (category <= Category::kLo) return kLetter;
  if (category <= Category::kMe) return kMark;
  if (category <= Category::kNo) return kNumber;
  if (category <= Category::kPo) return kPunctuation;
  if (category <= Category::kSo) return kSymbol;
  return 0;
}

uint8_t category_case_bits(Category category) {
  switch (category) {
    case Category::kLu:
    case Category::kLt:
      return kLetter | kUpper;
    case Category::kLl:
      return kLetter | kLower;
    case Category::kLm:
    case Category::kLo:
      return kLetter | kBoth;
    default:
      break;
  }
  const uint8_t bits = category_bits(category);
  return (bits & kMark) != 0 ? kBoth : bits & kNumber;
}

void add_bits(const CharSet& set, uint8_t added, std::vector<uint8_t>& bits) {
  for (const CodeRange& range : set.ranges())
    for (char32_t c = range.first; c <= range.last; ++c) bits[c] |= added;
}

std::vector<uint8_t> make_bits(uint8_t (*bits_of)(Category)) {
  std::vector<uint8_t> bits(kNumCodePoints);
  for_each_category([&](char32_t first, char32_t last, Category category) {
    std::fill(bits.begin() + first, bits.begin() + last + 1, bits_of(category));
  });
  add_bits(space_set(), kSpace, bits);
  bits['\r'] |= kLineEnd;
  bits['\n'] |= kLineEnd;
  return bits;
}

std::vector<uint8_t> make_char_bits() {
  std::vector<uint8_t> bits = make_bits(category_bits);
  add_bits(CharSet({{0x4E00, 0x9FA5}, {0x3040, 0x30FF}}), kCjk, bits);
  return bits;
}

// The length of the valid character at `text`, or 0; `invalid` is then the length of the maximal
// part that begins a character but cannot be continued, at least 1 (Unicode 15.0, table 3-7).
size_t valid_length(std::string_view text, size_t& invalid) {
  const auto byte = [text](size_t i) {
    return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0};
  };
  const uint8_t lead = byte(0);
  invalid = 1;
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (invalid = 2; invalid < length; ++invalid) {
    if ((byte(invalid) & 0xC0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

const std::vector<uint8_t>& char_bits_table() {
  static const std::vector<uint8_t> bits = make_char_bits();
  return bits;
}

const std::vector<uint8_t>& case_bits_table() {
  static const std::vector<uint8_t> table = [] {
    std::vector<uint8_t> bits = make_bits(category_case_bits);
    add_bits(*named_set("Han"), kHan, bits);
    return bits;
  }();
  return table;
}

bool is_word_character(char32_t c) {
  static const CharSet words = word_set().united(CharSet({{0x200C, 0x200D}}));
  return words.contains(c);
}

Character decode_utf8_before(const char* end) {
  const char* begin = end - 1;
  while ((static_cast<uint8_t>(*begin) & 0xC0) == 0x80) --begin;
  return decode_utf8(begin);
}

bool is_utf8(std::string_view text) {
  return simdjson::validate_utf8(text.data(), text.size());
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size());
  while (!text.empty()) {
    size_t invalid = 0;
    const size_t length = valid_length(text, invalid);
    repaired.append(length > 0 ? text.substr(0, length) : std::string_view("\xEF\xBF\xBD"));
    text.remove_prefix(length > 0 ? length : invalid);
  }
  return repaired;
}

void append_utf8(char32_t c, std::string& text) {
  const auto add = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) return add(c);
  if (c < 0x800) {
    add(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      add(0xE0 | c >> 12);
    } else {
      add(0xF0 | c >> 18);
      add(0x80 | (c >> 12 & 0x3F));
    }
    add(0x80 | (c >> 6 & 0x3F));
  }
  add(0x80 | (c & 0x3F));
}

}  // namespace moetron
