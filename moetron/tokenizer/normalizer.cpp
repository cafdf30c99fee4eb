#include "moetron/tokenizer/normalizer.h"

#include <algorithm>

#include <utf8proc.h>

#include "moetron/tokenizer/byte_alphabet.h"
#include "moetron/tokenizer/char_set.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

constexpr char32_t kDottedI = 0x130;  // the one character whose lower case is two

char32_t lower_case(char32_t c) {
  const std::span<const CasePair> later = later_lower_case();
  const auto found = std::ranges::lower_bound(later, c, {}, &CasePair::upper);
  if (found != later.end() && found->upper == c) return found->lower;
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

bool is_space_at(const char* p) {
  return (char_bits_table()[decode_utf8(p).value] & kSpace) != 0;
}

// Writes what becomes of a text; false, and nothing written, if it stays as it is.
class StepRun {
 public:
  StepRun(std::string_view text, bool continues, Rewriter& out, bool& lost_front)
      : text_(text), continues_(continues), out_(out), lost_front_(lost_front) {}

  bool operator()(NormalForm form) { return write_normal_form(form, text_, out_); }

  bool operator()(const LowercaseStep&) {
    for (size_t i = 0; i < text_.size();) {
      const Character c = decode_utf8(text_.data() + i);
      std::string small;
      append_utf8(c.value == kDottedI ? U'i' : lower_case(c.value), small);
      if (c.value == kDottedI) append_utf8(0x307, small);
      i += c.length;
      out_.put(small, i);
    }
    return true;
  }

  bool operator()(const ReplaceStep& step) {
    std::vector<TextSpan> matches;
    step.pattern.find_all(text_, matches);
    if (matches.empty()) return false;
    size_t copied = 0;
    for (const TextSpan& match : matches) {
      copy(copied, match.begin);
      out_.put(step.content, match.end);
      lost_front_ |= match.begin == 0 && match.end > 0 && step.content.empty();
      copied = match.end;
    }
    copy(copied, text_.size());
    return true;
  }

  bool operator()(const StripStep& step) {
    size_t begin = 0;
    size_t end = text_.size();
    if (step.left)
      while (begin < end && is_space_at(text_.data() + begin))
        begin += decode_utf8(text_.data() + begin).length;
    if (step.right) {
      while (end > begin) {
        const Character c = decode_utf8_before(text_.data() + end);
        if ((char_bits_table()[c.value] & kSpace) == 0) break;
        end -= c.length;
      }
    }
    if (begin == 0 && end == text_.size()) return false;
    lost_front_ |= begin > 0;
    copy(begin, end);
    return true;
  }

  bool operator()(const PrependStep& step) {
    if (text_.empty() || continues_) return false;
    out_.put(step.text, 0);
    copy(0, text_.size());
    return true;
  }

  bool operator()(const ByteAlphabetStep&) {
    for (size_t i = 0; i < text_.size(); ++i)
      out_.put(alphabet_character(static_cast<uint8_t>(text_[i])), i + 1);
    return true;
  }

 private:
  void copy(size_t begin, size_t end) { out_.copy(text_.substr(begin, end - begin), begin); }

  std::string_view text_;
  bool continues_;
  Rewriter& out_;
  bool& lost_front_;
};

}  // namespace

void Normalizer::normalize(std::string_view text, bool with_ends, bool continues,
                           NormalizedText& result) const {
  result.text = text;
  result.ends.clear();
  result.lost_front = false;
  size_t buffer = 0;
  std::vector<size_t> ends;
  for (const NormalizerStep& step : steps_) {
    Rewriter out(result.buffers[buffer], with_ends ? &ends : nullptr);
    if (!std::visit(StepRun(result.text, continues, out, result.lost_front), step)) continue;
    result.text = result.buffers[buffer];
    buffer = 1 - buffer;
    if (!with_ends) continue;
    if (!result.ends.empty())
      for (size_t& end : ends) end = result.ends[end];
    result.ends.swap(ends);
  }
}

std::string Normalizer::normalized(std::string_view text) const {
  NormalizedText result;
  normalize(text, false, false, result);
  return std::string(result.text);
}

}  // namespace moetron
