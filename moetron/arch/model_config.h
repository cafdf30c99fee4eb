// The shape of a model, as every other folder sees it: read from a Hugging Face config.json
// (arch/config_reader.h) or from options (run/config_from_options.h), written back by
// arch/config_writer.h. Plain data: whoever reads it in has checked it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/json.h"

namespace moetron {

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434). The norms of the two latents use
// epsilon 1e-6 whatever rms_norm_eps says.
struct MlaConfig {
  int64_t q_lora_rank = 0;  // 0: queries come straight from q_proj
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;

  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
};

enum class RopeType { kDefault, kLinear, kYarn, kLlama3 };

// Rotary position embedding. See arch/rope.h for what follows from it.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  int64_t dim = 0;  // how many entries of a head turn: head_dim, or qk_rope_head_dim under MLA
  // DeepSeek turns the pairs (x[2i], x[2i+1]); the others turn (x[i], x[i + dim/2]).
  bool interleaved = false;
  double factor = 1.0;                           // linear, yarn, llama3
  int64_t original_max_position_embeddings = 0;  // yarn, llama3
  double beta_fast = 32.0;                       // yarn
  double beta_slow = 1.0;                        // yarn
  std::optional<double> mscale;                  // yarn
  std::optional<double> mscale_all_dim;          // yarn
  std::optional<double> attention_factor;        // yarn: multiplies cos and sin if given
  double low_freq_factor = 1.0;                  // llama3
  double high_freq_factor = 4.0;                 // llama3
};

enum class ScoreFunction { kSoftmax, kSigmoid };
enum class GroupScore { kMax, kTopTwoSum };
// kSequence: balance within each sequence; kBatch: over all tokens of a micro-batch.
enum class AuxLossKind { kNone, kSequence, kBatch };

struct MoeConfig {
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t expert_intermediate_size = 0;
  // Shared experts are one MLP of width shared_intermediate_size = num_shared_experts *
  // expert_intermediate_size; both are 0 where there is none.
  int64_t num_shared_experts = 0;
  int64_t shared_intermediate_size = 0;
  // Qwen2-MoE multiplies the shared expert's output by the sigmoid of a product with the token.
  bool shared_expert_gate = false;

  ScoreFunction score_function = ScoreFunction::kSoftmax;
  bool router_fp32 = false;  // DeepSeek multiplies by the router's weight in fp32, Qwen does not
  bool norm_topk_prob = false;
  double routed_scaling_factor = 1.0;
  // Selection keeps the best group_topk of num_groups groups of experts; 1 and 1: no groups.
  int64_t num_groups = 1;
  int64_t group_topk = 1;
  GroupScore group_score = GroupScore::kMax;
  // The tensor mlp.gate.e_score_correction_bias (fp32): added for selection only, moved by
  // bias_update_rate a step, never by the optimizer (arXiv 2408.15664).
  bool expert_bias = false;
  double bias_update_rate = 0.0;

  AuxLossKind aux_loss = AuxLossKind::kNone;
  double aux_loss_coeff = 0.0;

  // Which layers are MoE layers; ask ModelConfig::is_moe_layer.
  int64_t first_k_dense_replace = 0;     // DeepSeek: this many dense layers first
  int64_t decoder_sparse_step = 1;       // Qwen: MoE where (layer + 1) % step == 0
  std::vector<int64_t> mlp_only_layers;  // Qwen: dense whatever the step says
};

struct ModelConfig {
  // One transformers class each: DeepseekV2ForCausalLM and so on; kMoetron is what none of them
  // describes: Qwen's layers with or without experts, biases and norms. (The option --model-family
  // knows fewer, hence the narrower scope of this name.)
  enum class Family {
    kDeepseekV2,
    kDeepseekV3,
    kQwen3Moe,
    kQwen2Moe,
    kQwen3,
    kQwen2,
    kLlama,
    kMistral,
    kMoetron
  };

  Family family = Family::kLlama;
  int64_t vocab_size = 0;  // as stored; padding for tensor parallelism is never part of it
  int64_t hidden_size = 0;
  int64_t num_layers = 0;  // decoder layers without MTP layers
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;           // of queries and keys; under MLA qk_nope + qk_rope
  int64_t intermediate_size = 0;  // of a dense layer's MLP
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;   // standard deviation of fresh weights
  bool tie_word_embeddings = false;  // no lm_head.weight: the head is the embedding
  bool attention_bias = false;       // q_proj, k_proj, v_proj have a bias (Qwen2); o_proj never
  bool qk_norm = false;              // RMS norm of each query and key head (Qwen3)
  RopeConfig rope;
  std::optional<MlaConfig> mla;
  std::optional<MoeConfig> moe;
  // Multi-token prediction layers (num_nextn_predict_layers). Their tensors are listed by
  // arch/inventory.h on request; nothing trains them yet.
  int64_t num_mtp_layers = 0;
  std::string dtype = "bfloat16";  // of the stored weights: bfloat16, float16 or float32

  // The config.json this was read from (null when made from options): the writer keeps its
  // unknown keys.
  Json source;

  bool is_moe_layer(int64_t layer) const;
  int64_t num_moe_layers() const;
  // Values per head: v_head_dim under MLA, else head_dim.
  int64_t value_head_dim() const { return mla ? mla->v_head_dim : head_dim; }
};

// The model_type of config.json: "deepseek_v2", ...
const char* family_name(ModelConfig::Family family);

}  // namespace moetron
