#include "moetron/plan/predict.h"

#include "moetron/arch/flops.h"
#include "moetron/base/units.h"
#include "moetron/plan/model_costs.h"

namespace moetron {

namespace {

// MTP layers follow the last stage's own.
std::vector<StageLayers> stages_with_mtp(const RunSpec& spec) {
  std::vector<StageLayers> stages = spec.pipeline.stages;
  for (StageLayers& stage : stages)
    if (stage.has_head) stage.count += spec.model.num_mtp_layers;
  return stages;
}

}  // namespace

Prediction predict(const RunSpec& spec, const Hardware& hardware, const Schedule& schedule) {
  const std::vector<StageLayers> stages = stages_with_mtp(spec);
  const std::vector<StageParameters> parameters = stage_parameters(spec, stages);
  Prediction prediction;
  prediction.simulation =
      simulate(schedule, ModelCosts(spec, hardware, schedule, stages, parameters));
  prediction.update_time = slowest_update(spec, hardware, schedule.placement, parameters);
  prediction.step_time = prediction.simulation.makespan + prediction.update_time;
  const double tokens =
      spec.tokens() * static_cast<double>(spec.batch.num_micro_batches * spec.sizes.dp);
  prediction.tokens_per_second =
      tokens / prediction.step_time / static_cast<double>(spec.sizes.world);
  prediction.flops_per_second =
      prediction.tokens_per_second *
      flops_per_token(spec.model, as_double(spec.batch.seq_length), spec.model.num_mtp_layers);
  prediction.memory = memory_of(spec, schedule, stages, parameters);
  return prediction;
}

}  // namespace moetron
