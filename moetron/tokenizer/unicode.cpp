#include "moetron/tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <vector>

#include <simdjson.h>
#include <utf8proc.h>

#include "moetron/base/error.h"
#include "moetron/tokenizer/unicode_versions.h"

namespace moetron {
namespace {

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

uint8_t category_bits(utf8proc_category_t category) {
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return kLetter;
  if (category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME) return kMark;
  if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) return kNumber;
  if (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO) return kPunctuation;
  if (category >= UTF8PROC_CATEGORY_SM && category <= UTF8PROC_CATEGORY_SO) return kSymbol;
  return 0;
}

// Appends NFC of valid UTF-8. utf8proc_map() would take quadratic time to put many marks in order.
void append_nfc(std::string_view text, std::string& out) {
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  std::vector<utf8proc_int32_t> points;
  for (const char* p = text.data(); p < text.data() + text.size();) {
    const Character c = decode_utf8(p);
    p += c.length;
    std::array<utf8proc_int32_t, 8> parts{};  // no character has more than 4
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts.data(),
                                               parts.size(), kOptions, nullptr);
    MT_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()),
             "utf8proc: ", count, " parts of a character");
    points.insert(points.end(), parts.begin(), parts.begin() + count);
  }
  const auto marks_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  for (auto begin = points.begin(); begin != points.end();) {
    auto end = begin;
    while (end != points.end() && marks_class(*end) != 0) ++end;
    std::stable_sort(begin, end, [&](auto a, auto b) { return marks_class(a) < marks_class(b); });
    begin = end == points.end() ? end : end + 1;
  }
  const auto count = static_cast<utf8proc_ssize_t>(points.size());
  points.push_back(0);  // utf8proc ends the text with a zero
  const auto size = utf8proc_reencode(points.data(), count, kOptions);
  MT_CHECK(size >= 0, "utf8proc: ", utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(points.data()), static_cast<size_t>(size));
}

// False means: NFC_Quick_Check is Yes and the combining class is 0. Such a character stays as it
// is, and text may be cut in front of it (UAX #15, section 9).
bool is_nfc_active(char32_t c, const utf8proc_property_t& property) {
  if (property.combining_class != 0) return true;
  // utf8proc marks characters that compose with an earlier one by this range; Hangul vowels and
  // final consonants compose by arithmetic instead.
  if (property.comb_index >= 0x8000 && property.comb_index != UINT16_MAX) return true;
  if ((c >= 0x1161 && c <= 0x1175) || (c >= 0x11A8 && c <= 0x11C2)) return true;
  if (property.decomp_seqindex == UINT16_MAX || property.decomp_type != 0) return false;
  std::array<utf8proc_uint8_t, 4> utf8{};
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), utf8.data());
  const std::string text(reinterpret_cast<const char*>(utf8.data()), static_cast<size_t>(size));
  std::string composed;
  append_nfc(text, composed);
  return composed != text;
}

std::vector<uint8_t> make_char_bits() {
  std::vector<uint8_t> bits(kNumCodePoints);
  for (char32_t c = 0; c < kNumCodePoints; ++c) {
    const auto* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
    bits[c] = category_bits(static_cast<utf8proc_category_t>(property->category));
    if (is_white_space(c)) bits[c] |= kSpace;
    if (c == '\r' || c == '\n') bits[c] |= kLineEnd;
    if (is_nfc_active(c, *property)) bits[c] |= kNfcActive;
  }
  for (const CharRange& range : new_characters()) {
    for (char32_t c = range.first; c <= range.last; ++c) bits[c] |= range.bits;
  }
  for (const CharRange& range : later_marks()) {
    for (char32_t c = range.first; c <= range.last; ++c) bits[c] &= ~kNfcActive;
  }
  return bits;
}

bool is_later_mark(char32_t c) {
  const auto contains = [c](const CharRange& range) { return c >= range.first && c <= range.last; };
  return std::ranges::any_of(later_marks(), contains);
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

bool is_word_character(char32_t c) {
  if ((char_bits_table()[c] & (kLetter | kMark)) != 0) return true;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  if (category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL) return true;
  if (category == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D) return true;
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
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

std::string_view normalize_nfc(std::string_view text, std::string& storage) {
  const std::vector<uint8_t>& bits = char_bits_table();
  const char* const end = text.data() + text.size();
  const char* copied = text.data();   // everything before it is in storage
  const char* starter = text.data();  // the last place where the text may be cut
  bool changed = false;
  for (const char* p = text.data(); p < end;) {
    if (static_cast<uint8_t>(*p) < 0x80) {  // nothing below U+0080 is active
      starter = p++;
      continue;
    }
    Character c = decode_utf8(p);
    if ((bits[c.value] & kNfcActive) == 0) {
      starter = p;
      p += c.length;
      continue;
    }
    // A starter that utf8proc would take for a mark stays out of its sight.
    if (starter < p) {
      const Character first = decode_utf8(starter);
      if (is_later_mark(first.value)) starter += first.length;
    }
    while (p < end && (bits[(c = decode_utf8(p)).value] & kNfcActive) != 0) p += c.length;
    if (!changed) storage.clear();
    changed = true;
    storage.append(copied, starter);
    append_nfc({starter, static_cast<size_t>(p - starter)}, storage);
    copied = starter = p;
  }
  if (!changed) return text;
  storage.append(copied, end);
  return storage;
}

}  // namespace moetron
