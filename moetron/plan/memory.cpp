#include "moetron/plan/memory.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "moetron/arch/inventory.h"
#include "moetron/arch/logits.h"
#include "moetron/base/units.h"
#include "moetron/plan/activations.h"

namespace moetron {
namespace {

class ParameterCounter {
 public:
  explicit ParameterCounter(const RunSpec& spec)
      : spec_(spec),
        settings_(division_settings(spec.model, spec.latent_attention.replicate_down)) {}

  // `count`: tensors that are like this one; of experts all of the model's. With the tensor's
  // low-rank update.
  void add(const TensorInfo& tensor, double count, StageParameters& sum) const {
    const double held = add_to_kind(tensor, count, is_trained(tensor), sum);
    const bool is_router = tensor.name.ends_with(router_);
    const bool has_products = tensor.layer >= 0 && tensor.shape.size() > 1 && !is_router;
    if (has_products && !tensor.is_buffer) sum.in_fp8 += held;
    if (!spec_.lora) return;
    for (const TensorInfo& factor : lora_tensors(*spec_.lora, tensor))
      add_to_kind(factor, count, /*trained=*/true, sum);
  }

  bool is_trained(const TensorInfo& tensor) const {
    return !spec_.lora && !spec_.frozen.contains(tensor.name);
  }

  StageParameters layer(int64_t index) const {
    StageParameters sum;
    for (const TensorInfo& tensor : layer_tensors(spec_.model, index))
      add(tensor, tensor.is_expert() ? as_double(spec_.model.moe->num_experts) : 1, sum);
    return sum;
  }

  double elements(const TensorInfo& tensor) const {
    return as_double(elements_on_rank(tensor, spec_.sizes, settings_));
  }

 private:
  // -> the elements held
  double add_to_kind(const TensorInfo& tensor, double count, bool trained,
                     StageParameters& sum) const {
    // The ranks of an expert-parallel group hold other experts each.
    const double ranks = tensor.is_expert() ? as_double(spec_.sizes.ep) : 1;
    const double held = elements(tensor) * count / ranks;
    if (tensor.is_buffer) {
      sum.buffers += held;
      return held;
    }
    (tensor.is_expert() ? sum.experts : sum.dense) += held;
    if (!trained) return held;
    (tensor.is_expert() ? sum.expert_grads : sum.dense_grads) += held;
    const int64_t owners =
        spec_.optimizer.distributed ? copies_on_ranks(tensor, spec_.sizes, settings_) : 1;
    sum.updated += held / as_double(owners);
    return held;
  }

  const RunSpec& spec_;
  DivisionSettings settings_;
  const std::string router_ = std::string(tensors::kRouter) + tensors::kRouterWeight.name;
};

void add_ends(const RunSpec& spec, const ParameterCounter& counter,
              const std::vector<StageLayers>& stages, std::vector<StageParameters>& all) {
  for (const TensorInfo& tensor : end_tensors(spec.model)) {
    const bool is_embedding = tensor.name == tensors::kEmbedding.name;
    for (size_t i = 0; i < stages.size(); ++i) {
      const bool is_tied = is_embedding && spec.model.tie_word_embeddings;
      if (is_tied && stages[i].has_head) {
        all[i].tied += counter.elements(tensor);
        if (counter.is_trained(tensor)) all[i].tied_grads += counter.elements(tensor);
      }
      if (is_embedding ? stages[i].has_embedding : stages[i].has_head)
        counter.add(tensor, 1, all[i]);
    }
  }
}

// What MTP layers have beside a layer: the product that joins hidden state and embedding, three
// norms, and a copy of the embedding, which is one whatever their number.
void add_mtp(const RunSpec& spec, std::vector<StageParameters>& all,
             const std::vector<StageLayers>& stages) {
  const auto num_mtp = as_double(spec.model.num_mtp_layers);
  const auto hidden = as_double(spec.model.hidden_size);
  for (size_t i = 0; i < stages.size(); ++i) {
    if (!stages[i].has_head || num_mtp == 0) continue;
    const double held = num_mtp * (2 * hidden * hidden + 3 * hidden);
    all[i].dense += held;
    all[i].dense_grads += held;
    all[i].updated += held / (spec.optimizer.distributed ? as_double(spec.sizes.dp) : 1);
    if (spec.model.tie_word_embeddings) continue;
    const double copy = as_double(padded_part(spec.model.vocab_size, spec.sizes.tp)) * hidden;
    all[i].tied += copy;
    all[i].tied_grads += copy;
  }
}

// Estimates, not measurements: what a process with libtorch's libraries takes of a GPU before its
// first tensor, and NCCL for each group of several ranks.
constexpr double kContextBytes = 0.6e9;
constexpr double kGroupBytes = 0.3e9;

}  // namespace

void StageParameters::add(const StageParameters& other, double count) {
  dense += count * other.dense;
  experts += count * other.experts;
  buffers += count * other.buffers;
  dense_grads += count * other.dense_grads;
  expert_grads += count * other.expert_grads;
  tied_grads += count * other.tied_grads;
  updated += count * other.updated;
  tied += count * other.tied;
  in_fp8 += count * other.in_fp8;
}

double runtime_bytes(const ParallelSizes& sizes) {
  const std::array groups{sizes.world,          sizes.tp, sizes.dp, sizes.dp * sizes.tp, sizes.pp,
                          sizes.ep * sizes.tpe, sizes.edp};
  const auto count = std::count_if(groups.begin(), groups.end(), [](int64_t n) { return n > 1; });
  return kContextBytes + kGroupBytes * static_cast<double>(count);
}

bool has_blocks(const StepList& list) {
  return std::any_of(list.begin(), list.end(), [](const Step& step) {
    const StepActions actions = sorted_actions(step);
    return actions.forward && actions.backward;
  });
}

void add_parameters(const RunSpec& spec, const StageParameters& held, bool copies_table,
                    RankMemory& memory) {
  const double value = value_bytes(spec);
  memory.weights +=
      value * (held.dense + held.experts + (copies_table ? held.tied : 0)) + 4 * held.buffers;
  constexpr double kScaleBytes = 4.0 / (128 * 128);
  if (spec.fp8) memory.weights += 2 * (1 + kScaleBytes) * held.in_fp8;  // as it is, and turned
  memory.gradients += 4 * (held.dense_grads + held.expert_grads + held.tied_grads);
  const OptimizerSpec& optimizer = spec.optimizer;
  const double states = value == 4 ? 8 : 12;
  const double on_host = optimizer.is_hybrid ? optimizer.host_fraction * held.updated : 0;
  memory.optimizer += states * (held.updated - on_host);
  memory.host += (states + (optimizer.pin_host_memory ? 4 : 0)) * on_host;  // and the gradients
}

std::vector<StageParameters> stage_parameters(const RunSpec& spec,
                                              const std::vector<StageLayers>& stages) {
  const ParameterCounter counter(spec);
  std::vector<StageParameters> all(stages.size());
  std::array<std::optional<StageParameters>, 2> by_kind;  // dense layers, layers with experts
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageLayers& stage = stages[i];
    for (int64_t layer = stage.first; layer < stage.first + stage.count; ++layer) {
      std::optional<StageParameters>& known = by_kind.at(spec.model.is_moe_layer(layer) ? 1 : 0);
      const bool may_differ = !spec.frozen.empty();  // by the layer's number
      if (!known || may_differ) known = counter.layer(layer);
      StageParameters held = *known;
      if (!spec.fp8 || !spec.fp8->has_layer(layer)) held.in_fp8 = 0;
      all[i].add(held, 1);
    }
  }
  add_ends(spec, counter, stages, all);
  add_mtp(spec, all, stages);
  return all;
}

std::vector<RankMemory> memory_of(const RunSpec& spec, const Schedule& schedule,
                                  const std::vector<StageLayers>& stages,
                                  const std::vector<StageParameters>& parameters) {
  const Placement& placement = schedule.placement;
  std::vector<RankMemory> ranks(size_t(placement.num_ranks()));
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    RankMemory& memory = ranks[size_t(rank)];
    memory.runtime = runtime_bytes(spec.sizes);
    const StepList& list = schedule.steps[size_t(rank)];
    const bool in_blocks = has_blocks(list);
    const bool copies_table = placement.rank(0) != rank;  // the embedding is on the first stage
    std::vector<HeldOfChunk> by_chunk;
    for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
      const auto stage = size_t(placement.stage(rank, chunk));
      add_parameters(spec, parameters[stage], copies_table, memory);
      by_chunk.push_back(activation_bytes(spec, stages[stage]));
      const PassingBytes passing = passing_bytes(spec, stages[stage], in_blocks);
      memory.working = std::max(memory.working, passing.working);
      memory.travelling = std::max(memory.travelling, passing.travelling);
    }
    memory.activations = peak_held(list, by_chunk);
  }
  return ranks;
}

std::vector<RankMemory> memory_of(const RunSpec& spec) {
  const std::vector<StageLayers>& stages = spec.pipeline.stages;
  return memory_of(spec, make_schedule(spec.pipeline.request), stages,
                   stage_parameters(spec, stages));
}

int fullest_rank(const std::vector<RankMemory>& memory) {
  const auto fullest = std::max_element(
      memory.begin(), memory.end(),
      [](const RankMemory& a, const RankMemory& b) { return a.total() < b.total(); });
  return static_cast<int>(fullest - memory.begin());
}

}  // namespace moetron
