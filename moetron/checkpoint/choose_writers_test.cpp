// Who writes what: mostly what it holds itself, and nobody much more than its share.
#include "moetron/checkpoint/choose_writers.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/checkpoint/layouts_fixture.h"
#include "moetron/checkpoint/save_plan.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/formats/manifest.h"

namespace moetron {
namespace {

constexpr int kNumRanks = 4;

// Shapes of some 2 GB, 120 blocks: matrices and experts, behind a vector that keeps their bounds
// away from those of blocks.
WholeTensors shapes(const std::string& prefix, at::ScalarType type) {
  WholeTensors tensors;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    tensors[prefix + name] = at::zeros({}, type).expand(shape);
  };
  add("a.bias", {3'000'003});
  add("embed_tokens.weight", {32768, 2048});
  add("q_proj.weight", {8192, 8192});
  for (int expert = 0; expert < 12; ++expert) {
    add(concat("mlp.experts.", expert, ".up_proj.weight"), {4096, 4096});
  }
  return tensors;
}

SavePlan plan_for(Layout layout, Communicator& world) {
  const int rank = world.rank();
  CheckpointContent content;
  content.weights = cut(shapes("", at::kBFloat16), layout, rank, kNumRanks, Values::kNone);
  content.states = cut(shapes("exp_avg.", at::kFloat), layout, rank, kNumRanks, Values::kNone);
  return plan_save(content, &world);
}

struct Traffic {
  double crossing = 0;            // share of the bytes that go from one rank to another
  std::vector<uint64_t> written;  // by each rank
  uint64_t total = 0;
  std::vector<int> writers;
};

// `in_turns`: as it would be if blocks were dealt out like cards.
Traffic traffic_of(const SavePlan& plan, bool in_turns = false) {
  Traffic traffic{.written = std::vector<uint64_t>(kNumRanks)};
  uint64_t crossing = 0;
  for (uint64_t index = 0; index < plan.num_blocks(); ++index) {
    FileBlock block = plan.block(index);
    if (in_turns) block.writer = static_cast<int>(index % kNumRanks);
    const std::vector<uint64_t> given = bytes_given(block, kNumRanks);
    for (int rank = 0; rank < kNumRanks; ++rank) {
      if (rank != block.writer) crossing += given[static_cast<size_t>(rank)];
    }
    traffic.written[static_cast<size_t>(block.writer)] += block.bytes();
    traffic.total += block.bytes();
    traffic.writers.push_back(block.writer);
  }
  traffic.crossing = static_cast<double>(crossing) / static_cast<double>(traffic.total);
  return traffic;
}

void expect_crossing(Layout layout, double at_most, double in_turns_at_least) {
  std::vector<Traffic> by_rank(kNumRanks);
  double in_turns = 0;
  run_ranks(kNumRanks, [&](Communicator& world) {
    const SavePlan plan = plan_for(layout, world);
    by_rank[static_cast<size_t>(world.rank())] = traffic_of(plan);
    if (world.rank() == 0) in_turns = traffic_of(plan, /*in_turns=*/true).crossing;
  });
  const Traffic& traffic = by_rank[0];
  testing::Test::RecordProperty("crossing", std::to_string(traffic.crossing));
  testing::Test::RecordProperty("crossing_in_turns", std::to_string(in_turns));
  EXPECT_LE(traffic.crossing, at_most);
  EXPECT_GE(in_turns, in_turns_at_least);
  const uint64_t most = *std::max_element(traffic.written.begin(), traffic.written.end());
  EXPECT_LE(most, traffic.total / kNumRanks + kManifestBlockBytes);
  for (const Traffic& other : by_rank) EXPECT_EQ(other.writers, traffic.writers);
}

TEST(ChooseWriters, ReplicasStayWhereTheyAre) {
  expect_crossing(Layout::kReplicas, 0, 0);
}

// A rank's part of an expert's matrix is half a block here.
TEST(ChooseWriters, RowsMostlyStay) {
  expect_crossing(Layout::kRows, 0.35, 0.7);
}

TEST(ChooseWriters, ExpertsMostlyStay) {
  expect_crossing(Layout::kExperts, 0.1, 0.4);
}

TEST(ChooseWriters, StretchesMostlyStay) {
  expect_crossing(Layout::kStretch, 0.35, 0.7);
}

// One rank holds nearly all: the others must help, and what it keeps is its share.
TEST(ChooseWriters, ARankThatHoldsMostWritesItsShare) {
  std::vector<Traffic> by_rank(kNumRanks);
  run_ranks(kNumRanks, [&](Communicator& world) {
    CheckpointContent content;
    if (world.rank() == 2)
      content.weights = cut(shapes("", at::kFloat), Layout::kReplicas, 0, 1, Values::kNone);
    by_rank[static_cast<size_t>(world.rank())] = traffic_of(plan_save(content, &world));
  });
  const Traffic& traffic = by_rank[0];
  for (const uint64_t written : traffic.written) {
    EXPECT_LE(written, traffic.total / kNumRanks + kManifestBlockBytes);
    EXPECT_GE(written + kManifestBlockBytes, traffic.total / kNumRanks);
  }
  EXPECT_LE(traffic.crossing, 0.76);
}

}  // namespace
}  // namespace moetron
