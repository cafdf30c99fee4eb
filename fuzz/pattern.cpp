// A pattern of a pre-tokenizer, and behind a line feed the text that it is looked for in.
#include "moetron/tokenizer/pattern.h"

#include "fuzz/fuzz_folder.h"
#include "moetron/tokenizer/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  const std::string input = replace_invalid_utf8(text_of(data, size));
  const std::string_view line = std::string_view(input).substr(0, input.find('\n'));
  const std::string_view text = std::string_view(input).substr(line.size());
  return read_or_refuse([&] {
    std::vector<TextSpan> matches;
    Pattern(line, false, "input").find_all(text, matches);
    size_t end = 0;
    for (const TextSpan& match : matches) {
      if (match.begin < end || match.end < match.begin || match.end > text.size()) std::abort();
      end = match.end;
    }
  });
}
