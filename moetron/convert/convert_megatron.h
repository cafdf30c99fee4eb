// moetron convert: checkpoints of Megatron from other models, and other models from them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moetron/convert/convert_model.h"
#include "moetron/convert/megatron_layout.h"

namespace moetron {

// A checkpoint of Megatron, in either of its formats. config.json and the tokenizer's files lie in
// `config_folder`; where that is empty, in `load` itself, where write_megatron_model() puts them.
// Where no config.json is there, either, Megatron's own arguments tell the model. InputError as
// MegatronSource and TorchDistSource, and where nothing tells.
LoadedModel open_megatron_model(const std::filesystem::path& load,
                                const std::filesystem::path& config_folder);

struct MegatronConvertReport : ConvertReport {
  std::vector<std::string> left_out;  // tensors that Megatron's model has no place for
};

// Writes the model in a layout, and its config.json and tokenizer beside the shards. Weights in 8
// bits become bf16, unless another type is asked for; ConfigError for fp8 itself. InputError and
// ConfigError as write_megatron().
MegatronConvertReport write_megatron_model(const ModelContent& content,
                                           const MegatronLayout& layout,
                                           const std::filesystem::path& save,
                                           const ConvertSettings& settings);

}  // namespace moetron
