#include "moetron/tokenizer/pretokenizer.h"

#include <algorithm>

#include "moetron/tokenizer/byte_alphabet.h"
#include "moetron/tokenizer/rewriter.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

struct Span {
  TextSpan place;
  bool is_match;
};

// Matches and the gaps between them; neither need be empty.
std::vector<Span> with_gaps(std::span<const TextSpan> matches, size_t size, bool is_inverted) {
  std::vector<Span> spans;
  size_t end = 0;
  for (const TextSpan& match : matches) {
    if (end != match.begin) spans.push_back({{end, match.begin}, is_inverted});
    spans.push_back({match, !is_inverted});
    end = match.end;
  }
  if (end != size) spans.push_back({{end, size}, is_inverted});
  return spans;
}

// As the library merges: a match that follows no match goes to what is before it.
std::vector<Span> merge_back(std::span<const Span> spans, bool is_contiguous) {
  std::vector<Span> merged;
  bool was_match = false;
  for (const Span& span : spans) {
    const bool joins = is_contiguous ? span.is_match == was_match : span.is_match && !was_match;
    if (joins && !merged.empty()) {
      merged.back().place = {std::min(merged.back().place.begin, span.place.begin),
                             std::max(merged.back().place.end, span.place.end)};
    } else {
      merged.push_back(span);
    }
    was_match = span.is_match;
  }
  return merged;
}

std::vector<Span> behave(std::vector<Span> spans, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      std::erase_if(spans, [](const Span& span) { return span.is_match; });
      return spans;
    case SplitBehavior::kIsolated:
      return spans;
    case SplitBehavior::kMergedWithPrevious:
      return merge_back(spans, false);
    case SplitBehavior::kContiguous:
      return merge_back(spans, true);
    case SplitBehavior::kMergedWithNext:
      break;
  }
  std::ranges::reverse(spans);
  spans = merge_back(spans, false);
  std::ranges::reverse(spans);
  return spans;
}

// Cuts one piece by a stage, and what comes of it by the stages that follow.
class StageRun : WordConsumer {
 public:
  StageRun(std::string_view piece, std::span<const PreTokenizerStage> rest, PieceContext context,
           WordBatch& words)
      : piece_(piece), rest_(rest), context_(context), words_(words) {}

  void operator()(WordMatcher matcher) {
    if (rest_.empty()) return split_words(matcher, piece_, words_);
    WordBatch pieces(*this);
    split_words(matcher, piece_, pieces);
    pieces.flush();
  }

  void operator()(const SplitStage& stage) {
    std::vector<TextSpan> matches;
    std::visit([&](const auto& matcher) { matcher.find_all(piece_, matches); }, stage.matcher);
    if (stage.behavior == SplitBehavior::kIsolated) {  // most are
      size_t gap = 0;
      for (const TextSpan& match : matches) {
        add(gap, match.begin);
        add(match.begin, match.end);
        gap = match.end;
      }
      return add(gap, piece_.size());
    }
    std::vector<Span> spans = with_gaps(matches, piece_.size(), stage.is_inverted);
    for (const Span& span : behave(std::move(spans), stage.behavior))
      add(span.place.begin, span.place.end);
  }

  void operator()(const FixedLengthStage& stage) {
    size_t begin = 0;
    size_t length = 0;
    for (size_t i = 0; i < piece_.size(); ++length) {
      if (length == stage.length) {
        add(begin, i);
        begin = i;
        length = 0;
      }
      i += decode_utf8(piece_.data() + i).length;
    }
    add(begin, piece_.size());
  }

  void operator()(const PrefixSpaceStage&) {
    if (piece_.starts_with(' ') || is_continued()) return add(0, piece_.size());
    std::string copy;
    Copy made(copy, context_.places);
    made.out.put(" ", 0);
    made.out.copy(piece_, 0);
    add_copy(copy, std::move(made.ends));
  }

  void operator()(const MetaspaceStage& stage) {
    using Prepend = MetaspaceStage::Prepend;
    std::string copy;
    Copy made(copy, context_.places);
    const bool may_prepend = !is_continued() && (stage.prepend == Prepend::kAlways ||
                                                 (stage.prepend == Prepend::kFirst && is_first()));
    if (may_prepend && !piece_.starts_with(' ') && !piece_.starts_with(stage.replacement))
      made.out.put(stage.replacement, 0);
    size_t begin = 0;
    for (size_t end = 0; (end = piece_.find(' ', begin)) != piece_.npos; begin = end + 1) {
      made.out.copy(piece_.substr(begin, end - begin), begin);
      made.out.put(stage.replacement, end + 1);
    }
    made.out.copy(piece_.substr(begin), begin);
    if (!stage.splits) return add_copy(copy, std::move(made.ends));
    begin_copy(copy, std::move(made.ends));
    const std::string_view text = copy;
    for (size_t cut = 0; cut < text.size();) {
      const size_t next = std::min(text.find(stage.replacement, cut + 1), text.size());
      pre_tokenize(rest_, text.substr(cut, next - cut), context_, words_);
      cut = next;
    }
    end_copy();
  }

  void operator()(const ByteAlphabetStage&) {
    std::string copy;
    Copy made(copy, context_.places);
    for (size_t i = 0; i < piece_.size(); ++i)
      made.out.put(alphabet_character(static_cast<uint8_t>(piece_[i])), i + 1);
    add_copy(copy, std::move(made.ends));
  }

  void operator()(const MarkStage& stage) {
    size_t begin = 0;
    size_t behind = 0;  // the last mark
    for (size_t at = 0; (at = piece_.find(stage.mark, behind)) != piece_.npos;) {
      if (at > behind) {
        add(begin, at);
        begin = at;
      }
      behind = at + stage.mark.size();
    }
    add(begin, piece_.size());
  }

 private:
  // Of a piece that is rewritten.
  struct Copy {
    Copy(std::string& text, const TokenPlaces* places)
        : out(text, places != nullptr ? &ends : nullptr) {}
    std::vector<size_t> ends;
    Rewriter out;
  };

  void take(std::span<const std::string_view> pieces) override {
    for (const std::string_view piece : pieces) pre_tokenize(rest_, piece, context_, words_);
  }

  bool is_first() const { return piece_.data() == context_.first; }
  bool is_continued() const { return piece_.data() == context_.continued; }

  void add(size_t begin, size_t end) {
    if (begin < end) pre_tokenize(rest_, piece_.substr(begin, end - begin), context_, words_);
  }

  // Words of the piece's text go before those of its copy, whose memory ends with it.
  void begin_copy(std::string_view copy, std::vector<size_t> ends) {
    words_.flush();
    if (is_first()) context_.first = copy.data();
    if (is_continued()) context_.continued = copy.data();
    if (context_.places != nullptr) context_.places->begin_copy(piece_, copy, std::move(ends));
  }
  void end_copy() {
    words_.flush();
    if (context_.places != nullptr) context_.places->end_copy();
  }
  void add_copy(std::string_view copy, std::vector<size_t> ends) {
    begin_copy(copy, std::move(ends));
    pre_tokenize(rest_, copy, context_, words_);
    end_copy();
  }

  std::string_view piece_;
  std::span<const PreTokenizerStage> rest_;
  PieceContext context_;
  WordBatch& words_;
};

}  // namespace

CharMatcher::CharMatcher(const CharSet& set) {
  auto contains = std::make_shared<std::vector<bool>>(kNumCodePoints);
  for (const CodeRange& range : set.ranges())
    std::fill(contains->begin() + range.first, contains->begin() + range.last + 1, true);
  contains_ = std::move(contains);
}

void CharMatcher::find_all(std::string_view text, std::vector<TextSpan>& matches) const {
  for (size_t i = 0; i < text.size();) {
    const Character c = decode_utf8(text.data() + i);
    if ((*contains_)[c.value]) matches.push_back({i, i + c.length});
    i += c.length;
  }
}

void pre_tokenize(std::span<const PreTokenizerStage> stages, std::string_view text,
                  PieceContext context, WordBatch& words) {
  if (text.empty()) return;
  if (stages.empty()) return words.add(text);
  std::visit(StageRun(text, stages.subspan(1), context, words), stages[0]);
}

}  // namespace moetron
