#include "moetron/schedule/dualpipev_plus.h"

#include <algorithm>
#include <optional>

#include "moetron/base/error.h"
#include "moetron/schedule/capped_list_search.h"
#include "moetron/schedule/simulate.h"
#include "moetron/schedule/step_lists.h"

namespace moetron {
namespace {

constexpr double kTolerance = 1.015;    // of DualPipeV's time, for fewer activations
constexpr int kSmallestCap = 2;         // one micro-batch at a time is in both chunks of a rank
constexpr int kLongProduct = 100'000;   // ranks times micro-batches
constexpr int kProbeSteps = 2'000'000;  // of a search of which the caller makes several

Schedule schedule_of(const ScheduleRequest& request, std::vector<StepList> steps) {
  Schedule schedule{ScheduleKind::kDualPipeVPlus,
                    {Placement::Shape::kV, request.num_ranks},
                    request.num_micro_batches,
                    std::move(steps),
                    {}};
  for (StepList& list : schedule.steps) place_reductions(list, schedule.placement.num_chunks());
  schedule.declared_peak = peak_activations(schedule);
  return schedule;
}

int peak_of(const Schedule& schedule) {
  return *std::max_element(schedule.declared_peak.begin(), schedule.declared_peak.end());
}

double time_of(const ScheduleRequest& request, const Schedule& schedule) {
  return simulate(schedule, UnitCosts(schedule.placement, request.communication)).makespan;
}

// DualPipeV's list; nothing where there are too few micro-batches for it.
std::optional<Schedule> with_pairs(const ScheduleRequest& request) {
  if (request.num_micro_batches < 2 * request.num_ranks) return {};
  std::vector<StepList> steps;
  steps.reserve(static_cast<size_t>(request.num_ranks));
  for (int rank = 0; rank < request.num_ranks; ++rank) {
    steps.push_back(list_v_of_pairs(request.num_ranks, rank, request.num_micro_batches,
                                    /*pairs_all=*/true));
  }
  return schedule_of(request, std::move(steps));
}

Schedule under_cap(const ScheduleRequest& request, int cap, int max_steps) {
  const CappedSearch search{request.num_ranks, request.num_micro_batches, request.communication,
                            cap, max_steps};
  return schedule_of(request, find_capped_list(search).steps);
}

Schedule faster(const ScheduleRequest& request, Schedule a, std::optional<Schedule> b) {
  return b && time_of(request, *b) < time_of(request, a) ? *std::move(b) : std::move(a);
}

// The least cap for which there is a list in the time allowed. What W's beside each F and I always
// reach is P + 4, or P + 3 if P is odd; one less is often found, and more may be needed where there
// are few micro-batches: a bisection up to DualPipeV's own 2 P + 1.
Schedule with_low_peak(const ScheduleRequest& request) {
  const int num_ranks = request.num_ranks;
  const int first = num_ranks + 3 - num_ranks % 2;
  // Of a long list the ends, where time is lost, hardly count.
  const bool is_long = int64_t{num_ranks} * request.num_micro_batches >= kLongProduct;
  if (is_long && 2 * request.communication <= 1) {
    return under_cap(request, first + 1, /*max_steps=*/0);
  }
  std::optional<Schedule> pairs = with_pairs(request);
  if (2 * request.communication > 1 && pairs) return *std::move(pairs);
  int high = 2 * num_ranks + 1;
  std::optional<Schedule> best;
  if (!pairs) best = under_cap(request, high, kProbeSteps);
  const double allowed = kTolerance * time_of(request, pairs ? *pairs : *best);
  int low = first;
  while (low < high) {
    const int cap = low <= first + 1 ? low : (low + high) / 2;
    Schedule schedule = under_cap(request, cap, kProbeSteps);
    if (time_of(request, schedule) > allowed) {
      low = cap + 1;
    } else {
      high = cap;
      best = std::move(schedule);
    }
  }
  return best ? *std::move(best)
              : faster(request, under_cap(request, high, kProbeSteps), std::move(pairs));
}

}  // namespace

Schedule make_dualpipev_plus(const ScheduleRequest& request) {
  const int cap = request.activation_cap;
  MT_CHECK(request.communication >= 0, "communication (", request.communication,
           ") must not be negative");
  if (cap == 0) return with_low_peak(request);
  MT_CHECK_CONFIG(cap >= kSmallestCap, "pipeline-activation-cap (", cap, ") must be at least ",
                  kSmallestCap, ", for a micro-batch is in both chunks of a pipeline rank");
  std::optional<Schedule> pairs = with_pairs(request);
  if (pairs && peak_of(*pairs) > cap) pairs.reset();
  const int max_steps = CappedSearch().max_steps;
  return faster(request, under_cap(request, cap, max_steps), std::move(pairs));
}

}  // namespace moetron
