#include "moetron/schedule/schedule.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/schedule/dualpipev_plus.h"
#include "moetron/schedule/step_lists.h"

namespace moetron {
namespace {

using Shape = Placement::Shape;

// What a kind is; only its peak needs more than a row.
struct KindTraits {
  ScheduleKind kind;
  const char* name;
  Shape shape;
  StepList (*list)(int num_ranks, int rank, int num_micro_batches);
};
constexpr KindTraits kKinds[] = {
    {ScheduleKind::k1F1B, "1f1b", Shape::kStraight, list_1f1b},
    {ScheduleKind::kInterleaved, "interleaved", Shape::kLoop, list_interleaved},
    {ScheduleKind::kZbH1, "zb-h1", Shape::kStraight, list_zb_h1},
    {ScheduleKind::kZbV, "zb-v", Shape::kV, list_zb_v},
    {ScheduleKind::kDualPipeV, "dualpipev", Shape::kV, list_dualpipev},
    {ScheduleKind::kDualPipeVPlus, "dualpipev+", Shape::kV, nullptr},
};

const KindTraits& traits_of(ScheduleKind kind) {
  for (const KindTraits& traits : kKinds) {
    if (traits.kind == kind) return traits;
  }
  throw InternalError("unknown kind of schedule");
}

void check_numbers(ScheduleKind kind, int num_ranks, int num_micro_batches) {
  MT_CHECK_CONFIG(num_ranks >= 1, "pipeline-model-parallel-size (", num_ranks,
                  ") must be at least 1");
  MT_CHECK_CONFIG(num_micro_batches >= 1, "num-micro-batches (", num_micro_batches,
                  ") must be at least 1");
  if (kind == ScheduleKind::kDualPipeVPlus) return;  // any numbers do
  const Shape shape = traits_of(kind).shape;
  if (shape == Shape::kLoop) {
    MT_CHECK_CONFIG(num_micro_batches % num_ranks == 0, "scheduler interleaved runs multiples of ",
                    "pipeline-model-parallel-size (", num_ranks, ") micro-batches, not ",
                    num_micro_batches, ": the next that works is ",
                    (num_micro_batches / num_ranks + 1) * num_ranks);
  }
  if (shape == Shape::kV) {
    MT_CHECK_CONFIG(num_micro_batches >= 2 * num_ranks, "scheduler ", name_of(kind), " needs at ",
                    "least ", 2 * num_ranks, " micro-batches (twice pipeline-model-parallel-size ",
                    num_ranks, "), not ", num_micro_batches);
  }
}

int declared_peak(ScheduleKind kind, int num_ranks, int rank, int num_micro_batches) {
  const int all = 2 * num_micro_batches;
  switch (kind) {
    case ScheduleKind::k1F1B:
      return std::min(2 * (num_ranks - rank), all);
    case ScheduleKind::kInterleaved:
      return std::min(3 * num_ranks - 1 - 2 * rank, all);
    case ScheduleKind::kZbH1:
    case ScheduleKind::kZbV:
      return std::min(2 * num_ranks, all);
    case ScheduleKind::kDualPipeV:
      return 2 * num_ranks + 1;
    case ScheduleKind::kDualPipeVPlus:  // make_dualpipev_plus() declares what it reaches
      break;
  }
  throw InternalError("unknown kind of schedule");
}

char letter_of(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return 'F';
    case ActionKind::kBackwardInput:
      return 'I';
    case ActionKind::kBackwardWeight:
      return 'W';
    case ActionKind::kBackward:
      return 'B';
    case ActionKind::kReduce:
      return 'R';
  }
  throw InternalError("unknown kind of action");
}

}  // namespace

std::string name_of(ScheduleKind kind) {
  return traits_of(kind).name;
}

std::string describe(const Action& action) {
  const std::string name = concat(letter_of(action.kind), action.chunk);
  if (action.kind == ActionKind::kReduce) return name;
  const char* part = action.part == Part::kWhole ? "" : action.part == Part::kFirstHalf ? "a" : "b";
  return concat(name, "(", action.micro_batch, ")", part);
}

std::string describe(const Step& step) {
  return step.beside ? concat(describe(step.action), "&", describe(*step.beside))
                     : describe(step.action);
}

int Placement::stage(int rank, int chunk) const {
  if (shape_ == Shape::kV && chunk == 1) return 2 * num_ranks_ - 1 - rank;
  return chunk * num_ranks_ + rank;
}

int Placement::rank(int stage) const {
  if (shape_ == Shape::kV && stage >= num_ranks_) return 2 * num_ranks_ - 1 - stage;
  return stage % num_ranks_;
}

Placement placement_of(ScheduleKind kind, int num_ranks) {
  return {traits_of(kind).shape, num_ranks};
}

Schedule make_schedule(const ScheduleRequest& request) {
  const ScheduleKind kind = request.kind;
  const int num_ranks = request.num_ranks;
  const int num_micro_batches = request.num_micro_batches;
  check_numbers(kind, num_ranks, num_micro_batches);
  if (kind == ScheduleKind::kDualPipeVPlus) return make_dualpipev_plus(request);
  Schedule schedule{kind, placement_of(kind, num_ranks), num_micro_batches, {}, {}};
  for (int rank = 0; rank < num_ranks; ++rank) {
    schedule.steps.push_back(traits_of(kind).list(num_ranks, rank, num_micro_batches));
    schedule.declared_peak.push_back(declared_peak(kind, num_ranks, rank, num_micro_batches));
  }
  for (StepList& list : schedule.steps) place_reductions(list, schedule.placement.num_chunks());
  return schedule;
}

Schedule make_forward_schedule(ScheduleKind kind, int num_ranks, int num_micro_batches) {
  MT_CHECK_CONFIG(num_ranks >= 1 && num_micro_batches >= 1, "pipeline-model-parallel-size (",
                  num_ranks, ") and micro-batches (", num_micro_batches, ") must be at least 1");
  Schedule schedule{kind, placement_of(kind, num_ranks), num_micro_batches, {}, {}};
  for (int rank = 0; rank < num_ranks; ++rank) {
    schedule.steps.push_back(list_forwards(schedule.placement, rank, num_micro_batches));
  }
  return schedule;
}

}  // namespace moetron
