// How evenly a step's tokens were spread over the experts.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace moetron {

// The rows of one MoE layer in one step, over all ranks.
struct LayerLoad {
  int64_t layer = 0;
  // [experts]: share of the layer's rows, rounded to 1e-6 (a line of metrics holds all layers').
  std::vector<double> load = {};
  int64_t num_dead = 0;    // experts that got no row
  double entropy = 0.0;    // of the shares over that of equal shares: 1 is even, 0 one expert
  double imbalance = 0.0;  // rows of the fullest expert over the mean: 1 is even
};

// counts: [experts] rows of each expert, none of them negative. A layer without any row has
// entropy and imbalance 0 and only dead experts.
LayerLoad layer_load(int64_t layer, const std::vector<int64_t>& counts);

// All MoE layers of a step.
struct RouterBalance {
  double max_load = 0.0;                 // imbalance of the worst layer
  double mean_load = 0.0;                // mean imbalance of the layers
  double idle_share = 0.0;               // dead experts over all experts of all layers
  std::optional<double> entropy = {};    // mean of the layers'
  std::optional<int64_t> num_dead = {};  // dead experts of all layers
  std::vector<LayerLoad> layers = {};    // may be empty: only the aggregates are known
};

// `layers` must not be empty.
RouterBalance router_balance(std::vector<LayerLoad> layers);

}  // namespace moetron
