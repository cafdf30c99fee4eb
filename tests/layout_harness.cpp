#include "layout_harness.h"

#include <cmath>
#include <cstring>
#include <iostream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/arch/config_reader.h"
#include "moetron/autograd/parameter.h"
#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/base/json.h"
#include "moetron/comm/thread_communicator.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/models/model.h"
#include "moetron/moe/router.h"
#include "moetron/run/division.h"
#include "moetron/schedule/stage_layout.h"

namespace moetron {
namespace {

constexpr const char* kDeepseek = R"({"model_type": "deepseek_v3", "vocab_size": 61,
  "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 8,
  "intermediate_size": 48, "moe_intermediate_size": 16, "n_routed_experts": 8,
  "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 4,
  "topk_group": 2, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
  "routed_scaling_factor": 2.5, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
  "qk_rope_head_dim": 8, "v_head_dim": 8, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.1})";

constexpr const char* kQwen = R"({"model_type": "qwen3_moe", "vocab_size": 61, "hidden_size": 32,
  "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8,
  "intermediate_size": 48, "moe_intermediate_size": 16, "num_experts": 8,
  "num_experts_per_tok": 2, "norm_topk_prob": true, "decoder_sparse_step": 1,
  "mlp_only_layers": [], "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true,
  "initializer_range": 0.1})";

Placement placement_of(const LayoutCase& layout) {
  return placement_of(layout.schedule.kind, static_cast<int>(layout.pp),
                      layout.schedule.loop_chunks);
}

void append_copies(const std::vector<NamedSlice>& slices, std::vector<NamedSlice>& all) {
  for (const NamedSlice& slice : slices) {
    all.push_back(slice);
    all.back().view = slice.view.detach().cpu().clone();
  }
}

void append_bytes(const void* data, size_t size, std::string& bytes) {
  bytes.append(static_cast<const char*>(data), size);
}

std::string hash_of(const std::string& bytes) {
  return hash_hex(std::as_bytes(std::span(bytes))).substr(0, 16);
}

std::string hash_of(const TensorsByName& tensors) {
  std::string bytes;
  for (const auto& [name, tensor] : tensors) {
    bytes += name;
    const at::Tensor values = tensor.contiguous();
    append_bytes(values.const_data_ptr(), values.nbytes(), bytes);
  }
  return hash_of(bytes);
}

void expect_close(const TensorsByName& found, const TensorsByName& wanted, double scale,
                  const std::string& label) {
  EXPECT_EQ(found.size(), wanted.size()) << label;
  for (const auto& [name, tensor] : wanted) {
    const auto other = found.find(name);
    if (other == found.end()) {
      ADD_FAILURE() << label << ": no " << name;
    } else if (name.ends_with("e_score_correction_bias")) {
      EXPECT_TRUE(at::equal(other->second, tensor)) << label << ": " << name;
    } else {
      EXPECT_LE(relative_difference(other->second, tensor, scale), kLayoutBound)
          << label << ": " << name;
    }
  }
}

const char* name_of(TokenDispatcher kind) {
  for (const NamedDispatcher& known : kDispatchers) {
    if (known.kind == kind) return known.name;
  }
  throw InternalError("a dispatcher without a name");
}

}  // namespace

RecomputeSpec recompute_of(int64_t number) {
  if (number >= 3) return {Recompute::kLayer, number - 2};
  if (number == 2) return {Recompute::kMoeLayer};
  return {number == 1 ? Recompute::kExpertProduct : Recompute::kNothing};
}

std::string LayoutCase::name() const {
  static constexpr const char* kRecompute[] = {"none", "moe-layer", "full"};
  const RecomputeSettings recompute = model.recompute.of_chunks();
  std::string text =
      concat("world ", world, " pp ", pp, " ", name_of(schedule.kind), " tp ", tp, " ep ", ep,
             " tpe ", tpe, ", ", name_of(model.experts.dispatcher), ", recompute ",
             kRecompute[static_cast<int>(recompute.kind)], " x", recompute.num_layers);
  if (schedule.kind == ScheduleKind::kDualPipeVPlus) {
    text += concat(", communication ", schedule.communication, ", cap ", schedule.activation_cap);
  }
  if (!stage_layers.empty()) text += ", layers";
  for (const int64_t count : stage_layers) text += concat(" ", count);
  if (model.recompute.kind == Recompute::kExpertProduct) text += ", mlp-recompute";
  text += model.experts.grouped_gemm ? ", grouped" : ", loop";
  if (model.latent_attention.replicate_down) text += ", replicate-l1";
  if (model.latent_attention.fuse_down) text += ", fuse-qkv";
  if (model.latent_attention.recompute_norms) text += ", norms recomputed";
  if (model.experts.capacity_factor) text += concat(", capacity ", *model.experts.capacity_factor);
  if (model.experts.pad_to_capacity) text += ", padded";
  if (buckets.distributed) text += ", zero-1";
  if (buckets.overlap_reduce) text += ", overlap-reduce";
  if (buckets.overlap_gather) text += ", overlap-gather";
  return text;
}

RankOutcome train_rank(const TrainedTask& task, const LayoutCase& layout, Communicator& world) {
  const ParallelSizes sizes =
      parallel_sizes(layout.world, layout.tp, layout.pp, layout.ep, layout.tpe);
  check_division(task.config, sizes, layout.model.latent_attention.replicate_down);
  Mesh mesh(world, sizes, head_copies(sizes, task.config), layout.model.lora.has_value());
  ModelSettings settings = layout.model;
  settings.mesh = &mesh;
  const std::vector<StageLayers> stages = stage_layout(
      placement_of(layout), task.config.num_layers, layout.stage_layers, "hetero-pipeline-stages");
  settings.stages = stages_of_rank(stages, placement_of(layout), mesh.pipeline().rank());
  settings.micro_batch_tokens = task.micro_batch_size * task.seq_length;
  Model model(task.config, settings);
  model.initialize(11);
  const at::NoGradGuard no_grad;
  if (task.prepare) {
    for (Parameter* parameter : model.parameters()) task.prepare(*parameter);
  }
  if (task.change_model) task.change_model(model, world);
  TrainStep train_step(model, mesh,
                       {.adamw = {.eps = task.adam_eps, .weight_decay = 0.1},
                        .clip_grad = task.clip_grad,
                        .preferences = task.preferences,
                        .buckets = layout.buckets,
                        .schedule = layout.schedule,
                        .stages = stages});
  train_step.optimizer().reset_masters();
  if (task.change_training) task.change_training(train_step, world);
  const PatternDataset pattern(task.seq_length, task.filling);
  const TokenDataset& dataset = task.dataset != nullptr ? *task.dataset : pattern;
  const BatchSettings batches{task.micro_batch_size, task.global_batch_size,
                              settings.options.device(), task.preferences.has_value()};
  RankOutcome outcome;
  for (int64_t step = 1; step <= task.steps; ++step) {
    const PhaseScope phase(world, concat("step ", step));  // as pretrain(): a batch is counted, too
    StepBatch batch = load_step_batch(dataset, (step - 1) * task.global_batch_size, batches, mesh,
                                      /*training=*/true);
    if (task.change_micro_batch) {
      for (MicroBatch& micro_batch : batch.micro_batches) task.change_micro_batch(micro_batch);
    }
    if (step == 1 && task.keeps_gradients) {
      train_step.accumulate(batch, step);
      for (const auto& [layer, router] : model.routers()) router->counts().zero_();
      for (const OwnedStretch& owned : train_step.owned()) {
        append_copies(owned.parameter->slices_of_stretch(owned.grad, owned.begin),
                      outcome.gradients);
      }
    }
    outcome.steps.push_back(train_step.run(batch, step, task.lr, task.with_receipts));
  }
  train_step.wait_values();
  append_copies(model.weights(), outcome.weights);
  append_copies(model.adapter_weights(), outcome.weights);
  if (task.evaluation_batch_size > 0) {
    BatchSettings evaluated = batches;
    evaluated.global_batch_size = task.evaluation_batch_size;
    outcome.validation_loss = train_step.evaluate(dataset, 2, evaluated).loss;
  }
  return outcome;
}

TrainedOutcome train_in_layout(const TrainedTask& task, const LayoutCase& layout) {
  TrainedOutcome outcome;
  WholeTensors gradients, weights;
  const int size = static_cast<int>(layout.world);
  const auto shared = make_thread_world(size, std::chrono::minutes(5));
  const auto join = [&](int rank) {
    auto world = join_thread_world(shared, rank);
    return task.links ? slow_down(std::move(world), *task.links) : std::move(world);
  };
  run_ranks_with(size, join, [&](Communicator& world) {
    RankOutcome mine = train_rank(task, layout, world);
    gradients.add(mine.gradients);
    weights.add(mine.weights);
    if (world.rank() == 0) {
      outcome.steps = std::move(mine.steps);
      outcome.validation_loss = mine.validation_loss;
    }
  });
  outcome.gradients = gradients.take();
  outcome.weights = weights.take();
  return outcome;
}

void expect_equal_training(const TrainedOutcome& found, const TrainedOutcome& wanted,
                           const std::string& label) {
  ASSERT_EQ(found.steps.size(), wanted.steps.size()) << label;
  for (size_t i = 0; i < wanted.steps.size(); ++i) {
    const StepResult& a = found.steps[i];
    const StepResult& b = wanted.steps[i];
    EXPECT_NEAR(a.loss, b.loss, kRounding * b.loss) << label << ", step " << i + 1;
    EXPECT_NEAR(a.aux_loss, b.aux_loss, kRounding * b.aux_loss) << label << ", step " << i + 1;
    EXPECT_NEAR(a.grad_norm / b.grad_norm, 1, 4 * kRounding) << label << ", step " << i + 1;
    ASSERT_EQ(a.balance.has_value(), b.balance.has_value()) << label;
    if (!b.balance) continue;
    for (size_t layer = 0; layer < b.balance->layers.size(); ++layer) {
      EXPECT_EQ(a.balance->layers[layer].load, b.balance->layers[layer].load)
          << label << ", step " << i + 1;
    }
  }
  // What is added up to make a gradient has the size of all of them, even where the sum is zero.
  expect_close(found.gradients, wanted.gradients, norm_of(wanted.gradients), label + ", gradients");
  expect_close(found.weights, wanted.weights, 0, label + ", weights");
}

std::string first_difference(const TrainedOutcome& found, const TrainedOutcome& wanted) {
  if (found.steps.size() != wanted.steps.size()) return "number of steps";
  for (size_t i = 0; i < wanted.steps.size(); ++i) {
    const StepResult& a = found.steps[i];
    const StepResult& b = wanted.steps[i];
    const auto differs = [i](const char* what, double x, double y) {
      return x == y ? "" : concat("step ", i + 1, ", ", what, ": ", x, " is not ", y);
    };
    std::string difference = differs("loss", a.loss, b.loss);
    if (difference.empty()) difference = differs("aux loss", a.aux_loss, b.aux_loss);
    if (difference.empty()) difference = differs("gradient norm", a.grad_norm, b.grad_norm);
    if (difference.empty() && a.receipt && b.receipt) {
      const std::string what = first_difference(*a.receipt, *b.receipt);
      if (!what.empty()) difference = concat("step ", i + 1, ", receipt: ", what);
    }
    if (!difference.empty()) return difference;
    for (size_t layer = 0; b.balance && layer < b.balance->layers.size(); ++layer) {
      if (!a.balance || a.balance->layers.at(layer).load != b.balance->layers[layer].load) {
        return concat("step ", i + 1, ", loads of router ", layer);
      }
    }
  }
  if (found.validation_loss != wanted.validation_loss) return "validation loss";
  for (const auto& [what, mine, theirs] :
       {std::tuple("gradient of ", &found.gradients, &wanted.gradients),
        std::tuple("weight ", &found.weights, &wanted.weights)}) {
    if (mine->size() != theirs->size()) return concat("number of each ", what);
    for (const auto& [name, tensor] : *theirs) {
      const auto other = mine->find(name);
      if (other == mine->end() || !at::equal(other->second, tensor)) return concat(what, name);
    }
  }
  return "";
}

void print_bits(const std::string& label, const TrainedOutcome& outcome) {
  std::string losses;
  for (const StepResult& step : outcome.steps) {
    for (const double value : {step.loss, step.aux_loss, step.grad_norm}) {
      append_bytes(&value, sizeof value, losses);
    }
  }
  std::cout << "bits of " << label << ": losses " << hash_of(losses) << " gradients "
            << hash_of(outcome.gradients) << " weights " << hash_of(outcome.weights) << std::endl;
}

ModelConfig tiny_deepseek() {
  ModelConfig config = read_model_config(parse_json(kDeepseek, "tiny"), "tiny");
  config.moe->bias_update_rate = 0.001;
  config.moe->aux_loss = AuxLossKind::kSequence;
  config.moe->aux_loss_coeff = 0.01;
  return config;
}

ModelConfig tiny_qwen_moe() {
  ModelConfig config = read_model_config(parse_json(kQwen, "tiny"), "tiny");
  config.moe->aux_loss = AuxLossKind::kBatch;
  config.moe->aux_loss_coeff = 0.01;
  return config;
}

ModelConfig tiny_gated_qwen() {
  ModelConfig config = tiny_qwen_moe();
  config.family = ModelConfig::Family::kQwen2Moe;
  config.attention_bias = true;
  config.qk_norm = false;
  config.moe->num_shared_experts = 2;
  config.moe->shared_intermediate_size = 2 * config.moe->expert_intermediate_size;
  config.moe->shared_expert_gate = true;
  return config;
}

}  // namespace moetron
