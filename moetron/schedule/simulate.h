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
  std::vector<double> reduced;
};

// Throws InternalError naming a rank and its step if ranks wait for each other for good.
Simulation simulate(const Schedule& schedule, const CostModel& costs);

// What a micro-batch holds of a chunk from its F through its I or B, and from its I through its W,
// in whatever unit.
struct HeldOfChunk {
  double from_forward = 0;
  double from_input_grads = 0;
};
// The most that a rank's list holds at once. In a block both micro-batches are held; while an I
// runs, the greater of the two.
double peak_held(const StepList& list, const std::vector<HeldOfChunk>& by_chunk);

// Of a simulation its peak_activations, which depend on no cost.
std::vector<int> peak_activations(const Schedule& schedule);

}  // namespace moetron
