// The experts' products, forward and backward, one after the other and grouped, and what they keep;
// their pieces of a checkpoint; and the capacity of an expert.
#include "moetron/moe/experts.h"

#include <map>
#include <numeric>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/comm/fake_communicator.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/measure/memory_meter.h"
#include "moetron/moe/capacity.h"
#include "moetron/moe/router.h"

namespace moetron {
namespace {

// Rows of four experts, of which one has none.
const std::vector<int64_t> kRowsPerExpert{5, 0, 1, 9};

ExpertRows rows_per_expert() {
  std::vector<int32_t> ends(kRowsPerExpert.size());
  std::partial_sum(kRowsPerExpert.begin(), kRowsPerExpert.end(), ends.begin());
  return {kRowsPerExpert, at::tensor(ends, at::kInt)};
}
constexpr int64_t kRows = 15;
constexpr int64_t kExperts = 4;

struct ExpertCase {
  int64_t hidden = 16;
  int64_t width = 8;
  at::ScalarType dtype = at::kFloat;
  bool grouped = true;
  bool recompute = false;
};

struct ExpertOutcome {
  std::vector<at::Tensor> tensors;  // y, d_rows, d_probabilities, and the two weight gradients
};

Experts make_experts(const ExpertCase& c) {
  return Experts("experts.", {.num_experts = kExperts}, c.hidden, c.width,
                 {.options = c.dtype, .grouped_gemm = c.grouped, .recompute = c.recompute});
}

struct ExpertInput {
  at::Tensor rows, probabilities, d_y;
  explicit ExpertInput(const ExpertCase& c)
      : rows(at::randn({kRows, c.hidden}, c.dtype)),
        probabilities(at::rand({kRows})),
        d_y(at::randn({kRows, c.hidden}, c.dtype)) {}
};

ExpertOutcome run_experts(const ExpertCase& c, const ExpertInput& input) {
  Experts experts = make_experts(c);
  experts.visit([](Parameter& p) { p.initialize(1, 0.3); });
  ExpertOutcome outcome;
  // Two micro-batches: weight gradients are added to what is there.
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    SegmentRun run(true);
    const at::Tensor rows = run.input(input.rows), p = run.input(input.probabilities);
    const at::Tensor y =
        run.output(experts.forward({.data = rows, .layout = rows_per_expert()}, p, run));
    const auto grads = run.backward({input.d_y});
    run.weight_grads().run();
    outcome.tensors = {y, grads[0], grads[1]};
  }
  experts.visit([&](Parameter& p) { outcome.tensors.push_back(p.grad()); });
  return outcome;
}

class ExpertsTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(3); }
};

TEST_F(ExpertsTest, EqualTheFormulaUnderAutograd) {
  const ExpertCase c;
  const ExpertInput input(c);
  Experts experts = make_experts(c);
  std::vector<at::Tensor> weights;
  experts.visit([&](Parameter& p) {
    p.initialize(1, 0.3);
    weights.push_back(p.value().clone().requires_grad_());
  });
  const at::Tensor rows = input.rows.clone().requires_grad_();
  const at::Tensor probabilities = input.probabilities.clone().requires_grad_();
  std::vector<at::Tensor> parts;
  int64_t first = 0;
  for (int64_t e = 0; e < kExperts; ++e) {
    const int64_t count = kRowsPerExpert[e];
    const at::Tensor h = rows.narrow(0, first, count).matmul(weights[0][e].t());
    const at::Tensor act = at::silu(h.narrow(1, 0, c.width)) * h.narrow(1, c.width, c.width);
    parts.push_back(act.matmul(weights[1][e].t()) *
                    probabilities.narrow(0, first, count).unsqueeze(1));
    first += count;
  }
  const at::Tensor y = at::cat(parts);
  y.backward(input.d_y);
  const at::Tensor expected[] = {y, rows.grad(), probabilities.grad(), weights[0].grad() * 2,
                                 weights[1].grad() * 2};
  for (const bool grouped : {false, true}) {
    const ExpertOutcome outcome = run_experts({.grouped = grouped}, input);
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_LE(relative_error(outcome.tensors[i], expected[i]), kRounding) << i;
    }
  }
}

// Widths whose rows begin at multiples of 16 bytes, and others that no grouped product takes.
TEST_F(ExpertsTest, GroupedEqualsOneAfterTheOther) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [hidden, width] : {std::pair{16, 8}, {16, 3}, {6, 8}, {5, 3}}) {
      ExpertCase c{hidden, width, dtype};
      const ExpertInput input(c);
      const ExpertOutcome grouped = run_experts(c, input);
      c.grouped = false;
      const ExpertOutcome looped = run_experts(c, input);
      // The loop adds a product to the accumulator within one kernel, which rounds once less.
      const double tolerance = dtype == at::kFloat ? kRounding : 1e-2;
      for (size_t i = 0; i < grouped.tensors.size(); ++i) {
        const at::Tensor difference = (grouped.tensors[i] - looped.tensors[i]).abs();
        EXPECT_LE(difference.max().item<double>(),
                  tolerance * looped.tensors[i].abs().max().item<double>())
            << dtype << ", " << hidden << " x " << width << ", tensor " << i;
      }
    }
  }
}

TEST_F(ExpertsTest, RecomputedGradientsAreEqualToTheBit) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const bool grouped : {false, true}) {
      ExpertCase c{.dtype = dtype, .grouped = grouped};
      const ExpertInput input(c);
      const ExpertOutcome kept = run_experts(c, input);
      c.recompute = true;
      const ExpertOutcome recomputed = run_experts(c, input);
      for (size_t i = 0; i < kept.tensors.size(); ++i) {
        EXPECT_TRUE(at::equal(kept.tensors[i], recomputed.tensors[i])) << i;
      }
    }
  }
}

// Wide enough that the allocator's rounding and the graph's small tensors do not matter.
TEST_F(ExpertsTest, KeepWhatTheNextStepNeedsAlone) {
  for (const bool recompute : {false, true}) {
    ExpertCase c{.hidden = 64, .width = 256, .recompute = recompute};
    const ExpertInput input(c);
    Experts experts = make_experts(c);
    experts.visit([](Parameter& p) { p.grad(); });
    const int64_t y_bytes = kRows * c.hidden * 4, width_bytes = kRows * c.width * 4;
    constexpr int64_t kSlack = 4096;
    MemoryMeter meter;
    SegmentRun run(true);
    at::Tensor y =
        run.output(experts.forward({.data = run.input(input.rows), .layout = rows_per_expert()},
                                   run.input(input.probabilities), run));
    // Forward keeps the first product [rows, 2 * width].
    EXPECT_NEAR(static_cast<double>(meter.measure().kept_bytes()),
                static_cast<double>(y_bytes + (recompute ? 0 : 2 * width_bytes)), kSlack);
    auto grads = run.backward({input.d_y});
    // Then the weight gradients need the activation and the gradient of the first product.
    EXPECT_NEAR(static_cast<double>(meter.measure().kept_bytes()),
                static_cast<double>(2 * y_bytes + 3 * width_bytes), kSlack);
    run.weight_grads().run();
    EXPECT_NEAR(static_cast<double>(meter.measure().kept_bytes()), static_cast<double>(2 * y_bytes),
                kSlack);
  }
}

struct PlacedPiece {
  std::vector<int64_t> global_shape, begin, sizes;
  bool operator==(const PlacedPiece&) const = default;
};

// The pieces that rank `rank` of ep x tpe stores, and its values put into whole tensors.
std::map<std::string, PlacedPiece> pieces_of_rank(int rank, int64_t ep, int64_t tpe, bool grouped,
                                                  std::map<std::string, at::Tensor>& whole) {
  const auto world = make_fake_world(rank, static_cast<int>(ep * tpe), std::make_shared<CommLog>());
  const ExpertLayout layout{world.get(), ep, tpe, kExperts};
  Experts experts("experts.", layout, 6, 8, {.grouped_gemm = grouped});
  std::map<std::string, PlacedPiece> pieces;
  experts.visit([&](Parameter& p) {
    EXPECT_EQ(p.settings().replicas, kExpertDivided);
    p.initialize(7, 1);
    for (const NamedSlice& slice : p.slices(p.value())) {
      pieces[slice.name] = {slice.global_shape, slice.begin, slice.view.sizes().vec()};
      at::Tensor& target = whole[slice.name];
      if (!target.defined()) target = at::zeros(slice.global_shape);
      at::Tensor part = target;
      for (int64_t dim = 0; dim < 2; ++dim) {
        part = part.narrow(dim, slice.begin[dim], slice.view.size(dim));
      }
      part.add_(slice.view);  // what two ranks both held would be doubled
    }
  });
  return pieces;
}

TEST_F(ExpertsTest, PiecesOfEveryLayoutMakeUpTheSameTensors) {
  std::map<std::string, at::Tensor> expected;
  pieces_of_rank(0, 1, 1, true, expected);
  ASSERT_EQ(expected.size(), 3 * kExperts);
  EXPECT_EQ(expected.at("experts.3.gate_proj.weight").sizes(), at::IntArrayRef({8, 6}));
  EXPECT_EQ(expected.at("experts.3.up_proj.weight").sizes(), at::IntArrayRef({8, 6}));
  EXPECT_EQ(expected.at("experts.3.down_proj.weight").sizes(), at::IntArrayRef({6, 8}));
  for (const auto& [ep, tpe] : {std::pair{4, 1}, {1, 4}, {2, 2}, {2, 1}, {4, 2}}) {
    std::map<std::string, at::Tensor> whole;
    for (int rank = 0; rank < ep * tpe; ++rank) {
      const auto grouped = pieces_of_rank(rank, ep, tpe, true, whole);
      std::map<std::string, at::Tensor> unused;
      EXPECT_EQ(pieces_of_rank(rank, ep, tpe, false, unused), grouped);
      EXPECT_EQ(grouped.size(), 3 * kExperts / ep);
    }
    ASSERT_EQ(whole.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(at::equal(whole.at(name), tensor)) << name << ", " << ep << " x " << tpe;
    }
  }
}

TEST(CapacityTest, IsTheMeanTimesTheFactorRoundedUp) {
  EXPECT_EQ(expert_capacity(8, 2, 4, 1.0), 4);
  EXPECT_EQ(expert_capacity(8, 2, 4, 1.25), 5);
  EXPECT_EQ(expert_capacity(9, 2, 4, 1.0), 5);
  EXPECT_EQ(expert_capacity(3, 1, 64, 1.0), 1);
  EXPECT_EQ(expert_capacity(0, 2, 4, 1.0), 1);
}

TEST(CapacityTest, DropsTheLeastProbableOrTheLast) {
  // Expert 0 is chosen five times, with two equal probabilities; expert 1 once; one choice is gone.
  const at::Tensor experts = at::tensor({0, 1, 0, -1, 0, 2, 0, 2, 0, 3}, at::kLong).view({5, 2});
  const at::Tensor probabilities =
      at::tensor({.1, .5, .3, .9, .7, .2, .3, .8, .2, .5}, at::kFloat).view({5, 2});
  const TokenLayout layout{nullptr, 5};
  const auto column = [](const at::Tensor& kept) {
    const at::Tensor first = kept.select(1, 0).contiguous();
    return std::vector<int64_t>(first.const_data_ptr<int64_t>(),
                                first.const_data_ptr<int64_t>() + first.numel());
  };
  const at::Tensor by_probability =
      drop_over_capacity(experts, probabilities, layout, 4, 2, TokenDropPolicy::kProbs);
  EXPECT_EQ(column(by_probability), (std::vector<int64_t>{-1, 0, 0, -1, -1}));
  EXPECT_TRUE(at::equal(by_probability.select(1, 1), experts.select(1, 1)));
  const at::Tensor by_position =
      drop_over_capacity(experts, probabilities, layout, 4, 2, TokenDropPolicy::kPosition);
  EXPECT_EQ(column(by_position), (std::vector<int64_t>{0, 0, -1, -1, -1}));
  EXPECT_TRUE(at::equal(by_position.select(1, 1), experts.select(1, 1)));
  const at::Tensor all =
      drop_over_capacity(experts, probabilities, layout, 4, 5, TokenDropPolicy::kProbs);
  EXPECT_TRUE(at::equal(all, experts));
}

// 13 tokens: with 2 and 4 slices the last one is padded.
TEST(CapacityTest, SlicesDropWhatTheWholeDrops) {
  at::manual_seed(5);
  constexpr int64_t kTokens = 13;
  const at::Tensor experts = std::get<1>(at::rand({kTokens, 6}).topk(3, -1));
  // Five values alone, so that most choices have an equal.
  const at::Tensor probabilities = at::randint(1, 6, {kTokens, 3}).to(at::kFloat).div(5);
  for (const auto policy : {TokenDropPolicy::kProbs, TokenDropPolicy::kPosition}) {
    const at::Tensor whole =
        drop_over_capacity(experts, probabilities, {nullptr, kTokens}, 6, 4, policy);
    EXPECT_LE(at::bincount(whole.add(1).reshape(-1), {}, 7).slice(0, 1).max().item<int64_t>(), 4);
    EXPECT_FALSE(at::equal(whole, experts));
    for (const int slices : {1, 2, 4}) {
      run_ranks(slices, [&](Communicator& world) {
        const TokenLayout layout{&world, kTokens};
        const at::Tensor mine =
            drop_over_capacity(slice_tokens(experts, layout), slice_tokens(probabilities, layout),
                               layout, 6, 4, policy);
        EXPECT_TRUE(at::equal(gather_tokens(mine, layout), whole));
        const at::Tensor padding = mine.slice(0, layout.num_local());
        EXPECT_TRUE(padding.eq(kNotRouted).all().item<bool>());
      });
    }
  }
}

// Dropped choices weigh nothing and learn nothing; the others are as without a capacity.
TEST(CapacityTest, TheRouterGivesDroppedChoicesNoWeightAndNoGradient) {
  at::manual_seed(6);
  RouterSettings settings;
  settings.hidden_size = 8;
  settings.num_experts = 4;
  settings.top_k = 2;
  const at::Tensor x = at::randn({10, 8}), d_p = at::randn({10, 2});
  const auto route = [&](std::optional<double> factor, const at::Tensor& d_probabilities) {
    settings.capacity_factor = factor;
    Router router("gate.", settings, at::kFloat);
    router.visit([](Parameter& p) { p.initialize(9, 1); });
    SegmentRun run(true);
    const RouterOutput output = router.forward(
        run.input(x), make_micro_batch(at::zeros({1, 10}, at::kLong)), true, nullptr, run);
    const at::Tensor probabilities = run.output(output.routing.probabilities);
    EXPECT_EQ(router.counts().sum().item<int64_t>(), 20);  // what was chosen, before the drop
    return std::tuple(output.routing.experts, probabilities, run.backward({d_probabilities})[0]);
  };
  const auto [all_experts, all_probabilities, unused] = route(std::nullopt, d_p);
  const auto [experts, probabilities, d_x] = route(1.0, d_p);
  const at::Tensor dropped = experts.eq(kNotRouted);
  ASSERT_GT(dropped.sum().item<int64_t>(), 0);
  EXPECT_TRUE(at::equal(experts, all_experts.masked_fill(dropped, kNotRouted)));
  EXPECT_TRUE(at::equal(probabilities, all_probabilities.masked_fill(dropped, 0)));
  const at::Tensor expected = std::get<2>(route(std::nullopt, d_p.masked_fill(dropped, 0)));
  EXPECT_LE(relative_error(d_x, expected), kRounding);
}

}  // namespace
}  // namespace moetron
