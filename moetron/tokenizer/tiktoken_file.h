// Vocabularies of the tiktoken library: a line for each token, its bytes in base 64 and its rank,
// which is its id.
#pragma once

#include <string>
#include <string_view>

#include "moetron/tokenizer/tokenizer_file.h"

namespace moetron {

// Whether a file begins as one, and not as another kind of model.
bool is_tiktoken(std::string_view text);

// The file says nothing of how text is cut or which tokens are special: its name does
// (qwen.tiktoken, cl100k_base.tiktoken, o200k_base.tiktoken, p50k_base.tiktoken,
// r50k_base.tiktoken; tiktoken.model is Kimi's; tokenizer.model is Llama-3's). Tokens that a
// tokenizer_config.json beside it numbers come besides. Throws InputError.
TokenizerFile parse_tiktoken_file(std::string_view text, const std::string& name);

}  // namespace moetron
