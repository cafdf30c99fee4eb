// For tests of Megatron's formats: tiny models, and weights that are all different.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "moetron/arch/inventory.h"
#include "moetron/base/error.h"
#include "moetron/convert/megatron_layout.h"
#include "moetron/convert/tensor_source.h"

namespace moetron {

// Every element of every tensor has a number of its own.
class CountingSource : public TensorSource {
 public:
  explicit CountingSource(const ModelConfig& config) {
    std::map<std::string, TensorInfo> sorted;
    for (TensorInfo& tensor : tensor_inventory(config, MtpTensors::kInclude))
      sorted.emplace(tensor.name, tensor);
    for (const auto& [name, tensor] : sorted) {
      tensors_.push_back({name, SafetensorsDtype::kI32, tensor.shape});
      begins_.push_back(total_);
      total_ += static_cast<uint64_t>(tensor.num_elements());
    }
    // Multi-token prediction has copies of the model's ends.
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const std::string& name = tensors_[i].name;
      if (name.ends_with(".embed_tokens.weight"))
        begins_[i] = begin_of("model.embed_tokens.weight");
      if (name.ends_with("shared_head.head.weight")) begins_[i] = begin_of("lm_head.weight");
    }
  }
  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override {
    for (uint64_t i = 0; i < count; ++i) {
      const auto number = static_cast<int32_t>(begins_[index] + begin + i);
      std::memcpy(&bytes[i * sizeof(number)], &number, sizeof(number));
    }
  }
  std::vector<SafetensorsTensor>& change() { return tensors_; }

 private:
  uint64_t begin_of(const std::string& name) const {
    for (size_t i = 0; i < tensors_.size(); ++i)
      if (tensors_[i].name == name) return begins_[i];
    return 0;
  }

  std::vector<SafetensorsTensor> tensors_;
  std::vector<uint64_t> begins_;
  uint64_t total_ = 0;
};

inline ModelConfig llama() {
  ModelConfig config;
  config.family = ModelConfig::Family::kLlama;
  config.vocab_size = 11;
  config.hidden_size = 8;
  config.num_layers = 4;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 3;
  config.intermediate_size = 12;
  config.max_position_embeddings = 64;
  return config;
}

// Whose heads divide its width, as transformers demands it of this class.
inline ModelConfig narrow_heads() {
  ModelConfig config = llama();
  config.head_dim = 2;
  return config;
}

inline ModelConfig qwen2() {
  ModelConfig config = llama();
  config.family = ModelConfig::Family::kQwen2;
  config.attention_bias = true;
  config.tie_word_embeddings = true;
  return config;
}

inline ModelConfig qwen3_moe() {
  ModelConfig config = llama();
  config.family = ModelConfig::Family::kQwen3Moe;
  config.qk_norm = true;
  config.moe.emplace();
  config.moe->num_experts = 4;
  config.moe->top_k = 2;
  config.moe->expert_intermediate_size = 6;
  return config;
}

inline ModelConfig deepseek_v3() {
  ModelConfig config = qwen3_moe();
  config.family = ModelConfig::Family::kDeepseekV3;
  config.qk_norm = false;
  config.num_key_value_heads = 4;
  config.mla = MlaConfig{.q_lora_rank = 6,
                         .kv_lora_rank = 4,
                         .qk_nope_head_dim = 3,
                         .qk_rope_head_dim = 2,
                         .v_head_dim = 3};
  config.moe->num_shared_experts = 1;
  config.moe->shared_intermediate_size = 6;
  config.moe->expert_bias = true;
  config.moe->first_k_dense_replace = 1;
  return config;
}

inline ModelConfig deepseek_v3_mtp() {
  ModelConfig config = deepseek_v3();
  config.num_mtp_layers = 1;
  return config;
}

inline MegatronLayout layout_of(const ModelConfig& config) {
  MegatronLayout layout;
  layout.stage_layers = {config.num_layers};
  layout.padded_vocab = padded_vocab_size(config, 4, 1);
  return layout;
}

inline std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline std::vector<int32_t> read_range(const TensorSource& source, size_t index, uint64_t begin,
                                       uint64_t count) {
  std::vector<int32_t> values(count);
  source.read(index, begin, count, std::as_writable_bytes(std::span(values)));
  return values;
}

}  // namespace moetron
