#define PCRE2_CODE_UNIT_WIDTH 8
#include "moetron/tokenizer/pattern.h"

#include <array>
#include <pcre2.h>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/tokenizer/pattern_parser.h"
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
  CharKinds kinds;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
  }

  int match(std::string_view text, size_t from, pcre2_match_data* data) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    const int found = pcre2_match(code, subject, text.size(), from, 0, data, limits);
    if (found != PCRE2_ERROR_JIT_STACKLIMIT) return found;
    return pcre2_match(code, subject, text.size(), from, PCRE2_NO_JIT, data, limits);
  }
};

Pattern::Pattern(std::string_view pattern, bool is_literal, std::string file)
    : file_(std::move(file)), pattern_(pattern), is_literal_(is_literal && !pattern.empty()) {
  if (is_literal_) return;
  auto code = std::make_shared<Code>();
  ParsedPattern parsed = parse_pattern(pattern, file_);
  code->kinds = std::move(parsed.kinds);
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(parsed.code.data()), parsed.code.size(),
                             PCRE2_MULTILINE | PCRE2_NEVER_UTF, &error, &offset, context.get());
  MT_CHECK_INPUT(code->code != nullptr, file_, ": the pattern ", pattern_,
                 " is not supported: ", error_text(error));
  // Where memory may not be executed, or there is no compiler for the machine, it is interpreted.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  code->limits = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code->limits, kMatchLimit);
  pcre2_set_heap_limit(code->limits, kHeapLimitKib);
  code_ = std::move(code);
}

void Pattern::find_all(std::string_view text, std::vector<TextSpan>& matches) const {
  if (is_literal_) {
    for (size_t at = 0; (at = text.find(pattern_, at)) != text.npos; at += pattern_.size())
      matches.push_back({at, at + pattern_.size()});
    return;
  }
  const MatchData data(pcre2_match_data_create(1, nullptr));
  MT_CHECK(data != nullptr, "out of memory");
  std::string kinds;
  code_->kinds.read(text, kinds);
  const bool has_long_characters = kinds.size() < text.size();
  TextSpan at{0, 0};  // the character that was come to, and its byte
  const auto byte_of = [&](size_t character) {
    if (!has_long_characters) return character;
    for (; at.begin < character; ++at.begin) at.end += decode_utf8(text.data() + at.end).length;
    return at.end;
  };
  size_t from = 0;
  size_t last_end = SIZE_MAX;  // of the match before
  while (from <= kinds.size()) {
    const int found = code_->match(kinds, from, data.get());
    if (found == PCRE2_ERROR_NOMATCH) return;
    MT_CHECK_INPUT(found >= 0, file_, ": the pattern ", pattern_, " fails on a text of ",
                   text.size(), " bytes: ", error_text(found));
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    if (ends[0] == ends[1] && ends[1] == last_end) {
      ++from;
      continue;
    }
    const size_t begin = byte_of(ends[0]);
    matches.push_back({begin, byte_of(ends[1])});
    from = last_end = ends[1];
  }
}

}  // namespace moetron
