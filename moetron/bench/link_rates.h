// What the links between ranks reach: measured, for a hardware file.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include <c10/core/Device.h>

#include "moetron/bench/bench_timer.h"
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
  // Of a product's rate alone, what it reaches beside an all-to-all.
  double rate_beside = 1;
};

// Collective over `world`, of two ranks at least.
LinkRates measure_links(Communicator& world, c10::Device device, const NodePlace& place,
                        const CalibrationShapes& shapes, double seconds);

// The largest of all ranks' values. Collective.
double largest(Communicator& group, c10::Device device, double value);

// How often something is run.
struct Looks {
  int64_t first = 4;       // looks at the clock that do not count: what runs becomes hot
  int64_t counted = 8;     // that do
  int64_t least_runs = 1;  // between two of them
};
// steady_time() of what all ranks of `group` do together, as often on each: looks that
// count for half of `seconds`, or as long as their least runs take. Collective.
SteadyTime time_together(Communicator& group, c10::Device device, double seconds,
                         const std::function<void()>& run, const Looks& looks = {});

}  // namespace moetron
