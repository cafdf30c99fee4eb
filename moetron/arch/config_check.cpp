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

std::string must_be_multiple(const char* name, int64_t value, const char* divisor,
                             int64_t divisor_value) {
  return concat(field(name, value), " must be a multiple of ", field(divisor, divisor_value));
}

std::string must_be_at_most(const char* small, int64_t small_value, const char* large,
                            int64_t large_value) {
  return concat(field(small, small_value), " must be at most ", field(large, large_value));
}

// Without these, nothing else can be said.
Mistakes absurd_sizes(const ModelConfig& config, const FieldNames& names) {
  Mistakes mistakes;
  const auto check = [&](const char* name, int64_t value, int64_t high) {
    mistakes.check(value >= 1 && value <= high, field(name, value), " must be from 1 to ", high);
  };
  check(names.num_layers, config.num_layers, kMaxLayers);
  check(names.hidden_size, config.hidden_size, kMaxWidth);
  check(names.num_attention_heads, config.num_attention_heads, kMaxHeads);
  check(names.head_dim, config.head_dim, 2 * kMaxWidth);
  check(names.intermediate_size, config.intermediate_size, kMaxWidth);
  if (config.moe) check(names.num_experts, config.moe->num_experts, kMaxExperts);
  return mistakes;
}

void check_attention(const ModelConfig& config, const FieldNames& names, Mistakes& mistakes) {
  const int64_t heads = config.num_attention_heads;
  mistakes.check(
      !traits_of(config.family).heads_divide_width || config.hidden_size % heads == 0,
      must_be_multiple(names.hidden_size, config.hidden_size, names.num_attention_heads, heads));
  if (config.mla) {
    mistakes.check(config.num_key_value_heads == heads,
                   field(names.num_key_value_heads, config.num_key_value_heads), " must equal ",
                   field(names.num_attention_heads, heads), " under multi-head latent attention");
  } else {
    mistakes.check(heads % config.num_key_value_heads == 0,
                   must_be_multiple(names.num_attention_heads, heads, names.num_key_value_heads,
                                    config.num_key_value_heads));
  }
  mistakes.check(config.rope.dim % 2 == 0,
                 field(config.mla ? names.qk_rope_head_dim : names.head_dim, config.rope.dim),
                 " must be even for rotary embeddings");
}

void check_groups(const MoeConfig& moe, const FieldNames& names, Mistakes& mistakes) {
  const bool fits =
      mistakes.check(
          moe.num_experts % moe.num_groups == 0,
          must_be_multiple(names.num_experts, moe.num_experts, names.num_groups, moe.num_groups)) &&
      mistakes.check(
          moe.group_topk <= moe.num_groups,
          must_be_at_most(names.group_topk, moe.group_topk, names.num_groups, moe.num_groups));
  if (!fits) return;
  const int64_t group_size = moe.num_experts / moe.num_groups;
  if (moe.top_k <= moe.num_experts)
    mistakes.check(moe.top_k <= group_size * moe.group_topk, field(names.top_k, moe.top_k),
                   " must be at most the ", group_size * moe.group_topk,
                   " experts of the groups that ", field(names.group_topk, moe.group_topk), " of ",
                   field(names.num_groups, moe.num_groups), " keeps");
  if (moe.group_score != GroupScore::kTopTwoSum) return;
  if (mistakes.check(moe.num_experts >= 2, field(names.num_experts, moe.num_experts),
                     " must be at least 2: DeepSeek-V3's router scores a group by its best two"))
    mistakes.check(group_size >= 2, field(names.num_groups, moe.num_groups),
                   " leaves fewer than 2 of ", field(names.num_experts, moe.num_experts),
                   " in a group");
}

void check_experts(const ModelConfig& config, const FieldNames& names, Mistakes& mistakes) {
  const MoeConfig& moe = *config.moe;
  mistakes.check(config.num_layers * moe.num_experts <= kMaxExpertsOfAllLayers,
                 field(names.num_layers, config.num_layers), " times ",
                 field(names.num_experts, moe.num_experts), " is more than ",
                 kMaxExpertsOfAllLayers, " experts");
  mistakes.check(moe.top_k <= moe.num_experts,
                 must_be_at_most(names.top_k, moe.top_k, names.num_experts, moe.num_experts));
  check_groups(moe, names, mistakes);
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
  if (traits_of(family).kind == ModelFamily::kQwen) names.num_experts = "num_experts";
  return names;
}

FieldNames option_names() {
  return {"hidden-size",           "num-layers",           "num-attention-heads",
          "num-query-groups",      "kv-channels",          "ffn-hidden-size",
          "qk-rope-head-dim",      "num-experts",          "moe-router-topk",
          "moe-router-num-groups", "moe-router-group-topk"};
}

Mistakes contradictions(const ModelConfig& config, const FieldNames& names) {
  Mistakes mistakes = absurd_sizes(config, names);
  if (mistakes.count() > 0) return mistakes;
  check_attention(config, names, mistakes);
  if (config.moe) check_experts(config, names, mistakes);
  return mistakes;
}

}  // namespace moetron
