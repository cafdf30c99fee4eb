// Low-rank updates and frozen parts in every layout of ranks and under every schedule.
#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layout_cases.h"
#include "moetron/autograd/adapter.h"
#include "moetron/base/error.h"
#include "moetron/models/model.h"
#include "pipeline_cases.h"

namespace moetron {
namespace {

// Other than zero everywhere, and the same in any layout.
void fill_by_name(Parameter& parameter) {
  double seed = 0;
  for (const char c : parameter.label()) seed += c;
  for (const NamedSlice& slice : parameter.slices(parameter.value())) {
    int64_t count = 1;
    for (const int64_t size : slice.global_shape) count *= size;
    at::Tensor part =
        at::arange(count, at::kDouble).mul(0.7).add(seed).sin().mul(0.1).view(slice.global_shape);
    for (int64_t dim = 0; dim < part.dim(); ++dim)
      part = part.narrow(dim, slice.begin[static_cast<size_t>(dim)], slice.view.size(dim));
    slice.view.copy_(part);
  }
}

bool is_b(const std::string& name) {
  return name.find(".lora_B.") != std::string::npos;
}

TrainedTask lora_task(bool is_deepseek, int64_t steps = 3) {
  TrainedTask task{.config = is_deepseek ? tiny_deepseek() : tiny_qwen_moe(), .steps = steps};
  task.clip_grad = 0;
  task.with_receipts = true;
  task.prepare = [](Parameter& parameter) {
    if (is_b(parameter.label())) fill_by_name(parameter);
  };
  return task;
}

LayoutCase with_lora(LayoutCase layout, const ModelConfig& config,
                     const std::vector<std::string>& targets = {}) {
  layout.model.lora =
      LoraConfig{.rank = 4, .alpha = 6, .targets = find_lora_targets(config, targets)};
  return layout;
}

int64_t count_elements(const TensorsByName& tensors) {
  int64_t count = 0;
  for (const auto& [name, tensor] : tensors) count += tensor.numel();
  return count;
}

// Every axis of the mesh, alone and with others; ZeRO-1; each plain dispatcher; key-value heads
// that ranks share; latent projections whole and divided, apart and in one; products one by one.
std::vector<LayoutCase> lora_layouts(bool is_deepseek) {
  std::vector<LayoutCase> layouts = {{.world = 2},
                                     {.world = 2, .tp = 2},
                                     {.world = 4, .tp = 4, .ep = 2, .tpe = 2},
                                     {.world = 2, .tpe = 2},
                                     {.world = 4, .tp = 2, .ep = 2, .tpe = 2},
                                     {.world = 4, .ep = 2, .tpe = 2},
                                     {.world = 4, .pp = 2, .tp = 2, .ep = 2}};
  for (int64_t number = 0; number < num_plain_dispatchers(); ++number) {
    layouts.push_back({.world = 4, .tp = 2, .ep = 2});
    layouts.back().model.experts.dispatcher = plain_dispatcher(number);
    layouts.back().buckets = {.distributed = true, .overlap_reduce = true, .overlap_gather = true};
    layouts.back().buckets.bucket_elements = 700;
  }
  layouts.push_back({.world = 2, .tp = 2, .ep = 2});
  layouts.back().model.experts.grouped_gemm = false;
  if (!is_deepseek) return layouts;
  for (const int64_t mla : {1, 2, 3}) {
    layouts.push_back({.world = 2, .tp = 2});
    layouts.back().model.latent_attention.replicate_down = mla % 2 == 1;
    layouts.back().model.latent_attention.fuse_down = mla >= 2;
    layouts.back().model.latent_attention.recompute_norms = mla >= 2;
  }
  return layouts;
}

TEST(LowRankUpdates, TrainInEveryLayoutAsOnOneRank) {
  for (const bool is_deepseek : {true, false}) {
    const TrainedTask task = lora_task(is_deepseek);
    const TrainedOutcome one = train_in_layout(task, with_lora({}, task.config));
    for (const LayoutCase& layout : lora_layouts(is_deepseek)) {
      const TrainedOutcome outcome = train_in_layout(task, with_lora(layout, task.config));
      expect_equal_training(outcome, one, layout.name());
    }
  }
}

// The updates alone have gradients, and the model stays what it is, the router's bias included.
TEST(LowRankUpdates, LeaveTheModelAsItIs) {
  for (const bool is_deepseek : {true, false}) {
    TrainedTask task = lora_task(is_deepseek);
    const LayoutCase layout = with_lora({}, task.config);
    const TrainedOutcome after = train_in_layout(task, layout);
    task.steps = 0;
    const TrainedOutcome before = train_in_layout(task, layout);
    for (const auto& [name, weight] : after.weights) {
      const bool is_factor = name.starts_with("base_model.model.");
      EXPECT_EQ(at::equal(weight, before.weights.at(name)), !is_factor) << name;
      EXPECT_EQ(after.gradients.count(name), is_factor ? 1 : 0) << name;
      if (is_factor) {
        EXPECT_GT(after.gradients.at(name).norm().item<double>(), 0) << name;
      }
    }
  }
}

// As PEFT begins: B is zero, so that the model computes what it did, and A has no gradient yet.
TEST(LowRankUpdates, BeginWithoutAnEffect) {
  for (const bool is_deepseek : {true, false}) {
    TrainedTask task = lora_task(is_deepseek, /*steps=*/1);
    task.prepare = {};
    const TrainedOutcome plain = train_in_layout(task, {});
    const TrainedOutcome updated = train_in_layout(task, with_lora({}, task.config));
    EXPECT_EQ(updated.steps[0].loss, plain.steps[0].loss);
    for (const auto& [name, gradient] : updated.gradients)
      EXPECT_EQ(gradient.norm().item<double>() > 0, is_b(name)) << name;
    task.steps = 0;
    for (const auto& [name, weight] : train_in_layout(task, with_lora({}, task.config)).weights) {
      if (name.find(".lora_A.") == std::string::npos) continue;
      const double bound = 1 / std::sqrt(static_cast<double>(weight.size(1)));
      EXPECT_LE(weight.abs().max().item<double>(), bound) << name;
      EXPECT_NEAR(weight.std().item<double>(), bound / std::sqrt(3.0), 0.25 * bound) << name;
    }
  }
}

TEST(LowRankUpdates, GiveTheSameBitsUnderEverySchedule) {
  for (const bool is_deepseek : {true, false}) {
    TrainedTask task = lora_task(is_deepseek, /*steps=*/2);
    task.seq_length = 8;
    task.config.num_layers = 4;
    const TrainedOutcome one = train_in_layout(task, with_lora({}, task.config));
    for (const ScheduleRequest& request : schedule_requests(2)) {
      const LayoutCase layout{.world = 2, .pp = 2, .schedule = request};
      EXPECT_EQ(first_difference(train_in_layout(task, with_lora(layout, task.config)), one), "")
          << layout.name();
    }
  }
}

TEST(LowRankUpdates, GiveTheSameBitsWithEveryRecomputation) {
  for (const bool is_deepseek : {true, false}) {
    const TrainedTask task = lora_task(is_deepseek, /*steps=*/2);
    LayoutCase layout = with_lora({.world = 2, .tp = 2, .ep = 2}, task.config);
    const TrainedOutcome plain = train_in_layout(task, layout);
    for (const int64_t recompute : {1, 2, 3, 4}) {
      layout.model.recompute = recompute_of(recompute);
      EXPECT_EQ(first_difference(train_in_layout(task, layout), plain), "") << layout.name();
    }
  }
}

// A part of what lies in one weight, and either of an expert's two.
TEST(LowRankUpdates, MayBeOfAnyLayers) {
  const std::vector<std::vector<std::string>> choices = {{"q_proj", "v_proj"},
                                                         {"up_proj", "o_proj"},
                                                         {"experts.gate_up_proj"},
                                                         {"experts.down_proj"},
                                                         {"kv_a_proj_with_mqa", "gate_proj"}};
  for (const bool is_deepseek : {true, false}) {
    const TrainedTask task = lora_task(is_deepseek, /*steps=*/2);
    for (const auto& targets : choices) {
      LayoutCase layout;
      try {
        layout = with_lora({}, task.config, targets);
      } catch (const ConfigError&) {
        continue;  // of the other family
      }
      const TrainedOutcome one = train_in_layout(task, layout);
      layout.world = layout.tp = layout.ep = 2;
      layout.model.latent_attention.fuse_down = true;
      expect_equal_training(train_in_layout(task, layout), one, targets.front());
    }
  }
}

// Switched off, the model is the one that the updates are for.
TEST(LowRankUpdates, CanBeSwitchedOff) {
  ModelSettings settings;
  const ModelConfig config = tiny_deepseek();
  Model plain(config);
  plain.initialize(3);
  settings.lora = with_lora({}, config).model.lora;
  Model updated(config, settings);
  updated.initialize(3);
  for (Parameter* parameter : updated.parameters())
    if (is_b(parameter->label())) fill_by_name(*parameter);
  const at::Tensor tokens = at::arange(12, at::kLong).view({1, 12});
  const at::Tensor with = updated.logits(tokens), without = plain.logits(tokens);
  EXPECT_GT((with - without).abs().max().item<double>(), 1e-3);
  updated.switch_adapters(false);
  EXPECT_TRUE(at::equal(updated.logits(tokens), without));
  updated.switch_adapters(true);
  EXPECT_TRUE(at::equal(updated.logits(tokens), with));
}

// A wrong rule of A's copies is seen: its gradient would be that of one rank's rows alone.
TEST(LowRankUpdates, NeedTheSumsOfTheirRanks) {
  const TrainedTask task = lora_task(true, /*steps=*/1);
  const TrainedOutcome one = train_in_layout(task, with_lora({}, task.config));
  LayoutCase layout = with_lora({.world = 2, .tp = 2}, task.config);
  TrainedTask broken = task;
  broken.change_model = [](Model& model, Communicator&) {
    for (Parameter* parameter : model.parameters()) {
      const bool is_a = parameter->label().find("q_b_proj.lora_A") != std::string::npos;
      if (is_a) const_cast<ParameterSettings&>(parameter->settings()).replicas = kTensorDivided;
    }
  };
  EXPECT_THROW(train_in_layout(broken, layout), InternalError);  // its replicas differ
  expect_equal_training(train_in_layout(task, layout), one, layout.name());
}

// Named parts stay as they are in any layout, also where a copy of a tied table is on another rank.
TEST(FrozenParts, AreReadAlone) {
  for (const bool is_deepseek : {true, false}) {
    for (const std::vector<std::string>& parts :
         {std::vector<std::string>{"embedding", "router"}, {"experts", "norms"}, {"attention"}}) {
      TrainedTask task{.config = is_deepseek ? tiny_deepseek() : tiny_qwen_moe(), .steps = 2};
      const TrainedOutcome whole = train_in_layout(task, {});
      const FrozenParts frozen = find_frozen_parts(task.config, parts, /*fuses_down=*/false);
      LayoutCase layout;
      layout.model.frozen = frozen;
      const TrainedOutcome one = train_in_layout(task, layout);
      TrainedTask untrained = task;
      untrained.steps = 0;
      const auto before = train_in_layout(untrained, {}).weights;
      for (const auto& [name, weight] : one.weights) {
        const bool is_trained = whole.gradients.count(name) == 1;
        EXPECT_EQ(one.gradients.count(name) == 1, is_trained && !frozen.contains(name)) << name;
        if (frozen.contains(name)) {
          EXPECT_TRUE(at::equal(before.at(name), weight)) << name;
        }
      }
      EXPECT_LT(count_elements(one.gradients), count_elements(whole.gradients));
      for (LayoutCase other : {LayoutCase{.world = 4, .tp = 2, .ep = 2, .tpe = 2},
                               LayoutCase{.world = 4, .pp = 2, .ep = 2}}) {
        other.model.frozen = frozen;
        other.buckets = {.distributed = true, .overlap_reduce = true};
        if (other.pp > 1) other.schedule.kind = ScheduleKind::kZbH1;
        expect_equal_training(train_in_layout(task, other), one, parts.front() + other.name());
      }
    }
  }
}

}  // namespace
}  // namespace moetron
