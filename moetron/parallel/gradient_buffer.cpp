#include "moetron/parallel/gradient_buffer.h"

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/comm/communicator.h"

namespace moetron {

GradientBuffer::GradientBuffer(const std::vector<Parameter*>& parameters) {
  int64_t total = 0;
  for (const Parameter* parameter : parameters) {
    if (parameter->settings().trainable) total += parameter->value().numel();
  }
  flat_ = at::zeros({total}, at::kFloat);
  int64_t begin = 0;
  for (Parameter* parameter : parameters) {
    if (!parameter->settings().trainable) continue;
    const int64_t count = parameter->value().numel();
    parameter->set_grad_storage(flat_.narrow(0, begin, count).view(parameter->value().sizes()));
    begin += count;
  }
}

void GradientBuffer::zero() {
  flat_.zero_();
}

void GradientBuffer::all_reduce(Communicator& data_parallel) {
  if (data_parallel.size() > 1) data_parallel.all_reduce(flat_).wait();
}

}  // namespace moetron
