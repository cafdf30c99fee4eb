#include "moetron/arch/flops.h"

namespace moetron {
namespace {

// Multiply-adds of one attention layer per token: the projections, and the square per position.
struct AttentionCost {
  double projections = 0.0;
  double per_position = 0.0;
};

AttentionCost attention_cost(const ModelConfig& config) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto heads = static_cast<double>(config.num_attention_heads);
  AttentionCost cost;
  if (!config.mla) {
    const double query = heads * static_cast<double>(config.head_dim);
    const auto key = static_cast<double>(config.num_key_value_heads * config.head_dim);
    cost.projections = hidden * (query + 2.0 * key) + query * hidden;
    cost.per_position = query;
    return cost;
  }
  const MlaConfig& mla = *config.mla;
  const double query = heads * static_cast<double>(mla.qk_head_dim());
  const double value = heads * static_cast<double>(mla.v_head_dim);
  const auto q_rank = static_cast<double>(mla.q_lora_rank);
  const auto kv_rank = static_cast<double>(mla.kv_lora_rank);
  const double up = heads * static_cast<double>(mla.qk_nope_head_dim + mla.v_head_dim);
  // The ones are Megatron's: it counts the norms of the latents.
  cost.projections = mla.q_lora_rank > 0 ? q_rank * (hidden + query + 1.0) : hidden * query;
  cost.projections += kv_rank * (hidden + up + 1.0);
  cost.projections += hidden * static_cast<double>(mla.qk_rope_head_dim) + value * hidden;
  cost.per_position = (query + value) / 2.0;
  return cost;
}

// Rows of all MLPs' intermediate layers that one token passes through.
double mlp_width(const ModelConfig& config, int64_t num_mtp_layers) {
  const int64_t moe_layers = config.num_moe_layers();
  const int64_t dense_layers = config.num_layers - moe_layers + (config.moe ? 0 : num_mtp_layers);
  auto width = static_cast<double>(dense_layers * config.intermediate_size);
  if (config.moe) {
    const MoeConfig& moe = *config.moe;
    width += static_cast<double>(
        (moe_layers + num_mtp_layers) *
        (moe.top_k * moe.expert_intermediate_size + moe.shared_intermediate_size));
  }
  return width;
}

}  // namespace

double flops_per_token(const ModelConfig& config, double length, int64_t num_trained_mtp_layers) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto mtp = static_cast<double>(num_trained_mtp_layers);
  const double layers = static_cast<double>(config.num_layers) + mtp;
  const AttentionCost attention = attention_cost(config);
  double multiply_adds = 3.0 * hidden * mlp_width(config, num_trained_mtp_layers);
  if (config.moe && config.moe->shared_expert_gate)
    multiply_adds += static_cast<double>(config.num_moe_layers()) * hidden;
  multiply_adds += layers * attention.projections;
  multiply_adds += layers * attention.per_position * length;
  multiply_adds += mtp * (3.0 * hidden + 2.0 * hidden * hidden);
  multiply_adds += hidden * static_cast<double>(config.vocab_size) * (mtp + 1.0);
  return 6.0 * multiply_adds;  // two operations each; once forward, twice backward
}

}  // namespace moetron
