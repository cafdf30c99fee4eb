#include "moetron/bench/bench_slice.h"

#include <ATen/ATen.h>

#include "moetron/arch/flops.h"
#include "moetron/base/error.h"
#include "moetron/models/model.h"

namespace moetron {
namespace {

constexpr int64_t kVocabSize = 32000;
constexpr int64_t kNumExperts = 16;
constexpr int64_t kTopK = 8;

ModelConfig qwen3_235b() {
  ModelConfig config;
  config.family = ModelConfig::Family::kQwen3Moe;
  config.hidden_size = 4096;
  config.num_attention_heads = 64;
  config.num_key_value_heads = 4;
  config.head_dim = 128;
  config.qk_norm = true;
  config.rope.dim = config.head_dim;
  config.moe = MoeConfig{.expert_intermediate_size = 1536, .norm_topk_prob = true};
  return config;
}

ModelConfig deepseek_v3() {
  ModelConfig config;
  config.family = ModelConfig::Family::kDeepseekV3;
  config.hidden_size = 7168;
  config.num_attention_heads = 128;
  config.num_key_value_heads = 128;
  config.mla = MlaConfig{.q_lora_rank = 1536,
                         .kv_lora_rank = 512,
                         .qk_nope_head_dim = 128,
                         .qk_rope_head_dim = 64,
                         .v_head_dim = 128};
  config.head_dim = config.mla->qk_head_dim();
  config.rope.dim = config.mla->qk_rope_head_dim;
  config.rope.interleaved = true;
  config.moe = MoeConfig{.expert_intermediate_size = 2048,
                         .num_shared_experts = 1,
                         .shared_intermediate_size = 2048,
                         .score_function = ScoreFunction::kSigmoid,
                         .router_fp32 = true,
                         .norm_topk_prob = true};
  return config;
}

ModelConfig published_shape(BenchSlice slice) {
  switch (slice) {
    case BenchSlice::kQwen3235b:
      return qwen3_235b();
    case BenchSlice::kDeepseekV3:
      return deepseek_v3();
  }
  throw InternalError("unknown slice");
}

}  // namespace

ModelConfig slice_config(BenchSlice slice, int64_t num_layers, int64_t seq_length) {
  ModelConfig config = published_shape(slice);
  config.vocab_size = kVocabSize;
  config.num_layers = num_layers;
  config.max_position_embeddings = seq_length;
  config.moe->num_experts = kNumExperts;
  config.moe->top_k = kTopK;
  return config;
}

const char* slice_name(BenchSlice slice) {
  return slice == BenchSlice::kQwen3235b ? "qwen3-235b" : "deepseek-v3";
}

double slice_flops(const ModelConfig& config, int64_t num_tokens, int64_t seq_length) {
  const int64_t router = config.hidden_size * config.moe->num_experts;
  const int64_t norms = config.mla ? config.mla->q_lora_rank + config.mla->kv_lora_rank : 0;
  const auto difference = static_cast<double>(6 * config.num_layers * (router - norms));
  return static_cast<double>(num_tokens) * (flops_per_token(config, seq_length) + difference);
}

void fill_at_random(Model& model, double std) {
  const at::NoGradGuard no_grad;
  for (Parameter* parameter : model.parameters()) {
    switch (parameter->settings().init) {
      case Init::kNormal:
      case Init::kFanIn:
        parameter->value().normal_(0, std);
        break;
      case Init::kOnes:
        parameter->value().fill_(1);
        break;
      case Init::kZeros:
        parameter->value().zero_();
        break;
    }
  }
}

}  // namespace moetron
