#include "moetron/plan/dry_run.h"

#include <gtest/gtest.h>

#include "moetron/arch/inventory.h"
#include "moetron/base/error.h"
#include "moetron/plan/dry_run_report.h"
#include "moetron/plan/plan_test_data.h"

namespace moetron {
namespace {

TEST(DryRun, TheBuiltInHardwareIsTheShippedFile) {
  const Hardware shipped = read_hardware("configs/hardware/h100-ib400.toml");
  const Hardware built_in = built_in_hardware();
  EXPECT_EQ(built_in.name, shipped.name);
  EXPECT_EQ(built_in.grouped_rate, shipped.grouped_rate);
  EXPECT_EQ(built_in.dispatch_overhead, shipped.dispatch_overhead);
  EXPECT_EQ(built_in.attention.size(), shipped.attention.size());
}

TEST(DryRun, ThePartsOfAStepAddUp) {
  for (const std::string layout :
       {"", "--scheduler dualpipev --moe-token-dispatcher-type overlap_deepep",
        "--scheduler zb-v"}) {
    const RunSpec spec = run_spec(qwen_options(
        "--num-layers 16 --num-micro-batches 16 --expert-model-parallel-size 8 " + layout));
    const DryRun run = dry_run(spec, built_in_hardware());
    const StepParts& parts = run.parts;
    const double sum =
        parts.compute + parts.exposed + parts.reduced + parts.waiting + parts.optimizer;
    EXPECT_NEAR(sum, run.prediction.step_time, 1e-9 * sum) << layout;
    for (const double part :
         {parts.compute, parts.exposed, parts.reduced, parts.waiting, parts.optimizer}) {
      EXPECT_GT(part, 0) << layout;
      EXPECT_LT(part, run.prediction.step_time) << layout;
    }
  }
}

// A gather and a scatter of attention, and their backwards; one of the two at either end.
TEST(DryRun, TensorParallelismHasItsOverheadInTheStep) {
  const auto step = [](const std::string& layout, double overhead) {
    const RunSpec spec = run_spec(qwen_options(
        "--num-layers 8 --num-micro-batches 16 --pipeline-model-parallel-size 1 " + layout));
    Hardware hardware = built_in_hardware();
    hardware.tensor_overhead = overhead;
    hardware.network_rate = 1e15;  // else the last backward's is beside the reduction of gradients
    return dry_run(spec, hardware).prediction.step_time;
  };
  constexpr double kOverhead = 1e-3;
  const std::string divided = "--tensor-model-parallel-size 2";
  EXPECT_NEAR(step(divided, kOverhead) - step(divided, 0), 16 * (8 * 4 + 4) * kOverhead, 1e-6);
  EXPECT_EQ(step("", kOverhead), step("", 0));
}

TEST(DryRun, ElementsAreThoseOfTheInventory) {
  for (const Options& options :
       {qwen_options("--num-layers 8"), deepseek_options("--first-k-dense-replace 2")}) {
    const ModelConfig model = run_spec(options).model;
    const ModelElements elements = model_elements(model);
    EXPECT_EQ(elements.all(), count_parameters(tensor_inventory(model)));
    int64_t idle = 0;
    for (const TensorInfo& tensor : tensor_inventory(model))
      if (tensor.expert >= model.moe->top_k) idle += tensor.num_elements();
    EXPECT_EQ(elements.idle, idle);
  }
}

TEST(DryRun, ACheckpointHasTheBytesOfItsTensors) {
  RunSpec spec = run_spec(deepseek_options("--first-k-dense-replace 1"));
  const CheckpointBytes bytes = checkpoint_bytes(spec);
  EXPECT_EQ(bytes.weights, count_stored_bytes(tensor_inventory(spec.model), spec.model));
  EXPECT_EQ(bytes.optimizer, 12 * model_elements(spec.model).trained);
  spec.dtype = Dtype::kFp32;
  EXPECT_EQ(checkpoint_bytes(spec).weights, 4 * model_elements(spec.model).all());
  EXPECT_EQ(checkpoint_bytes(spec).optimizer, 8 * model_elements(spec.model).trained);
  spec.start.save_optimizer = false;
  EXPECT_EQ(checkpoint_bytes(spec).optimizer, 0);
}

TEST(DryRun, MemoryThatIsNotThereIsToldByRank) {
  const RunSpec spec = run_spec(qwen_options("--num-layers 8 --num-micro-batches 16"));
  Hardware hardware = built_in_hardware();
  const DryRun run = dry_run(spec, hardware);
  EXPECT_TRUE(run.fits);
  EXPECT_EQ(run.most().total(), run.prediction.memory[size_t(run.fullest)].total());
  hardware.memory = run.most().total() - 1;
  EXPECT_FALSE(dry_run(spec, hardware).fits);
  const std::string text = describe_overflow(run.prediction.memory, hardware);
  EXPECT_EQ(text.find(concat("rank ", run.fullest, " of the pipeline would hold ")), 0u) << text;
}

TEST(DryRun, HostMemoryCountsToo) {
  RunSpec spec = run_spec(qwen_options("--num-layers 8 --num-micro-batches 16"));
  spec.optimizer.is_hybrid = true;
  spec.optimizer.host_fraction = 1;
  Hardware hardware = built_in_hardware();
  const DryRun run = dry_run(spec, hardware);
  EXPECT_EQ(run.most().optimizer, 0);
  EXPECT_GT(run.most().host, 0);
  EXPECT_TRUE(run.fits);
  hardware.host_memory = 8 * run.most().host - 1;
  EXPECT_FALSE(dry_run(spec, hardware).fits);
  EXPECT_NE(describe(run, spec, hardware).find("\nhost      at most "), std::string::npos);
}

}  // namespace
}  // namespace moetron
