#include "moetron/plan/memory.h"

#include <algorithm>

#include "moetron/arch/inventory.h"
#include "moetron/schedule/simulate.h"

namespace moetron {
namespace {

constexpr double kValueBytes = 2;

double as_double(int64_t value) {
  return static_cast<double>(value);
}

bool is_on(const StageLayers& stage, const TensorInfo& tensor) {
  if (tensor.layer >= 0)
    return tensor.layer >= stage.first && tensor.layer < stage.first + stage.count;
  return tensor.name == tensors::kEmbedding.name ? stage.has_embedding : stage.has_head;
}

// Values per token that attention keeps: its input and the normed one, the projections, the output,
// the residual behind it and the normed one.
double attention_values(const RunSpec& spec, double tensor) {
  const ModelConfig& model = spec.model;
  const double hidden = as_double(model.hidden_size);
  const double heads = as_double(model.num_attention_heads) / tensor;
  const double query = heads * as_double(model.head_dim);
  const double value = heads * as_double(model.value_head_dim());
  double values = 4 * hidden / tensor + query + value;
  if (!model.mla) {
    const double groups = std::max(1.0, as_double(model.num_key_value_heads) / tensor);
    return values + 2 * groups * as_double(model.head_dim);
  }
  const MlaConfig& mla = *model.mla;
  const double latents = as_double(mla.q_lora_rank + mla.kv_lora_rank);
  values += query + value + 2 * (latents + as_double(mla.qk_rope_head_dim));
  return spec.latent_attention.recompute_norms ? values - hidden / tensor - latents : values;
}

double expert_values(const RunSpec& spec) {
  const MoeConfig& moe = *spec.model.moe;
  const double hidden = as_double(spec.model.hidden_size);
  const double width = as_double(moe.expert_intermediate_size) / as_double(spec.sizes.tpe);
  const double rows = as_double(moe.top_k * spec.sizes.tpe) / as_double(spec.sizes.tp);
  const double product = spec.recompute.kind == Recompute::kExpertProduct ? 0 : 2 * width;
  return rows * (hidden + product) +
         2 * as_double(moe.shared_intermediate_size) / as_double(spec.sizes.tp);
}

double layer_bytes(const RunSpec& spec, int64_t layer) {
  const ModelConfig& model = spec.model;
  const double tensor = as_double(spec.sizes.tp);
  const double input = as_double(model.hidden_size) / tensor;
  if (spec.recompute.kind == Recompute::kLayer)
    return kValueBytes * spec.tokens() * input / as_double(spec.recompute.layers_per_input);
  double values = attention_values(spec, tensor);
  if (!model.is_moe_layer(layer)) {
    values += 2 * as_double(model.intermediate_size) / tensor;
  } else if (spec.recompute.kind != Recompute::kMoeLayer) {
    values += expert_values(spec);
  }
  return kValueBytes * spec.tokens() * values;
}

}  // namespace

std::vector<StageParameters> stage_parameters(const RunSpec& spec,
                                              const std::vector<StageLayers>& stages) {
  std::vector<StageParameters> all(stages.size());
  const DivisionSettings settings =
      division_settings(spec.model, spec.latent_attention.replicate_down);
  for (const TensorInfo& tensor : tensor_inventory(spec.model)) {
    const double elements = as_double(elements_on_rank(tensor, spec.sizes, settings));
    const bool is_tied = spec.model.tie_word_embeddings && tensor.name == tensors::kEmbedding.name;
    for (size_t i = 0; i < stages.size(); ++i) {
      if (is_tied && stages[i].has_head) all[i].tied += elements;
      if (!is_on(stages[i], tensor)) continue;
      StageParameters& stage = all[i];
      if (tensor.is_buffer) {
        stage.buffers += elements;
        continue;
      }
      // The ranks of an expert-parallel group hold other experts each.
      const double held = tensor.is_expert() ? elements / as_double(spec.sizes.ep) : elements;
      (tensor.is_expert() ? stage.experts : stage.dense) += held;
      const int64_t owners =
          spec.optimizer.distributed ? copies_on_ranks(tensor, spec.sizes, settings) : 1;
      stage.updated += held / as_double(owners);
    }
  }
  return all;
}

double activation_bytes(const RunSpec& spec, const StageLayers& stage) {
  double bytes = 0;
  for (int64_t layer = stage.first; layer < stage.first + stage.count; ++layer)
    bytes += layer_bytes(spec, layer);
  // The normed hidden states and the logits' gradient, which is made in the forward.
  if (stage.has_head)
    bytes += kValueBytes * spec.tokens() *
             as_double(spec.model.hidden_size + spec.model.vocab_size) / as_double(spec.sizes.tp);
  return bytes;
}

std::vector<RankMemory> memory_of(const RunSpec& spec, const Schedule& schedule,
                                  const std::vector<StageLayers>& stages,
                                  const std::vector<StageParameters>& parameters) {
  const Placement& placement = schedule.placement;
  std::vector<RankMemory> ranks(size_t(placement.num_ranks()));
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    RankMemory& memory = ranks[size_t(rank)];
    std::vector<double> chunk_bytes;
    const bool copies_table = placement.rank(0) != rank;  // the embedding is on the first stage
    for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
      const auto stage = size_t(placement.stage(rank, chunk));
      const StageParameters& held = parameters[stage];
      memory.weights +=
          2 * (held.dense + held.experts + (copies_table ? held.tied : 0)) + 4 * held.buffers;
      memory.gradients += 4 * (held.dense + held.experts + held.tied);
      memory.optimizer += 12 * held.updated;
      chunk_bytes.push_back(activation_bytes(spec, stages[stage]));
    }
    memory.activations = peak_held(schedule.steps[size_t(rank)], chunk_bytes);
  }
  return ranks;
}

}  // namespace moetron
