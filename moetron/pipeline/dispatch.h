// The contract between the router, the experts and whoever moves tokens between them (DESIGN: idea
// 1). Dispatch carries {hidden, probabilities} to the ranks that hold the experts; the experts
// return rows that are already weighted; combine only sums. Backward of dispatch returns {d_hidden,
// d_probabilities}.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

// Which experts each token goes to, and with what weight. Stored, never recomputed.
struct Routing {
  at::Tensor experts;        // [tokens, top_k] int64, global expert numbers
  at::Tensor probabilities;  // [tokens, top_k] fp32
};

// What a dispatcher must remember to combine, and to run backward. Each dispatcher derives its own.
class DispatchPlan {
 public:
  virtual ~DispatchPlan() = default;
};

struct Dispatched {
  at::Tensor rows;                       // [rows, hidden], sorted by local expert
  at::Tensor probabilities;              // [rows] fp32
  std::vector<int64_t> rows_per_expert;  // of the local experts
  std::shared_ptr<const DispatchPlan> plan;
};

struct DispatchGrads {
  at::Tensor d_hidden;         // [tokens, hidden]
  at::Tensor d_probabilities;  // [tokens, top_k] fp32
};

class Dispatcher {
 public:
  virtual ~Dispatcher() = default;

  // hidden [tokens, hidden]
  virtual Dispatched dispatch(const at::Tensor& hidden, const Routing& routing) = 0;
  // rows [rows, hidden], weighted -> [tokens, hidden], each token's rows summed
  virtual at::Tensor combine(const at::Tensor& rows, const DispatchPlan& plan) = 0;
  // d_hidden [tokens, hidden] -> [rows, hidden]
  virtual at::Tensor combine_backward(const at::Tensor& d_hidden, const DispatchPlan& plan) = 0;
  // d_rows [rows, hidden], d_probabilities [rows]
  virtual DispatchGrads dispatch_backward(const at::Tensor& d_rows,
                                          const at::Tensor& d_probabilities,
                                          const DispatchPlan& plan) = 0;
};

}  // namespace moetron
