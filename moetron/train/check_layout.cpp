#include "moetron/train/check_layout.h"

#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/data/pattern_dataset.h"
#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"
#include "moetron/run/shrunk_run.h"
#include "moetron/train/batches.h"
#include "moetron/train/run_settings.h"
#include "moetron/train/train_step.h"
#include "moetron/train/whole_tensors.h"

namespace moetron {
namespace {

constexpr int kMostSeeds = 3;

struct TrainedStep {
  StepResult result;  // as rank 0 sees it
  TensorsByName gradients, parameters;
};

PatternDataset dataset_for(const RunSpec& run) {
  const bool has_documents = run.data.reset_attention_mask || run.data.reset_position_ids;
  const bool has_room = run.batch.seq_length >= 8;
  return PatternDataset(run.batch.seq_length,
                        has_documents && has_room ? Filling::kDocuments : Filling::kWhole);
}

TrainedStep train_one_step(const RunSpec& run, uint64_t seed, const ChangeModel& change_model) {
  static_assert(kCheckedVocabulary == PatternDataset::kVocabulary);
  const PatternDataset dataset = dataset_for(run);
  const BatchSettings batches{run.batch.micro_batch_size, run.batch.global_batch_size};
  TrainSettings settings = train_settings(run);
  settings.buckets.bucket_elements = 3000;  // several
  TrainedStep trained;
  WholeTensors gradients, parameters;
  run_ranks(static_cast<int>(run.sizes.world), [&](Communicator& world) {
    const at::NoGradGuard no_grad;
    Mesh mesh(world, run.sizes, head_copies(run.sizes, run.model), run.lora.has_value());
    Model model(run.model, model_settings(run, mesh, at::kCPU));
    model.initialize(seed);
    if (change_model) change_model(model, world);
    TrainStep train_step(model, mesh, settings);
    const auto first_sample = static_cast<int64_t>(seed) * run.batch.global_batch_size;
    const StepBatch batch =
        load_step_batch(dataset, first_sample, batches, mesh, /*training=*/true);
    StepResult result = train_step.run(batch, 1, run.lr.lr);
    train_step.wait_values();
    for (const OwnedStretch& owned : train_step.owned()) {
      gradients.add(owned.parameter->slices_of_stretch(owned.grad, owned.begin));
    }
    parameters.add(model.weights());
    parameters.add(model.adapter_weights());
    if (world.rank() == 0) trained.result = std::move(result);
  });
  trained.gradients = gradients.take();
  trained.parameters = parameters.take();
  return trained;
}

// In the asked layout: whatever ends it is the layout's failure.
TrainedStep train_as_asked(const RunSpec& run, uint64_t seed, const ChangeModel& change_model) {
  try {
    return train_one_step(run, seed, change_model);
  } catch (const std::exception& error) {
    throw ConfigError(
        concat("check-layout: ", describe_axes(run.sizes), " does not train: ", first_line(error)));
  }
}

// Of one tensor that is missing: infinite.
FarthestTensor farthest(const TensorsByName& found, const TensorsByName& wanted, double scale) {
  FarthestTensor worst;
  for (const auto& [name, tensor] : wanted) {
    const auto other = found.find(name);
    const double difference = other == found.end()
                                  ? std::numeric_limits<double>::infinity()
                                  : relative_difference(other->second, tensor, scale);
    const bool is_worse = std::isnan(difference) || difference > worst.difference;
    if (is_worse) worst = {difference, name};
  }
  return worst;
}

// The first tensor with other bits; empty: none.
std::string first_other(const TensorsByName& found, const TensorsByName& wanted) {
  for (const auto& [name, tensor] : wanted) {
    const auto other = found.find(name);
    if (other == found.end() || !at::equal(other->second, tensor)) return name;
  }
  return "";
}

std::string first_other_bits(const TrainedStep& found, const TrainedStep& wanted) {
  if (found.result.loss != wanted.result.loss) return "the loss";
  const std::string gradient = first_other(found.gradients, wanted.gradients);
  if (!gradient.empty()) return "the gradient of " + gradient;
  return first_other(found.parameters, wanted.parameters);
}

bool same_choices(const StepResult& a, const StepResult& b) {
  if (!a.balance || !b.balance) return true;
  for (size_t i = 0; i < b.balance->layers.size(); ++i) {
    if (a.balance->layers.at(i).load != b.balance->layers[i].load) return false;
  }
  return true;
}

std::string printed(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", value);
  return text;
}

// Empty: all is within rounding, and the bits are those that are promised.
std::string failure_of(const LayoutCheck& check) {
  const std::string layout = concat("check-layout: in ", describe_axes(check.shrunk.sizes), ", ");
  const auto beyond = [&](const std::string& what, double difference) {
    return concat(layout, what, " is ", printed(difference),
                  " of its size away from one rank's; rounding explains ", printed(kLayoutBound));
  };
  // Written so that NaN is beyond.
  if (!(check.loss_difference <= kLayoutBound)) return beyond("the loss", check.loss_difference);
  if (!(check.gradient.difference <= kLayoutBound))
    return beyond("the gradient of " + check.gradient.name, check.gradient.difference);
  if (!(check.parameter.difference <= kLayoutBound))
    return beyond(check.parameter.name, check.parameter.difference);
  if (check.other_bits.empty()) return "";
  return concat(layout, check.other_bits, " has other bits than without a pipeline");
}

// What trained: layout, schedule and model.
std::string describe_run(const LayoutCheck& check) {
  const RunSpec& shrunk = check.shrunk;
  const ModelConfig& model = shrunk.model;
  std::string text = concat("checked     ", describe_axes(shrunk.sizes), " on ", shrunk.sizes.world,
                            " of ", check.asked.sizes.world, " ranks\n");
  text += concat("schedule    ", name_of(shrunk.pipeline.request.kind), ", ",
                 shrunk.batch.num_micro_batches, " micro-batches of ", shrunk.batch.tokens(),
                 " tokens\n");
  text += concat("model       ", family_name(model.family), ", ", model.num_layers, " of ",
                 check.asked.model.num_layers, " layers, hidden ", model.hidden_size);
  if (model.num_moe_layers() > 0)
    text += concat(", ", model.moe->num_experts, " of ", check.asked.model.moe->num_experts,
                   " experts");
  return text +
         concat("; fp32 on the CPU", check.asked.fp8 ? ", without products in 8 bits" : "", "\n");
}

}  // namespace

LayoutCheck check_layout(const RunSpec& run, const ChangeModel& change_model) {
  LayoutCheck check{.asked = run, .shrunk = shrink_run(run)};
  const RunSpec plain = without_pipeline(check.shrunk);
  for (int seed = 1; seed <= kMostSeeds; ++seed) {
    const auto key = static_cast<uint64_t>(seed);
    const TrainedStep asked = train_as_asked(check.shrunk, key, change_model);
    const TrainedStep one = train_one_step(on_one_rank(check.shrunk), key, {});
    check.loss_difference = std::abs(asked.result.loss - one.result.loss) / one.result.loss;
    check.gradient = farthest(asked.gradients, one.gradients, norm_of(one.gradients));
    check.parameter = farthest(asked.parameters, one.parameters, 0);
    check.other_bits =
        first_other_bits(asked, plain.sizes.world == 1 ? one : train_one_step(plain, key, {}));
    check.failure = failure_of(check);
    if (check.failure.empty() || same_choices(asked.result, one.result)) break;
  }
  return check;
}

std::string describe(const LayoutCheck& check) {
  const auto tensor = [](const FarthestTensor& farthest) {
    return concat(printed(farthest.difference), farthest.name.empty() ? "" : ", ", farthest.name);
  };
  return describe_run(check) +
         concat("loss        ", printed(check.loss_difference), " away from one rank's\n",
                "gradients   ", tensor(check.gradient), "\n", "parameters  ",
                tensor(check.parameter), "\n", "bits        ",
                check.other_bits.empty() ? "the same as without a pipeline"
                                         : check.other_bits + " differs from without a pipeline",
                "\n");
}

void run_layout_check(const RunSpec& run) {
  for (const std::string& remark : run.remarks) log_info(remark);
  const LayoutCheck check = check_layout(run);
  std::cout << describe(check) << std::flush;
  MT_CHECK_CONFIG(check.failure.empty(), check.failure);
}

}  // namespace moetron
