#include "moetron/plan/step_program.h"

#include <gtest/gtest.h>

namespace moetron {
namespace {

constexpr Action kF{ActionKind::kForward, 0, 1};
constexpr Action kB{ActionKind::kBackward, 1, 0};
constexpr Action kI{ActionKind::kBackwardInput, 1, 0};
constexpr Action kW{ActionKind::kBackwardWeight, 1, 0};
constexpr Action kR{ActionKind::kReduce, 1, 0};

// Compute of a layer: F 8, I 9, W 6; four times `dispatch` for F and I.
ChunkTimes chunk_of(size_t num_layers, double dispatch) {
  ChunkTimes chunk;
  chunk.layers.assign(num_layers, {{3, 4, 2}, {5, 5, 4}, {}, dispatch});
  return chunk;
}

StepCost cost(const Step& step, const ChunkTimes& chunk, const ProgramSettings& settings) {
  return step_cost(step, chunk, chunk, settings);
}

TEST(StepProgram, ALoneActionWaitsForItsCommunication) {
  const ChunkTimes chunk = chunk_of(2, 1);
  const StepCost forward = cost({kF, {}}, chunk, {});
  EXPECT_EQ(forward.duration, 2 * (8 + 2));
  EXPECT_EQ(forward.exposed, 4);
  EXPECT_EQ(forward.communication, 4);
  EXPECT_EQ(forward.action_sent, 20);
  EXPECT_EQ(cost({kI, {}}, chunk, {}).duration, 2 * (9 + 2));
  EXPECT_EQ(cost({kW, {}}, chunk, {}).duration, 2 * 6);
  const StepCost backward = cost({kB, {}}, chunk, {});
  // Dispatch's backward runs beside the experts' weight gradients.
  EXPECT_EQ(backward.duration, 2 * (9 + 1 + 6));
  EXPECT_EQ(backward.action_sent, backward.duration - 2) << "before the last W of attention";
}

TEST(StepProgram, ALoneStepMayBeAssumedToWait) {
  ChunkTimes chunk = chunk_of(2, 1);
  chunk.layers[0].shared = {1, 1, 1};
  const ProgramSettings waits{.lone_steps_wait = true};
  EXPECT_EQ(cost({kF, {}}, chunk, waits).duration, 2 * (8 + 2) + 1);
  EXPECT_EQ(cost({kB, {}}, chunk, waits).duration, 2 * (9 + 2 + 6) + 2);
  EXPECT_EQ(cost({kF, kB}, chunk, waits).duration, cost({kF, kB}, chunk, {}).duration);
}

TEST(StepProgram, ABlockHidesWhatComputeCovers) {
  const ProgramSettings settings;
  const StepCost block = cost({kF, kB}, chunk_of(4, 1), settings);
  EXPECT_EQ(block.communication, 4 * 4);
  // The first combine B runs under attention F, the last combine F under attention B.
  EXPECT_EQ(block.exposed, 0);
  EXPECT_EQ(block.duration, 4 * (8 + 9 + 6));
  EXPECT_EQ(block.beside_sent, block.duration - 2);
  // Where communication is longer than compute, it is what the block takes, but for the ends.
  const StepCost bound = cost({kF, kB}, chunk_of(4, 10), settings);
  EXPECT_GE(bound.duration, 4 * 4 * 10);
  EXPECT_LE(bound.duration, 4 * 4 * 10 + 8 + 9 + 6);
}

TEST(StepProgram, CommunicationTakesMultiprocessors) {
  const ProgramSettings settings{.compute_rate = 0.8};
  const double communication = 4 * 4;
  EXPECT_NEAR(cost({kF, kB}, chunk_of(4, 1), settings).duration,
              4 * (8 + 9 + 6) + 0.2 * communication, 1e-9);
}

TEST(StepProgram, LayersThatOneHasMoreFollowAlone) {
  const ProgramSettings settings;
  const ChunkTimes longer = chunk_of(3, 1);
  const ChunkTimes shorter = chunk_of(1, 1);
  EXPECT_EQ(step_cost({kF, kB}, longer, shorter, settings).duration, (8 + 9 + 6) + 2 * (8 + 2));
  const ChunkTimes empty;
  EXPECT_EQ(step_cost({kF, kB}, longer, empty, settings).duration, 3 * (8 + 2));
  EXPECT_EQ(step_cost({kF, kB}, empty, shorter, settings).duration,
            step_cost({kB, {}}, shorter, shorter, settings).duration);
}

TEST(StepProgram, WeightGradientsFillTheWaits) {
  const ProgramSettings settings;
  const ChunkTimes chunk = chunk_of(4, 2);
  const Step filled{kF, kW};
  EXPECT_EQ(cost(filled, chunk, settings).exposed, 0);
  EXPECT_EQ(cost(filled, chunk, settings).duration, 4 * (8 + 6));
  Action half = kW;
  half.part = Part::kFirstHalf;
  EXPECT_EQ(cost({half, {}}, chunk, settings).duration, 4 * 3);
  EXPECT_GT(cost({kF, half}, chunk, settings).exposed, 0);
}

TEST(StepProgram, TheSharedExpertRunsBesideAnyDispatch) {
  ChunkTimes chunk = chunk_of(1, 3);
  chunk.layers[0].shared = {1, 1, 1};
  EXPECT_EQ(cost({kF, {}}, chunk, {}).duration, 8 + 6);
}

TEST(StepProgram, RecomputeDispatchesAgain) {
  const auto more = [&](const ChunkTimes& chunk, const RecomputeSettings& recompute) {
    const auto seconds = [&](const RecomputeSettings& settings) {
      return cost({kB, {}}, chunk, {.recompute = settings}).duration;
    };
    return seconds(recompute) - seconds({});
  };
  using Kind = RecomputeSettings::Kind;
  // Combine's backward travels beside the experts.
  EXPECT_DOUBLE_EQ(more(chunk_of(1, 1), {Kind::kMoeLayer}), 5 + 1 - 1);
  EXPECT_DOUBLE_EQ(more(chunk_of(1, 1), {Kind::kFull}), 3 + 5 + 1);
  // Of the layers that are recomputed together only the last needs no combine.
  EXPECT_DOUBLE_EQ(more(chunk_of(4, 1), {Kind::kFull, 2}), 4 * (3 + 5 + 1) + 2);
}

TEST(StepProgram, TheEndsOfTheModelCountWhereTheyAre) {
  ChunkTimes chunk = chunk_of(1, 1);
  chunk.embedding = {1, 0, 2};
  chunk.head = {5, 3, 4};
  EXPECT_EQ(cost({kF, {}}, chunk, {}).duration, 1 + 10 + 5);
  EXPECT_EQ(cost({kB, {}}, chunk, {}).duration, 3 + 4 + 16 + 2);
  EXPECT_EQ(cost({kW, {}}, chunk, {}).duration, 4 + 6 + 2);
}

TEST(StepProgram, GradientsAreReducedBesideTheLastBackward) {
  ChunkTimes chunk = chunk_of(4, 0);
  chunk.reduce = 8;
  EXPECT_EQ(cost({kR, {}}, chunk, {}).duration, 8);
  EXPECT_EQ(cost({kW, kR}, chunk, {}).duration, 4 * 6 + 2) << "but for those of one layer";
}

}  // namespace
}  // namespace moetron
