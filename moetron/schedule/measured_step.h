// A step as ranks really took it, beside the same list simulated with the times that its actions
// took on average: what differs is waiting and disorder.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "moetron/schedule/simulate.h"

namespace moetron {

// How much later a step ended than it should have after what really came before it: it may take as
// long as on average, and begin when its rank is free and what it waits for was sent. Who waits for
// a slow rank is not to blame.
struct StepGap {
  int rank = 0;
  Step step;
  double longer = 0;  // above 0
  double waited = 0;  // of that before the step began
};

// Times count from the first begin on.
struct MeasuredStep {
  double begin = 0;  // in the clock of the measurement
  Simulation real;   // nothing is known of its communication and of what is held
  Simulation simulated;
  std::optional<StepGap> largest;  // none: every step was as it should be
};

// `measured`: by rank, in any one clock. A simulated step takes as long as the measured ones of its
// rank with the same kinds and chunks on average. What it makes for another rank is there as late
// after its begin as it was at best: no step that waits for it began sooner. Throws InternalError
// where the measured steps are not those of the schedule.
MeasuredStep simulate_measured(const Schedule& schedule,
                               std::vector<std::vector<SimulatedStep>> measured);

// "simulated from its own mean times: 100 ms instead of 123 ms; largest gap: F0(3) on rank 1 took
// 12 ms longer, 10 ms of it waiting"; times are in seconds.
std::string describe(const MeasuredStep& step);

}  // namespace moetron
