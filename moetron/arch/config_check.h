// What must hold between the numbers of a model, wherever they came from.
#pragma once

#include <optional>
#include <string>

#include "moetron/arch/model_config.h"

namespace moetron {

// How the place that a model came from spells the fields that a message names.
struct FieldNames {
  const char* hidden_size;
  const char* num_layers;
  const char* num_attention_heads;
  const char* num_key_value_heads;
  const char* head_dim;
  const char* qk_rope_head_dim;
  const char* num_experts;
  const char* top_k;
  const char* num_groups;
  const char* group_topk;
};

FieldNames config_json_names(ModelConfig::Family family);
FieldNames option_names();

// The first contradiction as one sentence with names and values, or nothing.
std::optional<std::string> find_contradiction(const ModelConfig& config, const FieldNames& names);

}  // namespace moetron
