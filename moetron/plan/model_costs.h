// What the steps of a schedule cost a real model on real hardware, in seconds.
#pragma once

#include <array>

#include "moetron/arch/stage_layers.h"
#include "moetron/plan/memory.h"
#include "moetron/plan/step_program.h"
#include "moetron/schedule/costs.h"

namespace moetron {

// Of dense layers and of layers with experts, which are alike; empty where the model has none.
using TimesByKind = std::array<LayerTimes, 2>;
TimesByKind times_by_kind(const RunSpec& spec, const Hardware& hardware);

class ModelCosts final : public CostModel {
 public:
  // Of the steps that the schedule takes. `stages` and `parameters` are by stage.
  ModelCosts(const RunSpec& spec, const Hardware& hardware, const Schedule& schedule,
             const std::vector<StageLayers>& stages,
             const std::vector<StageParameters>& parameters);

  StepCost step(int rank, const Step& step) const override;
  double transfer(const Message& message) const override;

 private:
  size_t num_chunks_;                           // of a rank
  std::vector<std::vector<StepCost>> costs_;    // by rank and kind of step
  std::vector<std::vector<double>> transfers_;  // by stage: to the next, to the previous
};

// Seconds that the gradients of a stage take to be summed over their replicas.
double reduce_time(const RunSpec& spec, const Hardware& hardware,
                   const StageParameters& parameters);
// And what follows once a step: the optimizer and, where its states are divided, the gathering of
// the new parameters.
double update_time(const RunSpec& spec, const Hardware& hardware,
                   const StageParameters& parameters);
// The same of the rank that takes longest, of which a step waits: `parameters` by stage.
double slowest_update(const RunSpec& spec, const Hardware& hardware, const Placement& placement,
                      const std::vector<StageParameters>& parameters);

}  // namespace moetron
