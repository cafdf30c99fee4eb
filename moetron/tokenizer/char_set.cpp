#include "moetron/tokenizer/char_set.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace moetron {
namespace {

constexpr std::array<CodeRange, 10> kSpaces{{{9, 13},
                                             {0x20, 0x20},
                                             {0x85, 0x85},
                                             {0xA0, 0xA0},
                                             {0x1680, 0x1680},
                                             {0x2000, 0x200A},
                                             {0x2028, 0x2029},
                                             {0x202F, 0x202F},
                                             {0x205F, 0x205F},
                                             {0x3000, 0x3000}}};
// Letters in circles and squares, which are words' characters but symbols.
constexpr std::array<CodeRange, 4> kEnclosedLetters{
    {{0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}}};
constexpr std::array<CodeRange, 1> kSurrogates{{{0xD800, 0xDFFF}}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kLongNames{
    {{"letter", "l"},
     {"mark", "m"},
     {"number", "n"},
     {"punctuation", "p"},
     {"symbol", "s"},
     {"separator", "z"},
     {"other", "c"}}};

std::string simplified(std::string_view name) {
  std::string simple;
  for (const char c : name) {
    if (c == ' ' || c == '_' || c == '-') continue;
    simple += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
  return simple;
}

// Of the categories whose names begin so, in small letters.
CharSet category_set(std::string_view begin) {
  std::array<bool, kCategoryNames.size()> is_in{};
  for (size_t i = 0; i < is_in.size(); ++i)
    is_in[i] = simplified(kCategoryNames[i].substr(0, begin.size())) == begin;
  std::vector<CodeRange> ranges;
  for_each_category([&](char32_t first, char32_t last, Category category) {
    if (is_in[static_cast<size_t>(category)]) ranges.push_back({first, last});
  });
  return CharSet(std::move(ranges));
}

std::optional<CharSet> script_set(std::string_view simple) {
  const std::span<const std::string_view> names = script_names();
  const auto found = std::ranges::find(names, simple, simplified);
  if (found == names.end()) return std::nullopt;
  const auto script = static_cast<uint32_t>(found - names.begin());
  const std::span<const uint32_t> runs = script_runs();
  std::vector<CodeRange> ranges;
  for (size_t i = 0; i < runs.size(); ++i) {
    if ((runs[i] & 0xFF) != script) continue;
    const char32_t end = i + 1 < runs.size() ? runs[i + 1] >> 8 : kNumCodePoints;
    ranges.push_back({runs[i] >> 8, end - 1});
  }
  return CharSet(std::move(ranges));
}

}  // namespace

CharSet::CharSet(std::vector<CodeRange> ranges) : ranges_(std::move(ranges)) {
  std::ranges::sort(ranges_, {}, &CodeRange::first);
  size_t size = 0;
  for (const CodeRange range : ranges_) {
    if (size > 0 && range.first <= ranges_[size - 1].last + 1) {
      ranges_[size - 1].last = std::max(ranges_[size - 1].last, range.last);
    } else {
      ranges_[size++] = range;
    }
  }
  ranges_.resize(size);
}

bool CharSet::contains(char32_t c) const {
  const auto behind = std::ranges::upper_bound(ranges_, c, {}, &CodeRange::first);
  return behind != ranges_.begin() && c <= (behind - 1)->last;
}

CharSet CharSet::complement() const {
  std::vector<CodeRange> gaps;
  char32_t begin = 0;
  for (const CodeRange& range : ranges_) {
    if (begin < range.first) gaps.push_back({begin, range.first - 1});
    begin = range.last + 1;
  }
  if (begin < kNumCodePoints) gaps.push_back({begin, kNumCodePoints - 1});
  return CharSet(std::move(gaps));
}

CharSet CharSet::united(const CharSet& other) const {
  std::vector<CodeRange> both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return CharSet(std::move(both));
}

CharSet CharSet::intersected(const CharSet& other) const {
  return complement().united(other.complement()).complement();
}

bool CharSet::operator==(const CharSet& other) const {
  return std::ranges::equal(ranges_, other.ranges_, [](const CodeRange& a, const CodeRange& b) {
    return a.first == b.first && a.last == b.last;
  });
}

std::optional<CharSet> named_set(std::string_view name) {
  std::string simple = simplified(name);
  for (const auto& [long_name, letter] : kLongNames)
    if (simple == long_name) simple = letter;
  if (simple == "any") return CharSet().complement();
  if (simple == "word") return word_set();
  if (simple == "space") return space_set();
  if (simple == "digit") return category_set("nd");
  if (simple == "xdigit") return CharSet({{'0', '9'}, {'A', 'F'}, {'a', 'f'}});
  if (simple == "c" || simple == "cs") {
    const CharSet surrogates{std::span<const CodeRange>(kSurrogates)};
    return simple == "cs" ? surrogates : surrogates.united(category_set("c"));
  }
  if (simple.size() <= 2) {
    CharSet set = category_set(simple);
    if (simple.empty() || set.ranges().empty()) return std::nullopt;
    return set;
  }
  return script_set(simple);
}

CharSet word_set() {
  CharSet set{std::span<const CodeRange>(kEnclosedLetters)};
  for (const std::string_view category : {"l", "m", "nd", "nl", "pc"})
    set = set.united(category_set(category));
  return set;
}

CharSet lone_word_set() {
  return word_set().united(CharSet({{0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}}));
}

CharSet space_set() {
  return CharSet{std::span<const CodeRange>(kSpaces)};
}

CharSet number_set() {
  return category_set("n").united(CharSet(later_numbers()));
}

CharSet punctuation_set() {
  const CharSet without = CharSet(no_punctuation()).complement();
  const CharSet signs({{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}});
  return category_set("p").intersected(without).united(CharSet(more_punctuation())).united(signs);
}

}  // namespace moetron
