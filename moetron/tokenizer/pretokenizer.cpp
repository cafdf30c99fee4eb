#include "moetron/tokenizer/pretokenizer.h"

#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

// Cuts one piece into scratch.next_pieces.
class StageRun {
 public:
  StageRun(std::string_view piece, PreTokenizerScratch& scratch)
      : piece_(piece), scratch_(scratch) {}

  void operator()(WordMatcher matcher) const { split_words(matcher, piece_, scratch_.next_pieces); }

  void operator()(const DigitStage& stage) const {
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

  void operator()(const PatternStage& stage) const {
    scratch_.matches.clear();
    stage.pattern.find_all(piece_, scratch_.matches);
    size_t gap = 0;
    for (const TextSpan& match : scratch_.matches) {
      if (stage.keeps_gaps) add(gap, match.begin);
      if (stage.keeps_matches) add(match.begin, match.end);
      gap = match.end;
    }
    if (stage.keeps_gaps) add(gap, piece_.size());
  }

  void operator()(const PrefixSpaceStage&) const {
    if (piece_.starts_with(' ')) return add(0, piece_.size());
    scratch_.next_pieces.push_back(scratch_.prefixed.emplace_back(" ").append(piece_));
  }

 private:
  void add(size_t begin, size_t end) const {
    if (begin < end) scratch_.next_pieces.push_back(piece_.substr(begin, end - begin));
  }

  std::string_view piece_;
  PreTokenizerScratch& scratch_;
};

}  // namespace

void pre_tokenize(const std::vector<PreTokenizerStage>& stages, std::string_view text,
                  PreTokenizerScratch& scratch) {
  scratch.prefixed.clear();
  scratch.pieces.assign(1, text);
  for (const PreTokenizerStage& stage : stages) {
    scratch.next_pieces.clear();
    for (const std::string_view piece : scratch.pieces) {
      std::visit(StageRun(piece, scratch), stage);
    }
    scratch.pieces.swap(scratch.next_pieces);
  }
}

}  // namespace moetron
