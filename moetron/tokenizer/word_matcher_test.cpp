#include "moetron/tokenizer/word_matcher.h"

#include <array>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"
#include "moetron/tokenizer/pretokenizer.h"

namespace moetron {
namespace {

// As they stand in the released files of Qwen3, Llama-3 and DeepSeek-V3.
constexpr std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDigitsPattern = R"(\p{N}{1,3})";
constexpr std::string_view kCjkPattern = "[一-龥぀-ゟ゠-ヿ]+";
constexpr std::string_view kWordsPattern =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

using Pieces = std::vector<std::string>;

Pieces cut(PreTokenizerStage stage, std::string_view text) {
  PreTokenizerScratch scratch;
  pre_tokenize({std::move(stage)}, text, scratch);
  return {scratch.pieces.begin(), scratch.pieces.end()};
}

Pieces cut_by_pattern(std::string_view pattern, std::string_view text) {
  return cut(PatternStage{Pattern(pattern, false, "test")}, text);
}

TEST(WordMatcher, CutsAsTheModelsExpect) {
  EXPECT_EQ(cut(WordMatcher::kGpt2, "I'm 123  here's\n\nit "),
            (Pieces{"I", "'m", " 123", " ", " here", "'s", "\n", "\n", "it", " "}));
  EXPECT_EQ(cut(WordMatcher::kQwen, "I'M 12  (x)\r\n \n y"),
            (Pieces{"I", "'M", " ", "1", "2", " ", " (", "x", ")\r\n", " \n", " y"}));
  EXPECT_EQ(cut(WordMatcher::kLlama3, "12345"), (Pieces{"123", "45"}));
  EXPECT_EQ(cut(WordMatcher::kDeepSeekDigits, "a12345b"), (Pieces{"a", "123", "45", "b"}));
  EXPECT_EQ(cut(WordMatcher::kDeepSeekCjk, "a中かb"), (Pieces{"a", "中か", "b"}));
  EXPECT_EQ(cut(WordMatcher::kDeepSeekWords, "(abc) 1"), (Pieces{"(abc", ")", " ", "1"}));
  EXPECT_EQ(cut(DigitStage{true}, "a12"), (Pieces{"a", "1", "2"}));
  EXPECT_EQ(cut(DigitStage{false}, "a12b"), (Pieces{"a", "12", "b"}));
  EXPECT_EQ(cut(PrefixSpaceStage{}, "a"), (Pieces{" a"}));
  EXPECT_EQ(cut(PrefixSpaceStage{}, " a"), (Pieces{" a"}));
}

TEST(WordMatcher, KnowsThePatternsOfTheReleasedFiles) {
  EXPECT_EQ(find_word_matcher(kGpt2Pattern), WordMatcher::kGpt2);
  EXPECT_EQ(find_word_matcher(kQwenPattern), WordMatcher::kQwen);
  EXPECT_EQ(find_word_matcher(kLlama3Pattern), WordMatcher::kLlama3);
  EXPECT_EQ(find_word_matcher(kDigitsPattern), WordMatcher::kDeepSeekDigits);
  EXPECT_EQ(find_word_matcher(kCjkPattern), WordMatcher::kDeepSeekCjk);
  EXPECT_EQ(find_word_matcher(kWordsPattern), WordMatcher::kDeepSeekWords);
  // DeepSeek's file holds line ends as themselves.
  std::string raw(kWordsPattern);
  for (size_t at = 0; (at = raw.find("\\r\\n", at)) != std::string::npos;)
    raw.replace(at, 4, "\r\n");
  EXPECT_NE(raw, kWordsPattern);
  EXPECT_EQ(find_word_matcher(raw), WordMatcher::kDeepSeekWords);
  EXPECT_EQ(find_word_matcher(R"(\p{L}+)"), std::nullopt);
}

// PCRE2 is the judge of the hand-written code, on strings of everything that the patterns tell
// apart.
TEST(WordMatcher, EqualsARegularExpressionEngine) {
  constexpr std::array<std::string_view, 36> kParts{
      "a",  "B",  "xyz", "é",  "中", "か",     "1", "22",     "4444",   "Ⅷ",  "²",   " ",
      "  ", "\n", "\r",  "\t", "　", "\u00A0", "'", "'s",     "'S",     "'ſ", "'Ll", "'re",
      "!",  "(",  "-",   "€",  "。", "\u0301", "😀", "\u200D", "\u180E", "'v", "_",   "\u0085"};
  struct Case {
    std::string_view pattern;
    WordMatcher matcher;
  };
  const std::array<Case, 6> cases{{{kGpt2Pattern, WordMatcher::kGpt2},
                                   {kQwenPattern, WordMatcher::kQwen},
                                   {kLlama3Pattern, WordMatcher::kLlama3},
                                   {kDigitsPattern, WordMatcher::kDeepSeekDigits},
                                   {kCjkPattern, WordMatcher::kDeepSeekCjk},
                                   {kWordsPattern, WordMatcher::kDeepSeekWords}}};
  const RandomStream random(7, 0, "word matcher");
  uint64_t draw = 0;
  const auto below = [&](size_t n) { return static_cast<size_t>(random.uniform(draw++) * n); };
  for (const Case& c : cases) {
    const PatternStage stage{Pattern(c.pattern, false, "test")};
    for (int i = 0; i < 5000; ++i) {
      std::string text;
      for (size_t n = 1 + below(12); n > 0; --n) text += kParts[below(kParts.size())];
      ASSERT_EQ(cut(c.matcher, text), cut(stage, text)) << c.pattern << " on \"" << text << '"';
    }
  }
}

TEST(Pattern, ReadsOnigurumaSyntax) {
  EXPECT_EQ(cut_by_pattern(R"(\s+)", "a\u180E b"), (Pieces{"a\u180E", " ", "b"}));
  EXPECT_EQ(cut_by_pattern(R"([^\S\n]+)", "a \nb"), (Pieces{"a", " ", "\nb"}));
  EXPECT_EQ(cut_by_pattern(R"(\w+)", "e\u0301t!"), (Pieces{"e\u0301t", "!"}));
  EXPECT_EQ(cut_by_pattern(R"(\s+$)", "a \nb "), (Pieces{"a", " ", "\nb", " "}));
  EXPECT_EQ(cut_by_pattern(R"(\p{Han}+)", "a中、b"), (Pieces{"a", "中", "、b"}));
  EXPECT_EQ(cut_by_pattern(R"(\u4e2d\v?)", "a中b"), (Pieces{"a", "中", "b"}));
  EXPECT_EQ(cut_by_pattern("x*", "axxb"), (Pieces{"a", "xx", "b"}));
  EXPECT_EQ(cut(PatternStage{Pattern("a.", true, "test")}, "aba.b"), (Pieces{"ab", "a.", "b"}));
  const PatternStage removed{Pattern("-", true, "test"), false, true};
  EXPECT_EQ(cut(removed, "-a-b"), (Pieces{"a", "b"}));
  const PatternStage inverted{Pattern("[a-z]+", false, "test"), true, false};
  EXPECT_EQ(cut(inverted, "ab-c"), (Pieces{"ab", "c"}));
}

TEST(Pattern, RefusesWhatItCannotTranslate) {
  for (const char* pattern :
       {"(",       "[a",      "a{1,2}+",      "a{2}?",           "a{,2}",  R"(\h)",
        R"(\b)",   R"(\1)",   R"([\W])",      "[a&&b]",          "[a[b]]", "[]a]",
        "(?m:.)",  "(?<n>a)", "(*UTF)",       R"(\p{Nonsense})", R"(\pL)", R"(\p{L)",
        R"(\u12)", "a\\",     R"(\p{sc:Han})"}) {
    EXPECT_THROW(Pattern(pattern, false, "test"), InputError) << pattern;
  }
}

TEST(Pattern, GivesUpOnExplosions) {
  const PatternStage stage{Pattern("(?:a+)+$|(?:a|aa)+b", false, "test")};
  EXPECT_THROW(cut(stage, std::string(64, 'a') + "c"), InputError);
}

}  // namespace
}  // namespace moetron
