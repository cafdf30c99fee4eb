#include "moetron/convert/megatron_args.h"

#include <string>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using std::string;

TorchValue none_or(bool is_there, TorchValue value) {
  return is_there ? std::move(value) : TorchValue{nullptr};
}

void append(TorchValues& args, TorchValues more) {
  for (auto& entry : more) args.push_back(std::move(entry));
}

TorchValues shape_args(const ModelConfig& config) {
  const int64_t groups = config.mla ? config.num_attention_heads : config.num_key_value_heads;
  return {{"num_layers", {config.num_layers}},
          {"hidden_size", {config.hidden_size}},
          {"ffn_hidden_size", {config.intermediate_size}},
          {"num_attention_heads", {config.num_attention_heads}},
          {"group_query_attention", {groups < config.num_attention_heads}},
          {"num_query_groups", {groups}},
          {"kv_channels", {config.value_head_dim()}},
          {"seq_length", {config.max_position_embeddings}},
          {"max_position_embeddings", {config.max_position_embeddings}},
          {"normalization", {string("RMSNorm")}},
          {"norm_epsilon", {config.rms_norm_eps}},
          {"apply_layernorm_1p", {false}},
          {"swiglu", {true}},
          {"squared_relu", {false}},
          {"add_bias_linear", {false}},
          {"add_qkv_bias", {config.attention_bias}},
          {"qk_layernorm", {config.qk_norm || config.mla}},
          {"apply_query_key_layer_scaling", {false}},
          {"attention_dropout", {0.0}},
          {"hidden_dropout", {0.0}},
          {"untie_embeddings_and_output_weights", {!config.tie_word_embeddings}},
          {"tokenizer_type", {string("HuggingFaceTokenizer")}},
          {"vocab_size", {config.vocab_size}}};
}

// Megatron's latent attention scales by a factor of 40 unless it is told otherwise.
TorchValues yarn_args(const RopeConfig& rope) {
  const bool is_yarn = rope.type == RopeType::kYarn;
  return {{"rope_type", {string(is_yarn ? "yarn" : "rope")}},
          {"rotary_scaling_factor", {is_yarn ? rope.factor : 1.0}},
          {"original_max_position_embeddings",
           none_or(is_yarn, {rope.original_max_position_embeddings})},
          {"beta_fast", {rope.beta_fast}},
          {"beta_slow", {rope.beta_slow}},
          {"mscale", {rope.mscale.value_or(1.0)}},
          {"mscale_all_dim", {rope.mscale_all_dim.value_or(0.0)}}};
}

TorchValues rope_args(const RopeConfig& rope) {
  TorchValues args = {{"position_embedding_type", {string("rope")}},
                      {"add_position_embedding", {false}},
                      {"rotary_base", {rope.theta}},
                      {"rotary_percent", {1.0}},
                      // DeepSeek's pairs belong to Megatron's latent attention itself.
                      {"rotary_interleaved", {false}}};
  if (rope.type == RopeType::kLlama3)
    append(args, {{"use_rope_scaling", {true}}, {"rope_scaling_factor", {rope.factor}}});
  if (rope.type == RopeType::kLinear)
    append(args, {{"rotary_seq_len_interpolation_factor", {rope.factor}}});
  return args;
}

TorchValues latent_args(const MlaConfig& mla) {
  return {{"multi_latent_attention", {true}},
          {"q_lora_rank", none_or(mla.q_lora_rank > 0, {mla.q_lora_rank})},
          {"kv_lora_rank", {mla.kv_lora_rank}},
          {"qk_head_dim", {mla.qk_nope_head_dim}},
          {"qk_pos_emb_head_dim", {mla.qk_rope_head_dim}},
          {"v_head_dim", {mla.v_head_dim}}};
}

string balancing(AuxLossKind kind) {
  if (kind == AuxLossKind::kNone) return "none";
  return kind == AuxLossKind::kSequence ? "seq_aux_loss" : "aux_loss";
}

TorchValues moe_args(const ModelConfig& config, const MoeConfig& moe) {
  TorchValue::List pattern(static_cast<size_t>(config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer)
    pattern[static_cast<size_t>(layer)].value = int64_t{config.is_moe_layer(layer)};
  const bool is_sigmoid = moe.score_function == ScoreFunction::kSigmoid;
  const bool has_groups = moe.num_groups > 1;
  return {
      {"num_experts", {moe.num_experts}},
      {"moe_layer_freq", {std::move(pattern)}},
      {"moe_ffn_hidden_size", {moe.expert_intermediate_size}},
      {"moe_shared_expert_intermediate_size",
       none_or(moe.shared_intermediate_size > 0, {moe.shared_intermediate_size})},
      {"moe_router_topk", {moe.top_k}},
      // A softmax over the chosen experts alone is one over all of them, normalised again.
      {"moe_router_pre_softmax", {!is_sigmoid && !moe.norm_topk_prob}},
      {"moe_router_score_function", {string(is_sigmoid ? "sigmoid" : "softmax")}},
      {"moe_router_topk_scaling_factor",
       none_or(moe.routed_scaling_factor != 1.0, {moe.routed_scaling_factor})},
      {"moe_router_num_groups", none_or(has_groups, {moe.num_groups})},
      {"moe_router_group_topk", none_or(has_groups, {moe.group_topk})},
      {"moe_router_enable_expert_bias", {moe.expert_bias}},
      {"moe_router_bias_update_rate", {moe.bias_update_rate}},
      {"moe_router_load_balancing_type", {balancing(moe.aux_loss)}},
      {"moe_aux_loss_coeff", {moe.aux_loss_coeff}},
  };
}

TorchValues layout_args(const ModelConfig& config, const MegatronLayout& layout) {
  bool is_even = true;
  for (const int64_t layers : layout.stage_layers) is_even &= layers == layout.stage_layers[0];
  return {
      {"padded_vocab_size", {layout.padded_vocab}},
      {"tensor_model_parallel_size", {layout.tp}},
      {"pipeline_model_parallel_size", {layout.pp}},
      {"virtual_pipeline_model_parallel_size", none_or(layout.num_chunks > 1, {layout.num_chunks})},
      {"num_layers_per_virtual_pipeline_stage",
       none_or(layout.num_chunks > 1 && is_even, {layout.stage_layers[0]})},
      {"expert_model_parallel_size", {layout.ep}},
      {"expert_tensor_parallel_size", {layout.tpe}},
      {"moe_grouped_gemm", {layout.grouped_experts}},
      {"transformer_impl", {string(layout.transformer_engine ? "transformer_engine" : "local")}},
      {"params_dtype", {TorchDtype{*dtype_from_torch(config.dtype)}}},
      {"bf16", {config.dtype == "bfloat16"}},
      {"fp16", {config.dtype == "float16"}},
      {"ckpt_format", {string("torch")}}};
}

}  // namespace

TorchValues megatron_args(const ModelConfig& config, const MegatronLayout& layout, MtpTensors mtp) {
  TorchValues args = shape_args(config);
  args.push_back({"mtp_num_layers", none_or(mtp == MtpTensors::kInclude, {config.num_mtp_layers})});
  append(args, rope_args(config.rope));
  if (config.mla) {
    append(args, latent_args(*config.mla));
    append(args, yarn_args(config.rope));
  }
  if (config.moe) append(args, moe_args(config, *config.moe));
  append(args, layout_args(config, layout));
  return args;
}

MegatronLayout layout_from_args(const TorchFile& file) {
  const string name = file.path().string();
  const PickleValue* value = file.find("args");
  MT_CHECK_INPUT(value != nullptr, name, " has no args, which tell the layout of its ranks");
  const PickleValue& args = file.attributes(*value, "args");
  constexpr int64_t kMaxRanks = 10'000;  // along an axis
  const auto ranks = [&](const char* arg, int64_t otherwise) {
    const PickleValue* found = file.pickle().find(args, arg);
    if (found == nullptr || found->kind == PickleValue::Kind::kNone) return otherwise;
    const bool is_count = found->kind == PickleValue::Kind::kInt && found->integer >= 1 &&
                          found->integer <= kMaxRanks;
    MT_CHECK_INPUT(is_count, name, ": args.", arg, " is no number of ranks");
    return found->integer;
  };
  MegatronLayout layout;
  layout.tp = ranks("tensor_model_parallel_size", 1);
  layout.tpe = ranks("expert_tensor_parallel_size", layout.tp);
  layout.ep = ranks("expert_model_parallel_size", 1);
  layout.pp = ranks("pipeline_model_parallel_size", 1);
  return layout;
}

}  // namespace moetron
