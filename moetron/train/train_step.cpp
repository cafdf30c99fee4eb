#include "moetron/train/train_step.h"

#include <cmath>

#include <ATen/ATen.h>

#include "moetron/autograd/memory_meter.h"
#include "moetron/autograd/parameter.h"
#include "moetron/models/model.h"
#include "moetron/moe/router.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

// The losses of all ranks of a stage, added in rank order; every rank sees each rank's own. Ranks
// that divide a micro-batch's layers all have its loss, and each its part of the auxiliary loss.
StepResult sum_losses(double loss, double aux_loss, const StepBatch& batch, int64_t step,
                      Mesh& mesh, c10::Device device) {
  Communicator& group = mesh.stage();
  const at::Tensor mine =
      at::tensor(std::vector<double>{loss, aux_loss}, at::kDouble).view({1, 2}).to(device);
  const at::Tensor gathered = at::empty({group.size(), 2}, mine.options());
  group.all_gather(gathered, mine).wait();
  const at::Tensor all = gathered.cpu();
  StepResult result;
  for (int member = 0; member < group.size(); ++member) {
    const double rank_loss = all[member][0].item<double>();
    const double rank_aux = all[member][1].item<double>();
    if (!std::isfinite(rank_loss) || !std::isfinite(rank_aux)) {
      throw NonFiniteError(concat("step ", step, ": the ",
                                  std::isfinite(rank_loss) ? "auxiliary loss" : "loss", " of rank ",
                                  group.members()[member], " is not finite; nothing was updated"));
    }
    const bool counts = coordinate(mesh.sizes(), group.members()[member], MeshAxis::kTp) == 0;
    if (counts) result.loss += rank_loss / static_cast<double>(batch.num_targets);
    result.aux_loss += rank_aux / static_cast<double>(batch.num_tokens);
  }
  return result;
}

}  // namespace

TrainStep::TrainStep(Model& model, Mesh& mesh, const TrainSettings& settings)
    : model_(model),
      mesh_(mesh),
      settings_(settings),
      buckets_(model.parameters(), mesh, settings.buckets),
      optimizer_(buckets_.owned(), settings.adamw),
      grad_norm_(buckets_.owned(), mesh, settings.buckets.distributed) {
  for (const auto& layer : model.chunk().layers) {
    std::vector<Parameter*>& parameters = parameters_of_layer_[layer.get()];
    layer->visit([&](Parameter& parameter) { parameters.push_back(&parameter); });
  }
}

// Values are waited for in the first forward, and gradients are complete in the last backward.
ChunkHooks TrainStep::hooks(bool is_first, bool is_last) {
  ChunkHooks hooks;
  if (is_first) {
    hooks.before_forward = [this](Layer& layer) {
      buckets_.wait_values(parameters_of_layer_.at(&layer));
    };
  }
  if (is_last) {
    hooks.after_backward = [this](Layer& layer) {
      const bool is_end = &layer == model_.chunk().layers.front().get();
      if (is_end) model_.fold_tied_grads();
      buckets_.parameters_done(parameters_of_layer_.at(&layer));
    };
  }
  return hooks;
}

StepResult TrainStep::accumulate(const StepBatch& batch, int64_t step) {
  buckets_.zero();
  const double d_loss = 1.0 / static_cast<double>(std::max<int64_t>(batch.num_targets, 1));
  const double d_aux = 1.0 / static_cast<double>(batch.num_tokens);
  // Kept on the device until the end: reading them would stop the host in every micro-batch.
  at::Tensor loss_sum, aux_sum;
  const auto add = [](at::Tensor& sum, const at::Tensor& value) {
    if (!value.defined()) return;
    sum = sum.defined() ? sum + value.to(at::kDouble) : value.to(at::kDouble);
  };
  ActivationMemory memory;
  for (size_t i = 0; i < batch.micro_batches.size(); ++i) {
    const MicroBatch& micro_batch = batch.micro_batches[i];
    ChunkHooks between = hooks(i == 0, i + 1 == batch.micro_batches.size());
    std::optional<MemoryMeter> meter;
    if (i == 0) between.meter = &meter.emplace();
    ChunkRun run;
    const at::Tensor loss = forward_chunk(model_.chunk(), {}, micro_batch, true, run, between);
    if (meter) memory = meter->measure();
    add(loss_sum, loss);
    add(aux_sum, run.aux_loss);
    backward_chunk(model_.chunk(), at::full_like(loss, d_loss), d_aux, micro_batch, run, between);
    if (meter) memory.peak_bytes = meter->measure().peak_bytes;
  }
  const double aux = aux_sum.defined() ? aux_sum.item<double>() : 0;
  StepResult result =
      sum_losses(loss_sum.item<double>(), aux, batch, step, mesh_, model_.options().device());
  result.activation_memory = std::move(memory);
  const PhaseScope phase(mesh_.world(), concat("step ", step, ", gradient reduction"));
  buckets_.reduce();
  return result;
}

StepResult TrainStep::run(const StepBatch& batch, int64_t step, double lr) {
  const PhaseScope phase(mesh_.world(), concat("step ", step));
  StepResult result = accumulate(batch, step);
  const GradNorm norm = grad_norm_.measure();
  if (!norm.non_finite.empty()) {
    throw NonFiniteError(concat("step ", step, ": the gradient of ", norm.non_finite,
                                ", summed over the ranks, is not finite; nothing was updated"));
  }
  result.grad_norm = norm.norm;
  optimizer_.step(lr, ++optimizer_steps_, clip_coefficient(norm.norm, settings_.clip_grad));
  buckets_.gather_values();
  result.balance = update_routers();
  return result;
}

std::optional<RouterBalance> TrainStep::update_routers() {
  const auto& routers = model_.routers();
  if (routers.empty()) return std::nullopt;
  std::vector<at::Tensor> counts;
  for (const auto& [layer, router] : routers) counts.push_back(router->counts());
  const at::Tensor all = at::stack(counts);  // [layers, experts]
  mesh_.stage().all_reduce(all).wait();
  const at::Tensor on_host = all.cpu();
  std::vector<LayerLoad> loads;
  for (size_t i = 0; i < routers.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    routers[i].router->counts().copy_(all[row]);
    routers[i].router->update_bias();
    const int64_t* first = on_host[row].const_data_ptr<int64_t>();
    loads.push_back(layer_load(routers[i].layer, {first, first + on_host.size(1)}));
  }
  return router_balance(std::move(loads));
}

double evaluate(Model& model, Mesh& mesh, const TokenDataset& dataset, int64_t num_batches,
                const BatchSettings& settings) {
  const PhaseScope phase(mesh.world(), "evaluation");
  const at::Tensor loss = at::zeros({1}, model.options().dtype(at::kDouble));
  int64_t num_targets = 0;
  for (int64_t i = 0; i < num_batches; ++i) {
    const StepBatch batch = load_step_batch(dataset, i * settings.global_batch_size, settings,
                                            mesh.data(), /*training=*/false);
    num_targets += batch.num_targets;
    for (const MicroBatch& micro_batch : batch.micro_batches) {
      ChunkRun run;
      loss.add_(forward_chunk(model.chunk(), {}, micro_batch, false, run));
    }
  }
  mesh.data().all_reduce(loss).wait();
  return loss.item<double>() / static_cast<double>(std::max<int64_t>(num_targets, 1));
}

}  // namespace moetron
