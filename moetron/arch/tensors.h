// The tensors that models are made of: the Hugging Face name of each, and how ranks divide it. This
// is the one place for both. The inventory (arch/inventory.h) adds the shapes; the parts of nn/,
// moe/ and models/ make their parameters of them, and plan/ counts what a rank holds.
#pragma once

#include <cstdint>
#include <string>

namespace moetron {

// How the ranks that share a part of the model divide a tensor: the tensor-parallel ranks (TP), or
// of a routed expert those that share the expert (TPE).
enum class Division {
  kWhole,          // each holds all of it: norms, the router
  kParts,          // equal parts
  kKeyValueHeads,  // the same by heads; where there are fewer heads than ranks, several ranks in a
                   // row hold the same head
  kLatents,        // the same as kParts, or whole with mla-replicate-l1
  kVocabulary,     // parts of ceil(rows / ranks) rows: what is beyond the vocabulary is padding
};

struct ShardRule {
  Division division = Division::kWhole;
  int64_t dim = 0;  // the one that is divided
};

struct TensorRule {
  const char* name;  // behind the prefix of its part
  ShardRule shard = {};
};

// What a division depends on beside the number of ranks.
struct DivisionSettings {
  int64_t num_key_value_heads = 0;  // over all ranks; read for kKeyValueHeads
  bool mla_replicate_l1 = false;    // read for kLatents
};

// Part `index` of `count` equal ones along `dim`.
struct TensorShard {
  int64_t dim = 0;
  int64_t index = 0;
  int64_t count = 1;
  int64_t copies = 0;  // how many ranks in a row hold this part; 0: all of them
};

// What `rank` of `ranks` holds. That the tensor can be divided so has been checked before
// (check_division() of run/division.h).
TensorShard tensor_shard(const ShardRule& rule, int64_t rank, int64_t ranks,
                         const DivisionSettings& settings = {});

// Of `count` parts: the rows of each, of which the last ones may be padding.
constexpr int64_t padded_part(int64_t size, int64_t count) {
  return (size + count - 1) / count;
}

inline constexpr const char* kLayers = "model.layers.";
// "model.layers.3."
std::string layer_prefix(int64_t layer);

namespace tensors {

using enum Division;

// The ends of the model.
inline constexpr TensorRule kEmbedding{"model.embed_tokens.weight", {kVocabulary}};
inline constexpr TensorRule kFinalNorm{"model.norm.weight"};
inline constexpr TensorRule kHead{"lm_head.weight", {kVocabulary}};

// Of a layer, behind layer_prefix().
inline constexpr TensorRule kInputNorm{"input_layernorm.weight"};
inline constexpr TensorRule kPostAttentionNorm{"post_attention_layernorm.weight"};

// Of attention, behind the layer's kAttention.
inline constexpr const char* kAttention = "self_attn.";
inline constexpr TensorRule kQuery{"q_proj.weight", {kParts}};
inline constexpr TensorRule kKey{"k_proj.weight", {kKeyValueHeads}};
inline constexpr TensorRule kValue{"v_proj.weight", {kKeyValueHeads}};
inline constexpr TensorRule kQueryBias{"q_proj.bias", {kParts}};
inline constexpr TensorRule kKeyBias{"k_proj.bias", {kKeyValueHeads}};
inline constexpr TensorRule kValueBias{"v_proj.bias", {kKeyValueHeads}};
inline constexpr TensorRule kQueryNorm{"q_norm.weight"};
inline constexpr TensorRule kKeyNorm{"k_norm.weight"};
inline constexpr TensorRule kAttentionOut{"o_proj.weight", {kParts, 1}};
// Of latent attention, which has kQuery without a rank of the queries, and kAttentionOut.
inline constexpr TensorRule kQueryDown{"q_a_proj.weight", {kLatents}};
inline constexpr TensorRule kQueryLatentNorm{"q_a_layernorm.weight"};
inline constexpr TensorRule kQueryUp{"q_b_proj.weight", {kParts}};
inline constexpr TensorRule kKeyValueDown{"kv_a_proj_with_mqa.weight", {kLatents}};
inline constexpr TensorRule kKeyValueLatentNorm{"kv_a_layernorm.weight"};
inline constexpr TensorRule kKeyValueUp{"kv_b_proj.weight", {kParts}};

// Of an MLP: behind the layer's kMlp, kSharedExpert, kGatedSharedExpert, or kExperts and the
// expert's number with a dot.
inline constexpr const char* kMlp = "mlp.";
inline constexpr const char* kSharedExpert = "mlp.shared_experts.";
inline constexpr const char* kGatedSharedExpert = "mlp.shared_expert.";  // where it has a gate
inline constexpr const char* kExperts = "mlp.experts.";
inline constexpr TensorRule kGate{"gate_proj.weight", {kParts}};
inline constexpr TensorRule kUp{"up_proj.weight", {kParts}};
inline constexpr TensorRule kDown{"down_proj.weight", {kParts, 1}};

// Of the router, behind the layer's kRouter.
inline constexpr const char* kRouter = "mlp.gate.";
inline constexpr TensorRule kRouterWeight{"weight"};
inline constexpr TensorRule kRouterBias{"e_score_correction_bias"};

// The gate of the shared expert, behind layer_prefix().
inline constexpr TensorRule kSharedExpertGate{"mlp.shared_expert_gate.weight"};

// What a layer of multi-token prediction has beside a decoder layer's tensors, behind
// layer_prefix(): copies of the model's ends, and what joins them to the layer.
inline constexpr TensorRule kMtpEmbedding{"embed_tokens.weight", {kVocabulary}};
inline constexpr TensorRule kMtpEmbeddingNorm{"enorm.weight"};
inline constexpr TensorRule kMtpHiddenNorm{"hnorm.weight"};
inline constexpr TensorRule kMtpJoin{"eh_proj.weight"};
inline constexpr TensorRule kMtpHeadNorm{"shared_head.norm.weight"};
inline constexpr TensorRule kMtpHead{"shared_head.head.weight", {kVocabulary}};

}  // namespace tensors
}  // namespace moetron
