// A loss that learns its weights after the forward, beside one that knows them before.
#include <map>
#include <mutex>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "moetron/arch/config_reader.h"
#include "moetron/base/json.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/models/model.h"
#include "moetron/nn/loss.h"
#include "moetron/pipeline/executor.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

constexpr const char* kQwen = R"({"model_type": "qwen3_moe", "vocab_size": 61, "hidden_size": 32,
  "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
  "intermediate_size": 48, "moe_intermediate_size": 16, "num_experts": 4,
  "num_experts_per_tok": 2, "norm_topk_prob": true, "decoder_sparse_step": 1,
  "mlp_only_layers": [], "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.1})";

constexpr int kMicroBatches = 4;

struct Outcome {
  std::map<std::string, at::Tensor> gradients;  // by rank and parameter
  std::vector<double> losses;
};

std::vector<MicroBatch> micro_batches(Mesh& mesh) {
  at::Generator random = at::detail::createCPUGenerator(3);  // ranks are threads
  std::vector<MicroBatch> all;
  for (int i = 0; i < kMicroBatches; ++i) {
    const at::Tensor labels = at::randint(61, {2, 6}, random, at::kLong);
    labels[0].fill_(i == 1 ? kIgnoredLabel : 5);
    MicroBatch& made = all.emplace_back(
        make_micro_batch(at::randint(61, {2, 6}, random, at::kLong), labels, mesh.tensor_group()));
    made.loss_weights = at::rand({2, 6}, random);
    made.d_loss = 1.0 / 37;
  }
  return all;
}

// `late`: the same weights, told behind the forward.
Outcome run_once(const ParallelSizes& sizes, ScheduleKind kind, bool late) {
  const ModelConfig config = read_model_config(parse_json(kQwen, "model"), "model");
  Outcome result;
  std::mutex mutex;
  run_ranks(static_cast<int>(sizes.world), [&](Communicator& world) {
    Mesh mesh(world, sizes);
    const PipelinePlan plan(make_schedule({.kind = kind,
                                           .num_ranks = static_cast<int>(sizes.pp),
                                           .num_micro_batches = kMicroBatches}));
    ModelSettings settings;
    settings.mesh = &mesh;
    const Placement& placement = plan.schedule.placement;
    settings.stages = stages_of_rank(stage_layout(placement, config.num_layers, {}, "stages"),
                                     placement, mesh.pipeline().rank());
    Model model(config, settings);
    model.initialize(5);
    StageLinks links(mesh.pipeline(), placement, at::kCPU);
    const StageBorders borders(static_cast<size_t>(placement.num_stages() - 1),
                               handed_on(config, Dtype::kFp32));
    PipelineExecutor executor(model.chunks(), links, borders);
    std::vector<MicroBatch> batch = micro_batches(mesh);
    for (MicroBatch& micro_batch : batch) micro_batch.wants_log_probabilities = late;
    PipelineTask task;
    task.micro_batches = batch;
    if (late) {
      task.late_loss = [&](int index, const at::Tensor& log_probabilities) {
        const MicroBatch& micro_batch = batch[static_cast<size_t>(index)];
        const at::Tensor weights = micro_batch.loss_weights.flatten();
        return LateLoss{-log_probabilities.dot(weights), -weights * micro_batch.d_loss};
      };
    }
    const PipelineOutcome outcome = executor.run(plan, task);
    const std::lock_guard lock(mutex);
    for (Parameter* parameter : model.parameters()) {
      if (!parameter->has_grad()) continue;
      result.gradients[parameter->label() + " of " + std::to_string(world.rank())] =
          parameter->grad().clone();
    }
    if (!outcome.losses[0].defined() || !result.losses.empty()) return;
    for (const at::Tensor& loss : outcome.losses) result.losses.push_back(loss.item<double>());
  });
  return result;
}

TEST(LateLoss, GivesTheGradientsOfALossKnownBefore) {
  for (const auto& [pp, tp, kind] :
       {std::tuple(1, 1, ScheduleKind::k1F1B), std::tuple(2, 1, ScheduleKind::k1F1B),
        std::tuple(2, 1, ScheduleKind::kDualPipeV), std::tuple(2, 2, ScheduleKind::kZbV)}) {
    ParallelSizes sizes = parallel_sizes(pp * tp, tp, pp, /*ep=*/1, /*tpe=*/1);
    const Outcome known = run_once(sizes, kind, false), late = run_once(sizes, kind, true);
    ASSERT_EQ(known.losses.size(), static_cast<size_t>(kMicroBatches));
    ASSERT_EQ(late.losses.size(), known.losses.size());
    for (size_t i = 0; i < known.losses.size(); ++i) {
      EXPECT_NEAR(late.losses[i], known.losses[i], 1e-5 * known.losses[i]);
    }
    EXPECT_GT(known.gradients.size(), 30u);
    for (const auto& [name, gradient] : known.gradients) {
      const at::Tensor& other = late.gradients.at(name);
      EXPECT_LE((other - gradient).norm().item<double>(), 1e-5 * gradient.norm().item<double>())
          << name;
    }
  }
}

}  // namespace
}  // namespace moetron
