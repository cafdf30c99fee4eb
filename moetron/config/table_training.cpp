// Batches, steps, the optimizer and the learning rate.
#include "moetron/config/option_groups.h"

namespace moetron {

void declare_training(OptionTable& table) {
  table.begin_group("training", "Training", {Command::kPretrain});
  const std::vector<Command> measured{Command::kPretrain, Command::kSimulate, Command::kBench};
  table
      .add(MT_FIELD(training, seq_length),
           "Length of a training sequence; of a bench, 4096 without it.")
      .also("encoder-seq-length")
      .unit("tokens")
      .count()
      .required()
      .for_commands(measured)
      .deciding_training();
  table
      .add(MT_FIELD(training, micro_batch_size),
           "Sequences that a rank computes at once; of a bench, 1 without it.")
      .unit("sequences")
      .count()
      .required()
      .for_commands(measured);
  table.add(MT_FIELD(training, global_batch_size), "Sequences of one step over all ranks.")
      .unit("sequences")
      .count()
      .required()
      .for_commands({Command::kPretrain, Command::kSimulate})
      .deciding_training();
  table.add(MT_FIELD(training, train_iters), "Number of steps of the run.")
      .unit("steps")
      .count()
      .required_unless("train-samples");
  table
      .add(
          MT_FIELD(training, train_samples),
          "How many sequences the run trains on, instead of train-iters; what fills no whole batch "
          "is left out.")
      .unit("sequences")
      .at_least(1)
      .at_most(1e15);
  table.add(MT_FIELD(training, eval_interval), "Evaluates every so many steps.")
      .unit("steps")
      .count();
  table
      .add(MT_FIELD(training, eval_iters),
           "Global batches of one evaluation; zero or less: no evaluation.")
      .unit("steps")
      .at_least(-1)
      .at_most(2147483647);
  table
      .add(MT_FIELD(training, exit_interval),
           "Saves and exits at the first step that is a multiple of this; 0: never.")
      .unit("steps")
      .count_or_zero();
  table
      .add(MT_FIELD(training, exit_duration_in_mins),
           "Saves and exits at the end of the step in which the run has lasted so long; 0: never.")
      .unit("minutes")
      .at_least(0)
      .at_most(1e15);
  table
      .add(MT_FIELD(training, dtype),
           "Type of parameters and activations; auto: bf16 on a GPU, fp32 on a CPU; fp8: the same, "
           "with fp8-format e4m3.")
      .one_of({{"auto", Dtype::kAuto},
               {"bf16", Dtype::kBf16},
               {"fp32", Dtype::kFp32},
               {"fp16", Standing::kNotYet, "fp16 with loss scaling"},
               {"fp8", Dtype::kFp8}})
      .megatron_takes("fp32")
      .also("bf16", "bf16")
      .also("fp32", "fp32")
      .also("fp16", "fp16")
      .for_commands({Command::kPretrain, Command::kBench})
      .deciding_training();
  for (const char* name : {"attention-dropout", "hidden-dropout"})
    table.add_fieldless(name, ValueKind::kNumber, "Probability of dropping an activation.")
        .only("0", "dropout")
        .megatron_takes("0.1");
  table
      .add_fieldless("rampup-batch-size", ValueKind::kTexts,
                     "Starts with smaller batches: first size, increment, samples.")
      .not_yet("growing batches");
}

namespace {

std::string idle_without_decay(const Options& options) {
  return options.optimizer.lr_decay_style == LrDecayStyle::kConstant
             ? "with lr-decay-style constant nothing decays"
             : "";
}

std::string idle_without_hybrid(const Options& options) {
  return options.optimizer.optimizer == OptimizerKind::kHybridAdam
             ? ""
             : "it acts with optimizer hybridadam only";
}

std::string idle_without_copies(const Options& options) {
  const std::string reason = idle_without_hybrid(options);
  if (!reason.empty() || options.runtime.device != DeviceKind::kCpu) return reason;
  return "with device cpu nothing is copied";
}

std::string remark_on_cpu(const Options& options) {
  const bool is_hybrid = options.optimizer.optimizer == OptimizerKind::kHybridAdam;
  return is_hybrid && options.runtime.device == DeviceKind::kCpu
             ? "with device cpu all of Adam's states are in host memory"
             : "";
}

void declare_offload(OptionTable& table) {
  table
      .add(MT_FIELD(optimizer, optimizer),
           "The update rule; adam decays weights apart from the gradient (AdamW); hybridadam: the "
           "same, with states in host memory, updated there.")
      .one_of({{"adam", OptimizerKind::kAdam},
               {"hybridadam", OptimizerKind::kHybridAdam},
               {"sgd", Standing::kNotYet, "plain gradient descent"},
               {"muon", Standing::kNotYet, "Muon"},
               {"adamw", OptimizerKind::kAdam}})
      .also("optimizer-cpu-offload", "hybridadam")
      .remark_when(remark_on_cpu)
      .deciding_training();
  table
      .add_fieldless("optimizer-offload-policy", ValueKind::kChoice,
                     "Which states are in host memory: static: always the same ones.")
      .of_guide()
      .one_of({Choice("static")})
      .idle_when(idle_without_hybrid);
  table
      .add(MT_FIELD(optimizer, optimizer_offload_fraction),
           "Share of the elements whose Adam states are in host memory, from the model's end.")
      .at_least(0)
      .at_most(1)
      .idle_when(idle_without_hybrid);
  table
      .add(MT_FIELD(optimizer, optimizer_enable_pin),
           "Pins the host memory that gradients and new values pass through: copies are faster and "
           "run beside the update, those of gradients beside the backward where no other rank adds "
           "to "
           "them.")
      .of_guide()
      .idle_when(idle_without_copies);
}

}  // namespace

void declare_optimizer(OptionTable& table) {
  table.begin_group("optimizer", "Optimizer", {Command::kPretrain});
  table.add(MT_FIELD(optimizer, lr), "Peak learning rate.").above(0).required().deciding_training();
  table.add(MT_FIELD(optimizer, min_lr), "Learning rate at the end of the decay.")
      .at_least(0)
      .deciding_training()
      .idle_when(idle_without_decay);
  table.add(MT_FIELD(optimizer, lr_decay_style), "Shape of the decay after the warm-up.")
      .one_of({{"constant", LrDecayStyle::kConstant},
               {"linear", LrDecayStyle::kLinear},
               {"cosine", LrDecayStyle::kCosine},
               {"inverse-square-root", Standing::kNotYet, "inverse square root decay"},
               {"WSD", Standing::kNotYet, "warm-up, stable, decay"}})
      .deciding_training();
  table
      .add(MT_FIELD(optimizer, lr_decay_iters),
           "Step at which the decay ends; without it, train-iters.")
      .unit("steps")
      .count()
      .deciding_training()
      .idle_when(idle_without_decay);
  table
      .add(MT_FIELD(optimizer, lr_warmup_iters),
           "Steps in which the learning rate rises from zero to its peak.")
      .unit("steps")
      .count_or_zero()
      .deciding_training();
  table.add(MT_FIELD(optimizer, lr_warmup_init), "Learning rate that the warm-up begins with.")
      .at_least(0)
      .deciding_training();
  table
      .add(MT_FIELD(optimizer, lr_warmup_fraction),
           "The warm-up as a share of the steps in which the learning rate decays.")
      .at_least(0)
      .at_most(1)
      .deciding_training();
  table
      .add(MT_FIELD(optimizer, lr_warmup_samples),
           "The warm-up in sequences, beside train-samples.")
      .unit("sequences")
      .at_least(0)
      .at_most(1e15)
      .deciding_training();
  table
      .add(MT_FIELD(optimizer, lr_decay_samples),
           "Where the decay ends, in sequences, beside train-samples, and without it there.")
      .unit("sequences")
      .at_least(1)
      .at_most(1e15)
      .deciding_training()
      .idle_when(idle_without_decay);
  table
      .add(MT_FIELD(optimizer, weight_decay),
           "Decoupled weight decay of matrices; vectors are not decayed.")
      .at_least(0)
      .deciding_training();
  table.add(MT_FIELD(optimizer, adam_beta1), "Decay of the mean of gradients.")
      .at_least(0)
      .below(1)
      .deciding_training();
  table.add(MT_FIELD(optimizer, adam_beta2), "Decay of the mean of squared gradients.")
      .at_least(0)
      .below(1)
      .deciding_training();
  table.add(MT_FIELD(optimizer, adam_eps), "Added to Adam's denominator.")
      .above(0)
      .deciding_training();
  table.add(MT_FIELD(optimizer, clip_grad), "Scales gradients down to this global norm; 0: never.")
      .at_least(0)
      .deciding_training();
  declare_offload(table);
  table
      .add(MT_FIELD(optimizer, use_distributed_optimizer),
           "Divides the optimizer's states among the ranks that hold the same parameters (ZeRO-1).")
      .for_commands({Command::kPretrain, Command::kSimulate});
  table.add(MT_FIELD(optimizer, overlap_grad_reduce),
            "Reduces gradients, bucket by bucket, while the last backward still runs.");
  table.add(MT_FIELD(optimizer, overlap_param_gather),
            "Gathers updated parameters while the next forward runs; needs "
            "use-distributed-optimizer and overlap-grad-reduce.");
}

}  // namespace moetron
