// The mesh, the schedule, recompute and the choice of kernels.
#include <algorithm>

#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string sequence_parallel_at_one_rank(const Options& options) {
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

std::string idle_with_fast_attention(const Options& options) {
  return options.kernels.transformer_impl == TransformerImpl::kLocal
             ? ""
             : "the fastest attention of the machine is always used";
}

std::string remark_on_one_stage(const Options& options) {
  return options.parallel.pipeline_model_parallel_size > 1
             ? ""
             : "with one pipeline rank schedules differ only in what hides expert communication";
}

std::string idle_beyond_plus(const Options& options) {
  return options.parallel.scheduler == ScheduleKind::kDualPipeVPlus
             ? ""
             : "it acts with scheduler dualpipev+ only";
}

std::vector<Choice> schedule_choices() {
  std::vector<Choice> choices;
  for (const auto& [name, kind, has_blocks] : kSchedules) choices.emplace_back(name, kind);
  return choices;
}

// The commands that divide a model among ranks.
const std::vector<Command>& layout_commands() {
  static const std::vector<Command> commands{Command::kPretrain, Command::kSimulate,
                                             Command::kConvert, Command::kGenerate, Command::kChat};
  return commands;
}

void declare_schedule(OptionTable& table) {
  table
      .add(MT_FIELD(parallel, scheduler),
           "The pipeline schedule; 1f1b with several virtual stages a rank is interleaved.")
      .of_guide()
      .for_commands(layout_commands())
      .one_of(schedule_choices())
      .remark_when(remark_on_one_stage);
  table
      .add(MT_FIELD(parallel, num_layers_per_virtual_pipeline_stage),
           "Layers of a virtual stage, of which a rank may have several; beside "
           "hetero-pipeline-stages, which then has a number for each, how many it has.")
      .for_commands(layout_commands())
      .unit("layers")
      .count();
  table.add(MT_FIELD(parallel, num_virtual_stages_per_pipeline_rank), "Virtual stages of a rank.")
      .for_commands(layout_commands())
      .unit("stages")
      .count();
  table
      .add(MT_FIELD(parallel, hetero_pipeline_stages),
           "Layers of each pipeline rank; several times as many numbers are those of virtual "
           "stages: the first of every rank, then the second of every rank, and so on.")
      .of_guide()
      .for_commands(layout_commands())
      .unit("layers")
      .count_or_zero();
  table
      .add(MT_FIELD(parallel, virtual_hetero_pipeline_stages),
           "Layers of chunk 0 of every pipeline rank, then of chunk 1 of every rank.")
      .of_guide()
      .for_commands(layout_commands())
      .unit("layers")
      .count_or_zero();
  table
      .add(MT_FIELD(parallel, pipeline_activation_cap),
           "Activations that a rank may hold, counted by chunks and micro-batches; 0: as few as "
           "cost little time.")
      .ours()
      .count_or_zero()
      .idle_when(idle_beyond_plus);
  table
      .add(MT_FIELD(parallel, pipeline_communication),
           "Expert communication of a chunk's forward over its compute, for which the schedule is "
           "made.")
      .ours()
      .at_least(0)
      .at_most(100)
      .idle_when(idle_beyond_plus);
}

}  // namespace

void declare_parallel(OptionTable& table) {
  table.begin_group("parallel", "Parallelism", {Command::kPretrain, Command::kSimulate});
  table.add(MT_FIELD(parallel, tensor_model_parallel_size), "Ranks that share a dense layer.")
      .also("target-tensor-parallel-size")
      .also("tp-size")
      .for_commands(layout_commands())
      .unit("ranks")
      .count();
  table.add(MT_FIELD(parallel, tensor_model_parallel_for_expert), "Ranks that share an expert.")
      .also("expert-tensor-parallel-size")
      .megatron_takes_that_of("tensor-model-parallel-size",
                              [](const Options& options) {
                                return options.moe.num_experts &&
                                       options.parallel.tensor_model_parallel_size > 1;
                              })
      .also("target-expert-tensor-parallel-size")
      .also("tpe-size")
      .for_commands(layout_commands())
      .unit("ranks")
      .count();
  table
      .add(MT_FIELD(parallel, expert_model_parallel_size),
           "Ranks that the experts of a layer are divided among.")
      .also("target-expert-parallel-size")
      .also("ep-size")
      .for_commands(layout_commands())
      .unit("ranks")
      .count();
  table
      .add(MT_FIELD(parallel, pipeline_model_parallel_size),
           "Ranks that the layers are divided among.")
      .also("target-pipeline-parallel-size")
      .also("pp-size")
      .for_commands(layout_commands())
      .unit("ranks")
      .count();
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
      .idle_when(sequence_parallel_at_one_rank);
  declare_schedule(table);
  table.add(MT_FIELD(parallel, pipeline_model_parallel_layout),
            "hetero-pipeline-stages in letters: E the embedding, t a layer, L the loss, | the next "
            "stage; (tt|)*3 repeats.");
  table
      .add(MT_FIELD(parallel, decoder_first_pipeline_num_layers),
           "Layers of the first pipeline rank; the others share the rest evenly.")
      .unit("layers")
      .count();
  table
      .add(MT_FIELD(parallel, decoder_last_pipeline_num_layers),
           "Layers of the last pipeline rank; the others share the rest evenly.")
      .unit("layers")
      .count();
  table.add(MT_FIELD(parallel, account_for_embedding_in_pipeline_split),
            "Counts the embedding as a layer of the first stage, where layers are divided evenly.");
  table.add(MT_FIELD(parallel, account_for_loss_in_pipeline_split),
            "Counts the loss as a layer of the last stage, where layers are divided evenly.");
  table
      .add_fieldless("overlap-moe-expert-parallel-comm", ValueKind::kFlag,
                     "Hides expert communication behind compute.")
      .no_effect(
          "scheduler dualpipev overlaps it; under 1f1b the shared expert alone runs beside it");
  table
      .add_fieldless("delay-wgrad-compute", ValueKind::kFlag,
                     "Computes weight gradients apart from input gradients.")
      .no_effect("scheduler dualpipev, zb-h1 and zb-v delay them");
}

void declare_memory(OptionTable& table) {
  table.begin_group("memory", "Memory", {Command::kPretrain, Command::kSimulate, Command::kBench});
  table
      .add(MT_FIELD(memory, recompute_granularity),
           "What the backward computes again instead of keeping: full: whole layers, of which "
           "the inputs are kept.")
      .one_of({{"full", RecomputeGranularity::kFull},
               {"selective", Standing::kNoEffect,
                "recompute-modules says what is; the fastest attention keeps no scores anyway"}})
      .also("recompute-activations", "selective");
  table
      .add(MT_FIELD(memory, recompute_method),
           "Which layers are recomputed: uniform: all of them, recompute-num-layers at a time.")
      .one_of({{"uniform", RecomputeMethod::kUniform},
               {"block", Standing::kNotYet, "recompute of the first layers only"}})
      .idle_when(idle_without_full);
  table
      .add(MT_FIELD(memory, recompute_num_layers),
           "Layers that are recomputed together, from the input of the first.")
      .unit("layers")
      .count()
      .idle_when(idle_without_full);
  table
      .add(MT_FIELD(memory, recompute_modules),
           "Parts of a layer that are recomputed: moe is moe-layer-recompute, moe_act is "
           "mlp-recompute, and core_attn is so in any case.")
      .differs("moe_act recomputes the first of an expert's products, too.",
               [](const Options& options) {
                 const auto& modules = options.memory.recompute_modules;
                 return std::find(modules.begin(), modules.end(), "moe_act") != modules.end();
               });
  table
      .add(
          MT_FIELD(memory, moe_layer_recompute),
          "Recomputes the expert part of a layer: dispatches again and computes the experts again.")
      .of_guide()
      .idle_when(idle_beside_full);
  table
      .add(MT_FIELD(memory, mlp_recompute),
           "Recomputes the first of an expert's two matrix products and the activation.")
      .of_guide()
      .idle_when(idle_beside_stronger);
}

void declare_kernels(OptionTable& table) {
  table.begin_group("kernels", "Kernels", {Command::kPretrain});
  table
      .add(
          MT_FIELD(kernels, transformer_impl),
          "Which operators compute a layer: the fastest of the machine (transformer_engine), or "
          "plain ones to compare with (local), on a GPU without kernels of ours. Of convert, whose "
          "names Megatron's files have: with TransformerEngine norms belong to the linears.")
      .for_commands({Command::kPretrain, Command::kConvert})
      .differs(
          "local: plain operators to compare with, slower than Megatron's; the results are the "
          "same.",
          [](const Options& options) {
            return options.kernels.transformer_impl == TransformerImpl::kLocal;
          })
      .one_of({{"transformer_engine", TransformerImpl::kTransformerEngine},
               {"local", TransformerImpl::kLocal}});
  table
      .add(MT_FIELD(kernels, module_impl),
           "transformer-impl for one module: with core_attn the fastest attention computes beside "
           "transformer-impl local, too.")
      .of_guide()
      .pairs()
      .one_of({Choice("core_attn:local"), Choice("core_attn:transformer_engine")})
      .idle_when(idle_with_fast_attention);
  table
      .add(MT_FIELD(kernels, use_flash_attn),
           "The fastest attention computes beside transformer-impl local, too.")
      .idle_when([](const Options& options) {
        return options.kernels.use_flash_attn ? idle_with_fast_attention(options) : "";
      });
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
      .of_guide()
      .no_effect("sines and cosines are always kept");
  table
      .add_fieldless("use-local-multi-tensor-scale", ValueKind::kFlag,
                     "Scales gradients without a fused kernel.")
      .of_guide()
      .no_effect("there is one way to scale gradients");
  table
      .add_fieldless("no-async-tensor-model-parallel-allreduce", ValueKind::kFlag,
                     "Waits for the reductions of tensor parallelism.")
      .no_effect("with sequence parallelism there is no such all-reduce");
}

}  // namespace moetron
