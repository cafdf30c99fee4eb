#include "moetron/arch/families.h"

#include "moetron/base/error.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;

constexpr FamilyTraits kFamilies[] = {
    {.family = Family::kDeepseekV2,
     .model_type = "deepseek_v2",
     .class_name = "DeepseekV2ForCausalLM",
     .kind = ModelFamily::kDeepseek,
     .default_positions = 2048,
     .heads_divide_width = true},
    {.family = Family::kDeepseekV3,
     .model_type = "deepseek_v3",
     .class_name = "DeepseekV3ForCausalLM",
     .kind = ModelFamily::kDeepseek,
     .default_positions = 4096},
    {.family = Family::kQwen3Moe,
     .model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .kind = ModelFamily::kQwen,
     .default_positions = 32768,
     .needs_key_value_heads = true,
     .qk_norm = true},
    {.family = Family::kQwen2Moe,
     .model_type = "qwen2_moe",
     .class_name = "Qwen2MoeForCausalLM",
     .kind = ModelFamily::kQwen,
     .default_positions = 32768,
     .needs_key_value_heads = true,
     .attention_bias = true},
    {.family = Family::kQwen3,
     .model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .kind = ModelFamily::kQwen,
     .default_positions = 32768,
     .default_head_dim = 128,
     .needs_key_value_heads = true,
     .qk_norm = true},
    {.family = Family::kQwen2,
     .model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .kind = ModelFamily::kQwen,
     .default_positions = 32768,
     .needs_key_value_heads = true,
     .attention_bias = true},
    {.family = Family::kLlama,
     .model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .kind = ModelFamily::kLlama,
     .default_positions = 2048,
     .heads_divide_width = true},
    {.family = Family::kMistral,
     .model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .kind = ModelFamily::kLlama,
     .default_positions = 131072,
     .needs_key_value_heads = true,
     .needs_null_window = true},
    {.family = Family::kMoetron,
     .model_type = "moetron",
     .class_name = "MoetronForCausalLM",
     .kind = ModelFamily::kQwen,
     .default_positions = 32768,
     .needs_key_value_heads = true},
};

}  // namespace

std::span<const FamilyTraits> all_families() {
  return kFamilies;
}

const FamilyTraits& traits_of(Family family) {
  for (const FamilyTraits& traits : kFamilies) {
    if (traits.family == family) return traits;
  }
  throw InternalError(concat("unknown model family ", static_cast<int>(family)));
}

}  // namespace moetron
