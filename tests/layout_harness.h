// Trains a tiny model on N rank threads in any layout, and gathers what it made by name: for the
// tests that compare layouts with one rank.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/arch/mesh_layout.h"
#include "moetron/arch/model_config.h"
#include "moetron/comm/slow_communicator.h"
#include "moetron/data/pattern_dataset.h"
#include "moetron/models/model_settings.h"
#include "moetron/train/train_step.h"
#include "moetron/train/whole_tensors.h"

namespace moetron {

// Everything that a layout may set; the defaults are one rank.
struct LayoutCase {
  int64_t world = 1;
  int64_t pp = 1;
  int64_t tp = 1;
  int64_t ep = 1;
  int64_t tpe = 1;
  ModelSettings model = {};  // without mesh
  BucketSettings buckets = {};
  ScheduleRequest schedule = {};
  std::vector<int64_t> stage_layers = {};  // chunk-major; empty: even

  std::string name() const;
};

// Of a matrix's numbers: 0 nothing, 1 the experts' product, 2 the expert part, 3 and more: layers,
// so many less 2 to an input.
RecomputeSpec recompute_of(int64_t number);

struct TrainedTask {
  ModelConfig config;
  int64_t steps = 5;
  int64_t seq_length = 16;
  int64_t micro_batch_size = 1;
  int64_t global_batch_size = 8;
  double lr = 1e-3;
  // Beside clipped gradients of about this size Adam follows their sizes, and does not turn the
  // rounding of one that is nearly zero into a whole update.
  double adam_eps = 1e-3;
  double clip_grad = 1.0;
  Filling filling = Filling::kWhole;
  const TokenDataset* dataset = nullptr;  // instead of the pattern
  bool keeps_gradients = true;            // of the first step, which is then accumulated twice
  bool with_receipts = false;             // of every step
  // Changes fresh values before the first step, on every rank.
  std::function<void(Parameter&)> prepare = {};
  // Changes what is about to train, given the rank's world.
  std::function<void(Model&, Communicator& world)> change_model = {};
  std::function<void(TrainStep&, Communicator& world)> change_training = {};
  std::function<void(MicroBatch&)> change_micro_batch = {};  // each of a step's
  std::optional<LinkSpeed> links = {};                       // how slow the ranks' communication is
  std::optional<PreferenceSpec> preferences = {};            // the dataset's samples are pairs
  int64_t evaluation_batch_size = 0;  // global, of two batches evaluated at the end; 0: none
};

struct TrainedOutcome {
  std::vector<StepResult> steps;  // as rank 0 sees them
  TensorsByName gradients;        // of the first step
  TensorsByName weights;          // at the end, the router's bias included
  double validation_loss = 0;
};

// Throws InternalError when replicas of a tensor differ, or when the ranks together do not hold all
// of it.
TrainedOutcome train_in_layout(const TrainedTask& task, const LayoutCase& layout);

// One rank's work, with the communicator given: for processes. Tensors are what this rank holds.
struct RankOutcome {
  std::vector<StepResult> steps;
  std::vector<NamedSlice> gradients, weights;  // copies
  double validation_loss = 0;
};
RankOutcome train_rank(const TrainedTask& task, const LayoutCase& layout, Communicator& world);

// Reports (as gtest failures) every difference beyond what rounding does on any processor: losses
// 1e-6, gradients and parameters 4e-6 of each tensor's norm (a gradient also 1e-6 of the norm of
// all gradients), the router's bias exactly.
void expect_equal_training(const TrainedOutcome& found, const TrainedOutcome& wanted,
                           const std::string& label);

// The first thing in which two trainings differ by any bit: a step's loss, aux loss, gradient
// norm, receipt (where both have one) or loads, the validation loss, a gradient or a weight by
// name. Empty if they are the same.
std::string first_difference(const TrainedOutcome& found, const TrainedOutcome& wanted);

// One line for the test's output: `label`, and hashes of the losses, gradients and weights. The
// bits are those of one kind of processor; scripts/compare_bits.py compares two builds on one
// machine.
void print_bits(const std::string& label, const TrainedOutcome& outcome);

// DeepSeek-V3: a dense layer and two with experts, latent attention, a bias and a sequence-wise
// loss. Qwen3-MoE: grouped queries with 2 key-value heads, batch-wise loss. Both have 8 heads, 8
// experts and an odd vocabulary.
// Dispatchers that differ: the overlap kinds are others of them under schedules with blocks.
constexpr bool is_plain(const NamedDispatcher& dispatcher) {
  return !std::string_view(dispatcher.name).starts_with("overlap_");
}
constexpr int64_t num_plain_dispatchers() {
  int64_t count = 0;
  for (const NamedDispatcher& dispatcher : kDispatchers) count += is_plain(dispatcher) ? 1 : 0;
  return count;
}
constexpr TokenDispatcher plain_dispatcher(int64_t number) {
  for (const NamedDispatcher& dispatcher : kDispatchers) {
    if (is_plain(dispatcher) && number-- == 0) return dispatcher.kind;
  }
  return {};
}

ModelConfig tiny_deepseek();
ModelConfig tiny_qwen_moe();
ModelConfig tiny_gated_qwen();  // Qwen2-MoE: a shared expert with a gate

}  // namespace moetron
