#include "moetron/plan/layout_costs.h"

#include <algorithm>

namespace moetron {
namespace {

bool is_in_fp8(const RunSpec& spec, int64_t layer) {
  return spec.fp8 && spec.fp8->has_layer(layer);
}

// Layers of one kind are alike.
size_t kind_of(const RunSpec& spec, int64_t layer) {
  return (spec.model.is_moe_layer(layer) ? 2U : 0U) + (is_in_fp8(spec, layer) ? 1U : 0U);
}
constexpr size_t kNumKinds = 4;

// The first layer of each kind that the model has, in the order of the kinds.
std::vector<int64_t> first_layers(const RunSpec& spec) {
  std::array<int64_t, kNumKinds> first{-1, -1, -1, -1};
  for (int64_t layer = spec.model.num_layers - 1; layer >= 0; --layer)
    first.at(kind_of(spec, layer)) = layer;
  std::vector<int64_t> found(first.begin(), first.end());
  std::erase(found, -1);
  return found;
}

StageTimes times_of_layer(const LayerTimes& layer, const RecomputeSpec& recompute) {
  StageTimes times;
  for (const PartTimes& part : {layer.attention, layer.experts, layer.shared}) {
    times.forward += part.forward;
    times.backward_input += part.backward_input;
    times.backward_weight += part.backward_weight;
  }
  times.travel_forward = times.travel_backward = 2 * layer.dispatch;
  times.beside_forward = layer.shared.forward;
  times.beside_backward = layer.shared.backward_input + times.backward_weight;
  if (recompute.kind == Recompute::kLayer) {
    times.backward_input += times.forward;
    times.beside_backward += times.forward;
  }
  if (recompute.kind == Recompute::kMoeLayer && layer.has_experts) {
    times.backward_input += layer.experts.forward + layer.shared.forward;
    times.beside_backward += layer.experts.forward + layer.shared.forward;
  }
  return times;
}

StageTimes times_of_end(const PartTimes& end) {
  return {.forward = end.forward,
          .backward_input = end.backward_input,
          .backward_weight = end.backward_weight,
          .beside_backward = end.backward_weight};
}

// Whether every backward is one action, which hands its input gradients on at its end.
bool has_whole_backwards(ScheduleKind kind) {
  return kind == ScheduleKind::k1F1B || kind == ScheduleKind::kInterleaved ||
         kind == ScheduleKind::kGPipe;
}

}  // namespace

void StageTimes::add(const StageTimes& other, double count) {
  forward += count * other.forward;
  backward_input += count * other.backward_input;
  backward_weight += count * other.backward_weight;
  travel_forward += count * other.travel_forward;
  travel_backward += count * other.travel_backward;
  beside_forward += count * other.beside_forward;
  beside_backward += count * other.beside_backward;
}

std::vector<StageLayers> LayoutCosts::parts_of(const RunSpec& spec) {
  std::vector<StageLayers> parts;
  for (const int64_t layer : first_layers(spec)) parts.push_back({layer, 1, false, false});
  parts.push_back({0, 0, true, false});
  parts.push_back({0, 0, false, true});
  return parts;
}

LayoutCosts::LayoutCosts(const RunSpec& spec, const Hardware& hardware,
                         const std::vector<StageParameters>& parameters)
    : hardware_(hardware),
      compute_rate_(1 - hardware.dispatch_multiprocessors / hardware.multiprocessors) {
  const TimesByKind by_kind = times_by_kind(spec, hardware);
  const std::vector<StageLayers> parts = parts_of(spec);
  for (size_t i = 0; i < parts.size(); ++i) {
    const StageLayers& stage = parts[i];
    Part part{.parameters = parameters[i], .held = activation_bytes(spec, stage)};
    for (const bool in_blocks : {false, true})
      part.passing.at(in_blocks ? 1 : 0) = passing_bytes(spec, stage, in_blocks);
    if (stage.has_embedding) {
      part.times = times_of_end(embedding_times(spec, hardware));
    } else if (stage.has_head) {
      part.times = times_of_end(head_times(spec, hardware));
    } else {
      const bool is_moe = spec.model.is_moe_layer(stage.first);
      part.times = times_of_layer(by_kind.at(is_moe ? 1 : 0), spec.recompute);
    }
    parts_.push_back(part);
  }
  for (const int64_t first : first_layers(spec)) {
    std::vector<int64_t>& before = layers_before_.emplace_back(1);
    for (int64_t layer = 0; layer < spec.model.num_layers; ++layer)
      before.push_back(before.back() + (kind_of(spec, layer) == kind_of(spec, first) ? 1 : 0));
  }
}

template <class Visit>
void LayoutCosts::visit_parts(const StageLayers& stage, const Visit& visit) const {
  const auto begin = static_cast<size_t>(stage.first);
  const auto end = static_cast<size_t>(stage.first + stage.count);
  const size_t num_kinds = layers_before_.size();
  for (size_t kind = 0; kind < num_kinds; ++kind) {
    const int64_t count = layers_before_[kind][end] - layers_before_[kind][begin];
    if (count > 0) visit(parts_[kind], static_cast<double>(count));
  }
  if (stage.has_embedding) visit(parts_[num_kinds], 1.0);
  if (stage.has_head) visit(parts_[num_kinds + 1], 1.0);
}

StageTimes LayoutCosts::times(const StageLayers& stage) const {
  StageTimes sum;
  visit_parts(stage, [&](const Part& part, double count) { sum.add(part.times, count); });
  return sum;
}

StageParameters LayoutCosts::parameters(const StageLayers& stage) const {
  StageParameters sum;
  visit_parts(stage, [&](const Part& part, double count) { sum.add(part.parameters, count); });
  return sum;
}

double LayoutCosts::alone(double compute, double travel, double beside) const {
  const double exposed = std::max(0.0, travel - beside / compute_rate_);
  return compute + exposed + (1 - compute_rate_) * (travel - exposed);
}

double LayoutCosts::busy(const StageTimes& times, bool has_lone_steps) const {
  const double travel = times.travel_forward + times.travel_backward;
  if (!has_lone_steps) return std::max(travel, alone(times.compute(), travel, times.compute()));
  return alone(times.forward, times.travel_forward, times.beside_forward) +
         alone(times.backward_input + times.backward_weight, times.travel_backward,
               times.beside_backward);
}

PartCosts LayoutCosts::part_costs(ScheduleKind kind) const {
  const bool has_lone_steps = has_whole_backwards(kind);
  const size_t num_kinds = layers_before_.size();
  PartCosts costs;
  costs.embedding = parts_[num_kinds].times.compute();
  costs.head = parts_[num_kinds + 1].times.compute();
  for (size_t layer = 0; layer < layers_before_[0].size(); ++layer) {
    double before = 0;
    for (size_t of_kind = 0; of_kind < num_kinds; ++of_kind) {
      before += static_cast<double>(layers_before_[of_kind][layer]) *
                busy(parts_[of_kind].times, has_lone_steps);
    }
    costs.layers_before.push_back(before);
  }
  return costs;
}

double LayoutCosts::least_makespan(const std::vector<StageLayers>& stages,
                                   const ScheduleRequest& request) const {
  const Placement placement = placement_of(request);
  const bool has_lone_steps = has_whole_backwards(request.kind);
  double most = 0, forwards_before = 0, input_grads_before = 0;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    StageTimes sum;
    for (int chunk = 0; chunk < placement.num_chunks(); ++chunk)
      sum.add(times(stages[static_cast<size_t>(placement.stage(rank, chunk))]), 1);
    // Whose first chunk is stage `rank` in every placement.
    const StageTimes first = times(stages[static_cast<size_t>(rank)]);
    double time = forwards_before + request.num_micro_batches * busy(sum, has_lone_steps);
    if (has_lone_steps) time += std::max(0.0, input_grads_before - first.backward_weight);
    most = std::max(most, time);
    forwards_before += alone(first.forward, first.travel_forward, first.beside_forward);
    input_grads_before += first.backward_input;
  }
  return most;
}

double LayoutCosts::update(const RunSpec& spec, const std::vector<StageLayers>& stages,
                           const Placement& placement) const {
  std::vector<StageParameters> by_stage;
  by_stage.reserve(stages.size());
  for (const StageLayers& stage : stages) by_stage.push_back(parameters(stage));
  return slowest_update(spec, hardware_, placement, by_stage);
}

std::vector<RankMemory> LayoutCosts::memory(const RunSpec& spec,
                                            const std::vector<StageLayers>& stages,
                                            const Placement& placement,
                                            const std::vector<HeldCounts>& counts) const {
  std::vector<RankMemory> ranks(static_cast<size_t>(placement.num_ranks()));
  std::vector<HeldOfChunk> by_chunk(static_cast<size_t>(placement.num_chunks()));
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    RankMemory& memory = ranks[static_cast<size_t>(rank)];
    const HeldCounts& held = counts[static_cast<size_t>(rank)];
    memory.runtime = runtime_bytes(spec.sizes);
    for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
      const StageLayers& stage = stages[static_cast<size_t>(placement.stage(rank, chunk))];
      HeldOfChunk& of_chunk = by_chunk[static_cast<size_t>(chunk)];
      of_chunk = {};
      visit_parts(stage, [&](const Part& part, double count) {
        of_chunk.from_forward += count * part.held.from_forward;
        of_chunk.from_input_grads += count * part.held.from_input_grads;
        const PassingBytes& passing = part.passing.at(held.in_blocks() ? 1 : 0);
        memory.working = std::max(memory.working, passing.working);
        memory.travelling = std::max(memory.travelling, passing.travelling);
      });
      add_parameters(spec, parameters(stage), placement.rank(0) != rank, memory);
    }
    memory.activations = held.peak(by_chunk);
  }
  return ranks;
}

}  // namespace moetron
