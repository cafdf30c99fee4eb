// Times a schedule, and finds what it holds.
#pragma once

#include <vector>

#include "moetron/schedule/costs.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

struct SimulatedStep {
  Step step;
  double begin = 0;
  double end = 0;
};

struct Simulation {
  std::vector<std::vector<SimulatedStep>> steps;  // by rank
  double makespan = 0;
  // Of all ranks' time until the makespan, the share in which they wait for each other.
  double bubble_fraction = 0;
  // By rank, in chunk-micro-batches; an only chunk counts as two. From F through W.
  std::vector<int> peak_activations;
  std::vector<double> communication;  // by rank, sums of StepCost
  std::vector<double> exposed;
};

// Throws InternalError naming a rank and its step if ranks wait for each other for good.
Simulation simulate(const Schedule& schedule, const CostModel& costs);

// The most that a rank's list holds at once, where a micro-batch holds by_chunk[c] of chunk c from
// its F through its W, in whatever unit. In a block both micro-batches are held.
double peak_held(const StepList& list, const std::vector<double>& by_chunk);

// Of a simulation its peak_activations, which depend on no cost.
std::vector<int> peak_activations(const Schedule& schedule);

}  // namespace moetron
