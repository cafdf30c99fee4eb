#include "moetron/comm/staging.h"

#include <ATen/ATen.h>

namespace moetron {
namespace {

// Host memory is pinned: the copies of a GPU are faster, and those back run beside the host.
at::Tensor empty_on(c10::Device device, const at::Tensor& like) {
  const bool pinned = device.is_cpu() && like.is_cuda();
  return at::empty(like.sizes(), like.options().device(device).pinned_memory(pinned));
}

at::Tensor copy_to(c10::Device device, const at::Tensor& tensor) {
  return empty_on(device, tensor).copy_(tensor);
}

bool reads_output(OperationKind kind) {
  return kind == OperationKind::kAllReduce || kind == OperationKind::kBroadcast;
}

class StagedWork : public PendingWork {
 public:
  StagedWork(std::shared_ptr<PendingWork> pending, at::Tensor result, at::Tensor destination)
      : pending_(std::move(pending)),
        result_(std::move(result)),
        destination_(std::move(destination)) {}

  void wait() override {
    if (pending_) pending_->wait();
    if (destination_.defined()) {
      destination_.copy_(result_, /*non_blocking=*/!destination_.is_cpu());
    }
  }

 private:
  std::shared_ptr<PendingWork> pending_;
  at::Tensor result_;
  at::Tensor destination_;
};

}  // namespace

std::shared_ptr<PendingWork> run_staged(const std::shared_ptr<Operation>& operation,
                                        c10::Device device, const StartOperation& start) {
  const at::Tensor& output = operation->output;
  const at::Tensor& input = operation->input;
  const bool is_there = (!output.defined() || output.device() == device) &&
                        (!input.defined() || input.device() == device);
  if (is_there) return start(operation);
  auto staged = std::make_shared<Operation>(*operation);
  if (input.defined()) staged->input = copy_to(device, input);
  if (output.defined()) {
    staged->output =
        reads_output(operation->kind) ? copy_to(device, output) : empty_on(device, output);
  }
  return std::make_shared<StagedWork>(start(staged), staged->output, output);
}

}  // namespace moetron
