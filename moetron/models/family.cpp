#include "moetron/models/family.h"

#include "moetron/arch/families.h"
#include "moetron/arch/rope.h"
#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/models/adapters.h"
#include "moetron/moe/capacity.h"
#include "moetron/nn/fp8_linear.h"

namespace moetron {
namespace {

ExpertLayout expert_layout(const MoeConfig& moe, const ModelSettings& settings) {
  if (settings.mesh == nullptr) return {.num_experts = moe.num_experts};
  const ParallelSizes& sizes = settings.mesh->sizes();
  return {.group = &settings.mesh->expert(),
          .ep = sizes.ep,
          .tpe = sizes.tpe,
          .num_experts = moe.num_experts};
}

// The rows that every expert of this rank is filled up to: its capacity for each micro-batch whose
// tokens come here, of one of which a tensor-parallel rank brings its slice.
int64_t rows_at_least(const MoeConfig& moe, const ModelSettings& settings) {
  const ExpertsSpec& experts = settings.experts;
  if (!experts.pad_to_capacity || !experts.capacity_factor) return 0;
  const int64_t capacity = expert_capacity(settings.micro_batch_tokens, moe.top_k, moe.num_experts,
                                           *experts.capacity_factor);
  if (settings.mesh == nullptr) return capacity;
  const ParallelSizes& sizes = settings.mesh->sizes();
  return (capacity * sizes.ep * sizes.tpe + sizes.tp - 1) / sizes.tp;
}

std::unique_ptr<MixtureOfExperts> make_experts(const ModelConfig& config, int64_t index,
                                               double normalize_eps,
                                               const ModelSettings& settings) {
  const MoeConfig& moe = *config.moe;
  const std::string prefix = layer_prefix(index);
  const ExpertLayout layout = expert_layout(moe, settings);
  RouterSettings router = router_settings(config, normalize_eps);
  router.capacity_factor = settings.experts.capacity_factor;
  router.drop_policy = settings.experts.drop_policy;
  if (settings.experts.force_balance) router.random_seed = index + 1;
  auto parts = std::unique_ptr<MixtureOfExperts>(new MixtureOfExperts{
      .router = Router(prefix + tensors::kRouter, router, settings.options),
      .experts = Experts(prefix + tensors::kExperts, layout, config.hidden_size,
                         moe.expert_intermediate_size,
                         {.options = settings.options,
                          .grouped_gemm = settings.experts.grouped_gemm,
                          .recompute = settings.recompute.kind == Recompute::kExpertProduct}),
      .dispatcher = *settings.rank_dispatcher,
      .shared_expert = std::nullopt});
  if (moe.shared_intermediate_size > 0) {
    const char* part =
        moe.shared_expert_gate ? tensors::kGatedSharedExpert : tensors::kSharedExpert;
    parts->shared_expert.emplace(prefix + part, config.hidden_size, moe.shared_intermediate_size,
                                 settings.options, settings.tensor_group());
  }
  if (moe.shared_expert_gate) {
    parts->shared_expert_gate.emplace(prefix + tensors::kSharedExpertGate.name,
                                      std::vector<int64_t>{1, config.hidden_size}, settings.options,
                                      ParameterSettings{});
  }
  return parts;
}

}  // namespace

std::unique_ptr<Dispatcher> make_rank_dispatcher(const ModelConfig& config,
                                                 const ModelSettings& settings) {
  if (!config.moe) return nullptr;
  const int64_t tp = settings.mesh == nullptr ? 1 : settings.mesh->sizes().tp;
  return make_dispatcher({.kind = settings.experts.dispatcher,
                          .layout = expert_layout(*config.moe, settings),
                          .max_tokens = (settings.micro_batch_tokens + tp - 1) / tp,
                          .rows_at_least = rows_at_least(*config.moe, settings),
                          .operators = settings.operator_choice().others});
}

RouterSettings router_settings(const ModelConfig& config, double normalize_eps) {
  const MoeConfig& moe = *config.moe;
  RouterSettings s;
  s.hidden_size = config.hidden_size;
  s.num_experts = moe.num_experts;
  s.top_k = moe.top_k;
  s.sigmoid = moe.score_function == ScoreFunction::kSigmoid;
  s.fp32_logits = moe.router_fp32;
  s.expert_bias = moe.expert_bias;
  s.bias_update_rate = moe.bias_update_rate;
  s.normalize = moe.norm_topk_prob;
  s.normalize_eps = normalize_eps;
  s.scaling = moe.routed_scaling_factor;
  s.num_groups = moe.num_groups;
  s.group_top_k = moe.group_topk;
  s.group_score_top_two = moe.group_score == GroupScore::kTopTwoSum;
  s.aux_loss_coeff = moe.aux_loss_coeff;
  switch (moe.aux_loss) {
    case AuxLossKind::kNone:
      s.aux_loss = RouterSettings::AuxLoss::kNone;
      break;
    case AuxLossKind::kSequence:
      s.aux_loss = RouterSettings::AuxLoss::kSequence;
      break;
    case AuxLossKind::kBatch:
      s.aux_loss = RouterSettings::AuxLoss::kBatch;
      break;
  }
  return s;
}

BuiltLayer make_layer(const ModelConfig& config, int64_t index, const ModelSettings& settings) {
  const auto built = [](std::unique_ptr<TransformerLayer> layer) {
    Router* router = layer->router();
    return BuiltLayer{std::move(layer), router};
  };
  switch (traits_of(config.family).kind) {
    case ModelFamily::kDeepseek:
      return built(make_deepseek_layer(config, index, settings));
    case ModelFamily::kQwen:
      return built(make_qwen_layer(config, index, settings));
    case ModelFamily::kLlama:
      return built(make_llama_layer(config, index, settings));
  }
  throw InternalError("a family without a model");
}

AttentionSettings attention_settings(const ModelConfig& config, const ModelSettings& settings) {
  AttentionSettings s;
  s.hidden_size = config.hidden_size;
  s.num_heads = config.num_attention_heads;
  s.num_key_value_heads = config.num_key_value_heads;
  s.head_dim = config.head_dim;
  s.bias = config.attention_bias;
  s.qk_norm = config.qk_norm;
  s.norm_eps = config.rms_norm_eps;
  s.softmax_scale = attention_softmax_scale(config);
  s.inverse_frequencies = inverse_frequencies(config.rope);
  s.rope_scale = rope_cos_sin_scale(config.rope);
  s.rope_pairs = config.rope.interleaved ? RopePairs::kNeighbours : RopePairs::kHalves;
  s.options = settings.options;
  s.tensor_group = settings.tensor_group();
  return s;
}

namespace {

// The weights of a layer's linear operations: of attention, MLP and experts, but not the router,
// norms and biases.
void multiply_weights_in_fp8(TransformerLayerParts& parts, const Fp8Spec& spec) {
  Fp8Products products{.weight_grad = spec.weight_grad};
  if (spec.gradients_in_e5m2) products.gradients = at::kFloat8_e5m2;
  const auto visit = [&](Parameter& parameter) {
    if (parameter.value().dim() > 1) multiply_in_fp8(parameter, products);
  };
  parts.attention->visit(visit);
  if (parts.mlp) parts.mlp->visit(visit);
  if (!parts.moe) return;
  parts.moe->experts.visit(visit);
  if (parts.moe->shared_expert) parts.moe->shared_expert->visit(visit);
  if (spec.dispatch) parts.moe->travels_in = products;
}

}  // namespace

std::unique_ptr<TransformerLayer> assemble_layer(const ModelConfig& config, int64_t index,
                                                 std::unique_ptr<Attention> attention,
                                                 double normalize_eps,
                                                 const ModelSettings& settings) {
  TransformerLayerParts parts;
  parts.attention = std::move(attention);
  if (config.is_moe_layer(index)) {
    parts.moe = make_experts(config, index, normalize_eps, settings);
  } else {
    parts.mlp =
        std::make_unique<Mlp>(layer_prefix(index) + tensors::kMlp, config.hidden_size,
                              config.intermediate_size, settings.options, settings.tensor_group());
  }
  if (settings.fp8 && settings.fp8->has_layer(index)) multiply_weights_in_fp8(parts, *settings.fp8);
  if (settings.lora) add_adapters(parts, config, settings);
  return std::make_unique<TransformerLayer>(index, config.hidden_size, config.rms_norm_eps,
                                            settings, std::move(parts));
}

}  // namespace moetron
