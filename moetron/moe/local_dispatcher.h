// The dispatcher of a rank that holds every expert: a permutation.
#pragma once

#include "moetron/pipeline/dispatch.h"

namespace moetron {

class LocalDispatcher final : public Dispatcher {
 public:
  explicit LocalDispatcher(int64_t num_experts) : num_experts_(num_experts) {}

  Dispatched dispatch(const at::Tensor& hidden, const Routing& routing) override;
  at::Tensor combine(const at::Tensor& rows, const DispatchPlan& plan) override;
  at::Tensor combine_backward(const at::Tensor& d_hidden, const DispatchPlan& plan) override;
  DispatchGrads dispatch_backward(const at::Tensor& d_rows, const at::Tensor& d_probabilities,
                                  const DispatchPlan& plan) override;

 private:
  int64_t num_experts_;
};

}  // namespace moetron
