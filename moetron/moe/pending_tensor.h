// What ranks are sending each other.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"
#include "moetron/pipeline/value.h"

namespace moetron {

// A collective under way and what it fills.
struct PendingTensor {
  at::Tensor output;
  Work work;

  at::Tensor finish() {
    work.wait();
    return output;
  }
};

// Data and, where there are some, scales.
struct PendingValue {
  PendingTensor data;
  std::optional<PendingTensor> scales = {};

  Value finish() {
    Value value{.data = data.finish()};
    if (scales) value.scales = scales->finish();
    return value;
  }
};

}  // namespace moetron
