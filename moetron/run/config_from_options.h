// The model that Megatron's options describe, and whether options agree with a config.json.
#pragma once

#include "moetron/arch/model_config.h"
#include "moetron/config/options.h"

namespace moetron {

// A fresh model from options alone. The caller fills options.model.vocab_size from the tokenizer
// where the user gave none. Options left out take the family's own value (Llama's epsilon is 1e-5,
// ...) where the family has one, else Megatron's default. dtype is float32
// under --fp32, else bfloat16. Throws ConfigError.
ModelConfig model_config_from_options(const Options& options);

// What the options look like, where model-family is not given. Throws ConfigError where the
// options of latent attention contradict each other.
ModelFamily guessed_family(const Options& options);

// Takes those options out that contradict the model that is loaded, and returns what counts instead
// of them: "num-layers 3 (not 9), hidden-size 64 (not 32)"; empty: none does.
std::string overrule_options(const ModelConfig& config, Options& options);

// Throws ConfigError if an option that was given contradicts the model that is
// loaded; the message names `config_file`.
void check_options_match(const ModelConfig& config, const Options& options,
                         const std::string& config_file);

// Settings of training, not of shape: weight and kind of the aux loss where the weight is
// given, and the rate of the expert bias. They apply to a loaded model too.
void apply_training_options(const Options& options, ModelConfig& config);

}  // namespace moetron
