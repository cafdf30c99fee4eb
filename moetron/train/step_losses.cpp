#include "moetron/train/step_losses.h"

#include <cmath>

#include <ATen/ATen.h>

#include "moetron/models/model.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

// sum += value, in fp64, on the value's device: reading it would stop the host.
void accumulate(at::Tensor sum, const at::Tensor& value) {
  if (value.defined()) sum.add_(value.to(at::kDouble));
}

// [1 + layers] fp64: the loss, and each decoder layer's aux loss, as far as this rank has
// them.
at::Tensor sums_of_rank(const PipelineOutcome& outcome, Model& model) {
  const at::Tensor sums =
      at::zeros({1 + model.config().num_layers}, model.options().dtype(at::kDouble));
  for (const at::Tensor& loss : outcome.losses) accumulate(sums[0], loss);
  for (size_t chunk = 0; chunk < outcome.aux_losses.size(); ++chunk) {
    const StageLayers& stage = model.stages()[chunk];
    for (const std::vector<at::Tensor>& by_layer : outcome.aux_losses[chunk]) {
      for (int64_t i = 0; i < stage.count; ++i) {
        accumulate(sums[1 + stage.first + i],
                   by_layer[static_cast<size_t>(i + stage.has_embedding)]);
      }
    }
  }
  return sums;
}

}  // namespace

PendingLosses sum_losses(const PipelineOutcome& outcome, Model& model, Mesh& mesh, int64_t step) {
  const at::NoGradGuard no_grad;
  const at::Tensor mine = sums_of_rank(outcome, model);
  // Each entry comes from one rank of the pipeline, so adding changes no bit.
  if (mesh.pipeline().size() > 1) mesh.pipeline().all_reduce(mine).wait();
  Communicator& group = mesh.stage();
  const at::Tensor gathered = at::empty({group.size(), mine.size(0)}, mine.options());
  group.all_gather(gathered, mine.unsqueeze(0)).wait();
  return {gathered, mesh, step};
}

LossSums PendingLosses::finish() const {
  Communicator& group = mesh_->stage();
  const at::Tensor all = gathered_.cpu();
  LossSums sums;
  for (int member = 0; member < group.size(); ++member) {
    const double* of_member = all[member].const_data_ptr<double>();
    double aux = 0;
    for (int64_t i = 1; i < all.size(1); ++i) aux += of_member[i];
    if (!std::isfinite(of_member[0]) || !std::isfinite(aux)) {
      throw NonFiniteError(concat(
          "step ", step_, ": the ", std::isfinite(of_member[0]) ? "aux loss" : "loss", " of rank ",
          group.members()[member], mesh_->pipeline().size() > 1 ? "'s pipeline" : "",
          " is not finite; nothing was updated"));
    }
    // Ranks that divide a micro-batch's layers all have its loss, and each its part of the
    // aux loss.
    const bool counts = coordinate(mesh_->sizes(), group.members()[member], MeshAxis::kTp) == 0;
    if (counts) sums.loss += of_member[0];
    sums.aux_loss += aux;
  }
  return sums;
}

}  // namespace moetron
