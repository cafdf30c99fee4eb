#include "moetron/schedule/instructions.h"

#include <gmock/gmock.h>
#include <map>
#include <tuple>

#include <gtest/gtest.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using Act = Instruction::Act;
using Kind = RecomputeSettings::Kind;

ChunkProgram decoders(int count, const RecomputeSettings& recompute = {}, bool shared = true) {
  return {
      std::vector<const LayerProgram*>(static_cast<size_t>(count), &sparse_layer_program(shared)),
      recompute};
}

// What computes and what travels, without the marks of layers; "(B)" where it is of the backward.
std::vector<std::string> texts(const InstructionList& list, const ChunkProgram& forward,
                               const ChunkProgram& backward) {
  std::vector<std::string> all;
  for (const Instruction& instruction : list) {
    if (instruction.act == Act::kBeginLayer || instruction.act == Act::kEndLayer) continue;
    all.push_back(describe(instruction, instruction.of_backward ? backward : forward));
  }
  return all;
}

TEST(Instructions, OfALoneForwardAndBackward) {
  const ChunkProgram chunk = decoders(1);
  EXPECT_THAT(
      texts(forward_instructions(chunk, /*fills=*/true), chunk, chunk),
      testing::ElementsAre("attention F0", "start dispatch F0", "fill F0", "shared expert F0",
                           "wait for dispatch F0", "experts F0", "start combine F0", "fill F0",
                           "wait for combine F0", "aggregate F0", "send F"));
  EXPECT_THAT(
      texts(backward_instructions(chunk, /*with_weights=*/true, /*fills=*/false), chunk, chunk),
      testing::ElementsAre("aggregate I0", "start combine I0", "shared expert I0",
                           "wait for combine I0", "experts I0", "start dispatch I0",
                           "shared expert W0", "experts W0", "wait for dispatch I0", "attention I0",
                           "send I", "attention W0"));
}

// Which list a step has follows from its actions, in whatever order it names them.
TEST(Instructions, OfAStepFollowFromItsActions) {
  const ChunkProgram one = decoders(1), two = decoders(2);
  const auto of = [&](const Step& step) {
    return texts(step_instructions(step, &one, &two), one, two);
  };
  const Action f{ActionKind::kForward, 0, 1}, b{ActionKind::kBackward, 1, 0},
      i{ActionKind::kBackwardInput, 1, 0}, w{ActionKind::kBackwardWeight, 0, 0},
      r{ActionKind::kReduce, 1};
  EXPECT_EQ(of({f, {}}), texts(forward_instructions(one, /*fills=*/false), one, two));
  EXPECT_EQ(of({f, w}), texts(forward_instructions(one, /*fills=*/true), one, two));
  EXPECT_EQ(of({b, {}}), texts(backward_instructions(two, true, /*fills=*/false), one, two));
  EXPECT_EQ(of({b, r}), of({b, {}}));
  EXPECT_EQ(of({i, w}), texts(backward_instructions(two, false, /*fills=*/true), one, two));
  EXPECT_EQ(of({f, b}), texts(block_instructions(one, two, /*with_weights=*/true), one, two));
  EXPECT_EQ(of({b, f}), of({f, b}));
  EXPECT_TRUE(step_instructions({w, {}}, nullptr, nullptr).empty());
  EXPECT_TRUE(step_instructions({w, r}, nullptr, nullptr).empty());
}

// The order of the profile that DeepSeek-AI published with DualPipe, over two layers.
TEST(Instructions, OfABlockHideWhatTravels) {
  const ChunkProgram chunk = decoders(2, {}, /*shared=*/false);
  EXPECT_THAT(texts(block_instructions(chunk, chunk, /*with_weights=*/true), chunk, chunk),
              testing::ElementsAre(
                  "aggregate I1", "start combine I1", "attention F0", "start dispatch F0",
                  "wait for combine I1", "experts I1", "start dispatch I1", "experts W1",
                  "wait for dispatch F0", "experts F0", "start combine F0", "wait for dispatch I1",
                  "attention I1", "aggregate I0", "start combine I0", "attention W1",
                  "wait for combine F0", "aggregate F0",
                  // The next pair.
                  "attention F1", "start dispatch F1", "wait for combine I0", "experts I0",
                  "start dispatch I0", "experts W0", "wait for dispatch F1", "experts F1",
                  "start combine F1", "wait for dispatch I0", "attention I0", "wait for combine F1",
                  "aggregate F1", "send F", "send I", "attention W0"));
}

TEST(Instructions, RecomputationComesBeforeItsBackward) {
  const ChunkProgram part = decoders(1, {Kind::kMoeLayer});
  EXPECT_THAT(
      texts(backward_instructions(part, true, false), part, part),
      testing::ElementsAre("start dispatch again 0", "aggregate I0", "start combine I0",
                           "shared expert again 0", "wait for dispatch again 0", "experts again 0",
                           "shared expert I0", "wait for combine I0", "experts I0",
                           "start dispatch I0", "shared expert W0", "experts W0",
                           "wait for dispatch I0", "attention I0", "send I", "attention W0"));
  // Two layers at a time; only the first of them needs its output again.
  const ChunkProgram whole = decoders(3, {Kind::kFull, 2}, /*shared=*/false);
  std::vector<std::string> again;
  for (const std::string& text : texts(backward_instructions(whole, true, false), whole, whole)) {
    if (text.find("again") != std::string::npos) again.push_back(text);
  }
  EXPECT_THAT(again, testing::ElementsAre(
                         "attention again 2", "start dispatch again 2", "wait for dispatch again 2",
                         "experts again 2", "attention again 0", "start dispatch again 0",
                         "wait for dispatch again 0", "experts again 0", "start combine again 0",
                         "wait for combine again 0", "aggregate again 0", "attention again 1",
                         "start dispatch again 1", "wait for dispatch again 1", "experts again 1"));
}

// Whatever chunks meet: each node of either once in each pass, what travels begun before it is
// awaited, layers in order, results sent once.
TEST(Instructions, AreCompleteForAllPairsOfChunks) {
  std::vector<ChunkProgram> chunks;
  for (const RecomputeSettings& recompute :
       {RecomputeSettings{}, RecomputeSettings{Kind::kMoeLayer},
        RecomputeSettings{Kind::kFull, 2}}) {
    for (int count = 0; count <= 3; ++count) {
      for (const bool with_ends : {false, true}) {
        std::vector<const LayerProgram*> layers;
        if (with_ends) layers.push_back(&embedding_program());
        for (int i = 0; i < count; ++i) {
          layers.push_back(i == 0 ? &dense_layer_program() : &sparse_layer_program(i == 1));
        }
        if (with_ends) layers.push_back(&head_program());
        chunks.emplace_back(layers, recompute);
      }
    }
  }
  for (const ChunkProgram& forward : chunks) {
    for (const ChunkProgram& backward : chunks) {
      std::map<std::tuple<bool, Pass, int, int>, std::vector<Act>> seen;
      int forward_sent = 0, backward_sent = 0, ended = 0;
      for (const Instruction& i : block_instructions(forward, backward, /*with_weights=*/true)) {
        if (i.act == Act::kSend) {
          (i.of_backward ? backward_sent : forward_sent) += 1;
        } else if (i.act == Act::kEndLayer) {
          EXPECT_EQ(i.layer, backward.num_layers() - 1 - ended++);
        } else if (i.act != Act::kBeginLayer) {
          seen[{i.of_backward, i.pass, i.layer, i.node}].push_back(i.act);
        }
      }
      EXPECT_EQ(forward_sent, 1);
      EXPECT_EQ(backward_sent, 1);
      EXPECT_EQ(ended, backward.num_layers());
      const auto check = [&](bool of_backward, Pass pass, int layer, int node, bool expected) {
        const NodeRole role = (of_backward ? backward : forward).layer(layer).node(node).role;
        std::vector<Act> wanted;
        if (expected) wanted = {Act::kCompute};
        if (expected && communicates(role)) wanted = {Act::kStart, Act::kFinish};
        EXPECT_EQ((seen[{of_backward, pass, layer, node}]), wanted)
            << name_of(role) << " of layer " << layer;
      };
      for (int layer = 0; layer < forward.num_layers(); ++layer) {
        for (int node = 0; node < forward.layer(layer).num_nodes(); ++node) {
          check(false, Pass::kForward, layer, node, true);
        }
      }
      for (int layer = 0; layer < backward.num_layers(); ++layer) {
        const LayerRecompute& recompute = backward.recompute[static_cast<size_t>(layer)];
        for (int node = 0; node < backward.layer(layer).num_nodes(); ++node) {
          check(true, Pass::kAgain, layer, node, recompute.runs_again(node));
          check(true, Pass::kInputGrad, layer, node, true);
          check(true, Pass::kWeightGrad, layer, node,
                is_compute(backward.layer(layer).node(node).role));
        }
      }
    }
  }
}

TEST(Instructions, AWaitTakesItsShare) {
  EXPECT_EQ(share_of_wait(7, 3), 3u);
  EXPECT_EQ(share_of_wait(4, 2), 2u);
  EXPECT_EQ(share_of_wait(2, 1), 2u);
  EXPECT_EQ(share_of_wait(0, 4), 0u);
  EXPECT_EQ(share_of_wait(5, 0), 5u);
}

TEST(LayerProgram, RefusesSlotsThatDoNotFit) {
  using enum SlotType;
  const Node mlp{NodeRole::kMlp, Stretch::kBegin, {Slot{0}}, {Slot{1}}};
  EXPECT_NO_THROW(LayerProgram({kTokens, kTokens}, {mlp}, {Slot{0}}, {Slot{1}}));
  const auto error_of = [&](std::vector<SlotType> slots, std::vector<Node> nodes,
                            std::vector<Slot> inputs) -> std::string {
    try {
      LayerProgram(std::move(slots), std::move(nodes), std::move(inputs), {Slot{1}});
      return "";
    } catch (const InternalError& error) {
      return error.what();
    }
  };
  EXPECT_THAT(error_of({kTokens, kTokens}, {mlp}, {}), testing::HasSubstr("before it is written"));
  EXPECT_THAT(error_of({kTokens, kTokens}, {mlp, mlp}, {Slot{0}}),
              testing::HasSubstr("written twice"));
  EXPECT_THAT(error_of({kTokens, kRouting}, {mlp}, {Slot{0}}), testing::HasSubstr("other types"));
  EXPECT_THAT(error_of({kTokens, kTokens}, {}, {Slot{0}}),
              testing::HasSubstr("before it is written"));
}

}  // namespace
}  // namespace moetron
