#include "moetron/plan/model_costs.h"

#include <gtest/gtest.h>

#include "moetron/plan/plan_test_data.h"
#include "moetron/schedule/stage_border.h"

namespace moetron {
namespace {

// A message takes its latency and the time of what the model's layers hand on.
TEST(ModelCosts, AMessageHasTheBytesOfWhatIsHandedOn) {
  RunSpec spec = run_spec(deepseek_options(""));
  const Hardware hardware = hardware_of(deepseek_options("").runtime.hardware);
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

// Each MTP layer costs a layer with experts and a head more, in the stage that has the head.
TEST(ModelCosts, MtpLayersAreCountedInTheLastStage) {
  RunSpec spec = run_spec(deepseek_options("--num-micro-batches 8"));
  const Hardware hardware = hardware_of(deepseek_options("").runtime.hardware);
  const Schedule schedule = make_schedule(spec.pipeline.request);
  const Prediction without = predict(spec, hardware, schedule);
  RunSpec longer = spec;  // by a layer
  ++longer.pipeline.stages.back().count;
  const double layer = predict(longer, hardware, schedule).step_time - without.step_time;
  spec.model.num_mtp_layers = 1;
  const Prediction with = predict(spec, hardware, schedule);
  const PartTimes heads = head_times(spec, hardware);
  spec.model.num_mtp_layers = 0;
  const PartTimes head = head_times(spec, hardware);
  const double per_batch = heads.forward + heads.backward_input + heads.backward_weight -
                           head.forward - head.backward_input - head.backward_weight;
  EXPECT_GT(per_batch, head.forward + head.backward_input + head.backward_weight);
  EXPECT_NEAR(with.step_time, without.step_time + layer + 8 * per_batch, 0.02 * without.step_time);
  EXPECT_EQ(with.memory.front().total(), without.memory.front().total());
  EXPECT_GT(with.memory.back().weights, without.memory.back().weights);
  EXPECT_GT(with.memory.back().activations, without.memory.back().activations);
}

// What a system's launches take is added to every pass of a layer's parts.
TEST(ModelCosts, LaunchesLengthenEveryPass) {
  const RunSpec spec = run_spec(qwen_options("--num-layers 8 --num-micro-batches 8"));
  Hardware hardware = built_in_hardware();
  const LayerTimes before = layer_times(spec, hardware, true);
  hardware.launch_overhead = 1e-4;
  const LayerTimes after = layer_times(spec, hardware, true);
  EXPECT_DOUBLE_EQ(after.attention.forward, before.attention.forward + 1e-4);
  EXPECT_DOUBLE_EQ(after.experts.backward_weight, before.experts.backward_weight + 1e-4);
  EXPECT_EQ(after.shared.forward, 0);  // Qwen has none
}

// Weights that are only read have no gradient; updates cost a little in every pass.
TEST(ModelCosts, LowRankUpdatesSaveTheWeightGradients) {
  RunSpec spec = run_spec(qwen_options("--num-layers 8 --num-micro-batches 8"));
  const Hardware hardware = built_in_hardware();
  const LayerTimes whole = layer_times(spec, hardware, true);
  const PartTimes whole_head = head_times(spec, hardware);
  spec.lora = LoraConfig{.rank = 16, .alpha = 32, .targets = {}};
  const LayerTimes updates = layer_times(spec, hardware, true);
  EXPECT_GT(updates.attention.forward, whole.attention.forward);
  EXPECT_LT(updates.attention.backward_weight, whole.attention.backward_weight / 2);
  EXPECT_LT(updates.experts.backward_weight, whole.experts.backward_weight / 2);
  EXPECT_EQ(head_times(spec, hardware).backward_weight, 0);
  EXPECT_EQ(head_times(spec, hardware).forward, whole_head.forward);
}

}  // namespace
}  // namespace moetron
