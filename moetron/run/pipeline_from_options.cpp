#include "moetron/run/pipeline_from_options.h"

#include <algorithm>
#include <optional>
#include <string>

#include "moetron/base/error.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

constexpr const char* kHetero = "hetero-pipeline-stages";
constexpr const char* kVirtualHetero = "virtual-hetero-pipeline-stages";
constexpr const char* kLayersPerStage = "num-layers-per-virtual-pipeline-stage";
constexpr const char* kStagesPerRank = "num-virtual-stages-per-pipeline-rank";

std::string joined(const std::vector<int64_t>& numbers) {
  std::string text;
  for (const int64_t number : numbers) text += concat(text.empty() ? "" : " ", number);
  return text;
}

// What an option says on how many stages a rank has.
struct Claim {
  std::string option;  // with its value, for messages
  int64_t stages_per_rank;
};

std::vector<Claim> claims_of(const ParallelOptions& options, int64_t num_layers) {
  const int64_t ranks = options.pipeline_model_parallel_size;
  std::vector<Claim> claims;
  if (const auto& layers = options.hetero_pipeline_stages; !layers.empty()) {
    const auto count = static_cast<int64_t>(layers.size());
    MT_CHECK_CONFIG(count % ranks == 0, kHetero, " (", joined(layers), ") has ", count,
                    count == 1 ? " number" : " numbers",
                    ", no multiple of pipeline-model-parallel-size (", ranks, ")");
    claims.push_back({concat(kHetero, " (", joined(layers), ")"), count / ranks});
  }
  if (const auto& layers = options.virtual_hetero_pipeline_stages; !layers.empty()) {
    const auto count = static_cast<int64_t>(layers.size());
    claims.push_back({concat(kVirtualHetero, " (", joined(layers), ")"),
                      count % ranks == 0 && count > 2 * ranks ? count / ranks : 2});
  }
  MT_CHECK_CONFIG(claims.size() <= 1, claims[0].option, " and ", claims[1].option,
                  " both say which layers a stage has: give one of them");
  if (const auto layers = options.num_layers_per_virtual_pipeline_stage) {
    // Beside numbers of layers it says but how many stages there are: those of an even division.
    const bool is_even = num_layers % (*layers * ranks) == 0;
    MT_CHECK_CONFIG(is_even || !claims.empty(), kLayersPerStage, " (", *layers,
                    ") times pipeline-model-parallel-size (", ranks, ") must divide num-layers (",
                    num_layers, ")");
    int64_t stages = num_layers / (*layers * ranks);
    if (!is_even && stages + 1 == claims[0].stages_per_rank) ++stages;
    claims.push_back({concat(kLayersPerStage, " (", *layers, ")"), stages});
  }
  if (const auto stages = options.num_virtual_stages_per_pipeline_rank)
    claims.push_back({concat(kStagesPerRank, " (", *stages, ")"), *stages});
  return claims;
}

struct KindOfStages {
  ScheduleKind kind;
  int num_chunks;  // of a rank
};

KindOfStages checked_kind(const ParallelOptions& options, const std::vector<Claim>& claims) {
  ScheduleKind kind = options.scheduler;
  // 1f1b alone has both forms.
  const int64_t claimed = claims.empty() ? 0 : claims[0].stages_per_rank;
  if (kind == ScheduleKind::k1F1B && claimed >= 2) kind = ScheduleKind::kInterleaved;
  const Placement placement =
      placement_of(kind, 1, static_cast<int>(std::max<int64_t>(claimed, 2)));
  if (placement.shape() == Placement::Shape::kV) {
    const int64_t ranks = options.pipeline_model_parallel_size;
    MT_CHECK_CONFIG(options.hetero_pipeline_stages.empty(), kHetero, " (",
                    joined(options.hetero_pipeline_stages), ") does not go with scheduler ",
                    name_of(kind), ", where a rank has two chunks: give ", kVirtualHetero, " ",
                    2 * ranks, " numbers, first chunk 0 of every rank, then chunk 1");
  }
  for (const Claim& claim : claims) {
    const char* stages = claim.stages_per_rank == 1 ? " stage" : " stages";
    MT_CHECK_CONFIG(claim.stages_per_rank == claimed, claims[0].option, " means ", claimed,
                    claimed == 1 ? " stage" : " stages", " a rank, but ", claim.option, " means ",
                    claim.stages_per_rank);
    MT_CHECK_CONFIG(claim.stages_per_rank == placement.num_chunks(), claim.option, " means ",
                    claim.stages_per_rank, stages, " a rank, but scheduler ", name_of(kind),
                    " has ", placement.num_chunks());
  }
  return {kind, placement.num_chunks()};
}

}  // namespace

PipelineSettings pipeline_settings(const ParallelOptions& options, int64_t num_layers,
                                   int64_t num_micro_batches) {
  const std::vector<Claim> claims = claims_of(options, num_layers);
  PipelineSettings settings;
  const KindOfStages checked = checked_kind(options, claims);
  settings.request = {.kind = checked.kind,
                      .num_ranks = static_cast<int>(options.pipeline_model_parallel_size),
                      .num_micro_batches = static_cast<int>(num_micro_batches),
                      .activation_cap = static_cast<int>(options.pipeline_activation_cap),
                      .communication = options.pipeline_communication,
                      .loop_chunks = std::max(checked.num_chunks, 2)};
  const Placement placement = placement_of(settings.request);
  const bool is_virtual = !options.virtual_hetero_pipeline_stages.empty();
  const std::vector<int64_t>& layers =
      is_virtual ? options.virtual_hetero_pipeline_stages : options.hetero_pipeline_stages;
  const char* option =
      is_virtual || placement.shape() == Placement::Shape::kV ? kVirtualHetero : kHetero;
  // A stage without layers is left to those who ask for it.
  MT_CHECK_CONFIG(!layers.empty() || placement.num_stages() <= num_layers,
                  "pipeline-model-parallel-size (", placement.num_ranks(), ") under scheduler ",
                  name_of(settings.request.kind), " makes ", placement.num_stages(),
                  " stages, more than num-layers (", num_layers, "): say with ", option,
                  " which of them have none");
  settings.stages = stage_layout(placement, num_layers, layers, option);
  return settings;
}

}  // namespace moetron
