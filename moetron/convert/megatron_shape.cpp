#include "moetron/convert/megatron_shape.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moetron/arch/config_check.h"
#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/convert/megatron_folder.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;
using Kind = PickleValue::Kind;

// Megatron's arguments by name. None is as good as missing.
class Arguments {
 public:
  Arguments(const TorchFile& file, const PickleValue& args)
      : place_(file.path().string()), pickle_(file.pickle()), args_(args) {}

  const std::string& place() const { return place_; }

  std::optional<int64_t> integer(const char* name, int64_t low, int64_t high) const {
    const PickleValue* value = find(name);
    if (value == nullptr) return std::nullopt;
    if (value->kind != Kind::kInt || value->integer < low || value->integer > high)
      refuse(name, concat("must be a whole number from ", low, " to ", high));
    return value->integer;
  }
  int64_t required(const char* name, int64_t low, int64_t high) const {
    const auto value = integer(name, low, high);
    if (!value) refuse(name, "is missing, which the model's shape needs");
    return *value;
  }
  std::optional<double> number(const char* name) const {
    const PickleValue* value = find(name);
    if (value == nullptr) return std::nullopt;
    if (value->kind == Kind::kInt) return static_cast<double>(value->integer);
    if (value->kind != Kind::kFloat) refuse(name, "must be a number");
    return value->number;
  }
  std::optional<bool> flag(const char* name) const {
    const PickleValue* value = find(name);
    if (value == nullptr) return std::nullopt;
    if (value->kind != Kind::kBool) refuse(name, "must be True or False");
    return value->integer != 0;
  }
  // Of a text, of an enumeration's member or of torch.bfloat16 the name.
  std::optional<std::string> text(const char* name) const {
    const PickleValue* value = find(name);
    if (value == nullptr) return std::nullopt;
    // Later cores have lists of what was one.
    if (value->kind == Kind::kList && value->items.size() == 1)
      value = &pickle_.at(value->items[0]);
    if (value->kind != Kind::kText && value->kind != Kind::kGlobal) refuse(name, "must be a name");
    return std::string(value->text.substr(0, 100));
  }
  bool is_list(const char* name) const { return has(name) && find(name)->kind == Kind::kList; }
  std::vector<int64_t> list(const char* name) const {
    const PickleValue* value = find(name);
    if (value->kind != Kind::kList || value->items.size() > kMaxLayers)
      refuse(name, "must be a number or a list of them");
    std::vector<int64_t> numbers;
    for (const PickleId id : value->items) {
      if (pickle_.at(id).kind != Kind::kInt) refuse(name, "must be a number or a list of them");
      numbers.push_back(pickle_.at(id).integer);
    }
    return numbers;
  }

  bool has(const char* name) const { return find(name) != nullptr; }
  void check(bool is_fine, const char* name, const char* reason) const {
    if (!is_fine) refuse(name, reason);
  }
  [[noreturn]] void refuse(const char* name, std::string_view reason) const {
    throw InputError(concat(place_, ": args.", name, " ", reason));
  }

 private:
  const PickleValue* find(const char* name) const {
    const PickleValue* value = pickle_.find(args_, name);
    return value == nullptr || value->kind == Kind::kNone ? nullptr : value;
  }

  std::string place_;
  const Pickle& pickle_;
  const PickleValue& args_;
};

// What every family of ours has, and Megatron may have otherwise.
void check_kind(const Arguments& args) {
  args.check(args.text("normalization").value_or("LayerNorm") == "RMSNorm", "normalization",
             "is not supported: it must be RMSNorm");
  args.check(args.flag("swiglu").value_or(false), "swiglu", "is not supported: it must be True");
  args.check(!args.flag("add_bias_linear").value_or(true), "add_bias_linear",
             "is not supported: it must be False");
  args.check(args.text("position_embedding_type").value_or("learned_absolute") == "rope",
             "position_embedding_type", "is not supported: it must be rope");
  args.check(args.number("rotary_percent").value_or(1.0) == 1.0, "rotary_percent",
             "is not supported: it must be 1");
}

void fill_rope(const Arguments& args, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.dim = config.mla ? config.mla->qk_rope_head_dim : config.head_dim;
  rope.theta = args.number("rotary_base").value_or(rope.theta);
  rope.interleaved = config.mla.has_value();
  if (config.mla) {
    const double factor = args.number("rotary_scaling_factor").value_or(1.0);
    if (args.text("rope_type").value_or("yarn") != "yarn" || factor == 1.0) return;
    rope.type = RopeType::kYarn;
    rope.factor = factor;
    rope.original_max_position_embeddings =
        args.integer("original_max_position_embeddings", 1, kMaxPositions)
            .value_or(config.max_position_embeddings);
    rope.beta_fast = args.number("beta_fast").value_or(rope.beta_fast);
    rope.beta_slow = args.number("beta_slow").value_or(rope.beta_slow);
    rope.mscale = args.number("mscale");
    rope.mscale_all_dim = args.number("mscale_all_dim");
    return;
  }
  args.check(!args.flag("rotary_interleaved").value_or(false), "rotary_interleaved",
             "is not supported: it must be False");
  if (args.flag("use_rope_scaling").value_or(false)) {
    rope.type = RopeType::kLlama3;
    rope.factor = args.number("rope_scaling_factor").value_or(8.0);
    rope.original_max_position_embeddings = 8192;  // built in, as the two factors are
  } else if (const auto factor = args.number("rotary_seq_len_interpolation_factor")) {
    rope.type = RopeType::kLinear;
    rope.factor = *factor;
  }
}

MlaConfig latent_attention(const Arguments& args) {
  return {.q_lora_rank = args.integer("q_lora_rank", 1, kMaxWidth).value_or(0),
          .kv_lora_rank = args.required("kv_lora_rank", 1, kMaxWidth),
          .qk_nope_head_dim = args.required("qk_head_dim", 1, kMaxWidth),
          .qk_rope_head_dim = args.required("qk_pos_emb_head_dim", 1, kMaxWidth),
          .v_head_dim = args.required("v_head_dim", 1, kMaxWidth)};
}

// Of each layer whether it has experts: Megatron's number n gives them to every nth, from 0 on.
std::vector<bool> expert_layers(const Arguments& args, int64_t num_layers) {
  std::vector<bool> pattern;
  if (!args.is_list("moe_layer_freq")) {
    const int64_t step = args.integer("moe_layer_freq", 1, kMaxLayers).value_or(1);
    for (int64_t i = 0; i < num_layers; ++i) pattern.push_back(i % step == 0);
    return pattern;
  }
  for (const int64_t has_experts : args.list("moe_layer_freq")) pattern.push_back(has_experts != 0);
  args.check(std::cmp_equal(pattern.size(), num_layers), "moe_layer_freq",
             "must be a number, or one for each layer");
  return pattern;
}

void fill_expert_layers(const Arguments& args, const ModelConfig& config, MoeConfig& moe) {
  const std::vector<bool> pattern = expert_layers(args, config.num_layers);
  for (int64_t i = 0; i < config.num_layers; ++i)
    if (!pattern[static_cast<size_t>(i)]) moe.mlp_only_layers.push_back(i);
  if (!config.mla) return;
  moe.first_k_dense_replace = static_cast<int64_t>(moe.mlp_only_layers.size());
  args.check(
      moe.mlp_only_layers.empty() || moe.mlp_only_layers.back() == moe.first_k_dense_replace - 1,
      "moe_layer_freq", "is not supported: dense layers must be the first ones");
  moe.mlp_only_layers.clear();
}

void fill_router(const Arguments& args, const ModelConfig& config, MoeConfig& moe) {
  const std::string score = args.text("moe_router_score_function").value_or("softmax");
  const bool is_sigmoid = score == "sigmoid";
  args.check(is_sigmoid || score == "softmax", "moe_router_score_function",
             "is not supported: softmax and sigmoid are");
  moe.expert_bias = args.flag("moe_router_enable_expert_bias").value_or(false);
  args.check(is_sigmoid == moe.expert_bias && (config.mla || !is_sigmoid),
             "moe_router_score_function",
             "is not supported: sigmoid goes with moe_router_enable_expert_bias and "
             "multi_latent_attention, softmax without the bias");
  moe.score_function = is_sigmoid ? ScoreFunction::kSigmoid : ScoreFunction::kSoftmax;
  moe.norm_topk_prob = is_sigmoid || !args.flag("moe_router_pre_softmax").value_or(false);
  args.check(!config.mla || is_sigmoid || !moe.norm_topk_prob, "moe_router_pre_softmax",
             "is not supported: it must be True for softmax with multi_latent_attention");
  moe.routed_scaling_factor = args.number("moe_router_topk_scaling_factor").value_or(1.0);
  moe.num_groups = args.integer("moe_router_num_groups", 1, kMaxExperts).value_or(1);
  moe.group_topk = args.integer("moe_router_group_topk", 1, kMaxExperts).value_or(1);
  if (is_sigmoid) {
    moe.group_score = GroupScore::kTopTwoSum;
    moe.bias_update_rate = args.number("moe_router_bias_update_rate").value_or(0.001);
  }
  moe.router_fp32 = config.mla.has_value();
  args.check(config.mla || (moe.num_groups == 1 && moe.routed_scaling_factor == 1.0),
             "moe_router_num_groups",
             "and moe_router_topk_scaling_factor need multi_latent_attention");
  const std::string balancing = args.text("moe_router_load_balancing_type").value_or("aux_loss");
  moe.aux_loss_coeff = args.number("moe_aux_loss_coeff").value_or(0.0);
  if (moe.aux_loss_coeff > 0 && balancing == "aux_loss") moe.aux_loss = AuxLossKind::kBatch;
  if (moe.aux_loss_coeff > 0 && balancing == "seq_aux_loss") moe.aux_loss = AuxLossKind::kSequence;
}

MoeConfig experts(const Arguments& args, const ModelConfig& config) {
  MoeConfig moe;
  moe.num_experts = args.required("num_experts", 1, kMaxExperts);
  moe.top_k = args.required("moe_router_topk", 1, kMaxExperts);
  moe.expert_intermediate_size =
      args.integer("moe_ffn_hidden_size", 1, kMaxWidth).value_or(config.intermediate_size);
  moe.shared_intermediate_size =
      args.integer("moe_shared_expert_intermediate_size", 1, kMaxWidth * kMaxSharedExperts)
          .value_or(0);
  args.check(config.mla || moe.shared_intermediate_size == 0, "moe_shared_expert_intermediate_size",
             "is not supported without multi_latent_attention");
  args.check(moe.shared_intermediate_size % moe.expert_intermediate_size == 0,
             "moe_shared_expert_intermediate_size",
             "is not supported: it must be a multiple of moe_ffn_hidden_size");
  moe.num_shared_experts = moe.shared_intermediate_size / moe.expert_intermediate_size;
  fill_router(args, config, moe);
  fill_expert_layers(args, config, moe);
  return moe;
}

Family family_of(const ModelConfig& config) {
  if (config.mla) return config.moe->expert_bias ? Family::kDeepseekV3 : Family::kDeepseekV2;
  const bool bias = config.attention_bias, norm = config.qk_norm;
  if (config.moe) return norm && !bias ? Family::kQwen3Moe : Family::kMoetron;
  if (bias) return norm ? Family::kMoetron : Family::kQwen2;
  return norm ? Family::kQwen3 : Family::kLlama;
}

int64_t vocabulary(const Arguments& args, std::optional<int64_t> given) {
  if (given) return *given;
  const auto told = args.integer("vocab_size", 1, kMaxVocabulary);
  return told ? *told : args.required("padded_vocab_size", 1, kMaxVocabulary);
}

ModelConfig read_model(const Arguments& args, std::optional<int64_t> vocab_size) {
  check_kind(args);
  ModelConfig config;
  config.vocab_size = vocabulary(args, vocab_size);
  config.num_layers = args.required("num_layers", 1, kMaxLayers);
  config.hidden_size = args.required("hidden_size", 1, kMaxWidth);
  config.num_attention_heads = args.required("num_attention_heads", 1, kMaxHeads);
  config.intermediate_size = args.required("ffn_hidden_size", 1, kMaxWidth);
  config.max_position_embeddings = args.required("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = args.number("norm_epsilon").value_or(1e-5);
  config.initializer_range = args.number("init_method_std").value_or(config.initializer_range);
  config.tie_word_embeddings = !args.flag("untie_embeddings_and_output_weights").value_or(false);
  config.num_key_value_heads = config.num_attention_heads;
  if (args.flag("multi_latent_attention").value_or(false)) {
    config.mla = latent_attention(args);
    config.head_dim = config.mla->qk_head_dim();
    args.check(args.has("num_experts"), "num_experts",
               "is missing: multi_latent_attention without experts is not supported");
  } else {
    if (args.flag("group_query_attention").value_or(false))
      config.num_key_value_heads = args.required("num_query_groups", 1, kMaxHeads);
    config.head_dim = args.integer("kv_channels", 1, kMaxWidth)
                          .value_or(config.hidden_size / config.num_attention_heads);
    config.attention_bias = args.flag("add_qkv_bias").value_or(false);
    config.qk_norm = args.flag("qk_layernorm").value_or(false);
  }
  fill_rope(args, config);
  if (args.has("num_experts")) config.moe = experts(args, config);
  config.family = family_of(config);
  config.num_mtp_layers = args.integer("mtp_num_layers", 0, 16).value_or(0);
  args.check(config.num_mtp_layers == 0 || config.family == Family::kDeepseekV3, "mtp_num_layers",
             "is not supported but in DeepSeek-V3");
  config.dtype = args.text("params_dtype").value_or("float32");
  args.check(config.dtype == "bfloat16" || config.dtype == "float16" || config.dtype == "float32",
             "params_dtype", "is not supported; bfloat16, float16 and float32 are");
  const Mistakes mistakes = contradictions(config, config_json_names(config.family));
  MT_CHECK_INPUT(mistakes.count() == 0, args.place(),
                 ": its args contradict each other: ", mistakes.joined("; "));
  return config;
}

}  // namespace

std::optional<ModelConfig> model_from_args(const TorchFile& file,
                                           std::optional<int64_t> vocab_size) {
  const PickleValue* value = file.find("args");
  if (value == nullptr || value->kind == Kind::kNone) return std::nullopt;
  const Arguments args(file, file.attributes(*value, "args"));
  if (!args.has("num_layers") || !args.has("hidden_size") || !args.has("num_attention_heads"))
    return std::nullopt;
  return read_model(args, vocab_size);
}

std::optional<ModelConfig> model_from_args(const std::filesystem::path& folder,
                                           std::optional<int64_t> vocab_size,
                                           std::optional<int64_t> step) {
  const std::filesystem::path path = arguments_file(folder, step);
  if (!path_exists(path)) return std::nullopt;
  return model_from_args(TorchFile(path), vocab_size);
}

}  // namespace moetron
