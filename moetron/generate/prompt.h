// What goes into a model for a text, and what ends its answer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace moetron {

class Tokenizer;

// The lines of a prompt file that are not empty, without a byte order mark and carriage returns at
// their ends. Throws InputError where the file cannot be read, ConfigError where it holds no
// prompt.
std::vector<std::string> read_prompts(const std::filesystem::path& path);

// With what the tokenizer's post-processor puts around a text, but not a second time where the text
// says it itself.
std::vector<int32_t> prompt_tokens(const Tokenizer& tokenizer, const std::string& prompt);

// The tokens that end a text of the model in `folder`: eos_token_id of generation_config.json, else
// of config.json, as in transformers; where both are silent the tokenizer's. Throws InputError for
// what is neither an integer nor a list of some.
std::vector<int32_t> end_tokens(const std::filesystem::path& folder, const Tokenizer& tokenizer);

}  // namespace moetron
