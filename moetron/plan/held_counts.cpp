#include "moetron/plan/held_counts.h"

#include <algorithm>

#include "moetron/plan/memory.h"
#include "moetron/schedule/message.h"

namespace moetron {
namespace {

bool covers(const std::vector<int>& all, const std::vector<int>& counts) {
  return std::equal(all.begin(), all.end(), counts.begin(), std::greater_equal<>());
}

}  // namespace

HeldCounts::HeldCounts(const StepList& list, int num_chunks) : in_blocks_(has_blocks(list)) {
  const auto from_input_grads = static_cast<size_t>(num_chunks);
  Counts held(2 * from_input_grads);
  for (const Step& step : list) {
    const auto actions = actions_of(step);
    for (const Action& action : actions)
      if (action.kind == ActionKind::kForward) ++held[static_cast<size_t>(action.chunk)];
    add(held);
    // An I holds the greater of what it needs and what it leaves: both are tried.
    for (const Action& action : actions) {
      const auto chunk = static_cast<size_t>(action.chunk);
      if (action.kind == ActionKind::kBackwardInput) {
        --held[chunk];
        ++held[from_input_grads + chunk];
        add(held);
      }
    }
    for (const Action& action : actions) {
      const auto chunk = static_cast<size_t>(action.chunk);
      if (action.kind == ActionKind::kBackward) --held[chunk];
      if (action.kind == ActionKind::kBackwardWeight && action.part != Part::kFirstHalf)
        --held[from_input_grads + chunk];
    }
  }
}

void HeldCounts::add(const Counts& counts) {
  for (const Counts& peak : peaks_)
    if (covers(peak, counts)) return;
  std::erase_if(peaks_, [&](const Counts& peak) { return covers(counts, peak); });
  peaks_.push_back(counts);
}

double HeldCounts::peak(const std::vector<HeldOfChunk>& by_chunk) const {
  double most = 0;
  for (const Counts& counts : peaks_) {
    double held = 0;
    for (size_t chunk = 0; chunk < by_chunk.size(); ++chunk) {
      held += counts[chunk] * by_chunk[chunk].from_forward +
              counts[by_chunk.size() + chunk] * by_chunk[chunk].from_input_grads;
    }
    most = std::max(most, held);
  }
  return most;
}

std::vector<HeldCounts> held_counts(const ScheduleRequest& request) {
  // The middle of a list repeats itself, and holds no more the longer it is; but gpipe holds every
  // micro-batch of the step, and dualpipev+ needs the less, the longer it has to make up for time.
  ScheduleRequest shorter = request;
  constexpr int kRounds = 6;
  if (request.kind != ScheduleKind::kGPipe && request.kind != ScheduleKind::kDualPipeVPlus)
    shorter.num_micro_batches = std::min(request.num_micro_batches, kRounds * request.num_ranks);
  const Schedule schedule = make_schedule(shorter);
  std::vector<HeldCounts> counts;
  counts.reserve(schedule.steps.size());
  for (const StepList& list : schedule.steps)
    counts.emplace_back(list, schedule.placement.num_chunks());
  return counts;
}

}  // namespace moetron
