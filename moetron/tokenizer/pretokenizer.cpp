#include "moetron/tokenizer/pretokenizer.h"

#include <string>
#include <vector>

#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

// Cuts one piece by a stage, and what comes of it by the stages that follow.
class StageRun : WordConsumer {
 public:
  StageRun(std::string_view piece, std::span<const PreTokenizerStage> rest, WordBatch& words)
      : piece_(piece), rest_(rest), words_(words) {}

  void operator()(WordMatcher matcher) {
    if (rest_.empty()) return split_words(matcher, piece_, words_);
    WordBatch pieces(*this);
    split_words(matcher, piece_, pieces);
    pieces.flush();
  }

  void operator()(const DigitStage& stage) {
    const std::vector<uint8_t>& bits = char_bits_table();
    size_t begin = 0;
    bool was_number = false;
    for (size_t i = 0; i < piece_.size();) {
      const Character c = decode_utf8(piece_.data() + i);
      const bool is_number = (bits[c.value] & kNumber) != 0;
      if (is_number != was_number || (is_number && stage.individual)) {
        add(begin, i);
        begin = i;
      }
      was_number = is_number;
      i += c.length;
    }
    add(begin, piece_.size());
  }

  void operator()(const PatternStage& stage) {
    std::vector<TextSpan> matches;
    stage.pattern.find_all(piece_, matches);
    size_t gap = 0;
    for (const TextSpan& match : matches) {
      if (stage.keeps_gaps) add(gap, match.begin);
      if (stage.keeps_matches) add(match.begin, match.end);
      gap = match.end;
    }
    if (stage.keeps_gaps) add(gap, piece_.size());
  }

  void operator()(const PrefixSpaceStage&) {
    if (piece_.starts_with(' ')) return add(0, piece_.size());
    const std::string prefixed = std::string(" ").append(piece_);
    pre_tokenize(rest_, prefixed, words_);
    words_.flush();
  }

 private:
  void take(std::span<const std::string_view> pieces) override {
    for (const std::string_view piece : pieces) pre_tokenize(rest_, piece, words_);
  }

  void add(size_t begin, size_t end) {
    if (begin < end) pre_tokenize(rest_, piece_.substr(begin, end - begin), words_);
  }

  std::string_view piece_;
  std::span<const PreTokenizerStage> rest_;
  WordBatch& words_;
};

}  // namespace

void pre_tokenize(std::span<const PreTokenizerStage> stages, std::string_view text,
                  WordBatch& words) {
  if (text.empty()) return;
  if (stages.empty()) return words.add(text);
  std::visit(StageRun(text, stages.subspan(1), words), stages[0]);
}

}  // namespace moetron
