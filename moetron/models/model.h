// A model, or a rank's part of it: embedding, decoder layers, head, in one chunk or several.
#pragma once

#include <memory>
#include <set>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/arch/model_config.h"
#include "moetron/autograd/parameter.h"
#include "moetron/models/model_settings.h"
#include "moetron/pipeline/chunk.h"
#include "moetron/schedule/schedule.h"
#include "moetron/schedule/stage_border.h"

namespace moetron {

struct Adapter;
class EmbeddingLayer;
class HeadLayer;
class Router;

struct LayerRouter {
  int64_t layer;
  Router* router;
};

// One of the layers that use a tied weight.
struct TiedUse {
  int64_t place;  // in the model: 0 the embedding, 1 + i decoder layer i, then the head
  Parameter* parameter;
};

// A weight that several layers use, on any stages, the first of which owns it. Both lists in the
// order of the model.
struct Tie {
  std::vector<int64_t> places;  // of all uses, on all ranks, as TiedUse has them
  std::vector<TiedUse> uses;    // on this rank; without the owner they are copies of it

  // A use by the layer at `place`, which may be on another rank: then `here` is null. Called on
  // every rank, the owner first.
  void add(int64_t place, Parameter* here);
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

  // Normal with the config's deviation, norms one, biases zero, low-rank updates as PEFT begins
  // them; the same numbers in any layout.
  void initialize(uint64_t seed);
  void initialize_adapters(uint64_t seed);  // the updates alone
  // What a Hugging Face directory holds, as far as this rank does; without low-rank updates.
  std::vector<NamedSlice> weights() const;
  // What an adapter's file holds, likewise.
  std::vector<NamedSlice> adapter_weights() const;
  bool has_adapters() const { return !adapters_.empty(); }
  // Whether the updates count; else the model is the one that they are added to. Between steps.
  void switch_adapters(bool on);
  // What its stages hand on to each other.
  StageBorders borders(const Placement& placement) const;
  // The same on every rank but for the uses.
  std::vector<Tie>& ties() { return ties_; }

  // Of a whole model in one chunk.
  // tokens [batch, seq] int64 -> [batch, seq, vocab], without gradients.
  at::Tensor logits(const at::Tensor& tokens);

 private:
  void tie(EmbeddingLayer* embedding, HeadLayer* head);
  void freeze(const ModelSettings& settings);
  bool is_in_adapter(const Parameter* parameter) const { return factors_.contains(parameter); }

  ModelConfig config_;
  at::TensorOptions options_;
  std::vector<StageLayers> stages_;
  std::unique_ptr<Dispatcher> dispatcher_;  // of all layers
  std::vector<Chunk> chunks_;
  std::vector<Parameter*> parameters_;
  std::vector<Adapter*> adapters_;
  std::set<const Parameter*> factors_;  // of the adapters
  std::vector<LayerRouter> routers_;
  std::vector<Tie> ties_;
};

}  // namespace moetron
