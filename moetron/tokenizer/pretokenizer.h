// Cuts text into the pieces that BPE works on, by the stages of a tokenizer.json: each stage cuts
// every piece of the stage before it.
#pragma once

#include <span>
#include <string_view>
#include <variant>

#include "moetron/tokenizer/pattern.h"
#include "moetron/tokenizer/word_batch.h"
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

// Appends the pieces of valid UTF-8 text to `words`, in order; none is empty. They lie in the text,
// but for those that got a space, which are flushed before the call returns.
void pre_tokenize(std::span<const PreTokenizerStage> stages, std::string_view text,
                  WordBatch& words);

}  // namespace moetron
