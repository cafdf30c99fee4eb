#include "moetron/plan/model_costs.h"

#include <algorithm>
#include <array>

#include "moetron/schedule/stage_border.h"

namespace moetron {
namespace {

// Actions and steps of so many chunks, told apart but for their micro-batches.
constexpr size_t num_actions(size_t num_chunks) {
  return 5 * num_chunks * 3;
}
constexpr size_t num_steps(size_t num_chunks) {
  return num_actions(num_chunks) * (num_actions(num_chunks) + 1);
}

size_t number_of(const Action& action, size_t num_chunks) {
  const auto kind = static_cast<size_t>(action.kind);
  return (kind * num_chunks + static_cast<size_t>(action.chunk)) * 3 +
         static_cast<size_t>(action.part);
}

size_t number_of(const Step& step, size_t num_chunks) {
  const size_t beside = step.beside ? number_of(*step.beside, num_chunks) + 1 : 0;
  return number_of(step.action, num_chunks) * (num_actions(num_chunks) + 1) + beside;
}

// Bytes/s of a ring over so many ranks that lie `stride` apart.
double ring_rate(const Hardware& hardware, int64_t ranks, int64_t stride) {
  return ranks * stride <= hardware.gpus_per_node ? hardware.node_rate : hardware.network_rate;
}

// Bytes that a ring moves past each rank to scatter the sums of `bytes`, or to gather them.
double ring_bytes(double bytes, int64_t ranks) {
  return bytes * static_cast<double>(ranks - 1) / static_cast<double>(ranks);
}

// Scatters (or gathers) so many bytes a parameter among the parameters' replicas.
double replica_time(const RunSpec& spec, const Hardware& hardware,
                    const StageParameters& parameters, double bytes) {
  const ParallelSizes& sizes = spec.sizes;
  return ring_bytes(bytes * parameters.dense_grads, sizes.dp) /
             ring_rate(hardware, sizes.dp, sizes.tp) +
         ring_bytes(bytes * parameters.expert_grads, sizes.edp) /
             ring_rate(hardware, sizes.edp, sizes.tpe * sizes.ep);
}

ChunkTimes chunk_times(const RunSpec& spec, const Hardware& hardware, const StageLayers& stage,
                       const StageParameters& parameters, const TimesByKind& times) {
  ChunkTimes chunk;
  for (int64_t layer = stage.first; layer < stage.first + stage.count; ++layer)
    chunk.layers.push_back(times.at(spec.model.is_moe_layer(layer) ? 1 : 0));
  if (stage.has_embedding) chunk.embedding = embedding_times(spec, hardware);
  if (stage.has_head) chunk.head = head_times(spec, hardware);
  chunk.reduce = reduce_time(spec, hardware, parameters);
  return chunk;
}

// A message between the same places of two stages.
double message_time(const RunSpec& spec, const Hardware& hardware, int from, int to) {
  const int64_t stride = spec.sizes.world / spec.sizes.pp;
  const bool same_node =
      from * stride / hardware.gpus_per_node == to * stride / hardware.gpus_per_node;
  const double bytes = bytes_of(handed_on(spec.model, spec.dtype), spec.tokens_per_rank());
  return hardware.message_latency +
         bytes / (same_node ? hardware.node_rate : hardware.network_rate);
}

}  // namespace

TimesByKind times_by_kind(const RunSpec& spec, const Hardware& hardware) {
  TimesByKind times{layer_times(spec, hardware, /*has_experts=*/false)};
  if (!spec.model.moe) return times;
  LayerTimes& sparse = times[1] = layer_times(spec, hardware, /*has_experts=*/true);
  // The first of two products, twice as wide as the second.
  if (spec.recompute.kind == Recompute::kExpertProduct)
    sparse.experts.backward_input += 2.0 / 3 * sparse.experts.forward;
  return times;
}

ModelCosts::ModelCosts(const RunSpec& spec, const Hardware& hardware, const Schedule& schedule,
                       const std::vector<StageLayers>& stages,
                       const std::vector<StageParameters>& parameters)
    : num_chunks_(size_t(schedule.placement.num_chunks())), costs_(schedule.steps.size()) {
  const Placement& placement = schedule.placement;
  const double compute_rate = 1 - hardware.dispatch_multiprocessors / hardware.multiprocessors;
  const ProgramSettings settings{.lone_steps_wait = spec.experts.lone_steps_wait,
                                 .compute_rate = compute_rate,
                                 .recompute = spec.recompute.of_chunks()};
  std::vector<ChunkTimes> chunks;  // by stage
  const TimesByKind times = times_by_kind(spec, hardware);
  for (size_t i = 0; i < stages.size(); ++i)
    chunks.push_back(chunk_times(spec, hardware, stages[i], parameters[i], times));
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    const auto chunk_of = [&](const Action& action) -> const ChunkTimes& {
      return chunks[size_t(placement.stage(rank, action.chunk))];
    };
    std::vector<StepCost>& costs = costs_[size_t(rank)];
    costs.resize(num_steps(num_chunks_));
    std::vector<bool> is_known(costs.size(), false);
    for (const Step& step : schedule.steps[size_t(rank)]) {
      const size_t number = number_of(step, num_chunks_);
      if (is_known[number]) continue;
      is_known[number] = true;
      costs[number] = step_cost(step, chunk_of(step.action),
                                chunk_of(step.beside.value_or(step.action)), settings);
    }
  }
  for (int stage = 0; stage < placement.num_stages(); ++stage) {
    const auto time_to = [&](int other) {
      const int to = std::clamp(other, 0, placement.num_stages() - 1);
      return message_time(spec, hardware, placement.rank(stage), placement.rank(to));
    };
    transfers_.push_back({time_to(stage + 1), time_to(stage - 1)});
  }
}

StepCost ModelCosts::step(int rank, const Step& step) const {
  return costs_[size_t(rank)][number_of(step, num_chunks_)];
}

double ModelCosts::transfer(const Message& message) const {
  return transfers_[size_t(message.from_stage)][message.is_forward ? 0 : 1];
}

double reduce_time(const RunSpec& spec, const Hardware& hardware,
                   const StageParameters& parameters) {
  // Without a distributed optimizer the sums are gathered again.
  const double bytes = spec.optimizer.distributed ? 4 : 8;
  return replica_time(spec, hardware, parameters, bytes);
}

double update_time(const RunSpec& spec, const Hardware& hardware,
                   const StageParameters& parameters) {
  constexpr double kAdamBytes = 30;  // three fp32 states read and written, gradient, bf16 copy
  const double on_host =
      spec.optimizer.is_hybrid ? spec.optimizer.host_fraction * parameters.updated : 0;
  // Both at the same time.
  const double update = std::max(kAdamBytes * (parameters.updated - on_host) / hardware.memory_rate,
                                 on_host / hardware.adam_rate);
  if (!spec.optimizer.distributed) return update;
  return update + replica_time(spec, hardware, parameters, 2);
}

double slowest_update(const RunSpec& spec, const Hardware& hardware, const Placement& placement,
                      const std::vector<StageParameters>& parameters) {
  double most = 0;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    double of_rank = 0;
    for (int chunk = 0; chunk < placement.num_chunks(); ++chunk)
      of_rank += update_time(spec, hardware, parameters[size_t(placement.stage(rank, chunk))]);
    most = std::max(most, of_rank);
  }
  return most;
}

}  // namespace moetron
