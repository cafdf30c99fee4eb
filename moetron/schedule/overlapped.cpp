#include "moetron/schedule/overlapped.h"

#include "moetron/base/error.h"

namespace moetron {
namespace {

bool is_lone(const Step& step, ActionKind kind) {
  return step.action.kind == kind && !step.beside;
}

}  // namespace

void overlap_neighbours(Schedule& schedule) {
  const int num_ranks = schedule.placement.num_ranks();
  const bool is_possible = schedule.kind == ScheduleKind::kInterleaved ||
                           (schedule.kind == ScheduleKind::k1F1B && num_ranks == 1);
  MT_CHECK_CONFIG(is_possible, "overlap-neighbours (true) needs scheduler interleaved, not ",
                  name_of(schedule.kind), ", for pipeline-model-parallel-size (", num_ranks, ")");
  for (StepList& list : schedule.steps) {
    StepList merged;
    for (const Step& step : list) {
      const bool joins = is_lone(step, ActionKind::kForward) && !merged.empty() &&
                         is_lone(merged.back(), ActionKind::kBackward);
      if (joins) {
        merged.back() = {step.action, merged.back().action};
      } else {
        merged.push_back(step);
      }
    }
    list = std::move(merged);
  }
}

}  // namespace moetron
