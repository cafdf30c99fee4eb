#include "moetron/train/run_settings.h"

#include "moetron/config/validate.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

AdamWSettings adamw_settings(const OptimizerOptions& options) {
  return {.beta1 = options.adam_beta1,
          .beta2 = options.adam_beta2,
          .eps = options.adam_eps,
          .weight_decay = options.weight_decay};
}

OffloadSettings offload_settings(const OptimizerOptions& options) {
  if (options.optimizer != OptimizerKind::kHybridAdam) return {};
  return {.fraction = options.optimizer_offload_fraction, .pin = options.optimizer_enable_pin};
}

RecomputeSettings recompute_settings(const MemoryOptions& memory) {
  if (memory.recompute_granularity) {
    return {RecomputeSettings::Kind::kFull, memory.recompute_num_layers};
  }
  if (memory.moe_layer_recompute) return {RecomputeSettings::Kind::kMoeLayer};
  return {};
}

at::ScalarType value_dtype(Dtype dtype, c10::Device device) {
  if (dtype == Dtype::kAuto) return device.is_cuda() ? at::kBFloat16 : at::kFloat;
  return dtype == Dtype::kBf16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace

LrSchedule lr_schedule(const Options& options) {
  LrSchedule schedule;
  schedule.lr = options.optimizer.lr;
  schedule.min_lr = options.optimizer.min_lr;
  schedule.warmup_iters = options.optimizer.lr_warmup_iters;
  schedule.decay_iters = options.optimizer.lr_decay_iters.value_or(options.training.train_iters);
  schedule.style = options.optimizer.lr_decay_style;
  check_lr_schedule(schedule);
  return schedule;
}

PipelineSettings pipeline_settings(const Options& options, const ModelConfig& model,
                                   const ParallelSizes& sizes) {
  const int64_t count = num_micro_batches(sizes, options.training.micro_batch_size,
                                          options.training.global_batch_size);
  PipelineSettings settings = pipeline_settings(options.parallel, model.num_layers, count);
  make_schedule(settings.request);  // refuses what cannot run before anything is opened
  return settings;
}

TrainSettings train_settings(const OptimizerOptions& options, const PipelineSettings& pipeline) {
  return {.adamw = adamw_settings(options),
          .offload = offload_settings(options),
          .clip_grad = options.clip_grad,
          .buckets = {.distributed = options.use_distributed_optimizer,
                      .overlap_reduce = options.overlap_grad_reduce,
                      .overlap_gather = options.overlap_param_gather},
          .schedule = pipeline.request};
}

ModelSettings model_settings(const Options& options, const PipelineSettings& pipeline, Mesh& mesh,
                             c10::Device device) {
  ModelSettings settings;
  settings.options =
      at::TensorOptions().dtype(value_dtype(options.training.dtype, device)).device(device);
  settings.mesh = &mesh;
  settings.mla_replicate_l1 = options.model.mla_replicate_l1;
  settings.mla_fuse_qkv = settings.mla_recompute_norms = options.model.mla_fuse_qkv;
  settings.dispatcher = options.moe.moe_token_dispatcher_type;
  settings.grouped_gemm = options.moe.moe_grouped_gemm;
  settings.capacity_factor = capacity_factor(options.moe);
  settings.drop_policy = options.moe.moe_token_drop_policy;
  settings.pad_to_capacity = pads_to_capacity(options.moe);
  settings.micro_batch_tokens = options.training.micro_batch_size * options.training.seq_length;
  settings.mlp_recompute = options.memory.mlp_recompute;
  settings.recompute = recompute_settings(options.memory);
  const ScheduleRequest& request = pipeline.request;
  settings.stages = stages_of_rank(pipeline.stages, placement_of(request.kind, request.num_ranks),
                                   mesh.pipeline().rank());
  return settings;
}

ParallelSizes mesh_sizes(const Options& options, const ModelConfig& model, int64_t world_size) {
  const ParallelOptions& parallel = options.parallel;
  const ParallelSizes sizes = parallel_sizes(
      world_size, parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size,
      parallel.expert_model_parallel_size, parallel.tensor_model_parallel_for_expert);
  check_layout(sizes, model, options.model.mla_replicate_l1);
  return sizes;
}

}  // namespace moetron
