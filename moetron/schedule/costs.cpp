#include "moetron/schedule/costs.h"

#include <algorithm>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Of an action, in units of a chunk's F.
double compute_of(const Action& action) {
  switch (action.kind) {
    case ActionKind::kForward:
    case ActionKind::kBackwardInput:
      return 1;
    case ActionKind::kBackwardWeight:
      return action.part == Part::kWhole ? 1 : 0.5;
    case ActionKind::kBackward:
      return 2;
    case ActionKind::kReduce:
      return 0;
  }
  throw InternalError("unknown kind of action");
}

bool communicates(const Action& action) {
  return action.kind != ActionKind::kBackwardWeight && action.kind != ActionKind::kReduce;
}

}  // namespace

UnitCosts::UnitCosts(const Placement& placement, double communication)
    : chunk_units_(2.0 / placement.num_chunks()), communication_(communication * chunk_units_) {}

StepCost UnitCosts::step(int, const Step& step) const {
  const double compute = chunk_units_ * compute_of(step.action);
  const double beside = step.beside ? chunk_units_ * compute_of(*step.beside) : 0;
  const double waits = communicates(step.action) ? communication_ : 0;
  const bool both_wait = step.beside && communicates(*step.beside);
  StepCost cost;
  cost.communication = both_wait ? waits + communication_ : waits;
  cost.duration = both_wait ? std::max(compute + beside, cost.communication)
                            : compute + std::max(beside, waits);
  cost.exposed = cost.duration - compute - beside;
  // What is done beside an action delays its results, for both go layer by layer.
  cost.action_sent = cost.beside_sent = cost.duration;
  return cost;
}

}  // namespace moetron
