#include "moetron/arch/config_check.h"

#include "moetron/arch/families.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

// Above this an inventory would be millions of names: no model, but a corrupt file.
constexpr int64_t kMaxExpertsOfAllLayers = int64_t{1} << 20;

std::string field(const char* name, int64_t value) {
  return concat(name, " (", value, ")");
}

std::string must_divide(const char* divisor, int64_t divisor_value, const char* name,
                        int64_t value) {
  return concat(field(divisor, divisor_value), " must divide ", field(name, value));
}

std::string must_not_exceed(const char* small, int64_t small_value, const char* large,
                            int64_t large_value) {
  return concat(field(small, small_value), " must not exceed ", field(large, large_value));
}

std::optional<std::string> find_absurd_size(const ModelConfig& config, const FieldNames& names) {
  struct Bound {
    const char* name;
    int64_t value;
    int64_t high;
  };
  const int64_t experts = config.moe ? config.moe->num_experts : 1;
  for (const Bound& bound :
       {Bound{names.num_layers, config.num_layers, kMaxLayers},
        Bound{names.hidden_size, config.hidden_size, kMaxWidth},
        Bound{names.num_attention_heads, config.num_attention_heads, kMaxHeads},
        Bound{names.head_dim, config.head_dim, 2 * kMaxWidth},
        Bound{names.intermediate_size, config.intermediate_size, kMaxWidth},
        Bound{names.num_experts, experts, kMaxExperts}})
    if (bound.value < 1 || bound.value > bound.high)
      return concat(field(bound.name, bound.value), " must be from 1 to ", bound.high);
  return std::nullopt;
}

std::optional<std::string> find_attention_contradiction(const ModelConfig& config,
                                                        const FieldNames& names) {
  const int64_t heads = config.num_attention_heads;
  if (traits_of(config.family).heads_divide_width && config.hidden_size % heads != 0)
    return must_divide(names.num_attention_heads, heads, names.hidden_size, config.hidden_size);
  if (config.mla && config.num_key_value_heads != heads)
    return concat(field(names.num_key_value_heads, config.num_key_value_heads), " must equal ",
                  field(names.num_attention_heads, heads), " under multi-head latent attention");
  if (heads % config.num_key_value_heads != 0)
    return must_divide(names.num_key_value_heads, config.num_key_value_heads,
                       names.num_attention_heads, heads);
  if (config.rope.dim % 2 != 0)
    return concat(field(config.mla ? names.qk_rope_head_dim : names.head_dim, config.rope.dim),
                  " must be even for rotary embeddings");
  return std::nullopt;
}

std::optional<std::string> find_moe_contradiction(const ModelConfig& config,
                                                  const FieldNames& names) {
  const MoeConfig& moe = *config.moe;
  if (config.num_layers * moe.num_experts > kMaxExpertsOfAllLayers)
    return concat(field(names.num_layers, config.num_layers), " times ",
                  field(names.num_experts, moe.num_experts), " is more than ",
                  kMaxExpertsOfAllLayers, " experts");
  if (moe.top_k > moe.num_experts)
    return must_not_exceed(names.top_k, moe.top_k, names.num_experts, moe.num_experts);
  if (moe.num_experts % moe.num_groups != 0)
    return must_divide(names.num_groups, moe.num_groups, names.num_experts, moe.num_experts);
  if (moe.group_topk > moe.num_groups)
    return must_not_exceed(names.group_topk, moe.group_topk, names.num_groups, moe.num_groups);
  const int64_t group_size = moe.num_experts / moe.num_groups;
  if (moe.top_k > group_size * moe.group_topk)
    return concat(field(names.top_k, moe.top_k), " must not exceed the ",
                  group_size * moe.group_topk, " experts of the groups that ",
                  field(names.group_topk, moe.group_topk), " of ",
                  field(names.num_groups, moe.num_groups), " keeps");
  const bool scores_by_two = moe.group_score == GroupScore::kTopTwoSum;
  if (scores_by_two && moe.num_experts < 2)
    return concat(field(names.num_experts, moe.num_experts),
                  " must be at least 2: DeepSeek-V3's router scores a group by its best two");
  if (scores_by_two && group_size < 2)
    return concat(field(names.num_groups, moe.num_groups), " leaves fewer than 2 of ",
                  field(names.num_experts, moe.num_experts), " in a group");
  return std::nullopt;
}

}  // namespace

FieldNames config_json_names(ModelConfig::Family family) {
  FieldNames names{"hidden_size",
                   "num_hidden_layers",
                   "num_attention_heads",
                   "num_key_value_heads",
                   "head_dim",
                   "intermediate_size",
                   "qk_rope_head_dim",
                   "n_routed_experts",
                   "num_experts_per_tok",
                   "n_group",
                   "topk_group"};
  if (family == ModelConfig::Family::kQwen3Moe) names.num_experts = "num_experts";
  return names;
}

FieldNames option_names() {
  return {"hidden-size",           "num-layers",           "num-attention-heads",
          "num-query-groups",      "kv-channels",          "ffn-hidden-size",
          "qk-rope-head-dim",      "num-experts",          "moe-router-topk",
          "moe-router-num-groups", "moe-router-group-topk"};
}

std::optional<std::string> find_contradiction(const ModelConfig& config, const FieldNames& names) {
  auto problem = find_absurd_size(config, names);
  if (!problem) problem = find_attention_contradiction(config, names);
  if (!problem && config.moe) problem = find_moe_contradiction(config, names);
  return problem;
}

}  // namespace moetron
