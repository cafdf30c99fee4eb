// What stands for a network on one GPU: copies between its memory and pinned host memory, both ways
// at once, on the copy engines. They take the time of an InfiniBand link of about 50 GB/s each way,
// and no multiprocessor, unlike the kernels of NCCL and DeepEP.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include "moetron/pipeline/layer.h"

namespace moetron {

class HostLink {
 public:
  // Of a CPU: copies within its memory, done when they are started.
  explicit HostLink(c10::Device device);

  // What later transfers carry each way; 0: nothing, in no time.
  void set_bytes(int64_t bytes);

  // Begins a transfer behind what the current stream has queued, and behind the transfers before
  // it. The result, called once, makes the stream that is current then wait for its end.
  std::function<void()> start();

  int64_t bytes_carried() const { return bytes_carried_; }  // each way

 private:
  struct Streams {
    c10::Stream down, up;
  };
  // What a transfer reads and writes. No transfer's bytes mean anything.
  struct Side {
    at::Tensor sent, received;  // [bytes]
  };

  c10::Device device_;
  std::optional<Streams> streams_;  // of a GPU
  Side gpu_, host_;
  int64_t bytes_ = 0;
  int64_t bytes_carried_ = 0;
};

// The same layer, whose dispatch, combine and their backwards each wait for a transfer that begins
// where a network's would: the results are the same bits. The link outlives it.
std::unique_ptr<Layer> put_on_link(std::unique_ptr<Layer> layer, HostLink& link);

}  // namespace moetron
