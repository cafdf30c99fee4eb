#include "moetron/plan/run_simulation.h"

#include <ostream>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/units.h"
#include "moetron/plan/predict.h"
#include "moetron/schedule/drawing.h"
#include "moetron/schedule/overlapped.h"

namespace moetron {
namespace {

// What was simulated; a prediction where the costs are a model's.
struct Outcome {
  PipelineSettings pipeline;
  Schedule schedule;
  Prediction prediction;
  bool has_model = false;
  double gpu_memory = 0;  // bytes
};

Schedule schedule_of(const SimulationSpec& spec) {
  Schedule schedule = make_schedule(spec.pipeline.request);
  if (spec.overlap_neighbours) overlap_neighbours(schedule);
  return schedule;
}

Outcome simulate_units(const SimulationSpec& spec) {
  Schedule schedule = schedule_of(spec);
  Prediction prediction;
  prediction.simulation = simulate(schedule, UnitCosts(schedule.placement, spec.communication));
  return {spec.pipeline, std::move(schedule), std::move(prediction)};
}

Outcome simulate_model(const SimulationSpec& spec) {
  const Hardware hardware = hardware_of(spec.hardware);
  Schedule schedule = schedule_of(spec);
  Prediction prediction = predict(*spec.run, hardware, schedule);
  return {spec.pipeline, std::move(schedule), std::move(prediction), true, hardware.memory};
}

Json memory_json(const std::vector<RankMemory>& memory) {
  Json list = Json::array();
  for (const RankMemory& rank : memory)
    list.push_back({{"weights", rank.weights},
                    {"gradients", rank.gradients},
                    {"optimizer", rank.optimizer},
                    {"activations", rank.activations},
                    {"working", rank.working},
                    {"travelling", rank.travelling},
                    {"runtime", rank.runtime},
                    {"total", rank.total()}});
  return list;
}

Json to_json(const Outcome& outcome) {
  const Simulation& simulation = outcome.prediction.simulation;
  Json json{{"scheduler", name_of(outcome.schedule.kind)},
            {"pipeline_model_parallel_size", outcome.schedule.placement.num_ranks()},
            {"num_micro_batches", outcome.schedule.num_micro_batches},
            {"unit", outcome.has_model ? "s" : "F of a chunk"},
            {"makespan", simulation.makespan},
            {"bubble_fraction", simulation.bubble_fraction},
            {"peak_activations", simulation.peak_activations},
            {"communication", simulation.communication},
            {"exposed_communication", simulation.exposed}};
  if (!outcome.has_model) return json;
  const Prediction& prediction = outcome.prediction;
  json["layers"] = Json::array();
  for (const StageLayers& stage : outcome.pipeline.stages) json["layers"].push_back(stage.count);
  json["step_time"] = prediction.step_time;
  json["tokens_per_second_per_gpu"] = prediction.tokens_per_second;
  json["tflops_per_gpu"] = prediction.flops_per_second / 1e12;
  json["memory"] = memory_json(prediction.memory);
  return json;
}

// How many layers the chunks of a rank have: "3+3".
std::string layers_text(const Outcome& outcome, int rank) {
  std::string text;
  const Placement& placement = outcome.schedule.placement;
  for (int chunk = 0; chunk < placement.num_chunks(); ++chunk)
    text += concat(chunk == 0 ? "" : "+",
                   outcome.pipeline.stages[size_t(placement.stage(rank, chunk))].count);
  return text;
}

void write_ranks(const Outcome& outcome, std::ostream& out) {
  const Prediction& prediction = outcome.prediction;
  const Simulation& simulation = prediction.simulation;
  out << formatted("%5s %10s %14s %12s", "rank", "peak held", "communication", "exposed");
  if (outcome.has_model)
    out << formatted(" %8s %9s %9s %9s %9s %9s %9s", "layers", "weights", "gradients", "optimizer",
                     "activat.", "other", "total GB");
  out << "\n";
  for (int rank = 0; rank < outcome.schedule.placement.num_ranks(); ++rank) {
    const auto at = size_t(rank);
    out << formatted("%5d %10d %14.6g %12.6g", rank, simulation.peak_activations[at],
                     simulation.communication[at], simulation.exposed[at]);
    if (outcome.has_model) {
      const RankMemory& memory = prediction.memory[at];
      const double other = memory.working + memory.travelling + memory.runtime;
      out << formatted(" %8s %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f",
                       layers_text(outcome, rank).c_str(), memory.weights / kGiga,
                       memory.gradients / kGiga, memory.optimizer / kGiga,
                       memory.activations / kGiga, other / kGiga, memory.total() / kGiga);
    }
    out << "\n";
  }
}

double most_memory(const std::vector<RankMemory>& memory) {
  return memory[size_t(fullest_rank(memory))].total();
}

void write_summary(const Outcome& outcome, std::ostream& out) {
  const Schedule& schedule = outcome.schedule;
  const Prediction& prediction = outcome.prediction;
  const Simulation& simulation = prediction.simulation;
  out << formatted("%s, %d ranks, %d micro-batches\n", name_of(schedule.kind).c_str(),
                   schedule.placement.num_ranks(), schedule.num_micro_batches);
  if (outcome.has_model) {
    out << formatted("step time        %.4g s\n", prediction.step_time)
        << formatted("throughput       %.1f tokens/s/GPU, %.1f TFLOP/s/GPU\n",
                     prediction.tokens_per_second, prediction.flops_per_second / 1e12)
        << formatted("memory           at most %.1f of %.1f GB\n",
                     most_memory(prediction.memory) / kGiga, outcome.gpu_memory / kGiga);
  } else {
    out << formatted("makespan         %g forwards of a chunk; every chunk costs the same\n",
                     simulation.makespan);
  }
  out << formatted("bubble           %.2f %%\n\n", 100 * simulation.bubble_fraction);
  write_ranks(outcome, out);
}

}  // namespace

void run_simulation(const SimulationSpec& spec, std::ostream& out) {
  const Outcome outcome = spec.run ? simulate_model(spec) : simulate_units(spec);
  const Simulation& simulation = outcome.prediction.simulation;
  const std::string unit = outcome.has_model ? "s" : "F";
  if (!spec.draw.empty()) draw_simulation(spec.draw, outcome.schedule, simulation, unit);
  if (!spec.trace.empty()) write_simulation_trace(spec.trace, outcome.schedule, simulation, unit);
  if (spec.json) {
    out << to_json(outcome).dump(2) << "\n";
  } else {
    write_summary(outcome, out);
  }
}

}  // namespace moetron
