// What the ranks of every layout send, and in which order: each rank trains one step on the fake
// backend, and the logs of all ranks are held against each other and against formulas.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layout_cases.h"
#include "moetron/arch/inventory.h"
#include "moetron/base/error.h"
#include "moetron/comm/order_check.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/moe/dispatchers.h"
#include "pipeline_cases.h"

namespace moetron {
namespace {

constexpr int64_t kFp32 = 4;  // bytes

// One step of one micro-batch a rank.
TrainedTask one_step(bool is_deepseek, const LayoutCase& layout) {
  return {.config = is_deepseek ? tiny_deepseek() : tiny_qwen_moe(),
          .steps = 1,
          .global_batch_size = layout.world / layout.tp,
          .keeps_gradients = false};
}

// The logs of all ranks, each in a world of its own that knows no other rank.
std::vector<CommLog> logs_of(const TrainedTask& task, const LayoutCase& layout) {
  const int world = static_cast<int>(layout.world);
  std::vector<std::shared_ptr<CommLog>> logs;
  for (int rank = 0; rank < world; ++rank) logs.push_back(std::make_shared<CommLog>());
  run_ranks_with(
      world, [&](int rank) { return make_fake_world(rank, world, logs[rank]); },
      [&](Communicator& alone) { train_rank(task, layout, alone); });
  // The partial sums of the gradient norm are padded to the fullest rank's number, which the fake
  // backend cannot know: of these, the order alone is compared.
  std::vector<CommLog> all;
  for (const auto& log : logs) {
    all.push_back(*log);
    for (CommRecord& record : all.back()) {
      if (record.group == "world") record.bytes = 0;
    }
  }
  return all;
}

TEST(Order, NoLayoutWaitsForItself) {
  for (const MatrixCase& c : layout_matrix()) {
    std::vector<CommLog> logs = logs_of(one_step(c.is_deepseek, c.layout), c.layout);
    const auto fault = check_order(logs);
    EXPECT_FALSE(fault.has_value()) << c.layout.name() << ": " << fault->message;
    // The same logs with one operation lost are no longer in order.
    logs.back().erase(logs.back().begin() + static_cast<int64_t>(logs.back().size()) / 2);
    EXPECT_TRUE(check_order(logs).has_value()) << c.layout.name();
  }
}

// Pipelines of every kind, with all that the matrix puts beside them: stages of several ranks,
// distributed optimizers, recomputation that dispatches again.
TEST(Order, NoPipelineWaitsForItself) {
  for (const PipelineCase& c : pipeline_matrix()) {
    TrainedTask task = c.task();
    task.steps = 1;
    task.keeps_gradients = false;
    std::vector<CommLog> logs = logs_of(task, c.layout);
    const auto fault = check_order(logs);
    EXPECT_FALSE(fault.has_value()) << c.layout.name() << ": " << fault->message;
    CommLog& log = logs.back();
    const auto lost =
        std::find_if(log.begin() + static_cast<int64_t>(log.size()) / 2, log.end(),
                     [](const CommRecord& record) { return record.members.size() > 1; });
    if (lost == log.end()) continue;  // one rank alone
    log.erase(lost);
    EXPECT_TRUE(check_order(logs).has_value()) << c.layout.name();
  }
}

// Sums over the tensors of the inventory that are divided in the same way.
struct Elements {
  int64_t whole = 0;    // norms and routers: on every rank of a stage
  int64_t divided = 0;  // over the tensor-parallel ranks
  int64_t expert = 0;   // over the expert ranks
};

// In a bucket a parameter begins at a multiple of 64 elements.
int64_t aligned(int64_t elements) {
  return (elements + 63) / 64 * 64;
}

Elements count_elements(const ModelConfig& config, const ParallelSizes& sizes) {
  Elements counts;
  const DivisionSettings settings = division_settings(config, /*mla_replicate_l1=*/false);
  for (const TensorInfo& tensor : tensor_inventory(config)) {
    const int64_t elements = elements_on_rank(tensor, sizes, settings);
    if (tensor.is_expert()) {
      counts.expert += elements / sizes.ep;
    } else if (tensor.shard.division == Division::kWhole) {
      counts.whole += aligned(elements);
    } else {
      counts.divided += aligned(elements);
    }
  }
  return counts;
}

// Bytes of a divided bucket, padded to 64 elements a rank: (R - 1) / R of it.
int64_t divided_bucket(int64_t ranks, int64_t elements) {
  const int64_t own = (elements + 64 * ranks - 1) / (64 * ranks) * 64;
  return (ranks - 1) * own * kFp32;
}

class VolumeTest : public ::testing::TestWithParam<bool> {};

// docs/parallelism.md, "What each axis does, and costs", for Qwen3-MoE on 8 ranks.
TEST_P(VolumeTest, IsThatOfTheFormulas) {
  LayoutCase layout{.world = 8, .tp = 2, .ep = 4};
  layout.buckets.distributed = GetParam();
  layout.model.experts.dispatcher = TokenDispatcher::kAllGather;
  const TrainedTask task = one_step(false, layout);
  const ModelConfig& config = task.config;
  const ParallelSizes sizes = parallel_sizes(8, 2, 1, 4, 1);
  const CommLog log = logs_of(task, layout)[5];
  const auto sent = [&](const char* group, const char* operation) {
    return sum_bytes_sent(log, group, operation);
  };
  const int64_t fp32 = kFp32, int64 = 8, fp64 = 8;
  const int64_t layers = config.num_layers, experts = config.moe->num_experts;
  const int64_t tokens = task.seq_length, slice = tokens / sizes.tp;
  const int64_t row = config.hidden_size * fp32, top_k = config.moe->top_k;

  // Tensor parallelism: attention gathers before and reduces behind, each the other's backward;
  // so do the embedding (behind) and the head (before). The loss sums a maximum and two numbers a
  // token, each router counts its micro-batch.
  const int64_t blocks = 2 * layers + 2;
  EXPECT_EQ(sent("tp", "all_gather"), blocks * (sizes.tp - 1) * slice * row);
  EXPECT_EQ(sent("tp", "reduce_scatter"), blocks * (sizes.tp - 1) * slice * row);
  EXPECT_EQ(sent("tp", "all_reduce"),
            2 * (sizes.tp - 1) * (3 * tokens + layers * experts) * fp32 / sizes.tp);

  // Experts: T x (R - 1) x H each way, forward and backward; experts (int64) and probabilities
  // beside the rows, and the probabilities' gradients back.
  const int64_t others = sizes.ep * sizes.tpe - 1;
  EXPECT_EQ(sent("ep x tpe", "all_gather"),
            layers * others * slice * (2 * row + top_k * (int64 + fp32)));
  EXPECT_EQ(sent("ep x tpe", "reduce_scatter"), layers * others * slice * (2 * row + top_k * fp32));

  // Gradients: an all-reduce, or a reduce-scatter and a gather of the new values.
  const Elements elements = count_elements(config, sizes);
  const int64_t stage_extra = (8 - 1) * (1 + layers) * fp64;  // the losses of every rank
  const int64_t counts = 2 * (8 - 1) * layers * experts * int64 / 8;
  const int64_t targets = 2 * (sizes.dp - 1) * 3 * fp64 / sizes.dp;  // tokens, ranks that failed
  if (GetParam()) {
    for (const char* operation : {"reduce_scatter", "all_gather"}) {
      const bool gathers = operation[0] == 'a';
      EXPECT_EQ(sent("dp x tp", operation),
                divided_bucket(8, elements.whole) + (gathers ? stage_extra : 0));
      EXPECT_EQ(sent("dp", operation), divided_bucket(sizes.dp, elements.divided));
      EXPECT_EQ(sent("edp", operation), divided_bucket(sizes.edp, elements.expert));
    }
    EXPECT_EQ(sent("dp x tp", "all_reduce"), counts);
    EXPECT_EQ(sent("dp", "all_reduce"), targets);
    EXPECT_EQ(sent("edp", "all_reduce"), 0);
  } else {
    EXPECT_EQ(sent("dp x tp", "all_reduce"), 2 * 7 * elements.whole * fp32 / 8 + counts);
    EXPECT_EQ(sent("dp", "all_reduce"),
              2 * (sizes.dp - 1) * elements.divided * fp32 / sizes.dp + targets);
    EXPECT_EQ(sent("edp", "all_reduce"), 2 * (sizes.edp - 1) * elements.expert * fp32 / sizes.edp);
    EXPECT_EQ(sent("dp x tp", "all_gather"), stage_extra);
    EXPECT_EQ(sent("edp", "all_gather"), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(PlainAndZero1, VolumeTest, ::testing::Values(false, true));

// Every pair of experts once: routing that is even to the token.
at::Tensor all_pairs(int64_t num_experts) {
  return at::combinations(at::arange(num_experts, at::kLong), 2);  // [E (E - 1) / 2, 2]
}

// Rows that a rank sends under even routing: T k (R - 1) / R for all-to-all, T (R - 1) p with
// p = 1 - C(E - E/R, k) / C(E, k) for the deduplicating one, T (R - 1) for a gather.
TEST(DispatchVolume, IsThatOfEvenRouting) {
  const int64_t num_experts = 8, top_k = 2, hidden = 64, row = hidden * 4;
  const Routing routing{
      .experts = all_pairs(num_experts), .probabilities = at::rand({28, top_k}), .chosen = {}};
  const int64_t tokens = routing.experts.size(0);
  for (const int64_t ranks : {2, 4, 8}) {
    const double kept = static_cast<double>(num_experts - num_experts / ranks);
    const double none = kept * (kept - 1) / (num_experts * (num_experts - 1.0));
    const std::pair<TokenDispatcher, double> kinds[] = {
        {TokenDispatcher::kAllGather, tokens * (ranks - 1.0)},
        {TokenDispatcher::kAllToAll, tokens * top_k * (ranks - 1.0) / ranks},
        {TokenDispatcher::kDeepep, tokens * (ranks - 1.0) * (1 - none)}};
    for (const auto& [kind, rows] : kinds) {
      double sent = 0;  // by all ranks: the pairs favour no rank, but not each one alone
      for (int rank = 0; rank < ranks; ++rank) {
        const auto log = std::make_shared<CommLog>();
        const auto world = make_fake_world(rank, static_cast<int>(ranks), log);
        const auto dispatcher = make_dispatcher(
            {.kind = kind,
             .layout = {.group = world.get(), .ep = ranks, .num_experts = num_experts}});
        const Dispatched d =
            dispatcher->start_dispatch({.data = at::rand({tokens, hidden})}, routing).finish();
        log->clear();
        dispatcher->start_combine_backward({.data = at::rand({tokens, hidden})}, d.plan).finish();
        sent += static_cast<double>(sum_bytes_sent(*log, "world"));
      }
      EXPECT_NEAR(sent / static_cast<double>(ranks), rows * row, 1e-6)
          << ranks << " ranks, kind " << static_cast<int>(kind);
    }
  }
}

}  // namespace
}  // namespace moetron
