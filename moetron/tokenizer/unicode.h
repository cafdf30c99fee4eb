// What BPE needs of Unicode for every character that it reads: categories as bits, UTF-8 scanning
// and repair. Tables are in unicode_tables.h, normal forms in normal_forms.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moetron {

// A character's bits: its general category, and whether it is white space (the White_Space
// property: what \s means in tokenizer patterns).
enum CharBits : uint8_t {
  kLetter = 1,
  kMark = 2,
  kNumber = 4,
  kPunctuation = 8,
  kSymbol = 16,
  kSpace = 32,
  kLineEnd = 64,  // CR or LF; they are kSpace too
  kCjk = 128,     // U+4E00-9FA5 (Han), U+3040-30FF (kana): what DeepSeek's pattern has for itself
  // In the other table these stand for marks, signs and kCjk:
  kHan = 2,     // the script
  kUpper = 8,   // Lu and Lt
  kLower = 16,  // Ll
  kBoth = 128   // letters of no case, and marks
};

// The bits of all code points, made at the first call (10 ms, 1.1 MB).
const std::vector<uint8_t>& char_bits_table();

// For patterns that tell capitals from small letters: kHan, kUpper, kLower, kBoth, and kLetter,
// kNumber, kSpace and kLineEnd as above.
const std::vector<uint8_t>& case_bits_table();

// \w of the regex crate: that of patterns (char_set.h) and joiners.
bool is_word_character(char32_t character);

struct Character {
  char32_t value;
  uint32_t length;  // bytes
};

// The character at `text`, which must be valid UTF-8.
inline Character decode_utf8(const char* text) {
  const auto byte = [text](int i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

// The character that ends at `end` of valid UTF-8 text that begins before it.
Character decode_utf8_before(const char* end);

bool is_utf8(std::string_view text);

// Every maximal invalid part becomes U+FFFD, as in Python's bytes.decode(errors="replace"), in
// Rust's String::from_utf8_lossy and in the WHATWG encoding standard.
std::string replace_invalid_utf8(std::string_view text);

// Appends the character as UTF-8.
void append_utf8(char32_t character, std::string& text);

}  // namespace moetron
