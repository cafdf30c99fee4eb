// The check of a layout: what is right passes, in every schedule, and what is broken is named.
#include "moetron/train/check_layout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error_test_support.h"
#include "moetron/comm/communicator.h"
#include "moetron/config/test_args.h"
#include "moetron/models/model.h"
#include "moetron/pipeline/wrapped_layer.h"
#include "moetron/run/resolve.h"
#include "moetron/train/whole_tensors.h"

namespace moetron {
namespace {

constexpr const char* kDeepseek =
    "pretrain --model-family deepseek --num-layers 12 --hidden-size 512 --ffn-hidden-size 1024 "
    "--num-attention-heads 16 --q-lora-rank 64 --kv-lora-rank 64 --num-experts 32 "
    "--moe-router-topk 4 --moe-ffn-hidden-size 128 --first-k-dense-replace 1 "
    "--enable-shared-expert --num-shared-experts 1 --moe-router-deepseekv3 "
    "--untie-embeddings-and-output-weights --vocab-size 1000 --seq-length 256 "
    "--micro-batch-size 1 --global-batch-size 96 --train-iters 9 --lr 1e-4 --data-path none ";
constexpr const char* kQwen =
    "pretrain --model-family qwen --num-layers 12 --hidden-size 512 --ffn-hidden-size 1024 "
    "--num-attention-heads 16 --num-query-groups 2 --qk-layernorm --num-experts 32 "
    "--moe-router-topk 4 --moe-ffn-hidden-size 128 --vocab-size 1000 --seq-length 256 "
    "--micro-batch-size 1 --global-batch-size 96 --train-iters 9 --lr 1e-4 --data-path none ";

RunSpec resolved(const std::string& command_line, int64_t world_size) {
  return resolve_run(parse(command_line).options, RunFacts{.world_size = world_size});
}

void expect_sound(const std::string& command_line, int64_t world_size) {
  const LayoutCheck check = check_layout(resolved(command_line, world_size));
  EXPECT_EQ(check.failure, "") << command_line << '\n' << describe(check);
  EXPECT_LE(check.gradient.difference, kLayoutBound);
}

TEST(CheckLayout, PassesEverySchedule) {
  for (const char* scheduler : {"1f1b", "zb-h1", "zb-v", "dualpipev", "dualpipev+", "gpipe",
                                "1f1b --num-virtual-stages-per-pipeline-rank 3"}) {
    for (const char* model : {kDeepseek, kQwen}) {
      expect_sound(concat(model, "--pipeline-model-parallel-size 2 --scheduler ", scheduler,
                          " --expert-model-parallel-size 2 --moe-token-dispatcher-type "
                          "overlap_alltoall --use-distributed-optimizer --overlap-grad-reduce "
                          "--overlap-param-gather"),
                   4);
    }
  }
}

TEST(CheckLayout, PassesOtherOptions) {
  expect_sound(concat(kDeepseek,
                      "--tensor-model-parallel-size 4 --expert-model-parallel-size 2 "
                      "--tensor-model-parallel-for-expert 2 --mla-replicate-l1 "
                      "--moe-grouped-gemm --recompute-granularity full "
                      "--recompute-num-layers 2 --optimizer hybridadam"),
               8);
  expect_sound(concat(kQwen,
                      "--tensor-model-parallel-size 4 --expert-model-parallel-size 4 "
                      "--moe-token-dispatcher-type deepep --reset-position-ids "
                      "--reset-attention-mask --moe-expert-capacity-factor 1.0 "
                      "--moe-pad-expert-input-to-capacity --mlp-recompute"),
               8);
  expect_sound(kQwen, 1);
}

TEST(CheckLayout, SaysWhatItChecked) {
  const LayoutCheck check = check_layout(
      resolved(concat(kQwen, "--tensor-model-parallel-size 2 --expert-model-parallel-size 2"), 2));
  const std::string text = describe(check);
  EXPECT_EQ(text.find("checked     tp 2, ep 2 on 2 of 2 ranks\n"), 0U) << text;
  EXPECT_NE(text.find("1 of 12 layers, hidden 32, 4 of 32 experts"), std::string::npos) << text;
  EXPECT_NE(text.find("bits        the same as without a pipeline\n"), std::string::npos) << text;
}

// Of several ranks one computes otherwise than its peers.
class SkewedLayer final : public WrappedLayer {
 public:
  using WrappedLayer::WrappedLayer;

  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override {
    std::vector<Value> outputs = WrappedLayer::compute(node, std::move(inputs), call);
    if (node.role == NodeRole::kExperts) outputs[0].data = outputs[0].data * 1.5;
    return outputs;
  }
};

TEST(CheckLayout, NamesWhatABrokenLayerChanges) {
  const auto skew = [](Model& model, Communicator& world) {
    if (world.rank() != 1) return;
    for (Chunk& chunk : model.chunks()) {
      for (auto& layer : chunk.layers) {
        if (layer->program().has_experts()) layer = std::make_unique<SkewedLayer>(std::move(layer));
      }
    }
  };
  const LayoutCheck check =
      check_layout(resolved(concat(kQwen, "--expert-model-parallel-size 2"), 2), skew);
  EXPECT_GT(check.gradient.difference, kLayoutBound);
  EXPECT_EQ(check.failure.find("check-layout: in ep 2, dp 2, the loss is "), 0U) << check.failure;
}

// A dispatcher that loses what it should bring back of the gradients.
class LossyDispatcher final : public WrappedDispatcher {
 public:
  using WrappedDispatcher::WrappedDispatcher;

  Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) override {
    return WrappedDispatcher::start_dispatch_backward(d_rows * 0.5, d_probabilities,
                                                      std::move(plan));
  }
};

class LossyLayer final : public WrappedLayer {
 public:
  explicit LossyLayer(std::unique_ptr<Layer> inner)
      : WrappedLayer(std::move(inner)), lossy_(*WrappedLayer::dispatcher()) {}
  Dispatcher* dispatcher() override { return &lossy_; }

 private:
  LossyDispatcher lossy_;
};

TEST(CheckLayout, NamesATensorBehindABrokenDispatcher) {
  const auto break_dispatch = [](Model& model, Communicator&) {
    for (Chunk& chunk : model.chunks()) {
      for (auto& layer : chunk.layers) {
        if (layer->dispatcher() != nullptr) layer = std::make_unique<LossyLayer>(std::move(layer));
      }
    }
  };
  const LayoutCheck check =
      check_layout(resolved(concat(kQwen, "--expert-model-parallel-size 2"), 2), break_dispatch);
  EXPECT_EQ(check.loss_difference, 0);
  EXPECT_EQ(check.failure.find("check-layout: in ep 2, dp 2, the gradient of model."), 0U)
      << check.failure;
  EXPECT_NE(check.failure.find("rounding explains 3.8e-06"), std::string::npos) << check.failure;
}

// Gradients that copies of a parameter do not add up, or a rank that fails.
TEST(CheckLayout, SaysWhyALayoutDoesNotTrain) {
  const auto divide_norms = [](Model& model, Communicator&) {
    for (Parameter* parameter : model.parameters()) {
      if (parameter->settings().replicas != kWholeOnEveryRank) continue;
      const_cast<ParameterSettings&>(parameter->settings()).replicas = kTensorDivided;
    }
  };
  const RunSpec run = resolved(concat(kQwen, "--tensor-model-parallel-size 2"), 2);
  const std::string refusal = error_of<ConfigError>([&] { check_layout(run, divide_norms); });
  EXPECT_EQ(refusal.find("check-layout: tp 2 does not train: "), 0U) << refusal;
  EXPECT_NE(refusal.find("replicas differ"), std::string::npos) << refusal;
}

}  // namespace
}  // namespace moetron
