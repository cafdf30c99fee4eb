// What flows between a layer's nodes, and for how long.
#include "moetron/pipeline/chunk.h"

#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/measure/memory_meter.h"
#include "moetron/pipeline/block.h"

namespace moetron {
namespace {

// A layer whose nodes are functions of their inputs' data, without weights.
class FunctionLayer final : public Layer {
 public:
  using Function = std::function<Value(std::vector<Value>)>;
  // `functions` by node; none for a sum.
  FunctionLayer(LayerProgram program, std::vector<Function> functions)
      : program_(std::move(program)), functions_(std::move(functions)) {}

  const LayerProgram& program() const override { return program_; }
  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall&) override {
    const auto index = static_cast<size_t>(&node - program_.nodes().data());
    return {functions_.at(index)(std::move(inputs))};
  }
  void visit(const std::function<void(Parameter&)>&) override {}

 private:
  LayerProgram program_;
  std::vector<Function> functions_;
};

Chunk chunk_of(LayerProgram program, std::vector<FunctionLayer::Function> functions) {
  Chunk chunk;
  chunk.layers.push_back(std::make_unique<FunctionLayer>(std::move(program), std::move(functions)));
  return chunk;
}

FunctionLayer::Function times(double factor) {
  return [factor](std::vector<Value> inputs) -> Value { return {.data = inputs[0].data * factor}; };
}

std::vector<SlotType> token_slots(size_t count) {
  return std::vector<SlotType>(count, SlotType::kTokens);
}

MicroBatch four_tokens() {
  return make_micro_batch(at::zeros({1, 4}, at::kLong));
}

// A node that quantises, and one that reads what it made: no node between them is opened again.
TEST(ChunkRun, ScalesTravelWithTheirData) {
  const LayerProgram program(token_slots(3),
                             {{NodeRole::kMlp, Stretch::kBegin, {Slot{0}}, {Slot{1}}},
                              {NodeRole::kMlp, Stretch::kBegin, {Slot{1}}, {Slot{2}}}},
                             {Slot{0}}, {Slot{2}});
  Chunk chunk = chunk_of(program, {[](std::vector<Value> inputs) -> Value {
                                     const at::Tensor& x = inputs[0].data;
                                     const at::Tensor scales =
                                         x.detach().abs().amax(1, /*keepdim=*/true) / 448;
                                     return {.data = x / scales, .scales = scales};
                                   },
                                   [](std::vector<Value> inputs) -> Value {
                                     MT_CHECK(inputs[0].scales.defined(), "the scales are lost");
                                     return {.data = inputs[0].data * inputs[0].scales * 3};
                                   }});
  const MicroBatch micro_batch = four_tokens();
  const at::Tensor x = at::randn({4, 8}), d = at::randn({4, 8});
  ChunkRun run(chunk, micro_batch);
  EXPECT_TRUE(at::allclose(forward_chunk(run, {{.data = x}}).at(0).data, 3 * x));
  EXPECT_TRUE(at::allclose(backward_chunk(run, {d}).at(0), 3 * d));
}

// A slot with several readers: its gradient is their sum in the order of the program.
TEST(ChunkRun, AddsGradientsInTheOrderOfTheReaders) {
  const double big = 1e8;
  const LayerProgram program(
      token_slots(5),
      {{NodeRole::kMlp, Stretch::kBegin, {Slot{0}}, {Slot{1}}},
       {NodeRole::kMlp, Stretch::kBegin, {Slot{0}}, {Slot{2}}},
       {NodeRole::kMlp, Stretch::kBegin, {Slot{0}}, {Slot{3}}},
       {NodeRole::kSum, Stretch::kBegin, {Slot{1}, Slot{2}, Slot{3}}, {Slot{4}}}},
      {Slot{0}}, {Slot{4}});
  const MicroBatch micro_batch = four_tokens();
  // (big - big) + 1, and not big + (-big + 1).
  for (const auto& [factors, sum] :
       {std::pair(std::vector{big, -big, 1.0}, 1.0), std::pair(std::vector{1.0, big, -big}, 0.0)}) {
    Chunk chunk = chunk_of(program, {times(factors[0]), times(factors[1]), times(factors[2]), {}});
    ChunkRun run(chunk, micro_batch);
    forward_chunk(run, {{.data = at::ones({4, 8})}});
    const at::Tensor d = backward_chunk(run, {at::ones({4, 8})}).at(0);
    EXPECT_TRUE(at::equal(d, at::full({4, 8}, sum))) << d;
  }
}

// Without gradients a slot's value is gone behind its last reader.
TEST(ChunkRun, FreesAValueBehindItsLastReader) {
  constexpr int kNodes = 12;
  constexpr int64_t kBytes = 4 * 1024 * 256;
  std::vector<Node> nodes;
  std::vector<FunctionLayer::Function> functions;
  for (int i = 0; i < kNodes; ++i) {
    nodes.push_back({NodeRole::kMlp, Stretch::kBegin, {Slot{i}}, {Slot{i + 1}}});
    functions.push_back(times(2));
  }
  Chunk chunk =
      chunk_of(LayerProgram(token_slots(kNodes + 1), nodes, {Slot{0}}, {Slot{kNodes}}), functions);
  const MicroBatch micro_batch = four_tokens();
  ChunkRun run(chunk, micro_batch);
  const MemoryMeter meter;
  std::vector<Value> inputs(1);
  inputs[0].data = at::ones({1024, 256});
  const std::vector<Value> outputs = forward_chunk(run, std::move(inputs), {.with_grad = false});
  EXPECT_EQ(outputs.at(0).data[0][0].item<double>(), 4096);
  EXPECT_GE(meter.measure().peak_bytes, 2 * kBytes);
  EXPECT_LE(meter.measure().peak_bytes, 2 * kBytes + kBytes / 2);
}

// Values that flow on beside the hidden states, from layer to layer and out of the chunk.
TEST(ChunkRun, LayersHandOnSeveralValues) {
  const LayerProgram swaps(token_slots(4),
                           {{NodeRole::kMlp, Stretch::kBegin, {Slot{0}}, {Slot{2}}},
                            {NodeRole::kMlp, Stretch::kBegin, {Slot{1}}, {Slot{3}}}},
                           {Slot{0}, Slot{1}}, {Slot{3}, Slot{2}});
  Chunk chunk;
  for (int i = 0; i < 2; ++i) {
    chunk.layers.push_back(std::make_unique<FunctionLayer>(
        swaps, std::vector<FunctionLayer::Function>{times(2), times(3)}));
  }
  const MicroBatch micro_batch = four_tokens();
  ChunkRun run(chunk, micro_batch);
  const std::vector<Value> outputs =
      forward_chunk(run, {{.data = at::ones({4, 8})}, {.data = at::full({4, 8}, 10.0)}});
  EXPECT_EQ(outputs.at(0).data[0][0].item<double>(), 2 * 3);
  EXPECT_EQ(outputs.at(1).data[0][0].item<double>(), 10 * 3 * 2);
  const std::vector<at::Tensor> d = backward_chunk(run, {at::ones({4, 8}), at::full({4, 8}, 5.0)});
  EXPECT_EQ(d.at(0)[0][0].item<double>(), 6);
  EXPECT_EQ(d.at(1)[0][0].item<double>(), 30);
}

// A root of its own beside what flows on: the loss is `factor` times the sum of what it reads,
// which it hands on untouched.
class ScoringLayer final : public Layer {
 public:
  ScoringLayer(double factor, double weight, bool hands_on)
      : factor_(factor),
        weight_(weight),
        program_({SlotType::kTokens, SlotType::kTokens, SlotType::kLabelLoss},
                 {{NodeRole::kHead, Stretch::kBegin, {Slot{0}}, {Slot{1}, Slot{2}}}}, {Slot{0}},
                 hands_on ? std::vector<Slot>{Slot{0}} : std::vector<Slot>{}) {}

  const LayerProgram& program() const override { return program_; }
  std::vector<Value> compute(const Node&, std::vector<Value> inputs, const NodeCall&) override {
    return {{}, {.data = inputs[0].data.sum() * factor_}};
  }
  double loss_weight() const override { return weight_; }
  void visit(const std::function<void(Parameter&)>&) override {}

 private:
  double factor_, weight_;
  LayerProgram program_;
};

// Each root's gradient is the step's times its own weight; a slot that is read within a layer may
// leave it, too.
TEST(ChunkRun, LossesAreRootsWithWeightsOfTheirOwn) {
  for (const auto kind : {RecomputeSettings::Kind::kNone, RecomputeSettings::Kind::kFull}) {
    Chunk chunk;
    chunk.recompute.kind = kind;
    chunk.layers.push_back(std::make_unique<ScoringLayer>(3, 1, /*hands_on=*/true));
    chunk.layers.push_back(std::make_unique<ScoringLayer>(8, 0.25, /*hands_on=*/false));
    MicroBatch micro_batch = four_tokens();
    micro_batch.d_loss = 0.5;
    ChunkRun run(chunk, micro_batch);
    EXPECT_TRUE(forward_chunk(run, {{.data = at::ones({4, 8})}}).empty());
    EXPECT_EQ(run.label_loss().item<double>(), 32 * (3 + 0.25 * 8));
    EXPECT_THROW(run.set_d_label_loss(at::ones({})), InternalError);
    const at::Tensor d = backward_chunk(run, {}).at(0);
    EXPECT_TRUE(at::equal(d, at::full({4, 8}, 0.5 * (3 + 0.25 * 8))));
  }
}

TEST(ChunkRun, AChunkWithoutLayersHandsOn) {
  Chunk chunk;
  const MicroBatch micro_batch = four_tokens();
  ChunkRun run(chunk, micro_batch);
  const at::Tensor x = at::randn({4, 8});
  EXPECT_TRUE(forward_chunk(run, {{.data = x}}).at(0).data.is_same(x));
  EXPECT_TRUE(backward_chunk(run, {x}).at(0).is_same(x));
}

TEST(ChunkRun, ALayerThatGivesOtherValuesThanItsProgramSaysIsRefused) {
  const LayerProgram program(token_slots(2),
                             {{NodeRole::kMlp, Stretch::kBegin, {Slot{0}}, {Slot{1}}}}, {Slot{0}},
                             {Slot{1}});
  class GivesNothing final : public Layer {
   public:
    explicit GivesNothing(LayerProgram made) : program_(std::move(made)) {}
    const LayerProgram& program() const override { return program_; }
    std::vector<Value> compute(const Node&, std::vector<Value>, const NodeCall&) override {
      return {};
    }
    void visit(const std::function<void(Parameter&)>&) override {}

   private:
    LayerProgram program_;
  };
  Chunk chunk;
  chunk.layers.push_back(std::make_unique<GivesNothing>(program));
  const MicroBatch micro_batch = four_tokens();
  ChunkRun run(chunk, micro_batch);
  EXPECT_THROW(forward_chunk(run, {{.data = at::ones({4, 8})}}), InternalError);
  ChunkRun another(chunk, micro_batch);
  EXPECT_THROW(forward_chunk(another, {}), InternalError);
}

}  // namespace
}  // namespace moetron
