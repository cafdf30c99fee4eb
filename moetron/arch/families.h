// What each family of models is by itself: its names, and what its transformers class has where
// config.json says nothing.
#pragma once

#include <cstdint>
#include <span>

#include "moetron/arch/model_config.h"
#include "moetron/config/choices.h"

namespace moetron {

struct FamilyTraits {
  ModelConfig::Family family;
  const char* model_type;  // of config.json
  const char* class_name;  // of transformers, but for kMoetron
  // What --model-family calls it, and whose builder makes its layers (models/family.h).
  ModelFamily kind;

  int64_t default_positions;   // max_position_embeddings
  int64_t default_head_dim;    // 0: hidden_size / num_attention_heads, which must divide
  bool needs_key_value_heads;  // its class's default fits few models: the key must be there
  bool attention_bias;         // of q_proj, k_proj, v_proj; config.json says it of kMoetron
  bool qk_norm;                // the same
  bool heads_divide_width;     // transformers refuses other widths, head_dim written out or not
  bool needs_null_window;      // its class attends in a window unless sliding_window is null
};

std::span<const FamilyTraits> all_families();
const FamilyTraits& traits_of(ModelConfig::Family family);

}  // namespace moetron
