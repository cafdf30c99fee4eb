#include "moetron/models/model.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/arch/initial_std.h"
#include "moetron/arch/tensors.h"
#include "moetron/autograd/adapter.h"
#include "moetron/base/error.h"
#include "moetron/models/ends.h"
#include "moetron/models/family.h"
#include "moetron/models/transformer_layer.h"
#include "moetron/pipeline/block.h"

namespace moetron {

void Tie::add(int64_t place, Parameter* here) {
  const auto is_before = [](const TiedUse& use, int64_t other) { return use.place < other; };
  MT_CHECK(places.empty() || place > places.front(), "the use of a weight at place ", place,
           " cannot come before its owner's");
  places.insert(std::lower_bound(places.begin(), places.end(), place), place);
  if (here == nullptr) return;
  const bool is_owner = places.size() == 1;
  const bool is_owner_here = !uses.empty() && uses.front().place == places.front();
  if (is_owner_here) here->tie_to(*uses.front().parameter);
  if (!is_owner && !is_owner_here) here->become_copy();
  uses.insert(std::lower_bound(uses.begin(), uses.end(), place, is_before), {place, here});
}

Model::Model(const ModelConfig& config, const ModelSettings& given)
    : config_(config), options_(given.options), stages_(given.stages) {
  ModelSettings settings = given;
  dispatcher_ = make_rank_dispatcher(config, settings);
  settings.rank_dispatcher = dispatcher_.get();
  if (stages_.empty()) {
    stages_ = {{.count = config.num_layers, .has_embedding = true, .has_head = true}};
  }
  const OperatorChoice operators = settings.operator_choice();
  EmbeddingLayer* embedding = nullptr;
  HeadLayer* head = nullptr;
  for (const StageLayers& stage : stages_) {
    std::vector<std::unique_ptr<Layer>> layers;
    if (stage.has_embedding) {
      auto made = std::make_unique<EmbeddingLayer>(config.vocab_size, config.hidden_size, settings);
      embedding = made.get();
      layers.push_back(std::move(made));
    }
    for (int64_t index = stage.first; index < stage.first + stage.count; ++index) {
      BuiltLayer built = make_layer(config, index, settings);
      if (built.router != nullptr) routers_.push_back({index, built.router});
      layers.push_back(std::move(built.layer));
    }
    if (stage.has_head) {
      auto made = std::make_unique<HeadLayer>(config.vocab_size, config.hidden_size,
                                              config.rms_norm_eps, settings);
      head = made.get();
      layers.push_back(std::move(made));
    }
    chunks_.push_back({std::move(layers), settings.recompute.of_chunks(), operators});
  }
  if (config.tie_word_embeddings) tie(embedding, head);
  for (const Chunk& chunk : chunks_) {
    for (const auto& layer : chunk.layers) {
      layer->visit([this](Parameter& parameter) {
        parameters_.push_back(&parameter);
        for (const auto& adapter : parameter.adapters()) {
          adapters_.push_back(adapter.get());
          factors_.insert({&adapter->a, &adapter->b});
        }
      });
    }
  }
  freeze(settings);
}

// The copies of a tied weight follow their owner, which may be on another rank.
void Model::freeze(const ModelSettings& settings) {
  for (Parameter* parameter : parameters_) {
    if (parameter->is_tied() || is_in_adapter(parameter)) continue;
    const bool is_copy = parameter->role() == Role::kCopy;
    const std::string name = is_copy                       ? tensors::kEmbedding.name
                             : parameter->pieces().empty() ? parameter->label()
                                                           : parameter->pieces().front().name;
    if (settings.lora || settings.frozen.contains(name)) parameter->freeze();
  }
}

// Either may be on another rank.
void Model::tie(EmbeddingLayer* embedding, HeadLayer* head) {
  Tie& tie = ties_.emplace_back();
  tie.add(0, embedding != nullptr ? &embedding->table() : nullptr);
  tie.add(1 + config_.num_layers, head != nullptr ? &head->weight() : nullptr);
}

void Model::initialize(uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (Parameter* parameter : parameters_) {
    if (is_in_adapter(parameter)) continue;
    const auto& pieces = parameter->pieces();  // of one kind; none: it is initialized elsewhere
    const std::string name = pieces.empty() ? "" : pieces.front().name;
    parameter->initialize(seed, initial_std(config_, name));
  }
  initialize_adapters(seed);
}

void Model::initialize_adapters(uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (Adapter* adapter : adapters_) {
    adapter->a.initialize(seed, 0);
    adapter->b.initialize(seed, 0);
  }
}

void Model::switch_adapters(bool on) {
  for (Adapter* adapter : adapters_) adapter->is_on = on;
}

namespace {

void append_values(const Parameter& parameter, std::vector<NamedSlice>& all) {
  for (NamedSlice& slice : parameter.slices(parameter.value())) all.push_back(std::move(slice));
}

}  // namespace

std::vector<NamedSlice> Model::weights() const {
  std::vector<NamedSlice> all;
  for (const Parameter* parameter : parameters_)
    if (!is_in_adapter(parameter)) append_values(*parameter, all);
  return all;
}

std::vector<NamedSlice> Model::adapter_weights() const {
  std::vector<NamedSlice> all;
  for (const Adapter* adapter : adapters_) {
    append_values(adapter->a, all);
    append_values(adapter->b, all);
  }
  return all;
}

StageBorders Model::borders(const Placement& placement) const {
  const Dtype dtype = options_.dtype() == at::kBFloat16 ? Dtype::kBf16 : Dtype::kFp32;
  return StageBorders(static_cast<size_t>(placement.num_stages() - 1), handed_on(config_, dtype));
}

at::Tensor Model::logits(const at::Tensor& tokens) {
  MT_CHECK(chunks_.size() == 1 && stages_[0].has_embedding && stages_[0].has_head,
           "logits of a model that is divided into stages");
  const MicroBatch micro_batch = make_micro_batch(tokens.to(options_.device()));
  ChunkRun run(chunks_[0], micro_batch);
  const std::vector<Value> outputs = forward_chunk(run, {}, {.with_grad = false});
  return outputs.at(0).data.unflatten(0, {tokens.size(0), -1});
}

}  // namespace moetron
