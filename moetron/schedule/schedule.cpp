#include "moetron/schedule/schedule.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/schedule/dualpipev_plus.h"
#include "moetron/schedule/step_lists.h"

namespace moetron {
namespace {

using Shape = Placement::Shape;

// What is asked of a rank: how many there are, which it is, how many micro-batches.
struct Place {
  int num_ranks;
  int rank;
  int num_micro_batches;
  int all() const { return 2 * num_micro_batches; }  // chunk-micro-batches
};

// All that a kind is.
struct KindTraits {
  ScheduleKind kind;
  Shape shape;
  StepList (*list)(int num_ranks, int rank, int num_micro_batches);
  int (*peak)(const Place& at);  // what a rank holds at most (Schedule::declared_peak)
};
constexpr KindTraits kKinds[] = {
    {ScheduleKind::k1F1B, Shape::kStraight, list_1f1b,
     [](const Place& at) { return std::min(2 * (at.num_ranks - at.rank), at.all()); }},
    {ScheduleKind::kInterleaved, Shape::kLoop, list_interleaved,
     [](const Place& at) { return std::min(3 * at.num_ranks - 1 - 2 * at.rank, at.all()); }},
    {ScheduleKind::kZbH1, Shape::kStraight, list_zb_h1,
     [](const Place& at) { return std::min(2 * at.num_ranks, at.all()); }},
    {ScheduleKind::kZbV, Shape::kV, list_zb_v,
     [](const Place& at) { return std::min(2 * at.num_ranks, at.all()); }},
    {ScheduleKind::kDualPipeV, Shape::kV, list_dualpipev,
     [](const Place& at) { return 2 * at.num_ranks + 1; }},
    {ScheduleKind::kGPipe, Shape::kStraight, list_gpipe, [](const Place& at) { return at.all(); }},
    // make_dualpipev_plus() makes its lists, and declares what they reach.
    {ScheduleKind::kDualPipeVPlus, Shape::kV, nullptr, nullptr},
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
  for (const NamedSchedule& schedule : kSchedules) {
    if (schedule.kind == kind) return schedule.name;
  }
  throw InternalError("a schedule without a name");
}

StepActions sorted_actions(const Step& step) {
  StepActions sorted;
  for (const std::optional<Action>& action : {std::optional(step.action), step.beside}) {
    if (!action) continue;
    switch (action->kind) {
      case ActionKind::kForward:
        sorted.forward = action;
        break;
      case ActionKind::kBackwardInput:
      case ActionKind::kBackward:
        sorted.backward = action;
        break;
      case ActionKind::kBackwardWeight:
        sorted.weights = action;
        break;
      case ActionKind::kReduce:
        sorted.reduce = action;
        break;
    }
  }
  return sorted;
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

void check_schedule(const ScheduleRequest& request) {
  check_numbers(request.kind, request.num_ranks, request.num_micro_batches);
  // Whether there is a list under a cap, the search alone knows.
  if (request.activation_cap > 0) make_schedule(request);
}

Schedule make_schedule(const ScheduleRequest& request) {
  const ScheduleKind kind = request.kind;
  const int num_ranks = request.num_ranks;
  const int num_micro_batches = request.num_micro_batches;
  check_numbers(kind, num_ranks, num_micro_batches);
  if (kind == ScheduleKind::kDualPipeVPlus) return make_dualpipev_plus(request);
  const KindTraits& traits = traits_of(kind);
  Schedule schedule{kind, placement_of(kind, num_ranks), num_micro_batches, {}, {}};
  for (int rank = 0; rank < num_ranks; ++rank) {
    schedule.steps.push_back(traits.list(num_ranks, rank, num_micro_batches));
    schedule.declared_peak.push_back(traits.peak({num_ranks, rank, num_micro_batches}));
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
