// Reading a Hugging Face config.json of a supported family. All spellings of transformers 4 and 5
// and of DeepSeek's own files are accepted; a missing key that is no part of the shape takes the
// default of its transformers class. What the file says and Moetron cannot train is refused.
#pragma once

#include <filesystem>
#include <string>

#include "moetron/arch/model_config.h"

namespace moetron {

// `file_name` opens every message. Throws InputError, one sentence with file, key and values.
ModelConfig read_model_config(const Json& json, const std::string& file_name);

// Reads FOLDER/config.json.
ModelConfig read_model_config(const std::filesystem::path& folder);

// Used by read_model_config: rope_theta with rope_scaling (transformers 4) or rope_parameters
// (transformers 5). `dim` is how many entries of a head turn.
class JsonFields;
RopeConfig read_rope_config(const JsonFields& config, int64_t dim, int64_t max_position_embeddings);

}  // namespace moetron
