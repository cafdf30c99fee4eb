#include "moetron/run/division.h"

#include <set>

#include "moetron/arch/inventory.h"
#include "moetron/config/options.h"

namespace moetron {
namespace {

constexpr const char* kTensor = "tensor-model-parallel-size";

void check_attention(const DividedWidths& widths, int64_t tensor, Mistakes& mistakes) {
  check_multiple("num-attention-heads", widths.attention_heads, kTensor, tensor, mistakes);
  if (const auto groups = widths.query_groups)
    mistakes.check(groups >= 1 && (*groups % tensor == 0 || tensor % *groups == 0),
                   "num-query-groups (", *groups, ") must be a multiple of ", kTensor, " (", tensor,
                   "), or divide it");
  check_multiple("q-lora-rank", widths.q_lora_rank, kTensor, tensor, mistakes);
  if (!widths.kv_lora_rank || !widths.qk_rope_head_dim) return;
  mistakes.check((*widths.kv_lora_rank + *widths.qk_rope_head_dim) % tensor == 0, "kv-lora-rank (",
                 *widths.kv_lora_rank, ") plus qk-rope-head-dim (", *widths.qk_rope_head_dim,
                 ") must be a multiple of ", kTensor, " (", tensor, ") without mla-replicate-l1");
}

void check_experts(const DividedWidths& widths, const ParallelSizes& sizes, Mistakes& mistakes) {
  if (!widths.has_experts) {
    mistakes.check(sizes.ep == 1 && sizes.tpe == 1, "expert-model-parallel-size (", sizes.ep,
                   ") and tensor-model-parallel-for-expert (", sizes.tpe,
                   ") must be 1 for a model without experts");
    return;
  }
  check_multiple("num-experts", widths.num_experts, "expert-model-parallel-size", sizes.ep,
                 mistakes);
  check_multiple("moe-ffn-hidden-size", widths.expert_width, "tensor-model-parallel-for-expert",
                 sizes.tpe, mistakes);
  if (!widths.num_shared_experts || !widths.expert_width) return;
  mistakes.check(*widths.num_shared_experts * *widths.expert_width % sizes.tp == 0,
                 "num-shared-experts (", *widths.num_shared_experts,
                 ") times moe-ffn-hidden-size (", *widths.expert_width, ") must be a multiple of ",
                 kTensor, " (", sizes.tp, ")");
}

}  // namespace

DividedWidths divided_widths(const Options& options) {
  const ModelOptions& model = options.model;
  const MoeOptions& moe = options.moe;
  DividedWidths widths;
  widths.attention_heads = model.num_attention_heads;
  if (!model.kv_lora_rank) widths.query_groups = model.num_query_groups;
  if (!model.mla_replicate_l1) {
    widths.q_lora_rank = model.q_lora_rank;
    widths.kv_lora_rank = model.kv_lora_rank;
    widths.qk_rope_head_dim = model.qk_rope_head_dim;
  }
  // With experts everywhere there is no layer of this width.
  if (!moe.num_experts || moe.first_k_dense_replace.value_or(0) > 0)
    widths.dense_width = model.ffn_hidden_size;
  widths.num_experts = moe.num_experts;
  widths.expert_width = moe.moe_ffn_hidden_size;
  if (moe.num_shared_experts || moe.enable_shared_expert.value_or(false))
    widths.num_shared_experts = moe.num_shared_experts.value_or(1);
  return widths;
}

DividedWidths divided_widths(const ModelConfig& config, bool mla_replicate_l1) {
  DividedWidths widths;
  widths.attention_heads = config.num_attention_heads;
  if (!config.mla) {
    widths.query_groups = config.num_key_value_heads;
  } else if (!mla_replicate_l1) {
    if (config.mla->q_lora_rank > 0) widths.q_lora_rank = config.mla->q_lora_rank;
    widths.kv_lora_rank = config.mla->kv_lora_rank;
    widths.qk_rope_head_dim = config.mla->qk_rope_head_dim;
  }
  if (config.num_moe_layers() < config.num_layers) widths.dense_width = config.intermediate_size;
  widths.has_experts = config.num_moe_layers() > 0;
  if (!widths.has_experts) return widths;
  widths.num_experts = config.moe->num_experts;
  widths.expert_width = config.moe->expert_intermediate_size;
  if (config.moe->num_shared_experts > 0)
    widths.num_shared_experts = config.moe->num_shared_experts;
  return widths;
}

void check_division(const DividedWidths& widths, const ParallelSizes& sizes, Mistakes& mistakes) {
  check_attention(widths, sizes.tp, mistakes);
  check_multiple("ffn-hidden-size", widths.dense_width, kTensor, sizes.tp, mistakes);
  check_experts(widths, sizes, mistakes);
}

void check_division(const ModelConfig& config, const ParallelSizes& sizes, bool mla_replicate_l1) {
  Mistakes mistakes;
  check_division(divided_widths(config, mla_replicate_l1), sizes, mistakes);
  mistakes.throw_if_any();
}

void check_fp8_division(const ModelConfig& config, const ParallelSizes& sizes,
                        bool mla_replicate_l1, Mistakes& mistakes) {
  constexpr int64_t kBlock = 128;
  const DivisionSettings settings = division_settings(config, mla_replicate_l1);
  std::set<std::string> told;  // the same of every layer and expert
  for (const TensorInfo& tensor : tensor_inventory(config)) {
    if (tensor.layer < 0 || tensor.shape.size() < 2) continue;
    const TensorShard shard =
        tensor_shard(tensor.shard, /*rank=*/0, tensor.is_expert() ? sizes.tpe : sizes.tp, settings);
    const int64_t size = tensor.shape[static_cast<size_t>(shard.dim)], part = size / shard.count;
    if (shard.count == 1 || part % kBlock == 0) continue;
    const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
    const std::string name = module.substr(module.rfind('.') + 1);
    if (!told.insert(name).second) continue;
    mistakes.check(
        false, "fp8-format: ",
        tensor.is_expert() ? "tensor-model-parallel-for-expert (" : "tensor-model-parallel-size (",
        shard.count, ") divides ", name, " (", size, ") into parts of ", part,
        ", which must be multiples of ", kBlock,
        tensor.shard.division == Division::kLatents ? ", or mla-replicate-l1 given" : "");
  }
}

std::vector<int64_t> divisors(int64_t number, int64_t most) {
  std::set<int64_t> found;
  for (int64_t i = 1; i * i <= number; ++i)
    if (number % i == 0) found.insert({i, number / i});
  return {found.begin(), found.upper_bound(most)};
}

void check_multiple(const char* name, std::optional<int64_t> value, const char* other,
                    std::optional<int64_t> divisor, Mistakes& mistakes) {
  if (!value || !divisor) return;
  if (!mistakes.check(*divisor >= 1, other, " (", *divisor, ") must be at least 1")) return;
  mistakes.check(*value % *divisor == 0, name, " (", *value, ") must be a multiple of ", other,
                 " (", *divisor, ")");
}

}  // namespace moetron
