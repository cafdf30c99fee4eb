// A kind of layer that the engine does not know (docs/adding-a-layer.md): a decoder layer with a
// further branch beside its MLP.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layout_harness.h"
#include "moetron/base/error.h"
#include "moetron/models/model.h"
#include "moetron/pipeline/wrapped_layer.h"
#include "pipeline_cases.h"

namespace moetron {
namespace {

constexpr Slot kInput{0}, kResidual{1}, kNormed{2}, kMixed{3}, kBranch{4}, kOutput{5};

const LayerProgram& branched_program() {
  static const LayerProgram program(
      std::vector<SlotType>(6, SlotType::kTokens),
      {{NodeRole::kAttention, Stretch::kBegin, {kInput}, {kResidual, kNormed}},
       {NodeRole::kMlp, Stretch::kBeside, {kNormed}, {kBranch}},
       {NodeRole::kMlp, Stretch::kMiddle, {kNormed}, {kMixed}},
       {NodeRole::kSum, Stretch::kEnd, {kMixed, kResidual, kBranch}, {kOutput}}},
      {kInput}, {kOutput});
  return program;
}

// All but the branch is the dense layer's that it is made of.
class BranchedLayer final : public WrappedLayer {
 public:
  using WrappedLayer::WrappedLayer;

  const LayerProgram& program() const override { return branched_program(); }
  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override {
    if (node.outputs[0] == kBranch) return {{.data = at::silu(inputs[0].data) * 0.5}};
    return WrappedLayer::compute(node, std::move(inputs), call);
  }
};

void add_branches(Model& model, Communicator&) {
  for (Chunk& chunk : model.chunks()) {
    for (auto& layer : chunk.layers) {
      const bool is_dense = layer->program().is_cut() && !layer->program().has_experts();
      if (is_dense) layer = std::make_unique<BranchedLayer>(std::move(layer));
    }
  }
}

TrainedTask four_layers(bool with_branches) {
  TrainedTask task{.config = tiny_deepseek(), .steps = 2, .seq_length = 8};
  task.config.num_layers = 5;
  task.config.moe->first_k_dense_replace = 3;
  if (with_branches) task.change_model = add_branches;
  return task;
}

TEST(LayerKind, TrainsUnderEveryScheduleToTheBitsOfOneRank) {
  using Kind = Recompute;
  const TrainedTask task = four_layers(true);
  for (const Kind recompute : {Kind::kNothing, Kind::kLayer}) {
    LayoutCase layout{.world = 1};
    layout.model.recompute.kind = recompute;
    const TrainedOutcome wanted = train_in_layout(task, layout);
    for (const ScheduleRequest& request : schedule_requests(2)) {
      layout.world = layout.pp = 2;
      layout.schedule = request;
      EXPECT_EQ(first_difference(train_in_layout(task, layout), wanted), "") << layout.name();
    }
  }
}

// Other losses and other gradients than without it.
TEST(LayerKind, TheBranchCounts) {
  const TrainedOutcome plain = train_in_layout(four_layers(false), {.world = 1});
  const TrainedOutcome branched = train_in_layout(four_layers(true), {.world = 1});
  EXPECT_NE(plain.steps[0].loss, branched.steps[0].loss);
  EXPECT_NE(plain.steps[0].grad_norm, branched.steps[0].grad_norm);
}

}  // namespace
}  // namespace moetron
