// What must hold between the numbers of a model, wherever they came from.
#pragma once

#include <cstdint>

#include "moetron/arch/model_config.h"
#include "moetron/base/mistakes.h"

namespace moetron {

// Bounds that no model nears and that keep every count of elements and bytes within 64 bits.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxWidth = int64_t{1} << 18;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxExperts = 65536;
constexpr int64_t kMaxSharedExperts = 1024;
constexpr int64_t kMaxVocabulary = int64_t{1} << 28;
constexpr int64_t kMaxPositions = int64_t{1} << 40;
constexpr double kMinNormEps = 1e-30;
constexpr double kMinTheta = 1.000001;
constexpr double kMaxTheta = 1e12;
constexpr double kMaxRopeFactor = 1e6;
constexpr double kMinRoutedScaling = 1e-6;
constexpr double kMaxRoutedScaling = 1e6;
constexpr double kMaxAuxLossCoeff = 1e3;

// How the place that a model came from spells the fields that a message names.
struct FieldNames {
  const char* hidden_size;
  const char* num_layers;
  const char* num_attention_heads;
  const char* num_key_value_heads;
  const char* head_dim;
  const char* intermediate_size;
  const char* qk_rope_head_dim;
  const char* num_experts;
  const char* top_k;
  const char* num_groups;
  const char* group_topk;
};

FieldNames config_json_names(ModelConfig::Family family);
FieldNames option_names();

// A sentence with names and values for each.
Mistakes contradictions(const ModelConfig& config, const FieldNames& names);

}  // namespace moetron
