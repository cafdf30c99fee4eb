#include "moetron/arch/config_reader.h"

#include <string>

#include <nlohmann/json.hpp>

#include "moetron/arch/config_check.h"
#include "moetron/arch/families.h"
#include "moetron/arch/json_fields.h"
#include "moetron/arch/quantization.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;

Family read_family(const JsonFields& fields) {
  const auto name = fields.text("model_type");
  MT_CHECK_INPUT(name.has_value(), fields.place(), ": the key model_type is missing");
  std::string known;
  for (const FamilyTraits& traits : all_families()) {
    if (*name == traits.model_type) return traits.family;
    known += concat(known.empty() ? "" : ", ", traits.model_type);
  }
  fields.refuse("model_type", concat("is not supported; these are: ", known));
}

bool is_deepseek(Family family) {
  return traits_of(family).kind == ModelFamily::kDeepseek;
}

void refuse_true(const JsonFields& fields, const char* key, const char* reason) {
  if (fields.boolean(key).value_or(false)) fields.refuse(key, reason);
}

// Keys whose usual value Moetron implies and whose other values it cannot train.
void refuse_unsupported(const JsonFields& fields, Family family) {
  check_quantization(fields);
  if (fields.text("hidden_act").value_or("silu") != "silu")
    fields.refuse("hidden_act", "is not supported: it must be \"silu\"");
  refuse_true(fields, "use_sliding_window", "is not supported: it must be false");
  if (traits_of(family).needs_null_window && !fields.is_null("sliding_window")) {
    MT_CHECK_INPUT(fields.has("sliding_window"), fields.place(),
                   ": the key sliding_window is missing, and would not be null by default");
    fields.refuse("sliding_window", "is not supported: it must be null");
  }
  const auto layer_types = fields.texts("layer_types").value_or(std::vector<std::string>());
  for (const std::string& type : layer_types)
    if (type != "full_attention")
      fields.refuse("layer_types", "is not supported: every layer must be full_attention");
  // transformers would give o_proj a bias too.
  if (!traits_of(family).attention_bias)
    refuse_true(fields, "attention_bias", "is not supported: it must be false");
  refuse_true(fields, "mlp_bias", "is not supported: it must be false");
  if (family == Family::kQwen2Moe && !fields.boolean("qkv_bias").value_or(true))
    fields.refuse("qkv_bias", "is not supported: it must be true in qwen2_moe");
  if (fields.number("attention_dropout", 0.0, 1.0).value_or(0.0) != 0.0)
    fields.refuse("attention_dropout", "is not supported: it must be 0");
  // Any other head (a reward model's, say) would leave lm_head.weight out of the weights.
  for (const std::string& name : fields.texts("architectures").value_or(std::vector<std::string>()))
    if (!name.ends_with("ForCausalLM"))
      fields.refuse("architectures", "is not supported: a ...ForCausalLM class is expected");
}

std::string read_dtype(const JsonFields& fields) {
  const char* key = fields.has("dtype") ? "dtype" : "torch_dtype";
  const std::string dtype = fields.text(key).value_or("float32");
  if (dtype != "bfloat16" && dtype != "float16" && dtype != "float32")
    fields.refuse(key, "is not supported; bfloat16, float16 and float32 are");
  return dtype;
}

// The parts that every family has. head_dim is what the file says, or 0.
void read_common(const JsonFields& fields, ModelConfig& config) {
  config.vocab_size = fields.required_integer("vocab_size", 1, kMaxVocabulary);
  config.hidden_size = fields.required_integer("hidden_size", 1, kMaxWidth);
  config.num_layers = fields.required_integer("num_hidden_layers", 1, kMaxLayers);
  config.num_attention_heads = fields.required_integer("num_attention_heads", 1, kMaxHeads);
  config.intermediate_size = fields.required_integer("intermediate_size", 1, kMaxWidth);
  const FamilyTraits& traits = traits_of(config.family);
  if (traits.needs_key_value_heads && !fields.is_null("num_key_value_heads"))
    fields.required_integer("num_key_value_heads", 1, kMaxHeads);
  config.num_key_value_heads =
      fields.integer("num_key_value_heads", 1, kMaxHeads).value_or(config.num_attention_heads);
  config.max_position_embeddings = fields.integer("max_position_embeddings", 1, kMaxPositions)
                                       .value_or(traits.default_positions);
  config.rms_norm_eps =
      fields.number("rms_norm_eps", kMinNormEps, 1.0).value_or(config.rms_norm_eps);
  config.initializer_range =
      fields.number("initializer_range", 0.0, 10.0).value_or(config.initializer_range);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings").value_or(false);
  const auto says = [&](const char* key) {
    const auto value = fields.boolean(key);
    MT_CHECK_INPUT(value.has_value(), fields.place(), ": the key ", key, " is missing");
    return *value;
  };
  const bool is_own = config.family == Family::kMoetron;
  config.attention_bias = is_own ? says("qkv_bias") : traits.attention_bias;
  config.qk_norm = is_own ? says("use_qk_norm") : traits.qk_norm;
  config.dtype = read_dtype(fields);
}

void read_head_dim(const JsonFields& fields, ModelConfig& config) {
  const auto written = fields.integer("head_dim", 1, kMaxWidth);
  if (written) {
    config.head_dim = *written;
  } else if (const int64_t fixed = traits_of(config.family).default_head_dim; fixed > 0) {
    config.head_dim = fixed;
  } else {
    MT_CHECK_INPUT(config.hidden_size % config.num_attention_heads == 0, fields.place(),
                   ": num_attention_heads (", config.num_attention_heads,
                   ") must divide hidden_size (", config.hidden_size,
                   ") since head_dim is not given");
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  config.rope = read_rope_config(fields, config.head_dim, config.max_position_embeddings);
}

// DeepSeek's classes take the softmax scale from the factor as it is written.
void refuse_null_factor(const JsonFields& fields) {
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (const auto rope = fields.object(key); rope && rope->is_null("factor"))
      rope->refuse("factor", "must be a number");
}

void read_mla(const JsonFields& fields, ModelConfig& config) {
  MlaConfig mla;
  if (!fields.is_null("q_lora_rank"))  // null: no latent of the queries
    mla.q_lora_rank = fields.integer("q_lora_rank", 1, kMaxWidth).value_or(1536);
  mla.kv_lora_rank = fields.integer("kv_lora_rank", 1, kMaxWidth).value_or(512);
  mla.qk_nope_head_dim = fields.integer("qk_nope_head_dim", 1, kMaxWidth).value_or(128);
  mla.qk_rope_head_dim = fields.integer("qk_rope_head_dim", 1, kMaxWidth).value_or(64);
  mla.v_head_dim = fields.integer("v_head_dim", 1, kMaxWidth).value_or(128);
  config.head_dim = mla.qk_head_dim();
  config.rope = read_rope_config(fields, mla.qk_rope_head_dim, config.max_position_embeddings);
  refuse_null_factor(fields);
  if (config.rope.type != RopeType::kDefault && config.rope.type != RopeType::kYarn)
    fields.refuse(fields.has("rope_scaling") ? "rope_scaling" : "rope_parameters",
                  "is not supported: DeepSeek's models know the types default and yarn");
  config.rope.interleaved =
      config.family == Family::kDeepseekV2 || fields.boolean("rope_interleave").value_or(true);
  if (config.family == Family::kDeepseekV3 && fields.is_null("rope_interleave"))
    config.rope.interleaved = false;  // null is false to transformers, and not the default
  config.mla = mla;
}

// The number of experts under another of its names.
void refuse_other_count(const JsonFields& fields, const char* key, const char* read_key,
                        int64_t num_experts) {
  const auto other = fields.integer(key, 1, kMaxExperts);
  if (other && *other != num_experts)
    fields.refuse(key, concat("contradicts ", read_key, " (", num_experts, ")"));
}

// DeepSeek's aux loss. Its own code takes 0.001 per sequence where the keys are missing.
void read_deepseek_aux_loss(const JsonFields& fields, MoeConfig& moe) {
  moe.aux_loss_coeff = fields.number("aux_loss_alpha", 0.0, kMaxAuxLossCoeff).value_or(0.001);
  const bool per_sequence = fields.boolean("seq_aux").value_or(true);
  if (moe.aux_loss_coeff > 0.0)
    moe.aux_loss = per_sequence ? AuxLossKind::kSequence : AuxLossKind::kBatch;
}

void read_deepseek_moe(const JsonFields& fields, ModelConfig& config) {
  const bool v3 = config.family == Family::kDeepseekV3;
  MoeConfig moe;
  moe.num_experts = fields.required_integer("n_routed_experts", 1, kMaxExperts);
  for (const char* key : {"num_local_experts", "num_experts"})
    refuse_other_count(fields, key, "n_routed_experts", moe.num_experts);
  moe.top_k = fields.required_integer("num_experts_per_tok", 1, kMaxExperts);
  moe.expert_intermediate_size = fields.required_integer("moe_intermediate_size", 1, kMaxWidth);
  moe.num_shared_experts =
      fields.integer("n_shared_experts", 0, kMaxSharedExperts).value_or(v3 ? 1 : 2);
  moe.shared_intermediate_size = moe.num_shared_experts * moe.expert_intermediate_size;
  moe.first_k_dense_replace =
      fields.integer("first_k_dense_replace", 0, kMaxLayers).value_or(v3 ? 3 : 0);
  if (fields.integer("moe_layer_freq", 1, kMaxLayers).value_or(1) != 1)
    fields.refuse("moe_layer_freq", "is not supported: it must be 1");
  moe.router_fp32 = true;
  // null is false to transformers, and not the default.
  moe.norm_topk_prob =
      fields.boolean("norm_topk_prob").value_or(v3 && !fields.is_null("norm_topk_prob"));
  moe.routed_scaling_factor =
      fields.number("routed_scaling_factor", kMinRoutedScaling, kMaxRoutedScaling)
          .value_or(v3 ? 2.5 : 1.0);
  read_deepseek_aux_loss(fields, moe);
  const std::string scoring = fields.text("scoring_func").value_or(v3 ? "sigmoid" : "softmax");
  const std::string method = fields.text("topk_method").value_or(v3 ? "noaux_tc" : "greedy");
  const int64_t groups = fields.integer("n_group", 1, kMaxExperts).value_or(v3 ? 8 : 1);
  const int64_t kept = fields.integer("topk_group", 1, kMaxExperts).value_or(v3 ? 4 : 1);
  if (v3) {
    if (scoring != "sigmoid") fields.refuse("scoring_func", "must be \"sigmoid\" in deepseek_v3");
    if (method != "noaux_tc") fields.refuse("topk_method", "must be \"noaux_tc\" in deepseek_v3");
    moe.score_function = ScoreFunction::kSigmoid;
    moe.group_score = GroupScore::kTopTwoSum;
    moe.expert_bias = true;
    moe.bias_update_rate = 0.001;  // the rate DeepSeek-V3 was trained with; no key holds it
    moe.num_groups = groups;
    moe.group_topk = kept;
  } else {
    if (scoring != "softmax") fields.refuse("scoring_func", "must be \"softmax\" in deepseek_v2");
    // DeepSeek's own code and transformers disagree on what this one means.
    if (moe.norm_topk_prob)
      fields.refuse("norm_topk_prob", "is not supported: it must be false in deepseek_v2");
    if (method == "group_limited_greedy") {
      moe.num_groups = groups;
      moe.group_topk = kept;
    } else if (method != "greedy" && method != "gready") {
      fields.refuse("topk_method", "must be \"greedy\" or \"group_limited_greedy\" in deepseek_v2");
    }
  }
  config.moe = moe;
}

// Qwen2-MoE always has one, and kMoetron where its width is given.
void read_gated_shared_expert(const JsonFields& fields, Family family, MoeConfig& moe) {
  const char* key = "shared_expert_intermediate_size";
  if (family != Family::kQwen2Moe && (family != Family::kMoetron || !fields.has(key))) return;
  moe.shared_expert_gate = true;
  moe.shared_intermediate_size = fields.required_integer(key, 1, kMaxWidth);
  if (moe.shared_intermediate_size % moe.expert_intermediate_size != 0)
    fields.refuse(key, concat("is not supported: it must be a multiple of moe_intermediate_size (",
                              moe.expert_intermediate_size, ")"));
  moe.num_shared_experts = moe.shared_intermediate_size / moe.expert_intermediate_size;
  if (moe.num_shared_experts > kMaxSharedExperts)
    fields.refuse(key,
                  concat("must be at most ", kMaxSharedExperts, " times moe_intermediate_size"));
}

void read_qwen_moe(const JsonFields& fields, ModelConfig& config) {
  MoeConfig moe;
  // Qwen2-MoE's class knows one of the names.
  const bool is_first_name = config.family == Family::kQwen2Moe || fields.has("num_experts");
  const char* experts_key = is_first_name ? "num_experts" : "num_local_experts";
  MT_CHECK_INPUT(fields.has(experts_key), fields.place(), ": the key num_experts is missing");
  moe.num_experts = fields.required_integer(experts_key, 1, kMaxExperts);
  refuse_other_count(fields, "num_local_experts", experts_key, moe.num_experts);
  moe.top_k = fields.required_integer("num_experts_per_tok", 1, kMaxExperts);
  moe.expert_intermediate_size = fields.required_integer("moe_intermediate_size", 1, kMaxWidth);
  moe.norm_topk_prob = fields.boolean("norm_topk_prob").value_or(false);
  moe.decoder_sparse_step = fields.integer("decoder_sparse_step", 1, kMaxLayers).value_or(1);
  moe.mlp_only_layers =
      fields.integers("mlp_only_layers", 0, kMaxLayers).value_or(std::vector<int64_t>());
  moe.aux_loss_coeff = fields.number("router_aux_loss_coef", 0.0, kMaxAuxLossCoeff).value_or(0.001);
  if (moe.aux_loss_coeff > 0.0) moe.aux_loss = AuxLossKind::kBatch;
  read_gated_shared_expert(fields, config.family, moe);
  config.moe = moe;
}

// The keys of a family that its class in transformers takes null for. (layer_types and dtype are
// made up then, and a null quantization or architecture is none.)
std::vector<std::string_view> nullable_keys(Family family) {
  std::vector<std::string_view> keys = {
      "architectures",         "dtype",        "torch_dtype",     "layer_types",
      "partial_rotary_factor", "rope_scaling", "rope_parameters", "quantization_config"};
  const bool is_own = family == Family::kMoetron;
  const bool has_qwen_experts = family == Family::kQwen3Moe || family == Family::kQwen2Moe;
  if (!has_qwen_experts && family != Family::kMistral && !is_own)
    keys.emplace_back("num_key_value_heads");
  if (has_qwen_experts || is_own) keys.emplace_back("mlp_only_layers");
  if (family == Family::kLlama || family == Family::kMistral) keys.emplace_back("head_dim");
  if (family == Family::kMistral) keys.emplace_back("sliding_window");
  if (is_deepseek(family)) keys.insert(keys.end(), {"q_lora_rank", "norm_topk_prob"});
  if (family == Family::kDeepseekV2) keys.insert(keys.end(), {"n_group", "topk_group"});
  if (family == Family::kDeepseekV3) keys.emplace_back("rope_interleave");
  return keys;
}

}  // namespace

ModelConfig read_model_config(const Json& json, const std::string& file_name) {
  JsonFields fields(json, file_name);
  ModelConfig config;
  config.family = read_family(fields);
  fields.set_nullable(nullable_keys(config.family));
  refuse_unsupported(fields, config.family);
  read_common(fields, config);
  if (is_deepseek(config.family)) {
    read_mla(fields, config);
    read_deepseek_moe(fields, config);
  } else {
    read_head_dim(fields, config);
    const bool has_experts = config.family == Family::kQwen3Moe ||
                             config.family == Family::kQwen2Moe ||
                             (config.family == Family::kMoetron && fields.has("num_experts"));
    if (has_experts) read_qwen_moe(fields, config);
  }
  if (config.family == Family::kDeepseekV3) {
    const char* key = fields.has("num_mtp_layers") ? "num_mtp_layers" : "num_nextn_predict_layers";
    config.num_mtp_layers = fields.integer(key, 0, 16).value_or(0);
  }
  const Mistakes mistakes = contradictions(config, config_json_names(config.family));
  MT_CHECK_INPUT(mistakes.count() == 0, file_name, ": ", mistakes.joined("; "));
  config.source = json;
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "config.json";
  return read_model_config(read_json(file), file.string());
}

}  // namespace moetron
