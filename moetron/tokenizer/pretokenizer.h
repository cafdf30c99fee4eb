// Cuts text into the pieces that BPE works on, by the stages of a tokenizer.json: each stage cuts
// or rewrites every piece of the stage before it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "moetron/tokenizer/char_set.h"
#include "moetron/tokenizer/pattern.h"
#include "moetron/tokenizer/token_places.h"
#include "moetron/tokenizer/word_batch.h"
#include "moetron/tokenizer/word_matcher.h"

namespace moetron {

// Single characters of a set.
class CharMatcher {
 public:
  explicit CharMatcher(const CharSet& set);
  void find_all(std::string_view text, std::vector<TextSpan>& matches) const;

 private:
  std::shared_ptr<const std::vector<bool>> contains_;  // by code point
};

// What becomes of a match, in the terms of the library.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStage {
  std::variant<Pattern, CharMatcher> matcher;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool is_inverted = false;  // matches are the gaps, and gaps the matches
};

struct FixedLengthStage {
  size_t length;  // characters
};

// A space in front of every piece that does not begin with one.
struct PrefixSpaceStage {};

// Spaces become another character, which is put in front of a piece too; cut in front of each.
struct MetaspaceStage {
  enum class Prepend { kAlways, kFirst, kNever };
  std::string replacement;
  Prepend prepend = Prepend::kAlways;
  bool splits = true;
};

// Every byte as a character of the byte alphabet (byte_alphabet.h), where other stages follow.
struct ByteAlphabetStage {};

// In front of `mark` where it follows something else. Added where no merge crosses such a place, so
// that words are met again.
struct MarkStage {
  std::string mark;
};

using PreTokenizerStage = std::variant<WordMatcher, SplitStage, FixedLengthStage, PrefixSpaceStage,
                                       MetaspaceStage, ByteAlphabetStage, MarkStage>;

// What stages know of the text around a piece.
struct PieceContext {
  const char* first = nullptr;  // the piece that begins here begins the whole text
  const char* continued =
      nullptr;                    // one that begins here continues text, and gets nothing in front
  TokenPlaces* places = nullptr;  // is told of rewritten pieces
};

// Appends the pieces of valid UTF-8 text to `words`, in order; none is empty. They lie in the text,
// but for those that were rewritten, which are flushed before the call returns.
void pre_tokenize(std::span<const PreTokenizerStage> stages, std::string_view text,
                  PieceContext context, WordBatch& words);

}  // namespace moetron
