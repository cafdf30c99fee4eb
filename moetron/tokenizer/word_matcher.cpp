#include "moetron/tokenizer/word_matcher.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr std::array<std::pair<std::string_view, WordMatcher>, 7> kKnownPatterns{{
    {kGpt2Pattern, WordMatcher::kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kQwen},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kLlama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kQwen35},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
     R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kGpt4o},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
     R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kTekken},
    {R"([\p{Han}]+)"
     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
     R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kKimi},
}};
constexpr std::array<std::string_view, 3> kDeepSeekPatterns{
    R"(\p{N}{1,3})",
    // U+4E00-9FA5, U+3040-309F, U+30A0-30FF, as literal characters.
    "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"};

constexpr uint8_t kWordBits = kSpace | kLetter | kNumber;  // in both tables

bool is_ascii_letter(char c) {
  return static_cast<uint8_t>((c | 0x20) - 'a') < 26;
}
char to_lower(char c) {
  return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

// How many of the 8 bytes at p are ASCII letters (or small ones), from the first one on. Bytes from
// 0x80 on overflow into no neighbour, since only their low 7 bits are added to.
template <bool any_case>
size_t ascii_letters(const char* p) {
  constexpr uint64_t kEach = 0x0101010101010101;
  uint64_t bytes = 0;
  std::memcpy(&bytes, p, sizeof(bytes));
  const uint64_t small = (bytes | kEach * (any_case ? 0x20 : 0)) & kEach * 0x7F;
  const uint64_t from_a = small + kEach * (0x80 - 'a');
  const uint64_t behind_z = small + kEach * (0x7F - 'z');
  const uint64_t others = ~(from_a & ~behind_z & ~bytes) & kEach * 0x80;
  return static_cast<size_t>(std::countr_zero(others)) / 8;
}

// Valid UTF-8 up to `end`, looked at from one character to the next.
class Scanner {
 public:
  explicit Scanner(std::string_view text, const std::vector<uint8_t>& table = char_bits_table())
      : end_(text.data() + text.size()), bits_(table.data()) {}

  const char* end() const { return end_; }
  bool is_end(const char* p) const { return p >= end_; }
  bool at(const char* p, char c) const { return p < end_ && *p == c; }

  // The bits of the character at p (0 at the end); `next` is the place behind it.
  uint8_t bits(const char* p, const char*& next) const {
    if (p >= end_) {
      next = p;
      return 0;
    }
    const auto byte = static_cast<uint8_t>(*p);
    if (byte < 0x80) {
      next = p + 1;
      return bits_[byte];
    }
    const Character c = decode_utf8(p);
    next = p + c.length;
    return bits_[c.value];
  }

  bool is(const char* p, uint8_t mask) const {
    const char* next = nullptr;
    return (bits(p, next) & mask) != 0;
  }
  bool is_ascii_letter_at(const char* p) const { return p < end_ && is_ascii_letter(*p); }

  // Behind the run of characters with any (or none) of the bits, at most `limit` of them.
  const char* skip(const char* p, uint8_t mask, size_t limit = SIZE_MAX) const {
    const char* next = nullptr;
    for (; limit > 0 && (bits(p, next) & mask) != 0; --limit) p = next;
    return p;
  }
  const char* skip_without(const char* p, uint8_t mask) const {
    const char* next = nullptr;
    while (p < end_ && (bits(p, next) & mask) == 0) p = next;
    return p;
  }

  const char* skip_ascii_letters(const char* p) const {
    while (end_ - p >= 8) {
      const size_t count = ascii_letters<true>(p);
      p += count;
      if (count < 8) return p;
    }
    while (is_ascii_letter_at(p)) ++p;
    return p;
  }
  const char* skip_ascii_small(const char* p) const {
    while (end_ - p >= 8) {
      const size_t count = ascii_letters<false>(p);
      p += count;
      if (count < 8) return p;
    }
    while (p < end_ && *p >= 'a' && *p <= 'z') ++p;
    return p;
  }

 private:
  const char* end_;
  const uint8_t* bits_;
};

// Behind the run of characters that are ASCII letters or, by the text's bits, in the mask (which
// has kLetter).
template <class Text>
const char* skip_letters(const Text& text, const char* p, uint8_t mask) {
  for (;;) {
    p = text.skip_ascii_letters(p);
    const char* next = nullptr;
    if (p >= text.end() || static_cast<uint8_t>(*p) < 0x80 || (text.bits(p, next) & mask) == 0)
      return p;
    p = next;
    while (p < text.end() && static_cast<uint8_t>(*p) >= 0x80) {
      if ((text.bits(p, next) & mask) == 0) return p;
      p = next;
    }
  }
}

// 's 't 're 've 'm 'll 'd. In any case, U+017F (long s) is an s too, by Unicode's case folding.
const char* match_contraction(const Scanner& text, const char* p, bool any_case) {
  if (!text.at(p, '\'') || p + 1 >= text.end()) return p;
  const auto letter = [&](const char* q) {
    return q >= text.end() ? '\0' : any_case ? to_lower(*q) : *q;
  };
  const char first = letter(p + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return p + 2;
  const char second = letter(p + 2);
  if ((first == 'r' || first == 'v') && second == 'e') return p + 3;
  if (first == 'l' && second == 'l') return p + 3;
  if (any_case && p + 2 < text.end() && p[1] == '\xC5' && p[2] == '\xBF') return p + 3;
  return p;
}

// \s+(?!\S)|\s+ : a run up to the end of the text whole, another one without its last character,
// which belongs to the next word; a single one alone. With `has_lines`, a run with line ends is cut
// behind the last of them: \s*[\r\n]+ comes first. `is_end`: whether the text, for the pattern,
// ends at a place.
template <bool has_lines, class Text>
const char* match_space(const Text& text, const char* p) {
  const char* end = p;
  const char* last = p;  // the last character of the run
  const char* line_end = nullptr;
  const char* next = nullptr;
  for (uint8_t bits = 0; ((bits = text.bits(end, next)) & kSpace) != 0; end = next) {
    last = end;
    if (has_lines && (bits & kLineEnd) != 0) line_end = next;
  }
  if (line_end != nullptr) return line_end;
  return text.is_end(end) || last == p ? end : last;
}

struct Gpt2 {
  using Text = Scanner;
  static const char* match(const Scanner& text, const char* p) {
    const char* word = *p == ' ' ? p + 1 : p;
    if (text.is_ascii_letter_at(word)) return skip_letters(text, word + 1, kLetter);
    const char* end = match_contraction(text, p, false);
    if (end > p) return end;
    if (text.is(word, kLetter)) return skip_letters(text, word, kLetter);
    if (text.is(word, kNumber)) return text.skip(word, kNumber);
    end = text.skip_without(word, kWordBits);
    return end > word ? end : match_space<false>(text, p);
  }
};

// `letters`: what words are made of.
template <size_t max_digits, uint8_t letters>
struct QwenLike {
  using Text = Scanner;
  static const char* match(const Scanner& text, const char* p) {
    if (is_ascii_letter(*p)) return skip_letters(text, p + 1, letters);
    if (*p == ' ' && text.is_ascii_letter_at(p + 1)) return skip_letters(text, p + 2, letters);
    const char* next = nullptr;
    const uint8_t bits = text.bits(p, next);
    if ((bits & letters) != 0) return skip_letters(text, next, letters);
    if ((bits & kNumber) != 0) return text.skip(next, kNumber, max_digits - 1);
    const char* end = match_contraction(text, p, true);
    if (end > p) return end;
    if ((bits & kLineEnd) == 0 && text.is(next, letters)) return skip_letters(text, next, letters);
    const char* word = *p == ' ' ? next : p;
    end = text.skip_without(word, kSpace | kNumber | letters);
    return end > word ? text.skip(end, kLineEnd) : match_space<true>(text, p);
  }
};

// Words as GPT-4o has them: capital letters, then small ones; letters without case are both.
template <size_t max_digits, bool has_contractions, bool has_slash, bool has_han>
struct Cased {
  struct Text : Scanner {
    explicit Text(std::string_view text) : Scanner(text, case_bits_table()) {}
  };

  struct Word {
    const char* end;
    bool has_small;
  };

  // [capital or both]*[small or both]+, or else [capital]*, from p on.
  static Word match_word(const Text& text, const char* p) {
    const char* next = nullptr;
    const auto bits_at = [&](const char* at) {
      const uint8_t bits = text.bits(at, next);
      return has_han && (bits & kHan) != 0 ? uint8_t{0} : bits;
    };
    const char* last_both = nullptr;
    uint8_t bits = 0;
    for (; ((bits = bits_at(p)) & (kUpper | kBoth)) != 0; p = next)
      if ((bits & kBoth) != 0) last_both = next;
    if ((bits & kLower) == 0) {
      if (last_both != nullptr) return {last_both, true};
      return {p, false};
    }
    do {
      p = text.skip_ascii_small(next);
    } while ((bits_at(p) & (kLower | kBoth)) != 0);
    return {p, true};
  }

  static const char* match(const Text& text, const char* p) {
    const char* next = nullptr;
    const uint8_t bits = text.bits(p, next);
    if (has_han && (bits & kHan) != 0) return text.skip(next, kHan);
    const char* end = p;
    if ((bits & kLetter) != 0) {
      end = match_word(text, p).end;
    } else if ((bits & kNumber) != 0) {
      return text.skip(next, kNumber, max_digits - 1);
    } else if ((bits & kLineEnd) == 0) {
      const Word word = match_word(text, next);
      // A mark in front of capitals alone is rather a word by itself.
      end = !word.has_small && (bits & kBoth) != 0 ? next : word.end;
      if (end == next && (bits & kBoth) == 0) end = p;
    }
    if (end > p) return has_contractions ? match_contraction(text, end, true) : end;
    const char* sign = *p == ' ' ? next : p;
    end = text.skip_without(sign, kWordBits);
    if (end == sign) return match_space<true>(text, p);
    while (text.at(end, '\r') || text.at(end, '\n') || (has_slash && text.at(end, '/'))) ++end;
    return end;
  }
};

// What the first two patterns take ends the text of the third.
struct DeepSeek {
  struct Text : Scanner {
    using Scanner::Scanner;

    // Of a Han character or kana kCjk alone.
    uint8_t bits(const char* p, const char*& next) const {
      const uint8_t found = Scanner::bits(p, next);
      return (found & kCjk) != 0 ? uint8_t{kCjk} : found;
    }
    bool is(const char* p, uint8_t mask) const {
      const char* next = nullptr;
      return (bits(p, next) & mask) != 0;
    }
    const char* skip(const char* p, uint8_t mask, size_t limit = SIZE_MAX) const {
      const char* next = nullptr;
      for (; limit > 0 && (bits(p, next) & mask) != 0; --limit) p = next;
      return p;
    }
    bool is_end(const char* p) const { return p >= end() || is(p, kNumber | kCjk); }
  };

  static const char* match(const Text& text, const char* p) {
    constexpr uint8_t kWord = kLetter | kMark;
    constexpr uint8_t kSign = kPunctuation | kSymbol;
    if (is_ascii_letter(*p)) return skip_letters(text, p + 1, kWord);
    if (*p == ' ' && text.is_ascii_letter_at(p + 1)) return skip_letters(text, p + 2, kWord);
    const char* next = nullptr;
    const uint8_t bits = text.bits(p, next);
    if ((bits & kNumber) != 0) return text.skip(next, kNumber, 2);
    if ((bits & kCjk) != 0) return text.skip(next, kCjk);
    const bool is_ascii_sign = (bits & kSign) != 0 && static_cast<uint8_t>(*p) < 0x80;
    if (is_ascii_sign && text.is_ascii_letter_at(next)) return text.skip_ascii_letters(next);
    // A mark may take the place of the leading character, but it then belongs to the run anyway.
    if ((bits & kWord) != 0) return skip_letters(text, next, kWord);
    if ((bits & (kLineEnd | kSign)) == 0 && text.is(next, kWord))
      return skip_letters(text, next, kWord);
    const char* sign = *p == ' ' ? next : p;
    const char* end = text.skip(sign, kSign);
    return end > sign ? text.skip(end, kLineEnd) : match_space<true>(text, p);
  }
};

template <class Matcher>
void split_by(std::string_view text, WordBatch& words) {
  const typename Matcher::Text scanner(text);
  const auto add = [&words](const char* begin, const char* end) {
    if (begin < end) words.add({begin, static_cast<size_t>(end - begin)});
  };
  const char* gap = text.data();  // everything before it is in words
  for (const char* p = text.data(); p < scanner.end();) {
    const char* end = Matcher::match(scanner, p);
    if (end == p) {
      p += decode_utf8(p).length;
      continue;
    }
    add(gap, p);
    add(p, end);
    gap = p = end;
  }
  add(gap, scanner.end());
}

// CR and LF may be written as themselves, as DeepSeek does.
std::string with_escaped_lines(std::string_view pattern) {
  std::string escaped;
  for (const char c : pattern) {
    if (c == '\r' || c == '\n') {
      escaped += c == '\r' ? "\\r" : "\\n";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace

std::optional<WordMatcher> find_word_matcher(std::span<const std::string_view> patterns) {
  const auto is_same = [](std::string_view written, std::string_view known) {
    return with_escaped_lines(written) == known;
  };
  if (std::ranges::equal(patterns, kDeepSeekPatterns, is_same)) return WordMatcher::kDeepSeek;
  if (patterns.size() != 1) return std::nullopt;
  for (const auto& [known, matcher] : kKnownPatterns) {
    if (is_same(patterns[0], known)) return matcher;
  }
  return std::nullopt;
}

void split_words(WordMatcher matcher, std::string_view text, WordBatch& words) {
  switch (matcher) {
    case WordMatcher::kGpt2:
      return split_by<Gpt2>(text, words);
    case WordMatcher::kQwen:
      return split_by<QwenLike<1, kLetter>>(text, words);
    case WordMatcher::kLlama3:
      return split_by<QwenLike<3, kLetter>>(text, words);
    case WordMatcher::kQwen35:
      return split_by<QwenLike<1, kLetter | kMark>>(text, words);
    case WordMatcher::kGpt4o:
      return split_by<Cased<3, true, true, false>>(text, words);
    case WordMatcher::kTekken:
      return split_by<Cased<1, false, true, false>>(text, words);
    case WordMatcher::kKimi:
      return split_by<Cased<3, true, false, true>>(text, words);
    case WordMatcher::kDeepSeek:
      return split_by<DeepSeek>(text, words);
  }
  throw InternalError("unknown word matcher");
}

}  // namespace moetron
