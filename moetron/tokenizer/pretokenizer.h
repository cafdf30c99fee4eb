// Cuts text into the pieces that BPE works on, by the stages of a tokenizer.json: each stage cuts
// every piece of the stage before it.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "moetron/tokenizer/pattern.h"
#include "moetron/tokenizer/word_matcher.h"

namespace moetron {

// Every number (category N) alone, or runs of them.
struct DigitStage {
  bool individual = false;
};

// A pattern of its own; gaps or matches may be thrown away.
struct PatternStage {
  Pattern pattern;
  bool keeps_matches = true;
  bool keeps_gaps = true;
};

// A space in front of every piece that does not begin with one.
struct PrefixSpaceStage {};

using PreTokenizerStage = std::variant<WordMatcher, DigitStage, PatternStage, PrefixSpaceStage>;

// What one thread needs to cut a text; the pieces are valid until the next call of split().
struct PreTokenizerScratch {
  std::vector<std::string_view> pieces;
  std::vector<std::string_view> next_pieces;
  std::vector<TextSpan> matches;
  std::deque<std::string> prefixed;  // storage of the pieces that got a space
};

// Leaves the pieces of valid UTF-8 text in scratch.pieces; none is empty.
void pre_tokenize(const std::vector<PreTokenizerStage>& stages, std::string_view text,
                  PreTokenizerScratch& scratch);

}  // namespace moetron
