// A tensor that ranks are sending each other.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"

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

}  // namespace moetron
