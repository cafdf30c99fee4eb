// Products in 8 bits in every kind of layout and schedule, against one rank: the same bits where
// the same numbers are added up, and gradients within a percent where ranks add up in another
// order, which may round a number to another of 8 bits.
#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layout_harness.h"

namespace moetron {
namespace {

constexpr double kGradientBound = 0.01, kLossBound = 2e-3;
constexpr double kFp8GradientBound = 0.2;  // beside full precision, through all layers

// The tiny models with sizes of whole blocks of 128, in two parts, too.
ModelConfig model_of(bool is_deepseek) {
  ModelConfig config = is_deepseek ? tiny_deepseek() : tiny_qwen_moe();
  config.hidden_size = 128;
  config.intermediate_size = 256;
  config.num_attention_heads = config.num_key_value_heads = 4;
  config.head_dim = config.rope.dim = 64;
  config.moe->expert_intermediate_size = 256;
  if (is_deepseek) {
    config.mla = MlaConfig{.q_lora_rank = 128,
                           .kv_lora_rank = 128,
                           .qk_nope_head_dim = 64,
                           .qk_rope_head_dim = 64,
                           .v_head_dim = 64};
    config.moe->shared_intermediate_size = 256;
  }
  return config;
}

TrainedTask task_of(bool is_deepseek) {
  TrainedTask task;
  task.config = model_of(is_deepseek);
  task.steps = 2;
  task.global_batch_size = 4;
  return task;
}

LayoutCase in_fp8(LayoutCase layout) {
  layout.model.fp8 = Fp8Spec{.end_layer = 8};
  layout.model.latent_attention.replicate_down = true;
  return layout;
}

void expect_near(const TrainedOutcome& found, const TrainedOutcome& wanted,
                 const std::string& label) {
  for (size_t step = 0; step < wanted.steps.size(); ++step) {
    const double loss = wanted.steps[step].loss;
    EXPECT_NEAR(found.steps[step].loss, loss, kLossBound * loss) << label << ", step " << step;
  }
  ASSERT_EQ(found.gradients.size(), wanted.gradients.size()) << label;
  double worst = 0, squares = 0;
  for (const auto& [name, gradient] : wanted.gradients) {
    squares += std::pow(gradient.norm().item<double>(), 2);
  }
  for (const auto& [name, gradient] : wanted.gradients) {
    const double difference = (found.gradients.at(name) - gradient).norm().item<double>();
    const double size = gradient.norm().item<double>() + 1e-3 * std::sqrt(squares);
    EXPECT_LE(difference, kGradientBound * size) << label << ": " << name;
    worst = std::max(worst, difference / size);
  }
  std::printf("%s: largest relative difference of a gradient %.2g\n", label.c_str(), worst);
}

TEST(Fp8Layouts, TrainAsOneRankDoes) {
  LayoutCase tensor{.world = 2, .tp = 2};
  LayoutCase experts{.world = 4, .tp = 2, .ep = 2, .tpe = 2};
  experts.model.experts.dispatcher = TokenDispatcher::kAllToAll;
  LayoutCase data{.world = 4, .ep = 4};
  data.model.experts.dispatcher = TokenDispatcher::kDeepep;
  data.buckets = {.distributed = true, .overlap_reduce = true, .overlap_gather = true};
  for (const bool is_deepseek : {true, false}) {
    const TrainedTask task = task_of(is_deepseek);
    const TrainedOutcome one = train_in_layout(task, in_fp8({}));
    print_bits(is_deepseek ? "fp8 deepseek, one rank" : "fp8 qwen, one rank", one);
    for (const LayoutCase& layout : {tensor, experts, data}) {
      expect_near(train_in_layout(task, in_fp8(layout)), one, layout.name());
    }
  }
}

TEST(Fp8Layouts, EverySchedulesBitsAreTheSame) {
  for (const bool is_deepseek : {true, false}) {
    TrainedTask task = task_of(is_deepseek);
    task.config.num_layers = 4;
    TrainedOutcome first;
    for (const ScheduleKind kind : {ScheduleKind::k1F1B, ScheduleKind::kZbH1, ScheduleKind::kZbV,
                                    ScheduleKind::kDualPipeV, ScheduleKind::kDualPipeVPlus}) {
      LayoutCase layout{.world = 2, .pp = 2};
      layout.schedule.kind = kind;
      const TrainedOutcome found = train_in_layout(task, in_fp8(layout));
      if (first.steps.empty()) first = found;
      EXPECT_EQ(first_difference(found, first), "") << layout.name();
    }
  }
}

TEST(Fp8Layouts, RecomputationChangesNoBit) {
  const TrainedTask task = task_of(true);
  const TrainedOutcome whole = train_in_layout(task, in_fp8({}));
  for (const int64_t number : {1, 2, 3}) {
    LayoutCase layout = in_fp8({});
    layout.model.recompute = recompute_of(number);
    EXPECT_EQ(first_difference(train_in_layout(task, layout), whole), "") << layout.name();
  }
}

// What is quantised before it travels is what would be quantised behind.
TEST(Fp8Layouts, DispatchIn8BitsChangesNoBit) {
  for (const bool is_deepseek : {true, false}) {
    const TrainedTask task = task_of(is_deepseek);
    for (const NamedDispatcher& dispatcher : kDispatchers) {
      if (!is_plain(dispatcher)) continue;
      LayoutCase layout = in_fp8({.world = 4, .tp = 2, .ep = 2, .tpe = 2});
      layout.model.experts.dispatcher = dispatcher.kind;
      const TrainedOutcome travelling = train_in_layout(task, layout);
      layout.model.fp8->dispatch = false;
      EXPECT_EQ(first_difference(train_in_layout(task, layout), travelling), "") << dispatcher.name;
    }
  }
}

// It is in 8 bits, in the layers that were asked for, and near what it is without. Every token goes
// to all experts: a choice that is rounded to another expert's would be no small difference.
TEST(Fp8Layouts, AreNearFullPrecision) {
  for (const bool is_deepseek : {true, false}) {
    TrainedTask task = task_of(is_deepseek);
    task.steps = 1;
    task.config.moe->num_groups = task.config.moe->group_topk = 1;
    task.config.moe->top_k = task.config.moe->num_experts;
    task.config.initializer_range = 0.02;  // as models begin: layers bend little
    const TrainedOutcome plain = train_in_layout(task, {});
    LayoutCase layout;
    layout.model.fp8 = Fp8Spec{.first_layer = 3, .end_layer = 3};
    EXPECT_EQ(first_difference(train_in_layout(task, layout), plain), "");
    for (const bool weight_grad : {true, false}) {
      layout = in_fp8({});
      layout.model.fp8->weight_grad = layout.model.fp8->dispatch = weight_grad;
      const TrainedOutcome found = train_in_layout(task, layout);
      EXPECT_NE(first_difference(found, plain), "");
      EXPECT_NEAR(found.steps[0].loss, plain.steps[0].loss, 0.01 * plain.steps[0].loss);
      double worst = 0;
      for (const auto& [name, gradient] : plain.gradients) {
        const double error = (found.gradients.at(name) - gradient).norm().item<double>();
        const double relative = error / (gradient.norm().item<double>() + 1e-3);
        EXPECT_LE(relative, kFp8GradientBound) << name;
        worst = std::max(worst, relative);
      }
      std::printf("%s: relative error of a gradient at most %.3f\n",
                  is_deepseek ? "deepseek" : "qwen", worst);
    }
  }
}

}  // namespace
}  // namespace moetron
