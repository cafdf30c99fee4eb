// adapter_config.json of a PEFT adapter (LoRA).
#pragma once

#include <string>

#include "moetron/arch/lora.h"
#include "moetron/base/json.h"

namespace moetron {

inline constexpr char kAdapterConfigFile[] = "adapter_config.json";
inline constexpr char kAdapterFile[] = "adapter_model.safetensors";

struct AdapterConfig {
  LoraConfig lora;
  std::string base;  // where its model is: base_model_name_or_path
};

// transformers 5 holds routed experts as stacked parameters, which PEFT updates as
// target_parameters. Of a model with experts the modules of its MLPs are target_parameters, too,
// "down_proj.weight": PEFT takes their names in target_modules for the experts', as they were in
// transformers 4.
Json write_adapter_config(const AdapterConfig& adapter, const ModelConfig& model);

// `file` opens every message. InputError for what is no LoRA of linear layers with one rank and one
// alpha, and without dropout: for what would be another model here.
AdapterConfig read_adapter_config(const Json& json, const ModelConfig& model,
                                  const std::string& file);

// base_model_name_or_path alone.
std::string read_adapter_base(const Json& json, const std::string& file);

}  // namespace moetron
