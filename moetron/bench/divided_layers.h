// What layers that ranks divide take in a training step beside their compute and their bytes, by
// dispatcher and by tensor parallelism: measured, for a hardware file.
#pragma once

#include <array>
#include <iterator>
#include <optional>

#include <c10/core/Device.h>

#include "moetron/bench/bench_timer.h"
#include "moetron/bench/device_rates.h"
#include "moetron/bench/link_rates.h"
#include "moetron/comm/communicator.h"
#include "moetron/plan/hardware.h"

namespace moetron {

// Seconds of a micro-batch, forward and backward, through a few of the first model's layers: many
// micro-batches in a row, so that the host is as far ahead of the device as in training. Of the
// slowest rank.
struct DividedLayers {
  int num_ranks = 0;  // of a machine, or of all where each has one
  SteadyTime whole;   // every rank has layers of its own, with all of their experts
  // By dispatcher, in the order of kPlainDispatchers: each rank has its share of so many times the
  // experts, and tokens of its own, so that it computes the same rows.
  std::array<SteadyTime, std::size(kPlainDispatchers)> dispatched;
  // The ranks divide one micro-batch and all but the experts; empty where they cannot.
  std::optional<SteadyTime> tensor;
};

// Random weights and tokens, which an untrained router spreads evenly. Collective over `world`, of
// two ranks at least; says in the log what it is at.
DividedLayers measure_divided_layers(Communicator& world, c10::Device device,
                                     const NodePlace& place, const CalibrationShapes& shapes,
                                     double seconds);

// What plan/step_program.h says of such layers: of a rank's own, divided by a dispatcher, and by
// tensor parallelism.
double planned_whole(const CalibrationShapes& shapes, const Hardware& rates);
double planned_dispatched(TokenDispatcher dispatcher, int num_ranks,
                          const CalibrationShapes& shapes, const Hardware& rates);
double planned_tensor(int num_ranks, const CalibrationShapes& shapes, const Hardware& rates);

// The rates with which planned_whole() is `whole`: compute and launches differ by one factor.
Hardware with_compute_of(double whole, const CalibrationShapes& shapes, Hardware rates);

// The overhead with which the plan says `seconds`; 0 where it says more without any.
double dispatch_overhead_of(double seconds, TokenDispatcher dispatcher, int num_ranks,
                            const CalibrationShapes& shapes, const Hardware& rates);
double tensor_overhead_of(double seconds, int num_ranks, const CalibrationShapes& shapes,
                          const Hardware& rates);

}  // namespace moetron
