#include "moetron/schedule/stage_layout.h"

#include <numeric>

#include "moetron/base/error.h"

namespace moetron {
namespace {

std::vector<int64_t> even_counts(int num_stages, int64_t num_layers) {
  std::vector<int64_t> counts(static_cast<size_t>(num_stages), num_layers / num_stages);
  const auto rest = static_cast<size_t>(num_layers % num_stages);
  const size_t last = counts.size() - 1;
  for (size_t i = 0; i < rest; ++i) {
    const size_t inner = i + 1;
    ++counts[inner < last ? inner : 0];
  }
  return counts;
}

}  // namespace

std::vector<StageLayers> stage_layout(const Placement& placement, int64_t num_layers,
                                      const std::vector<int64_t>& layers,
                                      const std::string& option) {
  const int num_stages = placement.num_stages();
  std::vector<int64_t> counts = even_counts(num_stages, num_layers);
  if (!layers.empty()) {
    MT_CHECK_CONFIG(layers.size() == counts.size(), option, " has ", layers.size(),
                    layers.size() == 1 ? " number" : " numbers", ", not ", num_stages,
                    ": pipeline-model-parallel-size (", placement.num_ranks(), ") times ",
                    placement.num_chunks(), placement.num_chunks() == 1 ? " chunk" : " chunks",
                    " a rank");
    const int64_t sum = std::accumulate(layers.begin(), layers.end(), int64_t{0});
    MT_CHECK_CONFIG(sum == num_layers, option, " is ", sum, " layers in all, but num-layers is ",
                    num_layers);
    size_t i = 0;
    for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
      for (int rank = 0; rank < placement.num_ranks(); ++rank, ++i) {
        MT_CHECK_CONFIG(layers[i] >= 0, option, " (", layers[i], " layers in chunk ", chunk,
                        " of rank ", rank, ") must be at least 0");
        counts[static_cast<size_t>(placement.stage(rank, chunk))] = layers[i];
      }
    }
  }
  std::vector<StageLayers> stages;
  int64_t first = 0;
  for (const int64_t count : counts) {
    stages.push_back({first, count, stages.empty(), stages.size() + 1 == counts.size()});
    first += count;
  }
  return stages;
}

std::vector<StageLayers> stages_of_rank(const std::vector<StageLayers>& stages,
                                        const Placement& placement, int rank) {
  std::vector<StageLayers> own;
  own.reserve(static_cast<size_t>(placement.num_chunks()));
  for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
    own.push_back(stages.at(static_cast<size_t>(placement.stage(rank, chunk))));
  }
  return own;
}

int stage_of(const std::vector<StageLayers>& stages, int64_t place) {
  const int64_t layer = place - 1;
  int64_t num_layers = 0;
  for (const StageLayers& stage : stages) num_layers += stage.count;
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageLayers& stage = stages[i];
    const bool is_here = layer < 0 ? stage.has_embedding
                         : layer == num_layers
                             ? stage.has_head
                             : layer >= stage.first && layer < stage.first + stage.count;
    if (is_here) return static_cast<int>(i);
  }
  throw InternalError(concat("no stage of a model of ", num_layers, " layers has place ", place));
}

}  // namespace moetron
