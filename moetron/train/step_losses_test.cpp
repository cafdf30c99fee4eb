// A step's losses: summed in an order that no layout changes, and refused where they are no
// numbers.
#include "moetron/train/step_losses.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/arch/arch_test_data.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

ModelConfig four_layers() {
  return read_model_config(qwen3_moe_json(), "config.json");
}

// Of one micro-batch and one chunk. `aux`: of its decoder layers.
PipelineOutcome outcome_of(const StageLayers& stage, double loss, const std::vector<double>& aux) {
  PipelineOutcome outcome;
  outcome.losses.resize(1);
  if (stage.has_head) outcome.losses[0] = at::full({}, loss, at::kFloat);
  std::vector<at::Tensor> by_layer;
  if (stage.has_embedding) by_layer.emplace_back();
  for (const double value : aux) by_layer.push_back(at::full({}, value, at::kFloat));
  if (stage.has_head) by_layer.emplace_back();
  outcome.aux_losses = {{by_layer}};
  return outcome;
}

TEST(StepLosses, AreTheSumOverRanksThatHaveDifferentTokens) {
  run_ranks(4, [](Communicator& world) {
    Mesh mesh(world, parallel_sizes(4, 2, 1, 1, 1));  // two tensor-parallel ranks have one loss
    Model model(four_layers(), {.mesh = &mesh});
    const StageLayers all = model.stages()[0];
    const double loss = mesh.data().rank() == 0 ? 8 : 0.5;
    const LossSums sums = sum_losses(outcome_of(all, loss, {1, 2, 4, 8}), model, mesh, 1).finish();
    EXPECT_EQ(sums.loss, 8.5);
    EXPECT_EQ(sums.aux_loss, 4 * 15);  // each of the four has its part
  });
}

TEST(StepLosses, ComeFromEveryStage) {
  run_ranks(2, [](Communicator& world) {
    Mesh mesh(world, parallel_sizes(2, 1, 2, 1, 1));
    const bool is_first = mesh.pipeline().rank() == 0;
    const StageLayers stage{is_first ? 0 : 1, is_first ? 1 : 3, is_first, !is_first};
    Model model(four_layers(), {.mesh = &mesh, .stages = {stage}});
    const auto aux = is_first ? std::vector<double>{1} : std::vector<double>{2, 4, 8};
    const LossSums sums = sum_losses(outcome_of(stage, 3, aux), model, mesh, 1).finish();
    EXPECT_EQ(sums.loss, 3);
    EXPECT_EQ(sums.aux_loss, 15);
  });
}

TEST(StepLosses, AnyThatIsNoNumberIsNamedOnEveryRank) {
  run_ranks(2, [](Communicator& world) {
    Mesh mesh(world, parallel_sizes(2, 1, 1, 1, 1));
    Model model(four_layers(), {.mesh = &mesh});
    const auto refusal = [&](double loss, double aux) {
      const bool is_sick = world.rank() == 1;
      const PipelineOutcome outcome =
          outcome_of(model.stages()[0], is_sick ? loss : 1, {1, is_sick ? aux : 1, 1, 1});
      return error_of<NonFiniteError>([&] { sum_losses(outcome, model, mesh, 7).finish(); });
    };
    EXPECT_EQ(refusal(1, 1), "");
    EXPECT_EQ(refusal(NAN, 1), "step 7: the loss of rank 1 is not finite; nothing was updated");
    EXPECT_EQ(refusal(INFINITY, 1),
              "step 7: the loss of rank 1 is not finite; nothing was updated");
    EXPECT_EQ(refusal(1, NAN), "step 7: the aux loss of rank 1 is not finite; nothing was updated");
  });
}

}  // namespace
}  // namespace moetron
