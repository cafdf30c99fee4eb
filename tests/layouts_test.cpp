// Every layout of ranks trains the same model as one rank (docs/parallelism.md).
#include <algorithm>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layout_cases.h"
#include "moetron/autograd/parameter.h"
#include "moetron/base/error.h"
#include "moetron/parallel/zig_zag_test.h"

namespace moetron {
namespace {

TrainedTask task_of(bool is_deepseek) {
  return {.config = is_deepseek ? tiny_deepseek() : tiny_qwen_moe()};
}

TrainedTask task_of(const MatrixCase& c) {
  TrainedTask task = task_of(c.is_deepseek);
  task.with_receipts = true;
  task.filling = c.filling;
  return task;
}

// What one rank gives, by model, drop and filling; trained once.
const TrainedOutcome& reference(const MatrixCase& c) {
  static std::map<std::tuple<bool, Drop, Filling>, TrainedOutcome> outcomes;
  const auto key = std::tuple(c.is_deepseek, c.drop, c.filling);
  if (!outcomes.count(key)) outcomes[key] = train_in_layout(task_of(c), single_rank(c.drop));
  return outcomes.at(key);
}

TEST(LayoutMatrix, EveryPairOfSettingsMeets) {
  EXPECT_EQ(missing_pairs(layout_matrix()), std::vector<std::string>{});
  std::vector<MatrixCase> fewer = layout_matrix();
  fewer.resize(fewer.size() / 2);
  EXPECT_NE(missing_pairs(fewer), std::vector<std::string>{});
}

std::vector<NamedHash> hashes_of(const TensorsByName& tensors) {
  std::vector<NamedHash> hashes;
  for (const auto& [name, tensor] : tensors) {
    const std::vector<int64_t> begin(static_cast<size_t>(tensor.dim()), 0);
    hashes.push_back({name, slice_hash({name, tensor.sizes().vec(), begin, tensor})});
  }
  return hashes;
}

std::vector<NamedHash> by_name(std::vector<NamedHash> hashes) {
  std::sort(hashes.begin(), hashes.end(),
            [](const NamedHash& a, const NamedHash& b) { return a.name < b.name; });
  return hashes;
}

// However ranks divide a tensor, and whether or not copies of it lie on several: its receipt is the
// hash of the whole.
void expect_receipts_of_whole_tensors(const TrainedOutcome& outcome, const std::string& label) {
  EXPECT_EQ(by_name(outcome.steps.front().receipt->gradients), hashes_of(outcome.gradients))
      << label;
  EXPECT_EQ(by_name(outcome.steps.back().receipt->parameters), hashes_of(outcome.weights)) << label;
}

class LayoutMatrixTest : public ::testing::TestWithParam<MatrixCase> {};

TEST_P(LayoutMatrixTest, EqualsOneRank) {
  const MatrixCase& c = GetParam();
  const std::string label = concat(c.is_deepseek ? "deepseek" : "qwen", ", ", c.layout.name(),
                                   c.filling == Filling::kDocuments ? ", documents" : "");
  const TrainedOutcome outcome = train_in_layout(task_of(c), c.layout);
  print_bits(label, outcome);
  expect_equal_training(outcome, reference(c), label);
  expect_receipts_of_whole_tensors(outcome, label);
}

std::string case_name(const ::testing::TestParamInfo<MatrixCase>& tested) {
  const LayoutCase& l = tested.param.layout;
  return concat(tested.index, tested.param.is_deepseek ? "_deepseek" : "_qwen", "_world", l.world,
                "_tp", l.tp, "_ep", l.ep, "_tpe", l.tpe);
}

INSTANTIATE_TEST_SUITE_P(All, LayoutMatrixTest, ::testing::ValuesIn(layout_matrix()), case_name);

// Two experts get every token, six get none: whole ranks have nothing to compute.
TEST(UnevenRouting, ExpertsAndRanksWithoutATokenTrainAsOneRank) {
  TrainedTask task = task_of(true);
  task.config.moe->bias_update_rate = 0;
  task.prepare = [](Parameter& parameter) {
    if (!parameter.label().ends_with("e_score_correction_bias")) return;
    parameter.value().slice(0, 2, 3).fill_(20);
    parameter.value().slice(0, 3, 4).fill_(10);
  };
  const TrainedOutcome one = train_in_layout(task, {});
  EXPECT_EQ(one.steps.front().balance->num_dead, 12);  // six in each of two layers
  for (int64_t number = 0; number < num_plain_dispatchers(); ++number) {
    const TokenDispatcher dispatcher = plain_dispatcher(number);
    for (const auto& [tp, ep, tpe] :
         {std::array{1, 8, 1}, std::array{2, 4, 2}, std::array{4, 2, 1}}) {
      LayoutCase layout{.world = 8, .tp = tp, .ep = ep, .tpe = tpe};
      layout.model.experts.dispatcher = dispatcher;
      expect_equal_training(train_in_layout(task, layout), one, "skewed, " + layout.name());
    }
  }
}

TEST(GatedSharedExpert, TrainsAsOneRank) {
  const TrainedTask task{.config = tiny_gated_qwen(), .with_receipts = true};
  const TrainedOutcome one = train_in_layout(task, {});
  LayoutCase divided{.world = 4, .tp = 4, .ep = 2, .tpe = 2};
  divided.model.recompute.kind = Recompute::kMoeLayer;
  LayoutCase blocks{.world = 4, .pp = 2, .ep = 2};
  blocks.schedule.kind = ScheduleKind::kDualPipeV;
  blocks.model.experts.dispatcher = TokenDispatcher::kOverlapDeepep;
  for (const LayoutCase& layout : {divided, blocks}) {
    const TrainedOutcome outcome = train_in_layout(task, layout);
    expect_equal_training(outcome, one, "gated, " + layout.name());
    expect_receipts_of_whole_tensors(outcome, layout.name());
  }
}

// One token a micro-batch: of the slices of TP ranks all but one are padding.
TEST(OneToken, IsPaddedToTheTensorParallelRanks) {
  for (const bool is_deepseek : {true, false}) {
    TrainedTask task = task_of(is_deepseek);
    task.seq_length = 1;  // queries and keys have no gradient but rounding
    const TrainedOutcome one = train_in_layout(task, {});
    for (int64_t number = 0; number < num_plain_dispatchers(); ++number) {
      const TokenDispatcher dispatcher = plain_dispatcher(number);
      LayoutCase layout{.world = 4, .tp = 4, .ep = 2, .tpe = 2};
      layout.model.experts.dispatcher = dispatcher;
      expect_equal_training(train_in_layout(task, layout), one, "one token, " + layout.name());
    }
    LayoutCase layout{.world = 8, .tp = 2, .ep = 8};
    layout.model.experts.capacity_factor = 8;  // nothing exceeds it
    expect_equal_training(train_in_layout(task, layout), one, "one token, " + layout.name());
  }
}

// Sequences of 7 tokens on 4 TP ranks: slices of 2, the last rank's half padding.
// Slices that are not in the order of the ranks: divided evenly, and with a rank that has fewer
// tokens than another.
TEST(ZigZagSlices, TrainAsThoseInOrder) {
  for (const bool is_deepseek : {true, false}) {
    for (const int64_t length : {16, 13}) {
      TrainedTask task = task_of(is_deepseek);
      task.steps = 2;
      task.seq_length = length;
      const TrainedOutcome one = train_in_layout(task, {});
      int num_changed = 0;
      task.change_micro_batch = [&](MicroBatch& micro_batch) {
        TokenLayout& layout = micro_batch.layout;
        layout = TokenLayout(layout.group, zig_zag(layout.size(), layout.num_tokens), at::kCPU);
        if (layout.rank() == 0 && layout.row_of_token.defined()) ++num_changed;
      };
      for (const LayoutCase& layout :
           {LayoutCase{.world = 2, .tp = 2, .ep = 2}, LayoutCase{.world = 4, .tp = 4, .ep = 4}}) {
        expect_equal_training(train_in_layout(task, layout), one, layout.name());
      }
      EXPECT_GT(num_changed, 0);
    }
  }
}

TEST(PaddedTokens, CountNowhere) {
  TrainedTask task = task_of(true);
  task.seq_length = 7;
  const TrainedOutcome one = train_in_layout(task, {});
  LayoutCase layout{.world = 8, .tp = 4, .ep = 4, .tpe = 2};
  expect_equal_training(train_in_layout(task, layout), one, layout.name());
}

// Recomputation changes no bit, in any layout.
TEST(Recomputation, GivesTheSameBits) {
  for (const bool is_deepseek : {true, false}) {
    LayoutCase layout{.world = 4, .tp = 2, .ep = 2, .tpe = 2};
    const TrainedOutcome plain = train_in_layout(task_of(is_deepseek), layout);
    for (const int64_t recompute : {1, 2, 3, 4}) {
      layout.model.recompute = recompute_of(recompute);
      const TrainedOutcome again = train_in_layout(task_of(is_deepseek), layout);
      for (size_t i = 0; i < plain.steps.size(); ++i) {
        EXPECT_EQ(again.steps[i].loss, plain.steps[i].loss) << layout.name();
        EXPECT_EQ(again.steps[i].aux_loss, plain.steps[i].aux_loss) << layout.name();
      }
      for (const auto& [name, gradient] : plain.gradients) {
        EXPECT_TRUE(at::equal(again.gradients.at(name), gradient)) << layout.name() << name;
      }
      for (const auto& [name, weight] : plain.weights) {
        EXPECT_TRUE(at::equal(again.weights.at(name), weight)) << layout.name() << name;
      }
    }
  }
}

// Of all steps: what peers of a collective still read counts, too, as long as they do.
int64_t least_kept(const TrainedOutcome& outcome) {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const StepResult& step : outcome.steps)
    least = std::min(least, step.activation_memory.kept_bytes());
  return least;
}

// Nor does that of the norms in front of latent attention's projections, however these lie; and
// less is kept.
TEST(Recomputation, OfNormsGivesTheSameBitsAndKeepsLess) {
  const TrainedTask task = task_of(true);
  for (const int64_t tp : {1, 4}) {
    for (const bool replicates : {false, true}) {
      for (const bool fuses : {false, true}) {
        LayoutCase layout{.world = tp, .tp = tp};
        layout.model.latent_attention.replicate_down = replicates;
        layout.model.latent_attention.fuse_down = fuses;
        const TrainedOutcome kept = train_in_layout(task, layout);
        layout.model.latent_attention.recompute_norms = true;
        const TrainedOutcome fewer = train_in_layout(task, layout);
        EXPECT_EQ(first_difference(fewer, kept), "") << layout.name();
        EXPECT_LT(least_kept(fewer), least_kept(kept)) << layout.name();
      }
    }
  }
}

// What one micro-batch keeps, on one rank: the stronger the recomputation, the less.
TEST(Recomputation, KeepsLess) {
  for (const bool is_deepseek : {true, false}) {
    TrainedTask task = task_of(is_deepseek);
    task.steps = 1;
    LayoutCase layout;
    std::vector<int64_t> kept;
    const auto measure = [&] {
      const ActivationMemory memory = train_in_layout(task, layout).steps[0].activation_memory;
      EXPECT_GE(memory.peak_bytes, memory.kept_bytes());
      kept.push_back(memory.kept_bytes());
    };
    measure();
    if (is_deepseek) {
      layout.model.latent_attention.recompute_norms = true;
      measure();
    }
    layout.model.recompute = {Recompute::kExpertProduct};
    measure();
    layout.model.recompute = {Recompute::kMoeLayer};
    measure();
    layout.model.recompute = {Recompute::kLayer};
    measure();
    for (size_t i = 1; i < kept.size(); ++i) EXPECT_LT(kept[i], kept[i - 1]) << i;
  }
}

// Documents packed into one sequence train as the same documents in sequences of their own, each
// filled up with padding.
TEST(Documents, TrainAsTheyDoAlone) {
  class Alone final : public TokenDataset {
   public:
    int64_t size() const override { return 1 << 20; }
    int64_t sequence_length() const override { return 16; }
    TokenSample get(int64_t index) const override {
      TokenSample sample = packed_.get(index / 3);
      const auto& bounds = sample.document_bounds;
      const auto begin = bounds[static_cast<size_t>(index % 3)];
      const auto end = bounds[static_cast<size_t>(index % 3 + 1)];
      const auto cut = [&](auto& values) {
        std::rotate(values.begin(), values.begin() + begin, values.end());
        std::fill(values.begin() + (end - begin), values.end(), 0);
      };
      cut(sample.tokens);
      cut(sample.labels);
      cut(sample.loss_weights);
      cut(sample.positions);
      sample.document_bounds = {0, end - begin};
      return sample;
    }

   private:
    PatternDataset packed_{16, Filling::kDocuments};
  };
  for (const bool is_deepseek : {true, false}) {
    TrainedTask task = task_of(is_deepseek);
    task.steps = 1;
    task.config.moe->aux_loss = AuxLossKind::kNone;  // of a sequence, or of a micro-batch
    task.filling = Filling::kDocuments;
    const TrainedOutcome packed = train_in_layout(task, {});
    const Alone alone;
    task.dataset = &alone;
    task.global_batch_size *= 3;
    expect_equal_training(train_in_layout(task, {}), packed, "alone");
  }
}

// Frozen parameters stay what they are, without gradients, and those that train see no difference:
// of the first step they have the gradients that they have where nothing is frozen.
TEST(Frozen, ParametersAreReadAlone) {
  const auto is_frozen = [](const std::string& name, bool trains_experts) {
    return (name.find("mlp.experts.") != std::string::npos) != trains_experts;
  };
  for (const bool is_deepseek : {true, false}) {
    for (const bool trains_experts : {true, false}) {
      TrainedTask task = task_of(is_deepseek);
      task.clip_grad = 0;
      task.steps = 2;
      task.with_receipts = true;
      const TrainedOutcome whole = train_in_layout(task, {});
      task.prepare = [&](Parameter& parameter) {
        // Of a tied weight the owner alone: its other uses follow.
        const bool may_freeze = parameter.role() == Role::kTrained && !parameter.is_tied();
        if (may_freeze && is_frozen(parameter.label(), trains_experts)) parameter.freeze();
      };
      const TrainedOutcome one = train_in_layout(task, {});
      EXPECT_LT(one.gradients.size(), whole.gradients.size());
      for (const auto& [name, gradient] : whole.gradients) {
        ASSERT_EQ(one.gradients.count(name) == 0, is_frozen(name, trains_experts)) << name;
        if (!is_frozen(name, trains_experts)) {
          EXPECT_TRUE(at::equal(one.gradients.at(name), gradient)) << name;
        }
      }
      TrainedTask untrained = task;
      untrained.steps = 0;
      const auto before = train_in_layout(untrained, {}).weights;
      for (const auto& [name, weight] : one.weights) {
        if (whole.gradients.count(name) == 0) continue;  // a buffer
        EXPECT_EQ(at::equal(before.at(name), weight), is_frozen(name, trains_experts)) << name;
      }
      LayoutCase divided{.world = 4, .tp = 2, .ep = 2, .tpe = 2};
      divided.buckets = {.distributed = true, .overlap_reduce = true};
      LayoutCase pipeline{.world = 4, .pp = 2, .ep = 2};
      pipeline.schedule.kind = ScheduleKind::kZbH1;
      pipeline.buckets.overlap_reduce = true;
      for (const LayoutCase& layout : {divided, pipeline}) {
        const TrainedOutcome outcome = train_in_layout(task, layout);
        expect_equal_training(outcome, one, layout.name());
        expect_receipts_of_whole_tensors(outcome, layout.name());
      }
    }
  }
}

// The comparison sees a rule of the layout that is broken: gradients that are summed over the
// data-parallel ranks only, of the copies of a key-value head, and of what every rank holds whole.
TEST(BrokenRule, IsCaught) {
  for (const ReplicaRule& broken : {ReplicaRule{.tensor_copies = 2}, kWholeOnEveryRank}) {
    const LayoutCase layout{.world = 4, .tp = 4, .ep = 4};
    TrainedTask task = task_of(false);
    EXPECT_NO_THROW(train_in_layout(task, layout));
    task.prepare = [broken](Parameter& parameter) {
      if (parameter.settings().replicas != broken) return;
      const_cast<ParameterSettings&>(parameter.settings()).replicas = kTensorDivided;
    };
    EXPECT_THROW(train_in_layout(task, layout), InternalError);
  }
}

}  // namespace
}  // namespace moetron
