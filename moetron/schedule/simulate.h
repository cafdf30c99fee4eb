// Times a schedule in unit costs, and finds what it holds.
#pragma once

#include <vector>

#include "moetron/schedule/schedule.h"

namespace moetron {

// In units of the F of a chunk that is one of two: F = I = W = 1, of an only chunk 2. A block takes
// the sum of its parts, and what it makes arrives elsewhere when it ends.
struct SimulatedStep {
  Step step;
  double begin = 0;
  double end = 0;
};

struct Simulation {
  std::vector<std::vector<SimulatedStep>> steps;  // by rank
  double makespan = 0;
  // Of all ranks' time until the makespan, the share in which they wait.
  double bubble_fraction = 0;
  // By rank, in chunk-micro-batches; an only chunk counts as two. From F through W.
  std::vector<int> peak_activations;
};

// Throws InternalError naming a rank and its step if ranks wait for each other for good.
Simulation simulate_unit_costs(const Schedule& schedule);

}  // namespace moetron
