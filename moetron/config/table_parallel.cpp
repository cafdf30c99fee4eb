// The mesh, the schedule, recompute and the choice of kernels.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_at_one_tensor_rank(const Options& options) {
  const bool is_asked = options.parallel.sequence_parallel.value_or(false);
  if (!is_asked || options.parallel.tensor_model_parallel_size > 1) return "";
  return "it acts with tensor-model-parallel-size above 1 only";
}

std::string idle_without_full(const Options& options) {
  return options.memory.recompute_granularity ? "" : "it acts with recompute-granularity full only";
}

// Of several kinds of recompute the strongest acts.
std::string idle_beside_full(const Options& options) {
  return options.memory.moe_layer_recompute && options.memory.recompute_granularity
             ? "recompute-granularity full recomputes the whole layer"
             : "";
}

std::string idle_beside_stronger(const Options& options) {
  const MemoryOptions& memory = options.memory;
  if (!memory.mlp_recompute) return "";
  if (memory.recompute_granularity) return "recompute-granularity full recomputes the whole layer";
  return memory.moe_layer_recompute ? "moe-layer-recompute recomputes the whole expert part" : "";
}

}  // namespace

void declare_parallel(OptionTable& table) {
  table.begin_group("parallel", "Parallelism", {Command::kPretrain});
  table.add(MT_FIELD(parallel, tensor_model_parallel_size), "Ranks that share a dense layer.")
      .unit("ranks")
      .count();
  table.add(MT_FIELD(parallel, tensor_model_parallel_for_expert), "Ranks that share an expert.")
      .also("expert-tensor-parallel-size")
      .unit("ranks")
      .count();
  table
      .add(MT_FIELD(parallel, expert_model_parallel_size),
           "Ranks that the experts of a layer are divided among.")
      .unit("ranks")
      .count();
  table
      .add(MT_FIELD(parallel, pipeline_model_parallel_size),
           "Ranks that the layers are divided among.")
      .unit("ranks")
      .count()
      .only("1", "pipeline parallelism");
  table
      .add_fieldless("context-parallel-size", ValueKind::kInteger,
                     "Ranks that a sequence is divided among.")
      .unit("ranks")
      .count()
      .only("1", "context parallelism");
  table
      .add(MT_FIELD(parallel, sequence_parallel),
           "Divides norms and residuals along the sequence among tensor-parallel ranks; always on "
           "where there are several.")
      .idle_when(idle_at_one_tensor_rank);
  table.add_fieldless("scheduler", ValueKind::kChoice, "The pipeline schedule.")
      .one_of({{"1f1b", Standing::kNoEffect, "with one pipeline rank all schedules are the same"},
               {"dualpipev", Standing::kNotYet, "the schedule DualPipeV"},
               {"dualpipev+", Standing::kNotYet, "the schedule DualPipeV+"},
               {"zb-h1", Standing::kNotYet, "the schedule ZB-H1"},
               {"zb-v", Standing::kNotYet, "the schedule ZB-V"}});
  table
      .add_fieldless("num-layers-per-virtual-pipeline-stage", ValueKind::kInteger,
                     "Layers of a virtual stage; several a rank make an interleaved schedule.")
      .not_yet("virtual pipeline stages");
  table
      .add_fieldless("num-virtual-stages-per-pipeline-rank", ValueKind::kInteger,
                     "Virtual stages of a rank.")
      .not_yet("virtual pipeline stages");
  table.add_fieldless("hetero-pipeline-stages", ValueKind::kNumbers, "Layers of each stage.")
      .not_yet("uneven pipeline stages");
  table
      .add_fieldless("virtual-hetero-pipeline-stages", ValueKind::kNumbers,
                     "Layers of chunk 0 of every rank, then of chunk 1 of every rank.")
      .not_yet("uneven pipeline stages");
  table
      .add_fieldless("pipeline-model-parallel-layout", ValueKind::kText,
                     "Layers of each stage, drawn in letters.")
      .not_yet("uneven pipeline stages");
  table
      .add_fieldless("overlap-moe-expert-parallel-comm", ValueKind::kFlag,
                     "Hides expert communication behind compute.")
      .not_yet("overlapped expert communication");
  table
      .add_fieldless("delay-wgrad-compute", ValueKind::kFlag,
                     "Computes weight gradients apart from input gradients.")
      .not_yet("delayed weight gradients");
}

void declare_memory(OptionTable& table) {
  table.begin_group("memory", "Memory", {Command::kPretrain});
  table
      .add(MT_FIELD(memory, recompute_granularity),
           "What the backward computes again instead of keeping: full: whole layers, of which "
           "the inputs are kept.")
      .one_of({{"full"}, {"selective", Standing::kNotYet, "recompute of single modules"}});
  table
      .add(MT_FIELD(memory, recompute_method),
           "Which layers are recomputed: uniform: all of them, recompute-num-layers at a time.")
      .one_of({{"uniform"}, {"block", Standing::kNotYet, "recompute of the first layers only"}})
      .idle_when(idle_without_full);
  table
      .add(MT_FIELD(memory, recompute_num_layers),
           "Layers that are recomputed together, from the input of the first.")
      .unit("layers")
      .count()
      .idle_when(idle_without_full);
  table
      .add_fieldless("recompute-modules", ValueKind::kTexts,
                     "Parts of a layer that are recomputed.")
      .not_yet("recompute of single modules");
  table
      .add(
          MT_FIELD(memory, moe_layer_recompute),
          "Recomputes the expert part of a layer: dispatches again and computes the experts again.")
      .idle_when(idle_beside_full);
  table
      .add(MT_FIELD(memory, mlp_recompute),
           "Recomputes the first of an expert's two matrix products and the activation.")
      .idle_when(idle_beside_stronger);
}

void declare_kernels(OptionTable& table) {
  table.begin_group("kernels", "Kernels", {Command::kPretrain});
  const std::string one_set = "there is one set of operators, the fastest of the machine";
  table.add_fieldless("transformer-impl", ValueKind::kChoice, "Which operators compute a layer.")
      .one_of({{"transformer_engine", Standing::kNoEffect, one_set},
               {"local", Standing::kNoEffect, one_set}});
  table
      .add_fieldless("module-impl", ValueKind::kPairs,
                     "transformer-impl for single modules, such as {core_attn:local}.")
      .no_effect(one_set);
  const std::string attention = "the fastest attention of the machine is always used";
  table.add_fieldless("use-flash-attn", ValueKind::kFlag, "Uses flash attention.")
      .no_effect(attention);
  table.add_fieldless("use-mcore-models", ValueKind::kFlag, "Uses the newer model classes.")
      .no_effect("there is one set of model classes");
  const std::string fusion = "fusion does not change results and is chosen by the program";
  for (const char* name : {"no-bias-swiglu-fusion", "no-rope-fusion"})
    table.add_fieldless(name, ValueKind::kFlag, "Leaves a fusion out.").no_effect(fusion);
  table
      .add_fieldless("cross-entropy-loss-fusion", ValueKind::kFlag,
                     "Fuses the softmax of the loss.")
      .no_effect(fusion);
  table.add_fieldless("rotary-emb-use-cache", ValueKind::kFlag, "Keeps sines and cosines.")
      .no_effect("sines and cosines are always kept");
  table
      .add_fieldless("use-local-multi-tensor-scale", ValueKind::kFlag,
                     "Scales gradients without a fused kernel.")
      .no_effect("there is one way to scale gradients");
  table
      .add_fieldless("no-async-tensor-model-parallel-allreduce", ValueKind::kFlag,
                     "Waits for the reductions of tensor parallelism.")
      .no_effect("with sequence parallelism there is no such all-reduce");
}

}  // namespace moetron
