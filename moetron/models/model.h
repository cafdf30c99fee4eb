// A model, or a rank's part of it: embedding, decoder layers, head, in one chunk or several.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/arch/model_config.h"
#include "moetron/autograd/parameter.h"
#include "moetron/models/model_settings.h"
#include "moetron/pipeline/chunk.h"

namespace moetron {

class EmbeddingLayer;
class HeadLayer;
class KeyValueCache;
class Router;

struct LayerRouter {
  int64_t layer;
  Router* router;
};

class Model {
 public:
  // Parameters of the settings' dtype (the router's bias in fp32), zero until initialize() or a
  // load. The settings' mesh outlives the model.
  explicit Model(const ModelConfig& config, const ModelSettings& settings = {});

  const ModelConfig& config() const { return config_; }
  std::vector<Chunk>& chunks() { return chunks_; }
  const std::vector<StageLayers>& stages() const { return stages_; }         // of the chunks
  const std::vector<Parameter*>& parameters() const { return parameters_; }  // in layer order
  const std::vector<LayerRouter>& routers() const { return routers_; }
  const at::TensorOptions& options() const { return options_; }  // dtype and device

  // Normal with the config's deviation, norms one, biases zero; the same numbers in any layout.
  void initialize(uint64_t seed);
  // What a Hugging Face directory holds, as far as this rank does.
  std::vector<NamedSlice> weights() const;
  // Adds the second use of a tied weight to the first; once, when all micro-batches are done.
  void fold_tied_grads();
  // Where embedding and head are tied and on different ranks: the embedding's table on the one, the
  // head's copy of it on the other; null on all others.
  Parameter* shared_table() { return shared_table_; }

  // Of a whole model in one chunk.
  // tokens [batch, seq] int64 -> [batch, seq, vocab], without gradients. With a cache the tokens
  // continue it, and only the last position's logits are computed: [batch, 1, vocab].
  at::Tensor logits(const at::Tensor& tokens, int64_t first_position = 0,
                    KeyValueCache* cache = nullptr);

 private:
  void tie(EmbeddingLayer* embedding, HeadLayer* head);

  ModelConfig config_;
  at::TensorOptions options_;
  std::vector<StageLayers> stages_;
  std::vector<Chunk> chunks_;
  std::vector<Parameter*> parameters_;
  std::vector<LayerRouter> routers_;
  Parameter* shared_table_ = nullptr;
};

// positions [batch, seq] of sequences that begin at `first`.
at::Tensor sequential_positions(int64_t batch, int64_t seq, int64_t first = 0);

}  // namespace moetron
