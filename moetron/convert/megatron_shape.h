// The model that Megatron's arguments describe, as --use-checkpoint-args takes it from them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "moetron/arch/model_config.h"
#include "moetron/formats/torch_file.h"

namespace moetron {

// From the "args" of a checkpoint's file. Nothing where it has none, or none that tell the numbers
// of layers, of heads and of hidden units. `vocab_size`: where it is not given and the arguments
// have none, the padded one. InputError, naming file and argument, for a model that no family of
// ours is.
std::optional<ModelConfig> model_from_args(const TorchFile& file,
                                           std::optional<int64_t> vocab_size = {});

// The same of a folder of either of Megatron's formats, of the iteration `step` of it.
std::optional<ModelConfig> model_from_args(const std::filesystem::path& folder,
                                           std::optional<int64_t> vocab_size = {},
                                           std::optional<int64_t> step = {});

}  // namespace moetron
