// What the links between ranks reach, and what a dispatch takes beside its bytes: measured, for a
// hardware file.
#pragma once

#include <cstdint>
#include <optional>

#include <c10/core/Device.h>

#include "moetron/bench/device_rates.h"
#include "moetron/comm/communicator.h"

namespace moetron {

// Which ranks are on this rank's machine.
struct NodePlace {
  int local_rank = 0;
  int local_size = 1;
};

// Of the slowest rank. Bytes/s are of one rank in one direction, what it sends itself left out.
struct LinkRates {
  struct Link {
    double rate = 0;
    double spread = 0;  // of repetitions, as SteadyTime has it
    int64_t bytes = 0;  // that a rank sent to others at once
    int num_ranks = 0;
  };
  std::optional<Link> node;     // empty: one rank on each machine
  std::optional<Link> network;  // empty: one machine
  double latency = 0;           // seconds of an empty message, between the first and the last rank
  double latency_spread = 0;
  double dispatch = 0;        // seconds of a dispatch or combine of a layer's tokens, on average
  double dispatch_local = 0;  // of the same rows, where all experts are here
  // Of a product's rate alone, what it reaches beside an all-to-all.
  double rate_beside = 1;
};

// Collective over `world`, of two ranks at least.
LinkRates measure_links(Communicator& world, c10::Device device, const NodePlace& place,
                        const CalibrationShapes& shapes, double seconds);

// Seconds that a dispatch takes beside its bytes, by plan/dispatch_time.h; at least 0.
double dispatch_overhead(const LinkRates& links, int num_ranks, const CalibrationShapes& shapes,
                         Hardware rates);

// The largest of all ranks' values. Collective.
double largest(Communicator& group, c10::Device device, double value);

}  // namespace moetron
