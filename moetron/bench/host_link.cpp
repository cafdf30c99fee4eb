#include "moetron/bench/host_link.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "moetron/base/error.h"
#include "moetron/bench/bench_timer.h"
#include "moetron/pipeline/wrapped_layer.h"

namespace moetron {
namespace {

// Two copies under way.
struct Transfer {
  explicit Transfer(c10::Device device)
      : ready(device.type()), down_done(device.type()), up_done(device.type()) {}
  c10::Event ready, down_done, up_done;
};

class LinkedDispatcher final : public WrappedDispatcher {
 public:
  LinkedDispatcher(Dispatcher& local, HostLink& link) : WrappedDispatcher(local), link_(link) {}

  Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                    std::shared_ptr<const DispatchPlan> plan) override {
    return behind_transfer(WrappedDispatcher::start_combine(rows, std::move(plan)));
  }
  Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) override {
    return behind_transfer(
        WrappedDispatcher::start_dispatch_backward(d_rows, d_probabilities, std::move(plan)));
  }

 private:
  Pending<Dispatched> send_tokens(const Value& tokens, const Routing& routing) override {
    return behind_transfer(WrappedDispatcher::send_tokens(tokens, routing));
  }
  Pending<Value> send_grads(const Value& d_hidden,
                            std::shared_ptr<const DispatchPlan> plan) override {
    return behind_transfer(WrappedDispatcher::send_grads(d_hidden, std::move(plan)));
  }

  template <class Result>
  Pending<Result> behind_transfer(Pending<Result> local) {
    return Pending<Result>([wait = link_.start(), local = std::move(local)]() mutable {
      wait();
      return local.finish();
    });
  }

  HostLink& link_;
};

class LinkedLayer final : public WrappedLayer {
 public:
  LinkedLayer(std::unique_ptr<Layer> layer, HostLink& link)
      : WrappedLayer(std::move(layer)), dispatcher_(*WrappedLayer::dispatcher(), link) {}

  Dispatcher* dispatcher() override { return &dispatcher_; }

 private:
  LinkedDispatcher dispatcher_;
};

}  // namespace

HostLink::HostLink(c10::Device device) : device_(device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  streams_ = Streams{guard.getStreamFromGlobalPool(device), guard.getStreamFromGlobalPool(device)};
}

void HostLink::set_bytes(int64_t bytes) {
  if (streams_) {  // what is under way reads and writes the old memory
    streams_->down.synchronize();
    streams_->up.synchronize();
  }
  bytes_ = bytes;
  const auto on_gpu = at::TensorOptions(device_).dtype(at::kByte);
  const auto on_host = at::TensorOptions(at::kByte).pinned_memory(!device_.is_cpu());
  gpu_ = {at::zeros({bytes}, on_gpu), at::zeros({bytes}, on_gpu)};
  host_ = {at::zeros({bytes}, on_host), at::zeros({bytes}, on_host)};
}

std::function<void()> HostLink::start() {
  if (bytes_ == 0) return [] {};
  bytes_carried_ += bytes_;
  if (!streams_) {
    host_.received.copy_(gpu_.sent);
    gpu_.received.copy_(host_.sent);
    return [] {};
  }
  const auto transfer = std::make_shared<Transfer>(device_);
  transfer->ready.record(current_stream(device_));
  transfer->ready.block(streams_->down);
  transfer->ready.block(streams_->up);
  {
    const c10::StreamGuard guard(streams_->down);
    host_.received.copy_(gpu_.sent, /*non_blocking=*/true);
  }
  {
    const c10::StreamGuard guard(streams_->up);
    gpu_.received.copy_(host_.sent, /*non_blocking=*/true);
  }
  transfer->down_done.record(streams_->down);
  transfer->up_done.record(streams_->up);
  return [transfer, device = device_] {
    transfer->down_done.block(current_stream(device));
    transfer->up_done.block(current_stream(device));
  };
}

std::unique_ptr<Layer> put_on_link(std::unique_ptr<Layer> layer, HostLink& link) {
  MT_CHECK(layer->dispatcher() != nullptr, "a layer without experts needs no link");
  return std::make_unique<LinkedLayer>(std::move(layer), link);
}

}  // namespace moetron
