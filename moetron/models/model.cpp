#include "moetron/models/model.h"

#include <ATen/ATen.h>

#include "moetron/models/ends.h"
#include "moetron/models/family.h"
#include "moetron/models/transformer_layer.h"

namespace moetron {

Model::Model(const ModelConfig& config, const ModelSettings& settings)
    : config_(config), options_(settings.options) {
  chunk_.recompute = settings.recompute;
  auto embedding =
      std::make_unique<EmbeddingLayer>(config.vocab_size, config.hidden_size, settings);
  auto head = std::make_unique<HeadLayer>(config.vocab_size, config.hidden_size,
                                          config.rms_norm_eps, settings);
  if (config.tie_word_embeddings) head->tie_to(*embedding);
  chunk_.layers.push_back(std::move(embedding));
  for (int64_t index = 0; index < config.num_layers; ++index) {
    auto layer = make_layer(config, index, settings);
    if (layer->router() != nullptr) routers_.push_back({index, layer->router()});
    chunk_.layers.push_back(std::move(layer));
  }
  chunk_.layers.push_back(std::move(head));
  for (const auto& layer : chunk_.layers) {
    layer->visit([this](Parameter& parameter) { parameters_.push_back(&parameter); });
  }
}

void Model::initialize(uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (Parameter* parameter : parameters_) parameter->initialize(seed, config_.initializer_range);
}

std::vector<NamedSlice> Model::weights() const {
  std::vector<NamedSlice> all;
  for (const Parameter* parameter : parameters_) {
    for (NamedSlice& slice : parameter->slices(parameter->value())) all.push_back(std::move(slice));
  }
  return all;
}

void Model::fold_tied_grads() {
  for (Parameter* parameter : parameters_) parameter->fold_tied_grad();
}

at::Tensor Model::logits(const at::Tensor& tokens, int64_t first_position, KeyValueCache* cache) {
  MicroBatch micro_batch;
  micro_batch.tokens = tokens.to(options_.device());
  micro_batch.positions =
      sequential_positions(tokens.size(0), tokens.size(1), first_position).to(options_.device());
  micro_batch.cache = cache;
  const int64_t batch = tokens.size(0);
  at::Tensor flowing;
  for (const auto& layer : chunk_.layers) {
    LayerRun run;
    const bool is_head = layer == chunk_.layers.back();
    if (is_head && cache != nullptr) {
      flowing = flowing.unflatten(0, {batch, -1}).select(1, -1);  // [batch, hidden]
    }
    flowing = forward_layer(*layer, flowing, micro_batch, {.keep = Keep::kNothing}, run);
  }
  return flowing.unflatten(0, {batch, -1});
}

at::Tensor sequential_positions(int64_t batch, int64_t seq, int64_t first) {
  return at::arange(first, first + seq, at::kLong).unsqueeze(0).expand({batch, seq});
}

}  // namespace moetron
