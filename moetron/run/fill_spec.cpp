#include "moetron/run/fill_spec.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "moetron/base/error.h"
#include "moetron/config/option_table.h"
#include "moetron/config/option_value.h"
#include "moetron/run/changed_options.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

RecomputeSpec recompute_spec(const MemoryOptions& memory) {
  if (memory.recompute_granularity) return {Recompute::kLayer, memory.recompute_num_layers};
  if (memory.moe_layer_recompute) return {Recompute::kMoeLayer};
  return {memory.mlp_recompute ? Recompute::kExpertProduct : Recompute::kNothing};
}

ExpertsSpec experts_spec(const MoeOptions& moe) {
  ExpertsSpec experts;
  experts.dispatcher = moe.moe_token_dispatcher_type;
  experts.scheme = scheme_of(experts.dispatcher);
  experts.grouped_gemm = moe.moe_grouped_gemm.value_or(true);
  experts.capacity_factor = moe.moe_expert_capacity_factor;
  if (moe.force_drop_and_padding && !experts.capacity_factor) experts.capacity_factor = 1;
  experts.drop_policy = moe.moe_token_drop_policy;
  experts.force_balance = moe.moe_router_force_load_balancing;
  experts.pad_to_capacity = moe.force_drop_and_padding || moe.moe_pad_expert_input_to_capacity;
  return experts;
}

std::optional<Fp8Spec> fp8_spec(const Options& options, int64_t num_layers) {
  const PrecisionOptions& precision = options.precision;
  if (!precision.fp8_format && options.training.dtype != Dtype::kFp8) return {};
  Fp8Spec fp8{
      .gradients_in_e5m2 = precision.fp8_format == Fp8Format::kHybrid,
      .weight_grad = precision.fp8_wgrad == Fp8WeightGrad::kFp8,
      .dispatch = precision.moe_fp8_dispatch.value_or(precision.fp8_wgrad == Fp8WeightGrad::kFp8),
      .end_layer = num_layers};
  if (precision.first_last_layers_bf16) {
    fp8.first_layer = precision.num_layers_at_start_in_bf16;
    fp8.end_layer -= precision.num_layers_at_end_in_bf16;
  }
  return fp8;
}

// Megatron's local implementation has flash attention where use-flash-attn asks for it; a module
// that is named has the fastest.
OperatorsSpec operators_spec(const KernelOptions& kernels) {
  const bool plain = kernels.transformer_impl == TransformerImpl::kLocal;
  const bool asks_for_fast = kernels.use_flash_attn || !kernels.module_impl.empty();
  return {.plain = plain, .plain_attention = plain && !asks_for_fast};
}

OptimizerSpec optimizer_spec(const OptimizerOptions& options) {
  return {.beta1 = options.adam_beta1,
          .beta2 = options.adam_beta2,
          .eps = options.adam_eps,
          .weight_decay = options.weight_decay,
          .clip_grad = options.clip_grad,
          .is_hybrid = options.optimizer == OptimizerKind::kHybridAdam,
          .host_fraction = options.optimizer_offload_fraction,
          .pin_host_memory = options.optimizer_enable_pin,
          .distributed = options.use_distributed_optimizer,
          .overlap_reduce = options.overlap_grad_reduce,
          .overlap_gather = options.overlap_param_gather};
}

// Several may stand in one word, with commas between them.
std::vector<std::string> split_at_commas(const std::vector<std::string>& words) {
  std::vector<std::string> names;
  for (const std::string& word : words) {
    std::istringstream parts(word);
    for (std::string name; std::getline(parts, name, ',');)
      if (!name.empty()) names.push_back(name);
  }
  return names;
}

// Throws ConfigError for an unknown name.
std::vector<std::string> accepted_changes(const std::vector<std::string>& words) {
  std::vector<std::string> names;
  for (const std::string& name : split_at_commas(words)) {
    const auto found = option_table().find(name);
    MT_CHECK_CONFIG(found || name == "all", "accept-changes: no option is named ", name,
                    option_table().suggestion(name, ""));
    names.push_back(found ? found->spec->name : name);
  }
  return names;
}

std::optional<LoraConfig> lora_config(const TuningOptions& tuning, const ModelConfig& model) {
  if (tuning.lora_rank == 0) return {};
  constexpr double kUsualScale = 2;
  return LoraConfig{
      .rank = tuning.lora_rank,
      .alpha = tuning.lora_alpha.value_or(kUsualScale * static_cast<double>(tuning.lora_rank)),
      .targets = find_lora_targets(model, split_at_commas(tuning.lora_targets))};
}

// --metrics, or the one under --save; empty: none.
std::string metrics_file(const Options& options) {
  const std::string& save = options.checkpoint.save;
  if (!options.logging.metrics.empty() || save.empty()) return options.logging.metrics;
  return (std::filesystem::path(save) / "metrics.jsonl").string();
}

LogSpec log_spec(const Options& options) {
  const LoggingOptions& logging = options.logging;
  const std::filesystem::path save = options.checkpoint.save;
  LogSpec log;
  log.interval = logging.log_interval;
  log.tensorboard = logging.tensorboard_dir;
  log.metrics = metrics_file(options);
  log.hash_steps = logging.hash_steps;
  log.params_norm = logging.log_params_norm;
  log.zeros_in_grad = logging.log_num_zeros_in_grad;
  if (save.empty()) return log;
  log.picture = (save / "loss.png").string();
  if (!logging.profile) return log;
  log.profile_folder = (save / "profile").string();
  log.profile_ending = logging.profile_format == PictureFormat::kPng ? ".png" : ".svg";
  log.profile_begin = logging.profile_step_start;
  log.profile_end = logging.profile_step_end;
  return log;
}

}  // namespace

void fill_tuning(const Options& options, RunSpec& spec) {
  const TuningOptions& tuning = options.tuning;
  spec.lora = lora_config(tuning, spec.model);
  if (spec.lora) return;  // which freezes all else
  spec.frozen =
      find_frozen_parts(spec.model, split_at_commas(tuning.freeze), options.model.mla_fuse_qkv);
}

LrSchedule resolve_learning_rate(const Options& options) {
  const OptimizerOptions& optimizer = options.optimizer;
  const TrainingOptions& training = options.training;
  const auto batch = static_cast<double>(std::max<int64_t>(training.global_batch_size, 1));
  const auto in_steps = [&](int64_t samples) { return static_cast<double>(samples) / batch; };
  LrSchedule schedule{.lr = optimizer.lr,
                      .min_lr = optimizer.min_lr,
                      .warmup_init_lr = optimizer.lr_warmup_init,
                      .style = optimizer.lr_decay_style};
  schedule.decay_iters =
      training.train_samples
          ? in_steps(optimizer.lr_decay_samples.value_or(*training.train_samples))
          : static_cast<double>(optimizer.lr_decay_iters.value_or(training.train_iters));
  if (optimizer.lr_warmup_fraction) {
    schedule.warmup_iters = *optimizer.lr_warmup_fraction * schedule.decay_iters;
  } else {
    schedule.warmup_iters = training.train_samples ? in_steps(optimizer.lr_warmup_samples)
                                                   : static_cast<double>(optimizer.lr_warmup_iters);
  }
  return schedule;
}

void fill_spec(const Options& options, RunSpec& spec) {
  const bool fuses = options.model.mla_fuse_qkv;
  spec.latent_attention = {.replicate_down = options.model.mla_replicate_l1,
                           .fuse_down = fuses,
                           .recompute_norms = fuses};
  spec.experts = experts_spec(options.moe);
  spec.recompute = recompute_spec(options.memory);
  const Dtype dtype = options.training.dtype;
  spec.dtype = dtype == Dtype::kFp8 ? Dtype::kAuto : dtype;
  spec.fp8 = fp8_spec(options, spec.model.num_layers);
  spec.operators = operators_spec(options.kernels);
  spec.optimizer = optimizer_spec(options.optimizer);
  const SftOptions& sft = options.sft;
  if (sft.applies && sft.objective == Objective::kDpo)
    spec.preferences = {.beta = sft.dpo_beta, .label_smoothing = sft.dpo_label_smoothing};
}

void fill_training(const Options& options, RunSpec& spec) {
  const TrainingOptions& training = options.training;
  spec.lr = resolve_learning_rate(options);
  spec.steps = {.train = training.train_iters,
                .eval_interval = training.eval_interval,
                .eval = std::max<int64_t>(training.eval_iters, 0),
                .sample_interval = options.sft.sample_answers > 0 ? options.sft.sample_interval : 0,
                .exit_interval = training.exit_interval,
                .exit_after = 60 * training.exit_duration_in_mins,
                .save_interval = options.checkpoint.save_interval};
  spec.data = resolve_data(options);
  spec.start = resolve_start(options);
  const CheckpointOptions& checkpoint = options.checkpoint;
  spec.save = {.in_background = checkpoint.async_save,
               .max_failures = checkpoint.save_failures,
               .keep_last = checkpoint.keep_last,
               .keep_every = checkpoint.keep_every};
  spec.log = log_spec(options);
  spec.seed = options.runtime.seed;
}

DataSpec resolve_data(const Options& options) {
  const DataOptions& data = options.data;
  return {.path = data.data_path,
          .mock = data.mock_data,
          .split = data.split,
          .cache_path = data.data_cache_path,
          .eod_mask_loss = data.eod_mask_loss,
          .reset_position_ids = data.reset_position_ids,
          .reset_attention_mask = data.reset_attention_mask};
}

StartSpec resolve_start(const Options& options) {
  const CheckpointOptions& checkpoint = options.checkpoint;
  const bool keeps = checkpoint.use_checkpoint_opt_param_scheduler;
  const bool overrides = checkpoint.override_opt_param_scheduler;
  MT_CHECK_CONFIG(!overrides || !keeps,
                  "override-opt-param-scheduler takes the learning rates of the options, "
                  "use-checkpoint-opt-param-scheduler those of the checkpoint: give one of them");
  std::vector<std::string> accepted = accepted_changes(checkpoint.accept_changes);
  // What is kept may be told in other words: where the decay ends, which followed train-iters.
  if (overrides || keeps)
    accepted.insert(accepted.end(), kScheduleOptions.begin(), kScheduleOptions.end());
  return {.save = checkpoint.save,
          .load = checkpoint.load,
          .base = options.tuning.base,
          .tokenizer = {options.tokenizer.tokenizer, options.tokenizer.tokenizer_model},
          .load_optimizer = !checkpoint.no_load_optim,
          .save_optimizer = !checkpoint.no_save_optim,
          .weights_alone = checkpoint.finetune || options.sft.applies,
          .step = checkpoint.ckpt_step,
          .layers = checkpoint.load_layers.empty()
                        ? std::nullopt
                        : std::optional(parse_layer_range(checkpoint.load_layers)),
          .vocab_size = options.model.vocab_size,
          .accepted_changes = std::move(accepted),
          .keeps_schedule = keeps,
          .restart = checkpoint.restart,
          .metrics = metrics_file(options),
          .verify = checkpoint.verify.value_or(true)};
}

}  // namespace moetron
