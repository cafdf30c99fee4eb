#include "moetron/tokenizer/word_matcher.h"

#include <array>
#include <string>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr std::array<std::pair<std::string_view, WordMatcher>, 6> kKnownPatterns{{
    {kGpt2Pattern, WordMatcher::kGpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kQwen},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kLlama3},
    {R"(\p{N}{1,3})", WordMatcher::kDeepSeekDigits},
    // U+4E00-9FA5, U+3040-309F, U+30A0-30FF, as literal characters.
    {"[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+",
     WordMatcher::kDeepSeekCjk},
    {R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
     R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     WordMatcher::kDeepSeekWords},
}};

constexpr uint8_t kWordBits = kSpace | kLetter | kNumber;

bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
char to_lower(char c) {
  return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

// Valid UTF-8 up to `end`, looked at from one character to the next.
class Scanner {
 public:
  explicit Scanner(std::string_view text)
      : end_(text.data() + text.size()), bits_(char_bits_table().data()) {}

  const char* end() const { return end_; }
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

 private:
  const char* end_;
  const uint8_t* bits_;
};

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
// which belongs to the next word; a single one alone.
const char* match_space(const Scanner& text, const char* p) {
  const char* end = p;
  const char* last = p;  // the last character of the run
  const char* next = nullptr;
  while ((text.bits(end, next) & kSpace) != 0) {
    last = end;
    end = next;
  }
  return end == text.end() || last == p ? end : last;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ : as above, but a run with line ends is cut behind the last of them.
const char* match_lines_or_space(const Scanner& text, const char* p) {
  const char* end = p;
  const char* line_end = nullptr;
  const char* next = nullptr;
  for (uint8_t bits = 0; ((bits = text.bits(end, next)) & kSpace) != 0; end = next) {
    if ((bits & kLineEnd) != 0) line_end = next;
  }
  return line_end != nullptr ? line_end : match_space(text, p);
}

struct Gpt2 {
  static const char* match(const Scanner& text, const char* p) {
    const char* end = match_contraction(text, p, false);
    if (end > p) return end;
    const char* word = text.at(p, ' ') ? p + 1 : p;
    if (text.is(word, kLetter)) return text.skip(word, kLetter);
    if (text.is(word, kNumber)) return text.skip(word, kNumber);
    end = text.skip_without(word, kWordBits);
    return end > word ? end : match_space(text, p);
  }
};

template <size_t max_digits>
struct QwenLike {
  static const char* match(const Scanner& text, const char* p) {
    const char* next = nullptr;
    const uint8_t bits = text.bits(p, next);
    if ((bits & kLetter) != 0) return text.skip(next, kLetter);
    if ((bits & kNumber) != 0) return text.skip(p, kNumber, max_digits);
    const char* end = match_contraction(text, p, true);
    if (end > p) return end;
    if ((bits & kLineEnd) == 0 && text.is(next, kLetter)) return text.skip(next, kLetter);
    const char* word = *p == ' ' ? next : p;
    end = text.skip_without(word, kWordBits);
    return end > word ? text.skip(end, kLineEnd) : match_lines_or_space(text, p);
  }
};

struct DeepSeekDigits {
  static const char* match(const Scanner& text, const char* p) { return text.skip(p, kNumber, 3); }
};

struct DeepSeekCjk {
  static const char* match(const Scanner& text, const char* p) {
    while (p < text.end() && static_cast<uint8_t>(*p) >= 0x80) {
      const Character c = decode_utf8(p);
      const bool is_cjk =
          (c.value >= 0x4E00 && c.value <= 0x9FA5) || (c.value >= 0x3040 && c.value <= 0x30FF);
      if (!is_cjk) break;
      p += c.length;
    }
    return p;
  }
};

struct DeepSeekWords {
  static const char* match(const Scanner& text, const char* p) {
    constexpr uint8_t kWord = kLetter | kMark;
    constexpr uint8_t kSign = kPunctuation | kSymbol;
    const char* next = nullptr;
    const uint8_t bits = text.bits(p, next);
    const bool is_ascii_sign = (bits & kSign) != 0 && static_cast<uint8_t>(*p) < 0x80;
    if (is_ascii_sign && next < text.end() && is_ascii_letter(*next)) {
      while (next < text.end() && is_ascii_letter(*next)) ++next;
      return next;
    }
    // A mark may take the place of the leading character, but it then belongs to the run anyway.
    if ((bits & kWord) != 0) return text.skip(next, kWord);
    if ((bits & (kLineEnd | kSign)) == 0 && text.is(next, kWord)) return text.skip(next, kWord);
    const char* sign = *p == ' ' ? next : p;
    const char* end = text.skip(sign, kSign);
    return end > sign ? text.skip(end, kLineEnd) : match_lines_or_space(text, p);
  }
};

template <class Matcher>
void split_by(std::string_view text, std::vector<std::string_view>& pieces) {
  const Scanner scanner(text);
  const auto add = [&pieces](const char* begin, const char* end) {
    if (begin < end) pieces.emplace_back(begin, static_cast<size_t>(end - begin));
  };
  const char* gap = text.data();  // everything before it is in pieces
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

}  // namespace

std::optional<WordMatcher> find_word_matcher(std::string_view pattern) {
  std::string escaped;  // CR and LF may be written as themselves, as DeepSeek does
  for (const char c : pattern) {
    if (c == '\r' || c == '\n') {
      escaped += c == '\r' ? "\\r" : "\\n";
    } else {
      escaped += c;
    }
  }
  for (const auto& [known, matcher] : kKnownPatterns) {
    if (escaped == known) return matcher;
  }
  return std::nullopt;
}

void split_words(WordMatcher matcher, std::string_view text,
                 std::vector<std::string_view>& pieces) {
  switch (matcher) {
    case WordMatcher::kGpt2:
      return split_by<Gpt2>(text, pieces);
    case WordMatcher::kQwen:
      return split_by<QwenLike<1>>(text, pieces);
    case WordMatcher::kLlama3:
      return split_by<QwenLike<3>>(text, pieces);
    case WordMatcher::kDeepSeekDigits:
      return split_by<DeepSeekDigits>(text, pieces);
    case WordMatcher::kDeepSeekCjk:
      return split_by<DeepSeekCjk>(text, pieces);
    case WordMatcher::kDeepSeekWords:
      return split_by<DeepSeekWords>(text, pieces);
  }
  throw InternalError("unknown word matcher");
}

}  // namespace moetron
