#include "moetron/run/config_from_options.h"

#include <string>

#include "moetron/arch/config_check.h"
#include "moetron/arch/families.h"
#include "moetron/base/mistakes.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;

// 0 where it is missing.
template <class T>
T required(const std::optional<T>& value, const char* name, Mistakes& mistakes) {
  mistakes.check(value.has_value(), name,
                 " is missing: without a model in --load the options must give its shape");
  return value.value_or(T());
}

bool wants_latent_attention(const Options& options) {
  const ModelOptions& model = options.model;
  MT_CHECK_CONFIG(model.multi_latent_attention.value_or(true) || !model.kv_lora_rank,
                  "kv-lora-rank (", model.kv_lora_rank.value_or(0),
                  ") contradicts multi-latent-attention (false)");
  return model.kv_lora_rank || model.multi_latent_attention.value_or(false);
}

// The one whose class in transformers describes the layers. Dense ones without norms and biases are
// Llama's.
Family qwen_family(const Options& options) {
  const bool bias = options.model.add_qkv_bias.value_or(false);
  const bool norm = options.model.qk_layernorm.value_or(false);
  const bool gate = options.moe.enable_shared_expert_gate.value_or(false);
  if (options.moe.num_experts && gate) return bias && !norm ? Family::kQwen2Moe : Family::kMoetron;
  if (options.moe.num_experts) return norm && !bias ? Family::kQwen3Moe : Family::kMoetron;
  if (bias) return norm ? Family::kMoetron : Family::kQwen2;
  return norm ? Family::kQwen3 : Family::kLlama;
}

bool is_qwen_like(const Options& options) {
  const ModelOptions& model = options.model;
  return options.moe.num_experts || model.qk_layernorm.value_or(false) ||
         model.add_qkv_bias.value_or(false);
}

Family choose_family(const Options& options) {
  const ModelOptions& model = options.model;
  const bool latent = wants_latent_attention(options);
  switch (model.model_family ? *model.model_family : guessed_family(options)) {
    case ModelFamily::kDeepseek:
      MT_CHECK_CONFIG(latent, "kv-lora-rank is missing: model-family (deepseek) needs it");
      // Megatron's qk-layernorm is here that of the latents, which are always normed.
      MT_CHECK_CONFIG(model.qk_layernorm.value_or(true),
                      "qk-layernorm (false) does not go with model-family (deepseek), which norms "
                      "its latents in any case");
      MT_CHECK_CONFIG(!model.add_qkv_bias.value_or(false),
                      "add-qkv-bias does not go with model-family (deepseek)");
      return options.moe.moe_router_deepseekv3.value_or(false) ? Family::kDeepseekV3
                                                               : Family::kDeepseekV2;
    case ModelFamily::kQwen:
      MT_CHECK_CONFIG(!latent, "kv-lora-rank does not go with model-family (qwen)");
      return qwen_family(options);
    case ModelFamily::kLlama:
      MT_CHECK_CONFIG(!latent && !is_qwen_like(options),
                      "kv-lora-rank, num-experts, qk-layernorm and add-qkv-bias do not go with "
                      "model-family (llama)");
      return Family::kLlama;
  }
  throw InternalError("unknown model-family");
}

// Beyond these a config.json would not be read back, and so the run never resumed.
void check_whole_numbers(const ModelOptions& model, const MoeOptions& moe, Mistakes& mistakes) {
  struct Range {
    const char* name;
    std::optional<int64_t> value;
    int64_t high;
    int64_t low = 1;
  };
  for (const Range& range :
       {Range{"vocab-size", model.vocab_size, kMaxVocabulary},
        Range{"num-query-groups", model.num_query_groups, kMaxHeads},
        Range{"kv-channels", model.kv_channels, kMaxWidth},
        Range{"max-position-embeddings", model.max_position_embeddings, kMaxPositions},
        Range{"original-max-position-embeddings", model.original_max_position_embeddings,
              kMaxPositions},
        Range{"q-lora-rank", model.q_lora_rank, kMaxWidth},
        Range{"kv-lora-rank", model.kv_lora_rank, kMaxWidth},
        Range{"qk-nope-head-dim", model.qk_nope_head_dim, kMaxWidth},
        Range{"qk-rope-head-dim", model.qk_rope_head_dim, kMaxWidth},
        Range{"v-head-dim", model.v_head_dim, kMaxWidth},
        Range{"moe-ffn-hidden-size", moe.moe_ffn_hidden_size, kMaxWidth},
        Range{"moe-router-topk", moe.moe_router_topk, kMaxExperts},
        Range{"num-shared-experts", moe.num_shared_experts, kMaxSharedExperts},
        Range{"first-k-dense-replace", moe.first_k_dense_replace, kMaxLayers, 0}})
    mistakes.check(!range.value || (*range.value >= range.low && *range.value <= range.high),
                   range.name, " (", range.value.value_or(0), ") must be from ", range.low, " to ",
                   range.high);
}

void check_real_numbers(const ModelOptions& model, const MoeOptions& moe, Mistakes& mistakes) {
  struct Range {
    const char* name;
    std::optional<double> value;
    double low;
    double high;
  };
  for (const Range& range :
       {Range{"norm-epsilon", model.norm_epsilon, kMinNormEps, 1},
        Range{"rotary-base", model.rotary_base, kMinTheta, kMaxTheta},
        Range{"rotary-scaling-factor", model.rotary_scaling_factor, 1, kMaxRopeFactor},
        Range{"rotary-mscale", model.rotary_mscale, 0, kMaxRopeFactor},
        Range{"rotary-mscale-all-dim", model.rotary_mscale_all_dim, 0, kMaxRopeFactor},
        Range{"rotary-beta-fast", model.rotary_beta_fast, 0, kMaxRopeFactor},
        Range{"rotary-beta-slow", model.rotary_beta_slow, 0, kMaxRopeFactor},
        Range{"moe-router-topk-scaling-factor", moe.moe_router_topk_scaling_factor,
              kMinRoutedScaling, kMaxRoutedScaling}})
    mistakes.check(!range.value || (*range.value >= range.low && *range.value <= range.high),
                   range.name, " (", range.value.value_or(0), ") must be from ", range.low, " to ",
                   range.high);
}

void fill_mla(const ModelOptions& model, ModelConfig& config, Mistakes& mistakes) {
  MlaConfig mla;
  mla.q_lora_rank = model.q_lora_rank.value_or(0);
  mistakes.check(model.kv_lora_rank.has_value(), "multi-latent-attention needs kv-lora-rank");
  mla.kv_lora_rank = model.kv_lora_rank.value_or(0);
  mla.qk_nope_head_dim = model.qk_nope_head_dim.value_or(128);
  mla.qk_rope_head_dim = model.qk_rope_head_dim.value_or(64);
  mla.v_head_dim = model.v_head_dim.value_or(128);
  config.head_dim = mla.qk_head_dim();
  config.mla = mla;
}

// Beside what is missing of hidden-size and num-attention-heads, which are 0 then.
void fill_head_dim(const ModelOptions& model, ModelConfig& config, Mistakes& mistakes) {
  mistakes.check(
      !model.q_lora_rank && !model.qk_rope_head_dim && !model.qk_nope_head_dim && !model.v_head_dim,
      "q-lora-rank, qk-rope-head-dim, qk-nope-head-dim and v-head-dim need kv-lora-rank");
  config.head_dim = model.kv_channels.value_or(0);
  if (model.kv_channels || config.num_attention_heads < 1) return;
  config.head_dim = config.hidden_size / config.num_attention_heads;
  const bool is_whole =
      mistakes.check(config.hidden_size % config.num_attention_heads == 0, "num-attention-heads (",
                     config.num_attention_heads, ") must divide hidden-size (", config.hidden_size,
                     ") since kv-channels is not given");
  mistakes.check(!is_whole || config.head_dim % 2 == 0, "hidden-size (", config.hidden_size,
                 ") over num-attention-heads (", config.num_attention_heads,
                 "), the width of a head without kv-channels, must be even for rotary embeddings");
}

void fill_rope(const ModelOptions& model, ModelConfig& config, Mistakes& mistakes) {
  RopeConfig& rope = config.rope;
  rope.dim = config.mla ? config.mla->qk_rope_head_dim : config.head_dim;
  rope.interleaved = config.mla.has_value();
  rope.theta = model.rotary_base.value_or(rope.theta);
  if (!model.rotary_scaling_factor) {
    mistakes.check(!model.rotary_mscale && !model.rotary_mscale_all_dim &&
                       !model.original_max_position_embeddings && !model.rotary_beta_fast &&
                       !model.rotary_beta_slow,
                   "rotary-mscale, rotary-mscale-all-dim, original-max-position-embeddings, "
                   "rotary-beta-fast and rotary-beta-slow need rotary-scaling-factor");
    return;
  }
  rope.type = RopeType::kYarn;
  rope.factor = *model.rotary_scaling_factor;
  rope.original_max_position_embeddings = required(model.original_max_position_embeddings,
                                                   "original-max-position-embeddings", mistakes);
  rope.beta_fast = model.rotary_beta_fast.value_or(rope.beta_fast);
  rope.beta_slow = model.rotary_beta_slow.value_or(rope.beta_slow);
  rope.mscale = model.rotary_mscale;
  rope.mscale_all_dim = model.rotary_mscale_all_dim;
  mistakes.check(rope.beta_slow <= rope.beta_fast, "rotary-beta-slow (", rope.beta_slow,
                 ") must be at most rotary-beta-fast (", rope.beta_fast, ")");
}

// Whether there are any; a gate asks for one too.
bool fill_shared_experts(const MoeOptions& given, MoeConfig& moe, Mistakes& mistakes) {
  const bool shared = given.enable_shared_expert.value_or(given.num_shared_experts.has_value() ||
                                                          moe.shared_expert_gate);
  mistakes.check(shared || !given.num_shared_experts, "num-shared-experts (",
                 given.num_shared_experts.value_or(0),
                 ") contradicts enable-shared-expert (false)");
  mistakes.check(shared || !moe.shared_expert_gate,
                 "enable-shared-expert-gate (true) contradicts enable-shared-expert (false)");
  moe.num_shared_experts = shared ? given.num_shared_experts.value_or(1) : 0;
  moe.shared_intermediate_size = moe.num_shared_experts * moe.expert_intermediate_size;
  return shared;
}

void fill_deepseek_router(const Options& options, MoeConfig& moe, Mistakes& mistakes) {
  const MoeOptions& given = options.moe;
  const bool v3 = given.moe_router_deepseekv3.value_or(false);
  moe.router_fp32 = true;
  moe.routed_scaling_factor = given.moe_router_topk_scaling_factor.value_or(1.0);
  moe.num_groups = given.moe_router_num_groups.value_or(1);
  moe.group_topk = given.moe_router_group_topk.value_or(1);
  mistakes.check(given.moe_router_num_groups.has_value() == given.moe_router_group_topk.has_value(),
                 "moe-router-num-groups (", moe.num_groups, ") and moe-router-group-topk (",
                 moe.group_topk, ") must be given together");
  moe.first_k_dense_replace = given.first_k_dense_replace.value_or(0);
  fill_shared_experts(given, moe, mistakes);
  if (!v3) {
    mistakes.check(given.moe_router_pre_softmax.value_or(true),
                   "moe-router-pre-softmax (false) is not supported with DeepSeek-V2's router");
    return;
  }
  mistakes.check(given.moe_router_score_function.value_or(RouterScoreFunction::kSigmoid) ==
                     RouterScoreFunction::kSigmoid,
                 "moe-router-score-function (softmax) is not supported with "
                 "moe-router-deepseekv3: it must be sigmoid");
  mistakes.check(given.moe_router_enable_expert_bias.value_or(true),
                 "moe-router-enable-expert-bias (false) is not supported with "
                 "moe-router-deepseekv3");
  moe.score_function = ScoreFunction::kSigmoid;
  moe.group_score = GroupScore::kTopTwoSum;
  moe.norm_topk_prob = true;
  moe.expert_bias = true;
}

void fill_moe(const Options& options, ModelConfig& config, Mistakes& mistakes) {
  const MoeOptions& given = options.moe;
  MoeConfig moe;
  moe.num_experts = required(given.num_experts, "num-experts", mistakes);
  moe.top_k = required(given.moe_router_topk, "moe-router-topk", mistakes);
  moe.expert_intermediate_size =
      required(given.moe_ffn_hidden_size, "moe-ffn-hidden-size", mistakes);
  if (config.mla) {
    mistakes.check(!given.enable_shared_expert_gate.value_or(false),
                   "enable-shared-expert-gate does not go with model-family (deepseek)");
    fill_deepseek_router(options, moe, mistakes);
  } else {
    moe.shared_expert_gate = given.enable_shared_expert_gate.value_or(false);
    const bool shared = fill_shared_experts(given, moe, mistakes);
    mistakes.check(!shared || moe.shared_expert_gate,
                   "enable-shared-expert is not supported with model-family (qwen) without "
                   "enable-shared-expert-gate");
    mistakes.check(!given.moe_router_num_groups && !given.moe_router_group_topk,
                   "moe-router-num-groups does not go with model-family (qwen)");
    mistakes.check(!given.moe_router_deepseekv3.value_or(false),
                   "moe-router-deepseekv3 does not go with model-family (qwen)");
    // Softmax over the chosen logits is softmax over all of them, normalised after the choice.
    moe.norm_topk_prob = !given.moe_router_pre_softmax.value_or(false);
  }
  config.moe = moe;
}

// Megatron's for a gated MLP: as many parameters as one without a gate has that is four times as
// wide as the hidden states, in multiples of 64.
int64_t usual_mlp_width(int64_t hidden_size) {
  return std::max<int64_t>(1, 8 * hidden_size / 3 / 64) * 64;
}

// A dense model would leave these out, and contradict them when the run is resumed.
void check_without_experts(const MoeOptions& given, Mistakes& mistakes) {
  for (const auto& [name, is_given] :
       {std::pair("moe-router-topk", given.moe_router_topk.has_value()),
        {"moe-ffn-hidden-size", given.moe_ffn_hidden_size.has_value()},
        {"num-shared-experts", given.num_shared_experts.has_value()},
        {"moe-router-num-groups", given.moe_router_num_groups.has_value()},
        {"moe-router-group-topk", given.moe_router_group_topk.has_value()},
        {"enable-shared-expert (true)", given.enable_shared_expert.value_or(false)},
        {"enable-shared-expert-gate (true)", given.enable_shared_expert_gate.value_or(false)},
        {"moe-router-deepseekv3 (true)", given.moe_router_deepseekv3.value_or(false)}})
    mistakes.check(!is_given, name, " needs num-experts, which is not given");
}

void fill_parts(const Options& options, ModelConfig& config, Mistakes& mistakes) {
  const bool is_latent = wants_latent_attention(options);
  is_latent ? fill_mla(options.model, config, mistakes)
            : fill_head_dim(options.model, config, mistakes);
  config.attention_bias = options.model.add_qkv_bias.value_or(false);
  config.qk_norm = !is_latent && options.model.qk_layernorm.value_or(false);
  if (is_latent || options.moe.num_experts) {
    fill_moe(options, config, mistakes);
  } else {
    check_without_experts(options.moe, mistakes);
  }
}

}  // namespace

ModelFamily guessed_family(const Options& options) {
  if (wants_latent_attention(options)) return ModelFamily::kDeepseek;
  return is_qwen_like(options) ? ModelFamily::kQwen : ModelFamily::kLlama;
}

ModelConfig model_config_from_options(const Options& options) {
  const ModelOptions& model = options.model;
  Mistakes mistakes;
  check_whole_numbers(model, options.moe, mistakes);
  check_real_numbers(model, options.moe, mistakes);
  ModelConfig config;
  config.num_layers = required(model.num_layers, "num-layers", mistakes);
  config.hidden_size = required(model.hidden_size, "hidden-size", mistakes);
  config.num_attention_heads = required(model.num_attention_heads, "num-attention-heads", mistakes);
  config.vocab_size = required(model.vocab_size, "vocab-size", mistakes);
  if (mistakes.collect([&] { config.family = choose_family(options); }))
    fill_parts(options, config, mistakes);
  // What follows of numbers that are missing or absurd is none of the user's mistakes.
  const bool has_numbers = mistakes.count() == 0;
  fill_rope(model, config, mistakes);
  config.intermediate_size = model.ffn_hidden_size.value_or(usual_mlp_width(config.hidden_size));
  config.num_key_value_heads = model.num_query_groups.value_or(config.num_attention_heads);
  mistakes.check(model.group_query_attention.value_or(true) ||
                     config.num_key_value_heads == config.num_attention_heads,
                 "num-query-groups (", config.num_key_value_heads,
                 ") contradicts group-query-attention (false)");
  if (has_numbers) mistakes.add_lines(contradictions(config, option_names()).joined("\n"));
  mistakes.collect([&] { apply_training_options(options, config); });
  mistakes.throw_if_any();
  config.max_position_embeddings =
      model.max_position_embeddings.value_or(options.training.seq_length);
  config.rms_norm_eps = model.norm_epsilon.value_or(config.family == Family::kLlama ? 1e-5 : 1e-6);
  config.initializer_range = model.init_method_std;
  config.tie_word_embeddings = !model.untie_embeddings_and_output_weights.value_or(false);
  config.dtype = options.training.dtype == Dtype::kFp32 ? "float32" : "bfloat16";
  return config;
}

void apply_training_options(const Options& options, ModelConfig& config) {
  if (!config.moe) return;
  MoeConfig& moe = *config.moe;
  if (moe.expert_bias) moe.bias_update_rate = options.moe.moe_router_bias_update_rate;
  if (!options.moe.moe_aux_loss_coeff && !options.moe.moe_router_load_balancing_type) return;
  moe.aux_loss_coeff = options.moe.moe_aux_loss_coeff.value_or(moe.aux_loss_coeff);
  MT_CHECK_CONFIG(moe.aux_loss_coeff <= kMaxAuxLossCoeff, "moe-aux-loss-coeff (",
                  moe.aux_loss_coeff, ") must be from 0 to ", kMaxAuxLossCoeff);
  const LoadBalancing present =
      moe.aux_loss == AuxLossKind::kSequence ? LoadBalancing::kSeqAuxLoss : LoadBalancing::kAuxLoss;
  const LoadBalancing type = options.moe.moe_router_load_balancing_type.value_or(present);
  if (moe.aux_loss_coeff == 0.0 || type == LoadBalancing::kNone) {
    moe.aux_loss = AuxLossKind::kNone;
  } else {
    moe.aux_loss =
        type == LoadBalancing::kSeqAuxLoss ? AuxLossKind::kSequence : AuxLossKind::kBatch;
  }
}

}  // namespace moetron
