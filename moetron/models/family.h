// One decoder layer of each family, built from a model's shape.
#pragma once

#include <memory>

#include "moetron/arch/model_config.h"
#include "moetron/models/model_settings.h"
#include "moetron/models/transformer_layer.h"

namespace moetron {

// The families' own builders: models/deepseek, models/qwen, models/llama.
std::unique_ptr<TransformerLayer> make_deepseek_layer(const ModelConfig& config, int64_t index,
                                                      const ModelSettings& settings);
std::unique_ptr<TransformerLayer> make_qwen_layer(const ModelConfig& config, int64_t index,
                                                  const ModelSettings& settings);
std::unique_ptr<TransformerLayer> make_llama_layer(const ModelConfig& config, int64_t index,
                                                   const ModelSettings& settings);

struct BuiltLayer {
  std::unique_ptr<Layer> layer;
  Router* router = nullptr;  // of the layer; null: it has none
};

// The one switch over families, and over the kinds of layers of one.
BuiltLayer make_layer(const ModelConfig& config, int64_t index, const ModelSettings& settings);

// The one that all layers of the model share on this rank; null where it has no experts.
std::unique_ptr<Dispatcher> make_rank_dispatcher(const ModelConfig& config,
                                                 const ModelSettings& settings);

// What the families share.
AttentionSettings attention_settings(const ModelConfig& config, const ModelSettings& settings);
// `normalize_eps` is added to the sum that the router's chosen weights are divided by.
RouterSettings router_settings(const ModelConfig& config, double normalize_eps);
// The layer around `attention`: experts or a dense MLP behind it, as the shape says for `index`.
// `normalize_eps` is added to the sum that the router's chosen weights are divided by.
std::unique_ptr<TransformerLayer> assemble_layer(const ModelConfig& config, int64_t index,
                                                 std::unique_ptr<Attention> attention,
                                                 double normalize_eps,
                                                 const ModelSettings& settings);

}  // namespace moetron
