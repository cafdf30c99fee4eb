// The parts of a tokenizer.json that come before and behind the model. Each throws InputError,
// naming the place in the file, where it is not what the `tokenizers` library would take or Moetron
// does not do it in the same way.
#pragma once

#include <optional>
#include <string>

#include "moetron/tokenizer/json_reader.h"
#include "moetron/tokenizer/tokenizer_file.h"

namespace moetron {

// `name` is the file's, for messages about patterns.
void read_normalizer(const JsonReader& reader, const std::string& name, Normalizer& normalizer);
void read_pre_tokenizer(const std::optional<JsonReader>& reader, const std::string& name,
                        TokenizerFile& file);
// After the pre-tokenizer.
void read_decoder(const std::optional<JsonReader>& reader, const std::string& name,
                  TokenizerFile& file);

}  // namespace moetron
