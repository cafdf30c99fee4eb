// Files of tokenizers: the first byte says of which kind.
#include "moetron/tokenizer/tokenizer.h"

#include <array>

#include "fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  constexpr std::array<const char*, 5> kNames{"tokenizer.json", "qwen.tiktoken", "tiktoken.model",
                                              "tokenizer.model", "tokenizer.json"};
  if (size == 0) return 0;
  const std::string_view file = text_of(data + 1, size - 1);
  const std::filesystem::path path = write_input(kNames[data[0] % kNames.size()], file);
  return read_or_refuse([&] {
    const auto tokenizer = Tokenizer::load(path);
    const std::string_view text = "<s> abc--12 e\xCC\x81 \xC3\xA9\xE4\xB8\xAD!?x \n";
    const std::array<TextPiece, 2> pieces{{{5, false}, {text.size(), true}}};
    const PlacedTokens placed = tokenizer->encode_pieces(text, pieces);
    if (placed.ids.size() != placed.ends.size()) std::abort();
    for (size_t i = 0; i < placed.ends.size(); ++i)
      if (placed.ends[i] > text.size()) std::abort();
    tokenizer->decode(tokenizer->encode(file, true), true);
  });
}
