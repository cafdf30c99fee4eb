// What the files beside a tokenizer.json add to it: tokenizer_config.json and, of older releases,
// special_tokens_map.json and added_tokens.json, as AutoTokenizer of transformers 5 reads them.
// add_bos_token and add_eos_token mean nothing beside a tokenizer.json, whose post-processor says
// what is added; other files have none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "moetron/tokenizer/added_tokens.h"
#include "moetron/tokenizer/tokenizer_file.h"

namespace moetron {

struct TokenizerConfig {
  struct Token {
    AddedToken token;           // its id is not set
    std::optional<int64_t> id;  // that the file says it has
    bool has_flags = false;     // else the flags of the tokenizer.json count, if it has it
    std::string place;          // "FOLDER/tokenizer_config.json: pad_token"
  };
  std::vector<Token> tokens;  // in the order in which those that are missing get their ids
  std::optional<std::string> bos;
  std::optional<std::string> eos;
  bool adds_bos = false;
  bool adds_eos = false;
  // Contents of the tokens that have a name, by that: bos_token, image_token, ...
  std::map<std::string, std::string> named;
};

// Nothing where there are no such files. Throws InputError with the file and the key.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

// Adds the tokens that `file` lacks, with the next ids, and takes over what the config says of
// those that it has. Throws InputError where both give one token two ids.
void add_config_tokens(const TokenizerConfig& config, TokenizerFile& file);

}  // namespace moetron
