// Every schedule and every division of the layers trains the same bits as one pipeline rank that
// takes the micro-batches in order (DESIGN: "Same bits").
#include <algorithm>
#include <gmock/gmock.h>
#include <map>
#include <random>
#include <set>
#include <thread>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layout_harness.h"
#include "moetron/autograd/parameter.h"
#include "moetron/base/error.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/models/model.h"
#include "moetron/nn/embedding.h"
#include "moetron/pipeline/wrapped_layer.h"
#include "pipeline_cases.h"

namespace moetron {
namespace {

// What one pipeline rank gives, trained once for all cases that share it.
const TrainedOutcome& reference(const PipelineCase& c) {
  static std::map<std::string, TrainedOutcome> outcomes;
  const LayoutCase one = c.reference();
  const std::string key = concat(c.model, ", ", c.config.num_layers, " layers, ",
                                 c.num_micro_batches, " micro-batches, ", one.name());
  if (!outcomes.count(key)) outcomes[key] = train_in_layout(c.task(), one);
  return outcomes.at(key);
}

TEST(PipelineMatrix, EveryPairOfSettingsMeets) {
  std::set<ScheduleKind> kinds;
  for (const PipelineCase& c : pipeline_matrix()) kinds.insert(c.layout.schedule.kind);
  EXPECT_EQ(kinds.size(), std::size(kSchedules));
  EXPECT_EQ(missing_pairs(pipeline_matrix()), std::vector<std::string>{});
  std::vector<PipelineCase> fewer = pipeline_matrix();
  fewer.resize(fewer.size() / 2);
  EXPECT_NE(missing_pairs(fewer), std::vector<std::string>{});
}

class PipelineMatrixTest : public ::testing::TestWithParam<PipelineCase> {};

TEST_P(PipelineMatrixTest, GivesTheBitsOfOneRank) {
  const PipelineCase& c = GetParam();
  const TrainedOutcome outcome = train_in_layout(c.task(), c.layout);
  const std::string label =
      concat(c.model, ", ", c.num_micro_batches, " micro-batches, ", c.layout.name());
  print_bits(label, outcome);
  EXPECT_EQ(first_difference(outcome, reference(c)), "") << label;
}

std::string case_name(const ::testing::TestParamInfo<PipelineCase>& tested) {
  const LayoutCase& l = tested.param.layout;
  std::string kind = name_of(l.schedule.kind);
  std::replace(kind.begin(), kind.end(), '-', '_');
  std::replace(kind.begin(), kind.end(), '+', 'p');
  return concat(tested.index, "_", kind, "_pp", l.pp, "_m", tested.param.num_micro_batches,
                "_world", l.world);
}

INSTANTIATE_TEST_SUITE_P(All, PipelineMatrixTest, ::testing::ValuesIn(pipeline_matrix()),
                         case_name);

// A small pipeline of each kind, for what follows.
std::vector<LayoutCase> layouts_of_all_kinds(int64_t pp) {
  std::vector<LayoutCase> layouts;
  for (const ScheduleRequest& request : schedule_requests(static_cast<int>(pp))) {
    layouts.push_back({.world = pp, .pp = pp, .schedule = request});
  }
  return layouts;
}

// Each kind with every number of ranks and micro-batches and every division of the layers.
TEST(EveryDivision, GivesTheBitsOfOneRank) {
  std::map<std::string, TrainedOutcome> outcomes;
  for (const PipelineCase& c : every_division()) {
    TrainedTask task = c.task();
    task.steps = 1;
    task.seq_length = 8;
    const std::string key = concat(c.config.num_layers, " of ", c.num_micro_batches);
    if (!outcomes.count(key)) outcomes[key] = train_in_layout(task, c.reference());
    EXPECT_EQ(first_difference(train_in_layout(task, c.layout), outcomes.at(key)), "")
        << c.num_micro_batches << " micro-batches, " << c.layout.name();
  }
}

// Where embedding and head share a table, its gradient is whole only behind the last W of both,
// wherever a list puts them: under every kind, with DualPipeV+ for much and for little
// communication and under a cap.
TEST(TiedWeight, GiveTheBitsOfOneRankUnderEverySchedule) {
  TrainedTask task{.config = tiny_deepseek(), .steps = 1, .seq_length = 4, .with_receipts = true};
  task.config.tie_word_embeddings = true;
  for (const int64_t pp : {1, 2, 4}) {
    task.config.num_layers = 2 * pp;
    std::vector<ScheduleRequest> requests = schedule_requests(static_cast<int>(pp));
    for (const double communication : {0.0, 0.25, 1.0, 2.0}) {
      requests.push_back({.kind = ScheduleKind::kDualPipeVPlus, .communication = communication});
    }
    for (const int64_t count : {2 * pp, 2 * pp + 1, 4 * pp}) {
      task.global_batch_size = count;
      const TrainedOutcome one = train_in_layout(task, {});
      for (const ScheduleRequest& request : requests) {
        const bool is_possible = request.kind != ScheduleKind::kInterleaved || count % pp == 0;
        if (!is_possible) continue;
        LayoutCase layout{.world = pp, .pp = pp, .schedule = request};
        layout.buckets.overlap_reduce = true;
        EXPECT_EQ(first_difference(train_in_layout(task, layout), one), "")
            << count << " micro-batches, " << layout.name();
      }
    }
  }
}

// Evaluation runs with any number of micro-batches, also with fewer than ranks.
// A decoder layer that adds its tokens' rows of the embedding's table to what it hands on.
class TableLayer final : public WrappedLayer {
 public:
  TableLayer(std::unique_ptr<Layer> inner, const ModelConfig& config)
      : WrappedLayer(std::move(inner)),
        shard_{nullptr, config.vocab_size},
        table_(vocab_parameter("table", shard_, config.hidden_size, at::kFloat)) {}

  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override {
    std::vector<Value> outputs = WrappedLayer::compute(node, std::move(inputs), call);
    if (node.role == NodeRole::kAttention) {
      at::Tensor& residual = outputs[0].data;
      residual = residual + embedding(call.micro_batch.tokens.flatten(), table_, shard_, call.run);
    }
    return outputs;
  }
  void visit(const std::function<void(Parameter&)>& visitor) override {
    WrappedLayer::visit(visitor);
    visitor(table_);
  }
  Parameter& table() { return table_; }

 private:
  VocabShard shard_;
  Parameter table_;
};

// The layer at `place` becomes a third user of the table, on whatever rank it is.
void tie_table_to(Model& model, int64_t place) {
  const int64_t layer = place - 1;
  Parameter* here = nullptr;
  for (size_t i = 0; i < model.chunks().size(); ++i) {
    const StageLayers& stage = model.stages()[i];
    if (layer < stage.first || layer >= stage.first + stage.count) continue;
    auto& in_chunk = model.chunks()[i].layers.at(
        static_cast<size_t>(layer - stage.first + (stage.has_embedding ? 1 : 0)));
    auto made = std::make_unique<TableLayer>(std::move(in_chunk), model.config());
    here = &made->table();
    in_chunk = std::move(made);
  }
  model.ties().at(0).add(place, here);
}

// Uses between the ends: two of middle layers, told in another order than the model's.
TEST(TiedWeight, UsesOnMiddleStagesGiveTheBitsOfOneRank) {
  TrainedTask task{.config = tiny_deepseek(), .steps = 2, .seq_length = 4};
  task.config.tie_word_embeddings = true;
  const TrainedTask two_uses = task;
  for (const int64_t pp : {1, 2, 4}) {
    task.config.num_layers = 2 * pp;
    task.global_batch_size = 2 * pp;
    task.change_model = [&](Model& model, Communicator&) {
      tie_table_to(model, 1 + pp);
      if (pp > 1) tie_table_to(model, 2);
    };
    const TrainedOutcome one = train_in_layout(task, {});
    for (const ScheduleRequest& request : schedule_requests(static_cast<int>(pp))) {
      LayoutCase layout{.world = pp, .pp = pp, .schedule = request};
      layout.buckets.overlap_reduce = true;
      EXPECT_EQ(first_difference(train_in_layout(task, layout), one), "") << layout.name();
    }
    TrainedTask without = two_uses;
    without.config.num_layers = task.config.num_layers;
    without.global_batch_size = task.global_batch_size;
    EXPECT_NE(first_difference(train_in_layout(without, {}), one), "") << "the uses count";
  }
}

TEST(Evaluation, GivesTheBitsOfOneRank) {
  TrainedTask task{.config = tiny_deepseek(), .steps = 1, .keeps_gradients = false};
  for (const int64_t size : {1, 3, 8}) {
    task.evaluation_batch_size = size;
    const TrainedOutcome one = train_in_layout(task, {});
    EXPECT_GT(one.validation_loss, 1);
    for (const int64_t pp : {2, 4}) {
      for (const LayoutCase& layout : layouts_of_all_kinds(pp)) {
        EXPECT_EQ(first_difference(train_in_layout(task, layout), one), "")
            << layout.name() << ", evaluation of " << size;
      }
    }
  }
}

// Losses and gradient norms of a whole run, with clipping at work.
TEST(TwoHundredSteps, GiveTheSameLossesAndNorms) {
  TrainedTask task{.config = tiny_deepseek(), .steps = 200, .seq_length = 8};
  task.keeps_gradients = false;
  task.clip_grad = 0.5;
  const TrainedOutcome one = train_in_layout(task, {});
  EXPECT_LT(one.steps.back().loss, 0.8 * one.steps.front().loss) << "it learns";
  const auto clipped = [&](const StepResult& step) { return step.grad_norm > task.clip_grad; };
  EXPECT_GT(std::count_if(one.steps.begin(), one.steps.end(), clipped), 20);
  for (const auto& [kind, pp] : {std::pair{ScheduleKind::k1F1B, int64_t{2}},
                                 std::pair{ScheduleKind::kDualPipeV, int64_t{4}}}) {
    const LayoutCase layout{.world = pp, .pp = pp, .schedule = {.kind = kind}};
    EXPECT_EQ(first_difference(train_in_layout(task, layout), one), "") << layout.name();
  }
}

// A decoder layer that calls `pause` wherever it begins to compute, forward and backward.
class WatchedLayer final : public WrappedLayer {
 public:
  using Pause = std::function<void(const MicroBatch*)>;  // null in a backward
  WatchedLayer(std::unique_ptr<Layer> layer, Pause pause)
      : WrappedLayer(std::move(layer)), pause_(std::move(pause)) {}

  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override {
    pause_(&call.micro_batch);
    inputs[0].data = watched(inputs[0].data, call.run);
    return WrappedLayer::compute(node, std::move(inputs), call);
  }

 private:
  class Watch final : public Operation {
   public:
    explicit Watch(const Pause& pause) : pause_(pause) {}
    std::vector<at::Tensor> backward_input(const at::Tensor& d_output) override {
      pause_(nullptr);
      return {d_output};
    }
    void backward_weight(const at::Tensor&) override { pause_(nullptr); }

   private:
    const Pause& pause_;
  };

  at::Tensor watched(const at::Tensor& input, SegmentRun& run) {
    at::Tensor same = input.detach().clone();
    run.attach(same, std::make_shared<Watch>(pause_), {input});
    return same;
  }

  Pause pause_;
};

void watch_layers(Model& model, const WatchedLayer::Pause& pause) {
  for (Chunk& chunk : model.chunks()) {
    for (auto& layer : chunk.layers) {
      if (!layer->program().is_cut()) continue;
      layer = std::make_unique<WatchedLayer>(std::move(layer), pause);
    }
  }
}

// Each rank computes for random times, and each of its communicators is late by random times.
TEST(Delays, ChangeNoBit) {
  TrainedTask task{.config = tiny_deepseek(), .steps = 1, .seq_length = 8};
  task.config.num_layers = 5;
  for (const int64_t pp : {2, 4}) {
    LayoutCase layout{.world = 2 * pp, .pp = pp, .ep = 2};
    layout.buckets = {.distributed = true, .overlap_reduce = true, .bucket_elements = 3000};
    task.global_batch_size = 2 * 2 * pp;
    LayoutCase one = layout;
    one.world = 2;
    one.pp = 1;
    const TrainedOutcome wanted = train_in_layout(task, one);
    for (const ScheduleRequest& request : schedule_requests(static_cast<int>(pp))) {
      layout.schedule = request;
      for (const uint64_t seed : {1, 2}) {
        TrainedTask delayed = task;
        delayed.links = LinkSpeed{.latency = 1e-5, .jitter = 1e-3, .seed = seed};
        delayed.change_model = [seed](Model& model, Communicator& world) {
          auto random = std::make_shared<std::mt19937_64>(100 * seed + world.rank());
          watch_layers(model, [random](const MicroBatch*) {
            const int64_t microseconds = std::uniform_int_distribution<int64_t>(0, 1000)(*random);
            std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
          });
        };
        EXPECT_EQ(first_difference(train_in_layout(delayed, layout), wanted), "")
            << layout.name() << ", seed " << seed;
      }
    }
  }
}

// A rank that fails within the pipeline ends all ranks, and each names it and where it was.
TEST(Failure, EndsEveryRankNamingRankAndPhase) {
  for (const LayoutCase& layout : layouts_of_all_kinds(4)) {
    TrainedTask task{.config = tiny_deepseek(), .steps = 5, .keeps_gradients = false};
    task.config.num_layers = 8;
    task.change_model = [](Model& model, Communicator& world) {
      if (world.rank() != 2) return;
      watch_layers(model, [&world](const MicroBatch* micro_batch) {
        if (micro_batch != nullptr && world.phase().starts_with("step 3, F0(2)")) {
          throw InputError("broken on purpose");
        }
      });
    };
    std::vector<std::string> messages(4);
    const auto rank_main = [&](Communicator& world) {
      try {
        train_rank(task, layout, world);
      } catch (const CommError& error) {
        messages[world.rank()] = error.what();
        EXPECT_EQ(error.failed_rank(), 2);
        throw;
      }
    };
    EXPECT_THROW(run_ranks(4, rank_main), InputError) << layout.name();
    for (const int rank : {0, 1, 3}) {
      EXPECT_THAT(messages[rank],
                  ::testing::AllOf(::testing::HasSubstr(concat("rank ", rank, " in phase \"step ")),
                                   ::testing::HasSubstr("rank 2 in phase \"step 3, F0(2)"),
                                   ::testing::HasSubstr("broken on purpose")))
          << layout.name();
    }
  }
}

// What comes of a wrong list: the first difference from what the right one gives, or the error.
using ChangeSteps = std::function<void(StepList&)>;

std::string difference_made(const LayoutCase& layout, int pipeline_rank,
                            const ChangeSteps& change) {
  TrainedTask task{.config = tiny_deepseek(), .steps = 1, .seq_length = 8};
  task.config.num_layers = 5;
  const TrainedOutcome right = train_in_layout(task, layout);
  task.change_training = [&](TrainStep& train_step, Communicator& world) {
    const int64_t dp = layout.world / layout.pp;
    if (world.rank() / dp != pipeline_rank) return;
    auto& plan = const_cast<PipelinePlan&>(train_step.plan(static_cast<size_t>(8 / dp)));
    StepList& steps = plan.schedule.steps.at(static_cast<size_t>(pipeline_rank));
    change(steps);
    plan.receives.at(static_cast<size_t>(pipeline_rank)).resize(steps.size());
  };
  try {
    return first_difference(train_in_layout(task, layout), right);
  } catch (const std::exception& error) {
    return error.what();
  }
}

// The places of a list's lone W, or of its F.
std::vector<size_t> places_of(const StepList& steps, ActionKind kind) {
  std::vector<size_t> places;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].action.kind == kind) places.push_back(i);
  }
  return places;
}

TEST(WrongSchedule, IsSeenByTheComparison) {
  const LayoutCase zb{.world = 4, .pp = 4, .schedule = {.kind = ScheduleKind::kZbH1}};
  const auto keep = [](StepList&) {};
  EXPECT_EQ(difference_made(zb, 2, keep), "");
  // Two W in a row, whose I are both done.
  const auto swap_weights = [](StepList& steps) {
    const auto is_weights = [](const Step& step) {
      return step.action.kind == ActionKind::kBackwardWeight;
    };
    const auto first = std::adjacent_find(
        steps.begin(), steps.end(),
        [&](const Step& a, const Step& b) { return is_weights(a) && is_weights(b); });
    ASSERT_NE(first, steps.end());
    std::swap(first->action, std::next(first)->action);
  };
  EXPECT_THAT(difference_made(zb, 2, swap_weights), ::testing::HasSubstr("gradient"));
  const auto drop_a_weight = [](StepList& steps) {
    const auto weights = places_of(steps, ActionKind::kBackwardWeight);
    steps.erase(steps.begin() + static_cast<int64_t>(weights.end()[-2]));
  };
  EXPECT_THAT(difference_made(zb, 2, drop_a_weight), ::testing::HasSubstr("gradient"));
  const auto double_a_weight = [](StepList& steps) {
    steps.push_back(steps.at(places_of(steps, ActionKind::kBackwardWeight).back()));
  };
  EXPECT_NE(difference_made(zb, 2, double_a_weight), "");
  // The last rank takes the first micro-batch's output for the second's, and the other way round.
  const LayoutCase plain{.world = 4, .pp = 4};
  const auto swap_forwards = [](StepList& steps) {
    const auto forwards = places_of(steps, ActionKind::kForward);
    std::swap(steps.at(forwards.at(0)), steps.at(forwards.at(1)));
  };
  EXPECT_THAT(difference_made(plain, 0, swap_forwards), ::testing::HasSubstr("loss"));
  // A rank that asks for them in the wrong order.
  EXPECT_THAT(difference_made(plain, 1, swap_forwards),
              ::testing::HasSubstr("nobody began to receive"));
}

// What runs was proved when it was made.
TEST(WrongSchedule, IsRefusedWhereItIsMade) {
  for (const ScheduleRequest& request : schedule_requests(4)) {
    ScheduleRequest whole = request;
    whole.num_micro_batches = 8;
    Schedule schedule = make_schedule(whole);
    EXPECT_NO_THROW(PipelinePlan{schedule}) << name_of(request.kind);
    StepList& steps = schedule.steps.at(2);
    std::swap(steps.front().action, steps.back().action);
    EXPECT_THROW(PipelinePlan{schedule}, InternalError) << name_of(request.kind);
    Schedule forwards = make_forward_schedule({.kind = request.kind,
                                               .num_ranks = 4,
                                               .num_micro_batches = 3,
                                               .loop_chunks = request.loop_chunks});
    EXPECT_NO_THROW(PipelinePlan{forwards}) << name_of(request.kind);
    forwards.steps.at(1).pop_back();
    EXPECT_THROW(PipelinePlan{forwards}, InternalError) << name_of(request.kind);
  }
}

// A gradient that is reduced before it is whole.
TEST(WrongSchedule, EarlyReductionIsSeen) {
  LayoutCase layout{.world = 4, .pp = 2, .schedule = {.kind = ScheduleKind::kZbV}};
  layout.buckets.overlap_reduce = true;
  for (const bool moves : {false, true}) {
    const std::string difference = difference_made(layout, 1, [moves](StepList& steps) {
      const auto last = std::find_if(steps.rbegin(), steps.rend(), [](const Step& step) {
        return step.beside && step.beside->kind == ActionKind::kReduce;
      });
      ASSERT_NE(last, steps.rend());
      if (!moves) return;
      const Step reduce{*last->beside, {}};
      last->beside.reset();
      steps.insert(steps.end() - 2, reduce);
    });
    EXPECT_EQ(!difference.empty(), moves) << difference;
  }
}

}  // namespace
}  // namespace moetron
