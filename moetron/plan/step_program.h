// What the steps of a schedule take: their instructions, timed.
#pragma once

#include "moetron/plan/layer_times.h"
#include "moetron/plan/two_streams.h"
#include "moetron/schedule/costs.h"
#include "moetron/schedule/recompute.h"

namespace moetron {

// What a chunk holds, from its first layer to its last.
struct ChunkTimes {
  std::vector<LayerTimes> layers;
  PartTimes embedding;  // 0 where another stage has it
  PartTimes head;
  double reduce = 0;  // of the gradients over their replicas
};

struct ProgramSettings {
  // Steps that are no blocks, and fill no waits, compute nothing while something travels.
  bool lone_steps_wait = false;
  double compute_rate = 1;  // beside communication
  RecomputeSettings recompute;
};

// The program of the layer that takes so long: the one that the model's layer has.
const LayerProgram& program_of(const LayerTimes& layer);

// Seconds of a step whose actions are of these chunks: of the list that the executor runs
// (schedule/instructions.h).
StepCost step_cost(const Step& step, const ChunkTimes& action_chunk, const ChunkTimes& beside_chunk,
                   const ProgramSettings& settings);

}  // namespace moetron
