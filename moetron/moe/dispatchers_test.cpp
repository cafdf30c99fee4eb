// dispatch -> experts -> combine, forward and backward, on every layout of expert ranks: equal to
// one rank that sees all tokens. And what each dispatcher sends, against its formula.
#include "moetron/moe/dispatchers.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/comm/order_check.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/kernels/fp8.h"
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/moe/experts.h"
#include "moetron/pipeline/block.h"

namespace moetron {
namespace {

constexpr int64_t kNumExperts = 8;
constexpr int64_t kTopK = 3;
constexpr int64_t kHidden = 16;
constexpr int64_t kWidth = 16;
constexpr double kSums = 4 * kRounding;  // of two products and of a token's experts

struct Sizes {
  int64_t ep = 1;
  int64_t tpe = 1;
  int64_t ranks() const { return ep * tpe; }
};

constexpr Sizes kSizes[] = {{1, 1}, {2, 1}, {1, 2}, {4, 1}, {2, 2},
                            {1, 4}, {8, 1}, {4, 2}, {2, 4}, {1, 8}};

ExpertLayout layout_of(Communicator& group, const Sizes& sizes) {
  return {.group = &group, .ep = sizes.ep, .tpe = sizes.tpe, .num_experts = kNumExperts};
}

// The tokens of all ranks, and what flows back to them.
struct Tokens {
  at::Tensor hidden, d_y;
  Routing routing;

  int64_t size() const { return hidden.size(0); }
  Tokens of_rank(int64_t rank, int64_t ranks) const {
    const auto part = [&](const at::Tensor& x) {
      const int64_t n = x.size(0) / ranks;
      return x.narrow(0, rank * n, n).contiguous();
    };
    return {part(hidden), part(d_y), {part(routing.experts), part(routing.probabilities), {}}};
  }
  Tokens to(at::ScalarType dtype) const { return {hidden.to(dtype), d_y.to(dtype), routing}; }
};

Tokens with_experts(const at::Tensor& experts) {
  const int64_t n = experts.size(0);
  return {at::randn({n, kHidden}),
          at::randn({n, kHidden}),
          {experts.contiguous(), at::rand({n, experts.size(1)}), {}}};
}

// [tokens, kTopK], different experts of a token, all in [first, last).
at::Tensor random_experts(int64_t num_tokens, int64_t first = 0, int64_t last = kNumExperts) {
  return std::get<1>(at::rand({num_tokens, last - first}).topk(kTopK, -1)) + first;
}

struct Outcome {
  at::Tensor y, d_hidden, d_probabilities;
  std::vector<int64_t> rows_per_expert;
  std::map<std::string, at::Tensor> weight_grads;  // whole tensors by name
};

Outcome run_chain(Dispatcher& dispatcher, Experts& experts, const Tokens& tokens) {
  const Dispatched d = dispatcher.start_dispatch({.data = tokens.hidden}, tokens.routing).finish();
  SegmentRun run(true);
  const at::Tensor rows = run.input(d.rows.data), probabilities = run.input(d.probabilities);
  const at::Tensor weighted = run.output(
      experts.forward({.data = rows, .layout = d.rows_per_expert()}, probabilities, run));
  Outcome outcome;
  outcome.rows_per_expert = d.rows_per_expert().counts;
  outcome.y = dispatcher.start_combine(weighted, d.plan).finish();
  const auto grads =
      run.backward({dispatcher.start_combine_backward({.data = tokens.d_y}, d.plan).finish().data});
  const DispatchGrads back =
      dispatcher.start_dispatch_backward(grads[0], grads[1], d.plan).finish();
  run.weight_grads().run();
  outcome.d_hidden = back.d_hidden;
  outcome.d_probabilities = back.d_probabilities;
  return outcome;
}

struct ChainSettings {
  TokenDispatcher kind = TokenDispatcher::kAllGather;
  int64_t rows_at_least = 0;
  at::ScalarType dtype = at::kFloat;
  int64_t alignment = 1;
};

std::unique_ptr<Experts> make_experts(const ExpertLayout& layout, at::ScalarType dtype) {
  auto experts =
      std::make_unique<Experts>("experts.", layout, kHidden, kWidth, ExpertSettings{dtype});
  experts->visit([](Parameter& p) { p.initialize(/*seed=*/5, /*std=*/0.3); });
  return experts;
}

// Adds this rank's slices of the weight gradients to the whole tensors.
void collect_weight_grads(Experts& experts, std::map<std::string, at::Tensor>& whole) {
  experts.visit([&](Parameter& p) {
    for (const NamedSlice& slice : p.slices(p.grad())) {
      at::Tensor& target = whole[slice.name];
      if (!target.defined()) target = at::zeros(slice.global_shape, at::kFloat);
      at::Tensor part = target;
      for (int64_t dim = 0; dim < slice.view.dim(); ++dim) {
        part = part.narrow(dim, slice.begin[dim], slice.view.size(dim));
      }
      part.add_(slice.view);
    }
  });
}

// The chain on ep x tpe rank threads, each with its share of the tokens.
Outcome run_on_ranks(const Sizes& sizes, const ChainSettings& settings, const Tokens& tokens) {
  std::vector<Outcome> outcomes(sizes.ranks());
  std::map<std::string, at::Tensor> weight_grads;
  std::mutex mutex;
  run_ranks(static_cast<int>(sizes.ranks()), [&](Communicator& world) {
    const ExpertLayout layout = layout_of(world, sizes);
    const auto dispatcher = make_dispatcher({.kind = settings.kind,
                                             .layout = layout,
                                             .rows_at_least = settings.rows_at_least,
                                             .alignment = settings.alignment});
    const auto experts = make_experts(layout, settings.dtype);
    outcomes[world.rank()] =
        run_chain(*dispatcher, *experts, tokens.of_rank(world.rank(), world.size()));
    const std::lock_guard lock(mutex);
    collect_weight_grads(*experts, weight_grads);
  });
  const auto joined = [&](at::Tensor Outcome::*member) {
    std::vector<at::Tensor> parts;
    for (const Outcome& outcome : outcomes) parts.push_back(outcome.*member);
    return at::cat(parts);
  };
  Outcome all{joined(&Outcome::y), joined(&Outcome::d_hidden), joined(&Outcome::d_probabilities)};
  for (int64_t rank = 0; rank < sizes.ranks(); rank += sizes.tpe) {
    const auto& rows = outcomes[rank].rows_per_expert;
    all.rows_per_expert.insert(all.rows_per_expert.end(), rows.begin(), rows.end());
    for (int64_t shard = 1; shard < sizes.tpe; ++shard) {
      EXPECT_EQ(outcomes[rank + shard].rows_per_expert, rows);
    }
  }
  all.weight_grads = std::move(weight_grads);
  return all;
}

Outcome run_on_one_rank(const Tokens& tokens) {
  return run_on_ranks({1, 1}, {}, tokens);
}

// The largest difference, relative to the largest expected value.
void expect_near(const at::Tensor& actual, const at::Tensor& expected, double tolerance,
                 const std::string& label) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << label;
  if (expected.numel() == 0) return;
  const at::Tensor wanted = expected.to(at::kFloat);
  const double difference = (actual.to(at::kFloat) - wanted).abs().max().item<double>();
  EXPECT_LE(difference, tolerance * wanted.abs().max().item<double>()) << label;
}

void expect_same(const Outcome& actual, const Outcome& expected, double tolerance,
                 const std::string& label) {
  expect_near(actual.y, expected.y, tolerance, label + ", y");
  expect_near(actual.d_hidden, expected.d_hidden, tolerance, label + ", d_hidden");
  expect_near(actual.d_probabilities, expected.d_probabilities, tolerance,
              label + ", d_probabilities");
  ASSERT_EQ(actual.weight_grads.size(), expected.weight_grads.size());
  for (const auto& [name, grad] : expected.weight_grads) {
    expect_near(actual.weight_grads.at(name), grad, tolerance, label + ", " + name);
  }
}

std::string label_of(const Sizes& sizes, TokenDispatcher kind) {
  return concat("ep ", sizes.ep, ", tpe ", sizes.tpe, ", kind ", static_cast<int>(kind));
}

void expect_every_layout_equals_one_rank(const Tokens& tokens, double tolerance = kSums) {
  const Outcome expected = run_on_one_rank(tokens);
  for (const Sizes& sizes : kSizes) {
    for (const NamedDispatcher& named : kDispatchers) {
      const TokenDispatcher kind = named.kind;
      const Outcome actual = run_on_ranks(sizes, {.kind = kind}, tokens);
      expect_same(actual, expected, tolerance, label_of(sizes, kind));
      EXPECT_EQ(actual.rows_per_expert, expected.rows_per_expert) << label_of(sizes, kind);
    }
  }
}

class DispatchersTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(3); }
};

// One rank itself against a dense formula under autograd.
TEST_F(DispatchersTest, OneRankEqualsTheDenseFormula) {
  at::Tensor chosen = random_experts(9, 0, kNumExperts - 1);  // expert 7 gets nothing
  chosen[2][1] = kNotRouted;
  chosen[4].fill_(kNotRouted);
  const Tokens tokens = with_experts(chosen);
  std::map<std::string, at::Tensor> weights;
  make_experts({.num_experts = kNumExperts}, at::kFloat)->visit([&](Parameter& p) {
    for (const NamedSlice& slice : p.slices(p.value())) {
      weights[slice.name] = slice.view.clone().requires_grad_();
    }
  });
  const at::Tensor x = tokens.hidden.clone().requires_grad_();
  const at::Tensor probabilities = tokens.routing.probabilities.clone().requires_grad_();
  at::Tensor y = at::zeros({9, kHidden});
  for (int64_t e = 0; e < kNumExperts; ++e) {
    const std::string name = concat("experts.", e, ".");
    const at::Tensor act = at::silu(at::linear(x, weights.at(name + "gate_proj.weight"))) *
                           at::linear(x, weights.at(name + "up_proj.weight"));
    const at::Tensor weight = (probabilities * chosen.eq(e)).sum(1, /*keepdim=*/true);
    y = y + at::linear(act, weights.at(name + "down_proj.weight")) * weight;
  }
  y.backward(tokens.d_y);
  Outcome expected{y, x.grad(), probabilities.grad()};
  for (const auto& [name, weight] : weights) expected.weight_grads[name] = weight.grad();
  expect_same(run_on_one_rank(tokens), expected, kSums, "one rank");
}

TEST_F(DispatchersTest, RandomRoutingEqualsOneRank) {
  expect_every_layout_equals_one_rank(with_experts(random_experts(8 * 5)));
}

TEST_F(DispatchersTest, OneTokenARankEqualsOneRank) {
  const Tokens tokens = with_experts(random_experts(8));
  const Outcome expected = run_on_one_rank(tokens);
  for (const Sizes& sizes : {Sizes{8, 1}, Sizes{4, 2}, Sizes{2, 4}, Sizes{1, 8}}) {
    for (const NamedDispatcher& named : kDispatchers) {
      const TokenDispatcher kind = named.kind;
      expect_same(run_on_ranks(sizes, {.kind = kind}, tokens), expected, kSums,
                  label_of(sizes, kind));
    }
  }
}

// Every token goes to expert 5 alone: a rank gets all rows, the others none.
TEST_F(DispatchersTest, AllToOneExpertEqualsOneRank) {
  at::Tensor experts = at::full({8 * 3, 1}, 5, at::kLong);
  expect_every_layout_equals_one_rank(with_experts(experts));
}

// Experts 0 and 1 alone: where both are on one rank, a token has two rows behind one copy.
TEST_F(DispatchersTest, AllToTheFirstTwoExpertsEqualsOneRank) {
  const at::Tensor flipped = at::arange(8 * 6, at::kLong).remainder(2).unsqueeze(1);
  expect_every_layout_equals_one_rank(with_experts(at::cat({flipped, 1 - flipped}, 1)));
}

// Experts 3 to 6 alone: experts without a row beside others with rows, and ranks without any.
TEST_F(DispatchersTest, ExpertsAndRanksWithoutARowEqualOneRank) {
  expect_every_layout_equals_one_rank(with_experts(random_experts(8 * 3, 3, 7)));
}

TEST_F(DispatchersTest, ChoicesThatGoNowhereEqualOneRank) {
  at::Tensor experts = random_experts(8 * 4);
  experts.masked_fill_(at::rand(experts.sizes()).lt(0.4), kNotRouted);
  experts.narrow(0, 8, 5).fill_(kNotRouted);  // with 8 ranks: all tokens of one
  const Tokens tokens = with_experts(experts);
  expect_every_layout_equals_one_rank(tokens);
  const Outcome outcome = run_on_ranks({4, 2}, {.kind = TokenDispatcher::kDeepep}, tokens);
  EXPECT_TRUE(at::equal(outcome.d_probabilities.eq(0), experts.eq(kNotRouted)));
  EXPECT_EQ(outcome.y.narrow(0, 8, 5).count_nonzero().item<int64_t>(), 0);
}

TEST_F(DispatchersTest, NothingRoutedAndNoTokensGiveZeros) {
  for (const int64_t num_tokens : {0, 16}) {
    const Tokens tokens = with_experts(at::full({num_tokens, kTopK}, kNotRouted, at::kLong));
    expect_every_layout_equals_one_rank(tokens);
    const Outcome outcome = run_on_one_rank(tokens);
    EXPECT_EQ(outcome.y.sizes(), tokens.hidden.sizes());
    EXPECT_EQ(outcome.y.count_nonzero().item<int64_t>(), 0);
    EXPECT_EQ(outcome.d_hidden.count_nonzero().item<int64_t>(), 0);
  }
}

// Each step rounds to 8 bits: activations, partial sums, weight gradients.
TEST_F(DispatchersTest, Bf16EqualsFp32WithinItsRounding) {
  const Tokens tokens = with_experts(random_experts(8 * 4)).to(at::kBFloat16);
  const Outcome expected = run_on_one_rank(tokens.to(at::kFloat));
  for (const Sizes& sizes : kSizes) {
    for (const NamedDispatcher& named : kDispatchers) {
      const TokenDispatcher kind = named.kind;
      const Outcome actual = run_on_ranks(sizes, {.kind = kind, .dtype = at::kBFloat16}, tokens);
      EXPECT_EQ(actual.y.scalar_type(), at::kBFloat16);
      EXPECT_EQ(actual.d_probabilities.scalar_type(), at::kFloat);
      expect_same(actual, expected, 0.02, label_of(sizes, kind));
    }
  }
}

TEST_F(DispatchersTest, FillingUpChangesTheRowCountsAlone) {
  at::Tensor experts = random_experts(8 * 3, 0, 6);  // experts 6 and 7 get nothing
  experts.masked_fill_(at::rand(experts.sizes()).lt(0.2), kNotRouted);
  const Tokens tokens = with_experts(experts);
  const Outcome expected = run_on_one_rank(tokens);
  constexpr int64_t kRows = 10;
  std::vector<int64_t> filled = expected.rows_per_expert;
  for (int64_t& rows : filled) rows = std::max(rows, kRows);
  ASSERT_NE(filled, expected.rows_per_expert);
  ASSERT_GT(*std::max_element(filled.begin(), filled.end()), kRows);
  for (const Sizes& sizes : kSizes) {
    for (const NamedDispatcher& named : kDispatchers) {
      const TokenDispatcher kind = named.kind;
      const Outcome actual = run_on_ranks(sizes, {.kind = kind, .rows_at_least = kRows}, tokens);
      EXPECT_EQ(actual.rows_per_expert, filled) << label_of(sizes, kind);
      expect_same(actual, expected, kSums, label_of(sizes, kind));
    }
  }
}

// Rows are sorted by expert, then by token: the experts' kernels and the bits rely on it.
// Experts that begin at multiples of eight rows: the same numbers, and rows of zeros between.
TEST_F(DispatchersTest, AlignmentChangesTheRowCountsAlone) {
  at::Tensor experts = random_experts(8 * 3, 0, 7);  // expert 7 gets nothing
  experts.masked_fill_(at::rand(experts.sizes()).lt(0.2), kNotRouted);
  const Tokens tokens = with_experts(experts);
  const Outcome expected = run_on_one_rank(tokens);
  constexpr int64_t kAlignment = 8;
  std::vector<int64_t> aligned = expected.rows_per_expert;
  for (int64_t& rows : aligned) rows = (rows + kAlignment - 1) / kAlignment * kAlignment;
  ASSERT_NE(aligned, expected.rows_per_expert);
  ASSERT_EQ(aligned.back(), 0);
  for (const Sizes& sizes : kSizes) {
    for (const NamedDispatcher& named : kDispatchers) {
      const TokenDispatcher kind = named.kind;
      const Outcome actual = run_on_ranks(sizes, {.kind = kind, .alignment = kAlignment}, tokens);
      EXPECT_EQ(actual.rows_per_expert, aligned) << label_of(sizes, kind);
      expect_same(actual, expected, kSums, label_of(sizes, kind));
    }
  }
}

TEST_F(DispatchersTest, MoreTokensThanItIsMadeForAreRefused) {
  const Tokens tokens = with_experts(random_experts(5));
  for (const int64_t most : {0, 5, 6}) {
    const auto dispatcher =
        make_dispatcher({.layout = {.num_experts = kNumExperts}, .max_tokens = most});
    EXPECT_NO_THROW(dispatcher->start_dispatch({.data = tokens.hidden}, tokens.routing).finish());
  }
  const auto dispatcher =
      make_dispatcher({.layout = {.num_experts = kNumExperts}, .max_tokens = 4});
  EXPECT_THROW(dispatcher->start_dispatch({.data = tokens.hidden}, tokens.routing), InternalError);
}

TEST_F(DispatchersTest, RowsAreInTheOrderOfTokensWithinAnExpert) {
  const Tokens tokens = with_experts(random_experts(8 * 3));
  for (const NamedDispatcher& named : kDispatchers) {
    const TokenDispatcher kind = named.kind;
    run_ranks(4, [&](Communicator& world) {
      const ExpertLayout layout = layout_of(world, {4, 1});
      const Dispatched d = [&] {
        const auto dispatcher = make_dispatcher({.kind = kind, .layout = layout});
        const Tokens mine = tokens.of_rank(world.rank(), 4);
        return dispatcher->start_dispatch({.data = mine.hidden}, mine.routing).finish();
      }();
      std::vector<at::Tensor> rows, probabilities;
      for (int64_t e = layout.first_local(); e < layout.first_local() + layout.num_local(); ++e) {
        const at::Tensor places = tokens.routing.experts.eq(e).nonzero();  // [rows, 2]
        rows.push_back(tokens.hidden.index_select(0, places.select(1, 0)));
        probabilities.push_back(
            tokens.routing.probabilities.index({places.select(1, 0), places.select(1, 1)}));
      }
      EXPECT_TRUE(at::equal(d.rows.data, at::cat(rows)));
      EXPECT_TRUE(at::equal(d.probabilities, at::cat(probabilities)));
    });
  }
}

// Tokens in 8 bits with two scales each, there and with the rows that they become.
struct ScaledTokens {
  Value values;
  at::Tensor numbers;  // what they stand for

  static ScaledTokens of(const at::Tensor& x, bool as_bytes) {
    if (!as_bytes) {
      const Fp8Rows rows = quantise_rows(x, at::kFloat8_e4m3fn);
      return {{.data = rows.values, .scales = rows.scales.t()}, dequantise(rows)};
    }
    const at::Tensor bytes = at::randint(256, x.sizes(), at::kByte);
    const at::Tensor scales = at::rand({x.size(0), 2});
    return {{.data = bytes, .scales = scales}, multiplied({.data = bytes, .scales = scales})};
  }
  static at::Tensor multiplied(const Value& value) {
    return value.data.to(at::kFloat) * spread_over_rows(value.scales.t(), value.data.size(1));
  }
  ScaledTokens of_rank(int64_t rank, int64_t ranks) const {
    const int64_t n = numbers.size(0) / ranks;
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, rank * n, n); };
    return {{.data = part(values.data), .scales = part(values.scales)}, part(numbers)};
  }
};

TEST_F(DispatchersTest, ValuesWithScalesArriveAsTheirNumbers) {
  at::Tensor chosen = random_experts(8 * 4);
  chosen.masked_fill_(at::rand(chosen.sizes()).lt(0.3), kNotRouted);
  chosen.narrow(0, 8, 4).fill_(kNotRouted);
  const Tokens tokens = with_experts(chosen);
  for (const bool as_bytes : {false, true}) {
    const ScaledTokens all = ScaledTokens::of(at::randn({8 * 4, 200}), as_bytes);
    for (const Sizes& sizes : kSizes) {
      for (const NamedDispatcher& named : kDispatchers) {
        for (const auto& [at_least, alignment] : {std::pair(0, 1), {10, 1}, {0, 8}}) {
          run_ranks(static_cast<int>(sizes.ranks()), [&, fill = at_least,
                                                      to = alignment](Communicator& world) {
            const auto dispatcher = make_dispatcher({.kind = named.kind,
                                                     .layout = layout_of(world, sizes),
                                                     .rows_at_least = fill,
                                                     .alignment = to});
            const ScaledTokens mine = all.of_rank(world.rank(), world.size());
            const Routing routing = tokens.of_rank(world.rank(), world.size()).routing;
            const Dispatched d = dispatcher->start_dispatch(mine.values, routing).finish();
            const Dispatched plain =
                dispatcher->start_dispatch({.data = mine.numbers}, routing).finish();
            EXPECT_EQ(d.rows.data.scalar_type(), all.values.data.scalar_type());
            EXPECT_FALSE(plain.rows.scales.defined());
            EXPECT_TRUE(at::equal(ScaledTokens::multiplied(d.rows), plain.rows.data))
                << label_of(sizes, named.kind);
            EXPECT_TRUE(at::equal(d.probabilities, plain.probabilities));
            EXPECT_EQ(d.rows_per_expert().counts, plain.rows_per_expert().counts);
            const at::Tensor filled = d.probabilities.eq(0);  // of no row that is a choice
            EXPECT_TRUE(fill + to > 1 || !filled.any().item<bool>());
            EXPECT_FALSE(d.rows.scales.index({filled}).any().item<bool>());
            EXPECT_FALSE(d.rows.data.view(at::kByte).index({filled}).any().item<bool>());
          });
        }
      }
    }
  }
}

TEST_F(DispatchersTest, ScalesThatAreNotTheTokensAreRefused) {
  const Tokens tokens = with_experts(random_experts(4));
  const auto dispatcher = make_dispatcher({.layout = {.num_experts = kNumExperts}});
  for (const at::Tensor& scales :
       {at::ones({3, 1}), at::ones({4}), at::ones({4, 1}, at::kDouble)}) {
    EXPECT_THROW(
        dispatcher->start_dispatch({.data = tokens.hidden, .scales = scales}, tokens.routing),
        InternalError);
  }
}

class Identity final : public PureOperation {
 public:
  std::vector<at::Tensor> backward_input(const at::Tensor& d) override { return {d}; }
};

// Rounds what it dispatches to 8 bits, which travel as they are, or as the numbers that they stand
// for. Gradients pass by the rounding.
class RoundingLayer final : public Layer {
 public:
  RoundingLayer(std::unique_ptr<Dispatcher> dispatcher, at::Tensor experts, bool in_8_bits)
      : dispatcher_(std::move(dispatcher)), experts_(std::move(experts)), in_8_bits_(in_8_bits) {}

  const LayerProgram& program() const override { return sparse_layer_program(false); }
  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override {
    const at::Tensor& x = inputs[0].data;
    const auto as_it_is = [&](at::Tensor y) {
      call.run.attach(y, std::make_shared<Identity>(), {x});
      return y;
    };
    if (node.role == NodeRole::kExperts) {
      const at::Tensor rows =
          in_8_bits_
              ? as_it_is(ScaledTokens::multiplied({.data = x.detach(), .scales = inputs[0].scales}))
              : x;
      return {{.data = rows.sin() * inputs[1].data.unsqueeze(1)}};
    }
    const ScaledTokens rounded = ScaledTokens::of(x.detach(), /*as_bytes=*/false);
    Value sent{.data = as_it_is(in_8_bits_ ? rounded.values.data : rounded.numbers)};
    if (in_8_bits_) sent.scales = rounded.values.scales;
    const Routing routing{experts_, x.narrow(1, 0, kTopK).sigmoid(), experts_};
    return {{.data = x * 0.5}, sent, Value::of(routing), {}};
  }
  Dispatcher* dispatcher() override { return dispatcher_.get(); }
  void visit(const std::function<void(Parameter&)>&) override {}

 private:
  std::unique_ptr<Dispatcher> dispatcher_;
  at::Tensor experts_;
  bool in_8_bits_;
};

// Through a layer's program: the same bits, of the gradients as well, which are in no 8 bits.
TEST_F(DispatchersTest, ALayerMayDispatchIn8Bits) {
  const at::Tensor x = at::randn({8, 130}), d_y = at::randn({8, 130}), chosen = random_experts(8);
  using Kind = RecomputeSettings::Kind;
  for (const NamedDispatcher& named : kDispatchers) {
    for (const Kind recompute : {Kind::kNone, Kind::kMoeLayer, Kind::kFull}) {
      run_ranks(2, [&](Communicator& world) {
        const auto part = [&](const at::Tensor& of) { return of.narrow(0, 4 * world.rank(), 4); };
        std::vector<at::Tensor> y, d_x;
        for (const bool in_8_bits : {true, false}) {
          Chunk chunk;
          chunk.recompute.kind = recompute;
          chunk.layers.push_back(std::make_unique<RoundingLayer>(
              make_dispatcher({.kind = named.kind, .layout = layout_of(world, {2, 1})}),
              part(chosen), in_8_bits));
          const MicroBatch micro_batch = make_micro_batch(at::zeros({1, 4}, at::kLong));
          ChunkRun run(chunk, micro_batch);
          y.push_back(forward_chunk(run, {{.data = part(x)}}).at(0).data);
          d_x.push_back(backward_chunk(run, {part(d_y)}).at(0));
        }
        EXPECT_TRUE(at::equal(y[0], y[1]));
        EXPECT_EQ(d_x[0].scalar_type(), at::kFloat);
        EXPECT_TRUE(at::equal(d_x[0], d_x[1]));
      });
    }
  }
}

// Two micro-batches under way at once, finished in the other order.
TEST_F(DispatchersTest, StartedOperationsFinishInAnyOrder) {
  const Tokens a = with_experts(random_experts(8)), b = with_experts(random_experts(12));
  const Outcome only_a = run_on_one_rank(a), only_b = run_on_one_rank(b);
  for (const NamedDispatcher& named : kDispatchers) {
    const TokenDispatcher kind = named.kind;
    run_ranks(4, [&](Communicator& world) {
      const ExpertLayout layout = layout_of(world, {2, 2});
      const auto dispatcher = make_dispatcher({.kind = kind, .layout = layout});
      const auto experts = make_experts(layout, at::kFloat);
      const Tokens mine_a = a.of_rank(world.rank(), 4), mine_b = b.of_rank(world.rank(), 4);
      auto pending_a = dispatcher->start_dispatch({.data = mine_a.hidden}, mine_a.routing);
      auto pending_b = dispatcher->start_dispatch({.data = mine_b.hidden}, mine_b.routing);
      const Dispatched dispatched_b = pending_b.finish(), dispatched_a = pending_a.finish();
      SegmentRun run(false);
      const auto start_combine = [&](const Dispatched& d) {
        return dispatcher->start_combine(experts->forward(d.rows, d.probabilities, run), d.plan);
      };
      auto combined_a = start_combine(dispatched_a), combined_b = start_combine(dispatched_b);
      const at::Tensor y_b = combined_b.finish(), y_a = combined_a.finish();
      expect_near(y_a, only_a.y.narrow(0, world.rank() * 2, 2), kSums, "first");
      expect_near(y_b, only_b.y.narrow(0, world.rank() * 3, 3), kSums, "second");
    });
  }
}

TEST_F(DispatchersTest, APlanOfAnotherDispatcherIsRefused) {
  const auto log = std::make_shared<CommLog>();
  const auto world = make_fake_world(0, 2, log);
  const Tokens tokens = with_experts(random_experts(4));
  const auto gather =
      make_dispatcher({.kind = TokenDispatcher::kAllGather, .layout = layout_of(*world, {2, 1})});
  const auto exchange =
      make_dispatcher({.kind = TokenDispatcher::kAllToAll, .layout = layout_of(*world, {2, 1})});
  const Dispatched a = gather->start_dispatch({.data = tokens.hidden}, tokens.routing).finish();
  const Dispatched b = exchange->start_dispatch({.data = tokens.hidden}, tokens.routing).finish();
  EXPECT_THROW(gather->start_combine(b.rows.data, b.plan), InternalError);
  EXPECT_THROW(exchange->start_combine(a.rows.data, a.plan), InternalError);
}

TEST_F(DispatchersTest, AGroupOfAnotherSizeIsRefused) {
  const auto world = make_fake_world(0, 4, std::make_shared<CommLog>());
  EXPECT_THROW(
      make_dispatcher({.kind = TokenDispatcher::kDeepep, .layout = layout_of(*world, {2, 1})}),
      InternalError);
  EXPECT_THROW(make_dispatcher({.kind = TokenDispatcher::kDeepep,
                                .layout = {.group = world.get(), .ep = 4, .num_experts = 6}}),
               InternalError);
}

// What rank `rank` of a fake group issues in one layer, forward and backward.
CommLog log_of(const Sizes& sizes, int rank, const ChainSettings& settings, const Tokens& tokens) {
  const auto log = std::make_shared<CommLog>();
  const auto world = make_fake_world(rank, static_cast<int>(sizes.ranks()), log);
  const ExpertLayout layout = layout_of(*world, sizes);
  const auto dispatcher = make_dispatcher({.kind = settings.kind, .layout = layout});
  run_chain(*dispatcher, *make_experts(layout, settings.dtype), tokens.to(settings.dtype));
  return *log;
}

TEST_F(DispatchersTest, NoKindWaitsForItself) {
  at::Tensor experts = random_experts(8 * 3, 0, 5);  // uneven, with ranks that get nothing
  experts.narrow(0, 6, 3).fill_(kNotRouted);
  const Tokens tokens = with_experts(experts);
  for (const Sizes& sizes : kSizes) {
    for (const NamedDispatcher& named : kDispatchers) {
      const TokenDispatcher kind = named.kind;
      std::vector<CommLog> logs;
      for (int rank = 0; rank < sizes.ranks(); ++rank) {
        logs.push_back(log_of(sizes, rank, {.kind = kind}, tokens.of_rank(rank, sizes.ranks())));
      }
      const auto fault = check_order(logs);
      EXPECT_FALSE(fault.has_value()) << label_of(sizes, kind) << ": " << fault->message;
      if (sizes.ranks() == 1) continue;
      logs.back().pop_back();
      EXPECT_TRUE(check_order(logs).has_value()) << label_of(sizes, kind);
    }
  }
}

// Sums over one layer of the bytes that one rank sends. Formulas: docs/parallelism.md,
// "Dispatchers", with the small metadata beside the rows. T tokens a rank, R ranks, K choices a
// token, H bytes a row; experts are int64 (allgather) or int32, probabilities and their gradients
// fp32.
class DispatchVolumeTest : public DispatchersTest {
 protected:
  static constexpr int64_t kTokens = 24;
  static int64_t row_bytes(at::ScalarType dtype) { return dtype == at::kFloat ? 64 : 32; }

  // Copies that rank `own` sends to others: of every choice a row to each shard of its expert, or
  // one row to each rank that holds any of the token's.
  static int64_t copies_sent(const Sizes& sizes, int own, const at::Tensor& experts,
                             bool deduplicated) {
    int64_t copies = 0;
    for (int64_t t = 0; t < experts.size(0); ++t) {
      std::multiset<int64_t> ranks;
      for (int64_t k = 0; k < experts.size(1); ++k) {
        const int64_t expert = experts[t][k].item<int64_t>();
        if (expert == kNotRouted) continue;
        const int64_t part = expert / (kNumExperts / sizes.ep);
        for (int64_t shard = 0; shard < sizes.tpe; ++shard) ranks.insert(part * sizes.tpe + shard);
      }
      if (deduplicated)
        ranks = [&] {
          const std::set<int64_t> distinct(ranks.begin(), ranks.end());
          return std::multiset<int64_t>(distinct.begin(), distinct.end());
        }();
      copies += static_cast<int64_t>(ranks.size() - ranks.count(own));
    }
    return copies;
  }
};

TEST_F(DispatchVolumeTest, AllGatherSendsEveryTokenToEveryOtherRank) {
  const Tokens tokens = with_experts(random_experts(kTokens));
  for (const Sizes& sizes : kSizes) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const int64_t h = row_bytes(dtype), others = kTokens * (sizes.ranks() - 1);
      const CommLog log = log_of(sizes, 0, {TokenDispatcher::kAllGather, 0, dtype}, tokens);
      // Dispatch, and combine's backward; combine, and dispatch's backward.
      EXPECT_EQ(sum_bytes_sent(log, "world", "all_gather"), others * (h + kTopK * (8 + 4) + h));
      EXPECT_EQ(sum_bytes_sent(log, "world", "reduce_scatter"), others * (h + h + kTopK * 4));
      EXPECT_EQ(log.size(), sizes.ranks() == 1 ? 0 : 3 + 1 + 1 + 2);

      const CommLog fused = log_of(sizes, 0, {TokenDispatcher::kAllGatherFused, 0, dtype}, tokens);
      const int64_t packed = (h + kTopK * (4 + 4) + 15) / 16 * 16;
      EXPECT_EQ(sum_bytes_sent(fused, "world", "all_gather"), others * (packed + h));
      EXPECT_EQ(sum_bytes_sent(fused, "world", "reduce_scatter"), others * (h + h + kTopK * 4));
      if (sizes.ranks() == 1) continue;
      // dispatch's backward: one reduction, or two of different types that start together.
      const size_t last = dtype == at::kFloat ? 1 : 2;
      ASSERT_EQ(fused.size(), 3 + last);
      if (last == 2) {
        EXPECT_GE(fused[3].batch, 0);
        EXPECT_EQ(fused[3].batch, fused[4].batch);
      }
    }
  }
}

TEST_F(DispatchVolumeTest, AllToAllSendsARowForEachChoice) {
  at::Tensor experts = random_experts(kTokens);
  experts.masked_fill_(at::rand(experts.sizes()).lt(0.3), kNotRouted);
  const Tokens tokens = with_experts(experts);
  for (const Sizes& sizes : kSizes) {
    const int last = static_cast<int>(sizes.ranks()) - 1;
    for (const bool deduplicated : {false, true}) {
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        const auto kind = deduplicated ? TokenDispatcher::kDeepep : TokenDispatcher::kAllToAll;
        const int64_t h = row_bytes(dtype), choices = deduplicated ? kTopK : 1;
        const int64_t copies = copies_sent(sizes, last, experts, deduplicated);
        const CommLog log = log_of(sizes, last, {kind, 0, dtype}, tokens);
        // Counts; dispatch; combine (a fake peer sends as much as it gets, so as much travels
        // back); combine's backward; dispatch's backward.
        EXPECT_EQ(sum_bytes_sent(log, "world"), (sizes.ranks() - 1) * 8 +
                                                    copies * (h + choices * (4 + 4)) + copies * h +
                                                    copies * h + copies * (h + choices * 4))
            << label_of(sizes, kind);
        if (sizes.ranks() == 1) continue;
        ASSERT_EQ(log.size(), 1 + 2 + 1 + 1 + 2);
        EXPECT_GE(log[1].batch, 0);
        EXPECT_EQ(log[1].batch, log[2].batch);
        EXPECT_GE(log[5].batch, 0);
        EXPECT_EQ(log[5].batch, log[6].batch);
      }
    }
  }
}

// Token t chooses experts t and t + 1 (mod 8); four ranks hold two experts each. Of 24 tokens, half
// have both choices on one rank: 48 rows for choices or 36 for ranks, 3/4 of which leave rank 0.
TEST_F(DispatchVolumeTest, NeighbouringChoicesShareACopy) {
  const at::Tensor first = at::arange(kTokens, at::kLong).unsqueeze(1);  // [tokens, 1]
  const Tokens tokens = with_experts(at::cat({first, first + 1}, 1).remainder(kNumExperts));
  const Sizes sizes{4, 1};
  EXPECT_EQ(sum_bytes_sent(log_of(sizes, 0, {TokenDispatcher::kAllToAll}, tokens), "world"),
            3 * 8 + 36 * (4 * 64 + 1 * 12));
  EXPECT_EQ(sum_bytes_sent(log_of(sizes, 0, {TokenDispatcher::kDeepep}, tokens), "world"),
            3 * 8 + 27 * (4 * 64 + 2 * 12));
}

// In 8 bits with a scale for each 128: a quarter of fp32's bytes a row and 4 for each scale.
TEST_F(DispatchVolumeTest, ScalesTravelBesideNumbersOf8Bits) {
  const Tokens tokens = with_experts(random_experts(kTokens));
  const Fp8Rows rows = quantise_rows(at::randn({kTokens, 256}), at::kFloat8_e4m3fn);
  const Sizes sizes{4, 1};
  for (const NamedDispatcher& named : kDispatchers) {
    const auto log = std::make_shared<CommLog>();
    const auto world = make_fake_world(0, 4, log);
    const auto dispatcher =
        make_dispatcher({.kind = named.kind, .layout = layout_of(*world, sizes)});
    dispatcher->start_dispatch({.data = rows.values, .scales = rows.scales.t()}, tokens.routing)
        .finish();
    const auto bytes = [&](int64_t copies, int64_t beside) { return copies * (256 + 8 + beside); };
    int64_t wanted = 3 * 8;  // counts
    if (named.scheme == DispatchScheme::kAllGather) {
      const int64_t choices = named.kind == TokenDispatcher::kAllGather ? 8 + 4 : 4 + 4;
      wanted = bytes(3 * kTokens, kTopK * choices);
    } else {
      const bool deduplicated = named.scheme == DispatchScheme::kPerRank;
      wanted += bytes(copies_sent(sizes, 0, tokens.routing.experts, deduplicated),
                      deduplicated ? kTopK * (4 + 4) : 4 + 4);
    }
    EXPECT_EQ(sum_bytes_sent(*log, "world"), wanted) << label_of(sizes, named.kind);
  }
}

}  // namespace
}  // namespace moetron
