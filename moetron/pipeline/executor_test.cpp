// What crosses the borders of stages: layers that hand on one slot, or two of other widths and
// types, cut wherever a schedule cuts them.
#include "moetron/pipeline/executor.h"

#include <map>
#include <mutex>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/parameter.h"
#include "moetron/base/error.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

constexpr int64_t kNumTokens = 6, kHidden = 8, kSide = 5;
constexpr int kMicroBatches = 8;

// y = tanh(x) matrix, in x's type or another.
class Product final : public Operation {
 public:
  Product(at::Tensor x, Parameter& weight) : x_(std::move(x)), weight_(weight) {}
  at::Tensor forward(at::ScalarType dtype) const {
    return at::matmul(x_.to(at::kFloat).tanh(), weight_.value()).to(dtype);
  }
  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    const at::Tensor y = x_.to(at::kFloat).tanh();
    const at::Tensor d = at::matmul(d_y.to(at::kFloat), weight_.value().t());
    return {(d * (1 - y * y)).to(x_.scalar_type())};
  }
  void backward_weight(const at::Tensor& d_y) override {
    weight_.grad().addmm_(x_.to(at::kFloat).tanh().t(), d_y.to(at::kFloat));
  }

 private:
  at::Tensor x_;  // [tokens, in]
  Parameter& weight_;
};

// Every node but the ends is a product with a weight of its own, from the width of its input to
// that of its output. Slots of the width kSide are bf16.
class ProductLayer final : public Layer {
 public:
  // `widths` by slot.
  ProductLayer(int place, LayerProgram program, const std::vector<int64_t>& widths)
      : program_(std::move(program)), widths_(widths) {
    for (const Node& node : program_.nodes()) {
      auto& weight = weights_.emplace_back();
      if (node.role != NodeRole::kMlp) continue;
      weight =
          std::make_unique<Parameter>(concat("layer ", place, " node ", weights_.size()),
                                      std::vector{width(node.inputs[0]), width(node.outputs[0])},
                                      at::kFloat, ParameterSettings{});
      weight->initialize(/*seed=*/7, /*std=*/0.5);
    }
  }

  const LayerProgram& program() const override { return program_; }
  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override {
    if (node.role == NodeRole::kEmbedding) {
      const at::Tensor ids = call.micro_batch.tokens.flatten().to(at::kFloat);
      return {{.data = at::arange(kHidden, at::kFloat).add(ids.unsqueeze(1)).sin()}};
    }
    const at::Tensor& x = inputs[0].data;
    if (node.role == NodeRole::kHead) return {{}, {.data = x.square().sum()}};
    Parameter& weight = *weights_.at(static_cast<size_t>(&node - program_.nodes().data()));
    const auto product = std::make_shared<Product>(x.detach(), weight);
    const at::NoGradGuard no_grad;
    at::Tensor y = product->forward(width(node.outputs[0]) == kSide ? at::kBFloat16 : at::kFloat);
    call.run.attach(y, product, {x});
    return {{.data = y}};
  }
  void visit(const std::function<void(Parameter&)>& visitor) override {
    for (const auto& weight : weights_) {
      if (weight) visitor(*weight);
    }
  }

 private:
  int64_t width(Slot slot) const { return widths_.at(static_cast<size_t>(slot.index)); }

  LayerProgram program_;
  std::vector<int64_t> widths_;
  std::vector<std::unique_ptr<Parameter>> weights_;  // by node
};

Node mlp(int from, int to) {
  return {NodeRole::kMlp, Stretch::kBegin, {Slot{from}}, {Slot{to}}};
}
Node sum(int a, int b, int to) {
  return {NodeRole::kSum, Stretch::kBegin, {Slot{a}, Slot{b}}, {Slot{to}}};
}

// Eight layers: an embedding, one of hidden states alone, one that opens the second slot, three
// that mix both, one that joins them, and the head. `last_ignores`: none reads the second slot
// where they would be joined.
std::unique_ptr<Layer> make_layer(int place, bool last_ignores) {
  const auto make = [&](std::vector<Node> nodes, std::vector<int64_t> widths,
                        std::vector<Slot> inputs, std::vector<Slot> outputs) {
    std::vector<SlotType> types(widths.size(), SlotType::kTokens);
    if (place == 7) types.back() = SlotType::kLabelLoss;
    return std::make_unique<ProductLayer>(
        place, LayerProgram(types, std::move(nodes), std::move(inputs), std::move(outputs)),
        widths);
  };
  switch (place) {
    case 0:
      return make({{NodeRole::kEmbedding, Stretch::kBegin, {}, {Slot{0}}}}, {kHidden}, {},
                  {Slot{0}});
    case 1:
      return make({mlp(0, 1)}, {kHidden, kHidden}, {Slot{0}}, {Slot{1}});
    case 2:
      return make({mlp(0, 1), mlp(0, 2)}, {kHidden, kHidden, kSide}, {Slot{0}}, {Slot{1}, Slot{2}});
    case 6:
      if (last_ignores)
        return make({mlp(0, 2)}, {kHidden, kSide, kHidden}, {Slot{0}, Slot{1}}, {Slot{2}});
      return make({mlp(1, 2), sum(0, 2, 3)}, {kHidden, kSide, kHidden, kHidden}, {Slot{0}, Slot{1}},
                  {Slot{3}});
    case 7:
      return make({{NodeRole::kHead, Stretch::kBegin, {Slot{0}}, {Slot{1}, Slot{2}}}},
                  {kHidden, kHidden, 1}, {Slot{0}}, {Slot{1}});
    default:
      return make({mlp(0, 2), mlp(1, 3), mlp(0, 4), sum(2, 3, 5), sum(1, 4, 6)},
                  {kHidden, kSide, kHidden, kHidden, kSide, kHidden, kSide}, {Slot{0}, Slot{1}},
                  {Slot{5}, Slot{6}});
  }
}

// What layer `place` hands on.
HandedOn handed_on_by(int place) {
  const SlotShape hidden{SlotType::kTokens, kHidden, Dtype::kFp32};
  const SlotShape side{SlotType::kTokens, kSide, Dtype::kBf16};
  if (place >= 2 && place <= 5) return {hidden, side};
  return {hidden};
}

struct Trained {
  std::vector<double> losses;
  std::map<std::string, at::Tensor> gradients;
};

// Stage s has layers [s * 8 / stages, (s + 1) * 8 / stages).
Trained train(ScheduleKind kind, int ranks, bool last_ignores = false) {
  const PipelinePlan plan(
      make_schedule({.kind = kind, .num_ranks = ranks, .num_micro_batches = kMicroBatches}));
  const Placement& placement = plan.schedule.placement;
  const int of_stage = 8 / placement.num_stages();
  StageBorders borders;
  for (int stage = 0; stage + 1 < placement.num_stages(); ++stage) {
    borders.push_back(handed_on_by((stage + 1) * of_stage - 1));
  }
  Trained trained;
  std::mutex mutex;
  run_ranks(ranks, [&](Communicator& world) {
    std::vector<Chunk> chunks(static_cast<size_t>(placement.num_chunks()));
    for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
      const int first = placement.stage(world.rank(), chunk) * of_stage;
      for (int place = first; place < first + of_stage; ++place) {
        chunks[static_cast<size_t>(chunk)].layers.push_back(make_layer(place, last_ignores));
      }
    }
    StageLinks links(world, placement, at::kCPU);
    PipelineExecutor executor(chunks, links, borders);
    std::vector<MicroBatch> batch;
    for (int i = 0; i < kMicroBatches; ++i) {
      batch.push_back(make_micro_batch(at::arange(kNumTokens).view({1, kNumTokens}) + 10 * i));
    }
    PipelineTask task;
    task.micro_batches = batch;
    const PipelineOutcome outcome = executor.run(plan, task);
    const std::lock_guard lock(mutex);
    for (const Chunk& chunk : chunks) {
      for (const auto& layer : chunk.layers) {
        layer->visit([&](Parameter& p) { trained.gradients[p.label()] = p.grad(); });
      }
    }
    if (!outcome.losses[0].defined()) return;
    for (const at::Tensor& loss : outcome.losses) trained.losses.push_back(loss.item<double>());
  });
  return trained;
}

TEST(StageBorders, SlotsOfSeveralWidthsAndTypesCrossThem) {
  for (const bool last_ignores : {false, true}) {
    const Trained wanted = train(ScheduleKind::k1F1B, 1, last_ignores);
    EXPECT_EQ(wanted.gradients.size(), 13u);
    for (const auto& [label, gradient] : wanted.gradients) {
      EXPECT_GT(gradient.abs().max().item<double>(), last_ignores ? -1 : 0) << label;
    }
    for (const ScheduleKind kind : {ScheduleKind::k1F1B, ScheduleKind::kDualPipeV}) {
      for (const int ranks : {2, 4}) {
        const Trained found = train(kind, ranks, last_ignores);
        EXPECT_EQ(found.losses, wanted.losses) << name_of(kind) << " " << ranks;
        ASSERT_EQ(found.gradients.size(), wanted.gradients.size());
        for (const auto& [label, gradient] : wanted.gradients) {
          EXPECT_TRUE(at::equal(found.gradients.at(label), gradient))
              << label << ", " << name_of(kind) << " " << ranks;
        }
      }
    }
  }
}

TEST(StageBorders, ThatTheLayersDoNotHaveAreRefused) {
  run_ranks(2, [](Communicator& world) {
    std::vector<Chunk> chunks(1);
    const int first = 4 * world.rank();
    for (int place = first; place < first + 4; ++place) {
      chunks[0].layers.push_back(make_layer(place, false));
    }
    StageLinks links(world, Placement(Placement::Shape::kStraight, 2), at::kCPU);
    const SlotShape hidden{SlotType::kTokens, kHidden, Dtype::kFp32};
    const SlotShape side_of_rows{SlotType::kRowWeights, kSide, Dtype::kBf16};
    const HandedOn right = handed_on_by(3), too_few = handed_on_by(1);
    const HandedOn of_another_type = {hidden, side_of_rows};
    const auto make = [&](const StageBorders& borders) {
      PipelineExecutor(chunks, links, borders);
    };
    EXPECT_NO_THROW(make(StageBorders(1, right)));
    EXPECT_THROW(make(StageBorders(1, too_few)), InternalError);
    EXPECT_THROW(make(StageBorders(1, of_another_type)), InternalError);
    EXPECT_THROW(make({}), InternalError);
  });
}

}  // namespace
}  // namespace moetron
