#include "moetron/plan/dry_run.h"

#include <algorithm>
#include <numeric>

namespace moetron {
namespace {

double mean(const std::vector<double>& by_rank) {
  return std::accumulate(by_rank.begin(), by_rank.end(), 0.0) / static_cast<double>(by_rank.size());
}

StepParts parts_of(const Prediction& prediction) {
  const Simulation& simulation = prediction.simulation;
  StepParts parts{.exposed = mean(simulation.exposed),
                  .reduced = mean(simulation.reduced),
                  .waiting = simulation.makespan * simulation.bubble_fraction,
                  .optimizer = prediction.update_time};
  parts.compute = simulation.makespan - parts.exposed - parts.reduced - parts.waiting;
  return parts;
}

}  // namespace

bool fits(const std::vector<RankMemory>& memory, const Hardware& hardware) {
  return std::all_of(memory.begin(), memory.end(), [&](const RankMemory& rank) {
    return rank.total() <= hardware.memory && rank.host <= host_share(hardware);
  });
}

DryRun dry_run(const RunSpec& spec, const Hardware& hardware) {
  DryRun run;
  run.prediction = predict(spec, hardware, make_schedule(spec.pipeline.request));
  run.parts = parts_of(run.prediction);
  run.elements = model_elements(spec.model);
  run.trained = trained_elements(spec);
  run.checkpoint = checkpoint_bytes(spec);
  run.fullest = fullest_rank(run.prediction.memory);
  run.fits = fits(run.prediction.memory, hardware);
  return run;
}

}  // namespace moetron
