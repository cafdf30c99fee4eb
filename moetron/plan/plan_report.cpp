#include "moetron/plan/plan_report.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/units.h"
#include "moetron/metrics/step_printer.h"
#include "moetron/plan/hardware.h"

namespace moetron {
namespace {

const char* name_of(Recompute recompute) {
  switch (recompute) {
    case Recompute::kNothing:
      return "no recompute";
    case Recompute::kExpertProduct:
      return "mlp-recompute";
    case Recompute::kMoeLayer:
      return "moe-layer-recompute";
    case Recompute::kLayer:
      return "full recompute";
  }
  throw InternalError("a recompute without a name");
}

double exposed_share(const DryRun& run) {
  return run.parts.exposed / run.prediction.step_time;
}

// One letter for each part of the GPU's memory, dots for what is free.
std::string memory_bar(const RankMemory& memory, double all) {
  constexpr double kWidth = 50;
  const std::array<std::pair<char, double>, 6> parts{{{'w', memory.weights},
                                                      {'g', memory.gradients},
                                                      {'o', memory.optimizer},
                                                      {'a', memory.activations},
                                                      {'t', memory.working + memory.travelling},
                                                      {'r', memory.runtime}}};
  std::string bar;
  double sum = 0;
  for (const auto& [letter, bytes] : parts) {
    sum += bytes;
    bar.resize(static_cast<size_t>(std::lround(kWidth * std::min(1.0, sum / all))), letter);
  }
  bar.resize(static_cast<size_t>(kWidth), '.');
  return bar;
}

// What the first has over the second, and what it pays for that.
std::string reason(const DryRun& better, const DryRun& next) {
  struct Part {
    const char* name;
    double saved;
  };
  const StepParts &a = better.parts, &b = next.parts;
  std::array<Part, 5> parts{{{"computing", b.compute - a.compute},
                             {"exposed communication", b.exposed - a.exposed},
                             {"reduction of gradients", b.reduced - a.reduced},
                             {"waiting for stages", b.waiting - a.waiting},
                             {"optimizer", b.optimizer - a.optimizer}}};
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Part& x, const Part& y) { return x.saved > y.saved; });
  const double all = next.prediction.step_time - better.prediction.step_time;
  constexpr double kLittle = 0.0005;
  if (all < kLittle * next.prediction.step_time) return "as fast as the next";
  std::string text =
      formatted("%.3g s less than the next: %.3g s less %s", all, parts[0].saved, parts[0].name);
  const Part& paid = parts.back();
  if (-paid.saved > kLittle * next.prediction.step_time)
    text += formatted(", %.3g s more %s", -paid.saved, paid.name);
  return text;
}

std::string describe_miss(const Candidate& miss, const Hardware& hardware) {
  if (miss.memory > hardware.memory) {
    return formatted("would hold %.2f GB of a GPU's %.2f GB", miss.memory / kGiga,
                     hardware.memory / kGiga);
  }
  return formatted("would hold %.2f GB of its host, which has %.2f GB for each GPU",
                   miss.host / kGiga, host_share(hardware) / kGiga);
}

std::string describe(const Proposal& proposal, const Hardware& hardware) {
  const DryRun& run = proposal.run;
  const Prediction& prediction = run.prediction;
  std::string text = formatted(
      " %9.4g s  %9.1f tokens/s/GPU  %6.1f TFLOP/s/GPU  bubble %4.1f %%  exposed %4.1f %%\n    ",
      prediction.step_time, prediction.tokens_per_second, prediction.flops_per_second / 1e12,
      100 * prediction.simulation.bubble_fraction, 100 * exposed_share(run));
  text += describe(proposal.layout);
  text += formatted("\n    [%s] %.2f of %.2f GB", memory_bar(run.most(), hardware.memory).c_str(),
                    run.most().total() / kGiga, hardware.memory / kGiga);
  if (proposal.spec.optimizer.is_hybrid)
    text += formatted(", %.2f GB of the host", run.most().host / kGiga);
  return text;
}

Json to_json(const Layout& layout) {
  return {{"tensor_model_parallel_size", layout.tp},
          {"tensor_model_parallel_for_expert", layout.tpe},
          {"expert_model_parallel_size", layout.ep},
          {"pipeline_model_parallel_size", layout.pp},
          {"virtual_stages", layout.num_chunks},
          {"scheduler", name_of(layout.kind)},
          {"layers", layout.layers},
          {"micro_batch_size", layout.micro_batch},
          {"dispatcher", dispatcher_name(layout.dispatcher)},
          {"recompute", name_of(layout.recompute.kind)},
          {"offload_fraction", layout.host_fraction}};
}

Json to_json(const Candidate& candidate) {
  return {{"layout", to_json(candidate.layout)},
          {"least_step_time", candidate.least_time},
          {"memory", candidate.memory},
          {"host_memory", candidate.host}};
}

Json to_json(const Proposal& proposal) {
  const DryRun& run = proposal.run;
  const RankMemory& most = run.most();
  Json layout = to_json(proposal.layout);
  layout["layers"] = Json::array();  // of every stage, however they were divided
  for (const StageLayers& stage : proposal.spec.pipeline.stages)
    layout["layers"].push_back(stage.count);
  return {{"layout", std::move(layout)},
          {"step_time", run.prediction.step_time},
          {"tokens_per_second_per_gpu", run.prediction.tokens_per_second},
          {"tflops_per_gpu", run.prediction.flops_per_second / 1e12},
          {"bubble_fraction", run.prediction.simulation.bubble_fraction},
          {"exposed_fraction", exposed_share(run)},
          {"memory",
           {{"weights", most.weights},
            {"gradients", most.gradients},
            {"optimizer", most.optimizer},
            {"activations", most.activations},
            {"working", most.working},
            {"travelling", most.travelling},
            {"runtime", most.runtime},
            {"total", most.total()},
            {"host", most.host}}}};
}

}  // namespace

std::string describe(const Layout& layout) {
  std::string text = concat("TP ", layout.tp, ", TPE ", layout.tpe, ", EP ", layout.ep, ", PP ",
                            layout.pp, ", ", name_of(layout.kind));
  if (layout.kind == ScheduleKind::kInterleaved)
    text += concat(" of ", layout.num_chunks, " virtual stages");
  if (layout.pp * layout.num_chunks > 1)
    text += layout.layers.empty() ? ", layers even" : ", layers";
  for (const int64_t count : layout.layers) text += concat(" ", count);
  text += concat(", micro-batch ", layout.micro_batch, ", ", dispatcher_name(layout.dispatcher),
                 ", ", name_of(layout.recompute.kind));
  if (layout.host_fraction > 0)
    text += concat(", ", 100 * layout.host_fraction, " % of the optimizer's states on the host");
  return text;
}

std::string describe(const SearchResult& result, const Hardware& hardware) {
  std::string text =
      concat("searched  ", readable_count(result.num_candidates), " layouts on ", hardware.name,
             ": ", readable_count(result.num_fitting), " fit, ", result.num_simulated, " simulated",
             result.is_complete ? "; no other can be faster than the last of these"
                                : "; others that no bound rules out were not simulated");
  for (size_t i = 0; i < result.proposals.size(); ++i) {
    text += formatted("\n%2zu", i + 1) + describe(result.proposals[i], hardware);
    if (i + 1 < result.proposals.size())
      text += concat("\n    ", reason(result.proposals[i].run, result.proposals[i + 1].run));
  }
  if (!result.proposals.empty()) {
    text +=
        "\nin bars: weights, gradients, optimizer, activations, t: working and travelling, runtime";
  }
  for (const Candidate& miss : result.misses) {
    text += formatted("\nperhaps faster, but does not fit (at least %.4g s; ", miss.least_time);
    text += concat(describe_miss(miss, hardware), "):\n    ", describe(miss.layout));
  }
  return text;
}

Json to_json(const SearchResult& result, const Hardware& hardware) {
  Json json{{"hardware", hardware.name},           {"memory_limit", hardware.memory},
            {"candidates", result.num_candidates}, {"fitting", result.num_fitting},
            {"simulated", result.num_simulated},   {"is_complete", result.is_complete},
            {"proposals", Json::array()},          {"misses", Json::array()}};
  for (const Proposal& proposal : result.proposals) json["proposals"].push_back(to_json(proposal));
  for (const Candidate& miss : result.misses) json["misses"].push_back(to_json(miss));
  return json;
}

std::string describe_nothing_fits(const SearchResult& result, const Hardware& hardware,
                                  int64_t world_size) {
  if (!result.closest) {
    return concat("no layout of ", world_size,
                  " ranks divides the model and the batch as the options ask for");
  }
  return concat("no layout of ", world_size, " ranks fits; closest comes ",
                describe(result.closest->layout), ", which ",
                describe_miss(*result.closest, hardware));
}

}  // namespace moetron
