#include "moetron/train/train_step.h"

#include <cmath>

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/comm/communicator.h"
#include "moetron/models/model.h"
#include "moetron/moe/router.h"
#include "moetron/optim/grad_norm.h"

namespace moetron {
namespace {

// The ranks' {loss, aux loss} sums, added in rank order; every rank sees each rank's own.
StepResult sum_losses(double loss, double aux_loss, const StepBatch& batch, int64_t step,
                      Communicator& group) {
  const at::Tensor mine = at::tensor(std::vector<double>{loss, aux_loss}, at::kDouble).view({1, 2});
  const at::Tensor all = at::empty({group.size(), 2}, at::kDouble);
  group.all_gather(all, mine).wait();
  StepResult result;
  for (int rank = 0; rank < group.size(); ++rank) {
    const double rank_loss = all[rank][0].item<double>();
    const double rank_aux = all[rank][1].item<double>();
    if (!std::isfinite(rank_loss) || !std::isfinite(rank_aux)) {
      throw NonFiniteError(concat("step ", step, ": the ",
                                  std::isfinite(rank_loss) ? "auxiliary loss" : "loss", " of rank ",
                                  rank, " is not finite; nothing was updated"));
    }
    result.loss += rank_loss / static_cast<double>(batch.num_targets);
    result.aux_loss += rank_aux / static_cast<double>(batch.num_tokens);
  }
  return result;
}

}  // namespace

TrainStep::TrainStep(Model& model, AdamW& optimizer, Communicator& data_parallel, double clip_grad)
    : model_(model),
      optimizer_(optimizer),
      data_parallel_(data_parallel),
      clip_grad_(clip_grad),
      gradients_(model.parameters()) {}

StepResult TrainStep::accumulate(const StepBatch& batch, int64_t step) {
  gradients_.zero();
  const double d_loss = 1.0 / static_cast<double>(std::max<int64_t>(batch.num_targets, 1));
  const double d_aux = 1.0 / static_cast<double>(batch.num_tokens);
  double loss_sum = 0;
  double aux_sum = 0;
  for (const MicroBatch& micro_batch : batch.micro_batches) {
    ChunkRun run;
    const at::Tensor loss = forward_chunk(model_.chunk(), {}, micro_batch, true, run);
    loss_sum += loss.item<double>();
    if (run.aux_loss.defined()) aux_sum += run.aux_loss.item<double>();
    backward_chunk(model_.chunk(), at::full_like(loss, d_loss), d_aux, run);
  }
  StepResult result = sum_losses(loss_sum, aux_sum, batch, step, data_parallel_);
  model_.fold_tied_grads();
  const PhaseScope phase(data_parallel_, concat("step ", step, ", gradient reduction"));
  gradients_.all_reduce(data_parallel_);
  return result;
}

StepResult TrainStep::run(const StepBatch& batch, int64_t step, double lr) {
  const PhaseScope phase(data_parallel_, concat("step ", step));
  StepResult result = accumulate(batch, step);
  const GradNorm norm = global_grad_norm(model_.parameters());
  if (!norm.non_finite.empty()) {
    throw NonFiniteError(concat("step ", step, ": the gradient of ", norm.non_finite,
                                ", summed over the ranks, is not finite; nothing was updated"));
  }
  result.grad_norm = norm.norm;
  optimizer_.step(lr, ++optimizer_steps_, clip_coefficient(norm.norm, clip_grad_));
  result.balance = update_routers();
  return result;
}

std::optional<RouterBalance> TrainStep::update_routers() {
  const auto& routers = model_.routers();
  if (routers.empty()) return std::nullopt;
  std::vector<at::Tensor> counts;
  for (Router* router : routers) counts.push_back(router->counts());
  const at::Tensor all = at::stack(counts);  // [layers, experts]
  data_parallel_.all_reduce(all).wait();
  const at::Tensor load = all.to(at::kDouble);
  const at::Tensor fullest = load.amax(1) / load.mean(1).clamp_min(1e-9);  // [layers]
  const RouterBalance balance{.max_load = fullest.max().item<double>(),
                              .mean_load = fullest.mean().item<double>(),
                              .idle_share = all.eq(0).to(at::kDouble).mean().item<double>()};
  for (size_t i = 0; i < routers.size(); ++i) {
    routers[i]->counts().copy_(all[static_cast<int64_t>(i)]);
    routers[i]->update_bias();
  }
  return balance;
}

double evaluate(Model& model, const TokenDataset& dataset, int64_t num_batches,
                const BatchSettings& settings, Communicator& data_parallel) {
  const PhaseScope phase(data_parallel, "evaluation");
  const at::Tensor loss = at::zeros({1}, at::kDouble);
  int64_t num_targets = 0;
  for (int64_t i = 0; i < num_batches; ++i) {
    const StepBatch batch = load_step_batch(dataset, i * settings.global_batch_size, settings,
                                            data_parallel, /*training=*/false);
    num_targets += batch.num_targets;
    for (const MicroBatch& micro_batch : batch.micro_batches) {
      ChunkRun run;
      loss.add_(forward_chunk(model.chunk(), {}, micro_batch, false, run));
    }
  }
  data_parallel.all_reduce(loss).wait();
  return loss.item<double>() / static_cast<double>(std::max<int64_t>(num_targets, 1));
}

}  // namespace moetron
