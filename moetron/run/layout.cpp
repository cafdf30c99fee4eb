#include "moetron/run/layout.h"

#include <algorithm>
#include <array>

#include "moetron/base/error.h"
#include "moetron/config/options.h"
#include "moetron/run/division.h"

namespace moetron {
namespace {

class Typed {
 public:
  explicit Typed(const std::vector<std::string>& names) : names_(names) {}

  bool has(const char* name) const {
    return std::find(names_.begin(), names_.end(), name) != names_.end();
  }
  bool has_any(std::initializer_list<const char*> names) const {
    return std::any_of(names.begin(), names.end(), [this](const char* name) { return has(name); });
  }

 private:
  const std::vector<std::string>& names_;
};

std::vector<LayoutSpace::Schedule> schedules(const ParallelOptions& parallel, const Typed& typed) {
  // Those of which no other is as fast with less memory: gpipe is not one. The lists of dualpipev+
  // take up to a second each, so it is left to those who ask for it.
  constexpr std::array kTried{ScheduleKind::k1F1B, ScheduleKind::kInterleaved, ScheduleKind::kZbH1,
                              ScheduleKind::kZbV, ScheduleKind::kDualPipeV};
  std::vector<ScheduleKind> kinds(kTried.begin(), kTried.end());
  if (typed.has("scheduler")) {
    kinds = {parallel.scheduler};
    // Several virtual stages a rank are a choice of their own.
    if (parallel.scheduler == ScheduleKind::k1F1B) kinds.push_back(ScheduleKind::kInterleaved);
  }
  constexpr int kMostChunks = 6;  // of a loop: beyond, messages cost more than waiting
  std::vector<LayoutSpace::Schedule> all;
  for (const ScheduleKind kind : kinds) {
    const bool is_loop = kind == ScheduleKind::kInterleaved;
    const int least = is_loop ? 2 : placement_of(kind, 1).num_chunks();
    for (int chunks = least; chunks <= (is_loop ? kMostChunks : least); ++chunks) {
      const auto& asked = parallel.num_virtual_stages_per_pipeline_rank;
      if (typed.has("num-virtual-stages-per-pipeline-rank") && chunks != asked.value_or(chunks))
        continue;
      all.push_back({kind, chunks});
    }
  }
  return all;
}

std::optional<std::vector<int64_t>> typed_layers(const ParallelOptions& parallel,
                                                 const Typed& typed) {
  if (typed.has("virtual-hetero-pipeline-stages")) return parallel.virtual_hetero_pipeline_stages;
  if (typed.has("hetero-pipeline-stages")) return parallel.hetero_pipeline_stages;
  return {};
}

RecomputeSpec asked_recompute(const MemoryOptions& memory) {
  if (memory.recompute_granularity) return {Recompute::kLayer, memory.recompute_num_layers};
  if (memory.moe_layer_recompute) return {Recompute::kMoeLayer};
  return {memory.mlp_recompute ? Recompute::kExpertProduct : Recompute::kNothing};
}

std::vector<RecomputeSpec> recompute_kinds(const Options& options, const Typed& typed) {
  if (typed.has_any({"recompute-granularity", "moe-layer-recompute", "mlp-recompute"}))
    return {asked_recompute(options.memory)};
  return {{Recompute::kNothing},
          {Recompute::kExpertProduct},
          {Recompute::kMoeLayer},
          {Recompute::kLayer}};
}

std::vector<double> host_fractions(const OptimizerOptions& optimizer, const Typed& typed) {
  const bool is_hybrid = optimizer.optimizer == OptimizerKind::kHybridAdam;
  if (typed.has_any({"optimizer", "optimizer-offload-fraction"}))
    return {is_hybrid ? optimizer.optimizer_offload_fraction : 0};
  return {0, 0.5, 1};
}

}  // namespace

ScheduleRequest Layout::request(int64_t num_micro_batches) const {
  return {.kind = kind,
          .num_ranks = static_cast<int>(pp),
          .num_micro_batches = static_cast<int>(num_micro_batches),
          .loop_chunks = std::max(num_chunks, 2)};
}

LayoutSpace layout_space(const Options& options, const std::vector<std::string>& typed_names,
                         int64_t gpus_per_node) {
  const Typed typed(typed_names);
  const PlanOptions& limits = options.plan;
  const ParallelOptions& parallel = options.parallel;
  const TrainingOptions& training = options.training;
  MT_CHECK_CONFIG(
      options.runtime.world_size && training.seq_length > 0 && training.global_batch_size > 0,
      "plan needs world-size, seq-length and global-batch-size");
  LayoutSpace space;
  space.world_size = *options.runtime.world_size;
  space.global_batch_size = training.global_batch_size;
  const auto sizes = [&](const char* name, int64_t asked, int64_t number, int64_t most,
                         const std::optional<int64_t>& limit) {
    if (typed.has(name)) return std::vector<int64_t>{asked};
    return divisors(number, std::min(most, limit.value_or(most)));
  };
  const int64_t world = space.world_size;
  space.tp = sizes("tensor-model-parallel-size", parallel.tensor_model_parallel_size, world,
                   gpus_per_node, limits.max_tensor_model_parallel_size);
  space.tpe = sizes("tensor-model-parallel-for-expert", parallel.tensor_model_parallel_for_expert,
                    world, gpus_per_node, limits.max_tensor_model_parallel_size);
  space.ep = sizes("expert-model-parallel-size", parallel.expert_model_parallel_size, world, world,
                   limits.max_expert_model_parallel_size);
  space.pp = sizes("pipeline-model-parallel-size", parallel.pipeline_model_parallel_size, world,
                   world, limits.max_pipeline_model_parallel_size);
  constexpr int64_t kMostSequences = 16;
  space.micro_batch =
      sizes("micro-batch-size", training.micro_batch_size, training.global_batch_size,
            kMostSequences, limits.max_micro_batch_size);
  space.schedules = schedules(parallel, typed);
  space.dispatchers = {TokenDispatcher::kAllGatherFused, TokenDispatcher::kDeepep,
                       TokenDispatcher::kAllToAll};
  if (typed.has("moe-token-dispatcher-type"))
    space.dispatchers = {options.moe.moe_token_dispatcher_type};
  space.recompute = recompute_kinds(options, typed);
  space.host_fractions = host_fractions(options.optimizer, typed);
  space.layers = typed_layers(parallel, typed);
  if (typed.has("num-layers-per-virtual-pipeline-stage"))
    space.layers_per_stage = parallel.num_layers_per_virtual_pipeline_stage;
  return space;
}

Options with_layout(const Options& options, const std::vector<std::string>& typed,
                    const Layout& layout) {
  Options laid = options;
  ParallelOptions& parallel = laid.parallel;
  parallel.tensor_model_parallel_size = layout.tp;
  parallel.tensor_model_parallel_for_expert = layout.tpe;
  parallel.expert_model_parallel_size = layout.ep;
  parallel.pipeline_model_parallel_size = layout.pp;
  parallel.scheduler = layout.kind;
  parallel.hetero_pipeline_stages.clear();
  parallel.virtual_hetero_pipeline_stages.clear();
  parallel.num_layers_per_virtual_pipeline_stage.reset();
  parallel.num_virtual_stages_per_pipeline_rank.reset();
  const Placement::Shape shape = placement_of(layout.request(1)).shape();
  if (shape == Placement::Shape::kLoop)
    parallel.num_virtual_stages_per_pipeline_rank = layout.num_chunks;
  (shape == Placement::Shape::kV ? parallel.virtual_hetero_pipeline_stages
                                 : parallel.hetero_pipeline_stages) = layout.layers;
  laid.training.micro_batch_size = layout.micro_batch;
  laid.moe.moe_token_dispatcher_type = layout.dispatcher;
  MemoryOptions& memory = laid.memory;
  memory.mlp_recompute = layout.recompute.kind == Recompute::kExpertProduct;
  memory.moe_layer_recompute = layout.recompute.kind == Recompute::kMoeLayer;
  memory.recompute_granularity.reset();
  if (layout.recompute.kind == Recompute::kLayer)
    memory.recompute_granularity = RecomputeGranularity::kFull;
  memory.recompute_num_layers = layout.recompute.layers_per_input;
  const bool is_hybrid = layout.host_fraction > 0;
  laid.optimizer.optimizer = is_hybrid ? OptimizerKind::kHybridAdam : OptimizerKind::kAdam;
  laid.optimizer.optimizer_offload_fraction = is_hybrid ? layout.host_fraction : 1;
  const Typed names(typed);
  if (!names.has("use-distributed-optimizer")) laid.optimizer.use_distributed_optimizer = true;
  if (!names.has("moe-grouped-gemm")) laid.moe.moe_grouped_gemm = true;
  return laid;
}

}  // namespace moetron
