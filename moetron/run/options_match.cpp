#include <string>

#include "moetron/arch/families.h"
#include "moetron/base/flag_text.h"
#include "moetron/base/mistakes.h"
#include "moetron/run/config_from_options.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;

std::string spelled(bool value) {
  return flag_text(value);
}
std::string spelled(int64_t value) {
  return std::to_string(value);
}
std::string spelled(double value) {
  return concat(value);
}
std::string spelled(ModelFamily family) {
  if (family == ModelFamily::kLlama) return "llama";
  return family == ModelFamily::kDeepseek ? "deepseek" : "qwen";
}
std::string spelled(RouterScoreFunction function) {
  return function == RouterScoreFunction::kSigmoid ? "sigmoid" : "softmax";
}

// Compares what is given with what a model has, and takes what contradicts it out of the options.
class Matcher {
 public:
  explicit Matcher(std::string file) : file_(std::move(file)) {}

  template <class T>
  void equal(const char* option, std::optional<T>& given, T actual) {
    if (!given || *given == actual) return;
    mistakes_.check(false, option, " (", spelled(*given),
                    ") contradicts the model that is loaded: ", file_, " says ", spelled(actual));
    overruled_ += concat(overruled_.empty() ? "" : ", ", option, " ", spelled(actual), " (not ",
                         spelled(*given), ")");
    given.reset();
  }

  void needs(const char* option, bool given, const char* other, bool is_there) {
    mistakes_.check(!given || is_there, option, " (true) needs ", other, ", which ", file_,
                    " does not give");
  }

  const Mistakes& mistakes() const { return mistakes_; }
  const std::string& overruled() const { return overruled_; }

 private:
  std::string file_;
  Mistakes mistakes_;
  std::string overruled_;  // "num-layers 3 (not 9), ..."
};

// Dense layers without norms and biases of queries and keys are Llama's, whoever asked for them.
bool is_plain_qwen(const ModelConfig& config, ModelFamily given) {
  return given == ModelFamily::kQwen && config.family == Family::kLlama;
}

void match_shape(const ModelConfig& config, ModelOptions& given, Matcher& match) {
  if (given.model_family && !is_plain_qwen(config, *given.model_family))
    match.equal("model-family", given.model_family, traits_of(config.family).kind);
  match.equal("num-layers", given.num_layers, config.num_layers);
  match.equal("hidden-size", given.hidden_size, config.hidden_size);
  match.equal("ffn-hidden-size", given.ffn_hidden_size, config.intermediate_size);
  match.equal("num-attention-heads", given.num_attention_heads, config.num_attention_heads);
  if (!config.mla) {
    match.equal("num-query-groups", given.num_query_groups, config.num_key_value_heads);
    match.equal("group-query-attention", given.group_query_attention,
                given.group_query_attention.value_or(false) ||
                    config.num_key_value_heads != config.num_attention_heads);
  }
  // Latent attention has widths of its own, as in Megatron.
  if (!config.mla) match.equal("kv-channels", given.kv_channels, config.value_head_dim());
  match.equal("max-position-embeddings", given.max_position_embeddings,
              config.max_position_embeddings);
  match.equal("norm-epsilon", given.norm_epsilon, config.rms_norm_eps);
  match.equal("add-qkv-bias", given.add_qkv_bias, config.attention_bias);
  // Of latent attention it means the latents' norms, which are always there.
  match.equal("qk-layernorm", given.qk_layernorm, config.mla || config.qk_norm);
  match.equal("untie-embeddings-and-output-weights", given.untie_embeddings_and_output_weights,
              !config.tie_word_embeddings);
  match.equal("vocab-size", given.vocab_size, config.vocab_size);
}

void match_rope(const RopeConfig& rope, ModelOptions& given, Matcher& match) {
  match.equal("rotary-base", given.rotary_base, rope.theta);
  // Without YaRN the factor is 1 and the other numbers are those that change nothing.
  const bool yarn = rope.type == RopeType::kYarn;
  match.equal("rotary-scaling-factor", given.rotary_scaling_factor, yarn ? rope.factor : 1.0);
  if (!yarn) return;
  match.equal("rotary-mscale", given.rotary_mscale, rope.mscale.value_or(0.0));
  match.equal("rotary-mscale-all-dim", given.rotary_mscale_all_dim,
              rope.mscale_all_dim.value_or(0.0));
  match.equal("original-max-position-embeddings", given.original_max_position_embeddings,
              rope.original_max_position_embeddings);
  match.equal("rotary-beta-fast", given.rotary_beta_fast, rope.beta_fast);
  match.equal("rotary-beta-slow", given.rotary_beta_slow, rope.beta_slow);
}

void match_mla(const ModelConfig& config, ModelOptions& given, Matcher& match) {
  const MlaConfig mla = config.mla.value_or(MlaConfig());
  match.equal("multi-latent-attention", given.multi_latent_attention, config.mla.has_value());
  match.equal("q-lora-rank", given.q_lora_rank, mla.q_lora_rank);
  match.equal("kv-lora-rank", given.kv_lora_rank, mla.kv_lora_rank);
  match.equal("qk-rope-head-dim", given.qk_rope_head_dim, mla.qk_rope_head_dim);
  match.equal("qk-nope-head-dim", given.qk_nope_head_dim, mla.qk_nope_head_dim);
  match.equal("v-head-dim", given.v_head_dim, mla.v_head_dim);
  match.needs("mla-fuse-qkv", given.mla_fuse_qkv, "q-lora-rank", mla.q_lora_rank > 0);
}

void match_moe(const ModelConfig& config, MoeOptions& given, Matcher& match) {
  const MoeConfig moe = config.moe.value_or(MoeConfig());
  const bool v3 = config.family == Family::kDeepseekV3;
  match.equal("num-experts", given.num_experts, moe.num_experts);
  match.equal("moe-router-topk", given.moe_router_topk, moe.top_k);
  match.equal("moe-ffn-hidden-size", given.moe_ffn_hidden_size, moe.expert_intermediate_size);
  match.equal("enable-shared-expert", given.enable_shared_expert, moe.num_shared_experts > 0);
  match.equal("num-shared-experts", given.num_shared_experts, moe.num_shared_experts);
  match.equal("enable-shared-expert-gate", given.enable_shared_expert_gate, moe.shared_expert_gate);
  match.equal("moe-router-deepseekv3", given.moe_router_deepseekv3, v3);
  match.equal("moe-router-num-groups", given.moe_router_num_groups, moe.num_groups);
  match.equal("moe-router-group-topk", given.moe_router_group_topk, moe.group_topk);
  // DeepSeek-V3's scores are not a softmax's.
  if (config.moe && !v3)
    match.equal("moe-router-pre-softmax", given.moe_router_pre_softmax, !moe.norm_topk_prob);
  if (!config.mla) return;  // the rest has no effect on other families
  match.equal("first-k-dense-replace", given.first_k_dense_replace, moe.first_k_dense_replace);
  match.equal("moe-router-topk-scaling-factor", given.moe_router_topk_scaling_factor,
              moe.routed_scaling_factor);
  if (!v3) return;
  match.equal("moe-router-enable-expert-bias", given.moe_router_enable_expert_bias, true);
  match.equal("moe-router-score-function", given.moe_router_score_function,
              RouterScoreFunction::kSigmoid);
}

Matcher match_all(const ModelConfig& config, Options& options, const std::string& config_file) {
  Matcher match(config_file);
  match_shape(config, options.model, match);
  match_rope(config.rope, options.model, match);
  match_mla(config, options.model, match);
  match_moe(config, options.moe, match);
  return match;
}

}  // namespace

void check_options_match(const ModelConfig& config, const Options& options,
                         const std::string& config_file) {
  Options compared = options;
  match_all(config, compared, config_file).mistakes().throw_if_any();
}

std::string overrule_options(const ModelConfig& config, Options& options) {
  return match_all(config, options, "").overruled();
}

}  // namespace moetron
