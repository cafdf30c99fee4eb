#define PCRE2_CODE_UNIT_WIDTH 8
#include "moetron/tokenizer/pattern.h"

#include <array>
#include <pcre2.h>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron {
namespace {

// Generous for words (a step is a character or so), and a second at most for what explodes.
constexpr uint32_t kMatchLimit = 20'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;

struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
using MatchData = std::unique_ptr<pcre2_match_data, MatchDataDeleter>;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

struct Pattern::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* limits = nullptr;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
  }
};

Pattern::Pattern(std::string_view pattern, bool is_literal, std::string file)
    : file_(std::move(file)), pattern_(pattern), is_literal_(is_literal) {
  const std::string translated = is_literal ? pattern_ : translate_pattern(pattern, file_);
  const uint32_t options = PCRE2_UTF | (is_literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
  auto code = std::make_shared<Code>();
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             options, &error, &offset, context.get());
  MT_CHECK_INPUT(code->code != nullptr, file_, ": the pre-tokenizer pattern ", pattern_,
                 " is not supported: ", error_text(error));
  code->limits = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code->limits, kMatchLimit);
  pcre2_set_heap_limit(code->limits, kHeapLimitKib);
  code_ = std::move(code);
}

void Pattern::find_all(std::string_view text, std::vector<TextSpan>& matches) const {
  const MatchData data(pcre2_match_data_create(1, nullptr));
  MT_CHECK(data != nullptr, "out of memory");
  size_t from = 0;
  size_t last_end = SIZE_MAX;  // of the match before
  while (from <= text.size()) {
    const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                                  text.size(), from, PCRE2_NO_UTF_CHECK, data.get(), code_->limits);
    if (found == PCRE2_ERROR_NOMATCH) return;
    MT_CHECK_INPUT(found >= 0, file_, ": the pre-tokenizer pattern ", pattern_,
                   " fails on a text of ", text.size(), " bytes: ", error_text(found));
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    const TextSpan match{ends[0], ends[1]};
    MT_CHECK_INPUT(match.begin <= match.end, file_, ": the pre-tokenizer pattern ", pattern_,
                   " ends before it begins");
    if (match.begin == match.end && match.end == last_end) {
      from += match.end < text.size() ? decode_utf8(text.data() + match.end).length : 1;
      continue;
    }
    matches.push_back(match);
    from = last_end = match.end;
  }
}

}  // namespace moetron
