#include "moetron/train/train_step.h"

#include <algorithm>
#include <array>

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/data/token_dataset.h"
#include "moetron/kernels/choice_hold.h"
#include "moetron/models/model.h"
#include "moetron/moe/router.h"
#include "moetron/parallel/mesh.h"
#include "moetron/train/preference_loss.h"

namespace moetron {

TrainStep::TrainStep(Model& model, Mesh& mesh, const TrainSettings& settings)
    : model_(model),
      mesh_(mesh),
      settings_(settings),
      buckets_(model.parameters(), mesh, settings.buckets),
      optimizer_(buckets_.owned(), settings.adamw, settings.offload),
      grad_norm_(buckets_.owned(), mesh, settings.buckets.distributed),
      counts_(buckets_.owned(), mesh, settings.buckets.distributed),
      links_(mesh.pipeline(), placement_of(request(1)), model.options().device()),
      executor_(model.chunks(), links_, model.borders(links_.placement())) {
  const std::vector<StageLayers>& stages =
      settings.stages.empty() ? model.stages() : settings.stages;
  for (const Tie& tie : model.ties())
    ties_.push_back(std::make_unique<TiedWeight>(tie, mesh, links_.placement(), stages));
  for (const Chunk& chunk : model.chunks()) {
    for (const auto& layer : chunk.layers) {
      std::vector<Parameter*>& parameters = parameters_of_layer_[layer.get()];
      layer->visit([&](Parameter& parameter) { parameters.push_back(&parameter); });
    }
  }
}

ScheduleRequest TrainStep::request(int num_micro_batches) const {
  ScheduleRequest request = settings_.schedule;
  request.num_ranks = static_cast<int>(mesh_.sizes().pp);
  request.num_micro_batches = num_micro_batches;
  return request;
}

const PipelinePlan& TrainStep::plan(size_t num_micro_batches) {
  const int count = static_cast<int>(num_micro_batches);
  if (!plan_ || plan_->schedule.num_micro_batches != count) {
    plan_.emplace(make_schedule(request(count)));
  }
  return *plan_;
}

const PipelinePlan& TrainStep::evaluation_plan(size_t num_micro_batches) {
  const int count = static_cast<int>(num_micro_batches);
  if (!evaluation_plan_ || evaluation_plan_->schedule.num_micro_batches != count) {
    evaluation_plan_.emplace(make_forward_schedule(request(count)));
  }
  return *evaluation_plan_;
}

void TrainStep::share_tied_values() {
  for (const auto& tie : ties_) {
    if (Parameter* owner = tie->owner()) buckets_.wait_values(std::array{owner});
    tie->share_values();
  }
}

// Its gradients are whole but for what other ranks hold of them.
void TrainStep::layer_done(Layer& layer) {
  std::vector<Parameter*> done = parameters_of_layer_.at(&layer);
  for (const auto& tie : ties_) tie->fold(done);
  buckets_.parameters_done(done);
  for (Parameter* parameter : done) {
    const bool is_whole = mesh_.replicas(parameter->settings().replicas).size() == 1;
    if (is_whole) optimizer_.grad_done(*parameter);
  }
}

PipelineTask TrainStep::training_task(const StepBatch& batch, int64_t step) {
  PipelineTask task;
  task.micro_batches = batch.micro_batches;
  if (mesh_.sizes().pp > 1) {
    task.before_step = [this, step](const Step& next) {
      mesh_.world().set_phase(concat("step ", step, ", ", describe(next)));
    };
  }
  task.before_forward = [this](Layer& layer) {
    buckets_.wait_values(parameters_of_layer_.at(&layer));
  };
  task.layer_done = [this](Layer& layer) { layer_done(layer); };
  task.measures_memory = measures_memory_;
  task.trace = trace_;
  return task;
}

at::Tensor TrainStep::take_preferences(const StepBatch& batch, PipelineTask& task) const {
  if (batch.references.empty()) return {};
  MT_CHECK(settings_.preferences, "pairs are given to a loss that does not compare");
  const at::Tensor rewards = at::zeros({4}, model_.options().dtype(at::kDouble));
  task.late_loss = [this, &batch, rewards](int index, const at::Tensor& log_probabilities) {
    const auto at = static_cast<size_t>(index);
    PreferenceLoss made = preference_loss(log_probabilities, batch.references[at],
                                          batch.micro_batches[at], *settings_.preferences);
    rewards.add_(made.rewards);
    return std::move(made.late);
  };
  return rewards;
}

void TrainStep::sum_over_batch(const at::Tensor& sums) {
  if (!sums.defined()) return;
  if (mesh_.pipeline().size() > 1) mesh_.pipeline().all_reduce(sums).wait();
  mesh_.data().all_reduce(sums).wait();
}

TrainStep::Accumulated TrainStep::accumulate(const StepBatch& batch, int64_t step) {
  buckets_.clear();
  share_tied_values();
  for (const auto& tie : ties_) tie->clear_grads();
  PipelineOutcome outcome;
  PipelineTask task = training_task(batch, step);
  const at::Tensor rewards = take_preferences(batch, task);
  {
    const ChoiceHold hold;  // what is recomputed in this step repeats its forward
    outcome = executor_.run(plan(batch.micro_batches.size()), task);
  }
  const PhaseScope phase(mesh_.world(), concat("step ", step, ", gradient reduction"));
  sum_over_batch(rewards);
  Accumulated made{sum_losses(outcome, model_, mesh_, step), rewards,
                   std::move(outcome.activation_memory)};
  buckets_.reduce();
  return made;
}

ReceiptMeter& TrainStep::receipt_meter() {
  if (!receipt_meter_) {
    receipt_meter_.emplace(model_, mesh_, optimizer_.trained(), settings_.buckets.distributed);
  }
  return *receipt_meter_;
}

StepResult TrainStep::run(const StepBatch& batch, int64_t step, double lr, bool with_receipt) {
  const PhaseScope phase(mesh_.world(), concat("step ", step));
  Accumulated accumulated = accumulate(batch, step);
  const GradNorm norm = grad_norm_.measure();
  const LossSums sums = accumulated.losses.finish();  // a loss that is not finite is the cause
  if (!norm.non_finite.empty()) {
    throw NonFiniteError(concat("step ", step, ": the gradient of ", norm.non_finite,
                                ", summed over the ranks, is not finite; nothing was updated"));
  }
  StepResult result;
  result.loss = batch.mean(sums.loss);
  if (accumulated.rewards.defined())
    result.rewards = mean_rewards(accumulated.rewards, batch.divisor);
  result.aux_loss =
      batch.num_tokens > 0 ? sums.aux_loss / static_cast<double>(batch.num_tokens) : 0;
  result.activation_memory = std::move(accumulated.activation_memory);
  result.grad_norm = norm.norm;
  if (with_receipt) receipt_meter().take_gradients();
  if (settings_.count_zeros_in_grad) result.num_zeros_in_grad = counts_.zeros_in_grad();
  if (before_update_) before_update_();
  optimizer_.step(lr, ++optimizer_steps_, clip_coefficient(norm.norm, settings_.clip_grad));
  if (settings_.measure_params_norm) result.params_norm = counts_.norm_of_values();
  buckets_.gather_values();
  result.balance = update_routers();
  if (with_receipt) result.receipt = receipt_meter().finish(result.loss, result.aux_loss);
  return result;
}

StepRecord record_of(const StepResult& result) {
  StepRecord record;
  record.loss = result.loss;
  record.rewards = result.rewards;
  if (result.aux_loss != 0) record.aux_loss = result.aux_loss;
  record.grad_norm = result.grad_norm;
  record.params_norm = result.params_norm;
  record.num_zeros_in_grad = result.num_zeros_in_grad;
  record.router_balance = result.balance;
  record.activation_memory = result.activation_memory;
  record.receipt = result.receipt;
  return record;
}

std::optional<RouterBalance> TrainStep::update_routers() {
  const ModelConfig& config = model_.config();
  if (config.num_moe_layers() == 0) return std::nullopt;
  // [layers, experts]; of dense layers, and of those of other stages, zero.
  const at::Tensor counts =
      at::zeros({config.num_layers, config.moe->num_experts}, model_.options().dtype(at::kLong));
  for (const auto& [layer, router] : model_.routers()) counts[layer].copy_(router->counts());
  mesh_.stage().all_reduce(counts).wait();
  for (const auto& [layer, router] : model_.routers()) {
    router->counts().copy_(counts[layer]);
    router->update_bias();
  }
  if (mesh_.pipeline().size() > 1) mesh_.pipeline().all_reduce(counts).wait();
  const at::Tensor on_host = counts.cpu();
  std::vector<LayerLoad> loads;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!config.is_moe_layer(layer)) continue;
    const int64_t* first = on_host[layer].const_data_ptr<int64_t>();
    loads.push_back(layer_load(layer, {first, first + on_host.size(1)}));
  }
  return router_balance(std::move(loads));
}

PipelineTask TrainStep::forward_task(const StepBatch& batch) {
  PipelineTask task;
  task.micro_batches = batch.micro_batches;
  task.with_grad = false;
  return task;
}

Evaluation TrainStep::evaluate(const TokenDataset& dataset, int64_t num_batches,
                               const BatchSettings& settings) {
  const PhaseScope phase(mesh_.world(), "evaluation");
  wait_values();
  share_tied_values();
  const at::Tensor loss = at::zeros({1}, model_.options().dtype(at::kDouble));
  at::Tensor rewards;
  double divisor = 0;
  for (int64_t i = 0; i < num_batches; ++i) {
    const StepBatch batch = load_step_batch(dataset, i * settings.global_batch_size, settings,
                                            mesh_, /*training=*/false);
    divisor += batch.divisor;
    PipelineTask task = forward_task(batch);
    const at::Tensor of_batch = take_preferences(batch, task);
    for (const at::Tensor& part :
         executor_.run(evaluation_plan(batch.micro_batches.size()), task).losses) {
      if (part.defined()) loss.add_(part);
    }
    if (of_batch.defined()) rewards = rewards.defined() ? rewards.add(of_batch) : of_batch;
  }
  sum_over_batch(loss);
  sum_over_batch(rewards);
  Evaluation result;
  if (divisor > 0) result.loss = loss.item<double>() / divisor;
  if (rewards.defined()) result.rewards = mean_rewards(rewards, divisor);
  return result;
}

std::vector<double> TrainStep::log_probabilities(const TokenDataset& dataset,
                                                 const BatchSettings& settings) {
  const PhaseScope phase(mesh_.world(), "the reference's log-probabilities");
  wait_values();
  share_tied_values();
  const int64_t size = settings.micro_batch_size, ranks = mesh_.data().size();
  const at::Tensor sums = at::zeros({dataset.size()}, model_.options().dtype(at::kDouble));
  for (int64_t first = 0; first < dataset.size(); first += settings.global_batch_size) {
    const StepBatch batch = load_step_batch(dataset, first, settings, mesh_, /*training=*/false);
    PipelineTask task = forward_task(batch);
    task.late_loss = [&](int index, const at::Tensor& log_probabilities) {
      const MicroBatch& micro_batch = batch.micro_batches[static_cast<size_t>(index)];
      const at::Tensor rows = sum_log_probabilities(log_probabilities, micro_batch);
      // As data/sampler.h deals them.
      sums.narrow(0, first + (index * ranks + mesh_.data().rank()) * size, size).copy_(rows);
      return LateLoss{rows.sum(), {}};
    };
    executor_.run(evaluation_plan(batch.micro_batches.size()), task);
  }
  sum_over_batch(sums);  // each comes from one rank: adding changes no bit
  const at::Tensor on_host = sums.cpu();
  const double* begin = on_host.const_data_ptr<double>();
  return {begin, begin + on_host.numel()};
}

}  // namespace moetron
