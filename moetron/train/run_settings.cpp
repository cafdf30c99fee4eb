#include "moetron/train/run_settings.h"

#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

OffloadSettings offload_settings(const OptimizerSpec& optimizer) {
  if (!optimizer.is_hybrid) return {};
  return {.fraction = optimizer.host_fraction, .pin = optimizer.pin_host_memory};
}

at::ScalarType value_dtype(Dtype dtype, c10::Device device) {
  if (dtype == Dtype::kAuto) return device.is_cuda() ? at::kBFloat16 : at::kFloat;
  return dtype == Dtype::kBf16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace

BatchSettings batch_settings(const RunSpec& spec, c10::Device device) {
  return {.micro_batch_size = spec.batch.micro_batch_size,
          .global_batch_size = spec.batch.global_batch_size,
          .device = device,
          .pairs = spec.preferences.has_value()};
}

TrainSettings train_settings(const RunSpec& spec) {
  const OptimizerSpec& optimizer = spec.optimizer;
  return {.adamw = {.beta1 = optimizer.beta1,
                    .beta2 = optimizer.beta2,
                    .eps = optimizer.eps,
                    .weight_decay = optimizer.weight_decay},
          .offload = offload_settings(optimizer),
          .clip_grad = optimizer.clip_grad,
          .measure_params_norm = spec.log.params_norm,
          .count_zeros_in_grad = spec.log.zeros_in_grad,
          .preferences = spec.preferences,
          .buckets = {.distributed = optimizer.distributed,
                      .overlap_reduce = optimizer.overlap_reduce,
                      .overlap_gather = optimizer.overlap_gather},
          .schedule = spec.pipeline.request,
          .stages = spec.pipeline.stages};
}

ModelSettings model_settings(const RunSpec& spec, Mesh& mesh, c10::Device device) {
  ModelSettings settings;
  settings.options = at::TensorOptions().dtype(value_dtype(spec.dtype, device)).device(device);
  settings.mesh = &mesh;
  settings.latent_attention = spec.latent_attention;
  settings.experts = spec.experts;
  settings.recompute = spec.recompute;
  settings.fp8 = spec.fp8;
  settings.operators = spec.operators;
  settings.frozen = spec.frozen;
  settings.lora = spec.lora;
  settings.micro_batch_tokens = spec.batch.tokens();
  settings.stages = stages_of_rank(spec.pipeline.stages, placement_of(spec.pipeline.request),
                                   mesh.pipeline().rank());
  return settings;
}

}  // namespace moetron
