#include "moetron/tokenizer/normal_forms.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include <utf8proc.h>

#include "moetron/base/error.h"
#include "moetron/tokenizer/unicode.h"
#include "moetron/tokenizer/unicode_tables.h"

namespace moetron {
namespace {

utf8proc_option_t options_of(NormalForm form) {
  const bool is_compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool composes = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (is_compatible ? UTF8PROC_COMPAT : 0) |
                                        (composes ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE));
}

// The form of valid UTF-8. utf8proc_map() would take quadratic time to put many marks in order.
void append_form(NormalForm form, std::string_view text, std::string& out) {
  const utf8proc_option_t options = options_of(form);
  std::vector<utf8proc_int32_t> points;
  for (const char* p = text.data(); p < text.data() + text.size();) {
    const Character c = decode_utf8(p);
    p += c.length;
    std::array<utf8proc_int32_t, 32> parts{};  // no character has more than 18
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts.data(),
                                               parts.size(), options, nullptr);
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
  const auto size = utf8proc_reencode(points.data(), count, options);
  MT_CHECK(size >= 0, "utf8proc: ", utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(points.data()), static_cast<size_t>(size));
}

// False means: the form's quick check is Yes and the combining class is 0 (UAX #15, section 9).
bool is_active(NormalForm form, char32_t c) {
  const utf8proc_property_t& property = *utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  if (property.combining_class != 0) return true;
  if ((options_of(form) & UTF8PROC_COMPOSE) != 0) {
    // utf8proc marks characters that compose with an earlier one by this range; Hangul vowels and
    // final consonants compose by arithmetic instead.
    if (property.comb_index >= 0x8000 && property.comb_index != UINT16_MAX) return true;
    if ((c >= 0x1161 && c <= 0x1175) || (c >= 0x11A8 && c <= 0x11C2)) return true;
  }
  const bool is_hangul = c >= 0xAC00 && c <= 0xD7A3;
  if (property.decomp_seqindex == UINT16_MAX && !is_hangul) return false;
  std::string text;
  append_utf8(c, text);
  std::string changed;
  append_form(form, text, changed);
  return changed != text;
}

std::vector<bool> make_active(NormalForm form) {
  std::vector<bool> active(kNumCodePoints);
  for (const CodeRange& range : unicode_9())
    for (char32_t c = range.first; c <= range.last; ++c) active[c] = is_active(form, c);
  return active;
}

// By code point: utf8proc may take others for marks, and must not see them.
const std::vector<bool>& known_characters() {
  static const std::vector<bool> known = [] {
    std::vector<bool> made(kNumCodePoints);
    for (const CodeRange& range : unicode_9())
      std::fill(made.begin() + range.first, made.begin() + range.last + 1, true);
    return made;
  }();
  return known;
}

const char* skip_ascii(const char* p, const char* end) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  for (uint64_t bytes = 0; end - p >= 8; p += 8) {
    std::memcpy(&bytes, p, sizeof(bytes));
    if ((bytes & kHighBits) != 0) break;
  }
  while (p < end && static_cast<uint8_t>(*p) < 0x80) ++p;
  return p;
}

}  // namespace

const std::vector<bool>& active_characters(NormalForm form) {
  static const std::vector<bool> nfc = make_active(NormalForm::kNfc);
  if (form == NormalForm::kNfc) return nfc;
  static const std::array<std::vector<bool>, 3> others{make_active(NormalForm::kNfd),
                                                       make_active(NormalForm::kNfkc),
                                                       make_active(NormalForm::kNfkd)};
  return others[static_cast<size_t>(form) - 1];
}

bool write_normal_form(NormalForm form, std::string_view text, Rewriter& out) {
  const std::vector<bool>& active = active_characters(form);
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const char* copied = begin;   // everything before it is written
  const char* starter = begin;  // the last place where the text may be cut
  std::string changed;
  for (const char* p = begin; p < end;) {
    if (static_cast<uint8_t>(*p) < 0x80) {  // nothing below U+0080 is active
      p = skip_ascii(p + 1, end);
      starter = p - 1;
      continue;
    }
    Character c = decode_utf8(p);
    if (!active[c.value]) {
      starter = p;
      p += c.length;
      continue;
    }
    if (starter < p) {
      const Character first = decode_utf8(starter);
      if (!known_characters()[first.value]) starter += first.length;
    }
    while (p < end && active[(c = decode_utf8(p)).value]) p += c.length;
    out.copy({copied, static_cast<size_t>(starter - copied)}, static_cast<size_t>(copied - begin));
    changed.clear();
    append_form(form, {starter, static_cast<size_t>(p - starter)}, changed);
    out.put(changed, static_cast<size_t>(p - begin));
    copied = starter = p;
  }
  if (copied == begin) return false;
  out.copy({copied, static_cast<size_t>(end - copied)}, static_cast<size_t>(copied - begin));
  return true;
}

}  // namespace moetron
