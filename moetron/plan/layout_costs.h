// What a layout takes at least, in far less time than a simulation: sums over layers that are
// alike.
#pragma once

#include <array>
#include <vector>

#include "moetron/plan/activations.h"
#include "moetron/plan/balance.h"
#include "moetron/plan/held_counts.h"
#include "moetron/plan/memory.h"
#include "moetron/plan/model_costs.h"

namespace moetron {

// Seconds of one micro-batch in a stage.
struct StageTimes {
  double forward = 0, backward_input = 0, backward_weight = 0;  // computing
  double travel_forward = 0, travel_backward = 0;  // to experts and back, but for what goes again
  // Computing that may run beside what travels where an F or a B is alone.
  double beside_forward = 0, beside_backward = 0;

  double compute() const { return forward + backward_input + backward_weight; }
  void add(const StageTimes& other, double count);
};

// Of one spec: a mesh, a micro-batch, a dispatcher and a kind of recompute. The optimizer's fields
// of the spec are read where an update or memory is asked for.
class LayoutCosts {
 public:
  // `parameters`: of the stages that parts_of() lists. The hardware must outlive this.
  LayoutCosts(const RunSpec& spec, const Hardware& hardware,
              const std::vector<StageParameters>& parameters);

  // Stages of which the parameters of a LayoutCosts are: a layer of each kind that the model has,
  // then the embedding and the head.
  static std::vector<StageLayers> parts_of(const RunSpec& spec);

  StageTimes times(const StageLayers& stage) const;
  StageParameters parameters(const StageLayers& stage) const;

  // What the stages of such a schedule are balanced by: seconds of a micro-batch.
  PartCosts part_costs(ScheduleKind kind) const;
  // Seconds that no step of this schedule undercuts, the optimizer left out: what each rank has to
  // do, behind the forwards and before the input gradients that others have to do.
  double least_makespan(const std::vector<StageLayers>& stages,
                        const ScheduleRequest& request) const;
  double update(const RunSpec& spec, const std::vector<StageLayers>& stages,
                const Placement& placement) const;
  // By rank, as memory_of() counts it; at least that under dualpipev+.
  std::vector<RankMemory> memory(const RunSpec& spec, const std::vector<StageLayers>& stages,
                                 const Placement& placement,
                                 const std::vector<HeldCounts>& counts) const;

 private:
  struct Part {
    StageTimes times;
    StageParameters parameters;
    HeldOfChunk held;
    std::array<PassingBytes, 2> passing;  // of lone steps, of blocks
  };

  // Calls visit(part, how often the stage has it).
  template <class Visit>
  void visit_parts(const StageLayers& stage, const Visit& visit) const;
  // Seconds of an F or B whose parts travel so long, beside some of which there is something to do.
  double alone(double compute, double travel, double beside) const;
  double busy(const StageTimes& times, bool has_lone_steps) const;

  const Hardware& hardware_;
  double compute_rate_;      // beside communication
  std::vector<Part> parts_;  // as parts_of() lists them
  // By kind of layer, in how many layers before each layer it is.
  std::vector<std::vector<int64_t>> layers_before_;
};

}  // namespace moetron
