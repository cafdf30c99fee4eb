// A tokenizer.json as plain data, checked: https://github.com/huggingface/tokenizers, "type" for
// "type". What Moetron does not do in the same way as that library is refused here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moetron/tokenizer/added_tokens.h"
#include "moetron/tokenizer/pretokenizer.h"

namespace moetron {

// Ids are below this. The largest vocabularies today have 2^18; the tables grow with the ids.
constexpr int64_t kMaxTokens = int64_t{1} << 21;

struct TokenizerFile {
  std::vector<std::pair<std::string, int32_t>> vocab;  // in the byte alphabet (byte_alphabet.h)
  std::vector<std::pair<std::string, std::string>> merges;  // in order of rank
  bool ignore_merges = false;  // a piece that is a token is taken whole
  std::vector<AddedToken> added_tokens;
  bool normalizes_nfc = false;
  std::vector<PreTokenizerStage> stages;
  // What the post-processor puts around one text.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};

// `name` is the file's, for messages. Throws InputError.
TokenizerFile parse_tokenizer_file(std::string_view text, const std::string& name);

}  // namespace moetron
