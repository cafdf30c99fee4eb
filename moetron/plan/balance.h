// How many layers each stage gets so that no rank has much more to do than the others, whatever
// embedding, head and dense layers cost.
#pragma once

#include <vector>

#include "moetron/arch/stage_layers.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

// What a model's parts cost, in any unit.
struct PartCosts {
  std::vector<double> layers_before;  // of all decoder layers before each, and of all
  double embedding = 0;
  double head = 0;

  double of(const StageLayers& stage) const {
    const auto begin = static_cast<size_t>(stage.first);
    return layers_before[begin + static_cast<size_t>(stage.count)] - layers_before[begin] +
           (stage.has_embedding ? embedding : 0) + (stage.has_head ? head : 0);
  }
};

// As stage_layout() takes them: chunk 0 of every rank, then chunk 1, ... Starts from the even
// division and moves layers away from the busiest rank as long as that leaves it less to do. The
// stage with the head may have none, any other has one at least. Empty where the even division is
// best.
std::vector<int64_t> balanced_layers(const Placement& placement, const PartCosts& costs);

}  // namespace moetron
