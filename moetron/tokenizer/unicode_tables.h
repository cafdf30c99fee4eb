// Tables of Unicode as the `tokenizers` library has them, part for part of the version that it
// follows there: categories and scripts are those of Unicode 16.0, and what the other lists say.
// Nothing that a tokenizer does depends on the version of a library of this machine.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace moetron {

enum class Category : uint8_t {  // of the standard's two letters
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCo,
  kCn
};

constexpr std::array<std::string_view, 29> kCategoryNames{
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cn"};

struct CodeRange {
  char32_t first;
  char32_t last;  // included
};

struct CasePair {
  char32_t upper;
  char32_t lower;
};

constexpr char32_t kNumCodePoints = 0x110000;

// first << 5 | category, ascending; each run ends where the next begins. The category kAlternating
// stands for capital and small letters in turns.
constexpr uint32_t kAlternating = 30;
std::span<const uint32_t> category_runs();

// Calls use(first, last, category) for stretches of characters, in order.
template <class Use>
void for_each_category(Use use) {
  const std::span<const uint32_t> runs = category_runs();
  for (size_t i = 0; i < runs.size(); ++i) {
    const char32_t first = runs[i] >> 5;
    const char32_t last = (i + 1 < runs.size() ? runs[i + 1] >> 5 : kNumCodePoints) - 1;
    if ((runs[i] & 31) != kAlternating) {
      use(first, last, static_cast<Category>(runs[i] & 31));
      continue;
    }
    for (char32_t c = first; c <= last; ++c)
      use(c, c, (c - first) % 2 == 0 ? Category::kLu : Category::kLl);
  }
}

// Names such as "Old_Italic", and first << 8 | place of the name.
std::span<const std::string_view> script_names();
std::span<const uint32_t> script_runs();

// The characters of Unicode 9.0, by which the library normalises: to it others are like letters.
std::span<const CodeRange> unicode_9();
// What Digits takes for numbers besides those of the categories.
std::span<const CodeRange> later_numbers();
// What Punctuation does not take of the categories, and takes besides them and ASCII's signs.
std::span<const CodeRange> no_punctuation();
std::span<const CodeRange> more_punctuation();
// Lower case that utf8proc 2.8 does not know.
std::span<const CasePair> later_lower_case();

}  // namespace moetron
