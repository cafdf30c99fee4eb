#include "moetron/schedule/schedule.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/schedule/dualpipev_plus.h"
#include "moetron/schedule/step_lists.h"

namespace moetron {
namespace {

using Shape = Placement::Shape;

// What is asked of a rank: how many there are, which it is, how many micro-batches and chunks.
struct Place {
  int num_ranks;
  int rank;
  int num_micro_batches;
  int loop_chunks;
  int all() const { return 2 * num_micro_batches; }  // chunk-micro-batches of two chunks
};

template <StepList (*kList)(int num_ranks, int rank, int num_micro_batches)>
StepList list_at(const Place& at) {
  return kList(at.num_ranks, at.rank, at.num_micro_batches);
}

// All that a kind is.
struct KindTraits {
  ScheduleKind kind;
  Shape shape;
  StepList (*list)(const Place& at);
  int (*peak)(const Place& at);  // what a rank holds at most (Schedule::declared_peak)
};
constexpr KindTraits kKinds[] = {
    {ScheduleKind::k1F1B, Shape::kStraight, list_at<list_1f1b>,
     [](const Place& at) { return std::min(2 * (at.num_ranks - at.rank), at.all()); }},
    {ScheduleKind::kInterleaved, Shape::kLoop,
     [](const Place& at) {
       return list_interleaved(at.num_ranks, at.rank, at.num_micro_batches, at.loop_chunks);
     },
     [](const Place& at) {
       return std::min((at.loop_chunks + 1) * at.num_ranks - 1 - 2 * at.rank,
                       at.loop_chunks * at.num_micro_batches);
     }},
    {ScheduleKind::kZbH1, Shape::kStraight, list_at<list_zb_h1>,
     [](const Place& at) { return std::min(2 * at.num_ranks, at.all()); }},
    {ScheduleKind::kZbV, Shape::kV, list_at<list_zb_v>,
     [](const Place& at) { return std::min(2 * at.num_ranks, at.all()); }},
    {ScheduleKind::kDualPipeV, Shape::kV, list_at<list_dualpipev>,
     [](const Place& at) { return 2 * at.num_ranks + 1; }},
    {ScheduleKind::kGPipe, Shape::kStraight, list_at<list_gpipe>,
     [](const Place& at) { return at.all(); }},
    // make_dualpipev_plus() makes its lists, and declares what they reach.
    {ScheduleKind::kDualPipeVPlus, Shape::kV, nullptr, nullptr},
};

const KindTraits& traits_of(ScheduleKind kind) {
  for (const KindTraits& traits : kKinds) {
    if (traits.kind == kind) return traits;
  }
  throw InternalError("unknown kind of schedule");
}

void check_numbers(const ScheduleRequest& request) {
  const int num_ranks = request.num_ranks, num_micro_batches = request.num_micro_batches;
  MT_CHECK_CONFIG(num_ranks >= 1, "pipeline-model-parallel-size (", num_ranks,
                  ") must be at least 1");
  MT_CHECK_CONFIG(num_micro_batches >= 1, "num-micro-batches (", num_micro_batches,
                  ") must be at least 1");
  if (request.kind == ScheduleKind::kDualPipeVPlus) return;  // any numbers do
  const Shape shape = traits_of(request.kind).shape;
  if (shape == Shape::kLoop) {
    MT_CHECK(request.loop_chunks >= 2, "a loop of ", request.loop_chunks, " chunks a rank");
    MT_CHECK_CONFIG(num_micro_batches % num_ranks == 0, "scheduler interleaved runs multiples of ",
                    "pipeline-model-parallel-size (", num_ranks, ") micro-batches, not ",
                    num_micro_batches, ": the next that works is ",
                    (num_micro_batches / num_ranks + 1) * num_ranks);
  }
  if (shape == Shape::kV) {
    MT_CHECK_CONFIG(num_micro_batches >= 2 * num_ranks, "scheduler ", name_of(request.kind),
                    " needs at least ", 2 * num_ranks, " micro-batches (twice ",
                    "pipeline-model-parallel-size ", num_ranks, "), not ", num_micro_batches);
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

Placement placement_of(ScheduleKind kind, int num_ranks, int loop_chunks) {
  return {traits_of(kind).shape, num_ranks, loop_chunks};
}

void check_schedule(const ScheduleRequest& request) {
  check_numbers(request);
  // Whether there is a list under a cap, the search alone knows.
  if (request.activation_cap > 0) make_schedule(request);
}

Schedule make_schedule(const ScheduleRequest& request) {
  check_numbers(request);
  if (request.kind == ScheduleKind::kDualPipeVPlus) return make_dualpipev_plus(request);
  const KindTraits& traits = traits_of(request.kind);
  Schedule schedule{request.kind, placement_of(request), request.num_micro_batches, {}, {}};
  for (int rank = 0; rank < request.num_ranks; ++rank) {
    const Place at{request.num_ranks, rank, request.num_micro_batches, request.loop_chunks};
    schedule.steps.push_back(traits.list(at));
    schedule.declared_peak.push_back(traits.peak(at));
  }
  for (StepList& list : schedule.steps) place_reductions(list, schedule.placement.num_chunks());
  return schedule;
}

Schedule make_forward_schedule(const ScheduleRequest& request) {
  MT_CHECK_CONFIG(request.num_ranks >= 1 && request.num_micro_batches >= 1,
                  "pipeline-model-parallel-size (", request.num_ranks, ") and micro-batches (",
                  request.num_micro_batches, ") must be at least 1");
  Schedule schedule{request.kind, placement_of(request), request.num_micro_batches, {}, {}};
  for (int rank = 0; rank < request.num_ranks; ++rank) {
    schedule.steps.push_back(list_forwards(schedule.placement, rank, request.num_micro_batches));
  }
  return schedule;
}

}  // namespace moetron
