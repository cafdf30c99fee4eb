#include "moetron/plan/model_costs.h"

#include <gtest/gtest.h>

#include "moetron/plan/plan_test_data.h"
#include "moetron/schedule/stage_border.h"

namespace moetron {
namespace {

// A message takes its latency and the time of what the model's layers hand on.
TEST(ModelCosts, AMessageHasTheBytesOfWhatIsHandedOn) {
  RunSpec spec = run_spec(deepseek_options(""));
  const Hardware hardware = read_hardware(deepseek_options("").runtime.hardware);
  const Schedule schedule = make_schedule(spec.pipeline.request);
  const auto transfer = [&] {
    const auto parameters = stage_parameters(spec, spec.pipeline.stages);
    const ModelCosts costs(spec, hardware, schedule, spec.pipeline.stages, parameters);
    return costs.transfer({.is_forward = true, .from_stage = 0, .micro_batch = 0}) -
           hardware.message_latency;
  };
  const double elements = spec.tokens_per_rank() * static_cast<double>(spec.model.hidden_size);
  spec.dtype = Dtype::kBf16;
  EXPECT_EQ(bytes_of(handed_on(spec.model, spec.dtype), spec.tokens_per_rank()), 2 * elements);
  const double in_bf16 = transfer();
  spec.dtype = Dtype::kAuto;
  EXPECT_EQ(transfer(), in_bf16);
  spec.dtype = Dtype::kFp32;
  EXPECT_NEAR(transfer(), 2 * in_bf16, 1e-9 * in_bf16);
}

}  // namespace
}  // namespace moetron
