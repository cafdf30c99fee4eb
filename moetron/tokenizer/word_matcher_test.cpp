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
constexpr std::string_view kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4oPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kKimiPattern =
    R"([\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDigitsPattern = R"(\p{N}{1,3})";
constexpr std::string_view kCjkPattern = "[一-龥぀-ゟ゠-ヿ]+";
constexpr std::string_view kWordsPattern =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

using Pieces = std::vector<std::string>;
using Stages = std::vector<PreTokenizerStage>;

struct PieceList : WordConsumer {
  Pieces pieces;
  void take(std::span<const std::string_view> words) override {
    pieces.insert(pieces.end(), words.begin(), words.end());
  }
};

Pieces cut(const Stages& stages, std::string_view text) {
  PieceList list;
  WordBatch words(list);
  pre_tokenize(stages, text, {.first = text.data()}, words);
  words.flush();
  return list.pieces;
}

Pieces cut(PreTokenizerStage stage, std::string_view text) {
  return cut(Stages{std::move(stage)}, text);
}

PreTokenizerStage pattern_stage(std::string_view pattern) {
  return SplitStage{Pattern(pattern, false, "test")};
}

SplitStage digits(SplitBehavior behavior) {
  return {CharMatcher(number_set()), behavior};
}

Pieces cut_by_pattern(std::string_view pattern, std::string_view text) {
  return cut(pattern_stage(pattern), text);
}

std::optional<WordMatcher> matcher_of(std::vector<std::string_view> patterns) {
  return find_word_matcher(patterns);
}

TEST(WordMatcher, CutsAsTheModelsExpect) {
  EXPECT_EQ(cut(WordMatcher::kGpt2, "I'm 123  here's\n\nit "),
            (Pieces{"I", "'m", " 123", " ", " here", "'s", "\n", "\n", "it", " "}));
  EXPECT_EQ(cut(WordMatcher::kQwen, "I'M 12  (x)\r\n \n y"),
            (Pieces{"I", "'M", " ", "1", "2", " ", " (", "x", ")\r\n", " \n", " y"}));
  EXPECT_EQ(cut(WordMatcher::kLlama3, "12345"), (Pieces{"123", "45"}));
  EXPECT_EQ(cut(WordMatcher::kDeepSeek, "a12345b"), (Pieces{"a", "123", "45", "b"}));
  EXPECT_EQ(cut(WordMatcher::kDeepSeek, "a中かb"), (Pieces{"a", "中か", "b"}));
  EXPECT_EQ(cut(WordMatcher::kDeepSeek, "(abc) 1"), (Pieces{"(abc", ")", " ", "1"}));
  EXPECT_EQ(cut(WordMatcher::kDeepSeek, "a  中  b"), (Pieces{"a", "  ", "中", " ", " b"}));
  EXPECT_EQ(cut(digits(SplitBehavior::kIsolated), "a12"), (Pieces{"a", "1", "2"}));
  EXPECT_EQ(cut(digits(SplitBehavior::kContiguous), "a12b"), (Pieces{"a", "12", "b"}));
  EXPECT_EQ(cut(PrefixSpaceStage{}, "a"), (Pieces{" a"}));
  EXPECT_EQ(cut(PrefixSpaceStage{}, " a"), (Pieces{" a"}));
}

TEST(WordMatcher, KnowsThePatternsOfTheReleasedFiles) {
  EXPECT_EQ(matcher_of({kGpt2Pattern}), WordMatcher::kGpt2);
  EXPECT_EQ(matcher_of({kQwenPattern}), WordMatcher::kQwen);
  EXPECT_EQ(matcher_of({kLlama3Pattern}), WordMatcher::kLlama3);
  EXPECT_EQ(matcher_of({kQwen35Pattern}), WordMatcher::kQwen35);
  EXPECT_EQ(matcher_of({kGpt4oPattern}), WordMatcher::kGpt4o);
  EXPECT_EQ(matcher_of({kTekkenPattern}), WordMatcher::kTekken);
  EXPECT_EQ(matcher_of({kKimiPattern}), WordMatcher::kKimi);
  EXPECT_EQ(matcher_of({kDigitsPattern, kCjkPattern, kWordsPattern}), WordMatcher::kDeepSeek);
  // DeepSeek's file holds line ends as themselves.
  std::string raw(kWordsPattern);
  for (size_t at = 0; (at = raw.find("\\r\\n", at)) != std::string::npos;)
    raw.replace(at, 4, "\r\n");
  EXPECT_NE(raw, kWordsPattern);
  EXPECT_EQ(matcher_of({kDigitsPattern, kCjkPattern, raw}), WordMatcher::kDeepSeek);
  EXPECT_EQ(matcher_of({R"(\p{L}+)"}), std::nullopt);
  EXPECT_EQ(matcher_of({kDigitsPattern}), std::nullopt);
  EXPECT_EQ(matcher_of({kQwenPattern, kCjkPattern}), std::nullopt);
}

// PCRE2 is the judge of the hand-written code, on strings of everything that the patterns tell
// apart.
TEST(WordMatcher, EqualsARegularExpressionEngine) {
  constexpr auto kParts =
      std::to_array<std::string_view>({"a",      "B",      "xyz",       "é",      "中",
                                       "か",     "1",      "22",        "4444",   "Ⅷ",
                                       "²",      " ",      "  ",        "\n",     "\r",
                                       "\t",     "　",     "\u00A0",    "'",      "'s",
                                       "'S",     "'ſ",     "'Ll",       "'re",    "!",
                                       "(",      "-",      "€",         "。",     "\u0301",
                                       "😀",      "/",      "\u200D",    "'v",     "_",
                                       "[",      "\u180E", "\u0085",    "\u00AD", "Z",
                                       "ABCDEF", "ǅ",      "ʰ",         "々",     "〇",
                                       "⺀",     "É",      "Bcd",       "//",     "abcdefghijklmn",
                                       "\u16FF", "aB",     "\U00016FF0"});
  struct Case {
    WordMatcher matcher;
    std::vector<std::string_view> patterns;
  };
  const std::array<Case, 8> cases{
      {{WordMatcher::kGpt2, {kGpt2Pattern}},
       {WordMatcher::kQwen, {kQwenPattern}},
       {WordMatcher::kLlama3, {kLlama3Pattern}},
       {WordMatcher::kQwen35, {kQwen35Pattern}},
       {WordMatcher::kGpt4o, {kGpt4oPattern}},
       {WordMatcher::kTekken, {kTekkenPattern}},
       {WordMatcher::kKimi, {kKimiPattern}},
       {WordMatcher::kDeepSeek, {kDigitsPattern, kCjkPattern, kWordsPattern}}}};
  const RandomStream random(7, 0, "word matcher");
  uint64_t draw = 0;
  const auto below = [&](size_t n) { return static_cast<size_t>(random.uniform(draw++) * n); };
  for (const Case& c : cases) {
    Stages stages;
    for (const std::string_view pattern : c.patterns) stages.push_back(pattern_stage(pattern));
    for (int i = 0; i < 6000; ++i) {
      std::string text;
      for (size_t n = 1 + below(16); n > 0; --n) text += kParts[below(kParts.size())];
      ASSERT_EQ(cut(c.matcher, text), cut(stages, text))
          << c.patterns[0] << " on \"" << text << '"';
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
  EXPECT_EQ(cut(SplitStage{Pattern("a.", true, "test")}, "aba.b"), (Pieces{"ab", "a.", "b"}));
  const SplitStage inverted{Pattern("[a-z]+", false, "test"), SplitBehavior::kRemoved, true};
  EXPECT_EQ(cut(inverted, "ab-c"), (Pieces{"ab", "c"}));
  EXPECT_EQ(cut_by_pattern(R"([a-f&&[^b]])", "abc"), (Pieces{"a", "b", "c"}));
  EXPECT_EQ(cut_by_pattern(R"(\bab{2}+)", "abbbb abb cabb"),
            (Pieces{"abbbb", " ", "abb", " cabb"}));
  EXPECT_EQ(cut_by_pattern(R"((?i:k's|\p{^L}))", "\u212A'\u017Fa1"),
            (Pieces{"\u212A'\u017F", "a", "1"}));
  EXPECT_EQ(cut_by_pattern(R"(\p{Lo}+)", "a\U00031350b"), (Pieces{"a", "\U00031350", "b"}));
}

// The words of the library's own documentation.
TEST(SplitStage, BehavesAsTheLibrary) {
  const auto split = [](SplitBehavior behavior) {
    return cut(SplitStage{Pattern("-", true, "test"), behavior}, "the-final--countdown");
  };
  EXPECT_EQ(split(SplitBehavior::kRemoved), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kIsolated), (Pieces{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious),
            (Pieces{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext), (Pieces{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(SplitBehavior::kContiguous), (Pieces{"the", "-", "final", "--", "countdown"}));
}

TEST(Pattern, RefusesWhatItCannotTranslate) {
  for (const char* pattern : {"(",
                              "a)",
                              "[a",
                              "[",
                              R"([\)",
                              "*a",
                              "a**",
                              "(?~a)",
                              R"(\1)",
                              R"(\k<n>)",
                              R"(\G)",
                              "[]a]",
                              "[a-\\d]",
                              "[b-a]",
                              "[[:alpha:]]",
                              "(?x:a)",
                              "(?i",
                              "(?i:\u00df)",
                              "(?i:fluss)",
                              "(*UTF)",
                              R"(\p{Nonsense})",
                              R"(\pL)",
                              R"(\p{L)",
                              R"(\u12)",
                              R"(\x{110000})",
                              R"(\xe4)",
                              "a\\",
                              R"(\p{sc:Han})",
                              "(?<=a+)b",
                              "a{200000}"}) {
    EXPECT_THROW(Pattern(pattern, false, "test"), InputError) << pattern;
  }
}

TEST(Pattern, GivesUpOnExplosions) {
  const SplitStage stage{Pattern("(?:a+)+$|(?:a|aa)+b", false, "test")};
  EXPECT_THROW(cut(stage, std::string(64, 'a') + "c"), InputError);
}

}  // namespace
}  // namespace moetron
