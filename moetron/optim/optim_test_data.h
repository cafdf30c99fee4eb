// What the tests of this folder share: buckets on a mesh of one rank.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "moetron/comm/thread_communicator.h"
#include "moetron/parallel/gradient_buckets.h"
#include "moetron/parallel/mesh.h"

namespace moetron {

// Accumulators are zero from here on.
struct OneRank {
  explicit OneRank(const std::vector<Parameter*>& parameters) : buckets(parameters, mesh, {}) {}

  std::unique_ptr<Communicator> world =
      join_thread_world(make_thread_world(1, std::chrono::seconds(1)), 0);
  Mesh mesh{*world, ParallelSizes{}};
  GradientBuckets buckets;
};

}  // namespace moetron
