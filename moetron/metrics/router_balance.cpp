#include "moetron/metrics/router_balance.h"

#include <algorithm>
#include <cmath>

#include "moetron/base/error.h"

namespace moetron {

LayerLoad layer_load(int64_t layer, const std::vector<int64_t>& counts) {
  MT_CHECK(!counts.empty(), "layer ", layer, " has no experts");
  LayerLoad result;
  result.layer = layer;
  double rows = 0.0;
  double fullest = 0.0;
  for (const int64_t count : counts) {
    MT_CHECK(count >= 0, "an expert of layer ", layer, " has ", count, " rows");
    rows += static_cast<double>(count);
    fullest = std::max(fullest, static_cast<double>(count));
    result.num_dead += count == 0;
  }
  const double num_experts = static_cast<double>(counts.size());
  double entropy = 0.0;
  for (const int64_t count : counts) {
    const double share = rows == 0.0 ? 0.0 : static_cast<double>(count) / rows;
    result.load.push_back(std::round(share * 1e6) / 1e6);
    if (count > 0) entropy -= share * std::log(share);
  }
  if (rows == 0.0) return result;
  result.imbalance = fullest / (rows / num_experts);
  // Rounding may carry an even load a little beyond 1.
  result.entropy = counts.size() == 1 ? 1.0 : std::min(1.0, entropy / std::log(num_experts));
  return result;
}

RouterBalance router_balance(std::vector<LayerLoad> layers) {
  MT_CHECK(!layers.empty(), "a model without MoE layers has no balance");
  RouterBalance balance;
  int64_t num_experts = 0;
  int64_t num_dead = 0;
  double entropy = 0.0;
  for (const LayerLoad& layer : layers) {
    balance.max_load = std::max(balance.max_load, layer.imbalance);
    balance.mean_load += layer.imbalance;
    entropy += layer.entropy;
    num_dead += layer.num_dead;
    num_experts += static_cast<int64_t>(layer.load.size());
  }
  const double num_layers = static_cast<double>(layers.size());
  balance.mean_load /= num_layers;
  balance.entropy = entropy / num_layers;
  balance.num_dead = num_dead;
  balance.idle_share = static_cast<double>(num_dead) / static_cast<double>(num_experts);
  balance.layers = std::move(layers);
  return balance;
}

}  // namespace moetron
